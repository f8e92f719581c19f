"""`Oracle`: the verbs of `sharpwave.ValueStore`, and the log of operations that `veto` replays without a part."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from oracle.arithmetic import F32, dot, normalise
from oracle.memory import Channel, Memory, Settings, State
from oracle.scoring import Ablation, View
from oracle.valuing import bound, set_baseline, sleep
from oracle.writing import Episode, Written, observe_drives, write

SAMPLE = 1024


@dataclass
class Report:
    """What `observe` did."""

    memory_ids: list[int] = field(default_factory=list)
    outcome: list[str] = field(default_factory=list)
    episode_ids: list[int] = field(default_factory=list)
    backups: int = 0


@dataclass
class Replay:
    """What `replay` did."""

    backups: int
    residual: float
    converged: bool
    refused: bool = False
    drift: float | None = None
    observed: int = 0
    trail: tuple[int, ...] = ()


@dataclass(frozen=True)
class Insert:
    """A bulk append. `skip` holds the rows that `veto` took out."""

    keys: list[F32]
    drives: list[dict[str, float]]
    texts: list[str | None]
    skip: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Call:
    """An operation that veto repeats unchanged: a method of `Oracle` and its arguments."""

    method: str
    arguments: tuple[Any, ...]


class Oracle(View):
    """A value store, slowly."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(State(settings))
        self.settings = settings
        self.log: dict[int, Episode | Insert | Call] = {}  # by operation number
        self.first_id: dict[int, int] = {}  # the id that the first memory made by an operation would get
        self.proposals: dict[int, Episode] = {}  # by the number of the operation that proposed them
        self.operations = 0
        self.next_episode = 0

    # ------------------------------------------------------------------ columns

    def __len__(self) -> int:
        return len(self.state.memories)

    @property
    def ids(self) -> np.ndarray:
        """Every memory's id, ascending."""
        return np.array(list(self.state.memories), np.int64)

    @property
    def keys(self) -> F32:
        """k_i."""
        return self.state.column("key", np.float32).reshape(len(self), self.settings.dim)

    @property
    def values(self) -> F32:
        """v_iq."""
        return self.state.column("value", np.float32).reshape(len(self), len(self.state.channels))

    @property
    def drives(self) -> F32:
        """r_iq."""
        rows = [self.state.drives(i) for i in self.state.memories]
        return np.array(rows, np.float32).reshape(len(self), len(self.state.channels))

    @property
    def counts(self) -> np.ndarray:
        """m_i."""
        return self.state.column("m", np.int64)

    @property
    def mass(self) -> np.ndarray:
        """n_i."""
        return self.state.column("mass", np.float64)

    @property
    def is_terminal(self) -> np.ndarray:
        """Whether a memory is a channel's terminal."""
        return np.array([m.terminal is not None for m in self.state.memories.values()], bool)

    @property
    def texts(self) -> list[str | None]:
        """What was said."""
        return [m.text for m in self.state.memories.values()]

    @property
    def baseline(self) -> F32:
        """b_q."""
        return self.state.b

    @property
    def channels(self) -> list[str]:
        """Names in column order."""
        return [channel.name for channel in self.state.channels]

    def edges(self) -> tuple[list[int], list[int], list[float]]:
        """(source, target, P) by ascending source, then target."""
        rows = [(i, j, p) for i in self.state.memories for j, p in self.state.P(i)]
        return [i for i, _, _ in rows], [j for _, j, _ in rows], [p for _, _, p in rows]

    # ------------------------------------------------------------------ channels and calibration

    def calibrate(self, steps: Any, offsets: Sequence[int] | None = None) -> dict[str, float]:
        """τ: the 0.90 quantile of the cosine of all pairs of a sample; d_lo, d_hi: the 0.90 quantile and the maximum of
        each step's highest cosine to earlier steps of its episode, if there are any and they differ by 1e-3."""
        if len(self):
            raise ValueError("calibrate works on an empty store")
        self._log(Call("calibrate", (steps, offsets)))
        x = np.stack([normalise(row) for row in steps])
        n = len(x)
        sample = x if n <= SAMPLE else x[[i * n // SAMPLE for i in range(SAMPLE)]]
        pairs = [dot(sample[i], sample[i + 1 :]) for i in range(len(sample) - 1)]
        tau = float(np.quantile(np.concatenate(pairs).astype(np.float64), 0.9))
        found = {"tau": float(np.float32(min(tau, 0.99)))}
        if offsets is not None:
            highest = [
                float(dot(x[t], x[start:t]).max()) for start, end in pairwise(offsets) for t in range(start + 1, end)
            ]
            if highest:
                d_lo, d_hi = float(np.quantile(highest, 0.9)), max(highest)
                if d_hi > d_lo + 1e-3:
                    found |= {"d_lo": d_lo, "d_hi": d_hi}
        self.state.sample = sample
        self.state.settings = replace(self.state.settings, **found)
        return found

    def add_terminal(self, name: str, key: Any, low: float | None = None, high: float | None = None) -> int:
        """An embedding channel, with a memory whose key never moves; its range from the calibration sample."""
        self._log(Call("add_terminal", (name, key, low, high)))
        k = normalise(key)
        default = (0.0, 1.0)
        if self.state.sample is not None:
            cosines = dot(k, self.state.sample).astype(np.float64)
            default = (float(np.median(cosines)), float(cosines.max()))
        low, high = (default[0] if low is None else low), (default[1] if high is None else high)
        terminal = self.state.next_id
        memory = Memory(k, np.zeros(0, np.float32), m=0, written=self.state.clock, text=name, terminal=name)
        self.state.memories[terminal] = memory
        self.state.next_id += 1
        q = self._add_column(Channel(name, low, high, terminal))
        memory.value = self.state.drives(terminal).astype(np.float32)
        return q

    def add_channel(self, name: str, low: float = 0.0, high: float = 1.0) -> int:
        """A scalar channel; what is observed is taken as it is."""
        self._log(Call("add_channel", (name, low, high)))
        return self._add_column(Channel(name, low, high))

    def _add_column(self, channel: Channel) -> int:
        """v starts at the new drive; whatever has successors is dirty."""
        state, q = self.state, len(self.state.channels)
        state.channels.append(channel)
        state.b = np.append(state.b, np.float32(0)).astype(np.float32)
        for i, memory in state.memories.items():
            memory.value = np.append(memory.value[:q], np.float32(state.drives(i)[q])).astype(np.float32)
            memory.dirty = bool(state.C.get(i))
        return q

    def remove_channel(self, name: str) -> None:
        """The column goes, what was observed for it, and the memory of an embedding channel."""
        self._log(Call("remove_channel", (name,)))
        state, q = self.state, self.channels.index(name)
        channel = state.channels.pop(q)
        state.b = np.delete(state.b, q)
        for memory in state.memories.values():
            memory.value = np.delete(memory.value, q)
            memory.sums.pop(name, None)
            memory.counts.pop(name, None)
        if channel.terminal is not None:
            state.forget(channel.terminal)

    # ------------------------------------------------------------------ writing

    def observe(
        self,
        steps: Any,
        offsets: Sequence[int] | None = None,
        drives: Any = None,
        texts: Sequence[str | None] | None = None,
        episode_ids: Sequence[int] | None = None,
        propose: bool = False,
    ) -> Report:
        """Episode by episode. Drives come per step, or per episode for its last step; NaN is not observed."""
        bounds = [0, len(steps)] if offsets is None else [int(o) for o in offsets]
        report = Report()
        for e, (start, end) in enumerate(pairwise(bounds)):
            observed: list[dict[str, float]] = [{} for _ in range(start, end)]
            if drives is not None and len(drives) == len(steps):
                observed = [self._named(row) for row in drives[start:end]]
            elif drives is not None and end > start:
                observed[-1] = self._named(drives[e])
            number = self.next_episode if episode_ids is None else int(episode_ids[e])
            self.next_episode = max(self.next_episode, number + 1)
            said = list(texts[start:end]) if texts is not None else [None] * (end - start)
            written = self._observe(Episode(number, propose, list(steps[start:end]), observed, said))
            report.episode_ids.append(number)
            report.memory_ids += written.memory_ids
            report.outcome += written.outcome
            report.backups += written.backups
        return report

    def _observe(self, episode: Episode) -> Written:
        number = self._log(episode)
        if not episode.proposed:
            return write(self.state, episode, number)
        self.proposals[number] = episode
        return Written([-1] * len(episode.steps), ["proposed"] * len(episode.steps), 0)

    def _named(self, row: Any) -> dict[str, float]:
        scalars = [channel.name for channel in self.state.channels if channel.terminal is None]
        values = np.asarray(row, np.float64).reshape(-1)
        return {name: float(v) for name, v in zip(scalars, values, strict=True) if not np.isnan(v)}

    def insert(self, keys: Any, drives: Any = None, texts: Sequence[str | None] | None = None) -> list[int]:
        """Bulk append: no gate, no merging, no associations."""
        named = [self._named(row) for row in drives] if drives is not None else [{} for _ in keys]
        insert = Insert(list(keys), named, list(texts) if texts is not None else [None] * len(keys))
        return self._insert(insert, self._log(insert))

    def _insert(self, insert: Insert, operation: int) -> list[int]:
        ids = []
        for row, key in enumerate(insert.keys):
            if row not in insert.skip:
                memory = Memory(
                    normalise(key),
                    np.zeros(0, np.float32),
                    m=1,
                    written=self.state.clock,
                    text=insert.texts[row],
                    provenance=[(operation, row)],
                )
                observe_drives(memory, insert.drives[row])
                ids.append(self.state.add(memory))
        return ids

    # ------------------------------------------------------------------ replay

    def replay(
        self,
        budget: int | None = None,
        tol: float = 1e-4,
        order: str = "prioritized",
        need: str | list[int] = "frequency",
        consolidate: bool = False,
        max_drift: float | None = None,
        floor: float = 0.0,
        extend: bool = False,
    ) -> Replay:
        """Observe the proposals if asked to, sleep, then set the baseline.

        If that would move mean |Φ| on the calibration sample (or the oldest memories) by more than `max_drift`, nothing
        is done at all.
        """
        self._log(Call("replay", (budget, tol, order, need, consolidate, max_drift, floor, extend)))
        after = copy.deepcopy(self.state)
        proposals = dict(self.proposals) if consolidate else {}
        for number, episode in proposals.items():
            write(after, episode, number)
        if not isinstance(need, str):  # starts that the consolidation, or a veto, has taken away are left out
            need = [i for i in need if i in after.memories] or "uniform"
        trail: list[int] = []
        backups = sleep(after, budget, tol, order, need, floor, extend, trail)
        set_baseline(after)
        drift = self._drift(after) if proposals else None
        if drift is not None and max_drift is not None and drift > max_drift:
            residual = bound(self.state)
            return Replay(0, residual, residual <= tol, True, drift, 0)
        self.state = after
        self.proposals = {} if consolidate else self.proposals
        residual = bound(after)
        return Replay(backups, residual, residual <= tol, False, drift, len(proposals), tuple(trail))

    def _drift(self, after: State) -> float:
        """mean over sample and channels of |Φ_after − Φ_before|."""
        sample = self.state.sample
        if sample is None:
            sample = self.keys[~self.is_terminal][:SAMPLE]
        moved = [after.Phi(after.activation(x)) - self.state.Phi(self.state.activation(x)) for x in sample]
        return float(np.mean(np.abs(moved))) if np.size(moved) else 0.0

    # ------------------------------------------------------------------ veto

    def episodes(self) -> list[int]:
        """The ids that `veto(episode=…)` knows: observed or proposed."""
        return [op.id for op in self.log.values() if isinstance(op, Episode)]

    def veto(self, memory: int | None = None, episode: int | None = None, episodes: Sequence[int] = ()) -> None:
        """Repeat every operation without the vetoed part.

        Memories made before the first changed operation keep their ids; later ones get fresh ids in the same order.
        """
        log = dict(self.log)
        if memory is None:
            vetoed = {*episodes, *([] if episode is None else [episode])}
            changed = [n for n, op in log.items() if isinstance(op, Episode) and op.id in vetoed]
            for number in changed:
                del log[number]
        else:
            parts: dict[int, set[int]] = {}
            for number, row in self.state.memories[memory].provenance:
                parts.setdefault(number, set()).add(row)
            changed = sorted(parts)
            for number, rows in parts.items():
                op = log[number]
                if isinstance(op, Episode):
                    log[number] = op.without(rows)
                elif isinstance(op, Insert):
                    log[number] = replace(op, skip=op.skip | rows)
        if changed:
            self._rebuild(log, changed[0])

    def _rebuild(self, log: dict[int, Episode | Insert | Call], first_changed: int) -> None:
        """Run a log on an empty state; from operation `first_changed` on ids are fresh."""
        fresh = self.state.next_id
        again = Oracle(self.settings)
        for number, op in log.items():
            first_id = fresh if number >= first_changed else self.first_id[number]
            again.state.next_id = max(again.state.next_id, first_id)
            again.operations = number
            if isinstance(op, Episode):
                again._observe(op)
            elif isinstance(op, Insert):
                again._insert(op, again._log(op))
            else:
                getattr(again, op.method)(*op.arguments)
        again.state.next_id = max(again.state.next_id, fresh)
        self.state, self.proposals = again.state, again.proposals
        self.log, self.first_id = again.log, again.first_id

    def _log(self, op: Episode | Insert | Call) -> int:
        number, self.operations = self.operations, self.operations + 1
        self.log[number], self.first_id[number] = op, self.state.next_id
        return number

    # ------------------------------------------------------------------ views

    def frozen(self) -> FrozenOracle:
        """A read-only view at this moment."""
        return FrozenOracle(copy.deepcopy(self.state))


class FrozenOracle(View):
    """The scoring methods at one moment."""

    def ablated(
        self,
        *,
        values: Any = None,
        baseline: Any = None,
        constant_transitions: bool = False,
        fade: float | None = None,
    ) -> FrozenOracle:
        """The same view with learned quantities replaced, for the ablation columns."""
        return FrozenOracle(self.state, Ablation(values, baseline, constant_transitions, fade))
