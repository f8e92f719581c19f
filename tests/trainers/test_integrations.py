"""What trainers' modules and environments' keep to: imported only when asked for, and one line for what they miss."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Of each module: a package that it cannot do without, and the extra that brings it.
NEEDS = {
    "envs.gymnasium": ("gymnasium", "gym"),
    "envs.sb3": ("stable_baselines3", "gym"),
    "envs.torchrl": ("torchrl", "torchrl"),
    "trainers.trl": ("transformers", "trl"),
    "trainers.verl": ("verl", "ray"),
}
# These import NumPy and no more.
ALONE = {
    "envs.observations",
    "envs.step_reward",
    "trainers.dense",
    "trainers.openrlhf",
    "trainers.pointwise",
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


@pytest.mark.parametrize("module", NEEDS)
def test_a_missing_package_is_one_line_that_names_the_extra(module: str) -> None:
    package, extra = NEEDS[module]
    code = f"import sys; sys.modules[{package!r}] = None\nimport sharpwave.{module}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("sharpwave._lazy.MissingExtra: ")
    assert f"pip install 'sharpwave[{extra}]'" in last


def test_what_they_share_imports_none_of_them() -> None:
    names = ", ".join(f"sharpwave.{name}" for name in sorted(ALONE))
    code = (
        f"import sys, {names}; "
        "print(sorted({'torch', 'gymnasium', 'stable_baselines3', 'torchrl', 'trl', 'verifiers'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_old_names_are_the_new_modules_and_warn() -> None:
    code = (
        "import importlib, sys, warnings\n"
        f"for old, new in {OLD!r}.items():\n"
        "    with warnings.catch_warnings(record=True) as said:\n"
        "        warnings.simplefilter('always')\n"
        "        module = importlib.import_module(f'sharpwave.{old}')\n"
        "    assert module is importlib.import_module(f'sharpwave.{new}'), old\n"
        "    told = [str(w.message) for w in said if w.category is DeprecationWarning]\n"
        "    assert any(f'sharpwave.{old} is now sharpwave.{new}' in text for text in told), (old, told)\n"
        "from sharpwave.integrations.trl import SharpwaveCallback\n"
        "print(SharpwaveCallback.__module__)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "sharpwave.trainers.trl", result.stderr
