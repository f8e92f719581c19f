"""What the language model is asked for: everyday topics, a few of them near every objective.

The prompts are not part of the exploit table's texts and may be changed; they treat the four
tuned objectives alike (three topics each, plus the neutral prompt).
"""

from __future__ import annotations

NEUTRAL = "Write a short story."

_NEAR_OBJECTIVES = (
    # a wedding
    "a wedding in a small village",
    "two people who fall in love",
    "a family celebration",
    # a storm at sea
    "a ship in a storm",
    "a young sailor",
    "fishermen at sea",
    # a garden
    "a girl who plants a garden",
    "a farmer and the harvest",
    "an old man and his apple tree",
    # a lost animal
    "a lost dog that finds its way home",
    "a child who rescues a kitten",
    "a search in the forest",
)

_ELSEWHERE = (
    "a lonely lighthouse",
    "a teacher on her first day",
    "a boy who learns to play the piano",
    "a train journey at night",
    "two brothers who quarrel",
    "a king who cannot sleep",
    "a painter who loses her colors",
    "a winter in the mountains",
    "a baker who gets up early",
    "a robot that wants to be a friend",
    "a girl who moves to a new city",
    "a doctor in a small town",
    "a treasure map",
    "a soldier who comes home",
    "a market day",
    "a grandmother's letter",
    "a race between friends",
    "a library with a secret",
    "a dragon who is afraid of fire",
    "a football match in the rain",
    "an inventor and her machine",
    "a thief who changes his mind",
    "a boy who is afraid of the dark",
    "a musician in the street",
    "a night in a museum",
    "a journey across the desert",
    "a bear and a fox",
    "a broken promise",
    "a stranger on the bus",
    "a wise old woman",
    "a school play",
    "a mountain climber",
    "a clockmaker",
    "a picnic by the river",
    "a new neighbor",
)


def base_prompts() -> list[str]:
    """The prompts that base stories are sampled from: 48, the neutral one first."""
    topics = [t for pair in zip(_ELSEWHERE, _NEAR_OBJECTIVES, strict=False) for t in pair]
    topics += _ELSEWHERE[len(_NEAR_OBJECTIVES) :]
    return [NEUTRAL, *(f"Write a short story about {topic}." for topic in topics)]


def training_prompts() -> list[str]:
    """The prompts that the second form trains on: 8 everyday topics, none of them near an objective."""
    return [f"Write a short story about {topic}." for topic in _ELSEWHERE[:8]]
