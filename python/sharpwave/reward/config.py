"""A reward as plain data and back, for trainers that are configured by dicts and YAML.

    store: runs/a/store        # a directory, a snapshot file, http://…, {config: {dim: 384, …}}, or an actor of Ray's:
                               # ray:namespace/name, or {ray: name, namespace: …, directory: …, config: {dim: 384, …}}
    embedder: {kind: sentence-transformers, path: all-MiniLM-L6-v2}      # or {function: "package.module:name"}
    chunker: {kind: sentences, max_words: 16}
    terminal: "wedding"                      # a channel, or {function: "package.module:name"}
    weights: {terminal: 1.0, instrumental: 1.0, divergence: 0.1}
    learn: propose
    base: base.jsonl                         # lines {"prompt": …, "completion": …}, or {prompts: […], completions: […]}
    combine: conjunction                     # with saturate: {floor: 0.1} and crowd: true beside it
    typicality: {path: SmolLM2-135M, temperature: 0.8}                   # or true: from the trainer's reference pass
    demonstrations: weddings.jsonl           # or {path: weddings.jsonl, channel: demonstration}

A function is run, so a configuration may name only what its reader allows: functions of this package, and of modules
that the reader has imported already and that are not Python's own; others by ``allow=("package",)``, or in the
environment as ``SHARPWAVE_ALLOW=package,other.module``.

Every other argument of `InstrumentalReward` goes by its own name. ``_target_`` (Hydra) may be there at every level and
is not looked at: ``_target_: sharpwave.InstrumentalReward.from_config`` is what Hydra needs.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sharpwave import serve
from sharpwave._lazy import require
from sharpwave.config import Config
from sharpwave.reward.protections import Demonstrations, Protections
from sharpwave.reward.scale import Scale
from sharpwave.reward.terminal import FunctionTerminal
from sharpwave.serve.ray import Handle, actor
from sharpwave.store import ValueStore
from sharpwave.text import chunkers as episodes
from sharpwave.text import embedders as embed
from sharpwave.text.rows import read_rows

if TYPE_CHECKING:
    from sharpwave.reward.terms import Terms

Reward = TypeVar("Reward", bound="Terms")

ALLOW = "SHARPWAVE_ALLOW"
"""The environment's variable with prefixes of modules whose functions configurations may name, between commas."""

PLAIN = (
    "functional",
    "discount",
    "divergence_estimator",
    "support_discount",
    "keep_texts",
    "name",
    "learn",
)


def describe(reward: Terms) -> dict[str, Any]:
    """The reward as plain data (JSON and YAML take it).

    What cannot be written down is None, and has to be given to `build` again: an embedder or a terminal that is no
    importable function, a chunker that is not this package's, a store in memory (its configuration is recorded).
    """
    terminal = reward.terminal
    if isinstance(terminal, FunctionTerminal):
        function = _import_path(terminal.function)
        named: Any = None if function is None else {"function": function, "name": terminal.name}
    else:
        named = None if terminal is None else terminal.name
    base = None
    if reward.base_texts is not None:
        base = {"prompts": list(reward.base_texts[0]), "completions": list(reward.base_texts[1])}
    weights = reward.channel_weights
    if weights is not None and not isinstance(weights, Mapping):
        weights = np.asarray(weights, np.float64).tolist()
    return {
        "store": _describe_store(reward.store),
        "embedder": _describe_embedder(reward.embedder),
        "fingerprint": embed.fingerprint(reward.embedder),
        "chunker": getattr(reward.chunker, "config", None),
        "terminal": named,
        "terminal_range": None if reward.terminal_range is None else list(reward.terminal_range),
        "weights": reward.weights.to_dict(),
        "channel_weights": dict(weights) if isinstance(weights, Mapping) else weights,
        "normalise": reward.scale.to_dict(),
        "habituation": None
        if reward.habituation is None
        else {name: getattr(reward.habituation, name) for name in ("episodes", "eta", "sharing")},
        "sleep": dict(reward.sleep_options),
        "base": base,
        "combine": reward.protections.to_dict(),
        "typicality": None if reward.typicality is None else reward.typicality.to_config(),
        "demonstrations": None if reward.demonstrations is None else reward.demonstrations.to_dict(),
        **{name: getattr(reward, name) for name in PLAIN},
    }


def build(
    cls: type[Reward],
    config: Mapping[str, Any] | str | None,
    overrides: Mapping[str, Any],
    allow: Sequence[str] | None = None,
) -> Reward:
    """A reward of class ``cls``; ``overrides`` replace whole entries, and may be objects.

    Args:
        cls: of what class.
        config: plain data, or the file that holds it.
        overrides: entries that replace those of the config.
        allow: modules, with all below them, whose functions the config may name; None: what ``SHARPWAVE_ALLOW`` has.
            Functions of this package, and of modules that are imported already and not Python's own, always.

    Raises:
        PermissionError: a function of a module that is not allowed; it was not imported.
        KeyError: an unknown entry.
        ValueError: an entry that is missing or cannot be read.
        sharpwave.EmbedderError: the embedder is not the one that was recorded.
    """
    if isinstance(config, str | Path):
        config = read(config)
    options = _without_target({**(config or {}), **overrides})
    for name in ("store", "embedder"):
        if options.get(name) is None:
            raise ValueError(f"config has no {name}: give it, in the config or as {name}=")
    recorded = options.pop("fingerprint", None)
    arguments: dict[str, Any] = {
        "store": _part(options.pop("store"), _build_store),
        "embedder": _part(options.pop("embedder"), functools.partial(_build_embedder, allow=allow)),
        "chunker": _part(options.pop("chunker", None), episodes.from_config),
        "terminal": _part(options.pop("terminal", None), functools.partial(_build_terminal, allow=allow)),
        "normalise": _part(options.pop("normalise", "base"), _build_scale),
        "base": _part(options.pop("base", None), _build_base),
        "combine": _part(options.pop("combine", "sum"), _build_protections),
        "demonstrations": _part(options.pop("demonstrations", None), _build_demonstrations),
    }
    if options.get("terminal_range") is not None:
        options["terminal_range"] = tuple(options["terminal_range"])
    known = {*PLAIN, "weights", "channel_weights", "habituation", "sleep", "terminal_range"}
    known |= {"saturate", "crowd", "typicality"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise KeyError(f"config: no entry {unknown[0]!r}; there are {sorted(known | set(arguments))}")
    if recorded is not None:
        arguments["store"].bind_embedder(recorded)
    return cls(**arguments, **options)


def read(path: str | Path) -> dict[str, Any]:
    """A JSON file, or a YAML file where PyYAML is installed.

    Raises:
        ValueError: the file does not hold a mapping.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    data = json.loads(text) if str(path).lower().endswith(".json") else require("yaml", "yaml").safe_load(text)
    if not isinstance(data, dict):
        raise ValueError(f"{path} does not hold a mapping")
    return data


def _part(entry: Any, make: Callable[[Any], Any]) -> Any:
    """Plain data is built; an object is taken as it is."""
    return make(entry) if isinstance(entry, Mapping | str | Path) else entry


def _without_target(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _without_target(value) for key, value in data.items() if key != "_target_"}
    return data


def _describe_store(store: ValueStore) -> Any:
    if isinstance(store, serve.Client):
        return {"url": store.url}
    if isinstance(store, Handle):
        return {"ray": store.name, "namespace": store.namespace}
    if store.path is not None:
        return str(store.path)
    return {"config": store.config.to_dict(), "digest": store.digest()}


def _build_store(entry: Any) -> ValueStore:
    if isinstance(entry, Mapping) and "url" in entry:
        return serve.Client(**entry)
    if isinstance(entry, Mapping) and "ray" in entry:
        return _build_handle(**entry)
    if isinstance(entry, str) and entry.startswith(("http://", "https://")):
        return serve.Client(entry)
    if isinstance(entry, str) and entry.startswith("ray:"):
        namespace, _, name = entry.removeprefix("ray:").rpartition("/")
        return Handle(name, namespace or None)
    if isinstance(entry, str | Path):
        path = Path(entry)
        return ValueStore.load(path) if path.is_file() else ValueStore.open(path)
    if "digest" in entry:
        raise ValueError(f"the store {entry['digest'][:12]}… lived in memory: give store=")
    config = Config.from_dict(entry["config"]) if entry.get("config") is not None else None
    if entry.get("path") is not None:
        return ValueStore.open(entry["path"], config)
    if config is None:
        raise ValueError("store needs a path or a config")
    return ValueStore(config)


def _build_handle(
    *, ray: str, directory: str | None = None, config: Mapping[str, Any] | None = None, **options: Any
) -> Handle:
    """Of the actor ``ray``, which is started if there is none of that name and a directory is given."""
    if directory is None:
        return Handle(ray, **options)
    return actor(ray, directory, None if config is None else Config.from_dict(config), **options)


def _describe_embedder(embedder: Any) -> Any:
    if isinstance(embedder, embed.CallableEmbedder):
        path = _import_path(embedder.function)
        return None if path is None else {"function": path}
    try:
        return getattr(embedder, "config", None)
    except ValueError:  # built from a loaded model
        return None


def _build_embedder(entry: Any, allow: Sequence[str] | None) -> Any:
    if isinstance(entry, Mapping) and "function" in entry:
        return allowed(entry["function"], allow)
    return embed.from_config(entry)


def _build_terminal(entry: Any, allow: Sequence[str] | None) -> Any:
    if isinstance(entry, str):
        return entry
    return FunctionTerminal(allowed(entry["function"], allow), entry.get("name"))


def _build_scale(entry: Any) -> Any:
    return Scale.from_dict(entry) if isinstance(entry, Mapping) else Scale(entry)


def _build_base(entry: Any) -> Any:
    if isinstance(entry, Mapping):
        return entry["prompts"], entry["completions"]
    rows = read_rows(entry)
    return [row.prompt for row in rows], [row.completion for row in rows]


def _build_protections(entry: Any) -> Any:
    return Protections.from_dict(entry) if isinstance(entry, Mapping) else entry


def _build_demonstrations(entry: Any) -> Any:
    if isinstance(entry, Mapping) and "path" in entry:
        prompts, completions = _build_base(entry["path"])
        return Demonstrations(prompts, completions, entry.get("channel"))
    return Demonstrations(**entry) if isinstance(entry, Mapping) else Demonstrations(*_build_base(entry))


def _import_path(function: Any) -> str | None:
    """``package.module:name`` where that leads back to ``function``."""
    path = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    try:
        module, name = _split(path)
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
    except (KeyError, AttributeError, ValueError):
        return None
    return path if found is function else None


def allowed(path: Any, allow: Sequence[str] | None = None) -> Any:
    """The function ``package.module:name``, if a configuration may name it; see `build`.

    Both the module that is named and the one that defines the function must be allowed, so that what a module happens
    to have imported is out of reach.

    Raises:
        PermissionError: it may not; a module that is not allowed is not imported.
        ValueError: no such name, or what it names is no function.
    """
    module, name = _split(path)
    prefixes = ("sharpwave", *(_from_environment() if allow is None else allow))
    if not _may(module, prefixes):
        raise PermissionError(_refusal(path, module))
    found: Any = import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path!r} is not there: {module} has no {name!r}")
        found = getattr(found, part)
        if inspect.ismodule(found):
            raise PermissionError(f"{path!r} leads through the module {found.__name__!r}: name a function where it is")
    home = _home(found)
    if not callable(found) or not _may(home, prefixes):
        raise PermissionError(_refusal(path, home) if callable(found) else f"{path!r} is no function")
    return found


def _may(module: str, prefixes: Sequence[str]) -> bool:
    """Whether a module is one of those, below one, or imported already and not Python's own."""
    if any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes):
        return True
    return module in sys.modules and module.partition(".")[0] not in sys.stdlib_module_names


def _home(function: Any) -> str:
    """The module that defines a function, a class, or the class of another callable."""
    while isinstance(function, functools.partial):
        function = function.func
    found = getattr(function, "__module__", None)
    return found if isinstance(found, str) else type(function).__module__


def _from_environment() -> list[str]:
    return [prefix.strip() for prefix in os.environ.get(ALLOW, "").split(",") if prefix.strip()]


def _refusal(path: str, module: str) -> str:
    return (
        f"a configuration may not name {path!r}: it runs code of {module!r}, which nobody has allowed; pass "
        f"allow=({module.partition('.')[0]!r},) or set {ALLOW} if you trust the configuration with it"
    )


def _split(path: Any) -> tuple[str, str]:
    module, colon, name = path.partition(":") if isinstance(path, str) else ("", "", "")
    if not colon or not module or not name:
        raise ValueError(f"a function is named 'package.module:name', got {path!r}")
    return module, name
