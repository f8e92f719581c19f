"""`Guide`: a store of values steers the sampling of a causal language model."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave._embedder import fingerprint
from sharpwave.guide.payment import Payer, Rows, Written
from sharpwave.guide.result import ChosenStep, Guided
from sharpwave.guide.sampling import LanguageModel, Laps, Process, padded_width, sample
from sharpwave.guide.swarm import Particle, Rule, Swarm
from sharpwave.store import ValueStore
from sharpwave.text import causal
from sharpwave.text.chunkers import Chunker, Sentences, Text
from sharpwave.text.reading import Template, check_template, wrapped
from sharpwave.text.typicality import Typicality
from sharpwave.view import FrozenView

NEAR_SCALE = 0.1
"""Standard deviation of the cosine of a step to a proposed memory where it has not been measured."""


@dataclass
class Guide:
    """Sequential Monte Carlo over the steps of a text, weighed by a value store.

    >>> guide = sw.Guide(store, embedder, chunker, particles=8)
    >>> out = guide.generate(model, tokenizer, prompts, seed=0)
    >>> out.texts[0][0], out.explain(0)

    Args:
        store: a store, whose state at each call of `generate` guides it, or a frozen view.
        embedder: that of the store.
        chunker: cuts prompts and texts into steps; None: `sharpwave.episodes.Sentences`.
        weights: (Q,) or a dict by channel; None: 1/Q each.
        strength: factor of the standardised increments; 0 samples from the model alone, and orders the samples: best
            of n.
        particles: N, samples of each prompt.
        follow: factor of the nearness to the memory that `recall` proposes as the next step, in its standard
            deviations; 0: no recall.
        remind: how many texts of the way to value stand before the prompt.
        typicality: a fitted gate T for the model, fitted at the sampling temperature; None: no gate.
        step_tokens: particles are weighed after so many tokens even if no step is complete.
        tokenizer: of the model, for ``custom_generate`` alone: transformers does not hand its ``tokenizer=`` on.

    Attributes:
        scale: the standard deviation of an increment of G. Before `fit`, the root mean square of the advantage of the
            store's memories.
        near_mean, near_scale: mean and standard deviation of the nearness of a step to the proposed memory; 0 and 0.1
            before `fit`.

    Raises:
        ValueError: a number out of range, or a gate that is not fitted.
        EmbedderError: the store was filled by another embedder.
    """

    store: ValueStore | FrozenView
    embedder: Any
    chunker: Chunker | None = None
    weights: Any = field(default=None, kw_only=True)
    strength: float = field(default=2.0, kw_only=True)
    particles: int = field(default=8, kw_only=True)
    follow: float = field(default=0.5, kw_only=True)
    remind: int = field(default=0, kw_only=True)
    typicality: Typicality | None = field(default=None, kw_only=True)
    step_tokens: int = field(default=32, kw_only=True)
    tokenizer: Any = field(default=None, kw_only=True, repr=False)
    scale: float | None = field(default=None, kw_only=True)
    near_mean: float = field(default=0.0, kw_only=True)
    near_scale: float = field(default=NEAR_SCALE, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.store, ValueStore | FrozenView):
            raise TypeError(f"store must be a ValueStore or a FrozenView, got {type(self.store).__name__}")
        self.chunker = Sentences() if self.chunker is None else self.chunker
        for name in ("strength", "follow"):
            value = _coerce.number(name, getattr(self, name))
            if not 0.0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number from 0, got {value}")
            setattr(self, name, value)
        for name, least in (("particles", 1), ("remind", 0), ("step_tokens", 1)):
            value = _coerce.count(name, getattr(self, name))
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
            setattr(self, name, value)
        for name in ("scale", "near_scale"):
            value = getattr(self, name)
            if value is not None and not 0.0 < _coerce.number(name, value) < float("inf"):
                raise ValueError(f"{name} must be a finite number above 0, got {value}")
        if self.typicality is not None and getattr(self.typicality, "fitted", None) is None:
            raise ValueError("typicality has no range yet: fit it on samples of the model")
        if self.remind and not any(self.store.texts):
            raise ValueError("remind needs texts of memories, and the store has none: observe with texts=")
        self._payer()

    def _payer(self) -> Payer:
        assert self.chunker is not None
        return Payer(self.store.frozen(), self.embedder, self.chunker, self.weights)

    # Fitting

    def fit(self, prompts: Sequence[Text | None], completions: Sequence[str]) -> Guide:
        """Measure `scale`, `near_mean` and `near_scale` on samples of the model, and return the guide.

        Raises:
            ValueError: there are not two steps to measure.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"got {len(prompts)} prompts for {len(completions)} completions")
        payer = self._payer()
        cut = [payer.complete(p, c, done=True) for p, c in zip(prompts, completions, strict=True)]
        written = [one for one in payer.read(cut, {}) if len(one.vectors) > one.context]
        if sum(len(one.vectors) - one.context for one in written) < 2:
            raise ValueError("fit needs completions with two steps at least")
        vectors = np.concatenate([one.vectors for one in written])
        offsets = np.cumsum([0, *(len(one.vectors) for one in written)])
        context = np.array([one.context for one in written], np.int64)
        pay = payer.view.score(vectors, offsets, weights=payer.weights, context=context).step.astype(np.float64)
        ahead = payer.ahead(vectors)
        paths = payer.paths(vectors)
        increments: list[float] = []
        nearness: list[float] = []
        for n, one in enumerate(written):
            for row in range(int(offsets[n]) + one.context, int(offsets[n + 1])):
                before = ahead[row - 1] if row > offsets[n] else 0.0
                after = ahead[row] if row + 1 < offsets[n + 1] else 0.0
                increments.append(float(pay[row] + after - before))
                path = paths[row - 1] if row > offsets[n] else None
                if path is not None:
                    nearness.append(float(payer.nearness(vectors[row : row + 1], [int(path.ids[1])])[0]))
        self.scale = float(np.std(increments)) or payer.unit
        self.near_mean = float(np.mean(nearness)) if nearness else 0.0
        self.near_scale = (float(np.std(nearness)) if len(nearness) > 1 else 0.0) or NEAR_SCALE
        return self

    # Generation

    def generate(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[Text | None],
        seed: int = 0,
        *,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        template: Template = None,
    ) -> Guided:
        """`particles` texts of each prompt, the best first.

        A prompt's texts depend on the model, the digest, the seed and the prompt alone, not on the other prompts or on
        the number of threads. Equal prompts in one batch have samples of their own.

        Args:
            model, tokenizer: a causal language model of transformers.
            prompts: (B,) texts or chat messages; the chunker and the gate see them as they are.
            seed: a whole number.
            max_new_tokens: at most so many tokens a text.
            temperature: the logits are divided by it.
            template: how a prompt is put before a text (`sharpwave.text.reading.Template`).

        Raises:
            ValueError: no prompts, or a number out of range.
            TypeError: no causal language model of transformers, or no prompts.
            MissingExtra: torch is not installed; the extra is "embed".
        """
        check_template(template)
        asked = _coerce.sequence("prompts", prompts)
        reader = LanguageModel(model, tokenizer)
        payer = self._payer()
        heads: list[list[int]] = []
        for row, prompt in enumerate(asked):
            try:
                text = self._reminders(payer, prompt) + wrapped(prompt, template, tokenizer)
            except (TypeError, ValueError) as error:
                raise type(error)(f"prompts[{row}]: {error}") from None
            heads.append(_head(tokenizer, text))
        return self._generate(reader, payer, asked, heads, seed, max_new_tokens, temperature, reader.end_tokens, None)

    def __call__(
        self,
        model: Any,
        input_ids: Any,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        generation_config: Any = None,
        prompts: Sequence[Text | None] | None = None,
        seed: int = 0,
        **model_kwargs: Any,
    ) -> Any:
        """``model.generate(input_ids, custom_generate=guide, seed=0)`` of transformers; the guide has a `tokenizer`.

        Temperature, top-k, top-p and other logits processors apply where ``do_sample=True``. Without ``prompts``, the
        steps of a prompt are those of its decoded tokens.

        Returns:
            (B·num_return_sequences, T) ids: of each prompt the best texts behind it, padded on the right.
        """
        if self.tokenizer is None:
            raise ValueError("custom_generate needs a guide with a tokenizer: Guide(..., tokenizer=tokenizer)")
        reader = LanguageModel(model, self.tokenizer)
        other = [type(c).__name__ for c in stopping_criteria or [] if type(c).__name__ not in STOPS]
        if other:
            raise ValueError(f"a guide stops at end tokens and at a length, not by {other[0]}")
        copies = int(generation_config.num_return_sequences or 1)
        if copies > self.particles:
            raise ValueError(f"num_return_sequences must be at most the {self.particles} particles, got {copies}")
        some = input_ids[::copies]
        mask = model_kwargs.get("attention_mask")
        mask = reader.torch.ones_like(some) if mask is None else mask[::copies]
        heads = [row[kept.bool()].tolist() for row, kept in zip(some, mask, strict=True)]
        read: list[Text | None] = [reader.text(head) for head in heads] if prompts is None else list(prompts)
        if len(read) != len(heads):
            raise ValueError(f"got {len(read)} prompts for {len(heads)} rows of input_ids")
        end = generation_config.eos_token_id
        ends = end if isinstance(end, list) else [] if end is None else [end]
        process: Process | None = logits_processor if logits_processor else None
        length = int(generation_config.max_length) - input_ids.shape[1]
        out = self._generate(reader, self._payer(), read, heads, seed, length, 1.0, frozenset(map(int, ends)), process)
        chosen = [ids for every in out.token_ids for ids in every[:copies]]
        padding = generation_config.pad_token_id
        padding = min(ends, default=0) if padding is None else padding
        width = max(map(len, chosen))
        drawn = input_ids.new_full((len(chosen), width), padding)
        for row, ids in enumerate(chosen):
            drawn[row, : len(ids)] = input_ids.new_tensor(ids)
        return reader.torch.cat([input_ids, drawn], 1)

    def _generate(
        self,
        reader: LanguageModel,
        payer: Payer,
        prompts: list[Any],
        heads: list[list[int]],
        seed: int,
        max_new_tokens: int,
        temperature: float,
        end_tokens: frozenset[int],
        process: Process | None,
    ) -> Guided:
        if not prompts:
            raise ValueError("prompts must hold at least one prompt")
        seed = _coerce.whole("seed", seed)
        if _coerce.count("max_new_tokens", max_new_tokens) < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if not 0.0 < _coerce.number("temperature", temperature) < float("inf"):
            raise ValueError(f"temperature must be a finite number above 0, got {temperature}")
        began = process_time()
        laps = Laps()
        rule = self._rule(payer)
        seen: Counter[str] = Counter()
        swarms: list[Swarm] = []
        for prompt, head in zip(prompts, heads, strict=True):
            name = json.dumps(head)
            swarms.append(Swarm(prompt, name, seen[name], rule, payer, self.typicality, seed, max_new_tokens))
            seen[name] += 1
        widths = [padded_width(len(head)) for head in heads]
        for width in sorted(set(widths)):
            some = [n for n, other in enumerate(widths) if other == width]
            sample(
                reader,
                [heads[n] for n in some],
                [swarms[n] for n in some],
                max_tokens=max_new_tokens,
                temperature=float(temperature),
                end_tokens=end_tokens,
                process=process,
                laps=laps,
            )
        seconds = {**laps.seconds, **payer.seconds}
        seconds["rest"] = process_time() - began - sum(seconds.values())
        return _result(payer, swarms, self._digest(payer, rule), seed, seconds)

    def _reminders(self, payer: Payer, prompt: Text | None) -> str:
        """The texts of the best way to value from the prompt, one a line; "" without any."""
        if not self.remind:
            return ""
        start = payer.read([payer.complete(prompt, "", done=False)], {})[0]
        if start.newest is None:
            return ""
        texts: list[str] = []
        for path in payer.view.recall(start.newest, weights=payer.weights):
            texts += [text for text in path.texts if text is not None and text not in texts]
        return "".join(f"{text}\n" for text in texts[: self.remind]) + "\n" if texts else ""

    @property
    def digest(self) -> str:
        """Of the store's state now, the embedder, the chunker, the settings and the fitted numbers."""
        payer = self._payer()
        return self._digest(payer, self._rule(payer))

    def _rule(self, payer: Payer) -> Rule:
        scale = self.scale or payer.unit
        return Rule(
            self.strength, self.particles, self.follow, scale, self.near_mean, self.near_scale, self.step_tokens
        )

    def _digest(self, payer: Payer, rule: Rule) -> str:
        facts = {
            "store": payer.view.digest(),
            "embedder": fingerprint(self.embedder),
            "chunker": getattr(self.chunker, "config", type(self.chunker).__name__),
            "weights": payer.weights.tolist(),
            "rule": asdict(rule),
            "remind": self.remind,
            "typicality": None if self.typicality is None else self.typicality.to_config()["fitted"],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


STOPS = ("MaxLengthCriteria", "EosTokenCriteria")
"""The stopping criteria of transformers that a guide keeps itself."""


def _head(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a prompt behind the token that a text begins with, as `sharpwave.text.reading.Reader` reads it."""
    ids = [int(t) for t in tokenizer(text, add_special_tokens=False)["input_ids"]]
    first: int | None = causal.first_token(tokenizer)
    head = ids if first is None or ids[:1] == [first] else [first, *ids]
    if not head:
        raise ValueError("an empty prompt needs a tokenizer with a first token")
    return head


def _result(payer: Payer, swarms: Sequence[Swarm], digest: str, seed: int, seconds: dict[str, float]) -> Guided:
    """The particles of every prompt, best first."""
    orders: list[list[int]] = []
    for swarm in swarms:
        scores = [particle.potential for particle in swarm.particles]
        orders.append(sorted(range(len(scores)), key=lambda n: (-scores[n], n)))
    ordered = [[swarm.particles[n] for n in order] for swarm, order in zip(swarms, orders, strict=True)]

    def column(values: Any, s: int) -> NDArray[np.float64]:
        return np.asarray(values, np.float64)[orders[s]]

    def explain(prompt: int, sample: int) -> list[ChosenStep]:
        return _explained(payer, swarms[prompt], ordered[prompt][sample])

    lengths = [max(1.0, float(np.mean([len(p.tokens) for p in swarm.particles]))) for swarm in swarms]
    last = [swarm.trace[-1] for swarm in swarms]
    return Guided(
        texts=[[p.text for p in some] for some in ordered],
        scores=[np.array([p.potential for p in some]) for some in ordered],
        pay=[column(one.pay, s) for s, one in enumerate(last)],
        typicality=[column(one.typicality, s) for s, one in enumerate(last)],
        weights=[column(one.weights, s) for s, one in enumerate(last)],
        log_likelihood=[np.array([float(np.mean(p.logps)) for p in some]) for some in ordered],
        token_ids=[[list(p.tokens) for p in some] for some in ordered],
        tokens=sum(swarm.drawn for swarm in swarms),
        kl=np.array([swarm.kl() / length for swarm, length in zip(swarms, lengths, strict=True)]),
        trace=[list(swarm.trace) for swarm in swarms],
        digest=digest,
        seed=seed,
        seconds=seconds,
        explain_text=explain,
    )


def _explained(payer: Payer, swarm: Swarm, particle: Particle) -> list[ChosenStep]:
    """The steps of one particle, with what paid for them and what `recall` had proposed."""
    known: dict[str, Rows] = dict(swarm.known)
    written: Written = payer.read([particle.steps], known)[0]
    proposed = {step: (memory, nearness) for step, memory, nearness in particle.followed}
    texts = dict(zip(payer.view.ids.tolist(), payer.view.texts, strict=True)) if proposed else {}
    out: list[ChosenStep] = []
    for n, explanation in enumerate(payer.explain(written)):
        memory, nearness = proposed.get(n, (None, None))
        text = None if memory is None else texts.get(memory)
        out.append(ChosenStep(written.steps[written.context + n], explanation, text, memory, nearness))
    return out
