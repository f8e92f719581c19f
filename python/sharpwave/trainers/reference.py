"""Typicality from the reference pass that a trainer makes anyway, without a second model or a further pass.

TRL's GRPO and RLOO compute the reference's log-probability of every token before they call reward functions, and keep
them to themselves. The mixin hands them over, with the entropies, which the same pass gives.

verl and OpenRLHF ask for rewards first. A reward whose typicality has no model is then scored with T = 1, and `gated`
applies T when the reference pass is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave._lazy import require
from sharpwave.reward import AsyncReward, InstrumentalReward
from sharpwave.reward.config import read
from sharpwave.reward.protections import EXCESS_SLOPE
from sharpwave.text.typicality import REFERENCE, TokenLogprobs, Typicality, TypicalityReport, of

Floats = NDArray[np.float64]


class ReferenceLogprobsMixin:
    """GRPO or RLOO whose reward functions are given the reference pass as the column ``reference_logprobs``.

    >>> class GatedGRPOTrainer(ReferenceLogprobsMixin, GRPOTrainer): ...
    >>> reward = sw.InstrumentalReward(store, embedder, combine="conjunction", typicality=True, base=…)
    >>> GatedGRPOTrainer(model, reward_funcs=reward, args=GRPOConfig(beta=1e-4, …), …)

    A reward whose typicality is not fitted yet is fitted on its base samples, which the reference model reads once.

    There is a reference pass where ``beta`` is not 0; 1e-9 will do where no penalty is wanted. Where there is none, and
    with tools or a rollout function, whose tokens the policy did not choose, nothing is handed over: the typicality
    then needs a model of its own.

    Raises:
        TypeError: the trainer has no reference pass (it is neither GRPO nor RLOO).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trainer: Any = self
        parent: Any = super()
        if not hasattr(parent, "_get_per_token_logps_and_entropies") or not hasattr(parent, "_calculate_rewards"):
            raise TypeError("ReferenceLogprobsMixin goes before TRL's GRPOTrainer or RLOOTrainer")
        self._reference_pass: tuple[Any, Any] | None = None
        self._before_rewards = False
        if trainer.beta != 0.0 and trainer.ref_model is not None:
            _give_entropies(trainer)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        parent: Any = super()
        self._before_rewards = True
        try:
            return parent._generate_and_score_completions(inputs)
        finally:
            self._before_rewards, self._reference_pass = False, None

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        """Record the last pass before the rewards, which is the reference model's."""
        parent: Any = super()
        if not self._before_rewards:
            return parent._get_per_token_logps_and_entropies(*args, **kwargs)
        found = parent._get_per_token_logps_and_entropies(*args, **{**kwargs, "compute_entropy": True})
        self._reference_pass = found[:2]
        return found

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        parent: Any = super()
        trainer: Any = self
        self._before_rewards = False
        if trainer.beta != 0.0 and self._reference_pass is not None and _all_tokens_are_its_own(trainer):
            for reward in _unfitted(trainer.reward_funcs):
                _fit(reward, trainer)
            rows = token_logprobs(*self._reference_pass, completion_ids_list, _ends(trainer.processing_class))
            inputs = [{**given, REFERENCE: row} for given, row in zip(inputs, rows, strict=True)]
        return parent._calculate_rewards(inputs, prompts, completions, completion_ids_list)


def token_logprobs(
    logps: Any, entropies: Any, completion_ids: Sequence[Sequence[int]], ends: Iterable[int]
) -> list[TokenLogprobs]:
    """The result of a reference pass (B, T), padded on the right, per completion, without the end of the sequence.

    Args:
        logps: (B, T) tensors.
        entropies: (B, T), or None.
        completion_ids: B lists of tokens.
        ends: tokens that end a sequence; those at the end of a completion are left out.
    """
    ends = set(ends)
    p = logps.detach().float().cpu().numpy()
    h = None if entropies is None else entropies.detach().float().cpu().numpy()
    rows: list[TokenLogprobs] = []
    for row, ids in enumerate(completion_ids):
        count = len(ids)
        while count and int(ids[count - 1]) in ends:
            count -= 1
        rows.append(
            TokenLogprobs(p[row, :count].astype(np.float64), None if h is None else h[row, :count].astype(np.float64))
        )
    return rows


def report_of_pass(
    typicality: Typicality, tokenizer: Any, prompts: Sequence[Any], ids: Any, mask: Any, logps: Any
) -> TypicalityReport:
    """T of completions, from a reference pass that gives log-probabilities only.

    Args:
        typicality: fitted on base samples.
        tokenizer: of the policy.
        prompts: (n,) as the base samples have them.
        ids, mask, logps: (n, T) tensors: tokens, which of them are the completion's, and their log-probabilities.
    """
    ends = _ends(tokenizer)
    own = [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
    said = [
        token_logprobs(row[kept].unsqueeze(0), None, [some], ends)[0]
        for row, kept, some in zip(logps, mask, own, strict=True)
    ]
    texts = [tokenizer.decode(some, skip_special_tokens=True) for some in own]
    return typicality.report_of_tokens(said, prompts, texts)


def gated(scores: Floats, pay: Floats, report: TypicalityReport) -> Floats:
    """(n,) the scores that a reward would have given with T.

    Args:
        scores: (n,) given with T = 1.
        pay: (n,) what T multiplies of them, `RewardOutput.factors`' ``gated``.
        report: T.
    """
    return scores + (report.gate - 1.0) * pay - EXCESS_SLOPE * report.excess


def typicality_of(config: str | Path) -> Typicality:
    """The typicality of a reward's file, which must hold fitted numbers, as `Typicality.to_config` gives after `fit`.

    Raises:
        ValueError: the file has no typicality, or it is not fitted, or has a model: then the reward applies it already.
    """
    found = of(read(config).get("typicality"))
    if found is None or found.fitted is None:
        raise ValueError(f"{config} has no fitted typicality: write `Typicality.fit(…).to_config()` to it")
    if found.reads:
        raise ValueError(f"{config}: the typicality has a model, and is applied by the reward; leave its path out")
    return found


def _give_entropies(trainer: Any) -> None:
    """TRL's reference model computes log-probabilities alone, unless its head is told to."""
    add = getattr(require("trl.trainer.utils", "trl"), "add_fused_lm_head", None)
    if add is None:
        return
    options = {"temperature": trainer.temperature, "outputs": ("log_probs", "entropy")}
    if getattr(trainer.args, "cast_lm_head_to_fp32", False):
        options["cast_lm_head_to_fp32"] = True
    add(trainer.accelerator.unwrap_model(trainer.ref_model), **options)


def _all_tokens_are_its_own(trainer: Any) -> bool:
    return not getattr(trainer, "tools", None) and getattr(trainer, "rollout_func", None) is None


def _ends(processing: Any) -> set[int]:
    tokenizer = getattr(processing, "tokenizer", processing)
    return {token for token in (tokenizer.eos_token_id, tokenizer.pad_token_id) if token is not None}


def _unfitted(functions: Iterable[Any]) -> list[InstrumentalReward]:
    """The rewards whose typicality is not fitted yet."""
    rewards = [function.reward if isinstance(function, AsyncReward) else function for function in functions]
    return [
        reward
        for reward in rewards
        if isinstance(reward, InstrumentalReward) and reward.typicality is not None and reward.typicality.fitted is None
    ]


def _fit(reward: InstrumentalReward, trainer: Any) -> None:
    """Let the trainer's reference model read the reward's base samples."""
    if reward.base_texts is None:
        raise ValueError(
            f"{reward.name}: typicality needs base samples: pass base=(prompts, completions) to the reward"
        )
    model = trainer.accelerator.unwrap_model(trainer.model if trainer.ref_model is None else trainer.ref_model)
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    before = model.training
    with _adapter_off(model) if trainer.ref_model is None else nullcontext():
        model.eval()
        read = Typicality(model, tokenizer, temperature=trainer.temperature, cache=False).fit(*reward.base_texts)
        model.train(before)
    assert reward.typicality is not None
    reward.typicality.fitted = read.fitted


def _adapter_off(model: Any) -> AbstractContextManager[Any]:
    """A model with an adapter in training, as TRL takes its reference: the adapter "ref", or none."""
    use_adapter = require("trl.trainer.utils", "trl").use_adapter
    return use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None)
