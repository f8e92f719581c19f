"""``python -m sharpwave.cli``."""

from sharpwave.cli import app

app()
