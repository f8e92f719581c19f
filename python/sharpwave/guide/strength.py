"""`tune_strength`: the greatest strength of a guide within limits of drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sharpwave import _coerce
from sharpwave.guide.guide import Guide
from sharpwave.text.chunkers import Text

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
LIMITS = ("kl", "typicality", "log_likelihood")


@dataclass(frozen=True)
class TunedStrength:
    """What `tune_strength` found.

    Attributes:
        guide: with the strength that was chosen; 0 if none is within the limits.
        table: one row a strength that was tried, ascending: "strength", "score", "kl", "typicality",
            "log_likelihood", "within"; means over prompts of the samples, weighted as draws from the guided
            distribution.
    """

    guide: Guide
    table: list[dict[str, Any]]

    def __str__(self) -> str:
        heads = ("strength", "score", "kl", "typicality", "log_likelihood")
        lines = ["  ".join(head.rjust(14) for head in heads)]
        for row in self.table:
            cells = "  ".join(f"{row[head]:14.3f}" for head in heads)
            lines.append(cells if row["within"] else f"{cells}  beyond the limits")
        return "\n".join([*lines, f"strength {self.guide.strength:g}"])


def tune_strength(
    guide: Guide,
    drift: Mapping[str, float],
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Text | None],
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    **options: Any,
) -> TunedStrength:
    """The guide with the greatest strength up to which samples stay within limits.

    Strengths are tried in ascending order, up to the first that is beyond a limit.

    Args:
        drift: "kl": at most so many nats a token from the model; "typicality": mean T at least; "log_likelihood":
            mean log-probability of a token at least, nats.
        prompts: that texts are sampled for.
        strengths: to be tried.
        seed, options: of `Guide.generate`.

    Raises:
        ValueError: an unknown limit, no limit, or a limit of typicality for a guide without a gate.
    """
    unknown = sorted(set(drift) - set(LIMITS))
    if unknown or not drift:
        raise ValueError(f"drift must have some of {LIMITS}, got {unknown[0]!r}" if unknown else "drift has no limit")
    if "typicality" in drift and guide.typicality is None:
        raise ValueError("drift has a limit of typicality, and the guide has no gate: pass typicality= to it")
    bounds = {name: _coerce.number(name, value) for name, value in drift.items()}
    chosen, table = 0.0, []
    for strength in sorted(_coerce.number("strengths", s) for s in strengths):
        out = replace(guide, strength=strength).generate(model, tokenizer, prompts, seed, **options)
        row: dict[str, Any] = {"strength": strength, "kl": float(out.kl.mean())}
        for name, column in (
            ("score", out.scores),
            ("typicality", out.typicality),
            ("log_likelihood", out.log_likelihood),
        ):
            row[name] = float(np.mean([w @ values for w, values in zip(out.weights, column, strict=True)]))
        row["within"] = all(
            row[name] <= bound if name == "kl" else row[name] >= bound for name, bound in bounds.items()
        )
        table.append(row)
        if not row["within"]:
            break
        chosen = strength
    return TunedStrength(replace(guide, strength=chosen), table)
