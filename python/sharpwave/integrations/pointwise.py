"""Now `sharpwave.trainers.pointwise`."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.trainers.pointwise")
