"""The demo's second form on a tiny random model: measures, training, resuming, the report's section."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")
pytest.importorskip("peft")

import sharpwave as sw
import tiny
import tiny_trl
import torch
from sharpwave.episodes import Words
from sharpwave.probe.probes import Objective

from examples.demo import measures, policy, second, train, train_report
from examples.demo.measures import Ratio
from examples.demo.pipeline import DemoSettings, Encoder
from examples.demo.sample import SampleSettings
from examples.demo.train import TrainSettings, read_prompts

PROMPTS = ("Tell me a story.", "Tell me of a king.")
TERMINAL = "They married at the altar."


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)


def embed(texts: list[str]) -> np.ndarray:
    """Bags of words as unit vectors; a text without a word is a direction of its own."""
    rows = tiny.embed(texts)
    rows[:, 0] += 0.01
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def setting(seed: int = 0) -> second.Setting:
    store = sw.ValueStore(sw.Config(dim=tiny.DIM, min_novelty=0.5))
    encoder = Encoder(Words(n=8), embed)
    base = encoder([tiny.PROMPT] * len(tiny.STORIES), tiny.STORIES)
    store.calibrate(base.steps, base.offsets)
    store.add_terminal("wedding 1", embed([TERMINAL])[0])
    texts = encoder.chunks([tiny.PROMPT] * len(tiny.STORIES), tiny.STORIES)
    store.observe(base.steps, base.offsets, texts=texts)
    store.replay()
    objective = Objective("wedding", "a wedding", False, (TERMINAL,), (), ())
    model = policy.with_adapter(tiny_trl.model(), rank=2, alpha=4, seed=seed)
    return second.Setting(store, encoder, objective, model, tiny_trl.tokenizer())


def settings(**given: Any) -> TrainSettings:
    small: dict[str, Any] = {
        "steps": 4, "groups": 1, "copies": 4, "tokens": 16, "rank": 2, "alpha": 4, "rounds": 3, "save_every": 2,
        "prompts": PROMPTS,
    }  # fmt: skip
    return TrainSettings(**{**small, **given})


def test_train_stop_and_go_on_to_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []
    whole = second.compare(setting(), settings(), tmp_path / "a", lambda *a, **k: told.append((*a, k)))
    assert [line["step"] for line in whole["steps"]] == [1, 2, 3, 4]
    logged = {k for line in whole["steps"] for k in line}
    assert {"sharpwave/instrumental_raw", "sharpwave/support", "sharpwave/divergence", "watch/distinct_2",
            "watch/yes_share", "watch/parrot_share", "reward", "seconds"} <= logged  # fmt: skip
    assert [a[1] for a in told if a[0] == "training"][-1] == 4
    assert whole["store"]["after"] > whole["store"]["before"]

    second.compare(setting(), settings(steps=2), tmp_path / "b")
    resumed = second.compare(setting(), settings(), tmp_path / "b")
    assert resumed["resumed_from"] == 2
    assert resumed["store"] == whole["store"]
    assert resumed["pairs"] == whole["pairs"]
    rewards = [[line["reward"] for line in found["steps"]] for found in (whole, resumed)]
    assert rewards[0] == pytest.approx(rewards[1], rel=1e-4)
    over = second.compare(setting(), settings(), tmp_path / "b")  # nothing is left to do
    for key in ("store", "pairs", "steps"):
        assert over[key] == resumed[key]

    other = second.compare(setting(1), settings(seed=1, steps=1), tmp_path / "b")  # another run starts anew
    assert other["resumed_from"] == 0
    assert len(other["steps"]) == 1

    monkeypatch.setattr(second, "load", lambda *_: setting())
    monkeypatch.setattr(second.reporting, "write", lambda report, out, _: (out / "report.html").write_text("page"))
    (tmp_path / "c").mkdir()
    report = second.run(DemoSettings.full(tmp_path / "c"), settings(steps=1), {"schema": 1})
    assert json.loads((tmp_path / "c" / "report.json").read_text())["train"] == report["train"]
    assert {"texts before", "training", "texts after", "comparing", "in all"} <= set(report["train"]["seconds"])

    json.dumps(whole, allow_nan=False)
    assert set(whole["measures"]) == {m.id for m in measures.MEASURES}
    for found in whole["measures"].values():
        assert found["interval"][0] <= found["interval"][1]
    page = train_report.html(whole)
    assert "not distinguishable" in page
    assert page.count("<polyline") >= 8
    assert train_report.plot(whole, tmp_path / "training.png").stat().st_size > 1000
    assert any("instrumental" in line for line in train_report.lines(whole))


def test_the_base_reads_texts_as_it_would_token_by_token() -> None:
    tokenizer = tiny_trl.tokenizer()
    model = policy.with_adapter(tiny_trl.model(), rank=2, alpha=4, seed=0)
    with torch.no_grad():  # an adapter that does something must not matter
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.5)
    texts = ["He asked her to marry him.", "Ben built a boat with Carl, and a storm broke the mast.", ""]
    found = policy.base_log_likelihood(model, tokenizer, [PROMPTS[0]] * 3, texts, batch=2)
    plain = tiny_trl.model().eval()
    for text, (nats, tokens) in zip(texts, found, strict=True):
        head = tokenizer(policy.rendered(tokenizer, PROMPTS[0]))["input_ids"]
        tail = tokenizer(text)["input_ids"]
        with torch.no_grad():
            log_probs = plain(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        want = sum(float(log_probs[len(head) + n - 1, t]) for n, t in enumerate(tail))
        assert tokens == len(tail)
        assert nats == pytest.approx(want, abs=1e-3)


def test_samples_are_a_grid_and_the_same_again() -> None:
    made = setting()
    how = SampleSettings(tokens=8, batch=4)
    grids = [policy.sample(made.model, made.tokenizer, PROMPTS, how, 3, rounds=3) for _ in range(2)]
    assert grids[0] == grids[1]
    assert [len(row) for row in grids[0]] == [2, 2, 2]


def test_words_are_counted() -> None:
    assert measures.answers("Yes, yes! A yellow yeah.") == (3, 5)
    assert measures.distinct(["a b a b", "a b"]) == (2, 4)
    assert measures.parroted(f"{TERMINAL} The dog ran home again. Oh.", [TERMINAL]) == (1, 2)
    assert measures.parroted("", [TERMINAL]) == (0, 0)


def test_the_interval_covers_and_tells() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for n in range(120):
        before, after = (Ratio.mean(rng.normal(size=(12, 8)) + shift) for shift in (0.0, 0.5))
        low, high = measures.change(before, after, resamples=400, seed=n)["interval"]
        held += low <= 0.5 <= high
    assert 0.88 <= held / 120 <= 1.0
    same = Ratio.mean(rng.normal(size=(12, 8)))
    assert not measures.change(same, same)["distinguishable"]
    nothing = Ratio.of([[(0, 0)], [(0, 0)]])
    assert measures.change(nothing, nothing)["change"] == 0.0
    assert measures.change(same, Ratio.mean(same.part + 2.0))["distinguishable"]


def found(texts: int = 256, **after: Any) -> dict[str, Any]:
    """A run's measures with intervals of 0.1 (shares: 0.01) to each side, with what is given in their place."""
    values = {"instrumental": 0.2, "distinct_2": 0.92, "yes_share": 0.0, "parrot_share": 0.001, "log_likelihood": -0.2}
    measures: dict[str, Any] = {}
    for name, value in (values | after).items():
        before = 0.92 if name == "distinct_2" else 0.0
        kept = value / before if before else None
        measures[name] = {
            "before": before,
            "after": value,
            "after_interval": [value, value] if value == 0 else [value - 0.01, value + 0.01],
            "change": value - before,
            "interval": [value - before - 0.1, value - before + 0.1],
            "kept": kept,
            "kept_interval": None if kept is None else [kept - 0.05, kept + 0.05],
        }
    return {"texts": texts, "measures": measures}


def verdicts(**given: Any) -> dict[str, str]:
    return {c["id"]: c["verdict"] for c in train_report.claims(found(**given))}


def test_claims_are_decided_by_their_intervals() -> None:
    assert set(verdicts().values()) == {"holds"}
    worse = {"instrumental": -0.2, "distinct_2": 0.5, "yes_share": 0.1, "parrot_share": 0.1, "log_likelihood": -1.0}
    assert set(verdicts(**worse).values()) == {"fails"}
    near = {"instrumental": 0.05, "distinct_2": 0.84, "yes_share": 0.015, "parrot_share": 0.025}
    for change in (-0.4999, -0.5001):  # which side of the limit the number lies on decides nothing
        assert set(verdicts(**near, log_likelihood=change).values()) == {"undecided"}
    assert [c["ok"] for c in train_report.claims(found(**near))] == [False, False, False, False, True]


def test_no_text_of_a_kind_among_few_decides_nothing() -> None:
    """Twelve texts without a "yes" do not show that fewer than one in fifty is one."""
    assert verdicts(texts=12)["yes"] == "undecided"
    assert verdicts(texts=256)["yes"] == "holds"
    claim = next(c for c in train_report.claims(found(texts=256)) if c["id"] == "yes")
    assert claim["interval"] == [0.0, pytest.approx(0.0143, abs=1e-4)]


def test_what_was_kept_has_an_interval() -> None:
    rng = np.random.default_rng(1)
    before, after = (Ratio.mean(1.0 + spread * rng.random((12, 8))) for spread in (0.2, 0.1))
    change = measures.change(before, after)
    assert change["kept"] == pytest.approx(after.value / before.value)
    low, high = change["kept_interval"]
    assert low < change["kept"] < high
    nothing = Ratio.of([[(0, 1)], [(0, 1)]])
    assert measures.change(nothing, after)["kept"] is measures.change(nothing, after)["kept_interval"] is None


def test_prompts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("One.\n\nTwo.\nOne.\n")
    assert read_prompts(path) == ("One.", "Two.")
    rows = tmp_path / "prompts.jsonl"
    rows.write_text('{"prompt": "One.", "completion": ""}\n{"prompt": "Three.", "completion": ""}\n')
    assert read_prompts(rows) == ("One.", "Three.")
    path.write_text("One.\n")
    with pytest.raises(ValueError, match="1 prompts"):
        read_prompts(path)


def test_settings_of_a_device_and_an_objective() -> None:
    assert TrainSettings.on("cuda").steps > TrainSettings.on("cpu").steps
    assert TrainSettings.on("cuda", steps=3).steps == 3
    assert settings(steps=9).key("s") == settings().key("s") != settings(seed=5).key("s")
    assert train.checkpoints(Path("nowhere")) == {}
    with pytest.raises(ValueError, match="--objective must be one of"):
        second.find_objective(DemoSettings.full(), "fame")
    second.check_model(None, "cpu")
    with pytest.raises(ValueError, match="--model"):
        second.check_model("nowhere", "cpu")
    with pytest.raises(ValueError, match="--device"):
        second.check_model(None, "nothing")
