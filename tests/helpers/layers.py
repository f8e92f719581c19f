"""The layers of the code: no import runs up, and no imports run in a circle.

`make lint` runs `python tests/helpers/layers.py`. It reads `crate::` paths in rust/core/src and imports in
python/sharpwave, prints every line that breaks the rule and exits with 1. Imports under `if TYPE_CHECKING` and within
functions count: a layer that knows another depends on it, whenever it loads it. Tests within a Rust file may use every
layer.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

# From the lowest to the highest. Names on one line are siblings: they may use each other, but not in a circle.
RUST: Sequence[Sequence[str]] = (
    ("error",),
    ("base",),
    ("config", "linalg"),
    ("memory",),
    ("index", "graph"),
    ("values",),
    ("archive",),
    ("store",),
    ("ops", "query"),
    ("storage",),
    ("shared",),
    ("lib",),
)
PYTHON: Sequence[Sequence[str]] = (
    ("_core",),  # and what else begins with an underscore
    ("config", "results"),
    ("habituation", "preview", "view"),
    ("foresight", "granularity"),
    ("store",),
    ("serve",),  # a served store is a store, and a reward takes one by its address
    ("text", "divergence", "evaluate", "interop", "speed", "torch", "tuning", "viz"),
    ("embed", "episodes"),
    ("reward",),
    ("trainers", "envs"),
    ("remedies", "guide"),
    ("probe",),
    ("demo", "integrations"),
    ("cli",),
    ("__init__",),
)

# What still breaks the rule: it may go on until it is mended, and is an error here once it is.
EXCEPTIONS: Set[tuple[str, str]] = set()


class Import(NamedTuple):
    """One line that makes `source` depend on `target`, both modules with dots."""

    path: Path
    line: int
    source: str
    target: str
    text: str


def rust_imports(source: Path) -> Iterator[Import]:
    """Every `crate::` or `super::` path outside tests and comments, resolved to the file that has what it names."""
    modules = {module_of(path.relative_to(source)): path for path in sorted(source.rglob("*.rs"))}
    texts = {
        module: re.sub(r"//.*", "", path.read_text("utf-8").split("\n#[cfg(test)]\n")[0])
        for module, path in modules.items()
    }
    # What a layer's mod.rs hands on: a name there, and the module that has it.
    handed_on = {
        (module, name): f"{module}.{match[1].strip(':').replace('::', '.')}"
        for module, text in texts.items()
        for match in re.finditer(r"\bpub(?:\(crate\))? use ((?:\w+::)+)(\{[^}]*\}|\w+);", text)
        for name in re.findall(r"\w+", match[2])
    }
    for module, text in texts.items():
        for match in re.finditer(r"\b(crate|super)::((?:\w+::)*)(\{[^}]*\}|\w+)", text):
            prefix = module.split(".")[:-1] if match[1] == "super" else []
            prefix += match[2].strip(":").split("::") if match[2] else []
            for name in re.findall(r"\w+", match[3]):
                parts = [*prefix, name]
                named = next((n for n in range(len(parts)) if (".".join(parts[:n]), parts[n]) in handed_on), None)
                if named is not None:
                    parts = handed_on[".".join(parts[:named]), parts[named]].split(".")
                target = longest(parts, modules)
                if target and target != module:
                    line = text.count("\n", 0, match.start()) + 1
                    yield Import(modules[module], line, module, target, text.splitlines()[line - 1].strip())


def module_of(path: Path) -> str:
    parts = list(path.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] in {"mod", "__init__"} and len(parts) > 1 else parts)


def longest(parts: Sequence[str], modules: Mapping[str, Path]) -> str | None:
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in modules), None)


def python_imports(source: Path) -> Iterator[Import]:
    """Every import of the package by itself, resolved to the file that it names."""
    modules = {module_of(path.relative_to(source)): path for path in sorted(source.rglob("*.py"))}
    modules["_core"] = source / "_core.pyi"
    for module, path in modules.items():
        if path.suffix == ".pyi":
            continue
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        lines = path.read_text("utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            line = node.lineno
            names: list[list[str]] = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[1:] for alias in node.names if alias.name.startswith(source.name + ".")]
            else:
                base = (node.module or "").split(".") if node.module else []
                if node.level:
                    base = [*package[: len(package) - node.level + 1], *base]
                elif base[:1] == [source.name]:
                    base = base[1:]
                else:
                    continue
                names = [[*base, alias.name] for alias in node.names]
            for name in names:
                target = longest(name, modules)
                if target and target != module:
                    yield Import(path, line, module, target, lines[line - 1].strip())


def rising(imports: Sequence[Import], layers: Sequence[Sequence[str]]) -> list[str]:
    """Imports of a higher layer, and modules that no layer names."""
    rank = {name: at for at, names in enumerate(layers) for name in names}

    def of(module: str) -> int | None:
        parts = module.split(".")
        if parts[0].startswith("_") and not parts[0].startswith("__"):
            return 0  # the package's own small tools
        return next((rank[n] for k in range(len(parts), 0, -1) if (n := ".".join(parts[:k])) in rank), None)

    broken = []
    for found in imports:
        source, target = of(found.source), of(found.target)
        where = f"{found.path}:{found.line}: {found.text}"
        if source is None or target is None:
            module = found.source if source is None else found.target
            broken.append(f"{where}\n    {module} is in no layer of tests/helpers/layers.py")
        elif target > source:
            broken.append(f"{where}\n    {found.source} is below {found.target}")
    return list(dict.fromkeys(broken))


def circles(imports: Sequence[Import]) -> list[str]:
    """The circles among modules: each with the lines that close it (Tarjan's strongly connected components)."""
    uses: dict[str, set[str]] = {}
    for found in imports:
        uses.setdefault(found.source, set()).add(found.target)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[set[str]] = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in sorted(uses.get(module, ())):
            if other not in number:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == number[module]:
            at = stack.index(module)
            components.append(set(stack[at:]))
            del stack[at:]

    for module in sorted(uses):
        if module not in number:
            visit(module)
    broken = []
    for members in components:
        if len(members) > 1:
            lines = [
                f"    {found.path}:{found.line}: {found.text}"
                for found in imports
                if found.source in members and found.target in members
            ]
            broken.append("\n".join([f"a circle of {', '.join(sorted(members))}:", *dict.fromkeys(lines)]))
    return broken


def check(rust: Path, python: Path, exceptions: Set[tuple[str, str]]) -> list[str]:
    """What is wrong with two trees, a line or more each."""
    crate, package = list(rust_imports(rust)), list(python_imports(python))
    there = {(found.source, found.target) for found in [*crate, *package]}
    stale = [
        f"{Path(__file__).name}: {pair} is no exception any more: remove it" for pair in sorted(exceptions - there)
    ]
    crate, package = ([i for i in imports if (i.source, i.target) not in exceptions] for imports in (crate, package))
    return [*rising(crate, RUST), *circles(crate), *rising(package, PYTHON), *circles(package), *stale]


if __name__ == "__main__":
    broken = check(ROOT / "rust/core/src", ROOT / "python/sharpwave", EXCEPTIONS)
    print(*broken, sep="\n", file=sys.stderr)
    sys.exit(bool(broken))
