"""What a store knows (model.md §1 and §2).

τ, the ranges of channels and the drives are kept in float32, as keys and values are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oracle.arithmetic import F32, F64, Histogram, dot, dot1, kappa, ramp


@dataclass(frozen=True)
class Settings:
    """Every number of the model. The names are those of `sharpwave.Config`; here ε may be 0."""

    dim: int
    k: int = 16
    tau: float = 0.2
    power: int = 2
    epsilon: float = 0.02
    gamma: float = 0.7
    trace: float = 0.0
    trace_size: int = 64
    max_out: int = 32
    min_novelty: float = 0.9
    merge_cosine: float | None = None
    min_worth: float = 0.0
    w_novelty: float = 1.0
    w_surprise: float = 0.0
    w_drive: float = 0.0
    rho: float = 0.2
    fade: float = 1.0
    sigma_0: float = 0.02
    equation: str = "stopping"
    capacity: int | None = None
    half_life: int = 1024
    e_lo: float = 0.1
    e_hi: float = 0.6
    d_lo: float = 0.52
    d_hi: float = 0.79
    keep_episodes: bool = True


@dataclass(frozen=True)
class Channel:
    """One terminal value: an embedding to approach (`terminal` is its memory's id) or a scalar source of reward."""

    name: str
    low: float
    high: float
    terminal: int | None = None


@dataclass
class Memory:
    """One stored step, or a merge of near-duplicates."""

    key: F32
    value: F32  # v_iq
    m: int  # steps merged
    written: int  # the clock when it was last created or merged into
    text: str | None = None
    terminal: str | None = None  # the channel it is the terminal of
    mass: float = 0.0  # n_i, the association mass
    sums: dict[str, float] = field(default_factory=dict)  # per scalar channel: sum of the drives observed here
    counts: dict[str, int] = field(default_factory=dict)  # c_iq, how many those were
    provenance: list[tuple[int, int]] = field(default_factory=list)  # (operation, step) of everything merged
    dirty: bool = False  # a backup may change its value


@dataclass
class Activation:
    """φ(x): the active ones of the k nearest memories, by falling cosine; σ(x)."""

    phi: dict[int, float]
    sigma: float

    def get(self, i: int) -> float:
        """φ_i(x), 0 where memory i is silent."""
        return self.phi.get(i, 0.0)


class State:
    """Memories, the sums of their associations, channels, and the counters that make operations reproducible."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.memories: dict[int, Memory] = {}  # by ascending id
        self.C: dict[int, dict[int, float]] = {}  # C[i][j] > 0: i was followed by j
        self.channels: list[Channel] = []
        self.b = np.zeros(0, np.float32)  # b_q, what the ordinary memory is worth
        self.sample: F32 | None = None  # of calibration
        self.true, self.unrelated, self.pairs = Histogram(), Histogram(), 0
        self.next_id = 0
        self.clock = 0  # episodes observed

    # ------------------------------------------------------------------ nearest memories

    def nearest(self, x: F32, k: int) -> list[tuple[int, float]]:
        """(id, s_i) of the k memories with the largest s_i = ⟨x, k_i⟩, ties by lower id."""
        if not self.memories:
            return []
        ids = list(self.memories)
        s = dot(x, np.stack([memory.key for memory in self.memories.values()]))
        order = np.argsort(-s, kind="stable")[:k]
        return [(ids[o], float(s[o])) for o in order]

    def activation(
        self,
        x: F32,
        k: int | None = None,
        power: int | None = None,
        tau: float | None = None,
        where: Collection[int] | None = None,
    ) -> Activation:
        """φ_i = κ_i / (ε + Σ_j κ_j) over the k nearest, the sum by falling s; σ = max_i κ_i.

        A reader may ask with other numbers than the store learned with, and of some memories alone.
        """
        c = self.settings
        tau = float(np.float32(c.tau if tau is None else tau))
        nearest = [(i, s) for i, s in self.nearest(x, len(self.memories)) if where is None or i in where]
        kappas = {i: kappa(s, tau, power or c.power) for i, s in nearest[: k or c.k]}
        total = 0.0
        for value in kappas.values():
            total += value
        phi = {i: value / (c.epsilon + total) for i, value in kappas.items() if value > 0}
        return Activation(phi, max(kappas.values(), default=0.0))

    def Phi(self, activation: Activation) -> F64:
        """Φ_q(x) = Σ_i φ_i(x) v_iq, by falling s."""
        total = np.zeros(len(self.channels))
        for i, phi in activation.phi.items():
            total = total + phi * self.memories[i].value.astype(np.float64)
        return total

    # ------------------------------------------------------------------ drives

    def embedding_drive(self, x: F32, channel: Channel) -> float:
        """clip((⟨x, terminal⟩ − low)/(high − low), 0, 1)²: derived from the key, never stored."""
        assert channel.terminal is not None
        low, high = float(np.float32(channel.low)), float(np.float32(channel.high))
        share = ramp(dot1(x, self.memories[channel.terminal].key), low, high)
        return float(np.float32(share * share))

    def drives(self, i: int) -> F64:
        """r_iq: the embedding drive of the key, or the mean of the scalars observed at the memory (none: 0)."""
        memory = self.memories[i]
        r = np.zeros(len(self.channels))
        for q, channel in enumerate(self.channels):
            if channel.terminal is not None:
                r[q] = self.embedding_drive(memory.key, channel)
            elif memory.counts.get(channel.name):
                r[q] = np.float32(memory.sums[channel.name] / memory.counts[channel.name])
        return r

    def step_drives(self, x: F32, observed: dict[str, float]) -> F64:
        """r_q of a step that is not a memory: as `drives`, from the step's own scalars."""
        return np.array(
            [
                self.embedding_drive(x, channel) if channel.terminal is not None else observed.get(channel.name, 0.0)
                for channel in self.channels
            ]
        )

    # ------------------------------------------------------------------ the graph

    def P(self, i: int) -> Iterator[tuple[int, float]]:
        """(j, P_ij = C_ij / n_i) by ascending j."""
        row = self.C.get(i, {})
        return ((j, row[j] / self.memories[i].mass) for j in sorted(row))

    def predecessors(self, j: int) -> list[int]:
        """Every i with C_ij > 0."""
        return [i for i, row in self.C.items() if j in row]

    def changed(self, ids: Iterable[int]) -> None:
        """The row, mass or drive of these memories changed.

        Without successors v_i = r_i at once; otherwise the memory is dirty until its next backup.
        """
        for i in ids:
            if self.C.get(i):
                self.memories[i].dirty = True
            else:
                self.set_value(i, self.drives(i).astype(np.float32))

    def set_value(self, i: int, value: F32) -> bool:
        """v_i := value, clean from now on; a change makes every predecessor dirty."""
        memory = self.memories[i]
        moved = not np.array_equal(memory.value, value)
        memory.value, memory.dirty = value, False
        if moved:
            for j in self.predecessors(i):
                self.memories[j].dirty = True
        return moved

    def add(self, memory: Memory) -> int:
        """Give a memory the next id and its drive as its value."""
        i, self.next_id = self.next_id, self.next_id + 1
        self.memories[i] = memory
        memory.value = self.drives(i).astype(np.float32)
        return i

    def forget(self, i: int) -> None:
        """Remove a memory with its row and column of sums; nothing is renormalised."""
        before = self.predecessors(i)
        self.C.pop(i, None)
        del self.memories[i]
        for j in before:
            if j != i:
                del self.C[j][i]
        self.changed(j for j in before if j != i)

    # ------------------------------------------------------------------ columns, by ascending id

    def column(self, name: str, dtype: Any) -> Any:
        """One attribute of every memory."""
        return np.array([getattr(memory, name) for memory in self.memories.values()], dtype)
