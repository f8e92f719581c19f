"""Scoring on a device: a store's arrays as tensors, and the score as a differentiable function of the steps."""

from sharpwave.torch.mirror import Refreshed
from sharpwave.torch.scorer import Scorer, TensorScores

__all__ = ["Refreshed", "Scorer", "TensorScores"]
