"""View: what a live store and a frozen moment of it have in common: reading and scoring, and no way to change it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce, _core
from sharpwave._advice import NO_CHANNEL
from sharpwave.config import Config
from sharpwave.habituation import Habituation
from sharpwave.preview import preview
from sharpwave.results import (
    Association,
    EpisodeRecord,
    Explanation,
    Origin,
    Path,
    Payment,
    Preview,
    Scores,
    SearchReport,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sharpwave._coerce import Array

    Weights = Array | Mapping[str, float]

Core = TypeVar("Core", bound=_core.View)
AnyArray = TypeVar("AnyArray", bound=NDArray[Any])
Functional = Literal["coverage", "progress", "potential", "mean"]


def vetoed(
    memory: int | None, episode: int | None, episodes: Array | None
) -> tuple[int | None, NDArray[np.int64] | None]:
    """What a veto is to forget, as the core takes it: a memory, or episodes."""
    if sum(given is not None for given in (memory, episode, episodes)) != 1:
        raise TypeError("a veto takes one of memory=, episode= or episodes=")
    if memory is not None:
        return _coerce.whole("memory", memory), None
    if episode is not None:
        return None, np.array([_coerce.whole("episode", episode)], np.int64)
    return None, _coerce.integers("episodes", cast("Array", episodes)).ravel()


KernelNumbers = tuple[int | None, int | None, float | None]


def _kernel(k: int | None, power: int | None, tau: float | None, *, name: str = "k") -> KernelNumbers:
    """How memories answer to the queries of one call, as the core takes it."""
    return (
        None if k is None else _coerce.count(name, k),
        None if power is None else _coerce.count("power", power),
        None if tau is None else _coerce.number("tau", tau),
    )


class View(Generic[Core]):
    """A store as its readers see it. Arrays of the store are read-only copies, in the order of `ids`."""

    __slots__ = ("_core", "_dim")
    _core: Core
    _dim: int

    # Scoring

    def search(
        self, queries: Array, k: int = 16, nprobe: int | None = None, *, num_threads: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k memories of largest cosine to each query: ids and cosines, both (B, k).

        Exact; ties go to the lower id; where there are fewer than k memories, -1 and -inf. With `nprobe` only so many
        blocks of the partition are searched, those nearest to each query: quicker, but some memories may be missed.
        `search_report` says how many.
        """
        return self._core.search(
            _coerce.batch("queries", queries, self.dim),
            _coerce.count("k", k),
            None if nprobe is None else _coerce.count("nprobe", nprobe),
            _coerce.threads(num_threads),
        )

    def search_report(
        self, queries: Array, k: int = 16, nprobe: int | None = None, *, num_threads: int | None = None
    ) -> SearchReport:
        """Which way a search for these queries goes. The way changes the time it takes, never what it finds.

        With `nprobe` it also tells the recall, measured against exact search on up to 64 of the queries.
        """
        numbers = self._core.search_report(
            _coerce.batch("queries", queries, self.dim),
            _coerce.count("k", k),
            None if nprobe is None else _coerce.count("nprobe", nprobe),
            _coerce.threads(num_threads),
        )
        return SearchReport(**numbers)

    @property
    def blocks(self) -> int | None:
        """How many blocks `partition` divided the memories into; None if they are not divided."""
        return self._core.blocks()

    def value(
        self,
        queries: Array,
        *,
        k: int | None = None,
        power: int | None = None,
        tau: float | None = None,
        num_threads: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Φ (B, Q), the value of each query on each channel, and σ (B,), its support.

        Args:
            queries: (B, d).
            k: how many memories answer to a query, for this call; that of the config by default.
            power: p, for this call: the higher, the more of the answer the nearest have.
            tau: τ, for this call: the cosine below which a memory does not answer.
        """
        return self._core.value(
            _coerce.batch("queries", queries, self.dim), _kernel(k, power, tau), _coerce.threads(num_threads)
        )

    def score(
        self,
        steps: Array,
        offsets: Array | None = None,
        *,
        weights: Weights | None = None,
        functional: Functional = "coverage",
        discount: float = 1.0,
        context: bool | int | Array = True,
        habituation: Habituation | None = None,
        details: bool = False,
        num_threads: int | None = None,
    ) -> Scores:
        """What episodes earn. Scoring never changes the store.

        Args:
            steps: (ΣT, d), the steps of all episodes; or one episode (T, d).
            offsets: (E+1,), where the episodes begin in `steps`.
            weights: (Q,) w_q, or a dict by channel name; equal weights 1/Q by default.
                A channel of negative weight is something to avoid.
            functional: "coverage", "progress", "potential" or "mean" (docs/model.md).
            discount: γ', the trainer's discount; only "potential" knows it.
            context: how many leading steps are prompt and earn nothing: True (one), False, an int, or (E,) ints.
            habituation: what was used in the episodes that this table recorded pays less.
            details: also return which memories answered each step.
        """
        arguments = self._score_arguments(steps, offsets, weights, functional, discount, context, habituation)
        if len(self) and not self.channels and not details:  # details say what a step activates
            warnings.warn(NO_CHANNEL, RuntimeWarning, stacklevel=2)
        parts = self._core.score(
            **arguments, details=_coerce.flag("details", details), num_threads=_coerce.threads(num_threads)
        )
        return Scores(**parts, offsets=arguments["offsets"], context=arguments["context"])

    def explain(
        self,
        steps: Array,
        offsets: Array | None = None,
        *,
        weights: Weights | None = None,
        functional: Functional = "coverage",
        discount: float = 1.0,
        context: bool | int | Array = True,
        habituation: Habituation | None = None,
    ) -> list[Explanation]:
        """For every step, the memories, channels and associations that paid. Arguments as for `score`."""
        arguments = self._score_arguments(steps, offsets, weights, functional, discount, context, habituation)
        names = self.channels
        return [
            Explanation(
                step,
                pay,
                support,
                edge,
                redundancy,
                memories=[Payment(*payment) for payment in memories],
                channels=dict(zip(names, channels, strict=True)),
                associations=[Association(*association) for association in associations],
            )
            for step, (pay, support, edge, redundancy, memories, channels, associations) in enumerate(
                self._core.explain(**arguments)
            )
        ]

    def recall(
        self,
        query: Array,
        depth: int = 8,
        beams: int = 4,
        weights: Weights | None = None,
        *,
        cleanup: int = 0,
        distinct: bool = False,
        k: int | None = None,
        power: int | None = None,
        tau: float | None = None,
    ) -> list[Path]:
        """Paths from `query` (d,) along associations toward value, best first: a beam search of `beams` beams.

        A path ends where stopping is at least as good as going on, and at `depth` memories at most.

        Args:
            weights: (Q,) w_q, or a dict by channel name; equal weights 1/Q by default.
            cleanup: how often the query is first drawn to the memories that answer to it, x ← normalise(Σ_i φ_i k_i):
                a noisy cue becomes what it is a cue for.
            distinct: only the best path to each end.
            k, power, tau: how memories answer to the query, as for `value`.
        """
        row = _coerce.vector("query", query, self.dim).reshape(1, self.dim)
        return self._recall(row, depth, beams, weights, cleanup, distinct, _kernel(k, power, tau), None)[0]

    def recall_many(
        self,
        queries: Array,
        depth: int = 8,
        beams: int = 4,
        weights: Weights | None = None,
        *,
        cleanup: int = 0,
        distinct: bool = False,
        k: int | None = None,
        power: int | None = None,
        tau: float | None = None,
        num_threads: int | None = None,
    ) -> list[list[Path]]:
        """`recall` for each of `queries` (B, d)."""
        rows = _coerce.batch("queries", queries, self.dim)
        return self._recall(rows, depth, beams, weights, cleanup, distinct, _kernel(k, power, tau), num_threads)

    def _recall(
        self,
        queries: NDArray[np.float32],
        depth: int,
        beams: int,
        weights: Weights | None,
        cleanup: int,
        distinct: bool,
        kernel: KernelNumbers,
        num_threads: int | None,
    ) -> list[list[Path]]:
        found = self._core.recall(
            queries,
            _coerce.count("depth", depth),
            _coerce.count("beams", beams),
            None if weights is None else _coerce.weights(weights, self.channels),
            _coerce.count("cleanup", cleanup),
            _coerce.flag("distinct", distinct),
            kernel,
            _coerce.threads(num_threads),
        )
        return [[Path(*path) for path in paths] for paths in found]

    def associate(
        self,
        queries: Array,
        steps: int = 8,
        damping: float = 0.85,
        k: int = 16,
        *,
        seeds: int | None = None,
        power: int | None = None,
        tau: float | None = None,
        where: Array | None = None,
        num_threads: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """What each query (B, d) brings to mind, near and far: ids and activations, both (B, k), the most active first.

        Activation starts at the memories that answer to the query, φ, and flows `steps` times: `damping` of it along
        the associations, the rest back to the start. That is personalised PageRank, a ← (1 − damping)·φ + damping·aP.
        It never exceeds 1 in all; ties go to the lower id; where fewer than k memories are active, -1 and 0.

        Args:
            queries: (B, d).
            steps: how often it flows.
            damping: the share that flows on.
            k: how many memories are returned.
            seeds: how many memories answer to a query, where it starts; the config's k by default. What was learned
                with few answers, which keeps associations few, can be asked with many, and sharply.
            power, tau: how they answer, as for `value`.
            where: the ids of the memories that may answer and be returned; activation flows through the others, too.
        """
        return self._core.associate(
            _coerce.batch("queries", queries, self.dim),
            _coerce.count("steps", steps),
            _coerce.number("damping", damping),
            _coerce.count("k", k),
            _kernel(seeds, power, tau, name="seeds"),
            None if where is None else _coerce.integers("where", where).ravel(),
            _coerce.threads(num_threads),
        )

    def _score_arguments(
        self,
        steps: Array,
        offsets: Array | None,
        weights: Weights | None,
        functional: Functional,
        discount: float,
        context: bool | int | Array,
        habituation: Habituation | None,
    ) -> dict[str, Any]:
        rows = _coerce.rows("steps", steps, self.dim)
        ends = _coerce.offsets(offsets, len(rows))
        if habituation is not None and not isinstance(habituation, Habituation):
            raise TypeError(f"habituation must be a Habituation, got {type(habituation).__name__}")
        return {
            "steps": rows,
            "offsets": ends,
            "weights": None if weights is None else _coerce.weights(weights, self.channels),
            "functional": _coerce.string("functional", functional),
            "discount": _coerce.number("discount", discount),
            "context": _coerce.context(context, len(ends) - 1),
            "habituation": None if habituation is None else (*habituation.uses(), habituation.eta),
        }

    # Columns

    def __len__(self) -> int:
        """How many memories there are, terminals included."""
        return len(self._core)

    @property
    def dim(self) -> int:
        """d, the length of a step's embedding."""
        return self._dim

    @property
    def nbytes(self) -> int:
        """The bytes of memory that it holds; of a view, those that it may share with its store."""
        return self._core.nbytes()

    @property
    def config(self) -> Config:
        """The numbers in force; after `calibrate`, the fitted ones."""
        return Config.from_json(self._core.config())

    @property
    def channels(self) -> list[str]:
        """The names of the Q channels, in the order of their columns."""
        return [name for name, _, _, _ in self._core.channels()]

    @property
    def channel_ranges(self) -> dict[str, tuple[float, float]]:
        """The low and high of each channel."""
        return {name: (low, high) for name, _, low, high in self._core.channels()}

    @property
    def scalar_channels(self) -> list[str]:
        """The names of the channels that `drives` feeds, in the order of their columns there."""
        return [name for name, scalar, _, _ in self._core.channels() if scalar]

    @property
    def embedder(self) -> str | None:
        """The fingerprint of the embedder that filled the store, if it was bound."""
        return self._core.embedder()

    @property
    def episodes_observed(self) -> int:
        """How many episodes were written."""
        return self._core.episodes()[0]

    @property
    def episodes_proposed(self) -> int:
        """How many episodes wait for `replay(consolidate=True)`."""
        return self._core.episodes()[1]

    @property
    def ids(self) -> NDArray[np.int64]:
        """(N,) the ids of the memories, ascending."""
        return _read_only(self._core.ids())

    @property
    def keys(self) -> NDArray[np.float32]:
        """(N, d) k_i, unit norm."""
        return _read_only(self._core.keys())

    def keys_of(self, ids: Array) -> NDArray[np.float32]:
        """(n, d) the keys of some memories; an unknown id is a KeyError."""
        return self._core.keys_of(_coerce.integers("ids", ids).ravel())

    def terminal_key(self, name: str) -> NDArray[np.float32]:
        """(d,) the key of an embedding channel; a scalar channel has none, which is a KeyError."""
        found = dict(zip(self.channels, self._core.terminals().tolist(), strict=True))
        if found.get(_coerce.string("name", name), -1) < 0:
            raise KeyError(f"no embedding channel {name!r}, there are {[n for n, at in found.items() if at >= 0]}")
        return self._core.keys_of(np.array([found[name]], np.int64))[0]

    @property
    def values(self) -> NDArray[np.float32]:
        """(N, Q) v_iq, how much drive can still be reached from each memory."""
        return _read_only(self._core.values())

    @property
    def drives(self) -> NDArray[np.float32]:
        """(N, Q) r_iq, how much drive each memory itself satisfies."""
        return _read_only(self._core.drives())

    @property
    def baseline(self) -> NDArray[np.float32]:
        """(Q,) b_q, the value of the ordinary memory; set at the end of a replay."""
        return _read_only(self._core.baseline())

    @property
    def counts(self) -> NDArray[np.int64]:
        """(N,) m_i, how many steps were merged into each memory."""
        return _read_only(self._core.counts())

    @property
    def mass(self) -> NDArray[np.float64]:
        """(N,) n_i, the association mass of each memory."""
        return _read_only(self._core.mass())

    @property
    def is_terminal(self) -> NDArray[np.bool_]:
        """(N,) whether each memory is a terminal."""
        return _read_only(self._core.is_terminal())

    @property
    def texts(self) -> list[str | None]:
        """The text of each memory, where it was given."""
        return self._core.texts()

    def edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Every association: source ids, target ids and weights P, by source and then target."""
        source, target, weight = self._core.edges()
        return _read_only(source), _read_only(target), _read_only(weight)

    # What went in

    def episodes(self) -> list[EpisodeRecord]:
        """Every episode that was observed, in order, then those that are proposed; and what became of each."""
        memories, numbers, inserted, _ = self._core.origins(None)
        went: dict[int, set[int]] = {}
        for memory, episode in zip(memories[~inserted].tolist(), numbers[~inserted].tolist(), strict=True):
            went.setdefault(episode, set()).add(memory)
        records = self._core.episode_records()
        return [
            EpisodeRecord(episode, order, source, steps, sorted(went.get(episode, ())))
            for episode, order, source, steps in records
        ]

    def provenance(self, memory: int) -> list[Origin]:
        """The steps that went into a memory, in the order in which they came.

        Raises:
            KeyError: there is no such memory.
        """
        _, numbers, inserted, steps = self._core.origins(_coerce.whole("memory", memory))
        columns = zip(numbers.tolist(), inserted.tolist(), steps.tolist(), strict=True)
        return [Origin(None if row else number, number if row else None, step) for number, row, step in columns]

    def without(
        self, *, memory: int | None = None, episode: int | None = None, episodes: Array | None = None
    ) -> Preview:
        """What `veto` with these arguments would change. It changes nothing, and takes as long as the veto."""
        return preview(self._core, self._core.without(*vetoed(memory, episode, episodes)))

    # Identity and bytes

    def digest(self) -> str:
        """The hex digest of the whole state: equal if and only if the state is, bit for bit."""
        return self._core.digest()

    def to_bytes(self) -> bytes:
        """A snapshot (safetensors), as `save` writes it."""
        return self._core.to_bytes()

    def frozen(self) -> FrozenView:
        """This moment of the store, for readers beside its writers. Free until the next write, which makes a copy."""
        return FrozenView(self._core.frozen())

    def _summary(self) -> str:
        return f"{len(self)} memories, dim={self.dim}, channels=[{', '.join(self.channels)}]"


class FrozenView(View[_core.View]):
    """One moment of a store: what scored then scores the same for ever."""

    __slots__ = ()

    def __init__(self, core: _core.View) -> None:
        self._core, self._dim = core, core.dim()

    def ablated(
        self,
        *,
        values: Array | None = None,
        baseline: Array | None = None,
        constant_transitions: bool = False,
        fade: float | None = None,
    ) -> FrozenView:
        """This view with something knocked out, to see what it did: other `values` (N, Q), another `baseline` (Q,),
        every row of P replaced by their mean, weighted by mass, or another `fade`."""
        shape = (len(self), len(self.channels))
        return FrozenView(
            self._core.ablated(
                _coerce.table("values", values, shape),
                _coerce.table("baseline", baseline, shape[1:]),
                _coerce.flag("constant_transitions", constant_transitions),
                None if fade is None else _coerce.number("fade", fade),
            )
        )

    def frozen(self) -> Self:
        """A frozen view stays as it is."""
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _thaw, (self.to_bytes(),)

    def __repr__(self) -> str:
        return f"FrozenView({self._summary()})"


def _thaw(snapshot: bytes) -> FrozenView:
    """Unpickles a frozen view from a snapshot; the snapshot itself is no pickle."""
    return FrozenView(_core.Store.from_bytes(snapshot).frozen())


def _read_only(array: AnyArray) -> AnyArray:
    array.flags.writeable = False
    return array
