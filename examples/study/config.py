"""Configurations: ``study/config/default.toml``, and of each arm what differs from it."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from examples.study.policy import Lora

DIRECTORY = Path("study/config")


@dataclass(frozen=True)
class Train:
    """How a policy is trained.

    Attributes:
        groups, copies: prompts a step, and completions of each; a group's rewards are normalised together.
        algorithm: "reinforce", or "grpo" (clipped ratios, ``inner`` updates a batch).
        kl: weight in the loss of the exact token-level KL(policy‖base), in nats a token.
    """

    steps: int = 80
    groups: int = 2
    copies: int = 8
    tokens: int = 40
    temperature: float = 0.8
    algorithm: str = "reinforce"
    inner: int = 1
    clip: float = 0.2
    learning_rate: float = 1e-3
    kl: float = 0.0
    max_norm: float = 1.0
    gold_every: int = 10
    checkpoint_every: int = 5

    def __post_init__(self) -> None:
        if self.algorithm not in ("reinforce", "grpo"):
            raise ValueError(f"algorithm must be 'reinforce' or 'grpo', got {self.algorithm!r}")
        if self.algorithm == "reinforce" and self.inner != 1:
            raise ValueError("reinforce is on-policy: inner must be 1")


@dataclass(frozen=True)
class Config:
    """One arm: its reward file and that one's options, the objective, the training.

    Attributes:
        fluency: weight of the base model's fluency in the store's steps, beside a meaning of 1.
        encoder: of the meaning of the store's steps: "minilm", or "hidden" (states of the base model).
    """

    arm: str
    reward: str
    title: str
    objective: str = "wedding"
    options: dict[str, Any] = field(default_factory=dict)
    train: Train = Train()
    lora: Lora = Lora()
    fluency: float = 0.2
    encoder: str = "minilm"

    def __post_init__(self) -> None:
        if self.encoder not in ("minilm", "hidden"):
            raise ValueError(f"encoder must be 'minilm' or 'hidden', got {self.encoder!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def load(arm: str, directory: Path = DIRECTORY) -> Config:
    """The configuration of ``arm``, checked."""
    default = tomllib.loads((directory / "default.toml").read_text("utf-8"))
    own = tomllib.loads((directory / f"{arm}.toml").read_text("utf-8"))
    unknown = sorted(set(own) - {f.name for f in fields(Config)})
    if unknown:
        raise ValueError(f"{arm}.toml: unknown key {unknown[0]!r}")
    lora = default.get("lora", {}) | own.get("lora", {})
    if "targets" in lora:
        lora["targets"] = tuple(lora["targets"])
    return Config(
        arm=arm,
        reward=own["reward"],
        title=own["title"],
        objective=own.get("objective", "wedding"),
        fluency=float(own.get("fluency", 0.2)),
        encoder=own.get("encoder", "minilm"),
        options=own.get("options", {}),
        train=Train(**(default.get("train", {}) | own.get("train", {}))),
        lora=Lora(**lora),
    )
