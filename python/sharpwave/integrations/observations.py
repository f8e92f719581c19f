"""Now `sharpwave.envs.observations`."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.envs.observations")
