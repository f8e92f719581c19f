"""Blends of checkpoints: the ends bit for bit, the middle as computed directly, whatever the layout, and nothing left
behind when it fails."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file
from sharpwave.remedies import blend, search, tensors
from sharpwave.remedies.blend_search import Blends
from sharpwave.remedies.blending import spherical
from sharpwave.text.packages import smollm2_path

Tensors = dict[str, Any]
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def model(seed: int, dtype: Any = torch.float32) -> Tensors:
    rng = torch.Generator().manual_seed(seed)
    shapes = {"embed.weight": (17, 6), "layer.0.weight": (6, 5), "layer.0.bias": (5,), "norm": (1,), "none": (0, 3)}
    made = {name: torch.randn(shape, generator=rng).to(dtype) for name, shape in shapes.items()}
    return {**made, "steps": torch.arange(4) + seed}


def write(path: Path, weights: Tensors, shards: int = 1) -> Path:
    """A checkpoint as transformers writes one, among what trainers leave beside it."""
    path.mkdir(parents=True)
    if shards == 1:
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    else:
        places = {name: f"model-{n % shards + 1:05}-of-{shards:05}.safetensors" for n, name in enumerate(weights)}
        for file in set(places.values()):
            save_file({n: t for n, t in weights.items() if places[n] == file}, path / file, metadata={"format": "pt"})
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (path / "config.json").write_text(json.dumps({"of": path.name}))
    (path / "optimizer.pt").write_bytes(b"large")
    save_file({"embed.weight": torch.zeros(1)}, path / "ema.safetensors")
    return path


def read(path: Path) -> Tensors:
    found: Tensors = {}
    for file in path.glob("model*.safetensors"):
        found.update(load_file(file))
    return found


def same(a: Tensors, b: Tensors) -> bool:
    bits = [(a[n].flatten().view(torch.uint8), b[n].flatten().view(torch.uint8)) for n in a]
    return set(a) == set(b) and all(a[n].dtype == b[n].dtype for n in a) and all(torch.equal(x, y) for x, y in bits)


def left(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_the_ends_are_the_two_models_bit_for_bit(dtype: Any, method: Any, tmp_path: Path) -> None:
    base, tuned = write(tmp_path / "base", model(1, dtype)), write(tmp_path / "tuned", model(2, dtype))
    assert same(read(blend(base, tuned, tmp_path / "zero", 0.0, method)), model(1, dtype))
    assert same(read(blend(base, tuned, tmp_path / "one", 1.0, method)), model(2, dtype))
    assert left(tmp_path / "one") == {"model.safetensors", "config.json"}  # neither an optimiser nor an average
    assert json.loads((tmp_path / "one" / "config.json").read_text()) == {"of": "base"}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_linear_is_the_direct_computation(dtype: Any, tmp_path: Path) -> None:
    a, b = model(1, dtype), model(2, dtype)
    found = read(blend(write(tmp_path / "base", a), write(tmp_path / "tuned", b), tmp_path / "out", 0.3))
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    expected = {n: ((1 - 0.3) * a[n].to(exact) + 0.3 * b[n].to(exact)).to(dtype) for n in a if n != "steps"}
    assert same(found, {**expected, "steps": a["steps"]})
    assert not same(found, a)


def test_bfloat16_is_rounded_as_torch_rounds_it() -> None:
    rng = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (100_000,), generator=rng, dtype=torch.int64).to(torch.int32)
    values = torch.cat([bits.view(torch.float32), torch.tensor([0.0, -0.0, float("inf"), 3.4e38, 1e-45])])
    found = torch.frombuffer(bytearray(tensors.encode(values.numpy(), "BF16")), dtype=torch.bfloat16)
    expected = values.to(torch.bfloat16)
    number = ~values.isnan()
    assert torch.equal(found[number].view(torch.int16), expected[number].view(torch.int16))
    assert bool(found[~number].isnan().all())


def test_spherical_keeps_the_length_and_the_angle(tmp_path: Path) -> None:
    a, b = model(1), model(2)
    for name in a:
        if a[name].is_floating_point() and a[name].numel() > 1:
            b[name] *= a[name].norm() / b[name].norm()
    b["norm"] = 3 * a["norm"]  # parallel
    base, tuned = write(tmp_path / "base", a), write(tmp_path / "tuned", b)
    found = read(blend(base, tuned, tmp_path / "out", 0.25, "spherical"))
    straight = read(blend(base, tuned, tmp_path / "straight", 0.25))
    for name in ("embed.weight", "layer.0.weight", "layer.0.bias"):
        assert float(found[name].norm()) == pytest.approx(float(a[name].norm()), rel=1e-6)
        assert straight[name].norm() < 0.95 * a[name].norm()
        whole, part = (
            torch.arccos((a[name] * other[name]).sum() / a[name].norm() / other[name].norm()) for other in (b, found)
        )
        assert float(part) == pytest.approx(0.25 * float(whole), rel=1e-4)
    assert torch.equal(found["norm"], straight["norm"])


def test_spherical_falls_back_where_there_is_no_angle() -> None:
    assert spherical(0.0, 0.0, 4.0, 0.3) == (0.7, 0.3)
    assert spherical(4.0, 4.0, 4.0, 0.3) == (0.7, 0.3)
    assert spherical(-4.0, 4.0, 4.0, 0.3) == (0.7, 0.3)
    assert spherical(0.0, 1.0, 1.0, 0.5) == pytest.approx((0.5**0.5, 0.5**0.5))


def test_layouts_need_not_be_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = model(1, torch.bfloat16), model(2, torch.bfloat16)
    files = {n: (write(tmp_path / f"a{n}", a, n), write(tmp_path / f"b{n}", b, n)) for n in (1, 2, 3)}
    expected = read(blend(*files[1], tmp_path / "11", 0.4, "spherical"))
    for of_base, of_tuned in ((1, 3), (3, 1), (2, 3)):
        out = blend(files[of_base][0], files[of_tuned][1], tmp_path / f"{of_base}{of_tuned}", 0.4, "spherical")
        assert same(read(out), expected)
        assert left(out) == left(files[of_base][0]) - {"optimizer.pt", "ema.safetensors"}
    monkeypatch.setattr("sharpwave.remedies.blending.PIECE", 4)
    assert same(read(blend(*files[2], tmp_path / "pieces", 0.4)), read(blend(*files[1], tmp_path / "again", 0.4)))


def test_types_need_not_be_alike(tmp_path: Path) -> None:
    a, b = model(1, torch.bfloat16), model(2)
    base, tuned = write(tmp_path / "base", a), write(tmp_path / "tuned", b)
    half, one = (read(blend(base, tuned, tmp_path / str(w), w)) for w in (0.5, 1.0))
    assert torch.equal(half["norm"], (0.5 * a["norm"].float() + 0.5 * b["norm"]).bfloat16())
    assert torch.equal(one["norm"], b["norm"].bfloat16())
    assert torch.equal(one["steps"], b["steps"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_transformers_reads_what_was_written(tmp_path: Path) -> None:
    import tiny_trl
    from transformers import AutoModelForCausalLM

    models = [tiny_trl.model(seed) for seed in (0, 1)]
    models[0].save_pretrained(tmp_path / "base", max_shard_size="20KB")
    models[1].save_pretrained(tmp_path / "tuned")
    assert len(list((tmp_path / "base").glob("model-*.safetensors"))) > 1
    out = blend(tmp_path / "base", tmp_path / "tuned", tmp_path / "out", 0.5)
    found = AutoModelForCausalLM.from_pretrained(out).state_dict()
    for name, tensor in found.items():
        expected = 0.5 * models[0].state_dict()[name] + 0.5 * models[1].state_dict()[name]
        assert torch.equal(tensor, expected), name


def test_a_real_model_in_little_memory(tmp_path: Path) -> None:
    base = smollm2_path()
    weights = load_file(base / "model.safetensors")
    rng = torch.Generator().manual_seed(0)
    for name, tensor in weights.items():
        weights[name] = tensor + 0.01 * torch.randn(tensor.shape[-1], generator=rng).to(tensor.dtype)
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    save_file(weights, tuned / "model.safetensors")
    seen: list[tuple[int, int]] = []
    tracemalloc.start()
    try:
        out = blend(base, tuned, tmp_path / "out", 0.5, "spherical", lambda *now: seen.append(now))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sizes = [tensor.size for tensor in tensors.checkpoint(base).values()]
    assert sum(sizes) > 2.5e8
    assert peak < 5e7 < max(sizes)  # less than the largest tensor
    assert seen == [(n + 1, len(sizes)) for n in range(len(sizes))]
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    a, found = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    name = "model.layers.7.mlp.up_proj.weight"
    x, y = a[name].double(), weights[name].double()
    angle = torch.arccos((x * y).sum() / x.norm() / y.norm())
    expected = (torch.sin(angle / 2) / torch.sin(angle) * (x + y)).bfloat16()
    assert (found[name] != expected).double().mean() < 1e-4  # a tie or two falls otherwise in float32
    assert torch.allclose(found[name].double(), expected.double(), rtol=2**-7)
    assert set(found) == set(a)


def broken(path: Path, weights: Tensors, change: Callable[[bytes], bytes]) -> Path:
    write(path, weights)
    file = path / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    return path


def test_bad_input_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    base, tuned = write(tmp_path / "base", model(1)), write(tmp_path / "tuned", model(2), 2)
    other = model(2)
    del other["norm"]
    fewer = write(tmp_path / "fewer", other)
    shape = write(tmp_path / "shape", {**model(2), "norm": torch.zeros(2)})
    kind = write(tmp_path / "kind", {**model(2), "norm": torch.zeros(1, dtype=torch.int64)})
    small = {**model(2), "norm": torch.zeros(1).to(torch.float8_e4m3fn)}
    float8 = write(tmp_path / "float8", small)
    cut = broken(tmp_path / "cut", model(2), lambda raw: raw[:-3])
    noise = broken(tmp_path / "noise", model(2), lambda _: b"nothing of the kind")
    lying = broken(tmp_path / "lying", model(2), lambda raw: raw.replace(b'"shape":[6,5]', b'"shape":[7,5]'))
    index = write(tmp_path / "index", model(2), 2)
    (index / "model.safetensors.index.json").write_text("{}")
    empty = tmp_path / "empty"
    empty.mkdir()
    before = left(tmp_path)
    for pair, words in {
        (base, fewer): "lacks the tensor 'norm'",
        (fewer, base): "lacks the tensor 'norm'",
        (base, shape): "'norm' has the shape",
        (base, kind): "'norm' is F32 in",
        (base, float8): "F8_E4M3 cannot be blended",
        (base, cut): "is damaged: it has",
        (noise, base): "is not a safetensors file",
        (base, lying): "is not a safetensors file, or its header is damaged",
        (base, index): "index.json is damaged",
        (empty, base): "holds no model.safetensors",
    }.items():
        with pytest.raises(ValueError, match=words) as caught:
            blend(*pair, tmp_path / "deep" / "out")
        assert "\n" not in str(caught.value)
        assert left(tmp_path) == before, words
    with pytest.raises(FileNotFoundError):
        blend(base, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(NotADirectoryError):
        blend(base / "config.json", tuned, tmp_path / "out")
    with pytest.raises(ValueError, match=r"weight must lie in \[0, 1\], got 1.5"):
        blend(base, tuned, tmp_path / "out", 1.5)
    with pytest.raises(ValueError, match=r"weight must lie in \[0, 1\], got nan"):
        blend(base, tuned, tmp_path / "out", float("nan"))
    with pytest.raises(ValueError, match="method must be one of"):
        blend(base, tuned, tmp_path / "out", 0.5, "cubic")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="exists already"):
        blend(base, tuned, empty)
    assert left(tmp_path) == before


def test_nothing_is_left_of_a_blend_that_was_stopped(tmp_path: Path) -> None:
    base, tuned = write(tmp_path / "base", model(1)), write(tmp_path / "tuned", model(2))
    before = left(tmp_path)

    def stop(done: int, _: int) -> None:
        assert any(p.name.startswith(".out-") for p in (tmp_path / "deep").iterdir())
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blend(base, tuned, tmp_path / "deep" / "out", progress=stop)
    assert left(tmp_path) == before


# The search


def near(weight: float, calls: list[Path]) -> Callable[[Path], float]:
    """Best where the blend of "norm" is at ``weight``."""
    a, b = float(model(1)["norm"]), float(model(2)["norm"])

    def metric(path: Path) -> float:
        calls.append(path)
        return -(((float(read(path)["norm"]) - a) / (b - a) - weight) ** 2)

    return metric


def test_a_search_finds_the_best_weight_and_cleans_up(tmp_path: Path) -> None:
    base, tuned = write(tmp_path / "base", model(1)), write(tmp_path / "tuned", model(2))
    calls: list[Path] = []
    seen: list[tuple[int, int, float]] = []
    found = search(
        base,
        tuned,
        near(0.55, calls),
        refine=3,
        scratch=tmp_path / "scratch",
        progress=lambda done, total, point: seen.append((done, total, point.weight)),
    )
    assert [p.weight for p in found.points] == [0.0, 0.25, 0.375, 0.4375, 0.5, 0.625, 0.75, 1.0]
    assert found.best.weight == 0.5
    assert len(calls) == len(found.points) == len(seen) == 8
    assert seen[-1][:2] == (8, 8)
    assert left(tmp_path / "scratch") == set()
    assert same(read(found.write(tmp_path / "best")), read(blend(base, tuned, tmp_path / "direct", found.best.weight)))
    least = search(base, tuned, lambda path: -near(0.55, [])(path), maximise=False)
    assert least.best.weight == 0.5


def test_a_search_keeps_relative_paths_when_its_measure_changes_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned = write(tmp_path / "base", model(1)), write(tmp_path / "tuned", model(2))
    (tmp_path / "elsewhere").mkdir()
    metric = near(0.8, [])

    def moves(path: Path) -> float:
        monkeypatch.chdir(tmp_path / "elsewhere")
        return metric(path)

    monkeypatch.chdir(tmp_path)
    relative = {"record": "search.json", "scratch": "scratch"}
    found = search(base.name, tuned.name, moves, weights=[0.0, 0.75, 1.0], **relative)  # type: ignore[arg-type]
    assert found.best.weight == 0.75
    assert len(json.loads((tmp_path / "search.json").read_text())["points"]) == 3
    assert same(read(found.write(tmp_path / "best")), read(blend(base, tuned, tmp_path / "direct", 0.75)))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_search_goes_on_from_its_record(tmp_path: Path) -> None:
    base, tuned = write(tmp_path / "base", model(1)), write(tmp_path / "tuned", model(2))
    calls: list[Path] = []
    metric, record = near(0.8, calls), tmp_path / "runs" / "search.json"

    def fails_at_the_third(path: Path) -> float:
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return metric(path)

    with pytest.raises(RuntimeError, match="out of memory"):
        search(base, tuned, fails_at_the_third, record=record, scratch=tmp_path / "scratch")
    assert left(tmp_path / "scratch") == set()
    assert len(json.loads(record.read_text())["points"]) == 2
    found = search(base, tuned, metric, record=record)
    assert len(calls) == 5
    assert found.best.weight == 0.75
    again = search(base, tuned, metric, record=record)
    assert len(calls) == 5
    assert again.points == found.points
    more = search(base, tuned, metric, record=record, refine=1)
    assert len(calls) == 6
    assert len(more.points) == 6
    with pytest.raises(ValueError, match="another method, or over other files"):
        search(base, tuned, metric, record=record, method="spherical")
    record.write_text("[]")
    with pytest.raises(ValueError, match="no record of a search"):
        search(base, tuned, metric, record=record)


def test_bad_searches_are_refused(tmp_path: Path) -> None:
    base, tuned = write(tmp_path / "base", model(1)), write(tmp_path / "tuned", model(2))
    with pytest.raises(ValueError, match="finite number, got nan at w = 0"):
        search(base, tuned, lambda _: float("nan"))
    with pytest.raises(ValueError, match="weights must not be empty"):
        search(base, tuned, near(0, []), weights=())
    with pytest.raises(ValueError, match="refine"):
        search(base, tuned, near(0, []), refine=-1)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        search(base, tuned, near(0, []), weights=(0, 2))
    with pytest.raises(ValueError, match="needs a base"):
        search(None, tuned, near(0, []))


def test_the_search_is_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    base, tuned = write(tmp_path / "base", model(1)), write(tmp_path / "tuned", model(2))
    found = search(base, tuned, near(0.3, []), weights=(0, 0.5, 1))
    picture = found.plot(tmp_path / "plots" / "search.png", label="gold")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_of_equal_blends_the_one_nearest_the_base_is_best(tmp_path: Path) -> None:
    base, tuned = write(tmp_path / "base", model(1)), write(tmp_path / "tuned", model(2))
    found: Blends = search(base, tuned, lambda _: 1.0, refine=2)
    assert found.best.weight == 0.0
    assert [p.weight for p in found.points] == [0.0, 0.0625, 0.125, 0.25, 0.5, 0.75, 1.0]


# The command line


def run(*arguments: Any) -> None:
    from sharpwave import cli

    cli.app([str(a) for a in arguments])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer")
    base, tuned = write(tmp_path / "base", model(1)), write(tmp_path / "tuned", model(2))
    run("blend", base, tuned, "--out", tmp_path / "out", "--weight", 0.25, "--method", "spherical")
    shown = capsys.readouterr()
    assert "checkpoint, spherical, 0.75 of" in shown.out
    assert "blending" in shown.err
    assert same(read(tmp_path / "out"), read(blend(base, tuned, tmp_path / "direct", 0.25, "spherical")))
    run("blend", "--help")
    help_text = capsys.readouterr().out
    for words in ("--weight", "--method", "adapter", "Example: sharpwave blend"):
        assert words in help_text
    for arguments, words in {
        ("nowhere", tuned): "No such file",
        (base, tuned, "--weight", "2"): "weight must lie in",
        (base, tuned, "--method", "cubic"): "method must be one of",
        (base,): "Missing argument",
    }.items():
        with pytest.raises(SystemExit) as caught:
            run("blend", *arguments, "--out", tmp_path / "new")
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        assert not (tmp_path / "new").exists()
