"""Per-step pay as per-token credit: alignment, zero sums, and gradients where the total reward has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

pytest.importorskip("trl")

import sharpwave as sw
import tiny_trl
import torch
from sharpwave.episodes import NO_SPAN, completion_text
from sharpwave.trainers.dense import (
    DenseCreditMixin,
    _spans_of_decoding,
    _spans_of_encoding,
    placed,
    token_credit,
    token_spans,
)
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

pytestmark = pytest.mark.filterwarnings("ignore:.*no signal")
LOSSES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo"]
NEW = [
    "The cat slept on the roof. They talked until the lamps went out. It stole the fish.",
    "Sam met Tom at the harbour. Rain woke it up. He asked her to marry him.",
]


class DenseTrainer(DenseCreditMixin, GRPOTrainer):
    pass


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_trl.tokenizer()


def constant(completions: list[str], **_: Any) -> list[float]:
    return [1.0] * len(completions)


def trainer(kind: Any, out: Path, config: Any = GRPOConfig, **options: Any) -> Any:
    own = {name: options.pop(name) for name in ("dense_reward", "dense_weight") if name in options}
    return kind(
        tiny_trl.model(),
        reward_funcs=options.pop("functions", constant),
        args=tiny_trl.arguments(config, out, beta=0.0, max_steps=1, **options),
        train_dataset=tiny_trl.dataset(),
        processing_class=tiny_trl.tokenizer(),
        **own,
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_constant_reward_has_a_gradient_only_with_dense_credit(loss: str, tmp_path: Path) -> None:
    reward = sw.InstrumentalReward(tiny.store(), Partial(), sw.episodes.Words(n=2))
    plain = trainer(GRPOTrainer, tmp_path / "plain", loss_type=loss)
    plain.train()
    dense = trainer(DenseTrainer, tmp_path / "dense", loss_type=loss, dense_reward=reward)
    dense.train()
    assert tiny_trl.logged(plain, "grad_norm") == [0.0]
    assert tiny_trl.logged(dense, "grad_norm")[0] > 0
    assert tiny_trl.logged(dense, "sharpwave/dense_rms")[0] > 0


class Partial:
    """An embedder for a random model's gibberish: a text is as much a wedding as it has letters of a kind."""

    fingerprint = "partial"

    def __call__(self, texts: list[str]) -> np.ndarray:
        rows = tiny.embed(["married"] * len(texts))
        rows *= np.array([[1.0 + 3 * sum(c in "aeiou" for c in text)] for text in texts], np.float32)
        return rows + tiny.embed([text + " x" for text in texts])


def test_credit_sums_to_zero_and_keeps_the_advantage(tmp_path: Path) -> None:
    reward = sw.InstrumentalReward(tiny.store(), Partial(), sw.episodes.Words(n=2))
    dense = trainer(DenseTrainer, tmp_path, functions=[reward], dense_weight=0.25)
    seen: list[dict[str, Any]] = []
    original = GRPOTrainer._compute_loss
    dense._compute_loss = lambda model, inputs: (seen.append(inputs), original(dense, model, inputs))[1]
    dense.train()
    inputs = seen[0]
    advantages, mask = inputs["advantages"], inputs["completion_mask"]
    assert advantages.shape == mask.shape
    credit = advantages - advantages[:, -1:] * 0
    spread = [row[keep > 0] for row, keep in zip(credit, mask, strict=True)]
    totals = torch.stack([row.mean() for row in spread])
    assert totals.sum().item() == pytest.approx(0.0, abs=1e-4)  # what GRPO made is centred within the group
    assert max(row.std().item() for row in spread) > 0
    deviations = torch.cat([row - row.mean() for row in spread])
    assert 0 < deviations.square().mean().sqrt().item() <= 0.25 + 1e-6


def test_tokens_of_the_step_that_paid_are_credited(tokenizer: Any) -> None:
    reward = sw.InstrumentalReward(tiny.store(), tiny.embed)
    ids = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in NEW]
    width = max(map(len, ids)) + 3
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    prompts = [tiny.PROMPT] * 2
    credit = token_credit(reward, tokenizer, prompts, NEW, ids, mask)
    assert credit.shape == mask.shape
    np.testing.assert_allclose(credit.sum(axis=1), 0, atol=1e-9)
    assert (credit[mask == 0] == 0).all()
    out = reward.score_texts(prompts, NEW)
    for row in range(2):
        pays, spans = out.pays(row)
        best = spans[int(np.argmax(pays))]
        offsets = tokenizer(NEW[row], return_offsets_mapping=True)["offset_mapping"]
        inside = [n for n, (a, b) in enumerate(offsets) if a < best[1] and b > best[0]]
        assert (credit[row, inside] == credit[row].max()).all()
        assert credit[row, len(ids[row]) - 1] == 0  # the end of the text belongs to no step
    half = mask * (np.arange(width) < 8)
    np.testing.assert_allclose(token_credit(reward, tokenizer, prompts, NEW, ids, half).sum(axis=1), 0, atol=1e-9)


def test_spans_by_encoding_and_by_decoding_agree(tokenizer: Any) -> None:
    for text in [*NEW, "  two  blanks ", "naïve Zoë → 東京 🙂 end.", ""]:
        ids = tokenizer(text)["input_ids"]
        by_encoding = _spans_of_encoding(tokenizer, ids, text)
        by_decoding = _spans_of_decoding(lambda a, b, ids=ids: tokenizer.decode(ids[a:b]), len(ids), text)
        assert by_encoding is not None
        if text.isascii():
            np.testing.assert_array_equal(by_encoding, by_decoding)
        for spans in (by_encoding, by_decoding):
            assert len(spans) == len(ids)
            covered = {place for a, b in spans for place in range(a, b)}
            assert covered == set(range(len(text)))


def test_spans_of_tokens_that_the_tokenizer_would_not_have_chosen(tokenizer: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        ids = [*rng.integers(2, 320, size=40).tolist(), 1, 0]
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        spans = token_spans(tokenizer, ids, decoded)
        assert spans.shape == (42, 2)
        assert (np.diff(spans[:, 0]) >= 0).all()
        assert spans[-3:, 1].max() == len(decoded)


def test_messages_are_found_in_what_was_decoded() -> None:
    completion = [
        {"role": "assistant", "content": "First a thought."},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        {"role": "assistant", "content": "Then an answer."},
    ]
    text = completion_text(completion)
    spans = [(text.index("First"), text.index("First") + 16), (text.index("f("), text.index("f(") + 5)]
    spans.append((text.index("Then"), text.index("Then") + 15))
    decoded = "First a thought.<tool>42</tool>{call}Then an answer."
    moved = placed(spans, completion, decoded)
    assert decoded[slice(*moved[0])] == "First a thought."
    assert moved[1] == NO_SPAN
    assert decoded[slice(*moved[2])] == "Then an answer."
    assert placed([(0, 5)], "hello", "hello") == [(0, 5)]


def test_dense_credit_is_for_grpo(tmp_path: Path) -> None:
    class DenseRLOO(DenseCreditMixin, RLOOTrainer):
        pass

    with pytest.raises(TypeError, match="GRPOTrainer"):
        trainer(DenseRLOO, tmp_path, RLOOConfig)
    with pytest.raises(TypeError, match="pass dense_reward="):
        trainer(DenseTrainer, tmp_path)
