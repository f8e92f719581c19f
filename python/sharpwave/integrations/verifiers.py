"""Now `sharpwave.trainers.verifiers`."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.trainers.verifiers")
