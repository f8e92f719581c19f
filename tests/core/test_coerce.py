"""Columns of pandas and Arrow, and tensors, wherever a store takes an array or a sequence: by position, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sharpwave as sw

pandas = pytest.importorskip("pandas")
arrow = pytest.importorskip("pyarrow")
torch = pytest.importorskip("torch")

ROWS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
OFFSETS, IDS, DRIVES = [0, 2, 6], [7, 9], [0.25, 1.0]
TEXTS = ["a", None, "c", "d", "e", "f"]
LABELS = [3, 0, 2, 5, 1, 4]


def filled(steps: Any = ROWS, offsets: Any = OFFSETS, drives: Any = DRIVES, texts: Any = TEXTS, ids: Any = IDS) -> str:
    store = sw.ValueStore(sw.Config(dim=4))
    store.add_channel("checked")
    store.observe(steps, offsets, drives=drives, texts=texts, episode_ids=ids)
    return store.digest()


@pytest.fixture(scope="module")
def expected() -> str:
    return filled()


FORMS: dict[str, Callable[[], dict[str, Any]]] = {
    "frame": lambda: {"steps": pandas.DataFrame(ROWS, index=LABELS)},
    "nullable frame": lambda: {"steps": pandas.DataFrame(ROWS, index=LABELS).astype("Float32")},
    "series of arrays": lambda: {"steps": pandas.Series(list(ROWS), index=LABELS)},
    "series of lists": lambda: {"steps": pandas.Series(ROWS.tolist(), index=LABELS)},
    "objects": lambda: {"steps": ROWS.astype(object)},
    "arrow lists": lambda: {"steps": arrow.array(ROWS.tolist(), arrow.list_(arrow.float32()))},
    "arrow fixed lists": lambda: {"steps": arrow.FixedSizeListArray.from_arrays(arrow.array(ROWS.ravel()), 4)},
    "arrow chunks": lambda: {"steps": arrow.chunked_array([ROWS[:2].tolist(), ROWS[2:].tolist()])},
    "arrow table": lambda: {"steps": arrow.table({str(n): ROWS[:, n] for n in range(4)})},
    "tensor": lambda: {"steps": torch.tensor(ROWS), "offsets": torch.tensor(OFFSETS), "ids": torch.tensor(IDS)},
    "tensors": lambda: {"steps": [torch.tensor(row) for row in ROWS]},
    "series": lambda: {"offsets": pandas.Series(OFFSETS, index=LABELS[:3]), "ids": pandas.Series(IDS, index=[1, 0]),
                       "drives": pandas.Series(DRIVES, index=[1, 0]), "texts": pandas.Series(TEXTS, index=LABELS)},
    "nullable": lambda: {"offsets": pandas.array(OFFSETS, dtype="Int64"), "ids": pandas.array(IDS, dtype="Int64"),
                         "drives": pandas.Series(DRIVES, dtype="Float64"),
                         "texts": pandas.array(TEXTS, dtype="string")},
    "index": lambda: {"offsets": pandas.Index(OFFSETS), "ids": pandas.RangeIndex(7, 11, 2)},
    "categories": lambda: {"offsets": pandas.Categorical(OFFSETS), "texts": pandas.Categorical(TEXTS)},
    "arrow": lambda: {"offsets": arrow.array(OFFSETS), "ids": arrow.chunked_array([[7], [9]]),
                      "drives": arrow.array(DRIVES), "texts": arrow.array(TEXTS)},
    "arrow in pandas": lambda: {"offsets": pandas.Series(OFFSETS, dtype="int64[pyarrow]"),
                                "texts": pandas.Series(TEXTS, index=LABELS, dtype="string[pyarrow]")},
    "a column of a table": lambda: {"drives": pandas.DataFrame({"checked": DRIVES}, index=[1, 0]),
                                    "texts": np.array(TEXTS, object)},
    "missing drives": lambda: {"drives": arrow.array([None, 0.25, None, None, None, 1.0])},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_order_is_position(form: str, expected: str) -> None:
    assert filled(**FORMS[form]()) == expected


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "texts: a frame": ({"texts": pandas.DataFrame({"t": TEXTS})}, "texts must be a sequence, got a table"),
    "texts: a table": ({"texts": arrow.table({"t": TEXTS})}, "texts must be a sequence, got a table"),
    "texts: a dict": ({"texts": dict.fromkeys("abcdef")}, "texts must be a sequence, got dict"),
    "texts: a set": ({"texts": set("abcdef")}, "texts must be a sequence, got set"),
    "texts: numbers": ({"texts": pandas.Series(range(6))}, "texts row 0 must be a string"),
    "texts: half a pair": ({"texts": ["\ud800", *TEXTS[1:]]}, "texts row 0 holds half a surrogate pair"),
    "steps: a set": ({"steps": {1.0, 2.0}}, "steps must be an array of numbers, got set"),
    "steps: an iterator": ({"steps": iter(ROWS)}, "steps must be an array of numbers"),
    "steps: texts": ({"steps": pandas.DataFrame(dict.fromkeys(range(4), TEXTS))}, "steps must hold real numbers"),
    "steps: ragged": ({"steps": pandas.Series([[1.0], [1.0, 2.0]])}, "steps is no rectangular array"),
    "offsets: missing": ({"offsets": pandas.array([0, None, 6], dtype="Int64")}, "offsets .* entry 1 is missing"),
    "ids: missing": ({"ids": arrow.array([7, None])}, "episode_ids .* entry 1 is missing"),
    "ids: bools": ({"ids": np.array([True, False], object)}, "episode_ids must hold real numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_order_or_no_numbers_is_refused(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        filled(**given)


def test_labels_in_another_order_than_the_channels_are_refused() -> None:
    store = sw.ValueStore(sw.Config(dim=4))
    store.add_channel("a")
    store.add_channel("b")
    frame = pandas.DataFrame({"b": [1.0, 0.5], "a": [0.0, 0.5]})
    for drives in (frame, arrow.Table.from_pandas(frame, preserve_index=False)):
        with pytest.raises(ValueError, match="drives is labelled"):
            store.observe(ROWS, OFFSETS, drives=drives)
    store.observe(ROWS, OFFSETS, drives=frame[["a", "b"]])
    with pytest.raises(ValueError, match="weights is labelled"):
        store.score(ROWS, weights=pandas.Series({"b": 1.0, "a": 0.0}))
    named = store.score(ROWS, weights={"a": 0.25, "b": 0.75}).total
    assert (store.score(ROWS, weights=pandas.Series({"a": 0.25, "b": 0.75})).total == named).all()
    assert (store.score(ROWS, weights=arrow.array([0.25, 0.75])).total == named).all()
    assert (store.score(ROWS, OFFSETS, context=pandas.Series([1, 2], index=[1, 0])).context == [1, 2]).all()
    assert (store.keys_of(pandas.Series(store.ids[:3], index=[2, 1, 0])) == store.keys[:3]).all()
