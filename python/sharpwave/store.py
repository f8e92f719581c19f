"""ValueStore: the value memory."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce, _core
from sharpwave._advice import NO_CHANNEL
from sharpwave.config import Config
from sharpwave.granularity import granularity
from sharpwave.results import OUTCOMES, ObserveReport, Recovery, Repair, ReplayReport
from sharpwave.view import View, vetoed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from sharpwave._coerce import Array
    from sharpwave._embedder import Embedder
from sharpwave._show import shown

Order = Literal["prioritized", "reverse", "full"]
Durability = Literal["process", "power"]

_log = logging.getLogger("sharpwave")

SNAPSHOT = "snapshot.safetensors"


class ValueStore(View[_core.Store]):
    """Remembers episodes and infers how valuable each memory is as a means to the terminal values.

    >>> store = sw.ValueStore(sw.Config(dim=384))
    >>> store.add_terminal("wedding", embed("They married."))
    >>> store.observe(steps, offsets, texts=chunks)
    >>> store.replay()
    >>> store.score(new_steps).total

    Safe to share between threads: scorers run beside each other, writers one at a time, and no call holds the GIL
    while it works or waits. A call that fails leaves the store as it was. Ctrl-C stops a long call between two
    episodes or two slices of a sleep; what was done by then stays.
    """

    __slots__ = ("_path", "_process", "_recovery")
    remote: ClassVar[bool] = False
    """Whether it lives in another process, so that asking it takes a message there and back."""
    _path: FilePath | None
    _process: int
    """In which it was made or opened. A child that was forked, or was sent it when it was spawned, has a copy of it."""
    _recovery: Recovery | None

    def __init__(self, config: Config) -> None:
        """An empty store in memory."""
        self._hold(_core.Store(_checked(config).to_json()))

    def _hold(self, core: _core.Store, path: FilePath | None = None) -> Self:
        self._core, self._dim, self._path, self._recovery = core, core.dim(), path, None
        self._process = os.getpid()
        return self

    # Terminal values

    def calibrate(self, steps: Array, offsets: Array | None = None, *, check: bool = True) -> dict[str, float]:
        """Fit τ and the redundancy range to a sample of one's own embedding, and keep the sample for terminals' ranges.

        Works on an empty store only. Without `offsets`, `steps` (n, d) are unrelated and set no redundancy range;
        with them they are base episodes, and unless `check` is False up to 1024 of their steps are tried: a
        RuntimeWarning if the store would merge so much that it no longer knows what comes next. `sharpwave.tune` helps.

        Returns what it set: `tau`, `d_lo`, `d_hi`, `sample`; and, of the steps that were tried, how many are
        `different` and how many `memories` they become.
        """
        rows = _coerce.rows("steps", steps, self.dim)
        ends = np.arange(len(rows) + 1) if offsets is None else _coerce.offsets(offsets, len(rows))
        found = self._core.calibrate(rows, ends)
        if not _coerce.flag("check", check) or offsets is None or not len(rows):
            return found
        tried = granularity(self.config, rows, ends)
        if tried.warning is not None:
            warnings.warn(tried.warning, RuntimeWarning, stacklevel=2)
        return {**found, "different": tried.different, "memories": tried.memories}

    def add_terminal(self, name: str, key: Array, low: float | None = None, high: float | None = None) -> int:
        """A channel that is an embedding `key` (d,) to approach; returns its column.

        A memory whose cosine to the key is `low` has drive 0, at `high` it has drive 1; by default the median and the
        maximum over the calibration sample, else 0 and 1.
        """
        return self._core.add_terminal(
            _coerce.string("name", name),
            _coerce.vector("key", key, self.dim),
            None if low is None else _coerce.number("low", low),
            None if high is None else _coerce.number("high", high),
        )

    def add_channel(self, name: str, low: float = 0.0, high: float = 1.0) -> int:
        """A channel that is a scalar reward source, fed by `drives`; returns its column."""
        return self._core.add_channel(
            _coerce.string("name", name), _coerce.number("low", low), _coerce.number("high", high)
        )

    def remove_channel(self, name: str) -> None:
        """Forget a channel: its column, and its terminal if it has one."""
        self._core.remove_channel(_coerce.string("name", name))

    # Learning

    def observe(
        self,
        steps: Array,
        offsets: Array | None = None,
        drives: Array | Mapping[str, Array] | None = None,
        texts: Iterable[str | None] | None = None,
        episode_ids: Array | None = None,
        source: str | None = None,
        propose: bool = False,
    ) -> ObserveReport:
        """Write episodes: gate, associate, evict, replay awake.

        Args:
            steps: (ΣT, d), the steps of all episodes; or one episode (T, d).
            offsets: (E+1,), where the episodes begin in `steps`.
            drives: what the scalar channels gave: (ΣT, Qs), one row a step; or (E, Qs), credited to the last step; or
                a dict of such columns by channel name. NaN is not observed.
            texts: what the steps say, for `explain`.
            episode_ids: (E,) ids for `veto`; fresh ones by default.
            source: where the episodes come from, kept with them.
            propose: keep the episodes aside until `replay(consolidate=True)`.
        """
        rows = _coerce.rows("steps", steps, self.dim)
        ends = _coerce.offsets(offsets, len(rows))
        memory_ids, outcome, ids, backups = self._core.observe(
            rows,
            ends,
            None if drives is None else _coerce.drives(drives, self.scalar_channels, ends, len(rows)),
            _coerce.texts("texts", texts, len(rows)),
            _coerce.per_episode("episode_ids", episode_ids, len(ends) - 1),
            None if source is None else _coerce.string("source", source),
            _coerce.flag("propose", propose),
        )
        return ObserveReport(memory_ids, np.array(OUTCOMES)[outcome], ids, backups)

    def insert(
        self,
        keys: Array,
        drives: Array | Mapping[str, Array] | None = None,
        texts: Iterable[str | None] | None = None,
    ) -> NDArray[np.int64]:
        """Append memories (n, d) as they are: no gate, no merging, no associations. Returns their ids."""
        rows = _coerce.rows("keys", keys, self.dim)
        singles = np.arange(len(rows) + 1)
        return self._core.insert(
            rows,
            None if drives is None else _coerce.drives(drives, self.scalar_channels, singles, len(rows)),
            _coerce.texts("texts", texts, len(rows)),
        )

    def partition(self, blocks: int | None = None, seed: int = 0, *, num_threads: int | None = None) -> None:
        """Divide the memories into blocks by k-means, for `search(..., nprobe=...)`: worth it above about a million.

        Exact searches leave out blocks that cannot matter, where that pays. New memories join the nearest block; after
        many, divide anew. The partition is an index: no part of the digest, and to be made again after loading.

        Args:
            blocks: how many; the square root of the number of memories by default.
            seed: the division is the same for a seed.
            num_threads: how many threads divide.
        """
        self._core.partition(
            None if blocks is None else _coerce.count("blocks", blocks),
            _coerce.count("seed", seed),
            _coerce.threads(num_threads),
        )

    def replay(
        self,
        budget: int | None = None,
        tol: float = 1e-4,
        order: Order = "prioritized",
        need: Literal["frequency", "uniform"] | Array = "frequency",
        consolidate: bool = False,
        max_drift: float | None = None,
        *,
        floor: float = 0.0,
        extend: bool = False,
        seconds: float | None = None,
        num_threads: int | None = None,
    ) -> ReplayReport:
        """Sleep: back values up along the associations until none is further than `tol` from the fixed point.

        Args:
            budget: how many backups at most; None for as many as it takes.
            tol: the distance to the fixed point at which sleep ends.
            order: "prioritized" (need times gain; sweeps once much of the graph is active), "reverse" (newest memory
                first) or "full" (sweeps).
            need: "frequency", "uniform", or the ids of the memories that episodes start from.
            consolidate: first observe what was proposed.
            max_drift: refuse a consolidation that moves mean |Φ| on the calibration sample by more.
            floor: what every gain counts at least, so that a prioritized sleep goes on by need alone when nothing is
                owed, until its budget or seconds are over. It changes no value then: it is there for what is replayed
                when (`trail` of the report).
            extend: let the last backup of a prioritized sleep be continued by the most likely next memory, as one
                backup of several steps that is worth the sum of need times gain.
            seconds: begin no further slice of some hundred backups after this time. How far a sleep gets in it depends
                on the machine; what was done is recorded as a budget, so that a veto repeats it exactly.
        """
        if len(self) and not self.channels:
            warnings.warn(NO_CHANNEL, RuntimeWarning, stacklevel=2)
        return ReplayReport(
            **self._core.replay(
                None if budget is None else _coerce.count("budget", budget),
                None if seconds is None else _coerce.number("seconds", seconds),
                _coerce.number("tol", tol),
                _coerce.string("order", order),
                need if isinstance(need, str) else _coerce.integers("need", need).ravel(),
                _coerce.number("floor", floor),
                _coerce.flag("extend", extend),
                _coerce.flag("consolidate", consolidate),
                None if max_drift is None else _coerce.number("max_drift", max_drift),
                _coerce.threads(num_threads),
            )
        )

    def veto(self, *, memory: int | None = None, episode: int | None = None, episodes: Array | None = None) -> None:
        """Make it as if a memory's steps, or episodes, had never been seen. Exact; needs `keep_episodes=True`.

        History is replayed once, however many episodes there are. `without` says beforehand what would change.

        Raises:
            KeyError: there is no such memory or episode; nothing was forgotten.
        """
        self._core.veto(*vetoed(memory, episode, episodes))

    def checkpoint(self, keep: int = 1) -> None:
        """Keep this moment: a veto of something later replays history from here on, instead of from the beginning.

        For episodes that may be vetoed soon, as a batch that is being audited. It takes the memory of a copy of the
        store without its archive, changes no result, and is not saved: a store that is loaded has none.

        Args:
            keep: how many moments are kept, this one and the latest before it; 0 lets go of all.
        """
        self._core.checkpoint(_coerce.count("keep", keep))

    def bind_embedder(self, fingerprint: str | Embedder) -> None:
        """Record the embedder that fills this store; another one later is an EmbedderError that names the difference.

        Args:
            fingerprint: what `sharpwave.embed.fingerprint` says of it, or the embedder itself. Given itself, it is also
                asked for a few of the store's texts where the recorded name does not hold every setting, as those of
                older versions and of bare functions do not: what makes other vectors is refused in the first case,
                and a RuntimeWarning in the second.
        """
        from sharpwave._names import bound_name

        known = fingerprint if callable(fingerprint) else _coerce.string("fingerprint", fingerprint)
        self._core.bind_embedder(bound_name(self, known))

    # Files

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        config: Config | None = None,
        *,
        readonly: bool = False,
        durability: Durability = "process",
    ) -> Self:
        """A store that lives in a directory, created if it is not there.

        Every operation is in the directory's journal before its call returns. Opening loads the last snapshot and does
        what the journal says; what was never finished is cut off, and `recovery` tells. One process writes at a time.

        Args:
            directory: where it lives.
            config: may be left out when it exists; given, it must be the one that the store was made with.
            readonly: look at it as it is now, also beside a writer. It cannot be written to, and does not follow.
            durability: what an operation survives once its call returned: the end of the "process", however it comes,
                or of the "power" too. The latter waits for the disk; threads that write at once wait together.

        Raises:
            BlockingIOError: another process, or another object of this one, writes to it.
            sharpwave.FormatError: it is damaged; the message says where. `sharpwave repair` saves what is intact.
            FileNotFoundError: it is not there, and there is no config to make it with.
        """
        path = FilePath(directory).absolute()
        try:
            core, found = _core.Store.open(
                os.fspath(path),
                None if config is None else _checked(config).to_json(),
                _coerce.string("durability", durability),
                _coerce.flag("readonly", readonly),
            )
        except FileNotFoundError as error:
            if config is not None and not readonly:
                raise
            hint = "no store" if readonly else "no store: pass a config to create one"
            raise FileNotFoundError(errno.ENOENT, hint, str(path)) from error
        if config is not None:
            _same_config(path, Config.from_json(core.original_config()), config)
        self = cls.__new__(cls)._hold(core, path)
        self._recovery = Recovery(*found)
        if self._recovery.cut:
            _log.warning("%s: %s", shown(str(path)), self._recovery)
        return self

    @staticmethod
    def repair(directory: str | os.PathLike[str]) -> Repair:
        """Save what is intact in a damaged directory, in place; what is lost is kept beside as ``….damaged``.

        A repair that was broken off can be done again: the store and the losses are the same. As long as files of an
        earlier repair lie beside, the report counts what they hold, and is not `complete`.
        """
        return Repair(**_core.repair(os.fspath(directory)))

    @property
    def path(self) -> FilePath | None:
        """The directory it lives in, as it was opened, absolute; None for a store in memory.

        A directory that is moved while its store is open takes the store along; this path does not follow.
        """
        return self._path

    @property
    def readonly(self) -> bool:
        """Whether it was opened to be read only."""
        return self._core.readonly()

    @property
    def recovery(self) -> Recovery | None:
        """What opening the directory found; None for a store in memory."""
        return self._recovery

    def flush(self) -> None:
        """Write a snapshot of a store that lives in a directory, and begin a new journal, if there is anything new.

        Nothing needs it to be durable: it makes the next opening faster. Scoring goes on meanwhile.
        """
        if self.closed:
            raise ValueError("store is closed")
        if self._path is not None and not self.readonly:
            self._core.flush()

    def close(self) -> None:
        """Let go of the store; one that lives in a directory writes a snapshot if there is anything new.

        If none can be written, the journal has it all and is kept. Closing twice is fine, any other call is not.
        """
        self._core.close()

    def become(self, other: ValueStore) -> None:
        """Take over the content of another store, at once, and in the directory too if it lives in one."""
        if not isinstance(other, ValueStore):
            raise TypeError(f"other must be a ValueStore, got {type(other).__name__}")
        here = ValueStore.from_bytes(other.to_bytes()) if other.remote else other
        self._core.become(here._core)
        self._dim = here._dim

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._core.closed()

    def _writes(self) -> int:
        """How often it was written to since it was made."""
        return self._core.writes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a snapshot (safetensors) beside `path` and rename it into place."""
        self._core.save(os.fspath(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """A store in memory, from a snapshot or from a store's directory. Damage is a FormatError that says where."""
        return cls.__new__(cls)._hold(_core.Store.load(os.fspath(path)))

    @classmethod
    def from_bytes(cls, snapshot: bytes) -> Self:
        """The inverse of `to_bytes`."""
        if not isinstance(snapshot, bytes | bytearray | memoryview):
            raise TypeError(f"snapshot must be bytes, got {type(snapshot).__name__}")
        return cls.__new__(cls)._hold(_core.Store.from_bytes(bytes(snapshot)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies by its own versioned bytes; the copy lives in memory."""
        processes = sys.modules.get("multiprocessing.context")
        if processes is not None and processes.get_spawning_popen() is not None:
            return _spawned, (type(self), self.to_bytes(), self._process)
        return type(self).from_bytes, (self.to_bytes(),)

    def __repr__(self) -> str:
        if self.closed:
            return "ValueStore(closed)"
        where = f", path={str(self._path)!r}" if self._path else ""
        return f"ValueStore({self._summary()}{where})"


def _spawned(kind: type[ValueStore], snapshot: bytes, process: int) -> ValueStore:
    """A copy in a spawned process of the store that ``process`` has."""
    made = kind.from_bytes(snapshot)
    made._process = process  # pyright: ignore[reportPrivateUsage]
    return made


def _checked(config: Config) -> Config:
    if not isinstance(config, Config):
        raise TypeError(f"config must be a sharpwave.Config, got {type(config).__name__}")
    return config


def _same_config(path: FilePath, stored: Config, given: Config) -> None:
    differing = [
        f"{name} is {old!r} there, {new!r} here"
        for (name, old), new in zip(stored.to_dict().items(), given.to_dict().values(), strict=True)
        if old != new
    ]
    if differing:
        raise ValueError(f"config differs from that of the store in {path}: {'; '.join(differing)}")
