"""The demo's table, summary, report and check, with a small embedder in place of the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from sharpwave import cli
from sharpwave.episodes import Words
from sharpwave.probe import claims, summary
from sharpwave.probe import report as reporting
from sharpwave.probe.columns import COLUMNS, Bench, Episodes
from sharpwave.probe.probes import Objective, Probe, load_probes
from sharpwave.probe.table import Measured, Ruler, TableSettings, auc, splits

from examples.demo import check, pipeline
from examples.demo.prompts import base_prompts
from examples.demo.sample import SampleSettings, Story, read_stories, sample_stories


def bag(texts: list[str]) -> np.ndarray:
    """A bag of words in 64 dimensions."""
    rows = np.full((len(texts), 64), 0.01, np.float32)
    for n, text in enumerate(texts):
        for word in text.lower().split():
            rows[n, sum(ord(c) * (i + 1) for i, c in enumerate(word.strip(".,!"))) % 64] += 1
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ENCODER = pipeline.Encoder(Words(n=8), bag)


def stories(count: int = 40) -> list[Story]:
    """Base stories: sentences of the probes' stories, shuffled."""
    rng = np.random.default_rng(0)
    sentences = [s for o in load_probes().objectives for p in o.stories for s in p.text.split(". ")]
    return [Story("Write a short story.", ". ".join(rng.choice(sentences, 6))) for _ in range(count)]


def test_the_committed_texts() -> None:
    probes = load_probes()
    assert [o.held_out for o in probes.objectives].count(True) == 1
    assert len(probes.tuned) == 4
    for o in probes.objectives:
        assert len(o.terminals) == 3
        assert len(o.stories) == 5
        assert all(80 <= len(p.text.split()) <= 112 for p in (*o.stories, *o.exploits))
        names = {p.name for p in probes.rows(o)}
        assert {"unrelated story", "parrot one terminal", "list all terminals", "word salad", "flattery",
                "repeat a good chunk", "shuffled words", "source code", "lorem ipsum"} <= names  # fmt: skip
        assert sum(name.startswith("spam") for name in names) == 3
        assert "found: letters" in names
    assert [p.name for p in probes.objectives[0].found] == ["found: stilted, one", "found: stilted, two"]


def test_bad_texts_are_named(tmp_path: Path) -> None:
    path = tmp_path / "probes.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load_probes(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="prompt"):
        load_probes(path)


def test_prompts_are_different() -> None:
    assert len(set(base_prompts())) == len(base_prompts()) >= 40


def test_sampling_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fake(settings: SampleSettings, start: int) -> Any:
        for first in range(start, settings.stories, settings.batch):
            asked.append(first)
            yield [Story("p", f"story {n}") for n in range(first, first + settings.batch)]

    monkeypatch.setattr("examples.demo.sample._sample_from", fake)
    path = tmp_path / "base.jsonl"
    settings = SampleSettings(stories=6, batch=2)
    whole = sample_stories(path, settings)
    assert asked == [0, 2, 4]
    assert sample_stories(path, settings) == whole
    assert len(asked) == 3
    path.write_text("\n".join(path.read_text().split("\n")[:4]) + '\n{"torn')
    assert sample_stories(path, settings) == whole
    assert asked[3:] == [2, 4]
    sample_stories(path, SampleSettings(stories=6, batch=2, seed=1))
    assert asked[5:] == [0, 2, 4]
    assert read_stories(tmp_path / "nothing") == (None, [])


def test_auc() -> None:
    assert auc(np.array([2.0, 3]), np.array([0.0, 1])) == 1
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5
    assert auc(np.array([0.0, 2]), np.array([1.0, 1])) == 0.5
    assert np.isnan(auc(np.array([]), np.array([1.0])))


def test_splits_are_disjoint_and_the_same_again() -> None:
    settings = TableSettings(splits=3)
    for a, b in zip(splits(40, settings), splits(40, settings), strict=True):
        assert (a.build == b.build).all()
        assert len(a.ruler) == 6
        assert sorted([*a.build, *a.ruler]) == list(range(40))


def test_a_ruler_without_spread() -> None:
    z = Ruler.of(np.ones(4)).z(np.array([1.0, 2.0]))
    assert z[0] == 0
    assert np.isnan(z[1])


@pytest.fixture(scope="module")
def bench() -> tuple[Bench, Episodes]:
    base = ENCODER(["Write a short story."] * 40, [s.text for s in stories()])
    keys = bag(list(load_probes().objectives[0].terminals))
    store = pipeline.build_store(sw.Config(dim=64), base, {f"t{n}": k for n, k in enumerate(keys)})
    weights = np.full(3, 1 / 3, np.float32)
    return Bench(store.frozen(), weights, keys, meaning=Bench(store.frozen(), weights, keys)), base


@pytest.mark.parametrize("column", COLUMNS, ids=lambda c: c.id)
def test_columns_give_each_episode_a_number(bench: tuple[Bench, Episodes], column: Any) -> None:
    scores = column.score(*bench)
    assert scores.shape == (40,)
    assert np.isfinite(scores).all()
    some = column.score(bench[0], bench[1].take(np.array([3, 1])))
    np.testing.assert_allclose(some, scores[[3, 1]], atol=1e-5)


def test_meaning_alone_is_the_leading_components(bench: tuple[Bench, Episodes]) -> None:
    column = next(c for c in COLUMNS if c.id == "meaning")
    one, base = bench
    noise = np.random.default_rng(0).normal(size=(len(base.steps), 2)).astype(np.float32)
    longer = Episodes(np.concatenate([base.steps, noise], axis=1), base.offsets, base.context)
    np.testing.assert_allclose(column.score(one, longer), one.score(base), atol=1e-5)
    with pytest.raises(ValueError, match="no store of the meaning"):
        column.score(Bench(one.view, one.weights, one.terminals), base)


def test_what_the_ablations_do(bench: tuple[Bench, Episodes]) -> None:
    view = bench[0].view
    ones, permuted = bench[0].ablation("ones"), bench[0].ablation("permuted")
    assert (ones.values == 1).all()
    assert (ones.baseline == 0).all()
    means = ~view.is_terminal
    assert (permuted.values[~means] == view.values[~means]).all()
    np.testing.assert_array_equal(np.sort(permuted.values[means], 0), np.sort(view.values[means], 0))
    constant = bench[0].ablation("constant")
    assert (constant.values >= view.drives - 1e-6).all()
    assert bench[0].ablation("ones") is ones


def test_potential_is_a_constant_of_the_prompt(bench: tuple[Bench, Episodes]) -> None:
    totals = bench[0].score(bench[1], functional="potential")
    np.testing.assert_allclose(totals, totals[0], atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    patch = pytest.MonkeyPatch()
    patch.setattr(pipeline, "sample_stories", lambda *_: stories())
    patch.setattr(pipeline, "fluent_encoder", lambda *_, **__: ENCODER)
    out = tmp_path_factory.mktemp("demo")
    settings = pipeline.DemoSettings(out, SampleSettings(stories=40), TableSettings(splits=3))
    stages: list[tuple[str, int, int]] = []
    report = pipeline.run(settings, lambda *s: stages.append(s))
    patch.undo()
    assert {s for s, done, total in stages if done == total} >= {"exploit table", "embedding"}
    return out, report


def test_the_run_writes_everything(run: tuple[Path, dict[str, Any]]) -> None:
    out, report = run
    assert reporting.load(out) == json.loads(json.dumps(report))
    page = (out / "report.html").read_text("utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert "<img" not in page
    assert {p.name for p in (out / "plots").iterdir()} >= {"value-map.png", "support.png", "table-storm.png"}
    store = sw.ValueStore.load(out / "store" / "snapshot.safetensors")
    assert store.digest() == report["store"]["digest"]
    assert len(store.channels) == 15


def test_the_report_has_every_row_and_cell(run: tuple[Path, dict[str, Any]]) -> None:
    results = list(check._form(run[1]))
    assert [text for text, ok in results if not ok] == []
    assert [o["name"] for o in run[1]["objectives"]][-1] == "concert"


def test_failing_cells_stay_visible(run: tuple[Path, dict[str, Any]]) -> None:
    for o in run[1]["objectives"]:
        least = min(r["z"]["coverage"] for r in o["rows"] if r["kind"] == "story")
        most = max(r["z"]["coverage"] for r in o["rows"] if r["kind"] == "exploit")
        assert o["margin"]["coverage"] == pytest.approx(least - most, abs=2e-3)
        for r in o["rows"]:
            if r["kind"] == "exploit" and r["z"]["coverage"] > least + 1e-3:
                assert "coverage" in r["fails"]
    assert all(f for f in summary.findings(run[1]))


def test_check_says_what_fails(run: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: Any) -> None:
    bad = json.loads(json.dumps(run[1]))
    bad["auc"]["tuned"]["coverage"] = 0.5
    bad["auc"]["interval"]["tuned"] = [0.4, 0.6]
    del bad["objectives"][0]["rows"][3]
    (tmp_path / "report.json").write_text(json.dumps(bad))
    assert check.main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "FAIL on/off AUC 0.5" in out
    assert "FAIL wedding: base, five stories" in out
    assert check.main([str(tmp_path / "nothing.json")]) == 2
    (tmp_path / "report.json").write_text('{"schema": 1}')
    assert check.main([str(tmp_path / "report.json")]) == 1
    (tmp_path / "report.json").write_text("[]")
    assert check.main([str(tmp_path / "report.json")]) == 2


def test_a_verdict_is_the_interval_s() -> None:
    assert claims.verdict([0.1, 0.2], at_least=0.1) == claims.verdict([-0.2, -0.1], at_most=0.0) == "holds"
    assert claims.verdict([0.1, 0.2], at_least=0.3) == claims.verdict([0.1, 0.2], at_most=0.0) == "fails"
    assert claims.verdict([-0.1, 0.2], at_least=0.0) == claims.verdict([-0.1, 0.2], at_most=0.0) == "undecided"
    assert claims.verdict(None, at_least=0.0) == "undecided"
    no_number = claims.claim("a", "a claim", float("nan"), [0.0, 1.0], at_least=-1.0)
    assert (no_number["value"], no_number["interval"], no_number["ok"]) == (None, None, False)
    assert claims.interval(np.array([1.0, np.nan])) is None
    assert claims.line({"text": "an old report's claim", "value": 1.0, "ok": True}) == "✓ an old report's claim: +1.00"


def test_intervals_hold_what_they_are_around(run: tuple[Path, dict[str, Any]]) -> None:
    report = run[1]
    for o in report["objectives"]:
        for column, (low, high) in o["margin_interval"].items():
            assert low - 2e-3 <= o["margin"][column] <= high + 2e-3
        assert o["spam_interval"][0] - 2e-3 <= o["spam"] <= o["spam_interval"][1] + 2e-3
    around = report["auc"]["interval"]
    assert around["tuned"][0] <= report["auc"]["tuned"]["coverage"] <= around["tuned"][1]
    assert set(around) == {o["name"] for o in report["objectives"]} | {"tuned", "over ones"}
    assert {c["verdict"] for c in report["claims"]} <= {"holds", "fails", "undecided"}


def test_one_split_decides_nothing() -> None:
    """It agrees with itself, whatever it says."""
    probes = [Probe("a", "story", ""), Probe("spam", "exploit", "")]
    objective = Objective("x", "x", False, (), (probes[0],), (probes[1],))

    def measured(splits: int) -> Measured:
        z = {c.id: np.tile([2.0, -3.0], (splits, 1)) for c in COLUMNS}
        ruler = {c.id: [np.zeros(3)] * splits for c in COLUMNS}
        return Measured(objective, probes, [], z, {c.id: np.zeros((splits, 2)) for c in COLUMNS}, ruler, [])

    for count, verdict in ((1, "undecided"), (2, "undecided"), (3, "holds")):
        one = summary.objective_summary(measured(count))
        found = {c["id"]: c["verdict"] for c in summary.claims([one], {"tuned": {}})}
        assert found["stories-above-exploits:x"] == found["spam-below-base:x"] == verdict


def test_rows_of_aucs() -> None:
    rng = np.random.default_rng(0)
    on, off = np.round(rng.normal(size=(3, 5)), 1), np.round(rng.normal(size=(3, 9)), 1)
    want = [auc(a, b) for a, b in zip(on, off, strict=True)]
    np.testing.assert_allclose(summary.aucs_of_rows(on, off), want)


def test_more_stories_make_a_shorter_interval() -> None:
    """Of AUCs, whose stories are drawn again too: all splits agree here."""
    rng = np.random.default_rng(0)

    def width(stories: int) -> float:
        probes = [Probe(f"{n}", "story", "") for n in range(stories)]
        both = []
        for name, other in ("ab", "ba"):
            z = np.concatenate([rng.normal(1, 1, stories), rng.normal(0, 1, stories)])
            objective = Objective(name, name, False, (), tuple(probes), ())
            both.append(
                Measured(objective, probes, [(other, p) for p in probes], {"x": np.tile(z, (3, 1))}, {}, {}, [])
            )
        low, high = claims.interval(summary.resampled_auc(both, both, "x")) or (0.0, 0.0)
        return high - low

    assert 0.0 < width(80) < width(5) / 2


def test_a_claim_that_fails_is_seen(
    run: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """By the exit code of the demo, in its last lines, on the page and by the check; an undecided one is named."""
    text = "the base finds the texts no more than 0.5 nats a token less likely: the change"
    low, high = -0.6001, -0.4001
    for shift, verdict, code in ((0.0, "undecided", 0), (-0.2, "fails", 1), (0.2, "holds", 0)):
        one = claims.claim("likelihood", text, -0.5001 + shift, [low + shift, high + shift], at_least=-0.5)
        report = {**run[1], "claims": [one]}
        monkeypatch.setattr(pipeline, "run", lambda *_, report=report: report)
        try:
            cli.app(["demo", "--quick", "--out", str(tmp_path)])
            ended = 0
        except SystemExit as error:
            ended = error.code
        assert ended == code
        out = capsys.readouterr().out.splitlines()
        assert next(line for line in out if line.startswith("1 claims"))
        told = [line for line in out if line.endswith(f": {verdict}")]
        assert len(told) == (0 if verdict == "holds" else 2)  # among the claims, and after the count
        page = reporting.html(report)
        assert f'<li class="{verdict}">' in page
        assert f'<span class="tag">{verdict}</span>' in page or verdict == "holds"
        (tmp_path / "report.json").write_text(json.dumps(report))
        check.main([str(tmp_path), "--strict"])
        mark = {"holds": "ok  ", "fails": "FAIL", "undecided": "open"}[verdict]
        assert f"{mark} {text}" in capsys.readouterr().out


def test_what_is_undecided_fails_no_check_but_a_strict_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [("one", "holds"), ("two", "undecided")]
    monkeypatch.setattr(check, "load", lambda _: {})
    monkeypatch.setattr(check, "checks", lambda *_: iter(results))
    assert check.main([str(tmp_path)]) == 0
    assert check.main([str(tmp_path), "--strict"]) == 1
    results.append(("three", "fails"))
    assert check.main([str(tmp_path)]) == 1
