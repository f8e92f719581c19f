"""The names that `sharpwave.trainers` and `sharpwave.envs` had before; each warns. They go with the next version."""
