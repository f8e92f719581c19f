"""Random sequences of operations on random configs: after each, the store and the oracle show the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from agree import WIDE, close, pair, same, same_scores, same_state, same_views
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from oracle import Habituation

pytestmark = pytest.mark.filterwarnings("ignore:the store has no channel")

seeds = st.integers(0, 2**32 - 1)
lengths = st.lists(st.integers(1, 7), min_size=1, max_size=3)
functionals = st.sampled_from(["coverage", "progress", "potential", "mean"])

configs = st.fixed_dictionaries(
    {
        "dim": st.integers(3, 40),
        "k": st.integers(1, 6),
        "tau": st.sampled_from([-0.2, 0.1, 0.2, 0.5]),
        "power": st.integers(1, 3),
        "epsilon": st.sampled_from([1e-3, 0.02, 0.3]),
        "gamma": st.sampled_from([0.0, 0.4, 0.7, 0.9]),
        "trace": st.sampled_from([0.0, 0.0, 0.3, 1.0]),
        "trace_size": st.sampled_from([2, 4, 64]),
        "max_out": st.sampled_from([1, 2, 3, 32]),
        "min_novelty": st.sampled_from([0.1, 0.3, 0.6, 0.9]),
        "min_worth": st.sampled_from([0.0, 0.0, 0.5, 1.2]),
        "w_novelty": st.sampled_from([1.0, 0.5]),
        "w_surprise": st.sampled_from([0.0, 0.7]),
        "w_drive": st.sampled_from([0.0, 0.8]),
        "rho": st.sampled_from([0.0, 0.2, 1.0]),
        "fade": st.sampled_from([0.0, 0.5, 1.0]),
        "sigma_0": st.sampled_from([0.02, 0.5]),
        "equation": st.sampled_from(["stopping", "return"]),
        "capacity": st.sampled_from([None, 4, 8, 12]),
        "half_life": st.sampled_from([1, 2, 1024]),
        "e_lo": st.just(0.05),
        "e_hi": st.sampled_from([0.3, 0.9]),
        "d_lo": st.sampled_from([0.3, 0.52]),
        "d_hi": st.sampled_from([0.6, 0.99]),
        "keep_episodes": st.booleans(),
    }
)


def kernels(k: str) -> st.SearchStrategy[dict[str, Any]]:
    """How memories answer to the queries of one call: sharper or broader than the store learned, or as it did."""
    return st.fixed_dictionaries(
        {},
        optional={
            k: st.sampled_from([1, 2, 40]),
            "power": st.sampled_from([1, 5, 16]),
            "tau": st.sampled_from([-1.0, 0.0, 0.5]),
        },
    )


class Agreement(RuleBasedStateMachine):
    """One store, one oracle, one life."""

    def __init__(self) -> None:
        super().__init__()
        self.names = 0
        self.frozen: tuple[Any, Any] | None = None

    # ------------------------------------------------------------------ data

    def steps(self, seed: int, n: int) -> np.ndarray:
        """Steps around a few directions, some exactly on them, so that steps merge and cosines tie."""
        rng = np.random.default_rng(seed)
        noise = rng.choice([0.0, 0.1, 0.4, 1.0], size=(n, 1))
        scale = 10.0 ** rng.uniform(-3, 3, size=(n, 1))
        x = self.centres[rng.integers(len(self.centres), size=n)]
        return (scale * (x + noise * rng.normal(size=(n, self.dim)))).astype(np.float32)

    def episodes(self, seed: int, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return self.steps(seed, int(offsets[-1])), offsets

    def scalars(self, seed: int, n: int) -> np.ndarray | None:
        """Drives for every scalar channel, a third of them not observed; sometimes none at all."""
        rng = np.random.default_rng(seed + 1)
        columns = sum(channel.terminal is None for channel in self.oracle.state.channels)
        if not columns or rng.random() < 0.2:
            return None
        low = 0.0 if self.oracle.settings.equation == "stopping" else -1.0
        table = rng.uniform(low, 1.0, size=(n, columns)).astype(np.float32)
        table[rng.random(table.shape) < 0.33] = np.nan
        return table

    def name(self) -> str:
        self.names += 1
        return f"channel {self.names}"

    # ------------------------------------------------------------------ beginnings

    @initialize(config=configs, seed=seeds, centres=st.integers(2, 8), calibrated=st.booleans())
    def begin(self, config: dict[str, Any], seed: int, centres: int, calibrated: bool) -> None:
        self.dim = config["dim"]
        self.centres = np.random.default_rng(seed).normal(size=(centres, self.dim))
        self.store, self.oracle = pair(**config)
        if calibrated:
            steps, offsets = self.episodes(seed, [6, 1, 5])
            expected = self.oracle.calibrate(steps, offsets)
            actual = self.store.calibrate(steps, offsets)
            for key, value in expected.items():
                close(actual[key], value, key)
                close(getattr(self.store.config, key), value, key)

    # ------------------------------------------------------------------ channels

    @rule(seed=seeds, ranged=st.booleans())
    @precondition(lambda self: len(self.oracle.channels) < 4)
    def add_terminal(self, seed: int, ranged: bool) -> None:
        name, key = self.name(), self.steps(seed, 1)[0]
        limits = (0.2, 0.9) if ranged else (None, None)
        assert self.store.add_terminal(name, key, *limits) == self.oracle.add_terminal(name, key, *limits)

    @rule()
    @precondition(lambda self: len(self.oracle.channels) < 4)
    def add_channel(self) -> None:
        name = self.name()
        assert self.store.add_channel(name) == self.oracle.add_channel(name)

    @rule(pick=st.integers(0, 3))
    @precondition(lambda self: len(self.oracle.channels) > 2)
    def remove_channel(self, pick: int) -> None:
        name = self.oracle.channels[pick % len(self.oracle.channels)]
        self.store.remove_channel(name)
        self.oracle.remove_channel(name)

    # ------------------------------------------------------------------ writing

    @rule(seed=seeds, sizes=lengths, last_only=st.booleans(), named=st.booleans())
    def observe(self, seed: int, sizes: list[int], last_only: bool, named: bool) -> None:
        self.write(seed, sizes, last_only, propose=False, named=named)

    @rule(seed=seeds)
    @precondition(lambda self: self.oracle.state.clock < 20)
    def observe_many(self, seed: int) -> None:
        """Enough for the histograms of edge support to be believed."""
        self.write(seed, [6] * 10, last_only=True, propose=False)

    @rule(seed=seeds, sizes=lengths)
    def propose(self, seed: int, sizes: list[int]) -> None:
        self.write(seed, sizes, last_only=False, propose=True)

    def write(self, seed: int, sizes: list[int], last_only: bool, propose: bool, named: bool = False) -> None:
        steps, offsets = self.episodes(seed, sizes)
        drives = self.scalars(seed, len(sizes) if last_only else len(steps))
        texts = [f"{seed}/{t}" if t % 3 else None for t in range(len(steps))] if seed % 2 else None
        arguments: dict[str, Any] = {"drives": drives, "texts": texts, "propose": propose}
        if named:
            arguments["episode_ids"] = [self.oracle.next_episode + 7 * e for e in range(len(sizes))][::-1]
        actual = self.store.observe(steps, offsets, **arguments)
        expected = self.oracle.observe(steps, offsets, **arguments)
        same(actual.episode_ids, expected.episode_ids, "episode ids")
        same(actual.memory_ids, expected.memory_ids, "memory ids")
        same(actual.outcome, expected.outcome, "outcome")
        assert actual.backups == expected.backups

    @rule(seed=seeds, n=st.integers(1, 4))
    @precondition(lambda self: len(self.oracle) + 4 <= (self.oracle.settings.capacity or 60))
    def insert(self, seed: int, n: int) -> None:
        keys, drives = self.steps(seed, n), self.scalars(seed, n)
        same(self.store.insert(keys, drives=drives), self.oracle.insert(keys, drives=drives), "inserted ids")

    @rule(
        order=st.sampled_from(["prioritized", "reverse", "full"]),
        need=st.sampled_from(["frequency", "uniform", "starts"]),
        budget=st.sampled_from([None, None, 0, 1, 3, 10]),
        tol=st.sampled_from([1e-2, 1e-4, 1e-6]),
        consolidate=st.booleans(),
        max_drift=st.sampled_from([None, 0.0, 0.05, 10.0]),
        floor=st.sampled_from([0.0, 0.0, 1e-10, 0.05]),
        extend=st.booleans(),
    )
    def replay(
        self,
        order: str,
        need: Any,
        budget: int | None,
        tol: float,
        consolidate: bool,
        max_drift: float | None,
        floor: float,
        extend: bool,
    ) -> None:
        if need == "starts":
            need = self.oracle.ids[::2].tolist() or "uniform"
        arguments: dict[str, Any] = {"order": order, "need": need, "budget": budget, "tol": tol}
        if consolidate:
            arguments |= {"consolidate": True, "max_drift": max_drift}
        if order == "prioritized" and budget is not None:
            arguments |= {"floor": floor, "extend": extend}
        actual, expected = self.store.replay(**arguments), self.oracle.replay(**arguments)
        assert actual.trail == expected.trail
        assert actual.refused == expected.refused
        assert actual.observed == expected.observed
        assert actual.backups == expected.backups
        assert actual.converged == expected.converged
        close(actual.residual, expected.residual, "residual", {"rtol": 1e-5, "atol": 1e-9})
        if expected.drift is not None:
            close(actual.drift, expected.drift, "drift", {"rtol": 1e-5, "atol": 1e-8})

    # ------------------------------------------------------------------ history

    @rule(pick=st.integers(0, 100))
    @precondition(lambda self: self.oracle.settings.keep_episodes and self.oracle.next_episode > 0)
    def veto_episode(self, pick: int) -> None:
        known = self.oracle.episodes()
        if known:
            episode = known[pick % len(known)]
            self.store.veto(episode=episode)
            self.oracle.veto(episode=episode)

    @rule(picks=st.lists(st.integers(0, 100), max_size=3))
    @precondition(lambda self: self.oracle.settings.keep_episodes and self.oracle.next_episode > 0)
    def veto_several_episodes(self, picks: list[int]) -> None:
        known = self.oracle.episodes()
        if known:
            episodes = [known[pick % len(known)] for pick in picks]
            self.store.veto(episodes=episodes)
            self.oracle.veto(episodes=episodes)

    @rule(keep=st.integers(0, 3))
    @precondition(lambda self: self.oracle.settings.keep_episodes)
    def checkpoint(self, keep: int) -> None:
        digest = self.store.digest()
        self.store.checkpoint(keep)
        assert self.store.digest() == digest

    @rule(pick=st.integers(0, 100))
    @precondition(lambda self: self.oracle.settings.keep_episodes)
    def veto_memory(self, pick: int) -> None:
        ordinary = self.oracle.ids[~self.oracle.is_terminal].tolist()
        if ordinary:
            memory = ordinary[pick % len(ordinary)]
            self.store.veto(memory=memory)
            self.oracle.veto(memory=memory)

    @rule(by_file=st.booleans())
    def save_and_load(self, by_file: bool) -> None:
        digest = self.store.digest()
        if by_file:
            with tempfile.TemporaryDirectory() as folder:
                self.store.save(Path(folder) / "store.safetensors")
                self.store = sw.ValueStore.load(Path(folder) / "store.safetensors")
        else:
            self.store = sw.ValueStore.from_bytes(self.store.to_bytes())
        assert self.store.digest() == digest

    # ------------------------------------------------------------------ reading

    @rule(
        seed=seeds,
        sizes=lengths,
        functional=functionals,
        context=st.sampled_from([True, False, 0, 1, 2, "each"]),
        weighted=st.sampled_from(["default", "signed", "positive"]),
        habituated=st.booleans(),
        discount=st.sampled_from([1.0, 0.9]),
    )
    def score(
        self,
        seed: int,
        sizes: list[int],
        functional: str,
        context: Any,
        weighted: str,
        habituated: bool,
        discount: float,
    ) -> None:
        steps, offsets = self.episodes(seed, sizes)
        rng = np.random.default_rng(seed)
        arguments: dict[str, Any] = {"functional": functional, "context": context, "discount": discount}
        if context == "each":
            arguments["context"] = rng.integers(0, 4, size=len(sizes))
        if weighted != "default":
            low = 0.0 if weighted == "positive" else -1.0
            arguments["weights"] = rng.uniform(low, 1.0, size=len(self.oracle.channels))
        same_views(self.store, self.oracle, steps, offsets, **arguments)
        detailed = self.store.score(steps, offsets, details=True, **arguments)
        for t, activation in enumerate(self.oracle.score(steps, offsets, **arguments).activations):
            assert detailed.ids is not None
            assert detailed.phi is not None
            n = len(activation.phi)
            assert detailed.ids[t].tolist() == [*activation.phi, *[-1] * (self.oracle.settings.k - n)]
            close(detailed.phi[t, :n], list(activation.phi.values()), "φ")
        if habituated:
            table, table_o = sw.Habituation(episodes=3, eta=0.5), Habituation(episodes=3, eta=0.5)
            for repeat in range(3):
                actual = self.store.score(steps, offsets, habituation=table, details=True, **arguments)
                expected = self.oracle.score(steps, offsets, habituation=table_o, **arguments)
                same_scores(actual, expected)
                if repeat < 2:
                    table.record(actual)
                    table_o.record(expected)

    @rule(seed=seeds, context=st.sampled_from([0, 1]), signed=st.booleans())
    def explain(self, seed: int, context: int, signed: bool) -> None:
        steps = self.steps(seed, 5)
        rng = np.random.default_rng(seed)
        weights = rng.uniform(-1.0 if signed else 0.0, 1.0, size=len(self.oracle.channels))
        actual = self.store.explain(steps, context=context, weights=weights)
        expected = self.oracle.explain(steps, context=context, weights=weights)
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert a.step == e.step
            for name in ("pay", "support", "edge", "redundancy"):
                close(getattr(a, name), getattr(e, name), name, {"rtol": 1e-5, "atol": 1e-8})
            paid = {m.id: m for m in a.memories if m.pay != 0}
            paid_o = {m.id: m for m in e.memories if m.pay != 0}
            assert paid.keys() == paid_o.keys()
            for i, memory in paid_o.items():
                assert paid[i].terminal == memory.terminal
                for name in ("phi", "gain", "advantage", "pay"):
                    close(getattr(paid[i], name), getattr(memory, name), name, {"rtol": 1e-5, "atol": 1e-8})
            close(list(a.channels.values()), e.channels, "channels", {"rtol": 1e-5, "atol": 1e-8})
            assert len(a.associations) == min(8, len(e.associations))
            for association in a.associations:
                weight, agreement = e.associations[association.source, association.target]
                close(association.weight, weight, "weight", WIDE)
                close(association.agreement, agreement, "agreement", WIDE)

    @rule(
        seed=seeds,
        depth=st.integers(1, 4),
        beams=st.integers(1, 4),
        how=st.fixed_dictionaries({"cleanup": st.integers(0, 2), "distinct": st.booleans()}),
        kernel=kernels("k"),
    )
    def recall(self, seed: int, depth: int, beams: int, how: dict[str, Any], kernel: dict[str, Any]) -> None:
        query, how = self.steps(seed, 1)[0], how | kernel
        actual = self.store.recall(query, depth=depth, beams=beams, **how)
        expected = self.oracle.recall(query, depth=depth, beams=beams, **how)
        close([p.score for p in actual], [p.score for p in expected], "recall scores", {"rtol": 1e-5, "atol": 1e-8})
        if self.oracle.channels:
            assert [p.ids.tolist() for p in actual] == [p.ids for p in expected]

    @rule(
        seed=seeds,
        steps=st.integers(0, 4),
        damping=st.sampled_from([0.0, 0.5, 0.85, 1.0]),
        k=st.integers(1, 6),
        kernel=kernels("seeds"),
        some=st.none() | st.integers(1, 3),
    )
    def associate(
        self, seed: int, steps: int, damping: float, k: int, kernel: dict[str, Any], some: int | None
    ) -> None:
        """`some`: of every so many memories only one may answer and be returned."""
        query = self.steps(seed, 1)
        how = kernel | ({} if some is None else {"where": self.oracle.ids[::some].tolist()})
        ids, a = self.store.associate(query, steps=steps, damping=damping, k=k, **how)
        expected = self.oracle.associate(query[0], steps=steps, damping=damping, k=k, **how)
        assert ids[0].tolist() == [*expected, *[-1] * (k - len(expected))]
        close(a[0], [*expected.values(), *[0.0] * (k - len(expected))], "associate", WIDE)

    @rule(seed=seeds, kernel=kernels("k"))
    def value_as_asked(self, seed: int, kernel: dict[str, Any]) -> None:
        queries = self.steps(seed, 2)
        for actual, expected in zip(
            self.store.value(queries, **kernel), self.oracle.value(queries, **kernel), strict=True
        ):
            close(actual, expected, "value")

    @rule()
    def freeze(self) -> None:
        self.frozen = self.store.frozen(), self.oracle.frozen()

    @rule(seed=seeds, sizes=lengths)
    @precondition(lambda self: self.frozen is not None)
    def frozen_stays(self, seed: int, sizes: list[int]) -> None:
        assert self.frozen is not None
        same_views(*self.frozen, *self.episodes(seed, sizes))

    @rule(seed=seeds, sizes=lengths, constant=st.booleans(), functional=functionals)
    def ablate(self, seed: int, sizes: list[int], constant: bool, functional: str) -> None:
        rng = np.random.default_rng(seed)
        arguments: dict[str, Any] = {"constant_transitions": constant}
        if seed % 2:
            arguments["fade"] = float(rng.random())
            arguments["values"] = rng.random(self.oracle.values.shape).astype(np.float32)
            arguments["baseline"] = rng.random(len(self.oracle.channels)).astype(np.float32) / 4
        same_views(
            self.store.frozen().ablated(**arguments),
            self.oracle.frozen().ablated(**arguments),
            *self.episodes(seed, sizes),
            functional=functional,
        )

    # ------------------------------------------------------------------ always

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "oracle"):
            same_state(self.store, self.oracle)


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=4 * settings().max_examples)
