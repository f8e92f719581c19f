"""The gates and the functional `coverage` (section 6 of the model), as tensors, for a whole batch of episodes at once.

Everything is differentiable in the steps but for kinks: where a clip or a maximum changes sides, where another memory
becomes one of the k nearest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sharpwave.torch.activation import SCORES, Activations
from sharpwave.torch.mirror import Mirror


class Layout(NamedTuple):
    """Which step belongs to which episode."""

    episode: Any
    """(ΣT,) int64."""
    first: Any
    """(ΣT,) int64, the first step of its episode."""
    scored: Any
    """(ΣT,) bool, whether it is no prompt."""


def edge_support(mirror: Mirror, x: Any, activations: Activations, layout: Layout) -> Any:
    """(ΣT,) E: how well each scored step agrees with what its predecessor led the store to expect."""
    torch = mirror.torch
    edge = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    t = torch.arange(len(x), device=x.device)
    led = t[layout.scored & (t > layout.first)]
    if not len(led) or not mirror.targets.shape[1]:
        return edge
    before = activations.rows[led - 1]
    weights = activations.phi[led - 1].unsqueeze(2).to(mirror.dtype) * mirror.weights[before]
    targets = mirror.targets[before].flatten(1)
    # Σ_i φ_i Σ_j P_ij k_j, without the (ΣT, k·width, d) of its terms.
    mu = torch.nn.functional.embedding_bag(
        targets, mirror.keys, mode="sum", per_sample_weights=weights.flatten(1).contiguous()
    ).to(torch.float64)
    norm = mu.square().sum(dim=1)
    predicted = norm > 0
    agreement = (mu * x[led].to(torch.float64)).sum(dim=1) / torch.where(predicted, norm, 1.0).sqrt()
    low, high = mirror.edge_range
    support = ((agreement - low) / (high - low)).clamp(0.0, 1.0)
    return edge.index_put((led,), torch.where(predicted, support, 0.0))


def redundancy(mirror: Mirror, x: Any, layout: Layout) -> Any:
    """(ΣT,) H: 1 for something new among the scored steps of its episode, 0 for the same again."""
    torch, config = mirror.torch, mirror.config
    rows = torch.arange(len(x), device=x.device)[layout.scored]
    out = torch.ones(len(x), dtype=torch.float64, device=x.device)
    if not len(rows):
        return out
    _, lengths = torch.unique_consecutive(layout.episode[rows], return_counts=True)
    starts = rows[torch.cumsum(lengths, 0) - lengths]
    for length in torch.unique(lengths).tolist():  # episodes of one length are one stack: nothing is padded
        if length == 1:
            continue
        stack = starts[lengths == length].unsqueeze(1) + torch.arange(length, device=x.device)
        for some in stack.split(max(1, SCORES // length**2)):
            steps = x[some]
            cosines = torch.bmm(steps, steps.transpose(1, 2)).to(torch.float64)
            earlier = torch.ones(length, length, dtype=torch.bool, device=x.device).tril(-1)
            nearest = cosines.masked_fill(~earlier, -torch.inf)[:, 1:].amax(dim=2)
            new = ((config.d_hi - nearest) / (config.d_hi - config.d_lo)).clamp(0.0, 1.0)
            out = out.index_put((some[:, 1:],), new)
    return out


def gains(mirror: Mirror, activations: Activations, layout: Layout) -> Any:
    """(ΣT, k) [φ_i(x_t) − max_{u<t} φ_i(x_u)]⁺: what each answer adds to what its episode has shown, prompt included.

    All answers are sorted by episode and memory, in the order of time; the level before each is a running maximum,
    which starts anew with every memory.
    """
    torch, phi = mirror.torch, activations.phi
    key = (layout.episode.unsqueeze(1) * max(len(mirror), 1) + activations.rows).flatten()
    key, order = torch.sort(key, stable=True)
    sorted_phi = phi.flatten()[order]
    begins = torch.ones_like(key, dtype=torch.bool)
    begins[1:] = key[1:] != key[:-1]
    # φ < 1, so that adding the number of the run makes the maximum start anew with each; only its place is used.
    where = torch.cummax(sorted_phi.detach() + torch.cumsum(begins, 0), dim=0).indices
    level = torch.where(begins, 0.0, sorted_phi[where.roll(1)])
    gain = torch.empty_like(phi.detach().flatten()).index_put((order,), (sorted_phi - level).clamp(min=0.0))
    return gain.view_as(phi)


def fades(mirror: Mirror, x: Any, weights: Any) -> Any:
    """(ΣT, Q) 1 − f·r_q(x), what a step that is itself an end of a channel keeps of the channel's pay."""
    torch = mirror.torch
    cosines = (x @ mirror.terminal_keys.T).to(torch.float64)
    reach = ((cosines - mirror.low) / (mirror.high - mirror.low)).clamp(0.0, 1.0)
    return 1.0 - torch.where(mirror.fades & (weights > 0), mirror.config.fade * reach.square(), 0.0)


def coverage(
    mirror: Mirror, x: Any, activations: Activations, layout: Layout, gate: Any, weights: Any, freshness: Any
) -> Any:
    """(ΣT,) what each step is paid. `gate` (ΣT,) is G, `weights` (Q,) are w, `freshness` (N,) is h or None."""
    torch = mirror.torch
    if not len(mirror):
        return gate * 0.0
    advantage = weights * (mirror.values - mirror.baseline).clamp(min=0.0)
    total = advantage.sum(dim=1)
    harmful = total < 0
    means = torch.where((harmful | mirror.terminal).unsqueeze(1), 0.0, advantage)
    if freshness is not None:
        means = means * freshness.unsqueeze(1)
    gain = gains(mirror, activations, layout)
    shown = torch.einsum("tk,tkq->tq", gain, means[activations.rows])
    earned = gate * (fades(mirror, x, weights) * shown).sum(dim=1)
    charged = (activations.phi * torch.where(harmful, total, 0.0)[activations.rows]).sum(dim=1)
    return torch.where(layout.scored, earned + charged, 0.0)
