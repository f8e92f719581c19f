"""Blends of LoRA adapters (Hu et al. 2021): of one with its base, or of two.

An adapter adds ΔW = s·B·A to a weight, with A (r, in), B (out, r) and a scale s. A sum c₁ΔW₁ + c₂ΔW₂ is again an
adapter, exactly, of rank r₁ + r₂: the A one above the other, the B side by side, each B times its coefficient. One
adapter and its base is the case ΔW₁ = 0, which needs no more rank.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave.remedies import tensors
from sharpwave.remedies.blending import Method, check, spherical
from sharpwave.remedies.tensors import Tensor

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
A, B = ".lora_A.", ".lora_B."


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter, as peft writes one."""
    return (directory / CONFIG).is_file()


def blend_adapters(
    base: Path | str | None, tuned: Path | str, out: Path | str, weight: float = 0.5, method: Method = "linear"
) -> Path:
    """Write the blend of two LoRA adapters to the directory ``out``, with ``tuned``'s other files; returns ``out``.

    Args:
        base: the adapter at w = 0; None is the model without one, and the blend then scales ``tuned`` by w.
        tuned: the adapter at w = 1.
        weight: w in [0, 1].
        method: ``"linear"``; or, between two adapters, ``"spherical"``, each ΔW as one vector.

    Raises:
        ValueError: an unknown method, a weight outside [0, 1], no adapter or one that is not LoRA, adapters of
            different modules, an adapter that is more than A and B (DoRA, trained embeddings or biases),
            ``"spherical"`` without a base (there is no angle to nothing), or ``out`` exists.
        OSError: a file cannot be read or written.
    """
    check(weight, method)
    tuned, out = Path(tuned), Path(out)
    base = None if base is None else Path(base)
    if base is None and method != "linear":
        raise ValueError("without a base adapter the method must be 'linear': a zero has no direction")
    of_tuned, config = _read(tuned)
    of_base, other = (of_tuned, config) if base is None else _read(base)
    if base is not None:
        if set(of_base) != set(of_tuned):
            different = min(set(of_base) ^ set(of_tuned))
            raise ValueError(f"{base} and {tuned} adapt different modules: {different!r}")
        for name in sorted(of_base):
            if _outer(name, of_base[name]) != _outer(name, of_tuned[name]):
                shapes = of_base[name].shape, of_tuned[name].shape
                raise ValueError(f"tensor {name!r} has the shape {shapes[0]} in {base} and {shapes[1]} in {tuned}")
    with tensors.whole(out) as scratch:
        kept = base if base is not None and weight == 0.0 else tuned if weight == 1.0 else None
        if kept is not None:
            tensors.copy_others(kept, scratch)
            (scratch / WEIGHTS).write_bytes((kept / WEIGHTS).read_bytes())
            return out
        tensors.copy_others(tuned, scratch, frozenset({CONFIG}))
        blended: dict[str, tuple[str, NDArray[Any]]] = {}
        for name in sorted(n for n in of_tuned if A in n):
            twin = name.replace(A, B)
            a, b = of_tuned[name].matrix(), of_tuned[twin].matrix()
            if base is None:
                b = weight * b
            else:
                a_base, b_base = of_base[name].matrix(), _scale(other) * of_base[twin].matrix()
                b = _scale(config) * b
                c_base, c_tuned = 1.0 - weight, weight
                if method == "spherical":
                    product = inner(a_base, b_base, a, b)
                    squares = inner(a_base, b_base, a_base, b_base), inner(a, b, a, b)
                    c_base, c_tuned = spherical(product, *squares, weight)
                a, b = np.concatenate([a_base, a]), np.concatenate([c_base * b_base, c_tuned * b], 1)
            blended[name], blended[twin] = (of_tuned[name].dtype, a), (of_tuned[twin].dtype, b)
        if base is not None:
            rank = int(config["r"]) + int(other["r"])
            config |= {"r": rank, "lora_alpha": rank, "use_rslora": False}
        tensors.write(scratch / WEIGHTS, blended)
        (scratch / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return out


def inner(a1: NDArray[Any], b1: NDArray[Any], a2: NDArray[Any], b2: NDArray[Any]) -> float:
    """⟨B₁A₁, B₂A₂⟩ = Σ (B₁ᵀB₂) ∘ (A₁A₂ᵀ): neither product is made."""
    flat = [m.reshape(len(m), -1).astype(np.float64) for m in (a1, a2)]
    tall = [m.reshape(m.shape[0], m.shape[1]).astype(np.float64) for m in (b1, b2)]
    return float(np.sum((tall[0].T @ tall[1]) * (flat[0] @ flat[1].T)))


def _read(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An adapter's tensors and configuration, if it is one that can be blended."""
    tensors.there(directory)
    path = directory / CONFIG
    if not path.is_file():
        raise ValueError(f"{directory} holds no adapter: there is no {CONFIG}")
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        kind = config.get("peft_type")
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is damaged") from None
    if kind != "LORA":
        raise ValueError(f"{directory}: only LoRA adapters can be blended, not {kind!r}")
    for option in ("rank_pattern", "alpha_pattern", "target_parameters"):
        if config.get(option):
            raise ValueError(f"{directory}: adapters with a {option} cannot be blended")
    if not (directory / WEIGHTS).is_file():
        raise ValueError(f"{directory} holds no {WEIGHTS}")
    found, _ = tensors.header(directory / WEIGHTS)
    for name in sorted(found):
        twin = name.replace(A, B) if A in name else name.replace(B, A) if B in name else None
        if twin is None:
            raise ValueError(f"{directory}: {name!r} is no part of LoRA and cannot be blended")
        if twin not in found:
            raise ValueError(f"{directory} is damaged: {name!r} is there without {twin!r}")
    return found, config


def _outer(name: str, tensor: Tensor) -> tuple[int, ...]:
    """The shape but for the rank."""
    return tensor.shape[1:] if A in name else (tensor.shape[0], *tensor.shape[2:])


def _scale(config: dict[str, Any]) -> float:
    """What B·A is multiplied by."""
    rank = float(config["r"])
    return float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)
