"""The house is in order: what is declared, pinned, documented and built agree with each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import pytest
import sharpwave as sw
import yaml
from mutations import BEGIN, END, MUTATIONS, PAGE
from navigation import with_trainers
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]


def pins() -> dict[str, str]:
    """Version by name, of what the development environment holds."""
    lines = (ROOT / "requirements-dev.txt").read_text() + (ROOT / "requirements-models.txt").read_text()
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lines, re.M)}


def test_numpy_is_the_only_hard_dependency() -> None:
    assert [Requirement(line).name for line in PROJECT["dependencies"]] == ["numpy"]


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"]))
def test_the_environment_satisfies_the_extra(extra: str) -> None:
    for line in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name == "sharpwave":
            assert requirement.extras <= set(PROJECT["optional-dependencies"])
        elif extra != "ray":
            assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), line


def test_pins_name_no_host_and_no_path() -> None:
    names = [path.name for path in ROOT.glob("requirements-*")]
    assert "requirements-dev.txt" in names
    for name in names:
        text = "\n".join(line.partition("#")[0] for line in (ROOT / name).read_text().splitlines())
        assert not re.search(r"://|\s@\s|--(index|find|extra)", text), name


def test_versions_agree() -> None:
    assert sw.__version__ == CARGO["version"]
    assert CARGO["license"] == PROJECT["license"] == "Apache-2.0"
    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    numbers = [tuple(map(int, version.split("."))) for version in (CARGO["rust-version"], toolchain)]
    assert numbers[0] <= numbers[1]


def test_importing_imports_nothing_beside_numpy_and_starts_no_thread() -> None:
    code = (
        "import sys, threading, numpy; before = {m.partition('.')[0] for m in sys.modules}; import sharpwave; "
        "after = {m.partition('.')[0] for m in sys.modules} - before - set(sys.stdlib_module_names); "
        "print(sorted(after), threading.active_count())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['sharpwave'] 1"


def test_every_public_name_is_there_and_documented() -> None:
    for name in sw.__all__:
        thing = getattr(sw, name)
        if callable(thing):
            assert (thing.__doc__ or "").strip(), name
    page = (ROOT / "docs" / "api.md").read_text()
    missing = [name for name in sw.__all__ if not re.search(rf"\b{name}\b", page)]
    assert not missing, f"docs/api.md lacks {missing}"


def test_every_page_of_the_documentation_is_in_its_navigation() -> None:
    nav = with_trainers(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"], ROOT / "docs")
    named = re.findall(r"'([\w/-]+\.md)'", str(nav))
    assert sorted(named) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "set -euo pipefail" in script
    assert re.search(r"^make test$", script, re.M)
    assert "make test" in (ROOT / "README.md").read_text()


def test_every_mutation_applies_and_stands_in_the_table() -> None:
    for mutation in MUTATIONS:
        text = (ROOT / "rust" / "core" / "src" / mutation.file).read_text()
        assert text.count(mutation.old) == 1, mutation.what
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\| (.+?) \| `(\S+)` \| (?!\*\*nothing)", table, re.M)
    assert rows == [(mutation.what, mutation.file) for mutation in MUTATIONS]
