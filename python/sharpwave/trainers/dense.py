"""Dense credit: the pay of each step of a completion becomes credit of the step's tokens.

One number a completion tells a policy that an episode was good, not where. The pay of the steps does: the tokens of a
step that paid more than the completion's other tokens are credited, the others debited. Credit sums to zero over a
completion, so that its advantage as a whole stays what the trainer made it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._lazy import require
from sharpwave.reward import InstrumentalReward, Part
from sharpwave.text.chunkers import NO_SPAN, Span, Text, completion_text, message_texts, token_steps


class DenseCreditMixin:
    """GRPO with per-token credit; TRL's loss takes advantages (B, T), for each of its loss types.

    >>> class DenseGRPOTrainer(DenseCreditMixin, GRPOTrainer): ...
    >>> DenseGRPOTrainer(model, reward_funcs=reward, dense_weight=0.5, …)

    Credit is scaled to a root mean square of ``dense_weight`` over the tokens of a generation batch, so it compares
    with advantages, whose standard deviation is about 1.

    Args:
        dense_reward: whose steps pay; by default the first `InstrumentalReward` (or part of one) among
            ``reward_funcs``.
        dense_weight: of the credit.

    Raises:
        TypeError: the trainer is not GRPO (RLOO's and OnlineDPO's losses know one number a completion), or no reward
            is there.
        ValueError: ``use_liger_kernel`` is set, whose loss takes one advantage per completion.
    """

    def __init__(
        self,
        *args: Any,
        dense_reward: InstrumentalReward | None = None,
        dense_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        trainer: Any = self
        if not hasattr(trainer, "loss_type") or not hasattr(trainer, "_generate_and_score_completions"):
            raise TypeError("DenseCreditMixin goes before TRL's GRPOTrainer; other losses take no per-token advantages")
        if getattr(trainer.args, "use_liger_kernel", False):
            raise ValueError("dense credit needs use_liger_kernel=False")
        self.dense_reward = dense_reward or _first_reward(trainer.reward_funcs)
        self.dense_weight = dense_weight
        self._dense_batch: tuple[Any, Any, Any] | None = None

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        parent: Any = super()
        self._dense_batch = (prompts, completions, completion_ids_list)
        return parent._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        parent: Any = super()
        trainer: Any = self
        output: dict[str, Any] = parent._generate_and_score_completions(inputs)
        if self._dense_batch is None or not trainer.model.training:
            return output
        torch = require("torch", "trl")
        mask = output["completion_mask"]
        if "tool_mask" in output:
            mask = mask * output["tool_mask"]
        credit = token_credit(self.dense_reward, trainer.processing_class, *self._dense_batch, mask.cpu().numpy())
        self._dense_batch = None
        sums = torch.tensor([(credit**2).sum(), np.count_nonzero(credit)], device=mask.device, dtype=torch.float32)
        total, tokens = trainer.accelerator.gather(sums).view(-1, 2).sum(dim=0).tolist()
        rms = (total / tokens) ** 0.5 if tokens else 0.0
        trainer._metrics["train"][f"{self.dense_reward.name}/dense_rms"].append(rms)
        scaled = credit * (self.dense_weight / rms) if rms > 1e-8 else np.zeros_like(credit)
        advantages = output["advantages"]
        output["advantages"] = advantages.unsqueeze(1) + torch.as_tensor(
            scaled, device=advantages.device, dtype=advantages.dtype
        )
        return output


def token_credit(
    reward: InstrumentalReward,
    tokenizer: Any,
    prompts: Sequence[Any],
    completions: Sequence[Text],
    completion_ids: Sequence[Sequence[int]],
    mask: NDArray[Any],
) -> NDArray[np.float64]:
    """(B, T) credit of each token, in units of pay: its step's pay less the mean over the completion's step tokens.

    Args:
        reward: if its last call was not for these completions, they are scored now, and not learned.
        tokenizer: of the completions, or a processor that has a ``tokenizer``.
        prompts, completions: B of each.
        completion_ids: B lists of tokens.
        mask: (B, T) the tokens that the loss counts.
    """
    out = reward.output_of(prompts, completions)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    credit = np.zeros(mask.shape, np.float64)
    for row, (completion, ids) in enumerate(zip(completions, completion_ids, strict=True)):
        pays, spans = out.pays(row)
        if not len(pays):
            continue
        count = min(len(ids), mask.shape[1])
        decoded = tokenizer.decode(list(ids), skip_special_tokens=True)
        steps = token_steps(placed(spans, completion, decoded), token_spans(tokenizer, list(ids), decoded))[:count]
        taken = np.flatnonzero((steps >= 0) & (mask[row, :count] > 0))
        if len(taken):
            paid = pays[steps[taken]].astype(np.float64)
            credit[row, taken] = paid - paid.mean()
    return credit


def placed(spans: Sequence[Span], completion: Text, decoded: str) -> list[Span]:
    """Spans in `completion_text` as spans in the decoded tokens; those of a message that is not found there are lost.

    The two differ for chat completions of several messages: templates stand between them, and a parsed tool call is
    not what the model wrote.
    """
    if completion_text(completion) == decoded:
        return list(spans)
    out: list[Span] = []
    moves: list[tuple[int, int, int]] = []
    start = cursor = 0
    for text in message_texts(completion):
        core = text.strip()
        found = decoded.find(core, cursor) if core else -1
        if found >= 0:
            moves.append((start, start + len(text), found - start - text.index(core)))
            cursor = found + len(core)
        start += len(text) + 1
    for a, b in spans:
        shift = next((move for first, end, move in moves if first <= a < end), None)
        out.append(NO_SPAN if shift is None else (a + shift, b + shift))
    return out


def token_spans(tokenizer: Any, ids: list[int], decoded: str) -> NDArray[np.int64]:
    """(n, 2) the characters of ``decoded`` that each token wrote; an empty span for a token that wrote none.

    Tokens that make up one character together all have its span.
    """
    spans = _spans_of_encoding(tokenizer, ids, decoded)
    if spans is None:
        spans = _spans_of_decoding(lambda a, b: tokenizer.decode(ids[a:b], skip_special_tokens=True), len(ids), decoded)
    return spans


def _spans_of_encoding(tokenizer: Any, ids: list[int], decoded: str) -> NDArray[np.int64] | None:
    """The tokenizer's own offsets, if it would have written the text with the same tokens."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    special = set(tokenizer.all_special_ids)
    end = len(ids)
    while end and ids[end - 1] in special:
        end -= 1
    encoded = tokenizer(decoded, add_special_tokens=False, return_offsets_mapping=True)
    if encoded["input_ids"] != ids[:end]:
        return None
    offsets = np.array(encoded["offset_mapping"], np.int64).reshape(-1, 2)
    return np.concatenate([offsets, np.full((len(ids) - end, 2), len(decoded), np.int64)])


def _spans_of_decoding(decode: Callable[[int, int], str], count: int, decoded: str) -> NDArray[np.int64]:
    """What each token adds to a decoding in a sliding window; one that leaves a character open waits for the next."""
    spans = np.zeros((count, 2), np.int64)
    before = read = place = 0
    waiting = 0
    for token in range(count):
        known = decode(before, read)
        text = decode(before, token + 1)
        if text.endswith("\ufffd") and token + 1 < count:
            continue
        grown = min(place + max(len(text) - len(known), 0), len(decoded))
        spans[waiting : token + 1] = (place, grown)
        place, before, read, waiting = grown, read, token + 1, token + 1
    return spans


def _first_reward(functions: Sequence[Any]) -> InstrumentalReward:
    for function in functions:
        if isinstance(function, InstrumentalReward):
            return function
        if isinstance(function, Part) and isinstance(function.reward, InstrumentalReward):
            return function.reward
    raise TypeError("no InstrumentalReward among reward_funcs: pass dense_reward=")
