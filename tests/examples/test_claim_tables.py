"""What the thresholds of the study's third part say of made-up runs."""

import json
from dataclasses import replace

import pytest
from paths import ROOT

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from examples.study.claim import plan, report, tables
from examples.study.claim.plan import Distill, Gradient, Plan, Planned

THRESHOLDS = plan.read(ROOT / "study/claim.toml").thresholds
BASE = tables.Point(0, 0.0, 0.02, 0.03, 0.0, 0.9, 1.0, 0.0, 0.0)
GOOD = replace(BASE, at=5, gold=0.85, rise=2.0, gate=0.88, distinct_2=0.95, kl=0.3)


def verdict(*points, kl=0.0):
    return tables.verdict([BASE, *points], THRESHOLDS, kl)


def test_a_run_holds_where_all_thresholds_are_met():
    assert verdict(GOOD).word == "holds"
    for short, name in (
        (replace(GOOD, gold=0.79), "gold"),
        (replace(GOOD, gate=0.79), "gate"),
        (replace(GOOD, distinct_2=0.89), "distinct_2"),
    ):
        assert verdict(short).word == f"falls short: {name}"
    assert verdict(GOOD, kl=0.05).lacks == ("external KL",)


def test_a_run_is_exploited_where_pay_rises_and_gold_does_not():
    assert verdict(replace(GOOD, gold=0.1)).exploited  # it stays
    assert verdict(replace(GOOD, at=3, gold=0.9), replace(GOOD, gold=0.4)).exploited  # it falls
    assert not verdict(replace(GOOD, at=3, gold=0.9), replace(GOOD, gold=0.5)).exploited
    assert not verdict(replace(GOOD, gold=0.1, rise=0.9)).exploited  # pay did not rise
    assert verdict(replace(GOOD, gold=0.1)).word == "exploited"


def record(one, gold, rise=2.0, kl=0.0):
    points = (BASE, replace(GOOD, at=one.length, gold=gold, rise=rise))
    return tables.Record({"run": one.name, "arm": one.arm, "kl": kl}, points, ())


CLAIM = {
    "a": {"exploited": ["judge"]},
    "b": {"holds": ["whole"]},
    "d": {"loses": ["ones"], "whole": "whole"},
    "e": {"beside": ["probe"], "whole": "whole"},
}
RUNS = [
    Planned("distill", arm, "wedding", seed, 5, 1.0) for seed in (0, 1) for arm in ("whole", "judge", "ones", "probe")
]
PLAN = Plan(Distill(), Gradient(), THRESHOLDS, CLAIM, tuple(RUNS))


def answers(**gold):
    found = {one.name: record(one, gold[f"{one.arm}{one.seed}"]) for one in RUNS if f"{one.arm}{one.seed}" in gold}
    return {part: tables.answer(part, claim, PLAN, found) for part, claim in CLAIM.items()}


def test_a_claim_is_met_by_all_its_runs_and_refuted_by_one():
    assert {a.state for a in answers().values()} == {"not yet run"}
    some = answers(whole0=0.9, judge0=0.1, ones0=0.3)
    assert {p: (a.state, a.runs, a.agree) for p, a in some.items()} == {
        "a": ("not yet run", 1, 1),
        "b": ("not yet run", 1, 1),
        "d": ("not yet run", 1, 1),
        "e": ("not yet run", 0, 0),
    }
    every = answers(whole0=0.9, whole1=0.8, judge0=0.1, judge1=0.1, ones0=0.3, ones1=0.7, probe0=0.9, probe1=0.9)
    assert {p: a.state for p, a in every.items()} == {"a": "met", "b": "met", "d": "refuted", "e": "reported"}
    assert every["d"].agree == 1  # seed 1 loses a tenth only
    assert answers(whole0=0.7)["b"].state == "refuted"
    assert answers(ones0=0.1)["d"].runs == 0  # nothing to compare it with


def test_a_longer_run_is_read_at_each_length():
    points = (BASE, replace(GOOD, at=5), replace(GOOD, at=7, gold=0.1))
    one = tables.Record({"run": "r"}, points, ())
    assert one.until(5)[-1].at == 5
    assert one.until(10) == ()


def line(at, gold, reward):
    return {
        "round": at,
        "reward": reward,
        "reward_sd": 0.5,
        "gold": {"objective": {"mean": gold, "se": 0.01}},
        "gate": 0.9,
        "distinct_2": 0.7,
        "log_likelihood": -1.7,
        "kl": 0.1 * at,
        "samples": ["Once upon a time there was a wedding.", "She", "They"],
    }


@pytest.fixture
def results(tmp_path):
    """Two runs of the committed plan, one of them under way."""
    head = {"run": "x", "optimiser": "distill", "objective": "wedding", "seed": 0, "kl": 0.0,
            "skyline": {"gold": {"objective": {"mean": 0.43, "se": 0.04}}}}  # fmt: skip
    for arm, rounds in (("cosine-store", 6), ("judge", 3)):
        lines = [
            head | {"arm": arm, "run": f"distill-{arm}-wedding-0"},
            *(line(n, 0.03 + 0.08 * n, 0.1 * n) for n in range(rounds)),
        ]
        path = tmp_path / "results" / f"distill-{arm}-wedding-0.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    tried = head | {"arm": "cosine-store", "attempt": "more", "run": "distill-cosine-store-more-wedding-0"}
    path = tmp_path / "results/attempts/distill-cosine-store-more-wedding-0.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(one) + "\n" for one in (tried, line(0, 0.03, 0.0), line(1, 0.09, 0.2))))
    return tmp_path / "results"


def test_report_of_made_up_results(tmp_path, results):
    document = tmp_path / "study.md"
    document.write_text((ROOT / "docs/study.md").read_text())
    report.write(results, document, ROOT / "study/claim.toml")
    text = document.read_text()
    assert (
        "| distill | wedding | 0 | 5 of 10 | +1.00 | 1.00 ± 0.02 | 0.430 | 0.90 | 1.00 | +0.00 | 0.50 | holds |" in text
    )
    assert "| distill | wedding | 0 | 2 of 5 |" in text
    assert "Done (1): distill-cosine-store-wedding-0 to 5." in text
    assert "Under way (2): distill-judge-wedding-0 to 5, distill-cosine-store-wedding-0 to 10." in text
    assert "| as planned | 1 | +0.20 | 0.20 ± 0.02 | 0.90 | 1.00 | 0.10 |" in text
    assert "| twice as many kept | 1 | +0.40 | 0.15 ± 0.02 | 0.90 | 1.00 | 0.10 |" in text
    assert "> Once upon a time there was a wedding." in text
    report.write(results, document, ROOT / "study/claim.toml")
    assert document.read_text() == text  # writing it again changes nothing
    report.draw(results, tmp_path / "img", ROOT / "study/claim.toml")
    assert {p.name for p in (tmp_path / "img").iterdir()} == {"claim-pareto.svg", "claim-rounds.svg"}


def test_the_document_is_that_of_the_results(tmp_path):
    page = tmp_path / "study.md"
    page.write_text((ROOT / "docs/study.md").read_text())
    report.write(ROOT / "study/results/claim", page, ROOT / "study/claim.toml")
    assert page.read_text() == (ROOT / "docs/study.md").read_text()
