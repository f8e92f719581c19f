"""Now `sharpwave.trainers.trl`."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.trainers.trl")
