"""Chunkers: a prompt and a completion become the steps of an episode. The code is in `sharpwave.text`."""

from .text import chunkers
from .text.chunkers import *  # noqa: F403

__all__: list[str] = []
__all__ += chunkers.__all__
