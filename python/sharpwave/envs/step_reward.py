"""StepReward: what every step of environments earns from a store, and what their episodes leave in it.

The wrappers for Gymnasium, Stable-Baselines3 and TorchRL are this with another face. An observation is a step of an
episode; the one that `reset` gave is its context; the reward of the environment is the drive of a scalar channel at the
observation that came with it. An episode that ends is observed (which replays it awake), and every few episodes the
store sleeps.

Dense pay has to be known when the step is made. `potential` is, in one look-up: γ'Φ(x_t) − Φ(x_{t−1}), with Φ = 0 where
the episode *terminates*, and Φ(x_t) kept where it is merely cut off, as the trainer's bootstrapped value is
(Pardo et al. 2018, https://arxiv.org/abs/1712.00378). Φ(x_{t−1}) is what it was when it was paid, so that a store that
learns meanwhile still leaves the optimal policy as it is: dynamic shaping (Devlin & Kudenko 2012,
https://dl.acm.org/doi/10.5555/2343576.2343638). `progress` and `coverage` pay a step for what the episode had not shown
before, which its beginning decides: the episode so far is scored anew at every step, in time that grows with its
length. They are not free of influence on the optimum.

Nothing of that can pay before something of worth was met. `rarity` can: every step is noted at once, as an episode of
its own, and pays 1/√m for being the m-th that its memory took in. That is count-based exploration (Strehl & Littman
2008, https://doi.org/10.1016/j.jcss.2007.08.009) with the store's gate to say what is the same state, so that it counts
in continuous spaces too.
"""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from sharpwave import _coerce
from sharpwave._files import write_whole
from sharpwave._fork import renewed_in_children
from sharpwave._moved import renamed
from sharpwave.envs.observations import ObservationEmbedder, embed
from sharpwave.envs.running import Episode, Paid, laid_out
from sharpwave.envs.sharing import refuse_copy
from sharpwave.habituation import Habituation
from sharpwave.results import ReplayReport
from sharpwave.reward.checkpoint import checksum, same_snapshot
from sharpwave.reward.warn import Once
from sharpwave.store import SNAPSHOT, ValueStore
from sharpwave.view import Functional

Floats = NDArray[np.float32]
Pays = Literal["step", "end"]
Remember = Literal["all", "rewarded"]
STATE = "steps.json"


class StepReward:
    """Pays the steps of environments that run side by side, and remembers their episodes.

    Args:
        store: a `ValueStore`, or a client of a served one.
        embedder: stacked observations (n, …) to vectors (n, d); `observations.RandomFeatures` for Box spaces.
        functional: "potential", "progress", "coverage" or "mean", as in docs/model.md.
        weight: of what the store pays, beside the environment's own reward.
        rarity: β, of the bonus for what was seldom met, while learning; 0: none. It changes what is optimal, ever less
            as the counts grow. The store then counts every step as an episode of one; with a served store that is a
            write a step, and a look at all counts.
        discount: γ', the trainer's discount, which "potential" needs to leave the optimal policy as it is.
        channel: the scalar channel that the environment's reward feeds; added if the store has none of that name.
            None: rewards are not observed, and values come from the store's other channels alone.
        reward_range: (low, high) of the environment's reward, for a channel that is added.
        channel_weights: (Q,) or by name, w_q of the store's channels; equal by default.
        pays: "step", or "end": all that the episode earned at its last step. Potential is a constant then, and refused.
        learn: whether episodes are observed and the store sleeps. `learning` changes it later.
        remember: which episodes are observed: "all", or "rewarded", those in which the environment gave more than
            the low end of ``reward_range`` at some step. Where success is rare, the associations of all are those of
            a policy that fails, and values fade to nothing on the way; those of the rewarded ones say how it went.
        sleep_every: how many episodes from one sleep to the next; 0: never.
        sleep: arguments of `ValueStore.replay`, such as ``{"budget": 4096}``.
        habituation: a table, or its options; what recent episodes used then pays less. Not for "potential", which a
            changing factor would make something else.
        source: where the episodes come from, kept with them.

    Raises:
        ValueError: an unknown functional, a number out of range, or options that exclude each other.
        sharpwave.EmbedderError: the store was filled with another embedder.
        RuntimeError: the store is a copy of a parent process's, and would learn there.
    """

    def __init__(
        self,
        store: Any,
        embedder: ObservationEmbedder,
        *,
        functional: Functional = "potential",
        weight: float = 1.0,
        rarity: float = 0.0,
        discount: float = 0.99,
        channel: str | None = "reward",
        reward_range: tuple[float, float] = (0.0, 1.0),
        channel_weights: Any = None,
        pays: Pays = "step",
        learn: bool = True,
        remember: Remember = "all",
        sleep_every: int = 16,
        sleep: Mapping[str, Any] | None = None,
        habituation: Habituation | Mapping[str, Any] | None = None,
        source: str = "environment",
    ) -> None:
        if functional not in get_args(Functional):
            raise ValueError(f"functional must be one of {get_args(Functional)}, got {functional!r}")
        if pays not in ("step", "end"):
            raise ValueError(f'pays must be "step" or "end", got {pays!r}')
        if functional == "potential" and pays == "end":
            raise ValueError('pays="end": the sum of a potential is a constant of where the episode begins')
        if functional == "mean" and pays == "step":
            raise ValueError('functional="mean" divides by the length of the episode: it needs pays="end"')
        if functional == "potential" and habituation is not None:
            raise ValueError("habituation: a potential that changes with use leaves no optimal policy as it is")
        self.store = store
        self.embedder = embedder
        self.functional: Functional = functional
        self.weight = _coerce.number("weight", weight)
        self.rarity = _coerce.number("rarity", rarity)
        if self.rarity < 0:
            raise ValueError(f"rarity must not be negative, got {self.rarity}")
        self.discount = _coerce.number("discount", discount)
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount must be between 0 and 1, got {self.discount}")
        self.channel = None if channel is None else _coerce.string("channel", channel)
        self.channel_weights = channel_weights
        self.pays: Pays = pays
        self.learning = _coerce.flag("learn", learn)
        if self.learning:
            refuse_copy(store)
        if remember not in ("all", "rewarded"):
            raise ValueError(f'remember must be "all" or "rewarded", got {remember!r}')
        self.remember: Remember = remember
        self.reward_range = (
            _coerce.number("reward_range", reward_range[0]),
            _coerce.number("reward_range", reward_range[1]),
        )
        self.sleep_every = _coerce.count("sleep_every", sleep_every)
        self.sleep_options = dict(sleep or {})
        self.habituation = Habituation(**habituation) if isinstance(habituation, Mapping) else habituation
        self.source = _coerce.string("source", source)
        self.last_sleep: ReplayReport | None = None
        self.episodes = 0
        self._after_fork()
        renewed_in_children(self)
        self._once = Once("ValueMemory")
        self._running: list[Episode] = []
        store.bind_embedder(embedder)
        if self.channel is not None:
            if self.channel not in store.channels:
                store.add_channel(self.channel, *self.reward_range)
            elif self.channel not in store.scalar_channels:
                raise ValueError(f"channel {self.channel!r} is an embedding channel: rewards feed scalar ones")

    # Episodes

    def begin(self, observations: Any) -> None:
        """All environments were reset, to stacked observations (n, …). What had not ended is forgotten."""
        rows = embed(self.embedder, observations, self.store.dim)
        self._running = [Episode() for _ in rows]
        self._start(np.arange(len(rows)), rows)

    def begin_some(self, which: Sequence[int], observations: Any) -> None:
        """Environments ``which`` were reset, to stacked observations (one each). What had not ended is forgotten."""
        if len(which):
            self._start(np.asarray(which), embed(self.embedder, observations, self.store.dim))

    def grow(self, count: int) -> None:
        """Make room for ``count`` environments."""
        while len(self._running) < count:
            self._running.append(Episode())

    def _start(self, which: NDArray[np.int64], rows: Floats) -> None:
        values, _ = self._values(rows)
        for n, row, value in zip(which, rows, values, strict=True):
            self._running[n] = Episode([row], [np.nan], float(value))

    def step(self, observations: Any, rewards: Any, terminated: Any, truncated: Any) -> Paid:
        """One step of all environments: what they showed, gave, and whether they ended there; each (n, …).

        Of an environment whose episode ended, the observation is the last one of it, not the first of the next; say
        that with `begin_some`. A reward that is not finite counts as none, with a warning: it is not observed, and the
        step earns what the store pays.
        """
        rows = embed(self.embedder, observations, self.store.dim)
        given = np.asarray(rewards, np.float64).reshape(-1)
        over = np.asarray(terminated, bool).reshape(-1)
        done = over | np.asarray(truncated, bool).reshape(-1)
        if not len(rows) == len(given) == len(done) == len(self._running):
            raise ValueError(
                f"{len(rows)} observations, {len(given)} rewards and {len(done)} ends for {len(self._running)} "
                f"environments: call reset first"
            )
        observed, given = self._finite(given)
        with self._lock:
            for episode, row, reward in zip(self._running, rows, observed, strict=True):
                episode.steps.append(row)
                episode.drives.append(float(reward))
            values, support = self._values(rows)
            instrumental = self._instrumental(values, over, done)
            for episode, value, pay in zip(self._running, values, instrumental, strict=True):
                episode.value = float(value)
                episode.instrumental += float(pay)
            rare = self._noted(rows) if self.rarity and self.learning else np.zeros(len(rows))
            reward = given + self.weight * instrumental + self.rarity * rare
            ended = np.flatnonzero(done)
            paid = Paid(
                reward.astype(np.float32),
                given.astype(np.float32),
                instrumental.astype(np.float32),
                support.astype(np.float32),
                values.astype(np.float32),
                rare.astype(np.float32),
                {int(n): self._summary(self._running[n]) for n in ended},
            )
            if len(ended):
                self._finish([self._running[n] for n in ended])
        return paid

    def _finite(self, given: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rewards of environments as the store observes them, NaN for none, and as they are passed on, 0 for none."""
        finite = np.isfinite(given)
        if finite.all():
            return given, given
        n = int(np.argmin(finite))
        self._once.say(
            "reward", f"environment {n} gave the reward {given[n]}, which counts as none: rewards must be finite"
        )
        return np.where(finite, given, np.nan), np.where(finite, given, 0.0)

    def _values(self, rows: Floats) -> tuple[NDArray[np.float64], Floats]:
        """Φ = Σ_q w_q Φ_q and σ of each row."""
        values, support = self.store.value(rows)
        return values.astype(np.float64) @ self._weights(), support

    def _noted(self, rows: Floats) -> NDArray[np.float64]:
        """(n,) 1/√m of rows that are counted now; 1 for one that the gate dropped, or whose memory is gone again."""
        met = self.store.observe(rows, np.arange(len(rows) + 1), source=f"{self.source}:met").memory_ids
        ids, counts = self.store.ids, self.store.counts
        place = np.minimum(np.searchsorted(ids, met), len(ids) - 1)
        return np.where(ids[place] == met, 1 / np.sqrt(np.maximum(counts[place], 1)), 1.0)

    def _weights(self) -> NDArray[np.float64]:
        channels = self.store.channels
        if self.channel_weights is None:
            return np.full(len(channels), 1 / max(len(channels), 1))
        return np.asarray(_coerce.weights(self.channel_weights, channels), np.float64)

    def _instrumental(
        self, values: NDArray[np.float64], over: NDArray[np.bool_], done: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        if self.functional == "potential":
            before = np.array([episode.value for episode in self._running])
            return self.discount * np.where(over, 0.0, values) - before
        out = np.zeros(len(values))
        rows = np.arange(len(values)) if self.pays == "step" else np.flatnonzero(done)
        if len(rows):
            steps, offsets = laid_out([self._running[n] for n in rows])
            scores = self.store.score(steps, offsets, functional=self.functional, **self._score_options())
            # What a step is paid is decided by what came before it, so the last step's pay in the episode so far stays.
            out[rows] = scores.step[offsets[1:] - 1] if self.pays == "step" else scores.total
        return out

    def _score_options(self) -> dict[str, Any]:
        return {"weights": self.channel_weights, "habituation": self.habituation}

    def _summary(self, episode: Episode) -> dict[str, float]:
        return {
            "length": float(len(episode.steps) - 1),
            "environment": float(np.nansum(episode.drives[1:])),
            "instrumental": episode.instrumental,
        }

    def _finish(self, ended: list[Episode]) -> None:
        """Remember episodes, and sleep when it is time."""
        if self.remember == "rewarded":
            ended = [one for one in ended if any(drive > self.reward_range[0] for drive in one.drives)]
        if not self.learning or not ended:
            return
        steps, offsets = laid_out(ended)
        if self.habituation is not None:
            options = self._score_options()
            self.habituation.record(
                self.store.score(steps, offsets, functional=self.functional, details=True, **options)
            )
        drives = None
        if self.channel is not None:
            drives = {self.channel: np.concatenate([np.array(one.drives, np.float32) for one in ended])}
        self.store.observe(steps, offsets, drives=drives, source=self.source)
        before = self.episodes
        self.episodes += len(ended)
        if self.sleep_every and self.episodes // self.sleep_every > before // self.sleep_every:
            self.sleep()

    def sleep(self) -> ReplayReport:
        """Let the store sleep now."""
        with self._lock:
            slept: ReplayReport = self.store.replay(**self.sleep_options)
            self.last_sleep = slept
        return slept

    # What transitions are worth now

    def relabel(self, before: Any, after: Any, terminated: Any) -> Floats:
        """(n,) what the store as it is now pays for single transitions, weighted: γ'Φ(x') − Φ(x), Φ = 0 at termination.

        Raises:
            ValueError: another functional than "potential" pays for episodes, not for transitions.
        """
        if self.functional != "potential":
            raise ValueError(f"{self.functional!r} pays for what an episode had not shown yet: relabel whole episodes")
        first, _ = self._values(embed(self.embedder, before, self.store.dim))
        second, _ = self._values(embed(self.embedder, after, self.store.dim))
        over = np.asarray(terminated, bool).reshape(-1)
        return (self.weight * (self.discount * np.where(over, 0.0, second) - first)).astype(np.float32)

    def relabel_episodes(self, observations: Any, offsets: Any, terminated: Any) -> Floats:
        """(ΣT,) what the store as it is now pays for whole episodes, weighted; 0 at their first observations.

        Args:
            observations: (ΣT, …), the episodes end to end, each from its first observation on.
            offsets: (E+1,), where they begin.
            terminated: (E,), whether they terminated, rather than being cut off.
        """
        rows = embed(self.embedder, observations, self.store.dim)
        ends = _coerce.offsets(offsets, len(rows))
        if self.functional == "potential":
            values, _ = self._values(rows)
            after = values.copy()
            after[ends[1:] - 1] = np.where(np.asarray(terminated, bool).reshape(-1), 0.0, after[ends[1:] - 1])
            pay = np.zeros(len(rows))
            pay[1:] = self.discount * after[1:] - values[:-1]
            pay[ends[:-1]] = 0.0
        else:
            scores = self.store.score(rows, ends, functional=self.functional, **self._score_options())
            pay = np.array(scores.step, np.float64)
            if self.pays == "end":
                pay[:] = 0.0
                pay[ends[1:] - 1] = scores.total
        return (self.weight * pay).astype(np.float32)

    # Keeping it

    def state_dict(self) -> dict[str, Any]:
        """What changed since it was made, besides the store. Episodes that have not ended are not in it."""
        return {
            "episodes": self.episodes,
            "habituation": None if self.habituation is None else self.habituation.to_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.episodes = int(state["episodes"])
        table = state["habituation"]
        self.habituation = None if table is None else Habituation.from_dict(table)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write the store (``snapshot.safetensors``) and what else changed into ``directory``, made if missing."""
        folder = Path(directory).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self.store.save(folder / SNAPSHOT)
            kept = {"version": 1, "snapshot": checksum(folder / SNAPSHOT), "state": self.state_dict()}
            write_whole(folder / STATE, json.dumps(kept))
        return folder

    def restore(self, directory: str | os.PathLike[str], snapshot: str | None = None) -> Self:
        """Make it what it was when it was saved; the store stays the same object. Reset the environments then.

        Args:
            directory: where it was saved.
            snapshot: the checksum that the store's snapshot must have, where the caller knows it.

        Raises:
            FileNotFoundError: nothing was saved there.
            ValueError: the snapshot is not the one that was saved with the rest.
            sharpwave.EmbedderError: it was saved with another embedder.
        """
        folder = Path(directory).absolute()
        for name in (SNAPSHOT, STATE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"nothing was saved in {folder}: {name} is missing")
        kept = json.loads((folder / STATE).read_text(encoding="utf-8"))
        same_snapshot(folder / SNAPSHOT, kept.get("snapshot"), snapshot)
        loaded = ValueStore.load(folder / SNAPSHOT)
        loaded.bind_embedder(self.embedder)
        with self._lock:
            self.load_state_dict(kept["state"])
            self.store.become(loaded)
            self._running = []
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """An engine in the middle of the same episodes, around the same store, embedder and habituation."""
        made = copy.copy(self)
        memo[id(self)] = made
        made._running = copy.deepcopy(self._running, memo)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._after_fork()
        renewed_in_children(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()


class StoreMixin:
    """For wrappers around a `StepReward`: its store, and saving and restoring it."""

    memory: StepReward

    @property
    def store(self) -> Any:
        """The live store."""
        return self.memory.store

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write the store and the rest of the state into ``directory``."""
        return self.memory.save(directory)

    def restore(self, directory: str | os.PathLike[str]) -> Self:
        """Restore the saved state; reset the environments afterwards."""
        self.memory.restore(directory)
        return self


class FreezableStoreMixin(StoreMixin):
    """`StoreMixin` for wrappers with the attribute `update_memory`, which freezes the store."""

    @property
    def update_memory(self) -> bool:
        """Whether episodes are observed and the store sleeps; False freezes it, for evaluation."""
        return self.memory.learning

    @update_memory.setter
    def update_memory(self, setting: bool) -> None:
        self.memory.learning = bool(setting)


__getattr__ = renamed(__name__, {"Keeps": "StoreMixin", "Freezes": "FreezableStoreMixin"})
