"""Moved to `sharpwave.text.packages`; goes with the next version."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.text.packages")
