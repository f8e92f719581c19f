"""Each install line of each page in a clean virtual environment, from the built wheel, and then the page's own code.

    .venv/bin/python tests/installs.py [PAGE …]     # `make test-installs`; by default all pages

A line's packages are constrained to the versions of requirements-dev.txt. Results are printed as a table.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
UV = str(ROOT / ".venv/bin/uv")
SECONDS = 900


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


def try_page(page: Path, wheel: Path, where: Path) -> str:
    """One page in an environment of its own: what happened."""
    python = where / "environment/bin/python"
    made = run(UV, "venv", "--quiet", "--python", sys.executable, str(where / "environment"))
    if made.returncode:
        return f"no environment: {made.stderr.strip()}"
    constraints = ("--constraint", str(ROOT / "requirements-dev.txt"))
    for line in installs(page):
        wanted = [
            re.sub(r"^sharpwave(\[.*\])?$", lambda m: f"sharpwave{m[1] or ''} @ {wheel.as_uri()}", r) for r in line
        ]
        done = run(UV, "pip", "install", "--quiet", "--python", str(python), *constraints, *wanted)
        if done.returncode:
            return f"not installed: {done.stderr.strip().splitlines()[-1]}"
    shown = run(str(where / "environment/bin/sharpwave"), "--help")
    brings_cli = shown.returncode == 0
    one_line = shown.returncode == 2 and shown.stderr.count("\n") == 1 and "sharpwave[cli]" in shown.stderr
    if not brings_cli and not one_line:
        return f"sharpwave --help: {shown.stderr.strip()}"
    (where / "page.py").write_text("\n".join(programs(page)), "utf-8")
    ran = run(str(python), "page.py", cwd=where)
    if ran.returncode:
        return f"failed: {ran.stderr.strip().splitlines()[-1]}"
    return "runs" + (", with the command line" if brings_cli else ", without the command line")


def main(names: list[str]) -> int:
    """Try the pages of these names, or all; the exit code is how many failed."""
    chosen = [p for p in PAGES if installs(p) and (not names or p.stem in names)]
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        built = run(str(ROOT / ".venv/bin/maturin"), "build", "--release", "--locked", "--out", scratch, cwd=ROOT)
        if built.returncode:
            sys.exit(built.stderr)
        wheel = next(Path(scratch).glob("*.whl"))
        print("| page | installs | then its code | seconds |\n|---|---|---|---|")
        for page in chosen:
            began = time.monotonic()
            where = Path(scratch) / page.stem
            where.mkdir()
            said = try_page(page, wheel, where)
            failed += not said.startswith("runs")
            asked = ", ".join(f"`{' '.join(line)}`" for line in installs(page))
            print(f"| {page.relative_to(ROOT)} | {asked} | {said} | {time.monotonic() - began:.0f} |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
