"""How strongly memories answer to steps (section 2 of the model), as tensors.

The search is exact up to the rounding of a matrix product and is not differentiated; the cosines of what it found are
computed again, and gradients run through them. Where memories tie for the last place to the last digit, another of
them may answer than in the store.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sharpwave.torch.mirror import Mirror

SCORES = 1 << 26
"""How many cosines are held at once while searching."""


class Activations(NamedTuple):
    """Who answers to each of B steps."""

    rows: Any
    """(B, k) int64, rows of the mirror, nearest first; k is smaller where there are fewer memories."""
    cosines: Any
    """(B, k) s, of the mirror's dtype."""
    phi: Any
    """(B, k) φ, float64."""
    support: Any
    """(B,) σ, float64."""


def unit_rows(mirror: Mirror, name: str, steps: Any) -> Any:
    """(n, d) steps on the mirror's device, of unit norm, as a differentiable function of what was given."""
    torch = mirror.torch
    x = torch.as_tensor(steps, device=mirror.device)
    if not x.dtype.is_floating_point:
        x = x.to(mirror.dtype)
    if x.ndim == 1:
        x = x.unsqueeze(0)
    if x.ndim != 2 or x.shape[1] != mirror.source.dim:
        raise ValueError(f"{name} must have shape (n, {mirror.source.dim}), got {tuple(x.shape)}")
    wide = x.to(torch.float64)
    norms = wide.square().sum(dim=1).sqrt()
    bad = ~(torch.isfinite(norms) & (norms > 0))
    if bool(bad.any()):
        raise ValueError(f"{name} row {int(bad.int().argmax())} is zero or not finite")
    return (wide / norms.unsqueeze(1)).to(mirror.dtype)


def search(mirror: Mirror, x: Any, k: int) -> Any:
    """(B, k) the rows of largest cosine, nearest first; in blocks, so that no (B, N) matrix is held."""
    torch = mirror.torch
    with torch.no_grad():
        block = max(k, SCORES // max(len(x), 1))
        best = x.new_empty((len(x), 0)), torch.empty((len(x), 0), dtype=torch.int64, device=x.device)
        for first in range(0, len(mirror), block):
            cosines = x @ mirror.keys[first : first + block].T
            top = torch.topk(cosines, min(k, cosines.shape[1]), dim=1)
            cosines = torch.cat([best[0], top.values], dim=1)
            rows = torch.cat([best[1], top.indices + first], dim=1)
            top = torch.topk(cosines, min(k, cosines.shape[1]), dim=1)
            best = top.values, rows.gather(1, top.indices)
        return best[1]


def activate(mirror: Mirror, x: Any) -> Activations:
    """The activations of unit rows `x` (B, d)."""
    torch, config = mirror.torch, mirror.config
    rows = search(mirror, x, config.k)
    cosines = torch.bmm(mirror.keys[rows], x.unsqueeze(2)).squeeze(2)
    reach = (cosines.to(torch.float64) - config.tau) / (1.0 - config.tau)
    kappa = reach.clamp(0.0, 1.0) ** int(config.power)
    support = kappa.amax(dim=1) if rows.shape[1] else kappa.sum(dim=1)
    phi = kappa / (config.epsilon + kappa.sum(dim=1, keepdim=True))
    return Activations(rows, cosines, phi, support)


def potential(mirror: Mirror, activations: Activations) -> Any:
    """(B, Q) Φ_q = Σ_i φ_i v_iq, float64."""
    return mirror.torch.einsum("bk,bkq->bq", activations.phi, mirror.values[activations.rows])
