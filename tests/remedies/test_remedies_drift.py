"""What drift reads: nothing on fresh base samples, each monitor what it is there for, the same after a restore."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import tiny
from sharpwave.divergence import mahalanobis
from sharpwave.remedies import Drift
from sharpwave.remedies.drift import held_out

NAMES = "Anna Tom Ruth Ben Carl Mia Ella Sam Jane Paul".split()
THINGS = "boat ring tree letter train shell loaf lamp door horse".split()
DEEDS = "found lost built sold burned planted painted carried broke hid".split()


def story(rng: np.random.Generator) -> str:
    """Three short sentences; a few hundred of them differ."""
    return " ".join(f"{rng.choice(NAMES)} {rng.choice(DEEDS)} the {rng.choice(THINGS)}." for _ in range(3))


def samples(count: int, seed: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    return [tiny.PROMPT] * count, [story(rng) for _ in range(count)]


def drift(**options: Any) -> Drift:
    return Drift(samples(96, 0), tiny.embed, **options)


def test_fresh_base_samples_read_as_none() -> None:
    monitor = drift()
    found = [monitor.read(*samples(16, seed)) for seed in range(1, 41)]
    distance, distinct = (np.array([r[name] for r in found]) for name in ("distance", "distinct_2"))
    assert abs(distance.mean()) < 0.15
    assert np.abs(distance).max() < 1
    assert abs(distinct.mean() - 1) < 0.08
    assert distinct.min() > 0.85
    assert {r["empty"] for r in found} == {0.0}
    assert all("gap" not in r and "support" not in r for r in found)


def test_distance_is_the_mahalanobis_distance_in_units_of_held_out_base_samples() -> None:
    prompts, completions = samples(40, 0)
    monitor = Drift((prompts, completions), tiny.embed)

    def vectors(texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            steps = tiny.embed(sw.episodes.Sentences()(None, text).steps)
            mean = (steps / np.linalg.norm(steps, axis=1, keepdims=True)).mean(0)
            rows.append(mean / np.linalg.norm(mean))
        return np.array(rows, np.float64)

    base = vectors(completions)
    held = np.concatenate([mahalanobis(base[k::8], np.delete(base, np.s_[k::8], axis=0)).per_sample for k in range(8)])
    assert (monitor.centre, monitor.spread) == pytest.approx((held.mean(), held.std()), rel=1e-5)
    new = ["The king had three sons. The youngest went to sea.", "Yes. Yes. Yes."]
    distance = mahalanobis(vectors(new), base).per_sample
    expected = ((distance - held.mean()) / held.std()).mean()
    assert monitor.read([None, None], new)["distance"] == pytest.approx(expected, rel=1e-4)
    assert expected > 2


def test_repetition_is_seen_whatever_the_length() -> None:
    monitor = drift()
    rng = np.random.default_rng(5)
    prompts = [tiny.PROMPT] * 16
    longer = [" ".join(story(rng) for _ in range(4)) for _ in prompts]
    assert monitor.read(prompts, longer)["distinct_2"] > 0.85
    assert monitor.read(prompts, [story(rng)] * 16)["distinct_2"] < 0.2
    assert monitor.read(prompts, ["Yes, yes, yes, yes, yes, yes."] * 16)["distinct_2"] < 0.05
    assert monitor.read(prompts, ["Yes."] * 16).get("distinct_2") is None  # not one bigram


def test_bigrams_are_compared_with_base_samples_of_the_same_prompts() -> None:
    """One prompt's own answers repeat each other; that is not the policy's doing."""
    narrow = ["Anna found the boat."] * 24
    prompts, completions = samples(24, 3)
    monitor = Drift((["Say it."] * 24 + prompts, narrow + completions), tiny.embed)
    assert monitor.read(["Say it."] * 8, narrow[:8])["distinct_2"] == 1.0
    assert monitor.read([tiny.PROMPT] * 8, narrow[:8])["distinct_2"] < 0.25


def test_base_samples_of_a_prompt_are_not_used_twice() -> None:
    """Four base samples for sixteen completions: the same ones again would make the base look repetitive too."""
    prompts, completions = samples(40, 3)
    few = [*["Say it."] * 4, *prompts[4:]]
    monitor = Drift((few, completions), tiny.embed)
    found = [monitor.read(["Say it."] * 16, samples(16, seed)[1])["distinct_2"] for seed in range(20, 30)]
    assert abs(np.mean(found) - 1) < 0.05
    assert 0.85 < monitor.read(["Say it."] * 80, samples(80, 9)[1])["distinct_2"] < 1.15  # more than there are


def test_support_is_read_from_the_store_as_it_was() -> None:
    store = tiny.store()
    monitor = Drift(samples(96, 0), tiny.embed, store=store, start=2)
    told = ([tiny.PROMPT] * 4, tiny.STORIES[:4])
    foreign = ([tiny.PROMPT] * 4, ["Quantum flux resonates. Gluons decay fast."] * 4)
    assert "support" not in monitor.read(*told)
    monitor.train()
    for _ in range(2):
        monitor(*told)
    assert monitor.read(*told)["support"] == pytest.approx(1, rel=1e-5)
    before = monitor.read(*foreign)["support"]
    assert before < 0.5
    batch = sw.episodes.chunk_batch(sw.episodes.Sentences(), *foreign)
    store.observe(tiny.embed(batch.steps), batch.offsets)
    assert monitor.read(*foreign)["support"] == before


def scripted(values: list[list[float | None]], name: str) -> Any:
    """A reward function that gives what is written."""
    left = iter(values)

    def function(**_: Any) -> list[float | None]:
        return next(left)

    function.__name__ = name
    return function


def test_the_gap_is_the_lesser_of_a_rise_and_a_fall() -> None:
    monitor = drift(start=2)
    level: list[float | None] = [0.0, 2.0]  # mean 1, deviation 1
    proxy = [level, level, [3.0, 3.0], [3.0, 3.0], [0.0, 1.0], [None, 5.0]]
    gold = [[0.0, 20.0], [0.0, 20.0], [5.0, 5.0], [12.0, 12.0], [5.0, 5.0], [0.0, None]]
    watched = [monitor.watch(scripted(values, name)) for values, name in ((proxy, "proxy"), (gold, "gold"))]
    monitor.train()
    for _ in proxy:
        prompts, completions = samples(2, 9)
        for function in watched:
            function(prompts=prompts, completions=completions)
        assert monitor(prompts=prompts, completions=completions) == [0.0, 0.0]
    gaps = [reading.get("gap") for reading in monitor.readings]
    assert gaps[:2] == [None, None]
    assert gaps[2:] == pytest.approx([0.5, 0.0, 0.0, 1.0])


def test_a_part_that_is_constant_has_no_start_yet() -> None:
    monitor = drift(start=1)
    sparse = [[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    falls = [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [-1.0, -1.0]]
    watched = [monitor.watch(scripted(values, name)) for values, name in ((sparse, "sparse"), (falls, "falls"))]
    monitor.train()
    for _ in sparse:
        batch = samples(2, 9)
        for function in watched:
            function(prompts=batch[0], completions=batch[1])
        monitor(*batch)
    values = np.array([0, 0, 0, 0, 0, 1.0])
    rise = (1 - values.mean()) / values.std()
    assert monitor.readings[-1]["gap"] == pytest.approx(min(rise, 3.0))
    assert monitor.readings[2]["gap"] == 0.0


def test_the_terms_of_an_instrumental_reward_are_parts() -> None:
    reward = sw.InstrumentalReward(tiny.store(), tiny.embed, terminal=tiny.length, base=tiny.base())
    monitor = Drift(samples(96, 0), tiny.embed, start=1)
    assert monitor.watch(reward) is reward
    monitor.train()
    told = ([tiny.PROMPT] * 8, list(tiny.STORIES))
    noise = ([tiny.PROMPT] * 8, ["Quantum flux resonates. Gluons decay fast. " * (n + 8) for n in range(8)])
    for batch in (told, noise):
        reward(prompts=batch[0], completions=batch[1])
        monitor(*batch)
    out = [reward.score_texts(*batch, learn=False) for batch in (told, noise)]
    rise = (out[1].terminal.mean() - out[0].terminal.mean()) / out[0].terminal.std()
    fall = (out[0].instrumental.mean() - out[1].instrumental.mean()) / out[0].instrumental.std()
    assert monitor.readings[1]["gap"] == pytest.approx(min(rise, fall), rel=1e-4)
    assert min(rise, fall) > 0.5


def test_an_asynchronous_judge_is_watched_too() -> None:
    async def judge(completions: list[str], **_: Any) -> list[float]:
        return [float(len(text)) for text in completions]

    monitor = drift()
    prompts, completions = samples(4, 1)
    assert monitor.watch(judge)(prompts=prompts, completions=completions) == [float(len(t)) for t in completions]
    assert monitor(prompts, completions) == [0.0] * 4


def test_it_must_come_after_what_it_watches() -> None:
    monitor = drift()
    judge = monitor.watch(scripted([[1.0, 2.0]], "judge"))
    prompts, completions = samples(2, 1)
    with pytest.raises(ValueError, match="'judge', which was not called before it"):
        monitor(prompts, completions)
    judge(prompts=prompts, completions=completions)
    assert monitor(prompts, completions) == [0.0, 0.0]
    with pytest.raises(ValueError, match="watched already"):
        monitor.watch(scripted([], "judge"))
    with pytest.raises(TypeError, match="must be a reward function, got str"):
        monitor.watch("org/reward-model")  # pyright: ignore[reportArgumentType]


def test_what_cannot_be_read_is_left_out() -> None:
    monitor = drift(store=tiny.store())
    monitor.train()
    assert monitor([tiny.PROMPT] * 4, ["", "silence", "", ""]) == [0.0] * 4
    assert monitor.readings == [{"step": 0.0, "empty": 1.0}]
    assert monitor.read([], []) == {"empty": 0.0}
    chat = [[{"role": "assistant", "content": tiny.STORIES[0]}], [{"role": "assistant", "content": ""}]]
    assert monitor.read([None, None], chat)["empty"] == 0.5


class Trainer:
    """What TRL gives of itself: a method that logs."""

    def __init__(self, training: bool) -> None:
        self.model = SimpleNamespace(training=training)
        self.logged: dict[str, float] = {}

    def log_metric(self, name: str, value: float) -> None:
        self.logged[name] = value


def test_an_evaluation_is_logged_and_not_kept() -> None:
    monitor = drift()
    for training in (True, False):
        trainer = Trainer(training)
        state = SimpleNamespace(global_step=7)
        monitor(*samples(4, 1), log_metric=trainer.log_metric, trainer_state=state)
        assert set(trainer.logged) == {"drift/distance", "drift/distinct_2", "drift/empty"}
        assert [reading["step"] for reading in monitor.readings] == [7.0]
    monitor.train(False)
    monitor(*samples(4, 1))
    assert len(monitor.readings) == 1


def test_a_restored_monitor_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def build() -> tuple[Drift, Any]:
        monitor = drift(store=tiny.store(), start=2)
        monitor.train()
        return monitor, monitor.watch(tiny.length)

    def go(monitor: Drift, judge: Any, seeds: range) -> None:
        for seed in seeds:
            prompts, completions = samples(8, seed)
            judge(prompts=prompts, completions=completions)
            monitor(prompts, completions)

    whole, first, second = build(), build(), build()
    go(*whole, range(6))
    go(*first, range(3))
    assert first[0].save(tmp_path / "drift").name == "drift.json"
    second[0].restore(tmp_path / "drift")
    go(*second, range(3, 6))
    assert second[0].readings == whole[0].readings
    assert second[0].state_dict() == whole[0].state_dict()
    twin = pickle.loads(pickle.dumps(second[0]))
    assert twin.readings == whole[0].readings
    assert twin.__name__ == "drift"
    with pytest.raises(FileNotFoundError, match="no drift was saved"):
        second[0].restore(tmp_path)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="start must be at least 1"):
        drift(start=0)
    with pytest.raises(ValueError, match="base has 3 completions"):
        Drift(samples(3, 0), tiny.embed)
    with pytest.raises(ValueError, match="all alike"):
        Drift(([None] * 8, ["The same. Again."] * 8), tiny.embed)
    with pytest.raises(ValueError, match="got 2 prompts for 3"):
        Drift(([None] * 2, ["a b c"] * 3), tiny.embed)
    with pytest.raises(TypeError, match="completions="):
        drift()()
    store = tiny.store()
    store.bind_embedder("another")
    with pytest.raises(sw.EmbedderError, match="'another'"):
        drift(store=store)
    with pytest.raises(ValueError, match="all alike"):
        held_out(np.ones((8, 3)))


# Two ranks


def rank(number: int, folder: str) -> None:
    import torch

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    monitor = drift(store=tiny.store(), start=1)
    monitor.train()
    judge = monitor.watch(tiny.length)
    for seed in range(2):
        prompts, completions = samples(4, 10 * seed + number)
        judge(prompts=prompts, completions=completions)
        monitor(prompts, completions)
    Path(folder, f"readings-{number}").write_text(repr(monitor.readings))
    torch.distributed.destroy_process_group()


def test_two_ranks_read_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.multiprocessing.spawn(rank, (str(tmp_path),), nprocs=2)
    first, second = (Path(tmp_path, f"readings-{number}").read_text() for number in range(2))
    assert first == second
    assert "gap" in first
    assert "support" in first
