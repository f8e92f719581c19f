"""The compiled core: flat arrays in, flat arrays out. `sharpwave.ValueStore` is the face of it.

Arrays must be C-contiguous and of the dtype given here; `sharpwave._coerce` makes them so. No call holds the GIL while
it works or waits.
"""

from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

__all__ = [
    "EmbedderError",
    "FormatError",
    "Store",
    "View",
    "__version__",
    "check_config",
    "cpu_features",
    "functionals",
    "get_num_threads",
    "repair",
    "set_num_threads",
]

__version__: str

class FormatError(ValueError):
    """A damaged or foreign file; the message says which section."""

class EmbedderError(ValueError):
    """The store was filled by another embedder: its keys and these steps lie in different spaces."""

def check_config(config: str) -> str:
    """The numbers, JSON to JSON, as the core holds them; or an error naming the one out of range."""

def repair(directory: str) -> dict[str, Any]:
    """Save what is intact in a damaged directory; the fields of `sharpwave.Repair` by name."""

def set_num_threads(n: int) -> None:
    """How many threads a call uses unless it says otherwise."""

def get_num_threads() -> int:
    """How many threads a call uses unless it says otherwise; all processors by default."""

def cpu_features() -> dict[str, Any]:
    """The instruction sets found, and the one in use."""

def functionals() -> list[str]:
    """The names of the functionals of `score`, the default first."""

_Habituation = tuple[NDArray[np.int64], NDArray[np.float64], float]

@disjoint_base
class View:
    """A store to read: a live one, or one moment of it."""

    def __len__(self) -> int: ...
    def nbytes(self) -> int:
        """Bytes of memory held."""

    def dim(self) -> int:
        """The length d of a step's embedding."""

    def config(self) -> str:
        """The numbers in force, in JSON."""

    def channels(self) -> list[tuple[str, bool, float, float]]:
        """Name, whether it is scalar, low and high of each channel."""

    def embedder(self) -> str | None:
        """The fingerprint of the embedder that filled the store."""

    def episodes(self) -> tuple[int, int]:
        """How many episodes were observed, and how many wait for a replay to consolidate them."""

    def ids(self) -> NDArray[np.int64]:
        """(N,) ascending."""

    def keys(self) -> NDArray[np.float32]:
        """(N, d)."""

    def keys_of(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The keys of some memories, (len, d)."""

    def key_stamps(self) -> NDArray[np.uint64]:
        """(N,) another number whenever a key is another, unique in the process."""

    def terminals(self) -> NDArray[np.int64]:
        """(Q,) the memory that holds each channel's key, -1 for a scalar channel."""

    def edge_cosines(self) -> tuple[float, float]:
        """e_lo and e_hi in force."""

    def values(self) -> NDArray[np.float32]:
        """(N, Q)."""

    def drives(self) -> NDArray[np.float32]:
        """(N, Q)."""

    def baseline(self) -> NDArray[np.float32]:
        """(Q,)."""

    def counts(self) -> NDArray[np.int64]:
        """(N,) steps merged."""

    def mass(self) -> NDArray[np.float64]:
        """(N,) association mass."""

    def is_terminal(self) -> NDArray[np.bool_]:
        """(N,)."""

    def texts(self) -> list[str | None]:
        """One a memory."""

    def edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Source ids, target ids and weights P."""

    def digest(self) -> str:
        """Of the whole state."""

    def to_bytes(self) -> bytes:
        """A snapshot."""

    def save(self, path: str) -> None:
        """A snapshot, written beside and renamed."""

    def frozen(self) -> View:
        """This moment."""

    def ablated(
        self,
        values: NDArray[np.float32] | None,
        baseline: NDArray[np.float32] | None,
        constant_transitions: bool,
        fade: float | None,
    ) -> View:
        """This moment with something knocked out."""

    def search(
        self, queries: NDArray[np.float32], k: int, nprobe: int | None, num_threads: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and cosines, (B, k)."""

    def blocks(self) -> int | None:
        """How many blocks the memories are divided into."""

    def search_report(
        self, queries: NDArray[np.float32], k: int, nprobe: int | None, num_threads: int | None
    ) -> dict[str, Any]:
        """The numbers of `sharpwave.SearchReport` by name."""

    def value(
        self,
        queries: NDArray[np.float32],
        kernel: tuple[int | None, int | None, float | None],
        num_threads: int | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Φ (B, Q) and σ (B,)."""

    def score(
        self,
        steps: NDArray[np.float32],
        offsets: NDArray[np.int64],
        weights: NDArray[np.float64] | None,
        functional: str,
        discount: float,
        context: NDArray[np.int64],
        habituation: _Habituation | None,
        details: bool,
        num_threads: int | None,
    ) -> dict[str, Any]:
        """The arrays of `sharpwave.Scores` by name."""

    def explain(
        self,
        steps: NDArray[np.float32],
        offsets: NDArray[np.int64],
        weights: NDArray[np.float64] | None,
        functional: str,
        discount: float,
        context: NDArray[np.int64],
        habituation: _Habituation | None,
    ) -> list[tuple[float, float, float, float, list[tuple[Any, ...]], list[float], list[tuple[Any, ...]]]]:
        """Pay, support, edge, redundancy, memories, pay by channel and associations of every step."""

    def recall(
        self,
        queries: NDArray[np.float32],
        depth: int,
        beams: int,
        weights: NDArray[np.float64] | None,
        cleanup: int,
        distinct: bool,
        kernel: tuple[int | None, int | None, float | None],
        num_threads: int | None,
    ) -> list[list[tuple[NDArray[np.int64], float, NDArray[np.float32], list[str | None]]]]:
        """Ids, score, values and texts of every path of every query."""

    def episode_records(self) -> list[tuple[int, int | None, str | None, int | None]]:
        """Id, place among the observed, source and steps of every episode."""

    def origins(
        self, memory: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.uint32]]:
        """Of every step that went into a memory, or into all: the memory, the episode or insert, whether it is an
        insert, and the step or row."""

    def without(self, memory: int | None, episodes: NDArray[np.int64] | None) -> View:
        """What a veto would leave."""

    def associate(
        self,
        queries: NDArray[np.float32],
        steps: int,
        damping: float,
        k: int,
        kernel: tuple[int | None, int | None, float | None],
        among: NDArray[np.int64] | None,
        num_threads: int | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ids and activations, (B, k)."""

@final
class Store(View):
    """A live store: many readers, one writer at a time."""

    def __new__(cls, config: str) -> Self: ...
    @staticmethod
    def load(path: str) -> Store:
        """From a snapshot file."""

    @staticmethod
    def open(
        directory: str, config: str | None, durability: str, readonly: bool
    ) -> tuple[Store, tuple[int, int, int | None]]:
        """From a directory; what was found there: operations done again, bytes cut off, and where."""

    @staticmethod
    def from_bytes(snapshot: bytes) -> Store:
        """From the bytes of a snapshot."""

    def original_config(self) -> str:
        """The numbers that the store was made with, in JSON."""

    def calibrate(self, steps: NDArray[np.float32], offsets: NDArray[np.int64]) -> dict[str, float]:
        """What it set."""

    def add_terminal(self, name: str, key: NDArray[np.float32], low: float | None, high: float | None) -> int:
        """The column."""

    def add_channel(self, name: str, low: float, high: float) -> int:
        """The column."""

    def remove_channel(self, name: str) -> None:
        """Its column and its terminal."""

    def observe(
        self,
        steps: NDArray[np.float32],
        offsets: NDArray[np.int64],
        drives: NDArray[np.float32] | None,
        texts: list[str | None] | None,
        episode_ids: NDArray[np.int64] | None,
        source: str | None,
        propose: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64], int]:
        """Memory ids, outcomes (0 new, 1 merged, 2 dropped, 3 proposed), episode ids and backups."""

    def insert(
        self,
        keys: NDArray[np.float32],
        drives: NDArray[np.float32] | None,
        texts: list[str | None] | None,
    ) -> NDArray[np.int64]:
        """The ids."""

    def partition(self, blocks: int | None, seed: int, num_threads: int | None) -> None:
        """Divides the memories into blocks, while others read."""

    def replay(
        self,
        budget: int | None,
        seconds: float | None,
        tol: float,
        order: str,
        need: str | NDArray[np.int64],
        floor: float,
        extend: bool,
        consolidate: bool,
        max_drift: float | None,
        num_threads: int | None,
    ) -> dict[str, Any]:
        """The fields of `sharpwave.ReplayReport` by name."""

    def veto(self, memory: int | None, episodes: NDArray[np.int64] | None) -> None:
        """As if never seen."""

    def checkpoint(self, keep: int) -> None:
        """Keep this moment, so that a later veto begins here."""

    def bind_embedder(self, fingerprint: str) -> None:
        """Record it, or refuse another."""

    def become(self, other: Store) -> None:
        """Take over the content of another, in the directory too."""

    def flush(self) -> None:
        """A new snapshot in its directory, if there is anything new."""

    def close(self) -> None:
        """Let go of the data, after a snapshot in its directory if there is anything new."""

    def writes(self) -> int:
        """How often it was written to since it was made."""

    def readonly(self) -> bool:
        """Whether it can only be read."""

    def _panic(self) -> None:
        """Panic in the middle of a write, as a bug would: for tests."""

    def closed(self) -> bool:
        """Whether it was let go of."""
