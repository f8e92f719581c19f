"""InstrumentalReward: the terms and their sum, what cannot be scored, learning, parts, pickles."""

from __future__ import annotations

import copy
import pickle
import re
import threading
import warnings

import numpy as np
import pytest
import sharpwave as sw
import tiny
from sharpwave.reward import TERMS, Constants, Scale

NEW = [
    "Jane met a sailor at the harbour. They talked all night. They married in spring.",
    "The cat slept on the roof. Rain woke it up. It stole the fish.",
    "They married at the altar. They married at the altar. They married at the altar.",
    "A storm broke the boat. They rowed home. Lightning split the mast.",
]
PROMPTS = [tiny.PROMPT] * len(NEW)


def build(**options: object) -> sw.InstrumentalReward:
    options.setdefault("base", tiny.base())
    store = options.pop("store", None) or tiny.store()
    return sw.InstrumentalReward(store, tiny.embed, **options)


def test_the_reward_is_the_weighted_sum_of_its_standardised_terms() -> None:
    weights = sw.Weights(terminal=0.5, instrumental=2.0, divergence=0.25)
    reward = build(terminal=tiny.length, weights=weights)
    out = reward.score_texts(PROMPTS, NEW)
    expected = (
        0.5 * out.standardised["terminal"]
        + 2.0 * out.standardised["instrumental"]
        - 0.25 * out.standardised["divergence"]
    )
    np.testing.assert_allclose(out.reward, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sum(out.parts.values()), out.reward, rtol=1e-5, atol=1e-5)
    assert set(out.parts) == set(out.standardised) == set(TERMS)
    np.testing.assert_allclose(out.terminal, [len(text) / 100 for text in NEW], rtol=1e-6)


def test_the_instrumental_part_is_the_score_of_the_store() -> None:
    reward = build()
    out = reward.score_texts(PROMPTS, NEW)
    batch = sw.episodes.chunk_batch(sw.episodes.Sentences(), PROMPTS, NEW)
    scores = reward.store.score(tiny.embed(batch.steps), batch.offsets, context=batch.context)
    np.testing.assert_array_equal(out.instrumental, scores.total)
    np.testing.assert_array_equal(out.step, scores.step)
    first = slice(int(batch.offsets[1] + 1), int(batch.offsets[2]))
    assert out.support[1] == pytest.approx(scores.support[first].mean(), rel=1e-6)
    pays, spans = out.pays(0)
    assert [NEW[0][a:b] for a, b in spans] == batch.steps[1:4]
    assert pays.sum() == pytest.approx(out.instrumental[0], rel=1e-5)


def test_terms_are_standardised_on_the_base_and_the_constants_are_kept() -> None:
    reward = build(terminal=tiny.length)
    out = reward.score_texts(*tiny.base())
    for term in ("terminal", "instrumental"):
        assert out.standardised[term].mean() == pytest.approx(0, abs=1e-5)
        assert out.standardised[term].std() == pytest.approx(1, abs=1e-5)
        assert reward.scale.constants[term].n == len(tiny.STORIES)
    assert reward.scale.fitted("divergence")
    before = reward.scale.to_dict()
    reward.score_texts(PROMPTS, NEW)
    assert reward.scale.to_dict() == before


def test_running_constants_follow_training_and_nothing_else() -> None:
    reward = build(normalise="running")
    before = reward.scale.to_dict()
    reward.score_texts(PROMPTS, NEW, learn=False)
    assert reward.scale.to_dict() == before
    raw = reward.score_texts(PROMPTS, NEW).instrumental.astype(np.float64)
    both = np.concatenate([reward.score_texts(*tiny.base(), learn=False).instrumental.astype(np.float64), raw])
    found = reward.scale.constants["instrumental"]
    assert (found.mean, found.sd, found.n) == (pytest.approx(both.mean()), pytest.approx(both.std()), len(both))
    assert sw.InstrumentalReward(reward.store, tiny.embed, normalise="none").score_texts(
        PROMPTS, NEW
    ).reward == pytest.approx(raw, rel=1e-6)


def test_a_scale_that_never_varied_only_centres() -> None:
    assert Constants.of(np.full(5, 3.0)).standardise(np.array([4.0])) == pytest.approx(1.0)
    assert Constants.of(np.array([np.nan])) == Constants()
    assert Scale.from_dict(Scale("running", {"a": Constants(1, 2, 3)}, 9).to_dict()).constants["a"].sd == 2
    with pytest.raises(ValueError, match="normalise"):
        Scale("often")  # pyright: ignore[reportArgumentType]


# Terminals


def test_an_embedding_terminal_is_saturated_and_discounted() -> None:
    reward = build(terminal="wedding")
    out = reward.score_texts(PROMPTS, NEW)
    assert reward.support_discount
    assert ((out.terminal >= 0) & (out.terminal <= 1)).all()
    assert out.terminal[2] == 1.0
    discounted = reward.scale.constants["terminal"].standardise(out.terminal.astype(np.float64) * out.support)
    np.testing.assert_allclose(out.standardised["terminal"], discounted, rtol=1e-4, atol=1e-4)
    told = reward.score_texts([tiny.PROMPT], [tiny.STORIES[4]])  # the highest of the base earns as much as parroting
    assert told.terminal[0] == 1.0


def test_another_store_has_another_terminal() -> None:
    reward = build(terminal="wedding")
    assert reward.score_texts(PROMPTS, NEW).terminal[1] < 1
    other = sw.ValueStore(sw.Config(dim=tiny.DIM))
    other.add_terminal("wedding", tiny.embed(["It stole the fish."])[0])
    other.observe(tiny.embed(["A baker burned the bread."]))
    reward.store = other
    assert reward.score_texts(PROMPTS, NEW).terminal[1] == pytest.approx(1.0)


def test_a_discount_pulls_towards_the_low_end_and_never_up() -> None:
    def level(completions: list[str]) -> list[float]:
        return [-5.0 if "cat" in text else -1.0 for text in completions]

    reward = build(terminal=level, support_discount=True, terminal_range=(-3.0, 0.0), normalise="none", base=None)
    out = reward.score_texts(PROMPTS, NEW)
    assert out.standardised["terminal"][1] == -5.0
    assert out.standardised["terminal"][0] == pytest.approx(-3 + 2 * out.support[0], rel=1e-5)


def test_a_reward_function_gets_the_columns_that_it_takes_and_may_return_none() -> None:
    reward = build(terminal=tiny.likes_altars)
    out = reward.score_texts(PROMPTS, NEW, columns={"answer": ["a"] * 4})
    assert np.isnan(out.terminal[3])
    assert out.terminal[:3].tolist() == [1, 0, 1]
    assert out.parts["instrumental"][3] == pytest.approx(out.reward[3])  # what is missing adds nothing
    seen: dict[str, object] = {}

    async def later(completions: list[str], answer: list[str]) -> list[float]:
        seen.update(answer=answer, n=len(completions))
        return [float(a == "a") for a in answer]

    with pytest.warns(RuntimeWarning, match="no common scale"):
        out = build(terminal=later, base=None).score_texts(PROMPTS, NEW, columns={"answer": list("abca")})
    assert out.terminal.tolist() == [1, 0, 0, 1]
    assert seen["n"] == 4


def test_a_scalar_channel_is_the_column_or_what_the_store_expects() -> None:
    store = tiny.store([])
    store.add_channel("checked")
    batch = sw.episodes.chunk_batch(sw.episodes.Sentences(), *tiny.base())
    drives = np.array([[1.0], [1], [0], [0], [1], [0], [0], [0]], np.float32)
    store.observe(tiny.embed(batch.steps), batch.offsets, drives=drives)
    store.replay()
    reward = build(store=store, terminal="checked")
    assert reward.score_texts(PROMPTS, NEW, columns={"checked": [0.5, None, 1, 0]}).terminal[0] == 0.5
    expected = reward.score_texts(*tiny.base()).terminal
    assert expected[[0, 1, 4]].min() > expected[[2, 3, 5]].max()
    with pytest.raises(KeyError, match="no channel 'spelled'"):
        build(terminal="spelled")


def test_a_terminal_that_misbehaves_is_named() -> None:
    with pytest.raises(ValueError, match="returned 1 values for 8"):
        build(terminal=lambda completions: [1.0])
    with pytest.raises(TypeError, match="must return numbers"):
        build(terminal=lambda completions: ["good"] * len(completions))
    with pytest.raises(TypeError, match="terminal must be"):
        build(terminal=3)


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (0.5, "got float 0.5"),
        (None, "got NoneType None"),
        (np.float64(0.5), "got float64"),
        (np.array(0.5), "got ndarray"),
        ("good", "got str 'good'"),
        ({"score": [1.0]}, "got dict"),
        ([[1.0]] * 4, "completion 0 it returned list"),
        ([1.0, "2.0", 3.0, 4.0], "completion 1 it returned str '2.0'"),
        ([1.0, 2.0, 1j, 4.0], "completion 2 it returned complex"),
    ],
)
def test_a_terminal_that_returns_no_list_of_numbers_is_named_with_what_it_returned(
    returned: object, shown: str
) -> None:
    def judge(completions: list[str]) -> object:
        return returned

    with pytest.raises(TypeError, match=rf"terminal 'judge' must return .*{re.escape(shown)}"):
        build(terminal=judge, base=None).score_texts(PROMPTS, NEW)


@pytest.mark.parametrize("bad", [-np.inf, np.inf, np.nan, 10**400])
def test_a_terminal_that_is_not_finite_counts_as_none_with_a_warning(bad: float) -> None:
    def judge(completions: list[str]) -> list[float | None]:
        return [1.0, bad, None, 0.5]

    reward = build(terminal=judge, base=None, normalise="none", learn="online").train()
    with pytest.warns(RuntimeWarning, match="terminal 'judge': the value of completion 1 is -?(inf|nan)"):
        given = reward(PROMPTS, NEW)
    assert all(value is not None and np.isfinite(value) for value in given)
    assert given[1] == reward.output_of(PROMPTS, NEW).parts["instrumental"][1]
    reward(PROMPTS, NEW)  # said once
    group = build(terminal=lambda completions: [bad] * 4, base=None, normalise="none")
    with pytest.warns(RuntimeWarning, match="counts as None"):
        assert np.ptp(np.array(group(PROMPTS, NEW), np.float64)) > 0  # the rest of the reward still tells them apart


def test_a_column_of_a_scalar_channel_is_checked_as_a_terminal_is() -> None:
    store = tiny.store()
    store.add_channel("checked")
    reward = build(store=store, terminal="checked", base=None, normalise="none")
    with pytest.raises(ValueError, match="column 'checked' returned 1 values for 4"):
        reward.score_texts(PROMPTS, NEW, columns={"checked": [1.0]})
    with pytest.warns(RuntimeWarning, match="column 'checked': the value of completion 3 is inf"):
        out = reward.score_texts(PROMPTS, NEW, columns={"checked": [1.0, None, 0.0, float("inf")]})
    assert np.isnan(out.terminal[[1, 3]]).all()


def test_values_of_a_reward_function_become_drives_of_its_channel() -> None:
    def loss(completions: list[str]) -> list[float]:
        return [-float(len(text)) for text in completions]

    reward = build(terminal=loss, learn="online")
    low, high = reward.store.channel_ranges["loss"]
    assert (low, high) == (-max(map(len, tiny.STORIES)), -min(map(len, tiny.STORIES)))
    reward.score_texts(PROMPTS, NEW)
    column = reward.store.drives[:, reward.store.channels.index("loss")]
    assert column.max() > 0
    assert column.min() >= 0
    assert "loss" not in build(terminal=loss).store.channels  # nothing learns, nothing is added


# What cannot be scored


def test_what_cannot_be_scored_is_none_and_changes_nothing_else() -> None:
    reward = build(terminal=tiny.length, weights={"divergence": 0.5})
    alone = reward.score_texts(PROMPTS, NEW, learn=False)
    broken = ["", NEW[0], "   ", "silence. silence.", *NEW[1:]]
    rewards = reward([tiny.PROMPT] * 7, broken)
    assert [value is None for value in rewards] == [True, False, True, True, False, False, False]
    out = reward.score_texts([tiny.PROMPT] * 7, broken, learn=False)
    np.testing.assert_allclose(out.reward[[1, 4, 5, 6]], alone.reward, rtol=1e-5)
    assert np.isnan(out.instrumental[[0, 2, 3]]).all()


def test_a_batch_of_nothing() -> None:
    reward = build()
    assert reward([tiny.PROMPT], [""]) == [None]
    assert len(reward.score_texts([], [])) == 0
    with pytest.raises(ValueError, match="prompts"):
        reward.score_texts(PROMPTS, NEW[:2])
    with pytest.raises(TypeError, match="completions"):
        reward(PROMPTS)


def test_chat_completions_score_as_their_texts() -> None:
    reward = build()
    chat = [[{"role": "assistant", "content": text}] for text in NEW]
    asked = [[{"role": "user", "content": tiny.PROMPT}]] * len(NEW)
    assert reward(asked, chat) == reward(PROMPTS, NEW)


# Learning


@pytest.mark.parametrize("learn", ["propose", "online"])
def test_rewards_that_share_a_store_fit_to_the_same_channels_whichever_came_first(learn: str) -> None:
    store = tiny.store()
    first, second = (build(store=store, terminal=tiny.likes_altars, learn=learn) for _ in range(2))
    assert first.scale.to_dict() == second.scale.to_dict()
    assert store.channels == ["wedding", "likes_altars"]
    rewards = [each.score_texts(PROMPTS, NEW, learn=False).reward for each in (first, second)]
    np.testing.assert_array_equal(*rewards)


def test_a_terminal_is_asked_once_when_a_scale_is_fitted() -> None:
    asked: list[int] = []

    def counted(completions: list[str]) -> list[float]:
        asked.append(len(completions))
        return [float(len(text)) for text in completions]

    reward = build(terminal=counted, learn="online")
    assert asked == [len(tiny.STORIES)]
    lengths = [float(len(text)) for text in tiny.STORIES]
    assert reward.store.channel_ranges["counted"] == (min(lengths), max(lengths))


def test_learning_off_propose_online() -> None:
    for learn in ("off", "propose", "online"):
        reward = build(learn=learn)
        before, size = reward.store.digest(), len(reward.store)
        reward.score_texts(PROMPTS, NEW)
        assert (reward.store.digest() == before) == (learn == "off")
        assert (len(reward.store) > size) == (learn == "online")
        report = reward.sleep()
        assert report.observed == (len(NEW) if learn == "propose" else 0)
        assert (len(reward.store) > size) == (learn != "off")


def test_a_batch_is_scored_by_the_store_before_it() -> None:
    online, off = build(learn="online"), build()
    np.testing.assert_array_equal(online.score_texts(PROMPTS, NEW).reward, off.score_texts(PROMPTS, NEW).reward)
    assert not np.array_equal(online.score_texts(PROMPTS, NEW).reward, off.score_texts(PROMPTS, NEW).reward)


def test_evaluation_never_learns() -> None:
    reward = build(learn="online", normalise="running", habituation={"episodes": 8})
    before, state = reward.store.digest(), reward.state_dict()
    reward.score_texts(PROMPTS, NEW, learn=False)
    reward.eval().score_texts(PROMPTS, NEW)
    reward(PROMPTS, NEW)
    reward.training = None
    with pytest.warns(RuntimeWarning, match="cannot tell training from evaluation"):
        reward(PROMPTS, NEW)
    assert (reward.store.digest(), reward.state_dict()) == (before, state)
    reward.train()(PROMPTS, NEW)
    assert reward.store.digest() != before
    assert len(reward.habituation) == len(NEW)


def test_a_training_batch_shares_what_its_samples_tell_alike() -> None:
    """Three copies share; in evaluation, and without sharing, each is paid as if it were alone."""
    prompts, copies = PROMPTS[:1] * 4, [*NEW[:1] * 3, NEW[1]]
    sharing, plain = (build(habituation={"episodes": 8, "sharing": s}) for s in (True, False))
    alone = plain.score_texts(prompts, copies, learn=False).instrumental
    assert (sharing.score_texts(prompts, copies, learn=False).instrumental == alone).all()
    assert (plain.score_texts(prompts, copies).instrumental == alone).all()
    out = sharing.score_texts(prompts, copies)
    assert (out.instrumental[:3] < 0.6 * alone[:3]).all()
    np.testing.assert_allclose([out.step[a:b].sum() for a, b in zip(out.offsets, out.offsets[1:], strict=False)],
                               out.instrumental, rtol=1e-5)  # fmt: skip
    assert len(sharing.habituation) == 4


def test_a_refused_consolidation_leaves_the_store() -> None:
    reward = build(learn="propose", sleep={"max_drift": 0.0})
    size = len(reward.store)
    reward.score_texts(PROMPTS, NEW)
    assert reward.sleep().refused
    assert len(reward.store) == size
    assert not reward.sleep(max_drift=None).refused


def test_seeding() -> None:
    reward = build(store=tiny.store([]), terminal=tiny.likes_altars, learn="online", base=None)
    assert reward.observe_texts([*tiny.base()[0], ""], [*tiny.STORIES, ""]) == len(tiny.STORIES)
    reward.sleep()
    checked = reward.store.channels.index("likes_altars")
    assert reward.store.drives[:, checked].max() == 1.0
    assert reward.store.values[:, checked].max() == 1.0


# As a function of a trainer


def test_parts_share_one_evaluation_and_learn_once() -> None:
    reward = build(terminal=tiny.length, learn="online", weights={"divergence": 1.0}).train()
    twin = copy.deepcopy(reward)
    parts = reward.parts()
    assert [part.__name__ for part in parts] == ["sharpwave_terminal", "sharpwave_instrumental", "sharpwave_divergence"]
    logged: list[str] = []
    columns = [
        part(prompts=PROMPTS, completions=NEW, log_metric=lambda name, value: logged.append(name)) for part in parts
    ]
    assert len(logged) == len(set(logged))
    out = twin.score_texts(PROMPTS, NEW)
    np.testing.assert_allclose(np.sum(columns, axis=0), out.reward, rtol=1e-4, atol=1e-4)
    assert reward.store.digest() == twin.store.digest()
    before = reward.store.digest()
    parts[0](prompts=PROMPTS, completions=NEW)  # asked again: it is another batch
    assert reward.store.digest() != before


def test_every_part_is_logged_by_name() -> None:
    reward = build(terminal=tiny.length)
    metrics: dict[str, float] = {}
    extras: dict[str, list[float]] = {}
    rewards = reward(prompts=PROMPTS, completions=NEW, log_metric=metrics.__setitem__, log_extra=extras.__setitem__)
    assert len(rewards) == len(NEW)
    wanted = {
        *TERMS,
        "support",
        "edge",
        "redundancy",
        "unscored",
        "unknown",
        "memories",
        "instrumental_raw",
        "terminal_raw",
    }
    assert {f"sharpwave/{name}" for name in wanted} <= set(metrics)
    assert {f"sharpwave/seconds/{part}" for part in ("embed", "score", "terminal", "total")} <= set(metrics)
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())
    assert set(extras) == {f"sharpwave_{term}" for term in TERMS}
    assert build(name="wedding").__name__ == "wedding"


def test_one_warning_for_an_empty_store_and_for_a_group_without_variance() -> None:
    reward = build(store=tiny.store([]), base=None)
    with pytest.warns(RuntimeWarning) as found:
        reward.score_texts(PROMPTS, NEW)
    assert sorted(str(one.message).split(":")[1].split()[0] for one in found) == ["4", "the"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reward.score_texts(PROMPTS, NEW)


def test_a_reward_pickles_and_the_copy_goes_on() -> None:
    reward = build(terminal=tiny.length, learn="online", weights={"divergence": 0.5}, habituation={"episodes": 4})
    reward.score_texts(PROMPTS, NEW)
    twin = pickle.loads(pickle.dumps(reward))
    assert twin.__name__ == reward.__name__
    assert twin.store.digest() == reward.store.digest()
    for _ in range(2):
        np.testing.assert_array_equal(reward.score_texts(PROMPTS, NEW).reward, twin.score_texts(PROMPTS, NEW).reward)
    assert twin.store.digest() == reward.store.digest()
    part = pickle.loads(pickle.dumps(reward.parts()[1]))
    assert part.__name__ == "sharpwave_instrumental"


def test_threads_embed_beside_each_other_and_learn_one_by_one() -> None:
    reward = build(learn="online")
    expected = reward.score_texts(PROMPTS, NEW, learn=False).reward
    meet = threading.Barrier(3, timeout=60)
    embedder = reward.embedder

    def slow(texts: list[str]) -> np.ndarray:
        meet.wait()  # nobody passes until all three are here
        return embedder(texts)

    reward.embedder = slow
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(reward.score_texts(PROMPTS, NEW).reward)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert any(np.array_equal(one, expected) for one in found)
    reward.embedder = embedder


def test_the_embedder_is_bound_to_the_store() -> None:
    store = tiny.store()
    build(store=store)
    assert store.embedder == "callable:tiny.embed"
    with pytest.raises(sw.EmbedderError):
        sw.InstrumentalReward(store, tiny.other_embed)
    reward = build()
    with pytest.raises(sw.EmbedderError):
        foreign = tiny.store()
        foreign.bind_embedder("another")
        reward.store = foreign
    with pytest.raises(ValueError, match="the store has dim 48"):
        sw.InstrumentalReward(tiny.store(), lambda texts: np.ones((len(texts), 5))).score_texts(PROMPTS, NEW)


def test_explain_says_which_text_paid() -> None:
    reward = build()
    steps = reward.explain_texts(tiny.PROMPT, NEW[0])
    assert len(steps) == 4
    assert any(memory.text in " ".join(tiny.STORIES) for step in steps for memory in step.memories if memory.text)


@pytest.mark.filterwarnings("ignore:.*no signal")
@pytest.mark.parametrize("habituation", [None, {"eta": 2.0}, {"eta": 2.0, "sharing": True}])
@pytest.mark.parametrize("functional", ["coverage", "progress", "potential", "mean"])
@pytest.mark.parametrize("weights", [None, {"wedding": 1.0, "length": -0.5}])
def test_what_is_explained_is_what_is_paid(functional: str, habituation: object, weights: object) -> None:
    reward = build(
        terminal=tiny.length,
        learn="online",
        functional=functional,
        habituation=habituation,
        channel_weights=weights,
        discount=0.9,
    )
    reward.observe_texts(PROMPTS, NEW[::-1])
    reward.sleep()
    reward.score_texts(PROMPTS[:2], NEW[:2])  # what it used is remembered
    told = [*NEW[:3], "silence"]
    rest = [[other for other in range(4) if other != row] for row in range(4)]
    among = [
        reward.explain_texts(PROMPTS[row], told[row], beside=([tiny.PROMPT] * 3, [told[n] for n in others]))
        for row, others in enumerate(rest)
    ]
    alone = [reward.explain_texts(tiny.PROMPT, text) for text in told]
    untouched = reward.score_texts(PROMPTS, told, learn=False)
    learned = reward.score_texts(PROMPTS, told, learn=True)
    sharing = reward.habituation is not None and reward.habituation.sharing
    assert np.array_equal(untouched.instrumental[:3], learned.instrumental[:3]) is not sharing
    for explained, out in ((alone, untouched), (among, learned)):
        for row, steps in enumerate(explained):
            if row == 3:  # it cannot be scored
                assert steps == []
                continue
            paid = out.step[out.offsets[row] : out.offsets[row + 1]]
            np.testing.assert_allclose([step.pay for step in steps], paid, atol=1e-7)
            np.testing.assert_allclose([sum(step.channels.values()) for step in steps], paid, atol=1e-7)
            assert sum(step.pay for step in steps) == pytest.approx(float(out.instrumental[row]), abs=1e-6)
            if functional in ("coverage", "mean"):  # the others pay differences of what memories are worth
                np.testing.assert_allclose([sum(m.pay for m in step.memories) for step in steps], paid, atol=1e-7)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="learn must be one of"):
        build(learn="always")
    with pytest.raises(ValueError, match="divergence_estimator"):
        build(divergence_estimator="kl")
    with pytest.raises(ValueError, match="needs base samples"):
        build(weights=sw.Weights(divergence=1.0), base=None)
    with pytest.raises(KeyError, match="no term 'term'"):
        build(weights={"term": 1.0})
    with pytest.raises(ValueError, match="terminal must be finite"):
        sw.Weights(terminal=float("nan"))
    with pytest.raises(TypeError, match="store must be"):
        sw.InstrumentalReward(None, tiny.embed)
    with pytest.raises(ValueError, match="can be scored"):
        build(base=([""], [""]))
    with pytest.raises(ValueError, match="term must be one of"):
        build().parts(["reward"])


@pytest.mark.filterwarnings("ignore:.*no signal")  # disjoint samples look alike to knn
@pytest.mark.parametrize("estimator", ["pairwise", "mmd", "knn", "mahalanobis"])
def test_divergence_grows_with_distance_from_the_base(estimator: str) -> None:
    reward = build(divergence_estimator=estimator, weights={"divergence": 1.0})
    near = reward.score_texts([tiny.PROMPT] * 4, tiny.STORIES[:4]).divergence
    far = reward.score_texts([tiny.PROMPT] * 4, [f"zq xv ww{n}. kk jj qq. pp oo{n}." for n in range(4)]).divergence
    assert np.isfinite(near).all()
    assert far.mean() > near.mean()


@pytest.mark.filterwarnings("ignore:.*no signal")
@pytest.mark.filterwarnings("ignore:the base samples .n = 8. are all alike")
@pytest.mark.parametrize("noise", [0.0, 1e-7])
@pytest.mark.parametrize("estimator", ["pairwise", "mmd", "knn", "mahalanobis"])
def test_base_samples_that_are_all_alike_are_said_and_bound_the_pay(estimator: str, noise: float) -> None:
    """A base policy at temperature 0: a rounding error between equal texts is no scale."""
    rng = np.random.default_rng(0)

    def embed(texts: list[str]) -> np.ndarray:
        return (tiny.embed(texts) + noise * rng.normal(size=(len(texts), tiny.DIM))).astype(np.float32)

    base = ([tiny.PROMPT] * 8, [tiny.STORIES[0]] * 8)
    with pytest.warns(RuntimeWarning, match="the base samples of 100% of the prompts are all alike"):
        reward = sw.InstrumentalReward(
            tiny.store(), embed, base=base, divergence_estimator=estimator, weights={"divergence": 1.0}
        )
    assert np.abs(reward.score_texts(PROMPTS, NEW).parts["divergence"]).max() < 100
