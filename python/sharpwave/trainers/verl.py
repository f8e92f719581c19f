"""verl 0.9: a reward function, a reward manager, and a checkpoint callback. All are named in verl's configuration.

    reward.custom_reward_function.path=pkg://sharpwave.trainers.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.reward=reward.yaml
    trainer.checkpoint_callback_class=sharpwave.trainers.verl.StoreCheckpoint

or, so that the prompts are seen as they were given (``data.return_raw_chat=True``),

    reward.reward_manager.source=importlib
    reward.reward_manager.name=SharpwaveRewardManager
    reward.reward_manager.module.path=pkg://sharpwave.trainers.verl
    +reward.sharpwave.reward=reward.yaml

verl scores in ``reward.num_workers`` Ray actors (8 by default). Each makes the reward that the file describes, so its
store must be one that they share: an actor of Ray's (``store: {ray: name, directory: …}``), which the first to come
starts, or ``store: http://…`` of `sharpwave serve`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sharpwave import _coerce
from sharpwave._lazy import MissingExtra, require
from sharpwave._moved import renamed
from sharpwave.reward import InstrumentalReward
from sharpwave.reward.warn import Once
from sharpwave.text.chunkers import Text
from sharpwave.text.typicality import Typicality, TypicalityReport
from sharpwave.trainers.pointwise import CONFIG, BatchedReward, Parts, shared
from sharpwave.trainers.reference import gated, report_of_pass, typicality_of

if TYPE_CHECKING:
    RewardManagerBase = CheckpointCallback = Any
else:
    try:
        from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
        from verl.trainer.ppo.checkpoint_callback import CheckpointCallback
    except ImportError as error:
        raise MissingExtra(f"verl is needed for this ({error}): pip install 'sharpwave[ray]' verl") from None

__all__ = ["BatchedReward", "SharpwaveRewardManager", "StoreCheckpoint", "compute_score"]

FOLDER = "sharpwave"
TURNS = 2
"""Of a rollout without tools: the prompt and the answer."""
LEARNED = ("train",)


async def compute_score(
    data_source: Any = None,
    solution_str: str = "",
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward: str | None = None,
    learn_splits: Sequence[str] = LEARNED,
    **options: Any,
) -> Parts:
    """Verl's custom reward function: ``score`` and every part by name, which verl logs.

    Args:
        data_source, ground_truth: passed to the terminal, as lists of those names.
        solution_str: the answer.
        extra_info: of the row; ``prompt`` or ``question`` in it is the prompt (verl gives none else), and
            ``split`` tells training from evaluation.
        reward: the file that describes the reward; ``SHARPWAVE_REWARD`` by default.
        learn_splits: of which splits completions may enter the store. A row without a split is not learned from: verl
            validates with the same function and does not say so.
        options: of `BatchedReward`, and whatever verl adds.
    """
    info = dict(extra_info or {})
    together = shared(reward, **_known(options))
    columns = {"data_source": data_source, "ground_truth": ground_truth, "extra_info": info}
    prompt = info.get("prompt", info.get("question"))
    learn = info.get("split") in learn_splits and together.reward.training is not False
    return await together.asked(_text(prompt), solution_str, learn=learn, columns=columns)


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    names = ("wait", "most", "sleep_every", "unscorable")
    return {name: options[name] for name in names if name in options}


def _text(prompt: Any) -> Text | None:
    """A text or chat messages; Ray and pandas make arrays of lists, and missing ones of None."""
    if _coerce.missing(prompt):
        return None
    return prompt.tolist() if hasattr(prompt, "tolist") else prompt


class SharpwaveRewardManager(RewardManagerBase):
    """Scores answers to the prompts as they were given, a batch of waiting samples at a time.

    Its settings are ``reward.sharpwave`` in verl's configuration: ``reward`` (the file), ``learn_splits``, and those of
    `BatchedReward`.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any = None,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        settings = dict(config.reward.get("sharpwave") or {})
        self.reward_router_address = reward_router_address
        self.reward_model_tokenizer = reward_model_tokenizer
        self.learn_splits = tuple(settings.get("learn_splits", LEARNED))
        self.together = shared(settings.get("reward"), **_known(settings))
        self._once = Once(type(self).__name__)

    async def run_single(self, data: Any) -> dict[str, Any]:
        item = data[-1:][0]
        responses = item.batch["responses"]
        count = int(item.batch["attention_mask"][-responses.shape[-1] :].sum())
        rows = item.non_tensor_batch
        info = dict(rows.get("extra_info") or {})
        mask = item.batch.get("response_mask", None)
        if mask is None and int(rows.get("__num_turns__", 0) or 0) > TURNS:
            self._once.say(
                "turns",
                "verl hands this rollout of several turns over without response_mask: what tools and users said in it "
                "is scored as if the policy had written it",
            )
        answer = await self.loop.run_in_executor(
            None, lambda: self._written(responses[:count], None if mask is None else mask[:count])
        )
        columns = {
            "data_source": rows.get("data_source"),
            "ground_truth": (rows.get("reward_model") or {}).get("ground_truth"),
            "extra_info": info,
        }
        validating = bool(getattr(data, "meta_info", {}).get("validate", False))
        learn = not validating and info.get("split") in self.learn_splits and self.together.reward.training is not False
        parts = await self.together.asked(self._prompt(item, info), answer, learn=learn, columns=columns)
        extra = {f"sharpwave_{name}": value for name, value in parts.items() if name != "score"}
        return {"reward_score": parts["score"], "reward_extra_info": {**extra, "acc": parts["score"]}}

    def _written(self, tokens: Any, mask: Any | None) -> str:
        """The text of the policy's own tokens; its turns in a rollout of several stand on lines of their own."""
        if mask is None or bool(mask.all()):
            return self.tokenizer.decode(tokens, skip_special_tokens=True)
        ends = np.flatnonzero(np.diff(mask.numpy().astype(np.int8))) + 1
        turns = zip(np.split(tokens.numpy(), ends), np.split(mask.numpy(), ends), strict=True)
        return "\n".join(self.tokenizer.decode(own, skip_special_tokens=True) for own, is_own in turns if is_own[0])

    def _prompt(self, item: Any, info: Mapping[str, Any]) -> Text | None:
        given = item.non_tensor_batch.get("raw_prompt", info.get("prompt", info.get("question")))
        if given is not None:
            return _text(given)
        prompts = item.batch["prompts"]
        count = int(item.batch["attention_mask"][: prompts.shape[-1]].sum())
        return self.tokenizer.decode(prompts[prompts.shape[-1] - count :], skip_special_tokens=True)


class ReferenceGateMixin:
    """A trainer of verl's with the gate T of its own reference pass, on top of a protected reward.

    >>> class GatedTrainer(ReferenceGateMixin, SeparateRayPPOTrainer): ...

    It goes before a trainer with `_fit_compute_advantage`; others call `gate_scores` where ``token_level_scores`` and
    ``ref_log_prob`` are both there. The file that describes the reward holds the fitted typicality. verl has no
    entropies of the reference: surprise is compared with that of the base's samples of the prompt.
    """

    sharpwave_typicality: Typicality | None = None

    def _fit_compute_advantage(self, batch: Any) -> Any:
        trainer: Any = self
        parent: Any = super()
        if self.sharpwave_typicality is None:
            self.sharpwave_typicality = typicality_of(described(trainer.config))
        infos = trainer.reward_extra_infos_dict
        pay = infos["sharpwave_gated"] if "sharpwave_gated" in infos else infos["gated"]
        trainer.reward_tensor, report = gate_scores(
            batch, trainer.reward_tensor, pay, self.sharpwave_typicality, trainer.tokenizer
        )
        trainer.metrics["sharpwave/typicality"] = float(report.gate.mean())
        return parent._fit_compute_advantage(batch)


def gate_scores(
    data: Any, scores: Any, pay: Sequence[float], typicality: Typicality, tokenizer: Any
) -> tuple[Any, TypicalityReport]:
    """Scores (n, T) with T in place of 1 in the reward, at the last token of each response; and T.

    Args:
        data: verl's `DataProto` with responses, response_mask and ref_log_prob (n, T), and prompts.
        scores: (n, T) token-level scores.
        pay: (n,) what T multiplies of them, the reward's part ``gated``.
        typicality: fitted on base samples.
        tokenizer: of the policy.
    """
    torch = require("torch", "embed")
    rows = data.non_tensor_batch
    mask = data.batch["response_mask"].bool()
    given = rows["raw_prompt"] if "raw_prompt" in rows else [info.get("prompt") for info in rows["extra_info"]]
    prompts = [_text(prompt) for prompt in given]
    report = report_of_pass(typicality, tokenizer, prompts, data.batch["responses"], mask, data.batch["ref_log_prob"])
    before = scores.sum(dim=1).double().cpu().numpy()
    change = gated(before, np.asarray(pay, np.float64), report) - before
    last = (mask.long().cumsum(dim=1) * mask).argmax(dim=1)
    found = scores.clone()
    found[torch.arange(len(found)), last] += torch.as_tensor(change, dtype=scores.dtype, device=scores.device)
    return found, report


class StoreCheckpoint(CheckpointCallback):
    """Saves the shared store with every checkpoint, and takes it back when a run is resumed.

    verl has no hook for resuming: the callback is made before the trainer loads its checkpoint, and finds it by the
    same rules (``trainer.resume_mode``). The file that describes the reward is ``reward.sharpwave.reward``, or
    ``reward.custom_reward_function.reward_kwargs.reward``, or ``SHARPWAVE_REWARD``.

    Raises:
        FileNotFoundError: the checkpoint that is resumed from holds no store.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config=config)
        self.reward = InstrumentalReward.from_config(described(config))
        self.resumed_from: Path | None = None
        found = resumed(config)
        if found is not None:
            self.reward.restore(found / FOLDER)
            self.resumed_from = found

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **_: Any) -> None:
        del trainer, global_step, async_save  # the store is no part of what may still be written
        self.reward.save(Path(checkpoint_dir) / FOLDER)


def described(config: Any) -> str:
    """The file that describes the reward, of a verl configuration.

    Raises:
        ValueError: none is named.
    """
    for place in ("reward.sharpwave.reward", "reward.custom_reward_function.reward_kwargs.reward"):
        found = config
        for name in place.split("."):
            found = None if found is None else found.get(name)
        if found:
            return str(found)
    if not os.environ.get(CONFIG):
        raise ValueError(f"no reward: set reward.sharpwave.reward, or {CONFIG}")
    return os.environ[CONFIG]


def resumed(config: Any) -> Path | None:
    """The ``global_step_N`` folder that verl will resume from, or None."""
    latest = require("verl.utils.checkpoint.checkpoint_manager", "ray").find_latest_ckpt_path
    trainer = config.trainer
    mode = trainer.get("resume_mode", "disable")
    if mode == "resume_path":
        return Path(str(trainer.resume_from_path))
    found = latest(str(Path(str(trainer.default_local_dir)).absolute())) if mode == "auto" else None
    return None if found is None else Path(str(found))


__getattr__ = renamed(__name__, {"Together": "BatchedReward"})
