"""The documentation is true: its Python runs, its output is what is printed, its commands, paths and links exist.

A file's `python` blocks run in order and share a namespace, in an empty directory. A `text` block right after one is
what it prints; numbers may differ by one in the last digit shown, because an encoder's own arithmetic is not
ours to fix. `.venv/bin/python tests/docs/test_docs.py` writes those blocks anew. `sh` blocks are looked at, not run. A
`tree` block is a list of paths, indented below their folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```[ ]*$", re.M | re.S)
NUMBER = re.compile(r"[-+]?\d+\.\d+(?:e[-+]?\d+)?")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@dataclass
class Block:
    language: str
    code: str
    line: int
    """Of its first line, counted from 1."""
    follows: bool
    """Whether nothing but blank lines lies between the block before and this one."""


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    end = None
    for match in FENCE.finditer(text):
        indent = len(match["indent"])
        code = "".join(line[indent:] for line in match["code"].splitlines(keepends=True))
        follows = end is not None and not text[end : match.start()].strip()
        yield Block(match["language"], code, text.count("\n", 0, match.start("code")) + 1, follows)
        end = match.end()


@pytest.mark.filterwarnings("ignore:.*unknown to the store")  # random policies write random words
@pages
def test_python_blocks_run_and_print_what_they_say(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: str | None = None
    for block in blocks(page):
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.code, str(page), "exec", dont_inherit=True)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, namespace)
            printed = out.getvalue()
        elif block.language == "text" and block.follows and printed is not None:
            assert_printed(block.code, printed, f"{page.name}:{block.line}")
            printed = None
        else:
            printed = None


def assert_printed(said: str, printed: str, where: str) -> None:
    """Equal, spaces aside, up to one in the last digit of a number with a fraction."""
    message = f"{where} says\n{said}\nbut what is printed is\n{printed}"
    assert " ".join(NUMBER.sub("#", said).split()) == " ".join(NUMBER.sub("#", printed).split()), message
    for a, b in zip(NUMBER.findall(said), NUMBER.findall(printed), strict=True):
        decimals = len(a.partition(".")[2].partition("e")[0])
        exponent = int(a.partition("e")[2] or 0)
        assert float(a) == pytest.approx(float(b), abs=1.01 * 10.0 ** (exponent - decimals)), message


@pages
def test_shell_blocks_name_commands_that_exist(page: Path) -> None:
    for block in blocks(page):
        if block.language in ("sh", "bash", "shell", "console"):
            for number, line in enumerate(block.code.replace("\\\n", " ").splitlines(), block.line):
                words = shlex.split(line.removeprefix("$ "), comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                if words:
                    assert command_exists(words), f"{page.name}:{number}: {line}"


def command_exists(words: list[str]) -> bool:
    command, *arguments = words
    if command == "make":
        return all(a in make_targets() for a in arguments if "=" not in a and not a.startswith("-"))
    if Path(command).name == "sharpwave":
        return subcommand_exists(arguments)
    if Path(command).name in ("python", "python3"):
        if arguments[:1] == ["-m"]:
            return importlib.util.find_spec(arguments[1]) is not None
        return not arguments or arguments[0].startswith("-") or (ROOT / arguments[0]).exists()
    if command.startswith("."):
        return (ROOT / command).exists()
    return shutil.which(command) is not None or shutil.which(command, path=str(ROOT / ".venv/bin")) is not None


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


def subcommand_exists(arguments: list[str]) -> bool:
    """The subcommand of the command line, and the options given to it."""
    typer = pytest.importorskip("typer")
    from sharpwave.cli import commands

    (group,) = (thing for thing in vars(commands).values() if isinstance(thing, typer.Typer))
    command = typer.main.get_command(group)
    if arguments and not arguments[0].startswith("-"):
        commands = getattr(command, "commands", {})
        if arguments[0] not in commands:
            return False
        command, arguments = commands[arguments[0]], arguments[1:]
    known = {"--help", *(o for parameter in command.params for o in (*parameter.opts, *parameter.secondary_opts))}
    return all(a.partition("=")[0] in known for a in arguments if a.startswith("-"))


@pages
def test_trees_list_paths_that_exist(page: Path) -> None:
    for block in blocks(page):
        if block.language != "tree":
            continue
        folders: list[tuple[int, Path]] = [(-1, ROOT)]
        for number, line in enumerate(block.code.splitlines(), block.line):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            depth = len(line) - len(line.lstrip())
            while folders[-1][0] >= depth:
                folders.pop()
            # Two spaces end the names; several may share a line, separated by " · ".
            names = re.split(r"\s{2,}", line.strip())[0].split(" · ")
            for name in names:
                path = folders[-1][1] / name
                found = list(path.parent.glob(path.name)) if "*" in name else path.exists()
                assert found, f"{page.name}:{number}: there is no {path.relative_to(ROOT)}"
            folders.append((depth, folders[-1][1] / names[0]))


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and mkdocs make it."""
    text = re.sub(r"[`*]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text))


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.M)
            assert anchor in map(slug, headings), f"{page.name} links to {target}, which has no such heading"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "trainers").glob("*.md")), ids=lambda page: page.stem)
def test_a_trainers_page_says_what_each_of_them_must(page: Path) -> None:
    if page.stem == "index":
        linked = re.findall(r"\(([a-z0-9]+)\.md\)", page.read_text())
        assert set(linked) >= {other.stem for other in page.parent.glob("*.md")} - {"index"}
        return
    headings = re.findall(r"^## (.*)$", FENCE.sub("", page.read_text()), re.M)
    processes = {"Several processes", "One store for all workers", "One store for all ranks"}
    assert set(headings) >= {"Install", "Resuming", "What is logged", "What is not supported"}
    assert processes & set(headings)
    run = {"verl": "test_verl.py", "ray": "test_serve_ray.py"}.get(page.stem)
    if run is None:
        assert "```python\n" in page.read_text()
    else:  # in the second environment
        assert f"{page.stem}.md" in (ROOT / "tests" / "contracts" / run).read_text()


def test_make_help_lists_every_public_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    explained = set(re.findall(r"^([a-z][a-z-]*):.*## ", makefile, re.M))
    assert {"setup", "demo", "test", "bench", "lint", "docs", "help"} <= explained
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
    assert phony is not None
    assert set(phony[1].split()) == explained


def rewrite(page: Path) -> None:
    """Put what each `python` block prints into the `text` block right after it, if there is one."""
    text = page.read_text()
    matches = list(FENCE.finditer(text))
    namespace: dict[str, object] = {"__name__": "__main__"}
    parts, place = [], 0
    for match, after in zip(matches, [*matches[1:], None], strict=True):
        parts.append(text[place : match.end()])
        place = match.end()
        if match["language"] != "python":
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(match["code"], str(page), "exec", dont_inherit=True), namespace)
        if after is not None and after["language"] == "text" and not text[match.end() : after.start()].strip():
            lines = "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
            parts.append(f"\n\n```text\n{lines}\n```")
            place = after.end()
    page.write_text("".join([*parts, text[place:]]))


if __name__ == "__main__":
    for page in PAGES:
        if "```python" in page.read_text():
            with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
                rewrite(page)
