"""Now `sharpwave.trainers.openrlhf`."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.trainers.openrlhf")
