"""Guided sampling with a tiny real language model: what is drawn, what is counted, what it depends on."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import tiny_guide as tiny
import torch
from sharpwave.guide import tune_strength
from sharpwave.guide.swarm import Swarm
from sharpwave.text import Typicality
from tiny_policy import embed

TOKENS = 16


def generate(guide: sw.Guide, prompts: list[Any] | None = None, seed: int = 0, **options: Any) -> Any:
    settings = {"max_new_tokens": TOKENS, **options}
    return guide.generate(tiny.model(), tiny.words(), tiny.PROMPTS if prompts is None else prompts, seed, **settings)


@pytest.fixture(scope="module")
def guide() -> sw.Guide:
    return tiny.guide(strength=3.0, particles=6)


@pytest.fixture(scope="module")
def out(guide: sw.Guide) -> Any:
    return generate(guide)


@pytest.fixture
def swarms(monkeypatch: pytest.MonkeyPatch) -> list[Swarm]:
    """Every swarm that is made."""
    made: list[Swarm] = []
    begin = Swarm.__init__

    def noted(self: Swarm, *arguments: Any) -> None:
        begin(self, *arguments)
        made.append(self)

    monkeypatch.setattr(Swarm, "__init__", noted)
    return made


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_strength_zero_is_sampling_from_the_model_token_for_token(swarms: list[Swarm], temperature: float) -> None:
    out = generate(tiny.guide(strength=0.0, particles=3), tiny.PROMPTS[:2], temperature=temperature)
    for swarm, prompt, ids in zip(swarms, tiny.PROMPTS, out.token_ids, strict=False):
        expected = [tiny.recomputed(prompt, uniform, TOKENS, temperature) for uniform in swarm.uniforms]
        assert sorted(ids) == sorted(expected)
    assert (out.kl == 0).all()
    assert all(weighing.parents is None for trace in out.trace for weighing in trace)


def test_the_first_token_is_distributed_as_the_model_says() -> None:
    guide = tiny.guide(strength=0.0, particles=2000)
    drawn = [ids[0] for ids in generate(guide, tiny.PROMPTS[:1], max_new_tokens=1).token_ids[0]]
    ids = torch.tensor([[2, *tiny.words()(tiny.PROMPTS[0], add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        chances = tiny.model()(input_ids=ids).logits[0, -1].softmax(-1).numpy()
    counts = np.bincount(drawn, minlength=len(chances))
    assert np.sum((counts - 2000 * chances) ** 2 / (2000 * chances)) < len(chances) + 5 * np.sqrt(2 * len(chances))


def test_branching_the_cache_equals_recomputation(swarms: list[Swarm], guide: sw.Guide) -> None:
    generate(guide)
    assert sum(w.parents is not None for swarm in swarms for w in swarm.trace) >= 3
    for swarm, prompt in zip(swarms, tiny.PROMPTS, strict=True):
        head = [2, *tiny.words()(prompt, add_special_tokens=False)["input_ids"]]
        for particle in swarm.particles:
            with torch.no_grad():
                logits = tiny.model()(input_ids=torch.tensor([[*head, *particle.tokens]])).logits[0]
            nats = logits[len(head) - 1 : -1].log_softmax(-1)
            logps = nats[torch.arange(len(particle.tokens)), particle.tokens]
            np.testing.assert_allclose(particle.logps, logps, atol=2e-5)


def test_entropies_of_sampling_are_those_of_a_reading(swarms: list[Swarm]) -> None:
    generate(tiny.guide(particles=4, typicality=gate()), tiny.PROMPTS[:1])
    head = [2, *tiny.words()(tiny.PROMPTS[0], add_special_tokens=False)["input_ids"]]
    particle = swarms[-1].particles[0]
    with torch.no_grad():
        nats = tiny.model()(input_ids=torch.tensor([[*head, *particle.tokens]])).logits[0].double().log_softmax(-1)
    nats = nats[len(head) - 1 : -1]
    entropy = -(nats.exp() * nats).sum(-1)
    np.testing.assert_allclose(particle.entropies, entropy, atol=1e-5)
    np.testing.assert_allclose(particle.varentropies, (nats.exp() * (nats + entropy[:, None]) ** 2).sum(-1), atol=1e-4)


@pytest.mark.parametrize("rows", [[0], [2], [1, 0], [2, 1, 0]])
def test_a_text_does_not_depend_on_the_batch(guide: sw.Guide, out: Any, rows: list[int]) -> None:
    other = generate(guide, [tiny.PROMPTS[row] for row in rows])
    assert other.token_ids == [out.token_ids[row] for row in rows]
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(other.scores[place], out.scores[row])


def test_a_text_does_not_depend_on_threads(guide: sw.Guide, out: Any) -> None:
    before = torch.get_num_threads(), sw.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sw.set_num_threads(threads)
            assert generate(guide, tiny.PROMPTS[:2]).token_ids == out.token_ids[:2]
    finally:
        torch.set_num_threads(before[0])
        sw.set_num_threads(before[1])


def test_seeds_give_different_texts_and_equal_prompts_samples_of_their_own(guide: sw.Guide, out: Any) -> None:
    assert generate(guide, tiny.PROMPTS[:1], seed=1).texts[0] != out.texts[0]
    twice = generate(guide, [tiny.PROMPTS[0]] * 2)
    assert twice.texts[0] == out.texts[0]
    assert twice.texts[1] != out.texts[0]


def test_a_veto_changes_what_the_episode_guided() -> None:
    store = tiny.store()
    guide = tiny.guide(store=store, strength=4.0)
    before, digest = generate(guide), guide.digest
    store.veto(episodes=[0, 1, 4])
    after = generate(guide)
    assert before.digest == digest != after.digest
    assert before.texts != after.texts
    without = tiny.guide(store=tiny.store([tiny.STORIES[n] for n in (2, 3, 5)]), strength=4.0)
    assert generate(without).texts == after.texts


def test_a_frozen_view_keeps_guiding_as_it_was(guide: sw.Guide) -> None:
    store = tiny.store()
    frozen = tiny.guide(store=store.frozen(), strength=3.0, particles=6)
    store.veto(episode=0)
    assert generate(frozen, tiny.PROMPTS[:1]).texts == generate(guide, tiny.PROMPTS[:1]).texts


def test_tokens_are_counted_with_those_of_discarded_particles(
    monkeypatch: pytest.MonkeyPatch, guide: sw.Guide, out: Any
) -> None:
    from sharpwave.guide import sampling

    drawn = 0
    draw = sampling.draw

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal drawn
        tokens, said = draw(*arguments, **options)
        drawn += len(tokens)
        return tokens, said

    monkeypatch.setattr(sampling, "draw", counted)
    monkeypatch.setattr(sampling, "LEAST_LIVE", 2.0)  # finished rows leave at once: every row that is drawn counts
    again = generate(guide)
    assert again.token_ids == out.token_ids
    assert again.tokens == out.tokens == drawn
    assert again.tokens != sum(len(ids) for every in again.token_ids for ids in every)


def test_guidance_raises_the_score_above_best_of_n_at_equal_tokens() -> None:
    prompts = tiny.PROMPTS * 4
    plain, guided = (generate(tiny.guide(strength=s, particles=8), prompts, max_new_tokens=24) for s in (0.0, 4.0))
    assert abs(plain.tokens - guided.tokens) < 0.1 * plain.tokens
    assert np.mean([s.mean() for s in guided.scores]) > 1.3 * np.mean([s.mean() for s in plain.scores])
    assert np.mean([s[0] for s in guided.scores]) > np.mean([s[0] for s in plain.scores])
    assert (guided.kl > 0).all()


def test_scores_are_what_the_store_pays_for_the_texts(guide: sw.Guide, out: Any) -> None:
    for prompt, texts, pay, scores in zip(tiny.PROMPTS, out.texts, out.pay, out.scores, strict=True):
        assert sorted(scores, reverse=True) == scores.tolist()
        batch = sw.episodes.chunk_batch(tiny.CHUNKER, [prompt] * len(texts), texts)
        expected = guide.store.score(embed(batch.steps), batch.offsets, context=batch.context).total
        np.testing.assert_allclose(pay, expected, atol=1e-6)
        np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_increments_sum_to_the_score(guide: sw.Guide) -> None:
    """Without `follow` and resampling, the log-weight of a text is its score, but for a constant of the prompt."""
    alone = generate(tiny.guide(strength=1.0, particles=1, follow=0.0, scale=0.5), seed=5)
    for trace, scores in zip(alone.trace, alone.scores, strict=True):
        start = trace[0].pay + trace[0].ahead - 0.5 * trace[0].increment
        np.testing.assert_allclose(0.5 * sum(w.increment for w in trace), scores - start, atol=1e-6)
        assert trace[-1].ahead == 0.0


def test_every_step_is_explained_by_memories(out: Any) -> None:
    for prompt in range(3):
        steps = out.explain(prompt)
        assert " ".join(step.text for step in steps) == out.texts[prompt][0]
        assert sum(step.explanation.pay for step in steps) == pytest.approx(out.pay[prompt][0], abs=1e-6)
        assert all(step.explanation.memories for step in steps if step.explanation.pay > 0)
    toward = [step for prompt in range(3) for n in range(6) for step in out.explain(prompt, n) if step.memory]
    assert toward
    assert all(step.proposed and -1 <= (step.nearness or 0) <= 1 for step in toward)
    assert "toward" in str(toward[0])
    with pytest.raises(IndexError, match="prompt must lie in 0 … 2, got 3"):
        out.explain(3)


def test_follow_draws_texts_toward_what_recall_proposes() -> None:
    def nearness(follow: float) -> float:
        out = generate(tiny.guide(strength=4.0, follow=follow), tiny.PROMPTS * 3)
        return float(np.mean([s.nearness for p in range(9) for s in out.explain(p) if s.nearness is not None]))

    assert nearness(20.0) > nearness(0.01) + 0.03


def test_remind_puts_texts_of_the_way_before_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []
    tokenizer = tiny.words()

    class Noting:
        def __call__(self, text: str, **options: Any) -> Any:
            heads.append(text)
            return tokenizer(text, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    reminded = tiny.guide(remind=2)
    reminded.generate(tiny.model(), Noting(), tiny.PROMPTS[:1], max_new_tokens=2)
    *texts, blank, prompt = heads[0].split("\n")
    assert (blank, prompt) == ("", tiny.PROMPTS[0])
    assert 1 <= len(texts) <= 2
    assert set(texts) <= set(reminded.store.texts)


def gate(**fitted: Any) -> Typicality:
    """Fitted on the model's own texts."""
    typicality = Typicality(tiny.model(), tiny.words(), cache=False)
    texts = [text for every in generate(tiny.guide(strength=0.0, particles=16), seed=9).texts for text in every]
    return typicality.fit([prompt for prompt in tiny.PROMPTS for _ in range(16)], texts)


def test_the_gate_is_that_of_a_reading_and_lowers_the_score() -> None:
    typicality = gate()
    out = generate(tiny.guide(typicality=typicality, strength=0.0, particles=16))
    read = tiny.words()(list(chain(*out.texts)), add_special_tokens=False)["input_ids"]
    drawn = [[token for token in ids if token != 2] for ids in chain(*out.token_ids)]
    same = np.reshape([a == b for a, b in zip(read, drawn, strict=True)], (3, 16))  # a special token is not in the text
    assert same.sum() > 16
    for n, prompt in enumerate(tiny.PROMPTS):
        np.testing.assert_allclose(
            out.typicality[n][same[n]], typicality([prompt] * 16, out.texts[n])[same[n]], atol=1e-3
        )
        np.testing.assert_allclose(out.scores[n], out.pay[n] * out.typicality[n], atol=1e-6)
    assert min(map(np.min, out.typicality)) < 0.9


def test_fit_measures_the_increments_of_samples(guide: sw.Guide) -> None:
    out = generate(tiny.guide(strength=0.0, particles=12, follow=0.0))
    fitted = tiny.guide().fit([p for p in tiny.PROMPTS for _ in range(12)], [t for texts in out.texts for t in texts])
    assert fitted.scale is not None
    assert 0.01 < fitted.scale < 0.5
    assert fitted.digest != tiny.guide().digest


def test_tune_strength_takes_the_greatest_within_the_limits() -> None:
    options: dict[str, Any] = {"strengths": (4.0, 0.5, 16.0, 64.0), "max_new_tokens": TOKENS}
    found = tune_strength(tiny.guide(), {"kl": 0.12}, tiny.model(), tiny.words(), tiny.PROMPTS, **options)
    tried = [row["strength"] for row in found.table]
    assert tried == sorted(tried)
    assert [row["within"] for row in found.table] == [True] * (len(tried) - 1) + [False]
    assert found.guide.strength == tried[-2]
    assert f"strength {tried[-2]:g}" in str(found)
    none = tune_strength(tiny.guide(), {"log_likelihood": 0.0}, tiny.model(), tiny.words(), tiny.PROMPTS, **options)
    assert none.guide.strength == 0.0
    for drift, said in (({}, "no limit"), ({"words": 1.0}, "'words'"), ({"typicality": 0.5}, "no gate")):
        with pytest.raises(ValueError, match=said):
            tune_strength(tiny.guide(), drift, tiny.model(), tiny.words(), tiny.PROMPTS)


def padded(prompts: list[str]) -> Any:
    tokenizer = tiny.words()
    tokenizer.padding_side = "left"
    return tokenizer([f"<|im_end|> {prompt}" for prompt in prompts], return_tensors="pt", padding=True)


def test_transformers_takes_a_guide_as_custom_generate(guide: sw.Guide, out: Any) -> None:
    given = padded(tiny.PROMPTS)
    guide = replace(guide, tokenizer=tiny.words())
    options: dict[str, Any] = {"custom_generate": guide, "max_new_tokens": TOKENS}
    ids = tiny.model().generate(
        input_ids=given["input_ids"], attention_mask=given["attention_mask"], prompts=tiny.PROMPTS, **options
    )
    width = given["input_ids"].shape[1]
    assert torch.equal(ids[:, :width], given["input_ids"])
    for row, best in zip(ids[:, width:].tolist(), out.token_ids, strict=True):
        assert row[: len(best[0])] == best[0]
        assert set(row[len(best[0]) :]) <= {2}
    several = tiny.model().generate(
        input_ids=given["input_ids"][:1], attention_mask=given["attention_mask"][:1], num_return_sequences=3,
        do_sample=True, top_k=1000, seed=0, **options,
    )  # fmt: skip
    assert len(several) == 3


def test_logits_processors_of_transformers_apply(guide: sw.Guide) -> None:
    given = padded(tiny.PROMPTS[:1])
    allowed = tiny.words()("the bride", add_special_tokens=False)["input_ids"]
    banned = [[n] for n in range(len(tiny.words())) if n not in allowed]
    ids = tiny.model().generate(
        input_ids=given["input_ids"], attention_mask=given["attention_mask"], bad_words_ids=banned,
        custom_generate=replace(guide, tokenizer=tiny.words()), max_new_tokens=8,
    )  # fmt: skip
    assert set(ids[0, given["input_ids"].shape[1] :].tolist()) <= {2, *allowed}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strength": -1.0}, "strength must be a finite number from 0, got -1.0"),
        ({"strength": float("nan")}, "strength must be a finite number from 0, got nan"),
        ({"follow": float("inf")}, "follow must be a finite number from 0, got inf"),
        ({"particles": 0}, "particles must be at least 1, got 0"),
        ({"step_tokens": 0}, "step_tokens must be at least 1, got 0"),
        ({"scale": 0.0}, "scale must be a finite number above 0, got 0.0"),
        ({"typicality": Typicality(None)}, "typicality has no range yet: fit it on samples of the model"),
        ({"weights": {"riches": 1.0}}, "weights: no channel 'riches'"),
        ({"weights": [1.0, 2.0]}, "weights must have shape"),
    ],
)
def test_settings_out_of_range_are_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, KeyError)) as caught:
        tiny.guide(**options)
    assert said in str(caught.value.args[0])
    assert "\n" not in str(caught.value)


def test_bad_input_is_one_line(guide: sw.Guide) -> None:
    model, words = tiny.model(), tiny.words()
    for call, kind, said in (
        (lambda: generate(guide, []), ValueError, "prompts must hold at least one prompt"),
        (lambda: generate(guide, "once"), TypeError, "prompts must be"),
        (lambda: generate(guide, ["once", 3]), (TypeError, ValueError), r"prompts\[1\]"),
        (lambda: generate(guide, max_new_tokens=0), ValueError, "max_new_tokens must be at least 1"),
        (lambda: generate(guide, temperature=0.0), ValueError, "temperature must be a finite number above 0"),
        (lambda: generate(guide, template="no place"), ValueError, 'must be "chat" or hold {prompt}'),
        (lambda: guide.generate("gpt", words, ["once"]), TypeError, "model must be a causal language model"),
        (lambda: guide.generate(model, None, ["once"]), TypeError, "tokenizer must be a tokenizer"),
        (lambda: sw.Guide("store", embed), TypeError, "store must be a ValueStore or a FrozenView"),
        (lambda: sw.Guide(sw.ValueStore(sw.Config(dim=32)), embed), ValueError, "the store has no channel"),
        (lambda: guide.fit(["once"], []), ValueError, "got 1 prompts for 0 completions"),
        (lambda: tiny.guide().fit(["once"], [""]), ValueError, "two steps"),
        (lambda: model.generate(torch.tensor([[2, 3]]), custom_generate=guide), ValueError, "a guide with a tokenizer"),
    ):
        with pytest.raises(kind, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_reminders_need_texts_and_the_embedder_must_be_that_of_the_store() -> None:
    store = sw.ValueStore(sw.Config(dim=32))
    store.add_channel("good")
    with pytest.raises(ValueError, match="remind needs texts of memories"):
        sw.Guide(store, embed, remind=1)
    store.bind_embedder("another model")
    with pytest.raises(sw.EmbedderError, match="filled by the embedder another model"):
        sw.Guide(store, embed)


def test_a_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch, guide: sw.Guide) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'sharpwave\[embed\]'"):
        guide.generate(tiny.model(), tiny.words(), ["once"])


def test_steps_that_the_embedder_maps_to_zero_are_left_out() -> None:
    def silent(texts: list[str]) -> np.ndarray:
        return np.where([["bride" in text] for text in texts], embed(texts), 0.0).astype(np.float32)

    out = generate(sw.Guide(tiny.store(), silent, tiny.CHUNKER, strength=2.0, particles=3))
    assert all(np.isfinite(scores).all() for scores in out.scores)
