"""The demo lies in the checkout, not in the package: how it is found, what is said elsewhere, what still works."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import sharpwave as sw
from sharpwave import cli, demo
from sharpwave.text import packages

PACKAGE = Path(sw.__file__).parent
CHECKOUT = PACKAGE.parent.parent


def test_the_package_has_no_demo_but_a_way_to_it() -> None:
    assert sorted(p.name for p in (PACKAGE / "demo").iterdir() if p.suffix) == ["__init__.py", "check.py", "models.py"]
    assert Path(demo.checkout("command").__file__) == CHECKOUT / "examples" / "demo" / "command.py"


def test_elsewhere_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an installed package, in a directory that is no checkout; in one that is, that checkout's is taken."""
    monkeypatch.setattr(demo, "_PACKAGE", tmp_path / "lib" / "site-packages" / "sharpwave")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.app(["demo", "--out", "runs"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "`make demo` in a checkout" in said
    assert "pip install 'sharpwave[demo]'" in said
    assert not (tmp_path / "runs").exists()
    monkeypatch.chdir(CHECKOUT)
    assert demo.checkout("check").__name__ == "examples.demo.check"


def test_the_old_names_work_and_say_the_new_ones() -> None:
    sys.modules.pop("sharpwave.demo.models", None)
    with pytest.warns(DeprecationWarning, match=r"sharpwave\.demo\.models is now sharpwave\.text\.packages"):
        from sharpwave.demo.models import minilm_path
    assert minilm_path is packages.minilm_path


def test_the_old_check_is_the_new_one(tmp_path: Path) -> None:
    """``python -m sharpwave.demo.check``, which a pipeline may call."""
    command = [sys.executable, "-m", "sharpwave.demo.check", "nothing.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "nothing.json" in done.stderr


def test_what_a_wheel_holds_is_small() -> None:
    """Its files, packed as pip packs them: the compiled core, Python, the exploit table's texts and page."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in sorted(PACKAGE.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                wheel.write(path, path.relative_to(PACKAGE))
    assert any(name.startswith("_core.") and name.endswith(".so") for name in wheel.namelist())
    assert len(packed.getvalue()) < 4 << 20
