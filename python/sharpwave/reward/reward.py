"""InstrumentalReward: the terms and their sum, as a function that a trainer calls; what it learns, how it is kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce, divergence
from sharpwave._fork import renewed_in_children
from sharpwave.habituation import Habituation
from sharpwave.results import Explanation, ReplayReport, explained_without
from sharpwave.reward import checkpoint, ranks
from sharpwave.reward.base import BaseSamples
from sharpwave.reward.breakdown import ExplainedText
from sharpwave.reward.fitting import Fitted
from sharpwave.reward.later import AsyncReward, BackgroundScorer, cached
from sharpwave.reward.learning import LEARN, Learn, episodes_of, joined, write_of
from sharpwave.reward.measure import Clock, Measured, Scorable
from sharpwave.reward.output import RewardOutput
from sharpwave.reward.parts import Part
from sharpwave.reward.protections import Combine, Crowd, Demonstrations, Protections, Saturate
from sharpwave.reward.protections import of as protections_of
from sharpwave.reward.scale import Normalise, Scale
from sharpwave.reward.terminal import Terminal, as_terminal
from sharpwave.reward.terms import Base, Floats
from sharpwave.reward.warn import Once
from sharpwave.reward.weights import Weights
from sharpwave.store import ValueStore
from sharpwave.text.chunkers import Batch, Chunker, Sentences, Text, chunk_batch, pairs
from sharpwave.text.embedders import Embedder, as_embedder
from sharpwave.text.typicality import LATER, REFERENCE, Typicality, TypicalityReport, ungated
from sharpwave.text.typicality import of as typicality_of
from sharpwave.view import Functional

if TYPE_CHECKING:
    from sharpwave._coerce import Array


class InstrumentalReward(Fitted):
    """``reward = w_term·terminal·g(σ̄) + w_inst·R − w_kl·D``, each term standardised on base samples.

    That is ``combine="sum"``, which a policy can exploit when it is optimised for long. A reward to be optimised for
    long is bounded, pays only outcome and process together, and only texts that the base could have written:
    ``combine="conjunction"`` with ``typicality=``, ``crowd=`` and ``demonstrations=``:

        reward = T · (u_term^a · u_inst^b)^{1/(a+b)} / crowd − .05·excess − w_kl·D,   a = w_term, b = w_inst

    >>> reward = sw.InstrumentalReward(store, embedder, base=(prompts, completions))
    >>> out = reward.score_texts(prompts, completions)
    >>> GRPOTrainer(model, reward_funcs=reward, callbacks=[SharpwaveCallback(reward)], …)

    The object itself is a reward function of TRL's GRPO, RLOO and OnlineDPO trainers. It pickles if its embedder and
    its terminal do; the copy holds its own store.

    Args:
        store: what scores. It must have been filled with the same embedder.
        embedder: texts to vectors; a bare callable is one.
        chunker: prompts and completions to steps; sentences of at most 16 words by default.
        terminal: any trainer-style reward function, or the name of a channel of the store, or None.
        weights: of the terms; a dict names some of them.
        learn: how completions of training batches enter the store: not at all; kept aside until `sleep` consolidates
            them; or at once. Evaluation batches never do.
        base: prompts and completions of the base policy (a few hundred are enough). They give the constants of the
            scale and are what divergence is measured against.
        channel_weights: (Q,) or by name, w_q of the store's channels; equal by default.
        functional, discount: as for `ValueStore.score`.
        divergence_estimator: ``"mmd"``, ``"pairwise"``, ``"knn"`` or ``"mahalanobis"``.
        support_discount: whether g is the mean support, so that what a terminal pays where the store knows nothing is
            discounted towards the low end of its range, or 1. None: for an embedding channel in a sum it is, because
            raw cosine pays parroting; for the others it is not, nor in a conjunction, which has the store as a factor.
        normalise: ``"base"``, ``"running"`` or ``"none"``; or a `Scale`, fitted before.
        habituation: a table, or its options; what recent training episodes used then pays less.
        terminal_range: (low, high) of a reward function's values, as its channel takes them; by default that of the
            base, or (0, 1).
        sleep: arguments of `ValueStore.replay` for `sleep`, such as ``{"budget": 4096, "max_drift": 0.05}``.
        keep_texts: whether learned steps keep their texts, for `explain`.
        name: the function's ``__name__``; trainers log under it.
        combine: ``"sum"``, or ``"conjunction"``: each of terminal and instrumental as u, from 0 at the base's .25
            quantile to 1 at what demonstrations reach (their .75 quantile; without them the base's .99), and of the two
            the geometric mean with the weights as exponents. With one weight 0, or without a terminal, the other alone.
            A terminal of None counts as the floor.
        saturate: whether u, or a standardised term of a sum, stops rising at what demonstrations reach; `Saturate`, or
            a dict of its fields. By default it does in a conjunction, and does not in a sum.
        typicality: the gate T: a `sharpwave.text.Typicality`, its configuration, or a model's path; it is fitted on the
            base samples unless it is fitted. True, or one without a model: T is taken from the trainer's reference
            pass (``reference_logprobs=``). It multiplies the pay; of a sum, what lies above the sum of the terms' lo.
            Where T is 0, .05 is subtracted for each standard deviation beyond, so that a group still has an order.
        crowd: whether completions of a batch that are more alike than demonstrations (else base samples) divide their
            pay by crowd = max(1, s̄/s_demo)²; `Crowd`, or a dict of its fields. Of a sum it divides what T multiplies.
        demonstrations: prompts and completions as they are meant to be: a pair, or `Demonstrations`, which can also be
            written to the store under a channel of their own. They set what saturation and crowding compare with, and
            should then not be in the store otherwise: it pays most for what it knows by heart.

    Raises:
        sharpwave.EmbedderError: the store was filled with another embedder.
        KeyError: no such channel or term.
        ValueError: a number out of range, an unknown option, or a weight on divergence without base samples.
        TypeError: an argument of the wrong kind.
    """

    def __init__(
        self,
        store: ValueStore,
        embedder: Embedder | Callable[[list[str]], Any],
        chunker: Chunker | None = None,
        terminal: Callable[..., Any] | Terminal | str | None = None,
        weights: Weights | Mapping[str, float] | None = None,
        learn: Learn = "off",
        *,
        base: Base | None = None,
        channel_weights: Array | Mapping[str, float] | None = None,
        functional: Functional = "coverage",
        discount: float = 1.0,
        divergence_estimator: divergence.Estimator = "mmd",
        support_discount: bool | None = None,
        normalise: Normalise | Scale = "base",
        habituation: Habituation | Mapping[str, Any] | None = None,
        terminal_range: tuple[float, float] | None = None,
        sleep: Mapping[str, Any] | None = None,
        keep_texts: bool = True,
        name: str = "sharpwave",
        combine: Combine | Protections = "sum",
        saturate: Saturate | Mapping[str, Any] | bool | None = None,
        typicality: Typicality | Mapping[str, Any] | str | os.PathLike[str] | bool | None = None,
        crowd: Crowd | Mapping[str, Any] | bool | None = None,
        demonstrations: Demonstrations | Mapping[str, Any] | Base | None = None,
    ) -> None:
        if not isinstance(store, ValueStore):
            hint = ": ValueStore.load(path) reads one, ValueStore.open(path) also keeps what is written to it"
            given = type(store).__name__ + (hint if isinstance(store, str | os.PathLike) else "")
            raise TypeError(f"store must be a sharpwave.ValueStore, got {given}")
        if learn not in LEARN:
            raise ValueError(f"learn must be one of {LEARN}, got {learn!r}")
        if divergence_estimator not in divergence.ESTIMATORS:
            raise ValueError(
                f"divergence_estimator must be one of {divergence.ESTIMATORS}, got {divergence_estimator!r}"
            )
        self.embedder: Embedder = as_embedder(embedder)
        self.terminal = as_terminal(terminal, store)
        self.store = store
        self.chunker: Chunker = Sentences() if chunker is None else chunker
        self.weights = Weights.of(weights)
        self.learn: Learn = learn
        self.channel_weights = channel_weights
        self.functional: Functional = functional
        self.discount = discount
        self.divergence_estimator: divergence.Estimator = divergence_estimator
        self.scale = normalise if isinstance(normalise, Scale) else Scale(normalise)
        self.habituation = Habituation(**habituation) if isinstance(habituation, Mapping) else habituation
        self.sleep_options = dict(sleep or {})
        self.keep_texts = keep_texts
        self.name = _coerce.string("name", name)
        self.__name__ = self.name
        self.training: bool | None = None
        self.last_sleep: ReplayReport | None = None
        self.protections = protections_of(combine, saturate, crowd, self.weights, self.terminal is not None)
        parroted = self.terminal is not None and self.terminal.saturates and self.protections.combine == "sum"
        self.support_discount = parroted if support_discount is None else support_discount
        self.base: BaseSamples | None = None
        self.base_texts: Base | None = None
        self.terminal_range = terminal_range
        self.typicality = typicality_of(typicality)
        self.demonstrations = Demonstrations.of(demonstrations)
        self._start()
        if self.demonstrations is not None and self.demonstrations.channel is not None:
            self._write_demonstrations(self.demonstrations, self.demonstrations.channel)
        if base is not None:
            self.fit(*base)
        elif self.weights.divergence:
            raise ValueError("a weight on divergence needs base samples: pass base=(prompts, completions)")
        missing = self.protections.missing(self._terms(), self.typicality is not None)
        if self.typicality is not None and self.typicality.reads and self.typicality.fitted is None:
            missing = "what is typical"
        if missing:
            raise ValueError(f"base samples say {missing}: pass base=(prompts, completions)")
        self._open()

    def _start(self) -> None:
        self._after_fork()
        renewed_in_children(self)
        self.background = BackgroundScorer(self.name)
        self._once = Once(self.name)
        self._model: Callable[[], Any] | None = None
        self._last: tuple[Any, set[str], RewardOutput] | None = None

    # Scoring

    def score_texts(
        self,
        prompts: Sequence[Text | None],
        completions: Sequence[Text],
        *,
        learn: bool | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> RewardOutput:
        """Score completions, and learn them if that is on.

        Args:
            prompts, completions: E of each, texts or chat messages, in any sequence (`episodes.pairs`); one that cannot
                be read earns None for itself.
            learn: whether they may enter the store in the way that the reward's ``learn`` says. None: unless `eval` was
                called.
            columns: what else a terminal may want, such as columns of the dataset.

        Raises:
            ValueError: not as many prompts as completions, or an embedder of another dimension.
        """
        learning = self.training is not False if learn is None else learn
        return self._evaluate(prompts, completions, dict(columns or {}), learning, every_rank=False)

    def explain_texts(
        self,
        prompt: Text | None,
        completion: Text,
        *,
        beside: Base | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> ExplainedText:
        """For every step of one episode (prompt first), the memories, channels and associations that paid; and in
        ``pay``, which factor of the reward took how much.

        What is explained is what `score_texts` would make of it now: what recent episodes used pays less where the
        reward habituates, and the pay of the steps sums to ``instrumental``. Ask before the episode is learned;
        afterwards, it has changed the store and the habituation itself.

        >>> print(reward.explain_texts(prompt, completion).pay)
        .21  “He met a girl at the harbour. …”
          made of  terminal .64 · instrumental .42 → .52  × T .40 (z +3.10: .40, entropy +.02: 1)  ÷ crowd 1.00
          lost     typicality .31 (.52 without it; by its z), instrumental .11 (.32 at its best)

        Args:
            prompt, completion: the episode.
            beside: prompts and completions of the rest of its training batch, with which it shares pay where
                habituation shares, and which may crowd it; None: it is scored alone.
            columns: as for `score_texts`, of the episode and the rest. Where T is from the trainer's reference pass and
                ``reference_logprobs`` is not among them, it counts as 1.

        Returns:
            One entry a step; none for a completion that cannot be scored.
        """
        prompts, completions = ([], []) if beside is None else pairs(*beside)
        prompts, completions = [prompt, *prompts], [completion, *completions]
        given = dict(columns or {})
        if self.typicality is not None and not self.typicality.reads:
            given.setdefault(REFERENCE, LATER)
        shares = beside is not None
        pay = self._evaluate(prompts, completions, given, False, every_rank=False, shares=shares).breakdown(0)
        return ExplainedText(self._explained(prompts, completions, shares), pay)

    def _explained(self, prompts: list[Text | None], completions: list[Text], shares: bool) -> list[Explanation]:
        """The steps of the first of several episodes."""
        batch = chunk_batch(self.chunker, prompts, completions)
        scorable = Scorable.of(batch, self.embedder, self.store.dim)
        if not scorable.kept[0]:
            return []
        options = self._score_options()
        end = int(scorable.offsets[1])
        with self._lock:
            view = self.store if self.store.remote else self.store.frozen()
            table = self.habituation
            if table is not None and table.sharing and shares:
                scores = view.score(
                    scorable.steps,
                    scorable.offsets,
                    context=scorable.context,
                    habituation=table,
                    details=True,
                    **options,
                )
                table = table.beside(scores.without(scorable.others, self.functional))[0]
            explained = view.explain(
                scorable.steps[:end], context=int(scorable.context[0]), habituation=table, **options
            )
        others = scorable.others[scorable.others < end]
        return explained_without(explained, others, int(scorable.context[0]), self.functional)

    # As a function that a trainer calls

    def __call__(self, prompts: Any = None, completions: Any = None, **given: Any) -> list[float | None]:
        """The reward function of TRL: one number a completion, None where it cannot be scored.

        Whatever else the trainer gives (columns, ``completion_ids``, ``trainer_state``) is passed to the terminal;
        ``log_metric`` and ``log_extra`` get every part by name.
        """
        return self.call(prompts, completions, asker="", **given).rewards

    def call(
        self, prompts: Any, completions: Any, *, asker: str, log_metric: Any = None, log_extra: Any = None, **given: Any
    ) -> RewardOutput:
        """What `__call__` and the `parts` do. Several askers of one batch (the same list) share one evaluation."""
        if completions is None:
            raise TypeError("a reward function needs completions=")
        if prompts is None:
            prompts = [None] * len(_coerce.sequence("completions", completions))
        with self._lock:
            if self._last is not None and self._last[0] is completions and asker not in self._last[1]:
                self._last[1].add(asker)
                return self._last[2]
            if self.functional == "potential":
                self._once.potential()
            out = self._evaluate(prompts, completions, given, self._training(log_metric), every_rank=True)
            self._last = (completions, {asker}, out)
        if log_metric is not None:
            for name, value in {**out.means(), **self._state_of_store(), **out.timings()}.items():
                log_metric(f"{self.name}/{name}", value)
        if log_extra is not None:
            for name, values in {**out.standardised, **out.factors}.items():
                if np.isfinite(values).any():
                    log_extra(f"{self.name}_{name}", [float(value) for value in values])
        return out

    def output_of(self, prompts: Sequence[Any], completions: Sequence[Any]) -> RewardOutput:
        """What the last call found, if it was of this very list of completions; else they are scored, not learned."""
        with self._lock:
            if self._last is not None and self._last[0] is completions:
                return self._last[2]
            return self._evaluate(prompts, completions, {}, learning=False, every_rank=False)

    def parts(self, terms: Sequence[str] | None = None) -> list[Part]:
        """Each term as a reward function of its own, for a trainer's ``reward_weights``; those that there are.

        Raises:
            ValueError: the terms are more than added up, so that a trainer's sum of them is another reward.
        """
        if self.protections.on or self.typicality is not None:
            raise ValueError("parts of a reward with a conjunction or protections are no sum: pass the reward itself")
        terms = self._terms() if terms is None else terms
        return [Part(self, term) for term in terms]

    # Training or not

    def train(self, mode: bool = True) -> Self:
        """Say that what follows is training (or, with False, is not); `None` in ``training``: ask the trainer."""
        self.training = mode
        return self

    def eval(self) -> Self:
        """Say that what follows is evaluation: nothing is learned."""
        return self.train(False)

    def follow(self, model: Callable[[], Any] | None) -> None:
        """Where to find the trainer's model, for trainers that pass no ``log_metric``: its mode tells training from
        evaluation. ``model()`` may return None (a weak reference)."""
        self._model = model

    def _training(self, log_metric: Any) -> bool:
        """TRL calls the same function in evaluation and says nothing: its model knows."""
        if self.training is not None:
            return self.training
        model = getattr(getattr(log_metric, "__self__", None), "model", None)
        if model is None and self._model is not None:
            model = self._model()
        mode = getattr(model, "training", None)
        if mode is None:
            if self.learn != "off":
                self._once.mode()
            return False
        return bool(mode)

    # Beside the training

    def submit(
        self,
        prompts: Sequence[Text | None],
        completions: Sequence[Text],
        *,
        learn: bool | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> Future[RewardOutput]:
        """`score_texts`, begun now and finished later; what was submitted first is scored first."""
        given = _coerce.sequence("prompts", prompts), _coerce.sequence("completions", completions)
        return self.background.submit(self.score_texts, *given, learn=learn, columns=columns)

    def prepare(self, prompts: Sequence[Text | None], completions: Sequence[Text]) -> Future[int]:
        """Embed the steps of completions that are finished before their batch is, into the embedder's cache; gives how
        many steps there were. The call that scores them then finds their vectors.

        Raises:
            ValueError: the embedder has no cache to put them into.
        """
        if not cached(self.embedder):
            raise ValueError("prepare needs an embedder with a cache, such as SentenceTransformer(…, cache=True)")
        given = _coerce.sequence("prompts", prompts), _coerce.sequence("completions", completions)
        return self.background.submit(self._embed, *given)

    def asynchronous(self) -> AsyncReward:
        """This reward as a coroutine function, for trainers that gather those: several rewards take their time
        together, such as this one and a judge behind HTTP."""
        return AsyncReward(self)

    # Building, learning, sleeping

    def observe_texts(
        self,
        prompts: Sequence[Text | None],
        completions: Sequence[Text],
        *,
        columns: Mapping[str, Any] | None = None,
        source: str | None = None,
    ) -> int:
        """Write episodes into the store whatever ``learn`` says, the terminal's values with them, to fill it before
        training. Returns how many; those that cannot be scored are left out. Sleep afterwards."""
        prompts, completions = pairs(prompts, completions)
        batch = chunk_batch(self.chunker, prompts, completions)
        found = self._measure(prompts, completions, dict(columns or {}), batch, Clock())
        source = source or f"{self.name}:seed"
        write = write_of(found, batch, self.store, self.terminal, self.keep_texts, source)
        return 0 if write is None else write.apply(self.store, propose=False)

    def sleep(self, **options: Any) -> ReplayReport:
        """Replay the store, and consolidate what was proposed; ``options`` replace those that the reward has.

        With several ranks, all of them sleep.
        """
        settings: dict[str, Any] = {"consolidate": self.learn == "propose", **self.sleep_options, **options}
        if ranks.count() > 1 and not self.store.remote and settings.get("seconds") is not None:
            raise ValueError("sleep: with seconds= the stores of several ranks would differ; give a budget=")
        self.last_sleep = self._slept(settings)
        return self.last_sleep

    def _slept(self, settings: dict[str, Any]) -> ReplayReport:
        if not self.store.remote or ranks.count() == 1:
            return self.store.replay(**settings)
        mine = self.store.replay(**settings) if ranks.first_alone(self.store) else None
        first = ranks.exchanged(mine)[0]
        assert first is not None
        return first

    # What a call does

    def _evaluate(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: dict[str, Any],
        learning: bool,
        *,
        every_rank: bool,
        shares: bool = False,
    ) -> RewardOutput:
        """Score a batch, and learn it if ``learning``; ``shares``: its episodes share pay though it is not learned."""
        clock = Clock()
        prompts, completions = pairs(prompts, completions)
        batch = chunk_batch(self.chunker, prompts, completions)
        clock.lap("chunk")
        found = self._measure(prompts, completions, columns, batch, clock, learning or shares, every_rank)
        standardised = {term: self.scale(term, values) for term, values in found.raw.items()}
        report = self._typical(prompts, completions, columns)
        clock.lap("typicality")
        crowd = self._crowding(prompts, found.scorable.vectors(), every_rank)
        clock.lap("crowd")
        terms = self._terms()
        paid = self.protections.pay(found.raw, self.scale, self.weights, terms, report, crowd)
        reward = np.where(found.scorable.kept, paid.reward, np.nan)
        if not (self.protections.combine == "conjunction" and not self.weights.instrumental):
            self._once.store(self.store)
        if self.protections.combine == "sum":
            self._once.scale(self.scale, [term for term in terms if getattr(self.weights, term)])
        self._once.variance(prompts, reward)
        if learning:
            with self._lock:
                self._learn(found, batch, prompts, completions, columns, every_rank)
        clock.lap("learn")
        out = RewardOutput(
            reward.astype(np.float32),
            found.terminal.astype(np.float32),
            found.raw["instrumental"].astype(np.float32),
            found.raw["divergence"].astype(np.float32),
            found.support.astype(np.float32),
            found.step,
            {term: values.astype(np.float32) for term, values in standardised.items()},
            {name: values.astype(np.float32) for name, values in paid.parts.items()},
            clock.finish(),
            batch,
            found.scores,
            {name: values.astype(np.float32) for name, values in paid.factors.items()},
            {name: values.astype(np.float32) for name, values in paid.costs.items()},
        )
        if self.weights.instrumental:
            self._once.unknown(out.unknown, len(completions))
        return out

    def _typical(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
    ) -> TypicalityReport | None:
        """T of each completion, from what the trainer's reference said of it, else from a model of one's own."""
        if self.typicality is None:
            return None
        handed: Any = columns.get(REFERENCE)
        if handed is LATER:
            return ungated(len(completions))
        if handed is not None:
            return self.typicality.report_of_tokens(handed, prompts, completions)
        return self.typicality.report(prompts, completions)

    def _crowding(
        self, prompts: Sequence[Any], vectors: NDArray[np.float32], every_rank: bool
    ) -> tuple[Floats, Floats] | None:
        """The crowd of each completion and its likeness to the others, whichever rank has them."""
        if self.protections.crowd is None:
            return None
        if not every_rank:
            return self.protections.crowding(prompts, vectors)
        asked, rows, mine = ranks.gathered(prompts, vectors)
        crowd, alike = self.protections.crowding(asked, rows)
        return crowd[mine], alike[mine]

    def _state_of_store(self) -> dict[str, float]:
        found = {"memories": float(len(self.store))}
        if self.last_sleep is not None:
            for name in ("backups", "residual", "seconds", "observed", "refused"):
                found[f"sleep/{name}"] = float(getattr(self.last_sleep, name))
        return found

    def _embed(self, prompts: list[Text | None], completions: list[Text]) -> int:
        steps = chunk_batch(self.chunker, prompts, completions).steps
        self.embedder(steps)
        return len(steps)

    # Learning

    def _learn(
        self,
        found: Measured,
        batch: Batch,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: dict[str, Any],
        every_rank: bool,
    ) -> None:
        step = getattr(columns.get("trainer_state"), "global_step", None)
        source = self.name if step is None else f"{self.name}:{step}"
        write = None
        if self.learn != "off":
            write = write_of(found, batch, self.store, self.terminal, self.keep_texts, source)
        mine = episodes_of(write, found, prompts, completions, self.habituation is not None)
        everybody = [(mine, found.raw, "")]
        if every_rank and ranks.count() > 1:
            digest = "" if self.store.remote or self.learn == "off" else self.store.digest()
            everybody = ranks.exchanged((mine, found.raw, digest))
            ranks.same_digests([digest for _, _, digest in everybody], "before this step was written")
        episodes = ranks.in_order([episode for theirs, _, _ in everybody for episode in theirs])
        for term in found.raw:
            values = np.sort(np.concatenate([terms[term] for _, terms, _ in everybody]))
            if np.isfinite(values).any():
                self.scale.update(term, values)
        if self.habituation is not None:
            self.habituation.record_uses(episode.used for episode in episodes if episode.used is not None)
        joint = None if self.learn == "off" else joined(episodes, source)
        if joint is not None and (not every_rank or ranks.first_alone(self.store)):
            joint.apply(self.store, propose=self.learn == "propose")
        if every_rank and self.store.remote and self.learn != "off":
            ranks.exchanged(None)  # nobody scores on before the first rank has written

    # Keeping it

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write the store and `state_dict` into a directory."""
        return checkpoint.save(self, directory, self.to_config())

    def restore(self, directory: str | os.PathLike[str], *, snapshot: str | None = None) -> None:
        """The inverse of `save`; the content of the live store is replaced.

        Args:
            directory: where it was saved.
            snapshot: the checksum that the store's snapshot must have, where the caller knows it.

        Raises:
            FileNotFoundError: nothing was saved there.
            ValueError: the snapshot is another one.
            sharpwave.FormatError, sharpwave.EmbedderError: it is damaged, or was made with another embedder.
        """
        with self._lock:
            checkpoint.restore(self, directory, snapshot)
            self._changed()

    def to_config(self) -> dict[str, Any]:
        """Plain data from which `from_config` builds this reward again, the fitted constants included."""
        from sharpwave.reward.config import describe

        return describe(self)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any] | str | None = None,
        /,
        *,
        allow: Sequence[str] | None = None,
        **overrides: Any,
    ) -> Self:
        """A reward from plain data, or from the YAML or JSON file that holds it; see docs/api.md.

        Args:
            config: the data or the file.
            allow: modules, with all below them, whose functions it may name; None: what the environment has as
                ``SHARPWAVE_ALLOW``. Functions of this package, and of modules that are imported already and are not
                Python's own, it may name in any case.
            overrides: entries that replace those of the config; objects too.

        Raises:
            PermissionError: it names a function that is not allowed.
        """
        from sharpwave.reward.config import build

        return build(cls, config, overrides, allow)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        run = ("_lock", "_once", "_model", "_last", "background")
        return {name: value for name, value in self.__dict__.items() if name not in run}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __repr__(self) -> str:
        terminal = None if self.terminal is None else self.terminal.name
        return f"InstrumentalReward({self.store!r}, terminal={terminal!r}, {self.weights}, learn={self.learn!r})"
