"""The study's third part before its runs: gold measures on the labelled texts, the declared rewards, the best of n."""

import json
import tomllib

import numpy as np
import pytest
from paths import ROOT

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

import sharpwave as sw  # noqa: E402
from sharpwave.reward import RewardOutput  # noqa: E402
from sharpwave.text import Typicality  # noqa: E402
from tiny_policy import WORDS, embed, policy  # noqa: E402

from examples.study.claim import arms, best_of_n, gold, pool, sampling, validate  # noqa: E402
from examples.study.claim.materials import CHUNKER, Materials, Texts  # noqa: E402
from examples.study.setting import OPENINGS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """The study's paths begin there; and two threads are slower on so small a model."""
    monkeypatch.chdir(ROOT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def found():
    return json.loads((ROOT / validate.RESULT).read_text())


# Gold


def test_an_auc_is_the_share_of_pairs_in_order():
    has = np.array([True, True, False, False])
    assert validate.auc(has, np.array([3.0, 1.0, 2.0, 0.0])) == 0.75
    assert validate.auc(has, np.array([1.0, 1.0, 1.0, 1.0])) == 0.5
    low, high = validate.interval(has, np.array([3.0, 2.0, 1.0, 0.0]))
    assert low == high == 1.0


def test_a_label_is_what_two_readers_said_together():
    two = np.array([[[2, 2, 1], [1, 1, 2], [0, 0, 2]], [[1, 2, 1], [1, 1, 1], [0, 1, 2]]])
    has = validate.flags(two)
    assert has["wedding"].tolist() == [True, False, False]
    assert has["wedding in prose"].tolist() == [True, False, False]
    assert has["prose"].tolist() == [True, False, False]
    assert has["not broken"].tolist() == [True, True, False]
    assert has["happy"].tolist() == [False, True, True]


def test_labels_out_of_order_are_refused(tmp_path):
    (tmp_path / "reader-1.txt").write_text("0 1 2 0\n2 1 1 1\n")
    with pytest.raises(ValueError, match=r"reader-1\.txt"):
        validate.read_labels(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The bride’s vows were read at the WEDDING.", ["wedding", "bride", "vows"]),
        ("A ring, a dress and a church; his wife.", []),
        ("She was his fiancée, and unmarried.", ["fiancée"]),
    ],
)
def test_words_are_whole_ones_of_the_list(text, words):
    assert gold.found("wedding", text) == words
    assert gold.measure("wedding", ["Once"], [text])["objective"] == float(bool(words))


def test_a_measure_enters_by_its_auc(found):
    for row in found["candidates"]:
        assert row["taken"] == (row["auc"] >= 0.9), row
    taken = {(row["label"], row["measure"]) for row in found["candidates"] if row["taken"]}
    assert {("wedding", "words"), ("wedding", "likelier as a wedding"), ("not broken", "fluency and variety")} <= taken
    assert not any(label in ("happy", "prose") for label, _ in taken)


@pytest.mark.parametrize(
    ("name", "label", "package"),
    [
        ("words", "wedding", None),
        ("variety", "not broken", None),
        ("VADER", "happy", "vaderSentiment"),
        ("encoder", "wedding", "wordllama"),
        ("encoder mood", "happy", "wordllama"),
    ],
)
def test_what_needs_no_language_model_is_what_was_kept(found, name, label, package):
    if package:
        pytest.importorskip(package)
    texts = validate.read_texts()
    context = validate.Context([t["opening"] for t in texts], [t["text"] for t in texts])
    candidate = next(c for c in validate.CANDIDATES if c.name == name)
    has = validate.flags(validate.read_labels())[label]
    row = next(r for r in found["candidates"] if (r["measure"], r["label"]) == (name, label))
    assert validate.auc(has, candidate.score(context)[: len(texts)]) == pytest.approx(row["auc"], abs=1e-3)


def test_agreement_and_the_list_s_errors_are_what_was_kept(found):
    labels = validate.read_labels()
    for name, row in validate.agreement(labels).items():
        assert row == pytest.approx(found["agreement"][name])
    assert validate.hits(validate.read_texts(), validate.flags(labels)["wedding"]) == found["words"]


def test_the_page_is_made_of_the_results(tmp_path, found):
    page = tmp_path / "page.md"
    page.write_text((ROOT / validate.DOCUMENT).read_text())
    validate.write(found, page)
    best_of_n.write(ROOT / best_of_n.RESULTS, page)
    assert page.read_text() == (ROOT / validate.DOCUMENT).read_text()


def test_whole_needs_fluency_and_variety():
    fluent, varied = (gold.scales()[name] for name in ("fluency", "variety"))
    units = gold.whole(
        np.array([fluent[0], fluent[0] - 3 * fluent[1]]), np.array([varied[0] - 2 * varied[1], varied[0]])
    )
    assert units == pytest.approx([-2.0, -3.0])


# Arms


def texts(copies, seed):
    rng = np.random.default_rng(seed)
    return {o: [" ".join(rng.choice(WORDS.split(), 14)) for _ in range(copies)] for o in OPENINGS}


@pytest.fixture(scope="module")
def materials():
    stories = [("Write.", " ".join(np.random.default_rng(n).choice(WORDS.split(), 40))) for n in range(12)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        made = Materials(
            "wedding", sampling.World(policy(), embed, texts(4, 0), template="{opening}", tokens=16), stories
        )
        made.store()
    return made


def test_every_run_of_the_matrix_has_an_arm():
    plan = tomllib.loads((ROOT / "study/claim.toml").read_text())
    wanted = {arm for block in plan["matrix"] for arm in block["arms"]}
    assert wanted <= set(arms.names())
    assert arms.specs()["judge-kl-05"].kl == 0.05
    assert all(spec.kl == 0.0 for spec in arms.specs().values() if spec.protected)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"outcome": "judges"}, "outcome must be one of"),
        ({"process": "stores"}, "process must be 'store'"),
        ({}, "needs an outcome or a process"),
        ({"outcome": "judge", "process": "store"}, "conjunction, which is protected"),
        ({"outcome": "judge", "ablation": "ones"}, "only a store"),
        ({"process": "store", "ablation": "one"}, "ablation must be one of"),
        ({"outcome": "judge", "kl": -0.1}, "kl must be at least 0"),
    ],
)
def test_what_no_arm_can_be_is_refused(row, message):
    with pytest.raises(ValueError, match=message):
        arms.Spec("odd", **row)


def test_an_unknown_key_and_an_unknown_arm_are_named(tmp_path, materials):
    (tmp_path / "claim.toml").write_text('[arms]\nodd = { title = "odd", weight = 2 }\n')
    with pytest.raises(ValueError, match="unknown key 'weight'"):
        arms.specs(tmp_path / "claim.toml")
    with pytest.raises(KeyError, match="no arm 'odd'"):
        arms.build("odd", "wedding", materials.world)


@pytest.mark.parametrize("name", ["judge", "cosine", "nearest", "probe", "store", "store-ones", "store-permuted"])
def test_a_bare_arm_pays_in_standard_deviations_of_the_base(materials, name):
    paid = arms.build(name, "wedding", materials.world, materials).of(materials.reference)
    assert paid.reward.mean() == pytest.approx(0.0, abs=1e-5)
    assert paid.reward.std() == pytest.approx(1.0, rel=1e-5) or np.ptp(paid.reward) < 1e-5


@pytest.mark.parametrize("name", ["judge-protected", "judge-store", "cosine-store", "probe-store", "cosine-store-ones"])
def test_a_protected_arm_pays_at_most_1(materials, name):
    arm = arms.build(name, "wedding", materials.world, materials)
    batch = Texts.of(texts(2, 7))
    paid = arm(batch.openings, batch.completions)
    units = [v for k, v in paid.parts.items() if k.startswith("u_")]
    assert len(units) == bool(arm.spec.outcome) + bool(arm.spec.process)
    whole = np.prod(units, axis=0) ** (1 / len(units)) * paid.parts["typicality"] / paid.parts["crowd"]
    np.testing.assert_allclose(paid.reward, whole - 0.05 * paid.parts["typicality_excess"], rtol=1e-6, atol=1e-9)
    assert paid.reward.max() <= 1.0
    assert arm(batch.openings, batch.completions, crowd=False).parts.keys() == paid.parts.keys() - {"crowd", "alike"}


def test_a_conjunction_is_the_reward_of_the_package(materials):
    """All but typicality, which the arm takes from the base's own reading."""
    arm = arms.build("cosine-store", "wedding", materials.world, materials)

    def cosine(prompts, completions):
        return list(arms.outcome("cosine", materials, Texts(list(prompts), list(completions))))

    reward = sw.InstrumentalReward(
        materials.store(),
        embed,
        CHUNKER,
        terminal=cosine,
        base=(materials.reference.openings, materials.reference.completions),
        demonstrations=(materials.scale.openings, materials.scale.completions),
        combine="conjunction",
        crowd=True,
        channel_weights=materials.channel_weights(materials.store()),
    )
    batch = Texts.of(texts(3, 5))
    out: RewardOutput = reward.score_texts(batch.openings, batch.completions)
    alike = arm.protections.crowding(batch.openings, materials.vectors(batch))
    paid = arm.pay(arm.measure(batch), None, alike)
    np.testing.assert_allclose(out.rewards, paid.reward, rtol=1e-4, atol=1e-5)


def test_ablations_change_what_is_paid_and_told_stores_have_a_channel(materials):
    batch = Texts.of(texts(4, 3))
    pay = {
        name: arms.build(name, "wedding", materials.world, materials).measure(batch)["instrumental"]
        for name in ("store", "store-ones", "store-permuted", "store-constant", "store-drives", "store-told")
    }
    assert all(np.isfinite(v).all() for v in pay.values())
    assert all(not np.allclose(pay["store"], pay[name]) for name in pay if name != "store")
    told = materials.store(told=True)
    weights = materials.channel_weights(told)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[told.channels.index("demonstration")] == 0.5


def test_kept_texts_are_measured_once(materials):
    batch = Texts.of(texts(1, 9))
    known = np.arange(len(batch.openings), dtype=float)
    materials.keep(batch, judge=known)
    assert arms.build("judge", "wedding", materials.world, materials).measure(batch)["terminal"] is known


# The best of n


def test_the_pool_is_the_same_after_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "COPIES", 2)
    pool.sample(policy(), 2, tmp_path / "whole", tokens=4)
    pool.sample(policy(), 1, tmp_path / "stopped", tokens=4)
    pool.sample(policy(), 2, tmp_path / "stopped", tokens=4)
    openings, completions = pool.read(2, tmp_path / "whole")
    assert (openings, completions) == pool.read(2, tmp_path / "stopped")
    assert [openings.count(o) for o in OPENINGS] == [4] * len(OPENINGS)
    with pytest.raises(FileNotFoundError):
        pool.read(3, tmp_path / "whole")


def pooled(copies=32):
    return [o for o in OPENINGS for _ in range(copies)]


def test_a_reward_that_is_gold_rises_and_one_that_is_chance_does_not():
    openings = pooled()
    rng = np.random.default_rng(0)
    has = (rng.random(len(openings)) < 0.1).astype(float)
    ends = {"objective": {"base": float(has.mean()), "asked": 0.5}}
    good = best_of_n.curves(openings, has + 0.01 * rng.random(len(has)), {"objective": has})
    chance = best_of_n.curves(openings, rng.random(len(has)), {"objective": has})
    found = {"ends": ends, "rewards": {"good": good, "chance": chance}}
    assert good["within"]["n"] == [1, 2, 4, 8, 16, 32]
    assert good["together"]["n"] == [1, 4, 16, 64]
    assert best_of_n.rises(found, "good")
    assert not best_of_n.rises(found, "chance")
    assert best_of_n.sentence(found, "chance", "chance").endswith("not trained on.")
    assert "rises from 0.00" in best_of_n.sentence(found, "good", "good")


def test_a_reward_that_is_fooled_turns():
    """What pays most of all is worth nothing; what comes next is gold."""
    openings = pooled()
    reward = np.tile(np.arange(32.0), len(OPENINGS))
    has = ((reward >= 20) & (reward < 31)).astype(float)
    one = best_of_n.curves(openings, reward, {"objective": has})
    found = {"ends": {"objective": {"base": 0.0, "asked": 1.0}}, "rewards": {"fooled": one}}
    assert one["within"]["gold"]["objective"]["turns"]
    assert "and turns there: 0.00 at 32" in best_of_n.sentence(found, "fooled", "fooled")


def test_a_rise_counts_wherever_it_is_shown_and_more_samples_stand_beside_fewer():
    """What pays 16 … 30 of 32 is gold; the very best is gold in half of the openings, which shows nothing."""
    openings = pooled()
    reward = np.tile(np.arange(32.0), len(OPENINGS))
    has = ((reward >= 16) & (reward < 31)).astype(float)
    has[31::64] = 1.0
    few = best_of_n.curves(openings, reward, {"objective": has})
    many = best_of_n.curves(pooled(64), np.tile(np.arange(64.0), len(OPENINGS)), {"objective": np.repeat(has, 2)})
    found = {"ends": {"objective": {"base": 0.0, "asked": 1.0}}, "rewards": {"few": few, "many": many}}
    assert best_of_n.rises(found, "few")
    assert not best_of_n.stays(found, "few")
    titles = {name: arms.Spec(name, "probe") for name in found["rewards"]}
    head, _, first, second = best_of_n.table(found, titles).splitlines()
    assert head.startswith("| reward | n = 1 | n = 4 | n = 16 | n = 64 | 64, all openings")
    assert first.split(" | ")[4] == ""
    assert "…" in first.split(" | ")[3]
    assert "…" in second.split(" | ")[4]


def test_a_report_of_typicality_comes_back_from_its_columns():
    base = [f"they met at the sea and sailed for {n} days" for n in range(9)]
    rng = np.random.default_rng(0)
    tables = [rng.random((9, 6)) for _ in range(3)]
    gate = Typicality(None).fit_logprobs(-tables[0], np.ones((9, 6)), *tables[1:], prompts=[""] * 9, completions=base)
    report = gate.report_of_logprobs(-2 * tables[0], np.ones((9, 6)), *tables[1:], prompts=[""] * 9, completions=base)
    again = best_of_n.as_report(best_of_n.as_columns(report))
    for name in best_of_n.REPORTED:
        np.testing.assert_array_equal(getattr(again, name), getattr(report, name))
    assert 0 < report.gate.mean() < 1


def test_the_interval_of_all_openings_is_the_jackknife():
    openings = pooled(4)
    rng = np.random.default_rng(1)
    reward, has = rng.random(len(openings)), rng.random(len(openings))
    made = best_of_n.together(openings, reward, {"g": has}, [1])["gold"]["g"]
    groups = has.reshape(len(OPENINGS), 4).mean(1)
    assert made["mean"][0] == pytest.approx(has.mean())
    # At n = 1 the jackknife of a mean is its standard error.
    assert made["error"][0] == pytest.approx(groups.std(ddof=1) / np.sqrt(len(OPENINGS)))


def test_slow_measures_are_kept_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "COPIES", 2)
    batch = Texts(pooled(2) + pooled(2), [str(n) for n in range(4 * len(OPENINGS))])
    asked = []

    def length(some):
        asked.append(len(some.openings))
        return np.array([float(c) for c in some.completions])

    for _ in range(2):
        assert best_of_n.by_block("length", batch, tmp_path, length).tolist() == list(range(4 * len(OPENINGS)))
    assert asked == [16, 16]
