"""What trainers' modules and environments' keep to: imported only when asked for, and one line for what they miss."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sharpwave as sw
from paths import ROOT

MODULES = [
    f"{folder.name}.{path.stem}"
    for folder in (Path(sw.__file__).parent / "trainers", Path(sw.__file__).parent / "envs")
    for path in sorted(folder.glob("*.py"))
    if path.stem != "__init__"
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# These import NumPy and no more.
ALONE = {
    "envs.observations",
    "envs.step_reward",
    "trainers.dense",
    "trainers.openrlhf",
    "trainers.pointwise",
    "trainers.reference",
    "trainers.verifiers",
}
OLD = {
    "integrations.dense": "trainers.dense",
    "integrations.openrlhf": "trainers.openrlhf",
    "integrations.pointwise": "trainers.pointwise",
    "integrations.trl": "trainers.trl",
    "integrations.verifiers": "trainers.verifiers",
    "integrations.gymnasium": "envs.gymnasium",
    "integrations.observations": "envs.observations",
    "integrations.sb3": "envs.sb3",
    "integrations.torchrl": "envs.torchrl",
}


BARE = f"""
import importlib, json, sys

class NumPyAlone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {{"numpy", "sharpwave"}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NumPyAlone())
said = {{}}
for module in {MODULES}:
    try:
        importlib.import_module("sharpwave." + module)
    except ImportError as error:
        said[module] = f"{{type(error).__name__}}: {{error}}"
print(json.dumps(said))
"""


def test_a_missing_package_is_one_line_that_names_the_extra() -> None:
    result = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True)
    said: dict[str, str] = json.loads(result.stdout)
    for module, line in said.items():
        named = re.fullmatch(r"MissingExtra: .* is needed for this .*: pip install 'sharpwave\[(\w+)\]'( \w+)*", line)
        assert named is not None, f"{module}: {line}"
        assert named[1] in EXTRAS, f"{module}: {line}"
    assert {"envs.gymnasium", "envs.sb3", "envs.torchrl", "trainers.trl", "trainers.verl"} <= said.keys()
    assert not ALONE & said.keys()


def test_what_they_share_imports_none_of_them() -> None:
    names = ", ".join(f"sharpwave.{name}" for name in sorted(ALONE))
    code = (
        f"import sys, {names}; "
        "print(sorted({'torch', 'gymnasium', 'stable_baselines3', 'torchrl', 'trl', 'verifiers'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("old", OLD)
def test_an_old_module_is_the_new_one_and_warns(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    new = importlib.import_module(f"sharpwave.{OLD[old]}")
    monkeypatch.delitem(sys.modules, f"sharpwave.{old}", raising=False)
    with pytest.warns(DeprecationWarning, match=f"sharpwave.{old} is now sharpwave.{OLD[old]}"):
        assert importlib.import_module(f"sharpwave.{old}") is new


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        *((f"trainers.{module}", "Together", "BatchedReward") for module in ("pointwise", "openrlhf", "verifiers")),
        ("envs.step_reward", "Keeps", "StoreMixin"),
        ("envs.step_reward", "Freezes", "FreezableStoreMixin"),
    ],
)
def test_an_old_name_in_a_module_is_the_new_one_and_warns(module: str, old: str, new: str) -> None:
    found = importlib.import_module(f"sharpwave.{module}")
    with pytest.warns(DeprecationWarning, match=rf"sharpwave.{module}.{old} is now .*{new}"):
        assert getattr(found, old) is getattr(found, new)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = found.Nothing
