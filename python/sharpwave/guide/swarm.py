"""The particles of one prompt: sequential Monte Carlo over the steps of a text.

All particles are extended by one token at a time. They are weighed when each has a new complete step, or has ended, or
has written for `step_tokens` tokens without one. The log-weight of a particle then grows by

    strength·(ΔG/scale + follow·(nearness − near_mean)/near_scale)        G = T·(R + V), `potential`

Particles are resampled systematically if their effective sample size is below half their number. A particle that is
ahead of the others goes on writing until they are weighed: a copy of it shares what it has written.

Doucet, de Freitas & Gordon (2001), Sequential Monte Carlo Methods in Practice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave.guide.payment import Payer, Rows, Written
from sharpwave.guide.result import Weighing
from sharpwave.text.chunkers import Text
from sharpwave.text.typicality import TokenLogprobs, Typicality

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """How particles are weighed: the part of a guide's settings that a swarm reads."""

    strength: float
    particles: int
    follow: float
    scale: float
    near_mean: float
    near_scale: float
    step_tokens: int


@dataclass
class Particle:
    """One text that is being written; a copy shares nothing that is changed later."""

    tokens: list[int] = field(default_factory=list[int])
    logps: list[float] = field(default_factory=list[float])
    entropies: list[float] = field(default_factory=list[float])
    varentropies: list[float] = field(default_factory=list[float])
    text: str = ""
    done: bool = False
    ended: bool = False
    """Whether the last token is the end token."""
    steps: tuple[list[str], int] = field(default_factory=lambda: ([], 0))
    """The complete steps and how many of them are context."""
    weighed: int = 0
    """How many steps were complete when it was last weighed."""
    potential: float = 0.0
    log_weight: float = 0.0
    """Since the last resampling."""
    lineage: float = 0.0
    """The sum of all increments, its ancestors' included."""
    memory: int | None = None
    """The memory that the next step should come near."""
    followed: tuple[tuple[int, int, float], ...] = ()
    """(step, memory, nearness) of every step for which there was a proposal."""

    def copy(self) -> Particle:
        lists = {name: list(getattr(self, name)) for name in ("tokens", "logps", "entropies", "varentropies")}
        return replace(self, **lists)

    @property
    def complete(self) -> int:
        """How many complete steps it has, context left out."""
        return len(self.steps[0]) - self.steps[1]

    @property
    def said(self) -> int:
        """How many tokens it has, the end token left out."""
        return len(self.tokens) - self.ended


class Swarm:
    """The particles of one prompt.

    Args:
        prompt: as the chunker takes it.
        name: what the random numbers depend on, beside the seed.
        occurrence: how many equal prompts stand before it in the batch.
        typicality: the gate, or None.
    """

    def __init__(
        self,
        prompt: Text | None,
        name: str,
        occurrence: int,
        rule: Rule,
        payer: Payer,
        typicality: Typicality | None,
        seed: int,
        max_tokens: int,
    ) -> None:
        self.prompt, self.rule, self.payer, self.typicality = prompt, rule, payer, typicality
        key = hashlib.sha256(json.dumps([seed, name, occurrence]).encode()).digest()
        self.random = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
        self.uniforms = self.random.random((rule.particles, max_tokens))
        self.particles = [Particle() for _ in range(rule.particles)]
        self.known: dict[str, Rows] = {}
        self.trace: list[Weighing] = []
        self.log_mean = 0.0
        """log Ê[w], the sum over resamplings."""
        self.drawn = 0
        self.since = 0
        """Tokens a particle since the last weighing."""
        start = payer.read([payer.complete(prompt, "", done=False)], self.known)[0]
        self.start = float(payer.pay([start])[1][0])
        for particle in self.particles:
            particle.potential = self.start
        if rule.follow and rule.strength and start.newest is not None:
            self._propose(dict.fromkeys(range(rule.particles), start.newest))

    @property
    def live(self) -> list[int]:
        """The particles that are not finished."""
        return [n for n, particle in enumerate(self.particles) if not particle.done]

    def add(self, n: int, token: int, said: Sequence[float], *, ended: bool, last: bool) -> None:
        """Give particle `n` its next token; ``said``: log-probability, entropy and varentropy, nats."""
        particle = self.particles[n]
        particle.tokens.append(token)
        particle.logps.append(said[0])
        particle.entropies.append(said[1])
        particle.varentropies.append(said[2])
        particle.ended, particle.done = ended, ended or last
        self.drawn += 1

    def rewritten(self, n: int, text: str) -> None:
        """Particle `n` has this text now."""
        particle = self.particles[n]
        if text != particle.text or particle.done:
            particle.text = text
            particle.steps = self.payer.complete(self.prompt, text, particle.done)

    def ready(self) -> bool:
        """Whether the particles should be weighed after this token."""
        self.since += 1
        live = [particle for particle in self.particles if not particle.done]
        if not live or self.since >= self.rule.step_tokens:
            return True
        return all(particle.complete > particle.weighed for particle in live)

    def weigh(self) -> NDArray[np.int64] | None:
        """Weigh the particles; the parent of each if they were resampled, else None."""
        rule, every = self.rule, self.particles
        written = self.payer.read([particle.steps for particle in every], self.known)
        pay, ahead = self.payer.pay(written)
        done = np.array([particle.done for particle in every])
        ahead = np.where(done, 0.0, ahead)
        gate = self._gate()
        potentials = potential(pay, ahead, gate)
        gained = potentials - np.array([particle.potential for particle in every])
        nearness = self._nearness(written)
        wish = rule.follow * np.nan_to_num((nearness - rule.near_mean) / rule.near_scale)
        increment = rule.strength * (gained / rule.scale + wish) if rule.strength else np.zeros(len(every))
        for n, particle in enumerate(every):
            particle.potential = float(potentials[n])
            particle.log_weight += float(increment[n])
            particle.lineage += float(increment[n])
        log_weights = np.array([particle.log_weight for particle in every])
        weights, log_mean = normalised(log_weights)
        ess = float(1.0 / np.sum(weights**2))
        moved = {
            n: one.vectors[-1]
            for n, (p, one) in enumerate(zip(every, written, strict=True))
            if p.complete > p.weighed and not p.done and len(one.vectors)
        }
        for particle in every:
            particle.weighed = particle.complete
        if rule.follow and rule.strength and moved:
            self._propose(moved)
        parents: NDArray[np.int64] | None = None
        if not done.all() and ess < len(every) / 2:
            parents = systematic(weights, float(self.random.random()))
            self.particles = [every[n].copy() for n in parents.tolist()]
            for particle in self.particles:
                particle.log_weight = 0.0
            self.log_mean += log_mean
        newest = tuple(p.steps[0][-1] if p.complete else "" for p in every)
        self.trace.append(
            Weighing(
                max(len(p.tokens) for p in every),
                newest,
                pay,
                ahead,
                nearness,
                gate,
                increment,
                weights,
                ess,
                parents,
            )
        )
        self.since = 0
        return parents

    def kl(self) -> float:
        """Estimate of KL(guided‖model) of a whole text, nats; the particles are finished."""
        weights, log_mean = normalised(np.array([particle.log_weight for particle in self.particles]))
        lineage = np.array([particle.lineage for particle in self.particles])
        return max(0.0, float(weights @ lineage) - self.log_mean - log_mean)

    def _propose(self, newest: dict[int, Rows]) -> None:
        """Recall from the newest step of each particle, and keep the memory that comes next on the way to value."""
        paths = self.payer.paths(np.stack(list(newest.values())))
        for n, path in zip(newest, paths, strict=True):
            self.particles[n].memory = None if path is None else int(path.ids[1])

    def _nearness(self, written: Sequence[Written]) -> Floats:
        """(N,) of the newest step to the memory that was proposed for it; NaN where there is no new step."""
        out = np.full(len(self.particles), np.nan)
        asked = [
            n
            for n, p in enumerate(self.particles)
            if p.memory is not None and p.complete > p.weighed and len(written[n].vectors) > written[n].context
        ]
        if asked:
            vectors = np.stack([written[n].vectors[-1] for n in asked])
            memories = [int(self.particles[n].memory or 0) for n in asked]
            out[asked] = self.payer.nearness(vectors, memories)
        for n in asked:
            particle = self.particles[n]
            step = len(written[n].vectors) - written[n].context - 1
            particle.followed = (*particle.followed, (step, int(particle.memory or 0), float(out[n])))
        return out

    def _gate(self) -> Floats:
        """(N,) T of the texts so far; 1 without a gate and for a text without tokens."""
        gate = np.ones(len(self.particles))
        said = [n for n, particle in enumerate(self.particles) if particle.said]
        if self.typicality is None or not said:
            return gate
        fitted = self.typicality.fitted
        assert fitted is not None
        kinds = fitted.z
        rows = [
            TokenLogprobs(
                np.array(p.logps[: p.said]),
                np.array(p.entropies[: p.said]) if "entropy" in kinds else None,
                np.array(p.varentropies[: p.said]) if "varentropy" in kinds else None,
            )
            for p in (self.particles[n] for n in said)
        ]
        texts: list[Text] = [self.particles[n].text for n in said]
        prompts: list[Any] = [self.prompt] * len(said)
        gate[said] = self.typicality.report_of_tokens(rows, prompts, texts).gate
        return gate


def potential(pay: Floats, ahead: Floats, gate: Floats) -> Floats:
    """(N,) G: the pay and the value-to-go; what is positive of them times T.

    A sum of increments of G is G of the whole text, T·R, so that an increment that was paid for an earlier step is
    taken back where the text becomes atypical. A negative sum is not gated: T would reward it.
    """
    whole = pay + ahead
    return np.where(whole > 0, gate * whole, whole)


def normalised(log_weights: Floats) -> tuple[Floats, float]:
    """Weights that sum to 1, and log of the mean weight; a shift of all log-weights changes no weight."""
    top = float(log_weights.max())
    weights = np.exp(log_weights - top)
    return weights / weights.sum(), top + float(np.log(weights.mean()))


def systematic(weights: Floats, uniform: float) -> NDArray[np.int64]:
    """(N,) ascending parents; parent i is drawn ⌊N·W_i⌋ or ⌈N·W_i⌉ times, in the mean over `uniform` N·W_i times."""
    count = len(weights)
    places = (np.arange(count) + uniform) / count
    return np.minimum(np.searchsorted(np.cumsum(weights), places, side="right"), count - 1).astype(np.int64)
