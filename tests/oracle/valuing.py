"""The two value equations and the orders in which replay applies them (model.md §5)."""

from __future__ import annotations

import numpy as np

from oracle.arithmetic import F32, median
from oracle.memory import State

BLOCK = 1024
HORIZON = 64  # most places of a backup of several steps
LEAST, SHARE = 4096, 32  # associations of queued memories from which sweeps are cheaper than pushes


def backup(state: State, i: int) -> F32:
    """One application of the value equation to memory i, rounded to float32 once.

    stopping   v_iq = max(r_iq, γ·Σ_j P_ij v_jq)
    return     v_iq = r_iq + γ·Σ_j P_ij v_jq
    """
    r = state.drives(i)
    ahead = np.zeros(len(r))
    for j, p in state.P(i):
        ahead = ahead + p * state.memories[j].value.astype(np.float64)
    ahead = state.settings.gamma * ahead
    v = np.maximum(r, ahead) if state.settings.equation == "stopping" else r + ahead
    return v.astype(np.float32)


def delta(state: State, i: int) -> float:
    """max_q |Δv_iq|: how far a backup would move memory i. 0 if it is not dirty."""
    memory = state.memories[i]
    if not memory.dirty or not len(memory.value):
        return 0.0
    return float(np.max(np.abs(backup(state, i).astype(np.float64) - memory.value.astype(np.float64))))


def bound(state: State) -> float:
    """max_i delta_i / (1 − γ): no value is further than this from the fixed point."""
    return max((delta(state, i) for i in state.memories), default=0.0) / (1.0 - state.settings.gamma)


def need(state: State, how: str | list[int]) -> dict[int, float]:
    """How much a memory matters: uniform, by frequency, or from given starts (a row of the successor representation).

    frequency  (1 + n_i)/Σ(1 + n)
    starts     Σ_t (γPᵀ)^t start, until less than 1e-9 of mass is added, 1000 rounds at most
    """
    ids = list(state.memories)
    if how == "uniform":
        return dict.fromkeys(ids, 1.0)
    if how == "frequency":
        total = 0.0
        for i in ids:
            total += 1.0 + state.memories[i].mass
        return {i: (1.0 + state.memories[i].mass) / total for i in ids}
    assert not isinstance(how, str)
    wave = dict.fromkeys(ids, 0.0)
    for i in how:
        wave[i] += 1.0 / len(how)
    result = dict(wave)
    for _ in range(1000):
        following = dict.fromkeys(ids, 0.0)
        for i in ids:
            for j, p in state.P(i):
                following[j] += state.settings.gamma * p * wave[i]
        wave = following
        for i in ids:
            result[i] += wave[i]
        if sum(wave.values()) < 1e-9:
            break
    return result


def sleep(
    state: State,
    budget: int | None,
    tol: float,
    order: str,
    how: str | list[int],
    floor: float = 0.0,
    extend: bool = False,
    trail: list[int] | None = None,
) -> int:
    """Back up dirty memories until `bound` ≤ tol or the budget of backups is spent; return how many were made."""
    limit = float("inf") if budget is None else budget
    if floor or extend:
        return ahead(state, limit, tol, need(state, how), floor, extend, [] if trail is None else trail)
    sweep = {"prioritized": prioritized, "reverse": reverse, "full": full}[order]
    return sweep(state, limit, tol, need(state, how))


def prioritized(state: State, limit: float, tol: float, needs: dict[int, float]) -> int:
    """The largest need·delta first, ties by lower id, among those with delta > tol·(1 − γ).

    Once the queued memories have more associations than LEAST, and than one in SHARE of all: sweeps from there on.
    """
    backups = 0
    many = max(LEAST, sum(len(row) for row in state.C.values()) // SHARE)
    while backups < limit:
        deltas = {i: delta(state, i) for i in state.memories}
        queue = [i for i in deltas if deltas[i] > tol * (1.0 - state.settings.gamma)]
        if not queue:
            break
        if sum(len(state.C.get(i, {})) for i in queue) > many:
            return backups + full(state, limit - backups, tol, needs)
        first = min(queue, key=lambda i: (-needs[i] * deltas[i], i))
        state.set_value(first, backup(state, first))
        backups += 1
    return backups


def ahead(
    state: State, limit: float, tol: float, needs: dict[int, float], floor: float, extend: bool, trail: list[int]
) -> int:
    """Prioritized replay with a floor under every gain, and with the last backup continued by what comes next.

    counted(δ)   max(δ, floor) if δ > tol·(1 − γ), else floor
    one memory   need·counted(δ): owed, or with successors and worth more than 0
    sequence     Σ need·counted(δ) over its places, backed up from the last to the first; made if worth more than one
    """
    threshold = tol * (1.0 - state.settings.gamma)
    last: list[int] = []
    while len(trail) < limit:
        deltas = {i: delta(state, i) for i in state.memories}
        worth = {i: needs[i] * (max(d, floor) if d > threshold else floor) for i, d in deltas.items()}
        queue = [i for i in worth if deltas[i] > threshold or (worth[i] > 0 and state.C.get(i))]
        if not queue:
            break
        first = min(queue, key=lambda i: (-worth[i], i))
        after = following(state, last) if extend else None
        if after is not None and tried(state, [*last, after], threshold, needs, floor) > worth[first]:
            last = [*last, after]
        else:
            last = [first]
        for i in reversed(last):
            state.set_value(i, backup(state, i))
        trail.append(last[-1])
    return len(trail)


def following(state: State, sequence: list[int]) -> int | None:
    """The most likely successor of the last place, ties to the lower id; unless it is an end, or was there."""
    row = list(state.P(sequence[-1])) if 0 < len(sequence) < HORIZON else []
    after = max(row, key=lambda edge: (edge[1], -edge[0]), default=(None, 0.0))[0]
    return None if after in sequence or not state.C.get(after if after is not None else -1) else after


def tried(state: State, sequence: list[int], threshold: float, needs: dict[int, float], floor: float) -> float:
    """What the sequence is worth, by backing it up and taking that back."""
    before = {i: state.memories[i].value for i in sequence}
    worth = 0.0
    for i in reversed(sequence):
        value = backup(state, i)
        gain = max(np.abs(value.astype(np.float64) - state.memories[i].value.astype(np.float64)), default=0.0)
        worth += needs[i] * (max(float(gain), floor) if gain > threshold else floor)
        state.memories[i].value = value
    for i in sequence:
        state.memories[i].value = before[i]
    return worth


def reverse(state: State, limit: float, tol: float, needs: dict[int, float]) -> int:
    """Passes over the dirty memories from the newest to the oldest."""
    backups = 0
    while bound(state) > tol and backups < limit:
        for i in sorted(state.memories, reverse=True):
            if state.memories[i].dirty and backups < limit:
                state.set_value(i, backup(state, i))
                backups += 1
    return backups


def full(state: State, limit: float, tol: float, needs: dict[int, float]) -> int:
    """Sweeps over all memories with successors, by ascending id: Jacobi within a block of 1024, blocks in order."""
    backups = 0
    while bound(state) > tol and backups < limit:
        ids = [i for i in state.memories if state.C.get(i)]
        for start in range(0, len(ids), BLOCK):
            block = ids[start : start + BLOCK]
            if backups + len(block) > limit:
                block = block[: int(limit) - backups]
            new = {i: backup(state, i) for i in block}
            for i in block:
                state.memories[i].dirty = False
            was_dirty: set[int] = set()
            for i in block:
                if state.set_value(i, new[i]):
                    was_dirty.update(state.predecessors(i))
            for i in was_dirty:
                state.memories[i].dirty = True
            backups += len(block)
    return backups


def set_baseline(state: State) -> None:
    """b_q: the median of v_q over the memories that are not terminals; 0 without any."""
    values = [m.value for m in state.memories.values() if m.terminal is None]
    for q in range(len(state.channels)):
        state.b[q] = median(np.array([v[q] for v in values], np.float32))
