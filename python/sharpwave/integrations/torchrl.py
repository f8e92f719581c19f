"""Now `sharpwave.envs.torchrl`."""

from sharpwave._moved import moved

moved(__name__, "sharpwave.envs.torchrl")
