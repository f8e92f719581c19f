"""OpenRLHF 0.11: a reward function in a file, and the same over HTTP.

This module is such a file: it has a ``reward_func(queries, prompts, labels)``, and scores with the reward that the file
in ``SHARPWAVE_REWARD`` describes (what `InstrumentalReward.from_config` reads). Where it lies, it says itself:

    export SHARPWAVE_REWARD=reward.yaml
    python -m openrlhf.cli.train_ppo_ray --reward.remote_url "$(python -m sharpwave.trainers.openrlhf)" …

Every rollout worker then has a reward of its own; with ``store: http://…`` in the file they share a served store. Or
one process has the reward, and OpenRLHF asks it:

    python -m sharpwave.trainers.openrlhf --config reward.yaml --port 5000
    python -m openrlhf.cli.train_ppo_ray --reward.remote_url http://127.0.0.1:5000/get_reward …

OpenRLHF gives the prompt as text and the query as the decoded tokens of prompt and answer, special tokens included.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any

from sharpwave._lazy import require
from sharpwave._moved import renamed
from sharpwave.reward import InstrumentalReward
from sharpwave.text.typicality import Typicality
from sharpwave.trainers.pointwise import CONFIG, BatchedReward, Parts, shared
from sharpwave.trainers.reference import gated, report_of_pass, typicality_of

__all__ = ["BatchedReward", "ReferenceGateMixin", "completion_of", "create_app", "reward_func", "scores"]

# <|im_end|>, <s>, </s>, [PAD] and the like; never what stands between angle brackets in ordinary text.
SPECIAL = re.compile(
    r"<\|[^<>|\s]+\|>|</?s>|<(?:pad|eos|bos|unk|end_of_turn|start_of_turn)>|\[(?:PAD|CLS|SEP|EOS|BOS)\]"
)
LOGGED = ("terminal", "instrumental", "divergence", "support", "gated", "scorable")


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
    """What ``--reward.remote_url <file>`` calls: ``rewards`` and ``scores`` (n,), and the parts in ``extra_logs``."""
    torch = require("torch", "embed")
    found = scores(shared(), queries, prompts, labels, learn=True)
    reward = torch.tensor([parts["score"] for parts in found], dtype=torch.float32)
    logs = {f"sharpwave_{name}": torch.tensor([parts[name] for parts in found]) for name in LOGGED}
    return {"rewards": reward, "scores": reward, "extra_logs": logs}


class ReferenceGateMixin:
    """OpenRLHF's `RemoteExperienceMaker` with the gate T of its own reference pass, on top of a protected reward.

    >>> class GatedExperienceMaker(ReferenceGateMixin, RemoteExperienceMaker): ...

    The file of ``SHARPWAVE_REWARD`` holds the fitted typicality. The reference's log-probabilities are there with
    ``--algo.kl.use_loss``, or with ``--algo.kl.estimator k1``, whose KL gives them back. OpenRLHF has no entropies:
    surprise is compared with that of the base's samples of the prompt.

    Raises:
        ValueError: there are no reference log-probabilities; or the file has no fitted typicality.
    """

    sharpwave_typicality: Typicality | None = None

    def compute_advantages_and_returns(self, experiences: list[Any]) -> list[Any]:
        maker: Any = self
        parent: Any = super()
        if self.sharpwave_typicality is None:
            self.sharpwave_typicality = typicality_of(os.environ[CONFIG])
        for experience in experiences:
            _gate(experience, self.sharpwave_typicality, maker.tokenizer, maker.strategy.args)
        return parent.compute_advantages_and_returns(experiences)


def _gate(experience: Any, typicality: Typicality, tokenizer: Any, args: Any) -> None:
    torch = require("torch", "embed")
    logps = experience.base_action_log_probs
    if logps is None and experience.kl is not None and args.algo.kl.estimator == "k1":
        logps = experience.action_log_probs - experience.kl
    if logps is None:
        raise ValueError("no reference log-probabilities: set --algo.kl.use_loss, or --algo.kl.estimator k1")
    own = experience.action_mask.bool()
    prompts = [plain(prompt) for prompt in experience.prompts]
    report = report_of_pass(typicality, tokenizer, prompts, experience.sequences[:, 1:], own, logps)
    pay = experience.info["sharpwave_gated"].double().cpu().numpy()
    scores = gated(experience.rewards.double().cpu().numpy(), pay, report)
    experience.rewards = torch.as_tensor(scores, dtype=torch.float32, device=experience.rewards.device)
    experience.info["sharpwave_typicality"] = torch.as_tensor(report.gate, dtype=torch.float32)


def scores(
    together: BatchedReward,
    queries: Sequence[str],
    prompts: Sequence[str],
    labels: Sequence[Any] | None,
    *,
    learn: bool,
) -> list[Parts]:
    """The parts of each query.

    Raises:
        ValueError: the numbers of queries, prompts and labels differ.
    """
    labels = [None] * len(queries) if labels is None else labels
    if not len(queries) == len(prompts) == len(labels):
        raise ValueError(f"got {len(queries)} queries, {len(prompts)} prompts and {len(labels)} labels")
    return together.many(
        [plain(prompt) for prompt in prompts],
        [completion_of(query, prompt) for query, prompt in zip(queries, prompts, strict=True)],
        [{"label": label, "labels": label} for label in labels],
        learn=learn and together.reward.training is not False,
    )


def completion_of(query: str, prompt: str) -> str:
    """The answer in a query, without special tokens.

    Decoding may have changed the prompt's blanks and special tokens: then the answer is what follows the same words.
    """
    if query.startswith(prompt):
        return plain(query[len(prompt) :])
    shown, given = plain(query), plain(prompt)
    if shown.startswith(given):
        return shown[len(given) :].strip()
    words = re.findall(r"\S+", given)
    pattern = r"\s*".join(re.escape(word) for word in words)
    found = re.match(rf"\s*{pattern}", shown)
    return (shown[found.end() :] if found else shown).strip()


def plain(text: str) -> str:
    """The text without special tokens and surrounding blanks."""
    return SPECIAL.sub("", text).strip()


def create_app(reward: InstrumentalReward | BatchedReward, *, learn: bool = True) -> Any:
    """A FastAPI application with OpenRLHF's contract at ``POST /get_reward``, and ``GET /health``.

    It takes ``{"query": […], "prompts": […], "labels": […]}`` and answers ``{"rewards": […], "scores": […],
    "extra_logs": {name: […]}}``.
    """
    fastapi = require("fastapi", "serve")
    together = reward if isinstance(reward, BatchedReward) else BatchedReward(reward)
    app = fastapi.FastAPI(title="sharpwave for OpenRLHF")

    def get_reward(body: dict[str, Any]) -> dict[str, Any]:
        queries = body.get("query")
        if not isinstance(queries, list):
            raise fastapi.HTTPException(422, "query must be a list of texts")
        prompts = body.get("prompts") or [""] * len(queries)
        try:
            found = scores(together, queries, prompts, body.get("labels"), learn=learn)
        except ValueError as error:
            raise fastapi.HTTPException(422, str(error)) from None
        given = [parts["score"] for parts in found]
        logs = {f"sharpwave_{name}": [parts[name] for parts in found] for name in LOGGED}
        return {"rewards": given, "scores": given, "extra_logs": logs}

    def health() -> dict[str, Any]:
        return {"status": "ok", "memories": len(together.reward.store)}

    app.post("/get_reward")(get_reward)
    app.get("/health")(health)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the path of this file; with ``--port``, serve."""
    parser = argparse.ArgumentParser(prog="python -m sharpwave.trainers.openrlhf", description=main.__doc__)
    parser.add_argument("--config", help="the file that describes the reward; SHARPWAVE_REWARD by default")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--frozen", action="store_true", help="learn nothing")
    given = parser.parse_args(arguments)
    if given.port is None:
        print(__file__)
        return
    app = create_app(shared(given.config), learn=not given.frozen)
    require("uvicorn", "serve").run(app, host=given.host, port=given.port, log_level="warning")


__getattr__ = renamed(__name__, {"Together": "BatchedReward"})


if __name__ == "__main__":
    main()
