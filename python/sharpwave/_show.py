"""Texts, names and paths come from files: what a terminal would obey is shown, not done."""

from __future__ import annotations


def shown(text: str) -> str:
    r"""The text with control characters written out (``\x1b``), except line ends and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
