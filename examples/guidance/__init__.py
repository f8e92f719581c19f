"""Guided sampling on one objective, beside best of n at equal generated tokens."""
