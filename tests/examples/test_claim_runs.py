"""The runs of the study's third part on a tiny random model: cheap sampling, kills, the queue."""

import json
import shutil
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pytest
from paths import ROOT

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from tiny_policy import WORDS, embed, policy  # noqa: E402

from examples.study import queue  # noqa: E402
from examples.study.claim import distill, gradient, plan, sampling  # noqa: E402
from examples.study.claim.plan import Distill, Gradient, Plan, Planned  # noqa: E402
from examples.study.setting import OPENINGS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

DISTILL = Distill(copies=6, keep=2, epochs=2, tokens=6, gold=2, batch=8)
GRADIENT = Gradient(tokens=6, copies=2, gold_every=2, checkpoint_every=2, gold=2)


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads are slower on so small a model, by far when others use the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def world():
    rng = np.random.default_rng(0)
    vocabulary = WORDS.split()
    base = {o: [" ".join(rng.choice(vocabulary, 6)) for _ in range(3)] for o in OPENINGS}
    return sampling.World(policy(), embed, base, template="{opening}", tokens=8)


@dataclass
class Paid:
    reward: np.ndarray
    parts: dict


class LikesDancing:
    kl = 0.1

    def __call__(self, openings, completions):
        share = np.array([t.count("dancing") + 0.01 * len(t) for t in completions])
        return Paid(share, {"dancing": share})


def gold(openings, completions):
    return {"objective": np.array([float("dancing" in t) for t in completions])}


SKYLINE = {o: ["they kissed dancing"] * 2 for o in OPENINGS}


def planned(optimiser="distill", length=2, seed=0, arm="likes"):
    return Planned(optimiser, arm, "wedding", seed, length, 1.0)


def make(root):
    def made(one, whole, device):
        there = (one, whole.distill, world(), LikesDancing(), gold, SKYLINE, one.results(device, root / "results"))
        if one.optimiser == "distill":
            return distill.Run(*there, root / "work" / one.name, root / "work/base")
        return gradient.Run(*(one, whole.gradient, *there[2:]), root / "work" / one.name)

    return made


def whole(*runs):
    return Plan(DISTILL, GRADIENT, {}, {}, runs)


def lines(path):
    """Lines without what a clock or a commit put there."""
    out = [json.loads(line) for line in path.read_text().splitlines()]
    for line in out:
        line.pop("seconds", None)
        line.pop("versions", None)
    return out


def test_inverse_draws_follow_the_distribution():
    logits = torch.tensor([[0.1, 2.0, -1.0, 1.0, -torch.inf]]).log_softmax(-1)
    drawn = sampling.inverse(logits.expand(20_000, -1), torch.Generator().manual_seed(0))
    share = torch.bincount(drawn, minlength=5) / len(drawn)
    torch.testing.assert_close(share, logits[0].exp(), atol=0.012, rtol=0)
    assert share[4] == 0


def test_cheap_sampling_draws_from_the_policy_itself():
    model = policy()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1)
    prompt = OPENINGS[0]
    texts, ids = sampling.sample(model, prompt, 5, 6, 0.8, torch.Generator().manual_seed(3))
    assert len(texts) == len(ids) == 5
    assert model.core.config._attn_implementation == "sdpa"  # as it was before
    with sampling.plain_attention(model):
        plain = model.hidden(*model.encode([prompt], "left"))
    torch.testing.assert_close(plain, model.hidden(*model.encode([prompt], "left")), rtol=1e-4, atol=1e-5)


def test_reading_with_the_prompt_once_is_reading_each_text_whole():
    one = world()
    texts = ["the old man walked home", "", "storm", "she laughed . they kissed and they walked"]
    rows = sampling.read(one.policy, OPENINGS[0], texts, 0.8, 8)
    assert [len(r) for r in rows] == [5, 0, 1, 8]
    for text, row in zip(texts, rows, strict=True):
        if not text:
            continue
        ids, _ = one.policy.encode([f"{OPENINGS[0]} {text}"], "right")
        with one.policy.base():
            nats = (one.policy.core(input_ids=ids).logits[0].float() / 0.8).log_softmax(-1)
        begin = one.policy.encode([OPENINGS[0]], "right")[0].shape[1]
        said = nats[begin - 1 : begin - 1 + len(row)]
        logp = said.gather(1, ids[0, begin : begin + len(row), None])[:, 0]
        entropy = -(said.exp() * said).sum(1)
        varentropy = (said.exp() * (said + entropy[:, None]) ** 2).sum(1)
        expected = torch.stack([logp, entropy, varentropy], 1)
        torch.testing.assert_close(torch.from_numpy(row), expected, rtol=1e-3, atol=1e-4)


def test_what_the_world_caches_changes_nothing():
    one = world()
    openings, texts = [OPENINGS[0], OPENINGS[1], OPENINGS[0]], ["storm", "the old man", "storm"]
    first = one.gate(openings, texts)
    np.testing.assert_array_equal(first, one.gate(openings, texts))
    one.forget()
    np.testing.assert_allclose(first, one.gate(openings, texts), atol=1e-5)
    assert one.gate([OPENINGS[0]], [""]) == 0


def test_the_best_are_kept_unless_they_are_alike():
    rows = np.array([[1, 0], [0.99, 0.14], [0, 1], [-1, 0]], np.float32)
    assert distill.select([3.0, 2.0, 1.0, 0.0], rows, 3, 0.7) == [0, 2, 3]
    assert distill.select([1.0, 1.0, 1.0, 1.0], rows, 2, 0.7) == [0, 2]  # of equals, the earlier
    assert distill.select([3.0, 2.0, 1.0, 0.0], rows, 4, 0.7) == [0, 2, 3, 1]  # too few are unlike


def test_distillation_raises_what_it_is_paid_for(tmp_path):
    settings = replace(DISTILL, copies=24, keep=4, epochs=6, learning_rate=2e-2)
    one = planned(length=2)
    assert queue.drain(replace(whole(one), distill=settings), make=make(tmp_path), results=tmp_path / "results",
                       work=tmp_path / "work")  # fmt: skip
    header, base, _, last = lines(tmp_path / "results" / f"{one.name}.jsonl")
    assert header["skyline"]["gold"]["objective"]["mean"] == 1
    assert base["kl"] == pytest.approx(0, abs=1e-6)
    assert last["reward"] > base["reward"]
    assert last["kl"] > 0.01
    assert last["kept"]["reward"] > base["reward"]
    assert len(base["samples"]) == len(OPENINGS)


@pytest.mark.parametrize("optimiser", ["distill", "reinforce", "grpo"])
def test_a_run_that_is_killed_at_any_stage_writes_the_same(tmp_path, optimiser):
    one = planned(optimiser, length=2 if optimiser == "distill" else 3)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    told = list(make(straight)(one, whole(one), "cpu").stages(one.length))
    count = 0
    while not queue.done(one, one.results("cpu", broken / "results")):
        # A fresh process each time, which ends after three stages, whatever it was about to write.
        count += len(list(islice(make(broken)(one, whole(one), "cpu").stages(one.length), 3)))
        assert count < 3 * len(told)
    name = f"results/{one.name}.jsonl"
    assert lines(broken / name) == lines(straight / name)


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path):
    short, long = planned(length=1), planned(length=2)
    kept = {"results": tmp_path / "results", "work": tmp_path / "work"}
    queue.drain(whole(short, long), make=make(tmp_path), **kept)
    straight = tmp_path / "straight"
    list(make(straight)(long, whole(long), "cpu").stages(2))
    assert lines(tmp_path / "results" / f"{long.name}.jsonl") == lines(straight / "results" / f"{long.name}.jsonl")
    assert queue.done(short, long.results("cpu", tmp_path / "results"))


@pytest.mark.parametrize("optimiser", ["distill", "reinforce"])
def test_results_without_their_checkpoints_are_made_anew(tmp_path, optimiser):
    one = planned(optimiser, length=1)
    list(make(tmp_path)(one, whole(one), "cpu").stages(1))
    before = lines(tmp_path / f"results/{one.name}.jsonl")
    shutil.rmtree(tmp_path / "work")
    list(make(tmp_path)(replace(one, length=2), whole(one), "cpu").stages(2))
    after = lines(tmp_path / f"results/{one.name}.jsonl")
    assert after[: len(before) - (optimiser != "distill")] == before[: len(before) - (optimiser != "distill")]
    assert queue.done(replace(one, length=2), tmp_path / f"results/{one.name}.jsonl")


class Recorded:
    """A run of two stages that writes what `queue.done` looks for."""

    made: list

    def __init__(self, one, root):
        self.one, self.path = one, one.results("cpu", root)

    def stages(self, length):
        Recorded.made.append(self.one.name)
        yield "half"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("{}\n" * (length + 2))
        yield "whole"


def test_the_queue_keeps_the_order_stops_in_time_and_picks_up(tmp_path, capsys):
    Recorded.made = []
    runs = [planned(seed=s, arm=a) for s in (0, 1) for a in ("b", "a")]
    kept = {
        "results": tmp_path / "results",
        "work": tmp_path / "work",
        "make": lambda one, *_: Recorded(one, kept["results"]),
    }
    assert not queue.drain(whole(*runs), minutes=0, **kept)  # stopped after the first stage
    assert Recorded.made == [runs[0].name]
    assert "half" in capsys.readouterr().out
    assert queue.drain(whole(*runs), only="-1", **kept)
    assert Recorded.made[1:] == [runs[2].name, runs[3].name]
    assert queue.drain(whole(*runs), **kept)
    assert Recorded.made[3:] == [runs[0].name, runs[1].name]
    assert queue.drain(whole(*runs), **kept)
    assert len(Recorded.made) == 5  # nothing was left


def test_two_queues_do_not_make_one_run_twice(tmp_path, capsys):
    Recorded.made = []
    runs = [planned(seed=s) for s in (0, 1)]
    kept = {
        "results": tmp_path / "results",
        "work": tmp_path / "work",
        "make": lambda one, *_: Recorded(one, kept["results"]),
    }
    with queue.locked(runs[0], tmp_path / "work") as own:
        assert own
        assert queue.drain(whole(*runs), **kept)
    assert Recorded.made == [runs[1].name]
    assert f"{runs[0].name}: another process" in capsys.readouterr().out
    assert queue.drain(whole(*runs), **kept)
    assert Recorded.made == [runs[1].name, runs[0].name]


def test_a_run_that_cannot_be_made_is_left_out(tmp_path, capsys):
    def none(*_):
        raise plan.Unavailable("no model")

    assert queue.drain(whole(planned()), make=none, results=tmp_path, work=tmp_path)
    assert "left out, no model" in capsys.readouterr().out


def test_the_committed_plan():
    whole = plan.read(ROOT / "study/claim.toml")
    assert whole.matrix[0].name == "distill-cosine-store-wedding-0"
    assert {one.optimiser for one in whole.matrix} == set(plan.OPTIMISERS)
    seed_0 = {one.arm for one in whole.matrix if one.seed == 0}
    for claim in whole.claims.values():
        named = {arm for key, value in claim.items() for arm in ([value] if key == "whole" else value)}
        assert named <= seed_0


def test_a_plan_with_a_mistake_is_refused(tmp_path):
    text = (ROOT / "study/claim.toml").read_text()
    path = tmp_path / "claim.toml"
    for old, new, match in (
        ('optimiser = "grpo"', 'optimiser = "ppo"', "optimiser must be one of"),
        ("max_cosine = 0.7", "max_cosin = 0.7", "unknown key 'max_cosin' of distill"),
        ("length = 10", "rounds = 10", "unknown key 'rounds' of a block"),
        ("seeds = [1, 2]", "seeds = [1, 1]", "stands twice"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=match):
            plan.read(path)


def test_an_attempt_has_settings_and_a_place_of_its_own(tmp_path):
    one = replace(planned(length=1), attempt="base")
    several = replace(whole(one), attempts={"base": plan.Attempt("with the base's own", {"base": 2, "keep": 3})})
    assert several.distillation() == DISTILL
    assert several.distillation("base") == replace(DISTILL, base=2, keep=3)
    with pytest.raises(KeyError, match="no attempt 'none'"):
        several.distillation("none")
    assert one.results(root=tmp_path) == tmp_path / "attempts" / "distill-likes-base-wedding-0.jsonl"

    settings = several.distillation("base")
    there = (one, settings, world(), LikesDancing(), gold, SKYLINE, one.results(root=tmp_path))
    run = distill.Run(*there, tmp_path / "work", tmp_path / "shared")
    list(run.stages(1))
    opening = OPENINGS[0]
    own = json.loads((tmp_path / "shared" / "samples-0.json").read_text())["ids"]
    tuned = run._tuned_on(1)[opening]
    assert len(tuned) == 5
    assert tuned[3:] == own[:2]
    assert tuned[:3] == [ids for _, ids, _ in run._kept(1)[opening]]
    assert lines(one.results(root=tmp_path))[0]["attempt"] == "base"
