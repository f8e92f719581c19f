"""Typicality: may the base policy have written this?

A judge can be exploited by texts that no reader would take for a story, and how likely a text is as a whole does not
see all of them: a text of one word repeated is likely. `Typicality` asks three things of a completion, each against
the range of the base policy's own samples:

surprise   z = Σ_t (−log p_t − H_t) / √(Σ_t V_t), with entropy H_t and varentropy V_t of the base's prediction at
           token t. Under the base z has mean 0 and variance 1 for every prompt and every length, since what is summed
           is a martingale difference: locally typical sampling and Fast-DetectGPT rest on the same quantity.
entropy    mean H_t, less what the base's samples of that prompt have: where a text has talked itself into a loop, the
           base is sure of every next token.
distinct   the share of different ones among the completion's bigrams of words and marks.

Each is 1 within the range and falls to 0 beyond it; the gate is their product. It says nothing about quality: good
texts by other authors are atypical of a small model. It belongs to training from that base.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave.text import segment
from sharpwave.text.chunkers import Text, completion_text
from sharpwave.text.reading import Reader, Template

if TYPE_CHECKING:
    from sharpwave._coerce import Array
    from sharpwave.text.cache import EmbeddingCache

Floats = NDArray[np.float64]

LEAST = 8
"""Base samples without which there is no range."""

RAMP = 2.0
"""Standard deviations of the base over which a part of the gate falls from 1 to 0."""

Z_RANGE, ENTROPY_RANGE, DISTINCT_LOW = (0.02, 0.90), (0.05, 0.95), 0.05
"""Quantiles of the base's samples between which a part is 1."""

LEAST_DISTINCT_RAMP = 0.1
"""Short samples may all have no bigram twice, which leaves no deviation to fall over."""

MOST_EXCESS = 10.0

QUANTILES = 129
"""Of the base's z, that are kept to compare a policy's with."""

REFERENCE = "reference_logprobs"
"""The column in which a trainer's hook hands `TokenLogprobs` to a reward, one a completion."""

LATER = "later"
"""In that column: the reference pass comes after the reward, and a hook applies the gate then."""

_PART = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Range:
    """1 from `low` to `high`, 0 from `width` beyond them, linear between."""

    low: float
    high: float
    width: float

    @classmethod
    def of(cls, values: Floats, low: float, high: float, least: float = 0.0) -> Range:
        """From quantile ``low`` to quantile ``high`` of the base's values; the ramp is ``least`` wide at least."""
        bottom = float(np.quantile(values, low))
        top = float(np.quantile(values, high))
        return cls(bottom, top, max(RAMP * float(values.std()), least, 1e-6))

    def beyond(self, values: Floats) -> Floats:
        """How many widths each value lies outside."""
        return np.maximum(np.maximum(self.low - values, values - self.high), 0.0) / self.width

    def gate(self, values: Floats) -> Floats:
        """The part of the gate."""
        return np.clip(1.0 - self.beyond(values), 0.0, 1.0)

    def excess(self, values: Floats) -> Floats:
        """Standard deviations beyond where the gate is 0; `MOST_EXCESS` at most."""
        return np.minimum(RAMP * np.maximum(self.beyond(values) - 1.0, 0.0), MOST_EXCESS)


@dataclass(frozen=True)
class Centre:
    """Means of the base's samples by prompt, drawn to the mean of all by the weight of one sample."""

    overall: float
    sums: dict[str, tuple[float, int]]

    @classmethod
    def of(cls, prompts: Sequence[str], values: Floats) -> Centre:
        sums: dict[str, tuple[float, int]] = {}
        for prompt, value in zip(prompts, values.tolist(), strict=True):
            total, count = sums.get(prompt, (0.0, 0))
            sums[prompt] = (total + value, count + 1)
        return cls(float(values.mean()), sums)

    def at(self, prompts: Sequence[str]) -> Floats:
        """What the base is expected to have at each prompt; of one without samples, the mean of all."""
        found = [self.sums.get(prompt, (0.0, 0)) for prompt in prompts]
        return np.array([(self.overall + total) / (1 + count) for total, count in found])

    def without(self, prompts: Sequence[str], values: Floats) -> Floats:
        """The same for the samples themselves, each left out of its own prompt's mean."""
        found = [self.sums[prompt] for prompt in prompts]
        return np.array(
            [(self.overall + total - value) / count for (total, count), value in zip(found, values, strict=True)]
        )

    def known(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether a prompt has samples."""
        return np.array([prompt in self.sums for prompt in prompts], bool)


@dataclass(frozen=True)
class Fitted:
    """What `Typicality.fit` measured on base samples: plain numbers."""

    samples: int
    z: dict[str, Range]
    """By what is known of each token: "varentropy", "entropy" or "surprise" alone."""
    variance: dict[str, float]
    """Of a token's surprise less what is expected of it, where varentropies are not known."""
    entropy: dict[str, Range]
    """Of the mean entropy less its centre, for prompts that are "known" and "unknown"; empty without entropies."""
    distinct: Range | None
    surprise_centre: Centre
    entropy_centre: Centre | None
    z_quantiles: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """The base's z by what is known of each token, at `QUANTILES` even steps from the least to the greatest."""


@dataclass(frozen=True, slots=True, eq=False)
class TypicalityReport:
    """Each part of the gate, a number a completion (n,)."""

    z: Floats
    """How far the surprise is from what the base expected, in standard deviations."""
    entropy: Floats
    """Mean entropy of the base's predictions less what it has at that prompt, nats; NaN where it is not known."""
    distinct: Floats
    """The share of different bigrams; NaN where the text is not known."""
    gate: Floats
    """T, from 0 to 1."""
    excess: Floats
    """How many standard deviations the worst part lies beyond the point where the gate reaches 0: for a small negative
    slope there, since a group in which all pay is 0 teaches nothing."""
    tokens: NDArray[np.int64]
    """How many tokens were read; a completion without any has a gate of 0."""
    ks: float
    """Kolmogorov-Smirnov distance of these completions' z from the base samples', from 0 to 1. A policy that hugs the
    edge of the range passes the gate; here it shows. NaN for fewer than two completions."""
    ks_p: float
    """The probability of that distance, or a greater one, if both were drawn alike (asymptotic)."""
    gates: dict[str, Floats] = field(default_factory=dict[str, Floats])
    """What each part, ``z``, ``entropy`` or ``distinct``, makes of the gate: their product is T. Those that were looked
    at."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogprobs:
    """What a reference policy said of one completion's T tokens, the end of the sequence left out; nats."""

    logps: Array
    """(T,) log-probability of each token, at the sampling temperature."""
    entropies: Array | None = None
    """(T,) of its predictions."""
    varentropies: Array | None = None
    """(T,)"""


class Typicality:
    """A gate from 0 to 1 for completions that the base policy could have written.

    >>> typ = sw.text.Typicality("SmolLM2-135M")
    >>> typ.fit(prompts, completions)            # samples of the base policy
    >>> typ(prompts, completions)                # (n,)

    Where a trainer has a reference pass, `of_logprobs` reads it and no model is needed: `Typicality(None)`.

    Args:
        model: the base policy, a loaded causal language model or a path; None for `of_logprobs` alone.
        tokenizer: of a loaded model.
        temperature: what completions are sampled at.
        template: how prompts are put before completions (`sharpwave.text.reading.Reader`).
        max_tokens, device, dtype, batch_size, cache: of the reader. A model in training changes under a cache.

    Each completion's gate depends on it, its prompt and the fitted numbers alone, not on the batch.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        temperature: float = 1.0,
        template: Template = None,
        *,
        max_tokens: int = 1024,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 16,
        cache: EmbeddingCache | str | os.PathLike[str] | bool = True,
    ) -> None:
        self._reader: Reader | None = None
        if model is not None:
            self._reader = Reader(
                model,
                tokenizer,
                temperature=temperature,
                template=template,
                max_tokens=max_tokens,
                device=device,
                dtype=dtype,
                batch_size=batch_size,
                cache=cache,
            )
        self.fitted: Fitted | None = None

    # Fitting

    def fit(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> Self:
        """Measure the base's ranges on its own samples, several of each prompt if possible.

        Raises:
            ValueError: fewer than eight samples with tokens; no model.
        """
        sums = self._read(prompts, completions)
        return self._fit(sums, prompts, completions, entropies=True, varentropies=True)

    def fit_logprobs(
        self,
        logps: Array,
        mask: Array,
        entropies: Array | None = None,
        varentropies: Array | None = None,
        prompts: Sequence[Text | None] | None = None,
        completions: Sequence[Text] | None = None,
    ) -> Self:
        """`fit` on a reference pass over base samples; arguments as for `of_logprobs`, which needs the same ones."""
        sums = _summed(logps, mask, entropies, varentropies)
        known = entropies is not None
        return self._fit(sums, prompts, completions, entropies=known, varentropies=known and varentropies is not None)

    def _fit(
        self,
        sums: Floats,
        prompts: Sequence[Text | None] | None,
        completions: Sequence[Text] | None,
        *,
        entropies: bool,
        varentropies: bool,
    ) -> Self:
        names = _names(prompts, len(sums))
        texts = None if completions is None else _texts(completions, len(sums))
        some = sums[:, 0] > 0
        if some.sum() < LEAST:
            raise ValueError(f"typicality needs at least {LEAST} base samples with tokens, got {int(some.sum())}")
        sums, names = sums[some], [name for name, kept in zip(names, some, strict=True) if kept]
        tokens, surprise, squares, entropy, varentropy = sums.T
        mean = surprise / tokens
        centre = Centre.of(names, mean)
        spread = max(float(squares.sum() / tokens.sum() - (surprise.sum() / tokens.sum()) ** 2), 1e-12)
        z = {"surprise": (mean - centre.without(names, mean)) * np.sqrt(tokens / spread)}
        variance = {"surprise": spread}
        if entropies:
            # Of what is left of the surprise: the varentropy if that is known, else as the samples' sums vary.
            left = surprise - entropy
            variance["entropy"] = max(float((varentropy if varentropies else left**2).sum() / tokens.sum()), 1e-12)
            z["entropy"] = left / np.sqrt(variance["entropy"] * tokens)
        if varentropies:
            z["varentropy"] = (surprise - entropy) / np.sqrt(np.maximum(varentropy, 1e-12))
        entropy_range: dict[str, Range] = {}
        entropy_centre: Centre | None = None
        if entropies:
            h = entropy / tokens
            entropy_centre = Centre.of(names, h)
            entropy_range = {
                "known": Range.of(h - entropy_centre.without(names, h), *ENTROPY_RANGE),
                "unknown": Range.of(h - entropy_centre.overall, *ENTROPY_RANGE),
            }
        distinct: Range | None = None
        if texts is not None:
            shares = distinct_bigrams([text for text, kept in zip(texts, some, strict=True) if kept])
            distinct = replace(Range.of(shares, DISTINCT_LOW, 1.0, LEAST_DISTINCT_RAMP), high=1.0)
        ranges = {name: Range.of(values, *Z_RANGE) for name, values in z.items()}
        steps = np.linspace(0.0, 1.0, QUANTILES)
        quantiles = {name: np.quantile(values, steps).tolist() for name, values in z.items()}
        self.fitted = Fitted(len(sums), ranges, variance, entropy_range, distinct, centre, entropy_centre, quantiles)
        return self

    # The gate

    def __call__(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> Floats:
        """(n,) the gate T of each completion, from 0 to 1."""
        return self.report(prompts, completions).gate

    def report(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> TypicalityReport:
        """The gate and its parts.

        Raises:
            ValueError: not fitted, no model, or as many prompts as completions are not given.
        """
        return self._report(self._read(prompts, completions), prompts, completions, "varentropy")

    def of_logprobs(
        self,
        logps: Array,
        mask: Array,
        entropies: Array | None = None,
        varentropies: Array | None = None,
        prompts: Sequence[Text | None] | None = None,
        completions: Sequence[Text] | None = None,
    ) -> Floats:
        """(n,) the gate from a trainer's reference pass, without a forward pass of one's own.

        Args:
            logps: (n, T) log-probability of each completion token under the reference, nats, at the sampling
                temperature.
            mask: (n, T) 1 where a token belongs to the completion.
            entropies: (n, T) of the reference's predictions; without them surprise is compared with what the base has
                at that prompt, and the entropy is not looked at.
            varentropies: (n, T); without them their mean over base samples is taken.
            prompts: (n,), to compare with the base's samples of the same prompt.
            completions: (n,), for their bigrams, which are not looked at without.

        Raises:
            ValueError: shapes that differ, NaN among the tokens of a row, or not fitted with what is given.
        """
        return self.report_of_logprobs(logps, mask, entropies, varentropies, prompts, completions).gate

    def report_of_logprobs(
        self,
        logps: Array,
        mask: Array,
        entropies: Array | None = None,
        varentropies: Array | None = None,
        prompts: Sequence[Text | None] | None = None,
        completions: Sequence[Text] | None = None,
    ) -> TypicalityReport:
        """`report` from a trainer's reference pass; arguments as for `of_logprobs`."""
        kind = "surprise" if entropies is None else "entropy" if varentropies is None else "varentropy"
        return self._report(_summed(logps, mask, entropies, varentropies), prompts, completions, kind)

    def report_of_tokens(
        self,
        rows: Sequence[TokenLogprobs],
        prompts: Sequence[Text | None] | None = None,
        completions: Sequence[Text] | None = None,
    ) -> TypicalityReport:
        """`report_of_logprobs` of one `TokenLogprobs` a completion; entropies are looked at if all rows have them."""
        logps, mask = _padded([row.logps for row in rows])
        tables: dict[str, Floats | None] = {}
        for name in ("entropies", "varentropies"):
            found = [getattr(row, name) for row in rows]
            tables[name] = None if any(one is None for one in found) else _padded(found)[0]
        return self.report_of_logprobs(logps, mask, **tables, prompts=prompts, completions=completions)

    def _report(
        self,
        sums: Floats,
        prompts: Sequence[Text | None] | None,
        completions: Sequence[Text] | None,
        kind: str,
    ) -> TypicalityReport:
        fitted = self.fitted
        if fitted is None:
            raise ValueError("typicality has no range yet: fit it on base samples")
        if kind not in fitted.z:
            raise ValueError(f"typicality was fitted without {kind}, which is given now: fit it with the same")
        names = _names(prompts, len(sums))
        tokens, surprise, _, entropy, varentropy = sums.T
        read = tokens > 0
        length = np.maximum(tokens, 1.0)
        if kind == "surprise":
            z = (surprise / length - fitted.surprise_centre.at(names)) * np.sqrt(length / fitted.variance["surprise"])
        else:
            whole = varentropy if kind == "varentropy" else fitted.variance["entropy"] * length
            z = (surprise - entropy) / np.sqrt(np.maximum(whole, 1e-12))
        z = np.where(read, z, 0.0)
        gates = {"z": fitted.z[kind].gate(z)}
        excess = [fitted.z[kind].excess(z)]
        h = np.full(len(sums), np.nan)
        if kind != "surprise" and fitted.entropy_centre is not None:
            h = np.where(read, entropy / length - fitted.entropy_centre.at(names), 0.0)
            known = fitted.entropy_centre.known(names)
            ranges = fitted.entropy["known"], fitted.entropy["unknown"]
            gates["entropy"] = np.where(known, *(within.gate(h) for within in ranges))
            excess.append(np.where(known, *(within.excess(h) for within in ranges)))
        shares = np.full(len(sums), np.nan)
        if completions is not None and fitted.distinct is not None:
            shares = distinct_bigrams(_texts(completions, len(sums)))
            gates["distinct"] = fitted.distinct.gate(shares)
            excess.append(fitted.distinct.excess(shares))
        gate = np.prod(list(gates.values()), axis=0) * read
        ks, ks_p = _ks(z[read], np.array(fitted.z_quantiles.get(kind, [])), fitted.samples)
        worst = np.max(excess, axis=0)
        return TypicalityReport(z, h, shares, gate, worst, tokens.astype(np.int64), ks, ks_p, gates)

    def _read(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> Floats:
        if self._reader is None:
            raise ValueError("Typicality(None) has no model to read with: use of_logprobs, or give one")
        if len(prompts) != len(completions):
            raise ValueError(f"got {len(prompts)} prompts for {len(completions)} completions")
        return self._reader.sums(prompts, completions)

    @property
    def reads(self) -> bool:
        """Whether it has a model of its own."""
        return self._reader is not None

    # Plain data

    def restore(self, fitted: Mapping[str, Any]) -> None:
        """Take fitted numbers as `to_config` has them."""
        self.fitted = _fitted(fitted)

    def to_config(self) -> dict[str, Any]:
        """Plain data (JSON takes it): the settings, and the fitted numbers, from which `from_config` makes its equal.

        A model that was given loaded, and a template that is a function, are left out: `from_config` is given them.
        """
        settings: dict[str, Any] = {}
        if self._reader is not None:
            names = ("path", "temperature", "max_tokens", "device", "dtype", "batch_size")
            settings = {name: getattr(self._reader, name) for name in names}
            template = self._reader.template
            settings["template"] = None if callable(template) else template
        return {"kind": "typicality", **settings, "fitted": None if self.fitted is None else asdict(self.fitted)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **given: Any) -> Self:
        """The inverse of `to_config`; ``given`` are arguments that take the place of its settings, as ``model=``."""
        options = {**config}
        options.pop("kind", None)
        fitted = options.pop("fitted", None)
        options["model"] = options.pop("path", None)
        made = cls(**{**options, **given})
        made.fitted = None if fitted is None else _fitted(fitted)
        return made


def ungated(count: int) -> TypicalityReport:
    """Of completions that are gated later: T is 1, and nothing is known."""
    unknown = np.full(count, np.nan)
    nothing = np.zeros(count)
    return TypicalityReport(
        unknown, unknown, unknown, np.ones(count), nothing, nothing.astype(np.int64), float("nan"), float("nan")
    )


def of(given: Any) -> Typicality | None:
    """What an argument ``typicality=`` stands for: itself, a configuration, a model's path, or True for one without a
    model; None for None and False.

    Raises:
        TypeError: anything else.
    """
    if given is None or given is False:
        return None
    if isinstance(given, Typicality):
        return given
    if isinstance(given, Mapping):
        return Typicality.from_config(given)
    if given is True or isinstance(given, str | os.PathLike):
        return Typicality(None if given is True else given)
    raise TypeError(
        f"typicality must be a sharpwave.text.Typicality, its configuration, a model's path or True, got "
        f"{type(given).__name__}"
    )


def distinct_bigrams(texts: Sequence[str]) -> Floats:
    """(n,) the share of different ones among the bigrams of each text's words and marks; 1 where there are none.

    Marks count, or letters with full stops between them (*A. B. A.B.*) would be different words.
    """
    shares: list[float] = []
    for text in texts:
        small = text.lower()
        pairs = list(pairwise(part for a, b in segment.words(small) for part in _PART.findall(small[a:b])))
        shares.append(len(set(pairs)) / len(pairs) if pairs else 1.0)
    return np.array(shares, np.float64)


def _ks(values: Floats, quantiles: Floats, samples: int) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov distance and its asymptotic p; the base is known by its quantiles."""
    n = len(values)
    if n < 2 or not len(quantiles):
        return float("nan"), float("nan")
    ordered = np.sort(values)
    base = np.interp(ordered, quantiles, np.linspace(0.0, 1.0, len(quantiles)), left=0.0, right=1.0)
    distance = float(max((np.arange(1, n + 1) / n - base).max(), (base - np.arange(n) / n).max()))
    x = distance * float(np.sqrt(n * samples / (n + samples)))
    terms = np.arange(1, 101)
    p = 2.0 * float((np.where(terms % 2, 1.0, -1.0) * np.exp(-2.0 * (terms * x) ** 2)).sum()) if x > 0.2 else 1.0
    return distance, min(max(p, 0.0), 1.0)


def _names(prompts: Sequence[Text | None] | None, count: int) -> list[str]:
    """A short stable name of each prompt; without prompts they are all one that has no samples."""
    if prompts is None:
        return [""] * count
    if len(prompts) != count:
        raise ValueError(f"got {len(prompts)} prompts for {count} completions")
    whole = [json.dumps(prompt, sort_keys=True, default=str) for prompt in prompts]
    return [hashlib.sha256(one.encode()).hexdigest()[:16] for one in whole]


def _texts(completions: Sequence[Text], count: int) -> list[str]:
    if len(completions) != count:
        raise ValueError(f"got {len(completions)} completions for {count} rows of logps")
    return [completion_text(completion) for completion in completions]


def _padded(rows: Sequence[Array]) -> tuple[Floats, Floats]:
    """(n, T) rows of different lengths, padded with 0, and a mask."""
    tables = [_coerce.numbers("reference log-probabilities", row) for row in rows]
    out, mask = np.zeros((2, len(rows), max((len(row) for row in tables), default=0)))
    for n, row in enumerate(tables):
        out[n, : len(row)], mask[n, : len(row)] = row, 1.0
    return out, mask


def _summed(logps: Array, mask: Array, entropies: Array | None, varentropies: Array | None) -> Floats:
    """(n, 5) of a reference pass: the sums that `Reader.sums` has."""
    p = _table("logps", logps, None)
    kept = _table("mask", mask, p.shape) != 0
    surprise = np.where(kept, -p, 0.0)
    more = [
        np.zeros_like(p) if given is None else np.where(kept, _table(name, given, p.shape), 0.0)
        for name, given in (("entropies", entropies), ("varentropies", varentropies))
    ]
    for name, table in (("logps", surprise), ("entropies", more[0]), ("varentropies", more[1])):
        bad = np.isnan(table).any(axis=1)
        if bad.any():
            raise ValueError(f"{name} row {int(np.argmax(bad))} holds NaN")
    return np.stack([t.sum(axis=1) for t in (kept.astype(np.float64), surprise, surprise**2, *more)], axis=1)


def _table(name: str, data: Array, shape: tuple[int, ...] | None) -> Floats:
    array = _coerce.numbers(name, data)
    if array.ndim != 2 or (shape is not None and array.shape != shape):
        raise ValueError(f"{name} must have shape {'(n, T)' if shape is None else shape}, got {array.shape}")
    return array


def _fitted(data: Mapping[str, Any]) -> Fitted:
    def centre(given: Mapping[str, Any] | None) -> Centre | None:
        if given is None:
            return None
        return Centre(given["overall"], {name: (total, count) for name, (total, count) in given["sums"].items()})

    surprise = centre(data["surprise_centre"])
    assert surprise is not None
    return Fitted(
        data["samples"],
        {name: Range(**one) for name, one in data["z"].items()},
        dict(data["variance"]),
        {name: Range(**one) for name, one in data["entropy"].items()},
        None if data["distinct"] is None else Range(**data["distinct"]),
        surprise,
        centre(data["entropy_centre"]),
        {name: list(values) for name, values in data.get("z_quantiles", {}).items()},
    )
