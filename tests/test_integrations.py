"""What all integrations keep to: they are imported only when asked for, and say in one line what they miss."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Of each integration: a package that it cannot do without, and the extra that brings it.
NEEDS = {
    "gymnasium": ("gymnasium", "gym"),
    "sb3": ("stable_baselines3", "gym"),
    "torchrl": ("torchrl", "torchrl"),
    "trl": ("transformers", "trl"),
    "verl": ("verl", "ray"),
}
ALONE = {"dense", "observations", "openrlhf", "pointwise", "stepwise", "verifiers"}  # these import NumPy and no more


@pytest.mark.parametrize("module", NEEDS)
def test_a_missing_package_is_one_line_that_names_the_extra(module: str) -> None:
    package, extra = NEEDS[module]
    code = f"import sys; sys.modules[{package!r}] = None\nimport sharpwave.integrations.{module}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("sharpwave._lazy.MissingExtra: ")
    assert f"pip install 'sharpwave[{extra}]'" in last


def test_what_they_share_imports_none_of_them() -> None:
    names = ", ".join(f"sharpwave.integrations.{name}" for name in sorted(ALONE))
    code = (
        f"import sys, {names}; "
        "print(sorted({'torch', 'gymnasium', 'stable_baselines3', 'torchrl', 'trl', 'verifiers'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
