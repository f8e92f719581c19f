"""Now `sharpwave.envs.sb3`."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.envs.sb3")
