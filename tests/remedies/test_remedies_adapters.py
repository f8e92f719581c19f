"""Blends of LoRA adapters, with peft's own ΔW as the judge."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")
import peft
import tiny_trl
import torch
from sharpwave.remedies import blend_adapters, search

Deltas = dict[str, Any]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def adapter(path: Path, seed: int, dtype: Any = torch.float32, **options: Any) -> Path:
    """An adapter of the tiny model, as peft saves it, with a B that is not zero."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM", **options}
    model = peft.get_peft_model(tiny_trl.model(), peft.LoraConfig(**settings), autocast_adapter_dtype=False)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape).to(dtype)
    model.save_pretrained(path)
    return path


def deltas(path: Path) -> Deltas:
    """ΔW of each module, as peft computes it from an adapter that it loads."""
    model = peft.PeftModel.from_pretrained(tiny_trl.model(), path)
    found = {n: m.get_delta_weight("default") for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    assert len(found) == 4
    return {name: delta.detach().double() for name, delta in found.items()}


def close(found: Deltas, expected: Deltas, tolerance: float = 1e-5) -> bool:
    size = max(float(delta.abs().max()) for delta in expected.values())
    return all(float((found[n] - expected[n]).abs().max()) <= tolerance * size for n in expected)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two adapters that differ in rank and in scale."""
    options = {"r": 6, "lora_alpha": 3, "use_rslora": True}
    return adapter(tmp_path / "base", 1), adapter(tmp_path / "tuned", 2, **options)


def test_linear_is_exact(pair: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = map(deltas, pair)
    found = deltas(blend_adapters(*pair, tmp_path / "out", 0.3))
    assert close(found, {n: 0.7 * a[n] + 0.3 * b[n] for n in a})
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["r"] == 10
    assert config["target_modules"]


def test_spherical_turns_the_update(pair: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = map(deltas, pair)
    found = deltas(blend_adapters(*pair, tmp_path / "out", 0.3, "spherical"))
    expected: Deltas = {}
    for name in a:
        angle = math.acos(float((a[name] * b[name]).sum() / a[name].norm() / b[name].norm()))
        assert angle > 0.1
        expected[name] = (math.sin(0.7 * angle) * a[name] + math.sin(0.3 * angle) * b[name]) / math.sin(angle)
    assert close(found, expected)
    assert not close(found, {n: 0.7 * a[n] + 0.3 * b[n] for n in a}, 1e-2)


def test_the_ends_are_the_two_adapters(pair: tuple[Path, Path], tmp_path: Path) -> None:
    for weight, source in zip((0.0, 1.0), pair, strict=True):
        out = blend_adapters(*pair, tmp_path / str(weight), weight)
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            assert (out / file).read_bytes() == (source / file).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_adapter_and_the_model_without(dtype: Any, tmp_path: Path) -> None:
    tuned = adapter(tmp_path / "tuned", 2, dtype)
    whole = deltas(tuned)
    found = deltas(blend_adapters(None, tuned, tmp_path / "out", 0.25))
    assert close(found, {n: 0.25 * whole[n] for n in whole})
    nothing = deltas(blend_adapters(None, tuned, tmp_path / "zero", 0.0))
    assert all(float(delta.abs().max()) == 0.0 for delta in nothing.values())
    half = blend_adapters(adapter(tmp_path / "base", 1, dtype), tuned, tmp_path / "half", 0.5)
    assert (half / "adapter_model.safetensors").stat().st_size > (tuned / "adapter_model.safetensors").stat().st_size


def test_bad_adapters_are_refused_and_leave_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, tuned = pair
    other = adapter(tmp_path / "other", 3, target_modules=["q_proj"])
    dora = adapter(tmp_path / "dora", 3, use_dora=True)
    ranks = adapter(tmp_path / "ranks", 3, rank_pattern={"q_proj": 2})
    saved = adapter(tmp_path / "saved", 3, modules_to_save=["lm_head"])
    kind = adapter(tmp_path / "kind", 3)
    config = json.loads((kind / "adapter_config.json").read_text())
    (kind / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
    tiny_trl.model().save_pretrained(tmp_path / "model")
    before = {p.name for p in tmp_path.iterdir()}
    for source, words in {
        other: "adapt different modules",
        dora: "is no part of LoRA",
        ranks: "rank_pattern cannot be blended",
        saved: "is no part of LoRA",
        kind: "only LoRA adapters can be blended, not 'IA3'",
        tmp_path / "model": "holds no adapter",
    }.items():
        with pytest.raises(ValueError, match=words) as caught:
            blend_adapters(base, source, tmp_path / "out")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="a zero has no direction"):
        blend_adapters(None, tuned, tmp_path / "out", method="spherical")
    with pytest.raises(FileNotFoundError):
        blend_adapters(base, tmp_path / "nowhere", tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == before


def test_a_search_over_an_adapter(tmp_path: Path) -> None:
    tuned = adapter(tmp_path / "tuned", 2)
    tiny_trl.model().save_pretrained(tmp_path / "model")
    whole = float(torch.stack([d.norm() for d in deltas(tuned).values()]).norm())

    def metric(path: Path) -> float:
        return -abs(float(torch.stack([d.norm() for d in deltas(path).values()]).norm()) / whole - 0.5)

    found = search(tmp_path / "model", tuned, metric, weights=(0, 0.5, 1))
    assert found.best.weight == 0.5
    assert found.best.value == pytest.approx(0, abs=1e-5)
    assert [p.value for p in found.points[::2]] == pytest.approx([-0.5, -0.5])
    assert search(None, tuned, metric, weights=(0.5,)).best.value == pytest.approx(found.best.value, abs=1e-6)


def test_the_command_knows_an_adapter(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("typer")
    from sharpwave import cli

    base, tuned = map(str, pair)
    tiny_trl.model().save_pretrained(tmp_path / "model")
    cli.app(["blend", base, tuned, "--out", str(tmp_path / "both"), "--weight", "0.3"])
    assert "adapter, linear, 0.7 of" in capsys.readouterr().out
    direct = blend_adapters(*pair, tmp_path / "direct", 0.3)
    assert close(deltas(tmp_path / "both"), deltas(direct), 0.0)
    cli.app(["blend", str(tmp_path / "model"), tuned, "--out", str(tmp_path / "weak"), "--weight", "0.3"])
    whole = deltas(pair[1])
    assert close(deltas(tmp_path / "weak"), {n: 0.3 * whole[n] for n in whole})
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.app(["blend", base, str(tmp_path / "model"), "--out", str(tmp_path / "no")])
    assert caught.value.code == 2
    assert "is an adapter and" in capsys.readouterr().err
