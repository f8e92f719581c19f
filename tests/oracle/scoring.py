"""An episode is scored on the path it takes through the value graph (model.md §6). Nothing here writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oracle.arithmetic import F32, F64, dot1, normalise, ramp
from oracle.memory import Activation, State

MIN_PAIRS = 32


def prediction(state: State, before: Activation, P: dict[int, float] | None = None) -> F32 | None:
    """μ = normalise(Σ_i φ_i Σ_j P_ij k_j): weights per j in float64, then ascending j in float32. None without any.

    With `P` every row is replaced by that one row (an ablation).
    """
    weights: dict[int, float] = {}
    for i, phi in before.phi.items():
        for j, p in state.P(i) if P is None else P.items():
            if j != i:
                weights[j] = weights.get(j, 0.0) + phi * p
    mu = np.zeros(state.settings.dim, np.float32)
    for j in sorted(weights):
        mu = mu + np.float32(weights[j]) * state.memories[j].key
    return normalise(mu) if np.any(mu) else None


def edge_range(state: State) -> tuple[float, float]:
    """e_lo: the median for unrelated steps; e_hi: the 0.90 quantile of true successions; from 32 pairs on."""
    if min(state.true.counts.sum(), state.unrelated.counts.sum()) < MIN_PAIRS:
        return state.settings.e_lo, state.settings.e_hi
    low, high = state.unrelated.quantile(0.5), state.true.quantile(0.9)
    return low, (high if high - low >= 0.01 else low + 0.01)


class Habituation:
    """h_i = 1/(1 + η·uses_i), uses_i = Σ over the last M recorded episodes of max_t φ_i(x_t)."""

    def __init__(self, episodes: int = 64, eta: float = 1.0) -> None:
        self.eta = eta
        self.recent: deque[dict[int, float]] = deque(maxlen=episodes)

    def record(self, scores: Scores) -> None:
        """Add the scored steps of every episode of `scores` (φ as it was returned, in float32)."""
        for start, end, context in scores.spans:
            used: dict[int, float] = {}
            for t in range(start + context, end):
                for i, phi in scores.activations[t].phi.items():
                    used[i] = max(used.get(i, 0.0), float(np.float32(phi)))
            self.recent.append(used)

    def h(self, i: int) -> float:
        """The share that memory i still pays."""
        uses = 0.0
        for used in self.recent:
            uses += used.get(i, 0.0)
        return 1.0 / (1.0 + self.eta * uses)


@dataclass
class Paid:
    """What one memory paid at one step."""

    id: int
    phi: float
    gain: float  # the part of φ not yet shown in the episode
    advantage: float
    pay: float
    channels: F64  # the pay, by channel
    terminal: bool


@dataclass
class Explanation:
    """Why a step was paid."""

    step: int
    pay: float
    support: float
    edge: float
    redundancy: float
    memories: list[Paid]
    channels: F64
    associations: dict[tuple[int, int], tuple[float, float]]  # (i, j): φ_i(x_{t−1})·P_ij and ⟨k_j, x_t⟩


@dataclass
class Scores:
    """Per episode the total; per step pay, σ, E, H and the activation."""

    total: F64
    step: F64
    support: F64
    edge: F64
    redundancy: F64
    activations: list[Activation]
    paid: list[list[Paid]]
    spans: list[tuple[int, int, int]]  # (start, end, context) of each episode
    x: list[F32]  # the steps, normalised


@dataclass
class Path:
    """A way through the associations, toward value."""

    ids: list[int]
    score: float
    values: list[float] = field(default_factory=list)


@dataclass
class Ablation:
    """What a view has in place of the learned quantities."""

    values: F32 | None = None
    baseline: F32 | None = None
    constant_transitions: bool = False
    fade: float | None = None


class View:
    """The scoring methods of a store, over a state."""

    def __init__(self, state: State, ablation: Ablation | None = None) -> None:
        self.state = state
        self.ablation = ablation or Ablation()

    # ------------------------------------------------------------------ reading

    def search(self, queries: Any, k: int = 16) -> tuple[np.ndarray, np.ndarray]:
        """Exact top-k by inner product, ties by lower id; padded with −1 and −∞."""
        ids = np.full((len(queries), k), -1, np.int64)
        sims = np.full((len(queries), k), -np.inf, np.float32)
        for row, query in enumerate(queries):
            for place, (i, s) in enumerate(self.state.nearest(normalise(query), k)):
                ids[row, place], sims[row, place] = i, s
        return ids, sims

    def value(self, queries: Any, **how: Any) -> tuple[F64, F64]:
        """Φ (B, Q) and σ (B,). `how` is for `State.activation`."""
        activations = [self.state.activation(normalise(query), **how) for query in queries]
        Phi = [self._Phi(a, lambda i: 1.0) for a in activations]
        return (
            np.array(Phi).reshape(len(activations), len(self.state.channels)),
            np.array([a.sigma for a in activations]),
        )

    # ------------------------------------------------------------------ scoring

    def score(
        self,
        steps: Any,
        offsets: Sequence[int] | None = None,
        *,
        weights: Any = None,
        functional: str = "coverage",
        context: Any = True,
        habituation: Habituation | None = None,
        discount: float = 1.0,
    ) -> Scores:
        """Each episode on its own; the leading `context` steps set the levels and earn nothing."""
        bounds = [0, len(steps)] if offsets is None else [int(o) for o in offsets]
        episodes = len(bounds) - 1
        contexts = np.broadcast_to(np.asarray(context, np.int64), (episodes,))
        spans = [(bounds[e], bounds[e + 1], min(int(contexts[e]), bounds[e + 1] - bounds[e])) for e in range(episodes)]
        Q = len(self.state.channels)
        w = np.full(Q, 1.0 / Q if Q else 0.0) if weights is None else np.asarray(weights, np.float64)
        x = [normalise(row) for row in steps]
        n = len(x)
        s = Scores(
            total=np.zeros(episodes),
            step=np.zeros(n),
            support=np.zeros(n),
            edge=np.zeros(n),
            redundancy=np.ones(n),
            activations=[self.state.activation(row) for row in x],
            paid=[[] for _ in range(n)],
            spans=spans,
            x=x,
        )
        s.support[:] = [a.sigma for a in s.activations]
        h = habituation.h if habituation else lambda i: 1.0
        for e, (start, end, c) in enumerate(spans):
            self._gates(s, x, start, end, c)
            pay = {
                "coverage": self._coverage,
                "progress": self._progress,
                "potential": self._potential,
                "mean": self._mean,
            }[functional]
            pay(s, start, end, c, w, h, discount)
            total = 0.0
            for t in range(start, end):
                total += s.step[t]
            s.total[e] = total
        return s

    def _gates(self, s: Scores, x: list[F32], start: int, end: int, c: int) -> None:
        """Edge support and redundancy of the scored steps.

        E_t = clip((⟨μ_t, x_t⟩ − e_lo)/(e_hi − e_lo), 0, 1)                           0 without a prediction
        H_t = clip((d_hi − max_{context ≤ u < t} ⟨x_u, x_t⟩)/(d_hi − d_lo), 0, 1)     1 at the first scored step
        """
        settings = self.state.settings
        e_lo, e_hi = edge_range(self.state)
        row = self._constant_row() if self.ablation.constant_transitions else None
        for t in range(start + c, end):
            mu = prediction(self.state, s.activations[t - 1], row) if t > start else None
            s.edge[t] = 0.0 if mu is None else ramp(dot1(mu, x[t]), e_lo, e_hi)
            nearest = max((dot1(x[u], x[t]) for u in range(start + c, t)), default=None)
            if nearest is not None:
                s.redundancy[t] = min(max((settings.d_hi - nearest) / (settings.d_hi - settings.d_lo), 0.0), 1.0)

    def _gate(self, s: Scores, t: int) -> float:
        """G_t = min(1, σ/σ_0)·(ρ + (1 − ρ)·E_t)·H_t."""
        c = self.state.settings
        return min(1.0, s.support[t] / c.sigma_0) * (c.rho + (1.0 - c.rho) * s.edge[t]) * s.redundancy[t]

    def _coverage(self, s: Scores, start: int, end: int, c: int, w: F64, h: Any, _: float) -> None:
        """r_t = G_t·Σ_{i not a terminal, A_i ≥ 0} [φ_i(x_t) − max_{u<t} φ_i(x_u)]⁺·h_i·Σ_q fade_q(x_t)·w_q a_iq

        + Σ_{A_i < 0} φ_i(x_t)·A_i, with the advantage a_iq = [v_iq − b_q]⁺ and A_i = Σ_q w_q a_iq.
        The prompt sets levels too.
        """
        level: dict[int, float] = {}
        for t in range(start, end):
            if t >= start + c:
                gate, fade = self._gate(s, t), self._fade(s.x[t], w)
                for i, phi in s.activations[t].phi.items():
                    a = np.maximum(self._v(i) - self._b(), 0.0)
                    advantage = float(np.sum(w * a))
                    terminal = self.state.memories[i].terminal is not None
                    gain = max(phi - level.get(i, 0.0), 0.0)
                    share = np.full(len(w), phi)
                    if advantage >= 0:
                        share = np.zeros(len(w)) if terminal else gate * gain * h(i) * fade
                    channels = share * (w * a)
                    s.paid[t].append(Paid(i, phi, gain, advantage, float(np.sum(channels)), channels, terminal))
                s.step[t] = sum(p.pay for p in s.paid[t])
            for i, phi in s.activations[t].phi.items():
                level[i] = max(level.get(i, 0.0), phi)

    def _fade(self, x: F32, w: F64) -> F64:
        """fade_q = 1 − f·r_q(x) where w_q > 0: a step that satisfies q itself is no means to it. 1 for scalars."""
        f = self.state.settings.fade if self.ablation.fade is None else self.ablation.fade
        r = [
            0.0
            if c.terminal is None or weight <= 0
            else ramp(dot1(x, self.state.memories[c.terminal].key), c.low, c.high) ** 2
            for c, weight in zip(self.state.channels, w, strict=True)
        ]
        return 1.0 - f * np.array(r, np.float64)

    def _progress(self, s: Scores, start: int, end: int, c: int, w: F64, h: Any, _: float) -> None:
        """r_t = G_t·Σ_q w_q (B_q(t) − B_q(t−1)), B_q(t) = max(B_q(t−1), Φ_q(x_t)) from 0, raised by the prompt too."""
        B = np.zeros(len(w))
        for t in range(start, end):
            raised = np.maximum(B, self._Phi(s.activations[t], h))
            if t >= start + c:
                s.step[t] = self._gate(s, t) * float(np.sum(w * (raised - B)))
            B = raised

    def _potential(self, s: Scores, start: int, end: int, c: int, w: F64, h: Any, discount: float) -> None:
        """γ'Φ(x_{t+1}) − Φ(x_t) from each state to the next, Φ = 0 after the last.

        Without a prompt step t leaves the state x_t. With one, step t is the action that left x_{t−1}.
        """
        Phi = [float(np.sum(w * self._Phi(a, h))) for a in s.activations[start:end]] + [0.0]
        length = end - start
        for t in range(c, length):
            if c == 0:
                s.step[start + t] = discount * Phi[t + 1] - Phi[t]
            else:
                last = t == length - 1
                s.step[start + t] = discount * (0.0 if last else Phi[t]) - Phi[t - 1]

    def _mean(self, s: Scores, start: int, end: int, c: int, w: F64, h: Any, _: float) -> None:
        """Φ(x_t)/n over the n scored steps."""
        for t in range(start + c, end):
            s.step[t] = float(np.sum(w * self._Phi(s.activations[t], h))) / (end - start - c)

    # ------------------------------------------------------------------ what paid, and where to go

    def explain(self, steps: Any, **score_kwargs: Any) -> list[Explanation]:
        """Per step, the memories and channels that paid under coverage, and the associations that led there."""
        s = self.score(steps, **score_kwargs)

        def led(t: int) -> dict[tuple[int, int], tuple[float, float]]:
            before = s.activations[t - 1].phi if t else {}
            keys, x = self.state.memories, normalise(steps[t])
            return {(i, j): (phi * p, dot1(keys[j].key, x)) for i, phi in before.items() for j, p in self.state.P(i)}

        return [
            Explanation(
                t,
                s.step[t],
                s.support[t],
                s.edge[t],
                s.redundancy[t],
                s.paid[t],
                sum((p.channels for p in s.paid[t]), np.zeros(len(self.state.channels))),
                led(t),
            )
            for t in range(len(s.step))
        ]

    def recall(
        self,
        query: Any,
        depth: int = 8,
        beams: int = 4,
        weights: Any = None,
        cleanup: int = 0,
        distinct: bool = False,
        **how: Any,
    ) -> list[Path]:
        """Iterative retrieval: beam search for the paths with the largest φ(start)·Π(γP)·(w·v of the end).

        A path is complete when stopping is at least as good as going on (w·r ≥ γ·Σ_j P_ij w·v_j), when its end has no
        successor off the path, or at `depth` memories. Before, x ← normalise(Σ_i φ_i k_i) `cleanup` times, by falling s
        in float32. With `distinct`, of the complete paths the best to each end.
        """
        state, gamma = self.state, self.state.settings.gamma
        Q = len(state.channels)
        w = np.full(Q, 1.0 / Q if Q else 0.0) if weights is None else np.asarray(weights, np.float64)

        def worth(i: int) -> float:
            return float(np.sum(w * self._v(i)))

        def best(paths: list[tuple[list[int], float]]) -> list[tuple[list[int], float]]:
            return sorted(paths, key=lambda path: (-path[1] * worth(path[0][-1]), path[0]))[:beams]

        x = normalise(query)
        for _ in range(cleanup):
            total = np.zeros(state.settings.dim, np.float32)
            for i, phi in state.activation(x, **how).phi.items():
                total = total + np.float32(phi) * state.memories[i].key
            x = normalise(total) if np.any(total) else x
        going = best([([i], phi) for i, phi in state.activation(x, **how).phi.items()])
        complete: list[tuple[list[int], float]] = []
        for _ in range(depth):
            following = []
            for ids, reach in going:
                end = ids[-1]
                on = [(j, p) for j, p in state.P(end) if j not in ids]
                ahead = sum(gamma * p * worth(j) for j, p in state.P(end))
                if not on or len(ids) >= depth or float(np.sum(w * state.drives(end))) >= ahead:
                    complete.append((ids, reach))
                else:
                    following += [([*ids, j], reach * gamma * p) for j, p in on]
            going = best(following)
        if distinct:
            ranked = sorted(complete, key=lambda path: (-path[1] * worth(path[0][-1]), path[0]))
            complete = list({path[0][-1]: path for path in reversed(ranked)}.values())
        return [Path(ids, reach * worth(ids[-1]), [worth(i) for i in ids]) for ids, reach in best(complete)]

    def associate(
        self, query: Any, steps: int = 8, damping: float = 0.85, k: int = 16, seeds: int | None = None, **how: Any
    ) -> dict[int, float]:
        """Spreading activation: a ← φ(x), then `steps` times a_j ← (1 − damping)·φ_j(x) + damping·Σ_i a_i P_ij.

        By falling a, then id; at most k. The sum runs from φ_j on by ascending i.
        """
        state = self.state
        phi = state.activation(normalise(query), k=seeds, **how).phi
        where = how.get("where")
        a = dict(sorted(phi.items()))
        for _ in range(steps):
            following = {i: (1.0 - damping) * p for i, p in sorted(phi.items()) if (1.0 - damping) * p > 0}
            for i in sorted(a):
                for j, p in state.P(i):
                    if damping * a[i] * p > 0:
                        following[j] = following.get(j, 0.0) + damping * a[i] * p
            a = following
        found = [(i, weight) for i, weight in a.items() if where is None or i in where]
        return dict(sorted(found, key=lambda item: (-item[1], item[0]))[:k])

    # ------------------------------------------------------------------ learned quantities, or their ablations

    def _v(self, i: int) -> F64:
        if self.ablation.values is not None:
            return self.ablation.values[list(self.state.memories).index(i)].astype(np.float64)
        return self.state.memories[i].value.astype(np.float64)

    def _b(self) -> F64:
        b = self.state.b if self.ablation.baseline is None else self.ablation.baseline
        return np.asarray(b, np.float32).astype(np.float64)

    def _Phi(self, activation: Activation, h: Any) -> F64:
        """Φ_q(x) = Σ_i φ_i(x) v_iq h_i, by falling s."""
        total = np.zeros(len(self.state.channels))
        for i, phi in activation.phi.items():
            total = total + phi * (self._v(i) * h(i))
        return total

    def _constant_row(self) -> dict[int, float]:
        """The mean row, each row weighted by its mass: Σ_i C_ij / Σ_i n_i, its `max_out` largest entries."""
        mass, row = 0.0, dict[int, float]()
        for i, memory in self.state.memories.items():
            mass += memory.mass
            for j, c in self.state.C.get(i, {}).items():
                row[j] = row.get(j, 0.0) + c
        kept = sorted(row, key=lambda j: (-row[j], j))[: self.state.settings.max_out]
        return {j: row[j] / mass for j in sorted(kept)}
