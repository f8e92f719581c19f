"""Now `sharpwave.trainers.verl`."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.trainers.verl")
