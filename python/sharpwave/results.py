"""What the verbs of a store return: small frozen records of arrays that belong to the caller.

ΣT counts the steps of E episodes laid end to end; episode e is `offsets[e]:offsets[e + 1]`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ObserveReport:
    """What became of each observed step."""

    memory_ids: Ids
    """(ΣT,) the memory that the step became or was merged into; -1 where it was dropped."""
    outcome: NDArray[np.str_]
    """(ΣT,) "new", "merged" or "dropped"; "proposed" where the episode was put aside."""
    episode_ids: Ids
    """(E,) for `veto`."""
    backups: int
    """How many backups the awake replay performed."""

    @property
    def counts(self) -> dict[str, int]:
        """How many steps had each outcome."""
        return {name: int(np.count_nonzero(self.outcome == name)) for name in OUTCOMES}


OUTCOMES = ("new", "merged", "dropped", "proposed")


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a sleep did."""

    backups: int
    """How many backups were performed; those that changed nothing count."""
    swept: int
    """How many of them were made in sweeps over the whole graph."""
    residual: float
    """No value is further than this from the fixed point."""
    converged: bool
    """residual ≤ tol."""
    stopped: Literal["converged", "budget", "seconds", "interrupt", "drift"]
    """Where it stopped: at the tolerance, at one of the budgets, at Ctrl-C, or refused for its drift. What is left
    undone is part of the state, so that the next sleep goes on from there."""
    seconds: float
    """Wall-clock time."""
    observed: int
    """How many proposed episodes were consolidated."""
    refused: bool
    """The consolidation would have moved the store by more than `max_drift`: the proposals are kept aside."""
    drift: float | None
    """How far the consolidation moved (or would have moved) the values of the calibration sample."""
    trail: tuple[int, ...] = ()
    """With `floor` or `extend`: the memory that each backup was of, or that it continued the one before by; of the
    first 2^20."""


@dataclass(frozen=True, slots=True)
class SearchReport:
    """Which way the queries of a search went: it depends on the data and the processor.

    int8 codes with error bounds leave each query some candidates. Where they leave too many, keys are passed over in
    bf16, or in f32 where the processor has no bf16; where that leaves too many, every memory is compared. Where a
    partition's bounds leave out most blocks, the rest is looked into first.
    """

    kernel: str | None
    """The int8 kernel of this processor, as "avx512-vnni"; None without one."""
    blocks: int
    """Queries answered through the blocks of a partition."""
    int8: int
    """Queries answered through int8 codes of all memories."""
    bf16: int
    """Queries answered through a bf16 pass."""
    f32: int
    """Queries answered through an f32 pass."""
    plain: int
    """Queries compared with every memory."""
    probed: int
    """Blocks that were looked into, in all."""
    compared: int
    """How many exact cosines were computed, in all."""
    recall: float
    """The share of the exact k nearest that was found: 1 without `nprobe`, else measured on up to 64 of the queries."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What episodes earn, step by step."""

    total: Floats
    """(E,) what each episode earns: the sum of its steps."""
    step: Floats
    """(ΣT,) r_t, what each step earns."""
    support: Floats
    """(ΣT,) σ: how much the store knows about the step at all."""
    edge: Floats
    """(ΣT,) E: did a known way lead here?"""
    redundancy: Floats
    """(ΣT,) H: 1 for something new in this episode, 0 for the same again."""
    offsets: Ids
    """(E+1,) where each episode begins and the last one ends."""
    context: Ids
    """(E,) how many leading steps of each episode were prompt."""
    ids: Ids | None = None
    """(ΣT, k) the memories that answered, -1 padded; with `details=True`."""
    phi: Floats | None = None
    """(ΣT, k) φ, their activations; with `details=True`."""
    similarity: Floats | None = None
    """(ΣT, k) s, their cosines; with `details=True`."""

    def without(self, others: Ids, functional: str) -> Scores:
        """The same episodes where the steps in the rows `others` are somebody else's turns: context amid an episode.

        They have set the levels and predictions of the steps after them, and earn nothing themselves. Of "mean" the
        scored steps alone are counted. "potential" pays for transitions, and has no meaning without some of them.
        """
        if not len(others):
            return self
        if functional == "potential":
            raise ValueError("potential cannot leave out the turns of others amid an episode: take another functional")
        own = np.ones(len(self.step), bool)
        own[others] = False
        owner = np.repeat(np.arange(len(self.total)), np.diff(self.offsets))
        step = np.where(own, self.step, np.float32(0.0)).astype(np.float64)
        if functional == "mean":
            all_steps = np.diff(self.offsets) - self.context
            left = all_steps - np.bincount(owner[others], minlength=len(all_steps))
            step *= (all_steps / np.maximum(left, 1))[owner]
        total = np.bincount(owner, step, len(self.total)).astype(np.float32)
        ids = None if self.ids is None else np.where(own[:, None], self.ids, -1)
        phi = None if self.phi is None else np.where(own[:, None], self.phi, np.float32(0.0))
        return replace(self, total=total, step=step.astype(np.float32), ids=ids, phi=phi)


class Payment(NamedTuple):
    """What one memory paid for one step."""

    id: int
    phi: float
    """φ_i, how strongly it answered."""
    gain: float
    """The part of φ_i that the episode had not shown yet."""
    advantage: float
    """A_i = Σ_q w_q a_iq, what the whole of it would pay."""
    pay: float
    terminal: bool
    """Terminals absorb activation and pay nothing."""
    text: str | None


class Association(NamedTuple):
    """One association that led to a step."""

    source: int
    target: int
    weight: float
    """φ_source·P, its share of the prediction."""
    agreement: float
    """The cosine of the target's key and the step."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a step earned what it earned."""

    step: int
    """Its row in `steps`."""
    pay: float
    support: float
    edge: float
    redundancy: float
    memories: list[Payment]
    channels: dict[str, float]
    """What the memories paid on behalf of each channel."""
    associations: list[Association]

    def scaled(self, factor: float) -> Explanation:
        """The same step where all pay is `factor` times as much; nobody pays a factor of 0."""
        return replace(
            self,
            pay=self.pay * factor,
            memories=[m._replace(pay=m.pay * factor) for m in self.memories] if factor else [],
            channels={name: pay * factor for name, pay in self.channels.items()},
        )

    def __str__(self) -> str:
        head = (
            f"step {self.step}: pay {self.pay:+.4f} "
            f"(support {self.support:.2f}, edge {self.edge:.2f}, redundancy {self.redundancy:.2f})"
        )
        paid = [
            f"  {m.pay:+.4f}  φ {m.phi:.2f} × {m.advantage:.3f}  {m.id}{' (terminal)' * m.terminal}: {m.text or ''}"
            for m in self.memories
        ]
        led = [
            f"  {a.source} → {a.target}  weight {a.weight:.3f}, agreement {a.agreement:.2f}" for a in self.associations
        ]
        return "\n".join([head, *paid, *led])


def explained_without(steps: list[Explanation], others: Ids, context: int, functional: str) -> list[Explanation]:
    """The steps of one episode where those in the rows `others` earn nothing, as `Scores.without` has it."""
    away = set(others.tolist())
    counted = len(steps) - context
    factor = counted / max(counted - len(away), 1) if functional == "mean" else 1.0
    if not away:
        return steps
    return [step.scaled(0.0 if row in away else factor) for row, step in enumerate(steps)]


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A way along associations toward value."""

    ids: Ids
    """(n,) the memories in order."""
    score: float
    """φ(start)·Π(γP)·(w·v of the end)."""
    values: Floats
    """(n,) their values w·v."""
    texts: list[str | None]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class EpisodeRecord:
    """An episode that a store knows: what `veto` can forget."""

    id: int
    order: int | None = None
    """Its place among the observed episodes, from 0; None for one that is proposed and not yet consolidated."""
    source: str | None = None
    """Where it comes from, as `observe` was told; unknown with `keep_episodes=False`."""
    steps: int | None = None
    """How many steps it has, without those that were vetoed; unknown with `keep_episodes=False`."""
    memories: list[int] = field(default_factory=list)
    """The memories that its steps went into, ascending. A step that was dropped went into none."""


class Origin(NamedTuple):
    """A step that went into a memory."""

    episode: int | None
    """The id of its episode; None for a row that was inserted."""
    insert: int | None
    """Which call of `insert` it came with, from 0; None for a step of an episode."""
    step: int
    """Its position in the episode, or the row of the insert."""


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """What a veto would change, before it is done."""

    memories: tuple[int, int]
    """How many there are, and how many there would be."""
    associations: tuple[int, int]
    """The same of the associations."""
    gone: Ids
    """(G,) the memories that would be no more, ascending."""
    kept: Ids
    """(K,) the others, ascending."""
    renamed: Ids
    """(K,) the id that each of `kept` would have; two may become one."""
    before: Floats
    """(K, Q) the values of `kept`."""
    after: Floats
    """(K, Q) what they would be."""
    digest: str
    """What `digest` of the store would be."""

    def __str__(self) -> str:
        moved = np.abs(np.asarray(self.after, np.float64) - self.before).max(1, initial=0.0)
        values = (
            f"values of {np.count_nonzero(moved)} others move, by {moved.max():.3g} at most"
            if moved.any()
            else ("no value moves")
        )
        return (
            f"{len(self.gone)} of {self.memories[0]} memories go; "
            f"associations: {self.associations[0]} → {self.associations[1]}; {values}"
        )


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening a directory found."""

    operations: int
    """Done again from the journal, after the snapshot."""
    cut: int = 0
    """Bytes of an operation that was never finished (and never acknowledged), cut off the journal's end."""
    cut_at: int | None = None
    """The byte of the journal where they began."""

    def __str__(self) -> str:
        done = f"{self.operations} operations done again from the journal"
        if not self.cut:
            return done
        return f"{done}; {self.cut} bytes of one that was never finished were cut off at byte {self.cut_at}"


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair saved of a damaged directory, and what it could not."""

    complete: bool
    """Whether nothing was lost that was ever acknowledged."""
    rebuilt: list[str]
    """Damaged sections of the snapshot that were made again from the archive of episodes, exactly."""
    archive_lost: bool
    """The archive was damaged: the store is exact, but `veto` is no longer possible."""
    proposals_lost: int
    """Proposed episodes that went with the archive."""
    operations: int
    """Of the journal, done again."""
    damaged: int
    """Operations whose records are damaged; those behind them were done as if these had never been."""
    refused: list[str]
    """Operations that could not be done without the damaged ones, and why."""
    cut: int
    """Bytes of an operation that was never finished."""
    missing: bool = False
    """The journal that goes on from the snapshot is not there: nobody knows what it held."""
    set_aside: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Files beside that hold what the store may not have, and how many operations lie there, those that are damaged
    included: what earlier repairs set aside, and journals that do not go on from the snapshot."""

    def __str__(self) -> str:
        said = [f"{self.operations} operations done again from the journal"]
        if self.rebuilt:
            said.append(f"made again from the archive: {', '.join(self.rebuilt)}")
        if self.archive_lost:
            said.append(f"the archive is lost ({self.proposals_lost} proposals with it): veto is no longer possible")
        if self.damaged:
            said.append(f"{self.damaged} operations are damaged and lost")
        said += [f"not done without them: {refused}" for refused in self.refused]
        if self.cut:
            said.append(f"{self.cut} bytes of an operation that was never finished were cut off")
        if self.missing:
            said.append("the journal that goes on from the snapshot is missing: what it held is lost")
        said += [
            f"{name} holds {n} operations that the store may not have: remove the file once nobody needs it"
            for name, n in self.set_aside
        ]
        return "\n".join([*said, "nothing was lost" if self.complete else "the rest is saved"])
