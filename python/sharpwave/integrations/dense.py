"""Now `sharpwave.trainers.dense`."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.trainers.dense")
