"""What is learned of episodes: the store, and its rivals.

Each learner takes the same episodes with the same embeddings and returns `Values`: one number for each key that is
asked about. The same player then follows it (`Game.walk`).

A command that was never given may read nearly the same as one that was. A value can be multiplied by the key's gate:
the activation ((cos - τ)/(1 - τ))^p of the nearest key that was met, which is 1 for a key that was met itself. Each
learner was tried with the gate and without, and the rivals with two discounts, on the three games that settings were
chosen on (`study.TRIED`), and has what served it better there. The gate did nothing for the store, whose own activation
κ/(κ + ε) closes only where a key is like none that was met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import sharpwave as sw
from numpy.typing import NDArray

from examples.textworld.data import Data
from examples.textworld.game import Values

Floats = NDArray[np.float64]

GRID: dict[str, tuple[float, ...]] = {
    "merge_cosine": (0.9995,),
    "k": (1,),
    "power": (8,),
    "gamma": (0.7, 0.9, 0.97),
}
"""What `sw.tune` chooses among: γ. Each state and command has a memory of its own and answers alone: on the three games
`tune`'s whole grid chose broader stores at times, which took longer ways (docs/textworld.md)."""
TUNING_STEPS = 2000
GAMMA = 0.97
"""The discount of the rivals: of .9 and .97 the better for them on the three games."""
UPDATES = 3000
"""Steps of the optimiser that Q-learning takes."""
POWER = 8
NEIGHBOURS = 8


# The store ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """A value memory of the episodes."""

    view: sw.FrozenView
    data: Data
    chosen: dict[str, float]
    """What `tune` chose."""

    def __call__(self, keys: Sequence[str]) -> Floats:
        values, _ = self.view.value(self.data.embed(keys))
        return values[:, 0].astype(np.float64)


def tuned(
    data: Data, grid: dict[str, tuple[float, ...]] | None = None, max_steps: int = TUNING_STEPS
) -> tuple[sw.Config, dict[str, float]]:
    """The config that `sw.tune` chooses, and what it chose."""
    result = sw.tune(data.steps, data.offsets, drives={"score": data.gains}, grid=grid or GRID, max_steps=max_steps)
    trial = result.table[result.chosen]
    return result.config, {name: getattr(trial, name) for name in ("merge_cosine", "k", "power", "gamma")}


def remember(data: Data, config: sw.Config, *, sleep: bool = True) -> sw.ValueStore:
    """A store that has observed the episodes; a scalar channel holds the score."""
    store = sw.ValueStore(config)
    store.add_channel("score")
    store.observe(data.steps, data.offsets, drives=data.gains[:, None], texts=[data.keys[i] for i in data.ids])
    if sleep:
        store.replay(tol=1e-9)  # a win far away is worth little to a random player
    return store


def drives_alone(store: Store) -> Store:
    """Nothing is carried back: a key is worth what was gained at it."""
    return replace(store, view=store.view.ablated(values=store.view.drives))


def constant_p(store: Store) -> Store:
    """Every key leads where the average one leads: values backed up along the mean row of P, weighted by mass."""
    view = store.view
    source, target, weight = view.edges()
    rows, columns = np.searchsorted(view.ids, source), np.searchsorted(view.ids, target)
    mass = np.asarray(view.mass, np.float64)
    mean = np.bincount(columns, weight * mass[rows], len(view)) / max(float(mass.sum()), 1e-12)
    drives = view.drives.astype(np.float64)
    values = drives
    for _ in range(1000):
        onward = view.config.gamma * (mean @ values)
        values = drives + onward if view.config.equation == "return" else np.maximum(drives, onward)
    return replace(store, view=view.ablated(values=values.astype(np.float32)))


# Rivals that remember -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Nearest:
    """The nearest keys that were met, and the gate of each key asked about."""

    data: Data
    tau: float

    def __call__(self, keys: Sequence[str], k: int) -> tuple[NDArray[np.int64], Floats]:
        """Rows of the k nearest (n, k), most alike first, and their activations (n, k)."""
        cosines = (self.data.embed(keys) @ self.data.vectors.T).astype(np.float64)
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        best = np.minimum(np.take_along_axis(cosines, nearest, axis=1), 1.0)
        return nearest, np.maximum((best - self.tau) / (1.0 - self.tau), 0.0) ** POWER


def mfec(data: Data, gamma: float = GAMMA) -> Values:
    """Model-free episodic control (Blundell et al. 2016): the best return that ever followed a key.

    A key that was never met has the mean of its nearest neighbours; the gate did not serve it.
    """
    best = np.full(len(data.keys), -np.inf)
    np.maximum.at(best, data.ids, data.returns(gamma))
    near = Nearest(data, tau=0.0)

    def values(keys: Sequence[str]) -> Floats:
        rows, _ = near(keys, NEIGHBOURS)
        found = best[rows].mean(axis=1)
        for n, key in enumerate(keys):
            if key in data.row:
                found[n] = best[data.row[key]]
        return found

    return values


def monte_carlo(data: Data, tau: float, neighbours: int = NEIGHBOURS, gamma: float = GAMMA) -> Values:
    """The mean return that followed the nearest keys, weighted by activation and times, times the gate.

    With one neighbour it is every-visit Monte-Carlo: each state and command for itself, and no episode's end is joined
    to another's beginning.
    """
    times = np.bincount(data.ids, minlength=len(data.keys)).astype(np.float64)
    total = np.bincount(data.ids, data.returns(gamma), len(data.keys))
    near = Nearest(data, tau)

    def values(keys: Sequence[str]) -> Floats:
        rows, activation = near(keys, neighbours)
        weight = (activation * times[rows]).sum(axis=1)
        found = (activation * total[rows]).sum(axis=1) / np.maximum(weight, 1e-300)
        return found * activation[:, 0]

    return values


# Rivals that fit ----------------------------------------------------------------------------------


def probe(data: Data) -> Values:
    """A logistic regression that tells the steps of won episodes from those of lost ones: the chance of a win."""
    from sklearn.linear_model import LogisticRegression

    won = np.repeat(data.won, np.diff(data.offsets))
    wins = np.bincount(data.ids, won, len(data.keys))
    losses = np.bincount(data.ids, ~won, len(data.keys))
    if not wins.any() or not losses.any():
        return nothing
    model = LogisticRegression(C=1.0, max_iter=500)
    model.fit(
        np.concatenate([data.vectors, data.vectors]),
        np.repeat([1, 0], len(data.keys)),
        sample_weight=np.concatenate([wins, losses]),
    )
    return lambda keys: model.predict_proba(data.embed(keys))[:, 1]


def q_learning(data: Data, seed: int = 0, gamma: float = GAMMA) -> Values:
    """Q-learning with a small network on the embedding of command and state, in the manner of DRRN (He et al. 2016).

    The network (384 → 128 → 1) is fitted to gain + γ max Q over the commands that were given in the next state; the
    right side is computed anew every 50 updates. Commands that were never given take no part in it: what a network says
    of them is unfounded.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    last = np.zeros(len(data.ids), bool)
    last[data.offsets[1:] - 1] = True
    number: dict[str, int] = {}
    state = np.array([number.setdefault(text, len(number)) for text in data.states])
    following = np.where(last, -1, np.roll(state, -1))
    ended = last & np.repeat(data.won, np.diff(data.offsets))
    known = np.flatnonzero(~last | ended)  # where an episode was cut off, what follows is not known
    pairs = np.unique(np.stack([state, data.ids], axis=1), axis=0)
    vectors, gains = torch.from_numpy(data.vectors), data.gains.astype(np.float32)
    network = nn.Sequential(nn.Linear(vectors.shape[1], 128), nn.ReLU(), nn.Linear(128, 1))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    onward = np.zeros(len(number) + 1, np.float32)  # the last one stands for the end
    for update in range(UPDATES if len(known) else 0):
        if update % 50 == 0 and update:
            with torch.no_grad():
                worth = network(vectors)[:, 0].numpy()
            onward[:-1] = -np.inf
            np.maximum.at(onward, pairs[:, 0], worth[pairs[:, 1]])
        drawn = known[rng.integers(len(known), size=64)]
        target = torch.from_numpy(gains[drawn] + np.float32(gamma) * onward[following[drawn]])
        loss = nn.functional.mse_loss(network(vectors[data.ids[drawn]])[:, 0], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def values(keys: Sequence[str]) -> Floats:
        with torch.no_grad():
            return network(torch.from_numpy(data.embed(keys)))[:, 0].numpy().astype(np.float64)

    return values


def nothing(keys: Sequence[str]) -> Floats:
    """No values: the player draws among what it has given least often."""
    return np.zeros(len(keys))


# All of them --------------------------------------------------------------------------------------

ABOUT = {
    "store": "the store that `tune` chose",
    "mfec": "MFEC: the best return that followed",
    "monte_carlo": "Monte-Carlo: the mean return that followed the 8 nearest keys",
    "monte_carlo_own": "Monte-Carlo of each key for itself",
    "q_learning": "Q-learning with a network, DRRN's way",
    "probe": "linear probe, won against lost",
    "awake": "the store without sleep: only what observing backs up",
    "drives": "the store without replay: drives alone",
    "constant_p": "the store with constant P",
    "broad": "the store as `calibrate` leaves it, not tuned",
    "none": "no values",
}


@dataclass(frozen=True)
class Family:
    """Everything learned of the same episodes."""

    values: dict[str, Values]
    store: Store
    memories: int
    broad: int
    """How many memories the store that was not tuned has."""


def learn(data: Data, seed: int = 0) -> Family:
    """The store, its ablations and its rivals."""
    config, chosen = tuned(data)
    whole = remember(data, config)
    store = Store(whole.frozen(), data, chosen)
    default = sw.ValueStore(sw.Config(dim=data.vectors.shape[1]))
    default.calibrate(data.steps, data.offsets, check=False)
    broad = remember(data, default.config)
    values: dict[str, Values] = {
        "store": store,
        "mfec": mfec(data),
        "monte_carlo": monte_carlo(data, config.tau),
        "monte_carlo_own": monte_carlo(data, config.tau, neighbours=1),
        "q_learning": q_learning(data, seed),
        "probe": probe(data),
        "awake": Store(remember(data, config, sleep=False).frozen(), data, chosen),
        "drives": drives_alone(store),
        "constant_p": constant_p(store),
        "broad": Store(broad.frozen(), data, {}),
        "none": nothing,
    }
    return Family(values, store, len(whole), len(broad))
