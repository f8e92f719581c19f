"""Typicality: a gate for what the base could have written, of a model's own reading and of a trainer's numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT
from sharpwave.text import Typicality
from sharpwave.text.packages import offline, smollm2_path
from sharpwave.text.rows import read_rows
from sharpwave.text.typicality import Range, distinct_bigrams
from worlds import seeds

WORDS = [f"w{n}" for n in range(40)]


@dataclass
class Pass:
    """A reference pass over completions of a made base: every token has a prediction of its own."""

    logps: np.ndarray
    mask: np.ndarray
    entropies: np.ndarray
    varentropies: np.ndarray
    prompts: list[str]
    completions: list[str]

    def rows(self, which: Any) -> Pass:
        arrays = [a[which] for a in (self.logps, self.mask, self.entropies, self.varentropies)]
        place = np.arange(len(self.prompts))[which]
        return Pass(*arrays, [self.prompts[n] for n in place], [self.completions[n] for n in place])

    def known(self, kind: str) -> dict[str, Any]:
        """What a trainer of this kind has."""
        given = {"logps": self.logps, "mask": self.mask, "prompts": self.prompts, "completions": self.completions}
        if kind != "surprise":
            given["entropies"] = self.entropies
        if kind == "varentropy":
            given["varentropies"] = self.varentropies
        return given


KINDS = ["surprise", "entropy", "varentropy"]


def made(seed: int, count: int = 64, width: int = 40, sharp: float = 1.0, chosen: str = "drawn") -> Pass:
    """Completions of four prompts; "drawn" from the predictions, or the "least" likely of a few draws.

    ``sharp`` scales the logits: a base that is sure of every token where it is large.
    """
    rng = np.random.default_rng(seed)
    prompts = [f"prompt {n % 4}" for n in range(count)]
    scale = np.array([1.0, 1.3, 1.6, 2.0])[np.arange(count) % 4, None, None] * sharp
    logits = scale * rng.normal(size=(count, width, len(WORDS)))
    nats = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    draws = (nats[:, :, None, :] + rng.gumbel(size=(count, width, 1 if chosen == "drawn" else 4, len(WORDS)))).argmax(
        -1
    )
    options = np.take_along_axis(nats, draws, axis=-1)
    token = np.take_along_axis(draws, options.argmin(-1)[..., None], axis=-1)[..., 0]
    logps = np.take_along_axis(nats, token[..., None], axis=-1)[..., 0]
    entropies = -(np.exp(nats) * nats).sum(-1)
    varentropies = (np.exp(nats) * (nats + entropies[..., None]) ** 2).sum(-1)
    mask = np.arange(width) < rng.integers(width // 2, width + 1, size=(count, 1))
    texts = [" ".join(WORDS[t] for t in row[kept]) for row, kept in zip(token, mask, strict=True)]
    return Pass(logps, mask, entropies, varentropies, prompts, texts)


def fitted(kind: str, seed: int = 1) -> Typicality:
    return Typicality(None).fit_logprobs(**made(seed, 128).known(kind))


# Of a trainer's numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_base_samples_pass_and_z_has_mean_0_and_variance_1(kind: str) -> None:
    typ, fresh = fitted(kind), made(2, 256)
    report = typ.report_of_logprobs(**fresh.known(kind))
    assert np.median(report.gate) > 0.95
    assert report.gate.mean() > 0.8
    assert abs(report.z.mean()) < 0.2
    assert report.z.std() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_base_finds_unlikely_is_shut_out(kind: str) -> None:
    report = fitted(kind).report_of_logprobs(**made(3, chosen="least").known(kind))
    assert report.gate.mean() < 0.05
    assert np.median(report.z) > 4
    assert (report.excess > 0).mean() > 0.9


@pytest.mark.parametrize("kind", ["entropy", "varentropy"])
def test_where_the_base_is_sure_of_every_token_is_shut_out_though_it_is_likely(kind: str) -> None:
    """Each token is drawn from its prediction, so that z is that of the base: the context is what is wrong."""
    report = fitted(kind).report_of_logprobs(**made(4, sharp=2.5).known(kind))
    assert report.gate.mean() < 0.05
    if kind == "varentropy":
        assert abs(report.z.mean()) < 0.5


def test_a_repeated_bigram_is_shut_out_by_itself() -> None:
    typ, fresh = fitted("surprise"), made(5)
    before = typ.of_logprobs(**fresh.known("surprise"))
    fresh.completions = ["smile " * 30] * len(before)
    report = typ.report_of_logprobs(**fresh.known("surprise"))
    assert before.mean() > 0.8
    assert (report.gate == 0).all()
    assert report.distinct == pytest.approx(1 / 29)


@settings(max_examples=20)
@given(seed=seeds, kind=st.sampled_from(KINDS), padding=st.integers(0, 9))
def test_a_completions_gate_does_not_depend_on_its_batch(seed: int, kind: str, padding: int) -> None:
    typ, fresh = fitted(kind), made(seed, 16)
    whole = typ.report_of_logprobs(**fresh.known(kind))
    which = np.random.default_rng(seed).permutation(16)[:5]
    part = fresh.rows(which)
    for name in ("logps", "mask", "entropies", "varentropies"):
        setattr(part, name, np.pad(getattr(part, name), ((0, 0), (padding, padding))))
    found = typ.report_of_logprobs(**part.known(kind))
    for name in ("z", "entropy", "distinct", "gate", "excess", "tokens"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name)[which], rtol=1e-9, atol=1e-12)


@given(value=st.floats(-50, 50), further=st.floats(0, 5))
def test_a_ramp_falls_from_1_to_0_and_then_counts_deviations(value: float, further: float) -> None:
    ramp = Range(-1.0, 2.0, 4.0)  # a width of two deviations of 2
    gate, beyond = (function(np.array([value]))[0] for function in (ramp.gate, ramp.excess))
    assert 0 <= gate <= 1
    assert (gate == 1) == (-1 <= value <= 2) or abs(value) < 1e-9
    assert beyond == 0 or gate == 0
    outside = np.array([6.0 + 2.0 * further])
    assert ramp.excess(outside)[0] == pytest.approx(further)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_data_and_back_are_equal_bit_for_bit(kind: str) -> None:
    typ, fresh = fitted(kind), made(6)
    again = Typicality.from_config(json.loads(json.dumps(typ.to_config(), allow_nan=False)))
    assert again.fitted == typ.fitted
    np.testing.assert_array_equal(again.of_logprobs(**fresh.known(kind)), typ.of_logprobs(**fresh.known(kind)))


def test_prompts_are_compared_with_their_own_samples() -> None:
    """The first and the fourth prompt of the made base differ in entropy by more than its samples do."""
    typ, fresh = fitted("varentropy"), made(7, 128)
    own = typ.report_of_logprobs(**fresh.known("varentropy"))
    fresh.prompts = ["prompt 3" if p == "prompt 0" else p for p in fresh.prompts]
    swapped = typ.report_of_logprobs(**fresh.known("varentropy"))
    first = np.arange(128) % 4 == 0
    assert own.gate[first].mean() > 0.75
    assert swapped.gate[first].mean() < 0.1
    np.testing.assert_array_equal(own.gate[~first], swapped.gate[~first])
    fresh.prompts = ["never seen"] * 128
    assert typ.of_logprobs(**fresh.known("varentropy")).mean() > 0.7


def test_torch_tensors_and_boolean_masks_are_taken() -> None:
    torch = pytest.importorskip("torch")
    typ, fresh = fitted("entropy"), made(8)
    given_ = fresh.known("entropy")
    tensors = {n: torch.tensor(given_[n]) for n in ("logps", "entropies")} | {"mask": torch.tensor(fresh.mask)}
    np.testing.assert_array_equal(typ.of_logprobs(**given_ | tensors), typ.of_logprobs(**given_))


def test_an_impossible_token_and_no_token_at_all_are_shut_out() -> None:
    typ, fresh = fitted("varentropy"), made(9, 4)
    fresh.logps[0, 3] = -np.inf
    fresh.mask[1] = False
    report = typ.report_of_logprobs(**fresh.known("varentropy"))
    assert report.gate[:2].tolist() == [0, 0]
    assert (report.tokens[1], report.excess[0]) == (0, 10.0)
    assert np.isfinite(report.excess).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t, p: Typicality(None).of_logprobs(**p.known("entropy")), "fit it"),
        (lambda t, p: t.of_logprobs(**p.known("varentropy")), "fitted without varentropy"),
        (lambda t, p: t.of_logprobs(p.logps[:, :-1], p.mask), "mask must have shape"),
        (lambda t, p: t.of_logprobs(p.logps, p.mask, p.entropies, prompts=["one"]), "1 prompts for 4"),
        (lambda t, p: t.of_logprobs(p.logps, p.mask, p.entropies, completions=["one"]), "1 completions for 4"),
        (lambda t, p: t.of_logprobs(np.full((4, 40), np.nan), p.mask), "logps row 0 holds NaN"),
        (lambda t, p: t(["a"], ["b"]), "no model"),
        (lambda t, p: Typicality(None).fit_logprobs(**p.known("entropy")), "at least 8"),
        (lambda t, p: Typicality("here", template="none"), "template"),
        (lambda t, p: Typicality("here", temperature=0), "temperature"),
    ],
)
def test_errors_name_what_is_wrong(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(fitted("entropy"), made(10, 4))


def test_distinct_bigrams() -> None:
    np.testing.assert_allclose(distinct_bigrams(["a b a b a", "one", "", "A a a"]), [0.5, 1.0, 1.0, 0.5])
    np.testing.assert_allclose(
        distinct_bigrams(["A. B. A.B. C.", "我们我们我们我们", "She met him."]), [6 / 9, 1 / 3, 1.0]
    )


# Of a language model --------------------------------------------------------------------------------

SETTINGS = {"temperature": 0.8, "template": "chat", "batch_size": 8, "cache": False}


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    import transformers

    offline()
    path = smollm2_path()
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype="float32").eval()
    return model, transformers.AutoTokenizer.from_pretrained(path)


@pytest.fixture(scope="module")
def base() -> tuple[list[str], list[str]]:
    """Beginnings of stories that the model wrote, for the study."""
    rows = read_rows(ROOT / "study" / "base.jsonl")[:24]
    return [str(row.prompt) for row in rows], [" ".join(str(row.completion).split()[:24]) for row in rows]


@pytest.fixture(scope="module")
def typ(loaded: tuple[Any, Any], base: tuple[list[str], list[str]]) -> Typicality:
    prompts, texts = base
    return Typicality(*loaded, **SETTINGS).fit(prompts[:16], texts[:16])


def test_a_language_model_tells_its_own_stories_from_loops_and_letters(
    typ: Typicality, base: tuple[list[str], list[str]]
) -> None:
    prompts, texts = base[0][16:], base[1][16:]
    shuffled = [" ".join(np.random.default_rng(n).permutation(t.split())) for n, t in enumerate(texts[:3])]
    odd = ["smile " * 24, "She smiled and he smiled and " * 4, "A. B. X. You. You. A. B. " * 3]
    report = typ.report([*prompts, *prompts[:6]], [*texts, *shuffled, *odd])
    own, disordered, loops = report.gate[:8], report.gate[8:11], report.gate[11:]
    assert np.median(own) > 0.8
    assert (disordered < 0.05).all()
    assert (loops < 0.05).all()
    assert np.abs(report.z[:8]).mean() < 1.5


def test_reading_is_what_the_model_says_token_by_token(typ: Typicality, loaded: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = loaded
    prompt, text = "Write a story.", "The wedding began at noon, and the lamps were lit."
    head = tokenizer(
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
    )["input_ids"]
    tail = tokenizer(text)["input_ids"]
    expected = np.zeros(5)
    with torch.inference_mode():
        for n, token in enumerate(tail):
            p = (model(torch.tensor([head + tail[:n]])).logits[0, -1].double() / 0.8).softmax(-1).numpy()
            h = -(p * np.log(p)).sum()
            s = -np.log(p[token])
            expected += [1, s, s * s, h, (p * (np.log(p) + h) ** 2).sum()]
    found = typ._reader.sums([prompt], [text])[0]
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_how_a_policy_split_its_tokens_does_not_matter(typ: Typicality, loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    text = "They married in the garden."
    odd = [i for c in text for i in tokenizer(c)["input_ids"]]
    assert len(odd) > 2 * len(tokenizer(text)["input_ids"])
    assert tokenizer.decode(odd) == text
    one, other = (typ.report(["Write a story."], [t]) for t in (text, tokenizer.decode(odd)))
    assert one.tokens == other.tokens == len(tokenizer(text)["input_ids"])
    assert one.gate == other.gate


def test_the_batch_does_not_matter_to_a_language_model_either(
    typ: Typicality, base: tuple[list[str], list[str]]
) -> None:
    prompts, texts = base[0][16:19], base[1][16:19]
    together = typ.report(prompts, [*texts[:2], "Short."])
    alone = typ.report(prompts[:1], texts[:1])
    np.testing.assert_allclose(together.z[0], alone.z[0], atol=1e-3)
    np.testing.assert_allclose(together.gate[0], alone.gate[0], atol=1e-3)


def test_a_configured_typicality_reads_the_same_in_another_object(
    typ: Typicality, loaded: tuple[Any, Any], base: tuple[list[str], list[str]]
) -> None:
    config = json.loads(json.dumps(typ.to_config()))
    again = Typicality.from_config(config, model=loaded[0], tokenizer=loaded[1], cache=False)
    prompts, texts = base[0][22:24], base[1][22:24]
    np.testing.assert_array_equal(again(prompts, texts), typ(prompts, texts))
    by_path = Typicality.from_config(config | {"path": str(smollm2_path()), "dtype": "float32"})
    np.testing.assert_allclose(by_path(prompts, texts), typ(prompts, texts), atol=1e-6)


def test_messages_are_read_in_the_chat_format(typ: Typicality) -> None:
    asked = [{"role": "user", "content": "Write a story."}]
    said = [{"role": "assistant", "content": "They met in spring."}]
    as_text = typ.report(["Write a story."], ["They met in spring."])
    assert typ.report([asked], [said]).z == as_text.z


def test_it_is_where_the_package_says() -> None:
    assert sw.text.Typicality is Typicality


def test_a_relative_model_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    typ = Typicality("model", cache=False)
    monkeypatch.chdir("/")
    assert typ.to_config()["path"] == str(tmp_path / "model")
