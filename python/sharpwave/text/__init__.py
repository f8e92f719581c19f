"""Measures of texts under a language model.

typicality.py    `Typicality`: whether a completion is what the base model could have written
reading.py       log-probability, entropy and varentropy of completions under a language model
"""

from __future__ import annotations

from sharpwave.text.typicality import Typicality, TypicalityReport

__all__ = ["Typicality", "TypicalityReport"]
