"""An episode is written in four phases: gate, associate, evict, awake replay (model.md §3 and §4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from oracle.arithmetic import F32, dot1, normalise, splitmix64
from oracle.memory import Activation, Memory, State
from oracle.scoring import prediction
from oracle.valuing import backup


@dataclass(frozen=True)
class Episode:
    """Raw steps with what was observed at them. `steps[t]` is None where `veto` has cut a hole."""

    id: int
    proposed: bool
    steps: list[F32 | None]
    drives: list[dict[str, float]]  # per step, per scalar channel; what was not observed is missing
    texts: list[str | None]

    def without(self, steps: set[int]) -> Episode:
        """The episode with holes in place of these steps."""
        return replace(self, steps=[None if t in steps else x for t, x in enumerate(self.steps)])

    def segments(self) -> list[list[int]]:
        """The runs of steps between holes: no transition, surprise or prediction crosses a hole."""
        runs: list[list[int]] = [[]]
        for t, x in enumerate(self.steps):
            if x is not None:
                runs[-1].append(t)
            elif runs[-1]:
                runs.append([])
        return [run for run in runs if run]


@dataclass
class Written:
    """What became of an episode's steps."""

    memory_ids: list[int]
    outcome: list[str]
    backups: int


def write(state: State, episode: Episode, operation: int) -> Written:
    """Gate, associate, evict, awake replay."""
    x = {t: normalise(row) for t, row in enumerate(episode.steps) if row is not None}
    segments = episode.segments()
    measure_edges(state, x, segments)
    written = gate(state, episode, x, segments, operation)
    phi = {t: state.activation(x[t]) for t in x}
    associate(state, phi, segments)
    evict(state)
    written.backups = awake(state, phi)
    state.clock += 1
    return written


def measure_edges(state: State, x: dict[int, F32], segments: list[list[int]]) -> None:
    """⟨μ_t, x_t⟩ of each true succession and of a pseudo-random other memory, predicted before the write (§6)."""
    ordinary = [m.key for m in state.memories.values() if m.terminal is None]
    for run in segments:
        for t, u in zip(run[1:], run, strict=False):
            mu = prediction(state, state.activation(x[u]))
            if mu is None:
                continue
            if ordinary:
                state.unrelated.add(dot1(mu, ordinary[splitmix64(state.pairs) % len(ordinary)]))
            state.true.add(dot1(mu, x[t]))
            state.pairs += 1


def gate(state: State, episode: Episode, x: dict[int, F32], segments: list[list[int]], operation: int) -> Written:
    """worth = w_n·novelty + w_s·surprise + w_d·max_q r_q, novelty = 1 − σ.

    Known (novelty < ν, or the cosine of the nearest above the merge cosine, if there is one): merged into the nearest.
    Else, and worth ≥ θ: a new memory. Otherwise dropped.
    A step sees the memories admitted and the keys moved before it; surprise sees the store before the episode.
    """
    c = state.settings
    surprises = surprise(state, episode, x, segments)
    ids, outcome = [-1] * len(episode.steps), ["dropped"] * len(episode.steps)
    for t in x:
        sigma = state.activation(x[t]).sigma
        novelty = 1.0 - sigma
        drive = max(state.step_drives(x[t], episode.drives[t]), default=0.0)
        worth = c.w_novelty * novelty + c.w_surprise * surprises[t] + c.w_drive * drive
        known = novelty < c.min_novelty
        if c.merge_cosine is not None:
            known = sigma > 0.0 and state.nearest(x[t], 1)[0][1] > np.float32(c.merge_cosine)
        if not known and worth >= c.min_worth:
            memory = Memory(
                key=x[t],
                value=np.zeros(0, np.float32),
                m=1,
                written=state.clock,
                text=episode.texts[t],
                provenance=[(operation, t)],
            )
            observe_drives(memory, episode.drives[t])
            ids[t], outcome[t] = state.add(memory), "new"
        elif known:
            i = state.nearest(x[t], 1)[0][0]
            merge(state, i, x[t], episode.drives[t])
            state.memories[i].provenance.append((operation, t))
            ids[t], outcome[t] = i, "merged"
    return Written(ids, outcome, 0)


def surprise(state: State, episode: Episode, x: dict[int, F32], segments: list[list[int]]) -> dict[int, float]:
    """Σ_q |target_q − Φ_q(x_t)|, target = max(r, γΦ(x_{t+1})) or r + γΦ(x_{t+1}); r before a hole and at the end."""
    Phi = {t: state.Phi(state.activation(x[t])) for t in x}
    result = {}
    for run in segments:
        for t in run:
            target = state.step_drives(x[t], episode.drives[t])
            if t != run[-1]:
                ahead = state.settings.gamma * Phi[t + 1]
                stopping = state.settings.equation == "stopping"
                target = np.maximum(target, ahead) if stopping else target + ahead
            result[t] = float(sum(abs(target - Phi[t])))
    return result


def observe_drives(memory: Memory, observed: dict[str, float]) -> None:
    """Scalar drives are a sum and a count of what was observed at the memory."""
    for name, drive in observed.items():
        memory.sums[name] = memory.sums.get(name, 0.0) + drive
        memory.counts[name] = memory.counts.get(name, 0) + 1


def merge(state: State, i: int, x: F32, observed: dict[str, float]) -> None:
    """m_i += 1; Oja's rule k ← normalise(k + (x − ⟨x,k⟩k)/m_i), in float32. A terminal's key never moves."""
    memory = state.memories[i]
    before = state.drives(i)
    memory.m += 1
    memory.written = state.clock
    if memory.terminal is None:
        s = np.float32(dot1(x, memory.key))
        memory.key = normalise(memory.key + (x - s * memory.key) / np.float32(memory.m))
    observe_drives(memory, observed)
    if not np.array_equal(before, state.drives(i)):
        state.changed([i])


def associate(state: State, phi: dict[int, Activation], segments: list[list[int]]) -> None:
    """Hebb's rule with an eligibility trace, reset at every episode and hole.

        e ← γλ·e + φ(x_t),  e' ← λ·e' + φ(x_t)     the m_trace largest by e
        C_ij ← C_ij + e_i·φ_j(x_{t+1}) for j ≠ i,  n_i ← n_i + e'_i

    At the end of the episode a touched row keeps its `max_out` largest sums, ties by lower id.
    """
    c = state.settings
    touched: set[int] = set()
    for run in segments:
        e: dict[int, tuple[float, float]] = {}
        for t in run[:-1]:
            e = {i: (c.gamma * c.trace * a, c.trace * b) for i, (a, b) in e.items() if c.trace > 0}
            for i, p in phi[t].phi.items():
                a, b = e.get(i, (0.0, 0.0))
                e[i] = (a + p, b + p)
            e = dict(sorted(e.items(), key=lambda item: (-item[1][0], item[0]))[: c.trace_size])
            for i, (a, b) in e.items():
                touched.add(i)
                state.memories[i].mass += b
                for j, p in phi[t + 1].phi.items():
                    if j != i and a * p > 0:
                        row = state.C.setdefault(i, {})
                        row[j] = row.get(j, 0.0) + a * p
    for i in touched:
        row = state.C.get(i, {})
        kept = sorted(row, key=lambda j: (-row[j], j))[: c.max_out]
        if row:
            state.C[i] = {j: row[j] for j in sorted(kept)}
    state.changed(sorted(touched))


def evict(state: State) -> None:
    """Drop the least retention m_i·2^−⌊age/h⌋ + max_q|v_iq|, ties by higher id, down to capacity. Never a terminal."""
    c = state.settings
    if c.capacity is None:
        return

    def retention(i: int) -> float:
        memory = state.memories[i]
        worth = max((abs(float(v)) for v in memory.value), default=0.0)
        return memory.m * 0.5 ** ((state.clock - memory.written) // c.half_life) + worth

    ordinary = [i for i, memory in state.memories.items() if memory.terminal is None]
    weakest = sorted(ordinary, key=lambda i: (retention(i), -i))
    for i in weakest[: max(0, len(state.memories) - c.capacity)]:
        state.forget(i)


def awake(state: State, phi: dict[int, Activation]) -> int:
    """Back up the episode's memories, last step first, within a step by falling φ, then id; each once, if dirty."""
    met: set[int] = set()
    backups = 0
    for t in sorted(phi, reverse=True):
        for i, _ in sorted(phi[t].phi.items(), key=lambda item: (-item[1], item[0])):
            if i in state.memories and i not in met:
                met.add(i)
                if state.memories[i].dirty:
                    state.set_value(i, backup(state, i))
                    backups += 1
    return backups
