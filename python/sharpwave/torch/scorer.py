"""Scorer: what `ValueStore.score` gives under coverage, computed by torch on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave._lazy import require
from sharpwave.habituation import Habituation
from sharpwave.torch.activation import Activations, activate, potential, search, unit_rows
from sharpwave.torch.coverage import Layout, coverage, edge_support, redundancy
from sharpwave.torch.mirror import Mirror, Refreshed
from sharpwave.view import View

if TYPE_CHECKING:
    from sharpwave._coerce import Array
    from sharpwave.view import Weights


@dataclass(frozen=True, slots=True, eq=False)
class TensorScores:
    """What episodes earn, as float64 tensors on the scorer's device, differentiable in the steps."""

    total: Any
    """(E,) what each episode earns: the sum of its steps."""
    step: Any
    """(ΣT,) r_t, what each step earns."""
    support: Any
    """(ΣT,) σ: how much the store knows about the step at all."""
    edge: Any
    """(ΣT,) E: did a known way lead here?"""
    redundancy: Any
    """(ΣT,) H: 1 for something new in this episode, 0 for the same again."""


class Scorer:
    """A store's arrays on a device, and the score under coverage as a function of them.

    The numbers are those of `ValueStore.score` up to float tolerance (not bit for bit: sums run in another order), and
    gradients run into the steps. The arrays are as the store was at the last `refresh`.

    >>> scorer = Scorer(store, device="cuda")
    >>> scorer.score(steps, offsets).total.sum().backward()
    >>> store.observe(more, more_offsets)
    >>> scorer.refresh()

    The device has to know float64, in which all but keys and cosines are held, as in the store. It holds 4·d bytes a
    memory for the keys, 8 for each channel and 12 for each association a memory can have (the most any has).
    """

    def __init__(self, store: View[Any], device: Any = "cpu", *, dtype: Any = None) -> None:
        """Copy the arrays of a store or a frozen view to `device`.

        Keys and cosines are of `dtype`: torch.float32 by default, or torch.float64.
        """
        torch = require("torch", "embed")
        dtype = torch.float32 if dtype is None else dtype
        if not isinstance(store, View):
            raise TypeError(f"store must be a ValueStore or a FrozenView, got {type(store).__name__}")
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        self._mirror = Mirror(store, torch.device(device), dtype)
        self._mirror.refresh()

    def refresh(self) -> Refreshed:
        """Bring the arrays up to the store as it is now, and say how many rows were copied.

        Only what changed is copied to the device: the keys of new and of merged memories, the values that a replay
        moved, the associations that were learned. It costs nothing if the store was not written to. A score whose
        backward pass is still to come has to be differentiated before: torch says so otherwise.
        """
        return self._mirror.refresh()

    def __len__(self) -> int:
        return len(self._mirror)

    @property
    def device(self) -> Any:
        """Where the arrays are."""
        return self._mirror.device

    def search(self, queries: Any, k: int = 16) -> tuple[Any, Any]:
        """The k memories of largest cosine to each query: ids (B, k) and cosines, differentiable in the queries.

        Exact up to rounding, padded with -1 and -inf as in `ValueStore.search`.
        """
        torch, mirror, k = self._mirror.torch, self._mirror, _coerce.count("k", k)
        if k < 1:
            raise ValueError("k must be at least 1")
        x = unit_rows(mirror, "queries", queries)
        rows = search(mirror, x, k)
        cosines = torch.bmm(mirror.keys[rows], x.unsqueeze(2)).squeeze(2)
        padding = 0, k - rows.shape[1]
        ids = torch.from_numpy(np.append(mirror.ids, -1)).to(x.device)
        return (
            ids[torch.nn.functional.pad(rows, padding, value=-1)],
            torch.nn.functional.pad(cosines, padding, value=-torch.inf),
        )

    def activate(self, queries: Any) -> Activations:
        """Who answers to each query: rows (places among the store's `ids`), cosines, φ and σ."""
        return activate(self._mirror, unit_rows(self._mirror, "queries", queries))

    def value(self, queries: Any) -> tuple[Any, Any]:
        """Φ (B, Q), the value of each query on each channel, and σ (B,), its support."""
        activations = self.activate(queries)
        return potential(self._mirror, activations), activations.support

    def score(
        self,
        steps: Any,
        offsets: Array | None = None,
        *,
        weights: Weights | None = None,
        context: bool | int | Array = True,
        habituation: Habituation | None = None,
    ) -> TensorScores:
        """What episodes earn under coverage. Arguments as for `ValueStore.score`; `steps` may require a gradient."""
        mirror, torch = self._mirror, self._mirror.torch
        x = unit_rows(mirror, "steps", steps)
        layout, episodes = self._layout(offsets, context, len(x))
        w = torch.from_numpy(self._weights(weights)).to(x.device)
        activations = activate(mirror, x)
        edge = edge_support(mirror, x, activations, layout)
        new = redundancy(mirror, x, layout)
        config = mirror.config
        known = (activations.support / config.sigma_0).clamp(max=1.0)
        gate = known * (config.rho + (1.0 - config.rho) * edge) * new
        pay = coverage(mirror, x, activations, layout, gate, w, self._freshness(habituation))
        total = torch.zeros(episodes, dtype=pay.dtype, device=x.device).index_add(0, layout.episode, pay)
        return TensorScores(total, pay, activations.support, edge, new)

    def _layout(self, offsets: Array | None, context: bool | int | Array, total: int) -> tuple[Layout, int]:
        ends = _coerce.offsets(offsets, total)
        if ends[0] != 0 or ends[-1] != total or (np.diff(ends) < 0).any():
            raise ValueError(f"offsets must rise from 0 to the number of steps {total}, got {ends.tolist()}")
        lengths = np.diff(ends)
        prompts = np.repeat(_coerce.context(context, len(lengths)), lengths)
        first = np.repeat(ends[:-1], lengths)
        parts = (
            np.repeat(np.arange(len(lengths)), lengths),
            first,
            np.arange(total) - first >= prompts,
        )
        torch, device = self._mirror.torch, self._mirror.device
        return Layout(*(torch.from_numpy(part).to(device) for part in parts)), len(lengths)

    def _weights(self, weights: Weights | None) -> NDArray[np.float64]:
        channels = self._mirror.channels
        if weights is None:
            return np.full(len(channels), 1.0 / max(len(channels), 1))
        given = _coerce.weights(weights, channels)
        if not np.isfinite(given).all():
            raise ValueError(f"weights: entry {int(np.argmin(np.isfinite(given)))} is not finite")
        return given

    def _freshness(self, habituation: Habituation | None) -> Any:
        """(N,) h_i, or None."""
        if habituation is None:
            return None
        ids, uses = habituation.uses()
        mirror, found = self._mirror, np.isin(ids, self._mirror.ids)
        share = np.ones(len(mirror))
        share[np.searchsorted(mirror.ids, ids[found])] = 1.0 / (1.0 + habituation.eta * uses[found])
        return mirror.torch.from_numpy(share).to(mirror.device)
