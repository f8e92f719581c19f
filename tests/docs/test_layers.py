"""The rule of layers (tests/helpers/layers.py) holds here, and fails where it is broken."""

from __future__ import annotations

from pathlib import Path

import layers
import pytest


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root


RUST = {
    "lib.rs": "mod base;\npub use crate::ops::insert::insert;\n",
    "base/slot.rs": "pub type Slot = u32;\n",
    "memory/columns.rs": "use crate::base::slot::Slot;\n#[cfg(test)]\nmod tests {\n    use crate::ops::insert;\n}\n",
    "ops/insert.rs": "use crate::memory::columns::Memories;\n",
}
PYTHON = {
    "__init__.py": "from sharpwave.store import Store as Store\n",
    "_core.pyi": "class Core: ...\n",
    "store.py": "from sharpwave import _core\n",
    "reward/__init__.py": "from sharpwave.reward.terms import Term as Term\n",
    "reward/terms.py": "from ..store import Store\n",
}


def broken(tmp_path: Path, rust: dict[str, str], python: dict[str, str]) -> str:
    crate, package = tree(tmp_path / "src", RUST | rust), tree(tmp_path / "sharpwave", PYTHON | python)
    return "\n".join(layers.check(crate, package, frozenset()))


def test_the_code_keeps_to_its_layers() -> None:
    found = layers.check(layers.ROOT / "rust/core/src", layers.ROOT / "python/sharpwave", layers.EXCEPTIONS)
    assert not found, "\n".join(found)


def test_a_sound_tree_passes(tmp_path: Path) -> None:
    assert broken(tmp_path, {}, {}) == ""


@pytest.mark.parametrize(
    ("rust", "python", "line", "reason"),
    [
        (
            {"base/slot.rs": "// a line\nfn f() { crate::memory::columns::size(); }\n"},
            {},
            "base/slot.rs:2: fn f() { crate::memory::columns::size(); }",
            "base.slot is below memory.columns",
        ),
        (
            {
                "ops/observe.rs": "use crate::ops::insert::{self, insert};\n",
                "ops/insert.rs": "use crate::ops::observe::x;\n",
            },
            {},
            "ops/insert.rs:1: use crate::ops::observe::x;",
            "a circle of ops.insert, ops.observe",
        ),
        (
            {
                "ops/mod.rs": "pub(crate) mod observe;\npub(crate) use observe::{\n    Report,\n    observe,\n};\n",
                "ops/observe.rs": "use crate::ops::insert::insert;\n",
                "ops/insert.rs": "use crate::ops::{\n    Report,\n};\n",
            },
            {},
            "ops/insert.rs:1: use crate::ops::{",
            "a circle of ops.insert, ops.observe",
        ),
        ({"other.rs": "use crate::base::slot::Slot;\n"}, {}, "other.rs:1", "other is in no layer"),
        (
            {},
            {"store.py": "def f() -> None:\n    from sharpwave.reward.terms import Term\n"},
            "store.py:2: from sharpwave.reward.terms import Term",
            "store is below reward.terms",
        ),
        (
            {},
            {"reward/scale.py": "from .terms import Term\n", "reward/terms.py": "import sharpwave.reward.scale\n"},
            "reward/terms.py:1: import sharpwave.reward.scale",
            "a circle of reward.scale, reward.terms",
        ),
    ],
)
def test_what_runs_up_or_in_a_circle_is_named(
    tmp_path: Path, rust: dict[str, str], python: dict[str, str], line: str, reason: str
) -> None:
    found = broken(tmp_path, rust, python)
    assert line in found
    assert reason in found


def test_an_exception_that_is_none_any_more_is_an_error(tmp_path: Path) -> None:
    crate, package = tree(tmp_path / "src", RUST), tree(tmp_path / "sharpwave", PYTHON)
    allowed = {("base.slot", "memory.columns")}
    assert "is no exception any more" in "\n".join(layers.check(crate, package, allowed))
