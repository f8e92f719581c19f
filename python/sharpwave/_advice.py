"""What several callers warn of, in one line each, with what to do about it."""

from __future__ import annotations

UNKNOWN = 0.1
"""Mean support below which an episode counts as unknown to a store."""
MANY_UNKNOWN = 0.5
"""The share of unknown episodes that is worth a warning."""

NO_CHANNEL = (
    "the store has no channel, so nothing has a value and every score is 0: give it a terminal to approach "
    "(add_terminal, --terminal) or a number to learn from (add_channel, --channel)"
)
POTENTIAL = (
    "functional 'potential' pays transitions, step by step: its sum over an episode depends on the prompt alone, so as "
    "one number it tells no completion from another. Take 'coverage', or use the pay of each step"
)


def unknown(share: float, of: str) -> str | None:
    """What to do where the store knows little of most episodes; None where it knows enough of them."""
    if not share > MANY_UNKNOWN:
        return None
    return (
        f"{share:.0%} of {of} are unknown to the store (mean support below {UNKNOWN}): their scores say neither good "
        "nor bad. Let it observe more episodes like them, or build it with an embedder to which they are alike"
    )
