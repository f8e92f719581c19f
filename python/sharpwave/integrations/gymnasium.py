"""Now `sharpwave.envs.gymnasium`."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.envs.gymnasium")
