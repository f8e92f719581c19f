"""The study's harness on a tiny random model: two steps, a resume that changes nothing, and the report of a fixture."""

import json

import numpy as np
import pytest
from paths import ROOT

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")
pytest.importorskip("rich")

from tiny_policy import WORDS, embed, policy  # noqa: E402

from examples.study import after, compare, config, gold, loop, measures, report, reward, run, tables, verdict  # noqa: E402
from examples.study.setting import OPENINGS, Setting, read_base  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads are slower on so small a model, by far when others use the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def setting(seed=0):
    settings = gold.read(ROOT / "study/gold.toml")
    settings["encoder"] = {"layer": 2}
    rng = np.random.default_rng(0)
    vocabulary = WORDS.split()
    reference = {o: [" ".join(rng.choice(vocabulary, 14)) for _ in range(4)] for o in OPENINGS}
    base = [("once upon a time", " ".join(rng.choice(vocabulary, 60))) for _ in range(12)]
    terminals = ["The bride and groom kissed.", "They laughed and walked home."]
    return Setting(policy(seed), embed, embed, "wedding", terminals, base, reference, -2.0, settings)


def arm(name, **train):
    made = config.load(name, ROOT / "study/config")
    numbers = {"steps": 2, "copies": 4, "tokens": 6, "gold_every": 1, "checkpoint_every": 1}
    return config.Config(
        made.arm, made.reward, made.title, made.objective, made.options, config.Train(**(numbers | train))
    )


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(path):
    """Lines without what a clock or a commit put there."""
    out = lines(path)
    for line in out:
        line.pop("seconds", None)
        line.pop("versions", None)
    return out


@pytest.mark.parametrize(
    ("name", "algorithm"), [("judge-grpo", "grpo"), ("cosine", "reinforce"), ("instrumental-full", "reinforce")]
)
def test_two_steps_of_an_arm(tmp_path, name, algorithm):
    inner = 2 if algorithm == "grpo" else 1
    one = loop.Run(arm(name, algorithm=algorithm, inner=inner), 0, setting(), tmp_path / "out.jsonl", tmp_path / "work")
    before = {k: v.clone() for k, v in one.setting.policy.adapter().items()}
    one.go()
    header, *steps = lines(tmp_path / "out.jsonl")
    assert header["arm"] == name
    assert [s["step"] for s in steps] == [0, 1]
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-5)  # a fresh adapter changes nothing
    assert steps[0]["base_log_likelihood"] == pytest.approx(steps[0]["log_likelihood"], abs=1e-4)
    assert set(steps[0]["gold"]) == {"objective", "mood", "judge_fewshot", "judge_dialogue"}
    assert len(steps[0]["samples"]) == 8
    assert any(not torch.equal(before[k], v) for k, v in one.setting.policy.adapter().items())


def test_remedies_after_a_run(tmp_path):
    one = loop.Run(arm("judge-divergence"), 0, setting(), tmp_path / "out.jsonl", tmp_path / "work")
    one.go()
    base, moved, *blends = after.points(tmp_path / "work")
    assert [(p.step, p.weight) for p in (base, moved)] == [(0, 1.0), (1, 1.0)]
    assert [p.weight for p in blends] == list(after.WEIGHTS)
    out = tmp_path / "after.jsonl"
    made = arm("judge-divergence")
    after.evaluate(made, setting(), 0, tmp_path / "work", out, lambda _: None)
    header, first, second, *rest = lines(out)
    assert header["arm"] == "judge-divergence"
    assert first["kl"] == pytest.approx(0, abs=1e-6)  # before the first update it is the base
    assert [r["kl"] for r in rest] == sorted(r["kl"] for r in rest)
    assert first["kl"] < rest[0]["kl"] < rest[-1]["kl"] < second["kl"]
    assert {"distance", "distinct_2", "support"} <= set(first["drift"])
    # It goes on behind the last line that is there.
    out.write_text("".join(line + "\n" for line in out.read_text().splitlines()[:3]))
    after.evaluate(made, setting(seed=7), 0, tmp_path / "work", out, lambda _: None)
    assert lines(out) == [header, first, second, *rest]


@pytest.mark.parametrize(
    "name",
    [
        "instrumental-all",
        "instrumental-drives",
        "instrumental-one-terminal",
        "instrumental-mean",
        "instrumental-no-gate",
    ],
)
def test_a_knocked_out_part_changes_what_is_paid(name):
    def paid(name):
        shared = setting()
        made = reward.Scaled(reward.make("instrumental", shared, arm(name).options), shared)
        return made.arm.parts(shared.reference_batch, learning=True)["coverage"]

    assert not np.allclose(paid(name), paid("instrumental"))


@pytest.mark.parametrize("name", ["judge", "instrumental-online", "instrumental-habituation"])
def test_resume_changes_nothing(tmp_path, name):
    whole = loop.Run(arm(name, steps=3), 0, setting(), tmp_path / "whole.jsonl", tmp_path / "a")
    whole.go()
    first = loop.Run(arm(name, steps=3), 0, setting(), tmp_path / "parts.jsonl", tmp_path / "b")
    first.go(until=1)
    with (tmp_path / "parts.jsonl").open("a") as file:
        file.write('{"step": 1, "torn')
    second = loop.Run(arm(name, steps=3), 0, setting(seed=5), tmp_path / "parts.jsonl", tmp_path / "b")
    assert second.step == 1
    second.go()
    assert second.finished
    assert same(tmp_path / "parts.jsonl") == same(tmp_path / "whole.jsonl")
    for key, value in whole.setting.policy.adapter().items():
        assert torch.equal(value, second.setting.policy.adapter()[key]), key


def test_the_upper_layers_go_on_where_the_shared_ones_stop():
    model = policy()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1)
    samples = model.sample(["once upon a time", "the old man"], 2, 5, torch.Generator().manual_seed(0))
    ids = torch.cat([samples.prompt_ids.repeat_interleave(2, 0), samples.ids], 1)
    mask = torch.cat([samples.prompt_mask.repeat_interleave(2, 0), samples.mask], 1)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        plain = model.core(input_ids=ids, attention_mask=mask, position_ids=places).logits.log_softmax(-1)
        shared = model.log_probs(model.read(samples))
    torch.testing.assert_close(shared, plain[:, -6:-1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(shared, model.read(samples).base)


def test_a_judge_reads_a_prefix_as_if_it_stood_before_each_text():
    model = policy()
    with torch.no_grad():
        apart = model.next_log_probs(["the old man", "she"], "once upon a time ")
        together = model.next_log_probs(["once upon a time the old man", "once upon a time she"])
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-5)


def test_rewards_are_normalised_within_their_group():
    out = loop.normalised(np.array([1.0, 3.0, 10.0, 10.0]), 2)
    np.testing.assert_allclose(out, [-1, 1, 0, 0], atol=1e-5)


def test_measures():
    terminal = "The bride and groom exchanged rings and kissed before their families."
    assert measures.yes_share(["Yes, yes. No", "yes"]) == 0.75
    assert measures.distinct(["a b a b"], 2) == pytest.approx(2 / 3)
    assert measures.distinct_within(["a b a b", "a b c"], 2) == pytest.approx((2 / 3 + 1) / 2)
    assert measures.parrot_share([f"{terminal} He went home alone."], [terminal], 0.5) == 0.5
    assert measures.parrot_share(["The bride and her mother wept all day."], [terminal], 0.5) == 0
    assert measures.top_word(["storm at sea, storm"]) == ("storm", 0.5)


def test_every_planned_arm_has_a_configuration():
    for name, _ in run.plan():
        assert config.load(name, ROOT / "study/config").title
    planned = {name for name, _ in run.plan()}
    there = {p.stem for p in (ROOT / "study/config").glob("*.toml")} - {"default"}
    assert planned == there


def test_the_base_text_is_there():
    assert len(read_base(ROOT / "study/base.jsonl")) >= 128


def test_a_configuration_with_a_mistake_is_refused(tmp_path):
    (tmp_path / "default.toml").write_text("")
    (tmp_path / "odd.toml").write_text('title = "t"\nreward = "judge"\nrewards = 1\n')
    with pytest.raises(ValueError, match="rewards"):
        config.load("odd", tmp_path)
    with pytest.raises(ValueError, match="algorithm"):
        config.Train(algorithm="ppo")


FIXTURE = ROOT / "tests/data/study"


def test_report_of_a_fixture(tmp_path):
    document, told = tmp_path / "study-first.md", tmp_path / "study-samples.md"
    for page in (document, told):
        page.write_text((ROOT / "docs" / page.name).read_text())
    settings = gold.read(ROOT / "study/gold.toml")
    report.write(FIXTURE, document, told, settings)
    report.draw(FIXTURE, tmp_path / "img")
    text = document.read_text()
    assert "Finished (3): judge 0, instrumental 0, judge 1." in text
    assert "| judge | 2 |" in text
    assert (tmp_path / "img/study-curves.svg").stat().st_size > 10_000
    assert "| **judge** | " in told.read_text()
    report.write(FIXTURE, document, told, settings)
    assert document.read_text() == text  # writing it again changes nothing


def test_documents_are_those_of_the_results(tmp_path):
    pages = [tmp_path / p.name for p in report.DOCUMENTS]
    for page in pages:
        page.write_text((ROOT / "docs" / page.name).read_text())
    report.write(ROOT / "study/results", *pages, gold.read(ROOT / "study/gold.toml"))
    for page in pages:
        assert page.read_text() == (ROOT / "docs" / page.name).read_text()


def test_what_comes_after_a_run_is_chosen_by_drift_alone():
    base = dict.fromkeys(("distinct_2", "distinct_2_within"), 0.5) | {"log_likelihood": -2.0}
    keys = ("objective", "mood", "judge_fewshot", "judge_dialogue")
    header = {
        "arm": "judge",
        "config": {"options": {}},
        "base": base | {"gold": {k: {"mean": 1.0, "sd": 2.0} for k in keys}},
    }
    fine = {"distance": 0.1, "distinct_2": 1.0, "support": 1.0, "empty": 0.0}
    text = dict.fromkeys(("yes_share", "parrot_share", "list_share", "top_word_share"), 0.0)
    text |= {"proxy": 5.0, "kl": 0.3, "base_log_likelihood": -2.2, "distinct_2": 0.4, "distinct_2_within": 0.5}

    def point(step, weight, **drift):
        return text | {f"gold_{k}": float(step) for k in keys} | {"step": step, "weight": weight, "drift": fine | drift}

    steps = [point(0, 1.0), point(5, 1.0), point(10, 1.0, support=0.4), point(15, 1.0), point(20, 1.0, distance=3.0)]
    blends = [point(20, 0.25), point(20, 0.5), point(20, 0.75, distinct_2=0.5)]
    chosen = compare.After(header, steps, blends).chosen
    assert chosen["end"] is steps[-1]
    assert chosen["stopped"] is steps[1]  # not step 15, which is within the limits again
    assert chosen["blended"] is blends[1]
    nothing = compare.After(header, steps, [point(20, 0.25, empty=0.9)]).chosen
    assert nothing["blended"] is steps[0]  # the base
    never = compare.After(header, steps[:2], blends).chosen
    assert never["stopped"] is never["end"] is never["blended"] is steps[1]
    summary = compare.After(header, steps, blends).summary(steps[1])
    assert summary["gold_proxy"] == summary["gold_objective"] == 2.0
    assert summary["distinct_2"] == pytest.approx(0.8)
    assert summary["base_log_likelihood"] == pytest.approx(-0.2)
    rows = compare.remedies_table([compare.After(header, steps, blends)], gold.read(ROOT / "study/gold.toml"))
    assert [row[2] for row in rows] == ["step 20", "step 5", "w = 0.5"]


def test_gold_turns_over_where_it_is_best():
    record = verdict.Record.read(FIXTURE / "judge-0.jsonl")
    best, _, end, _ = compare.turn(record)
    assert best == pytest.approx(record.best("objective"))
    assert best >= end


def test_verdicts_follow_the_thresholds():
    settings = gold.read(ROOT / "study/gold.toml")
    fine = dict.fromkeys(("distinct_2", "distinct_2_within"), 1.0) | {"base_log_likelihood": 0.1}
    fine |= dict.fromkeys(("yes_share", "parrot_share", "list_share", "top_word_share"), 0.0)
    assert verdict.verdict(fine, settings) == ("resists", [])
    assert verdict.verdict(fine | {"yes_share": 0.03}, settings) == ("degrades", ["yes_share"])
    assert verdict.verdict(fine | {"distinct_2": 0.7}, settings) == ("collapsed", ["distinct_2"])
    assert verdict.verdict(fine | {"base_log_likelihood": -1.2}, settings) == ("collapsed", ["base_log_likelihood"])


def test_a_run_that_is_under_way_is_named_and_not_judged(tmp_path):
    rows = (FIXTURE / "judge-0.jsonl").read_text().splitlines()
    (tmp_path / "judge-0.jsonl").write_text("\n".join(rows[:-1]) + '\n{"step": 2, "to')
    records = verdict.read_all(tmp_path)
    assert not records[0].finished
    assert "judge 0 (2 of 3 steps)" in tables.progress(records)
    assert tables.verdicts(records, gold.read(ROOT / "study/gold.toml")) == "No run is finished yet."


def test_the_same_kl_is_the_first_step_that_reaches_it():
    record = verdict.Record.read(FIXTURE / "judge-0.jsonl")
    assert record.at_kl(0.0) == 0
    assert record.at_kl(1e9) is None
    assert record.best("mood") >= min(record.gold("mood")[1])
    assert record.gold_key("judge") == "judge_fewshot"
