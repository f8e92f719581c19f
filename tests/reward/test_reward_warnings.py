"""What a reward warns of where a user goes wrong in silence: once, in one line, with what to do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sharpwave as sw
import tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*no signal")
STRANGE = [f"Zq xv ww{n}. Kk jj qq{n}. Pp oo{n} uu." for n in range(8)]
PROMPTS = [tiny.PROMPT] * 8


def reward(**options: object) -> sw.InstrumentalReward:
    options.setdefault("base", tiny.base())
    return sw.InstrumentalReward(tiny.store(), tiny.embed, **options)


def test_a_batch_that_the_store_does_not_know_is_said_once() -> None:
    made = reward()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        out = made.score_texts(PROMPTS, STRANGE)
        made.score_texts(PROMPTS, STRANGE)
    (said,) = [str(one.message) for one in found if "unknown" in str(one.message)]
    assert "100% of the completions of a batch are unknown to the store" in said
    assert "observe more episodes" in said
    assert "embedder" in said
    assert out.unknown == out.means()["unknown"] == 1.0
    assert (out.support < 0.1).all()


def test_a_batch_that_it_knows_is_not() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*unknown to the store")
        out = reward().score_texts(PROMPTS, tiny.STORIES)
        few = reward().score_texts(PROMPTS[:2], STRANGE[:2])  # two are no share of a batch
    assert out.unknown == 0.0
    assert few.unknown == 1.0
    assert reward(weights={"instrumental": 0.0, "divergence": 1.0}).score_texts(PROMPTS, STRANGE).unknown == 1.0


def test_base_samples_without_a_spread_are_said() -> None:
    with pytest.warns(RuntimeWarning, match="'terminal' is the same for all base samples"):
        reward(terminal=lambda completions, **_: [1.0] * len(completions))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reward(terminal=tiny.length)
        reward(terminal=lambda completions, **_: [1.0] * len(completions), weights={"terminal": 0.0})


def test_base_samples_that_are_no_completions_are_said() -> None:
    joined = [f"User: tell me of {n}\nAssistant: {story}" for n, story in enumerate(tiny.STORIES)]
    with pytest.warns(RuntimeWarning, match="8 of 8 texts look like whole conversations in one string"):
        reward(base=(PROMPTS, joined))
    with pytest.warns(RuntimeWarning, match="half of the steps have at most 1 words"):
        reward(chunker=sw.episodes.Turns(max_words=1))


def test_potential_as_one_number_is_said() -> None:
    """The sum over an episode depends on the prompt alone; the pay of each step is what it is for."""
    made = reward(functional="potential", base=None)
    with pytest.warns(RuntimeWarning, match="functional 'potential' pays transitions"):
        made(prompts=PROMPTS, completions=tiny.STORIES)
    out = made.score_texts(PROMPTS, tiny.STORIES)
    np.testing.assert_allclose(out.instrumental, out.instrumental[0], atol=1e-6)
    assert np.ptp(out.step) > 0.01


def test_a_store_without_a_channel_is_said() -> None:
    store = sw.ValueStore(sw.Config(dim=tiny.DIM))
    batch = sw.episodes.chunk_batch(sw.episodes.Sentences(), PROMPTS, tiny.STORIES)
    steps = tiny.embed(batch.steps)
    store.observe(steps, batch.offsets)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert store.replay().converged
        assert not store.score(steps, batch.offsets).total.any()
        assert not store.frozen().score(steps, batch.offsets).total.any()
    assert [str(one.message)[:24] for one in found] == ["the store has no channel"] * 3
    assert all(one.filename == __file__ for one in found)


def test_errors_name_what_there_is() -> None:
    with pytest.raises(
        TypeError, match=r"no term 'instrumentl', there are \['terminal', 'instrumental', 'divergence'\]"
    ):
        sw.Weights(instrumentl=1.0)
    assert sw.Weights(0.5, divergence=0.25).to_dict() == {"terminal": 0.5, "instrumental": 1.0, "divergence": 0.25}
    with pytest.raises(TypeError, match=r"got str: ValueStore.load\(path\) reads one, ValueStore.open\(path\)"):
        sw.InstrumentalReward("runs/store", tiny.embed)  # pyright: ignore[reportArgumentType]
