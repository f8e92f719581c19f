"""Embedders: lists of texts in, arrays ``(n, d)`` float32 out. The code is in `sharpwave.text`."""

from .text import embedders
from .text.embedders import *  # noqa: F403
from .text.packages import minilm_path, smollm2_path

__all__ = ["minilm_path", "smollm2_path"]
__all__ += embedders.__all__
