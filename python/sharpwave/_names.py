"""Names of embedders: equal ones mean vectors that may be compared with one another.

A name holds the hash of a model's weights, every setting that is known to change a vector, and a probe: what the
embedder makes of a few fixed texts, so that what nobody thought of changes the name too.

    sentence-transformers:<weights>:<longest text>:<dimension>;modules=…;pool=…;prompt=…;lower=…;probe=…

A probe is rounded to 1/16, and still its last digits depend on the precision, the device and the batch. So names are
compared by `agree`, which takes probes that are near for equal, and not as texts.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable
from itertools import chain
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from sharpwave._core import EmbedderError
from sharpwave._embedder import as_embedder, fingerprint, unit

PROBES = (
    "Two people danced at a WEDDING in spring.",
    "rain on the deck, and no land in sight",
    "Ça coûte 12 € – не так ли?\n\tdef f(x): return x[0]",
    "The ship had left the harbour before the storm came, and nobody on the quay knew its name or its load. " * 16,
)
"""What every embedder is asked: letters of both cases, other scripts, code, and a text longer than many models read."""

DIRECTIONS = 3
"""Numbers that a probe keeps of each vector."""

SCALE = 16.0
NEAR = 0.15
"""How far two probes may lie apart (root mean square) and be of one embedder. It is about the distance of the vectors:
a cosine of 0.99. bfloat16 moves it by 0.03, batches, threads and devices by less than 0.001; another prompt or another
pooling by 0.4 and more."""

SAME = 0.98
"""The least mean cosine of a store's keys to what its texts are embedded to now."""

_PROBE = re.compile(r";probe=([0-9a-f]+)")
_FIELD = re.compile(r";[a-z]+=[^; )]*")


class _Store(Protocol):
    """What is asked of a store."""

    @property
    def embedder(self) -> str | None: ...
    @property
    def texts(self) -> list[str | None]: ...
    @property
    def keys(self) -> NDArray[np.float32]: ...
    @property
    def counts(self) -> NDArray[np.int64]: ...
    @property
    def is_terminal(self) -> NDArray[np.bool_]: ...


def fields(**settings: Any) -> str:
    """``;name=value`` of each setting."""
    return "".join(f";{name}={quote(str(value), safe='')}" for name, value in settings.items())


def probe_of_rows(rows: NDArray[np.float32]) -> str:
    """The probe of what `PROBES` are embedded to, ``(4, d)`` rows of unit length: the components of each along
    `DIRECTIONS` vectors of signs, which have a mean square of 1."""
    count = len(rows) * DIRECTIONS
    bits = hashlib.shake_256(b"sharpwave probe").digest((count * rows.shape[1] + 7) // 8)
    signs = np.unpackbits(np.frombuffer(bits, np.uint8))[: count * rows.shape[1]].astype(np.float64) * 2 - 1
    return probe_of(np.einsum("nd,nkd->nk", rows.astype(np.float64), signs.reshape(len(rows), DIRECTIONS, -1)))


def probe_of(numbers: NDArray[Any]) -> str:
    """Numbers in hexadecimal, rounded to 1/16."""
    return np.clip(np.rint(np.ravel(numbers) * SCALE), -32768, 32767).astype(">i2").tobytes().hex()


def weights_state(model: Any) -> tuple[Any, ...]:
    """Something that changes when a torch model's weights are changed in place or replaced; it takes no time."""
    held = chain(model.parameters(), model.buffers())
    return tuple((id(t), t.dtype, 0 if t.is_inference() else t._version) for t in held)


def precision(model: Any) -> str:
    """What a torch model computes in, and by what: a cache keeps vectors of each apart."""
    dtypes = sorted({str(t.dtype).removeprefix("torch.") for t in model.parameters()})
    return f"{'+'.join(dtypes)}:{getattr(model, 'backend', 'torch')}"


class Remembered:
    """What was found out last, as long as it is asked for the same state."""

    def __init__(self) -> None:
        self._state: Any = None
        self._found = ""

    def __call__(self, state: Any, find: Callable[[], str]) -> str:
        if self._state != state:
            self._found, self._state = find(), state
        return self._found

    def __getstate__(self) -> dict[str, Any]:
        return {"_state": None, "_found": ""}  # objects have other ids elsewhere


def agree(one: str, other: str) -> bool:
    """Whether two names are of one embedder: the same but for their probes' rounding."""
    if _PROBE.sub("", one) != _PROBE.sub("", other):
        return False
    return all(
        len(a) == len(b) and _distance(a, b) <= NEAR
        for a, b in zip(_PROBE.findall(one), _PROBE.findall(other), strict=True)
    )


def _distance(one: str, other: str) -> float:
    a, b = (np.frombuffer(bytes.fromhex(probe), ">i2").astype(np.float64) / SCALE for probe in (one, other))
    return float(np.sqrt(np.mean((a - b) ** 2)))


def old_form(name: str) -> str:
    """The name that the embedder had before settings and probes were part of it."""
    return _FIELD.sub("", name)


def difference(recorded: str, offered: str) -> str:
    """What two names that do not agree differ in."""
    split = re.compile(r"[:;]")
    one, other = split.split(recorded), split.split(offered)
    if len(one) != len(other):
        return "they are of different kinds"
    found = [f"{a} is {b} now" for a, b in zip(one, other, strict=True) if a != b and not a.startswith("probe=")]
    return ", ".join(found) or "the same texts get other vectors (the probe differs)"


def bound_name(store: _Store, embedder: Any) -> str:
    """The name by which ``embedder`` (or a name of one) is bound to ``store``: the recorded one if they agree.

    Raises:
        EmbedderError: they do not.
    """
    offered = embedder if isinstance(embedder, str) else fingerprint(embedder)
    recorded = store.embedder
    if recorded is None:
        return offered
    older = recorded != offered and recorded == old_form(offered)
    if not older and not agree(recorded, offered):
        raise EmbedderError(
            f"the store was filled by the embedder {recorded!r}, not by {offered!r}: {difference(recorded, offered)}"
        )
    if not isinstance(embedder, str) and (older or offered.startswith("callable:")):
        _check_own_texts(store, embedder, recorded, refuse=older)
    return recorded


def _check_own_texts(store: _Store, embedder: Any, recorded: str, refuse: bool) -> None:
    """For a name that does not say all: whether a few of the store's texts are embedded to what it holds of them."""
    texts = store.texts
    whole = np.flatnonzero((store.counts == 1) & ~store.is_terminal).tolist()  # a key that was merged has moved
    some = [n for n in whole if texts[n]][:4]
    if not some:
        return
    rows = unit(as_embedder(embedder)([str(texts[n]) for n in some]))
    held = store.keys[some]
    cosine = float(np.einsum("nd,nd->n", rows, held).mean()) if rows.shape == held.shape else float("nan")
    if cosine >= SAME:
        return
    message = (
        f"the store was filled by an embedder named {recorded!r}, which does not say all, and this one makes other "
        f"vectors of the store's texts (mean cosine {cosine:.2f}): prompt, pooling or another setting was different"
    )
    if refuse:
        raise EmbedderError(
            f"{message}. To use it all the same: CallableEmbedder(embedder, name=store.embedder), or fill a new store"
        )
    warnings.warn(message, RuntimeWarning, stacklevel=4)
