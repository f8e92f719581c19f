"""An explanation in words: at most three lines a step, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sharpwave._advice import UNKNOWN
from sharpwave.results import Association, Explanation, Payment

LITTLE = 0.01
"""Pay, and agreement with a known way, below which nothing is said."""
NAMED = 2
"""Memories that are named for a step."""
WIDTH = 72
"""Characters of a text that are shown."""

LEGEND = f"""\
pay: what a step adds to the score. like: memories that it was paid for being alike to, each with its part
known way: it came where episodes of the store went next. support: how well the store knows the step, from 0 to 1;
below {UNKNOWN} its pay says little"""
LEGEND_FULL = """\
pay: what a step adds to the score, first in all, then by memory: φ, how much the step activates the memory, times the
memory's advantage, its value above the ordinary one; then its id and text. source → target: associations that led
here, with their weight and how well the step agrees with the target. support: how well the store knows the step.
edge: whether a known way led here. redundancy: 1 for something new in this episode, 0 for the same again"""


def brief(
    steps: Sequence[Explanation], texts: Sequence[str], scored: Sequence[bool], memories: Mapping[int, str]
) -> list[str]:
    """Lines on every step of an episode.

    Args:
        steps: as `ValueStore.explain` returns them.
        texts: of the steps.
        scored: which of them are not context.
        memories: the texts of the store's memories by id.
    """
    own = [step for step, is_own in zip(steps, scored, strict=True) if is_own]
    lines = [f"score {sum(step.pay for step in own):+.2f} in {len(own)} steps"]
    for number, (step, text, is_own) in enumerate(zip(steps, texts, scored, strict=True)):
        if not is_own:
            lines += ["", f"{number}         {quoted(text, WIDTH)}  context, earns nothing"]
            continue
        lines += ["", f"{number}  {step.pay:+.2f}  {quoted(text, WIDTH)}  support {step.support:.2f}"]
        found = (_alike(step.memories), _way(step, memories))
        lines += [f"   {line}" for line in found if line]
    return [*lines, "", *LEGEND.splitlines()]


def full(steps: Sequence[Explanation], texts: Sequence[str]) -> list[str]:
    """All that there is, with ids."""
    lines: list[str] = []
    for text, step in zip(texts, steps, strict=True):
        lines += [quoted(text), *(f"  {line}" for line in str(step).splitlines())]
    return [*lines, "", *LEGEND_FULL.splitlines()]


def quoted(text: str, width: int | None = None) -> str:
    """A text in quotation marks, cut to a width."""
    return f"“{text}”" if width is None or len(text) <= width else f"“{text[: width - 1].rstrip()}…”"


def _alike(memories: Sequence[Payment]) -> str:
    paid = sorted((m for m in memories if abs(m.pay) >= LITTLE), key=lambda m: -abs(m.pay))
    if not paid:
        return ""
    named = [f"{quoted(m.text or f'memory {m.id}', WIDTH)} {m.pay:+.2f}" for m in paid[:NAMED]]
    more = [f"{len(paid) - NAMED} more"] if len(paid) > NAMED else []
    return f"like {', '.join([*named, *more])}"


def _way(step: Explanation, memories: Mapping[int, str]) -> str:
    """The strongest way that led here, if the step agrees with it."""

    def strength(way: Association) -> float:
        return way.weight * way.agreement

    best = max(step.associations, key=strength, default=None)
    if best is None or step.edge < LITTLE:
        return ""
    source, target = (quoted(memories.get(n) or f"memory {n}", WIDTH // 2) for n in (best.source, best.target))
    return f"known way from {source} to {target}"
