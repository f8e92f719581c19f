"""TRL's real trainers on a tiny random model: train, evaluate, save, resume to the same store."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

pytest.importorskip("trl")

import sharpwave as sw
import tiny_trl
import torch
from sharpwave.trainers.trl import SharpwaveCallback
from transformers import TrainerCallback, TrainerState
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

pytestmark = pytest.mark.filterwarnings("ignore:.*no signal", "ignore:.*unknown to the store")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)


def build(learn: str = "propose", **options: Any) -> sw.InstrumentalReward:
    options = {"base": tiny.base(), "weights": {"divergence": 0.1}, **options}
    return sw.InstrumentalReward(tiny.store(), tiny.embed, terminal=tiny.length, learn=learn, **options)


def grpo(reward: Any, out: Path, callback: SharpwaveCallback | None = None, **options: Any) -> GRPOTrainer:
    kind, config = options.pop("trainer", (GRPOTrainer, GRPOConfig))
    options.setdefault("beta", 0.0)  # a reference model would be loaded by its name, and this one has none
    chat, functions = options.pop("chat", False), options.pop("functions", reward)
    return kind(
        tiny_trl.model(),
        reward_funcs=functions,
        args=tiny_trl.arguments(config, out, **options),
        train_dataset=tiny_trl.dataset(chat),
        eval_dataset=tiny_trl.dataset(chat, rows=4),
        processing_class=tiny_trl.tokenizer(),
        callbacks=[callback or SharpwaveCallback(reward)],
    )


def restored(reward: sw.InstrumentalReward) -> list[str]:
    """The digests of the store right after each restore, filled in as they happen."""
    seen: list[str] = []
    original = reward.restore

    def restore(directory: Any, **options: Any) -> None:
        original(directory, **options)
        seen.append(reward.store.digest())

    reward.restore = restore  # pyright: ignore[reportAttributeAccessIssue]
    return seen


TRAINED = [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)]
TRAINERS = pytest.mark.parametrize("trainer", TRAINED, ids=["grpo", "rloo"])


@TRAINERS
def test_train_evaluate_save_and_resume_to_the_same_store(trainer: Any, tmp_path: Path) -> None:
    whole = build(habituation={"episodes": 16}, normalise="running")
    straight = grpo(whole, tmp_path / "whole", trainer=trainer, max_steps=4)
    straight.train()

    first = build(habituation={"episodes": 16}, normalise="running")
    size = len(first.store)
    options = {"trainer": trainer, "save_strategy": "steps", "save_steps": 2}
    half = grpo(first, tmp_path / "run", max_steps=2, **options)
    half.train()
    assert len(first.store) > size
    saved = first.store.digest()
    before = first.state_dict()
    half.evaluate()  # scored, never learned
    assert tiny_trl.logged(half, "eval_rewards/sharpwave/mean")
    assert first.store.digest() == saved
    assert first.state_dict() == before

    second = build()
    resumed = grpo(second, tmp_path / "run", max_steps=4, **options)
    seen = restored(second)
    resumed.train(resume_from_checkpoint=True)
    assert seen == [saved]
    assert second.store.digest() == whole.store.digest()
    assert second.state_dict() == whole.state_dict()
    rewards = tiny_trl.logged(straight, "rewards/sharpwave/mean")
    assert tiny_trl.logged(resumed, "rewards/sharpwave/mean") == pytest.approx(rewards, rel=1e-4)


def test_resume_from_another_directory(tmp_path: Path) -> None:
    first = build()
    grpo(first, tmp_path / "a", save_strategy="steps", save_steps=2).train()
    checkpoint = tmp_path / "a" / "checkpoint-2"
    second = build()
    seen = restored(second)
    trainer = grpo(second, tmp_path / "b", SharpwaveCallback(second, resume_from=checkpoint), max_steps=3)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert seen == [first.store.digest()]
    assert second.store.digest() != first.store.digest()  # and went on

    with pytest.raises(FileNotFoundError, match="no reward was saved"):
        second.restore(tmp_path)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with the runs a and b, each with a checkpoint-2 of its own, and the digests of their stores."""
    folder = tmp_path_factory.mktemp("runs")
    torch.set_num_threads(1)
    digests: dict[str, str] = {}
    for seed, (name, trainer) in enumerate({"a": TRAINED[0], "b": TRAINED[0], "rloo": TRAINED[1]}.items()):
        reward = build()
        options = {"trainer": trainer, "save_strategy": "steps", "save_steps": 2, "seed": seed}
        grpo(reward, folder / name, **options).train()
        digests[name] = reward.store.digest()
    assert len(set(digests.values())) == 3
    return folder, digests


@pytest.fixture
def runs(two_runs: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A copy of the runs in the working directory, and their digests. What the copy was made of is out of reach."""
    folder, digests = two_runs
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for name in digests:
        state = tmp_path / name / "checkpoint-2" / "trainer_state.json"
        state.write_text(state.read_text().replace(str(folder), str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return digests


def resumed(out: str, source: Any, trainer: Any = (GRPOTrainer, GRPOConfig), **options: Any) -> str:
    """The digest that a run into ``out`` begins with when it is resumed from ``source``."""
    reward = build()
    seen = restored(reward)

    class Stop(SharpwaveCallback):
        def on_train_begin(self, *given: Any, **kwargs: Any) -> None:
            super().on_train_begin(*given, **kwargs)
            given[2].should_training_stop = True

    resume_from = options.pop("resume_from", None)
    callback = Stop(reward, resume_from=resume_from)
    grpo(reward, Path(out), callback, trainer=trainer, max_steps=3, **options).train(resume_from_checkpoint=source)
    assert len(seen) == 1
    return seen[0]


def test_the_trainers_own_argument_says_which_store_is_restored(runs: dict[str, str]) -> None:
    """Where it saves, there is a checkpoint of the same step, of another run."""
    assert resumed("b", "a/checkpoint-2") == runs["a"]
    assert resumed("a", "b/checkpoint-2", resume_from_checkpoint="a/checkpoint-2") == runs["b"]
    assert resumed("b", "a/checkpoint-2", resume_from_checkpoint="True") == runs["a"]
    assert resumed("a", True) == runs["a"]
    assert resumed("new", "b/checkpoint-2") == runs["b"]
    assert resumed("a", "rloo/checkpoint-2", (RLOOTrainer, RLOOConfig)) == runs["rloo"]
    assert resumed("b", "b/checkpoint-2", resume_from="a/checkpoint-2/sharpwave") == runs["a"]


def test_a_checkpoint_is_where_it_was_whatever_the_working_directory_becomes(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = build()
    seen = restored(reward)
    callback = SharpwaveCallback(reward, resume_from="a/checkpoint-2")
    arguments = grpo(reward, Path("b"), callback, max_steps=2).args
    monkeypatch.chdir(tmp_path / "b")  # another checkpoint-2, by a relative path that is now another
    shutil.copytree(tmp_path / "b" / "checkpoint-2", tmp_path / "b" / "a" / "checkpoint-2")
    callback.on_train_begin(arguments, TrainerState(global_step=2))
    assert seen == [runs["a"]]
    assert reward.save("kept").is_absolute()


def test_a_checkpoint_that_was_moved_is_found_or_refused(runs: dict[str, str]) -> None:
    Path("a").rename("moved")
    moved = "moved/checkpoint-2"
    assert resumed("moved", True) == runs["a"]
    assert resumed("b", moved, resume_from_checkpoint=moved) == runs["a"]
    assert resumed("b", moved, resume_from=moved) == runs["a"]
    there = rf"b/checkpoint-2 is another checkpoint \(step 2, store {runs['b'][:12]}…\): pass resume_from="
    with pytest.raises(FileNotFoundError, match=rf"store {runs['a'][:12]}….* and is not there; .*{there}"):
        resumed("b", moved)
    shutil.copytree("b", "a")  # another run has taken its place
    with pytest.raises(FileNotFoundError, match="a/checkpoint-2 is another checkpoint"):
        resumed("b", moved)


def test_a_store_that_is_not_the_checkpoints_own_is_refused(runs: dict[str, str]) -> None:
    mine, other = (Path(name, "checkpoint-2/sharpwave/snapshot.safetensors") for name in ("a", "b"))
    shutil.copy(other, mine)  # beside the other's reward.json
    with pytest.raises(ValueError, match="is not the snapshot that was saved with the rest"):
        resumed("b", "a/checkpoint-2")
    with pytest.raises(ValueError, match="is not the snapshot that was saved with the rest"):
        build().restore("a/checkpoint-2/sharpwave")
    shutil.copytree(other.parent, mine.parent, dirs_exist_ok=True)  # all of it is the other's
    with pytest.raises(ValueError, match="is not the snapshot that was saved with the rest"):
        resumed("b", "a/checkpoint-2")
    assert runs["b"] == resumed("a", "b/checkpoint-2")


def test_a_checkpoint_without_a_reward_takes_none_from_elsewhere(runs: dict[str, str]) -> None:
    reward = build()
    options = {"save_strategy": "steps", "save_steps": 2}
    grpo(reward, Path("c"), TrainerCallback(), **options).train()  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match=r"step 2 that .* holds no 'sharpwave': pass resume_from="):
        resumed("b", "c/checkpoint-2")
    bare = build()
    later = grpo(bare, Path("a"), TrainerCallback(), max_steps=4, **options)  # pyright: ignore[reportArgumentType]
    later.train(resume_from_checkpoint="a/checkpoint-2")
    with pytest.raises(FileNotFoundError, match=r"step 4 that .* holds no 'sharpwave'"):
        resumed("b", "a/checkpoint-4")


def test_two_rewards_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first, second = build(), build()
    trainer = grpo(first, tmp_path, save_strategy="steps", save_steps=1, max_steps=1, functions=[first, second])
    trainer.add_callback(SharpwaveCallback(second))
    with pytest.raises(ValueError, match="two callbacks keep something called 'sharpwave'"):
        trainer.train()


def test_a_resume_keeps_the_store_that_lives_in_a_directory(tmp_path: Path) -> None:
    reward = build("online").train()
    reward.score_texts(*tiny.base())
    reward.save(tmp_path / "saved")
    home = tmp_path / "home"
    home.mkdir()
    tiny.store().save(home / "snapshot.safetensors")
    with sw.ValueStore.open(home) as store:
        other = sw.InstrumentalReward(store, tiny.embed)
        other.restore(tmp_path / "saved")
        assert other.store is store
    assert sw.ValueStore.open(home).digest() == reward.store.digest()
    foreign = sw.InstrumentalReward(tiny.store(), tiny.other_embed)
    with pytest.raises(sw.EmbedderError):
        foreign.restore(tmp_path / "saved")


def test_the_parts_reach_the_log_and_the_trainers_own_weights_work(tmp_path: Path) -> None:
    reward = build("online")
    parts = reward.parts()
    trainer = grpo(reward, tmp_path, functions=parts, reward_weights=[1.0, 0.5, 0.1], chat=True)
    size = len(reward.store)
    trainer.train()
    for term in ("terminal", "instrumental", "divergence"):
        assert len(tiny_trl.logged(trainer, f"rewards/sharpwave_{term}/mean")) == 2
        assert len(tiny_trl.logged(trainer, f"sharpwave/{term}")) == 2
    for name in ("support", "edge", "redundancy", "unscored", "memories", "seconds/embed", "seconds/total"):
        assert np.isfinite(tiny_trl.logged(trainer, f"sharpwave/{name}")).all()
    assert tiny_trl.logged(trainer, "sharpwave/memories")[-1] == len(reward.store)
    assert len(tiny_trl.logged(trainer, "sharpwave/sleep/backups")) == 1
    assert len(reward.store) > size


def test_completions_that_cannot_be_scored_are_left_out(tmp_path: Path) -> None:
    reward = build("off", chunker=OnlyLong())
    trainer = grpo(reward, tmp_path)
    trainer.train()
    assert 0 < np.mean(tiny_trl.logged(trainer, "sharpwave/unscored")) < 1
    assert np.isfinite(tiny_trl.logged(trainer, "loss")).all()


class OnlyLong:
    """A chunker that finds nothing in texts of even length."""

    def __call__(self, prompt: Any, completion: Any) -> sw.episodes.Episode:
        episode = sw.episodes.Sentences()(prompt, completion)
        steps = len(episode.steps) if len(completion) % 2 else episode.context
        return sw.episodes.Episode(episode.steps[:steps], episode.context, episode.spans[:steps])


@pytest.mark.filterwarnings("ignore::Warning")
def test_online_dpo_learns_through_the_callback(tmp_path: Path) -> None:
    online_dpo = pytest.importorskip("trl.experimental.online_dpo")
    options = {"save_strategy": "steps", "save_steps": 2, "max_new_tokens": 24}

    def trainer(reward: sw.InstrumentalReward, steps: int) -> Any:
        arguments = tiny_trl.arguments(online_dpo.OnlineDPOConfig, tmp_path, max_steps=steps, **options)
        return online_dpo.OnlineDPOTrainer(
            tiny_trl.model(),
            reward_funcs=reward,
            args=arguments,
            train_dataset=tiny_trl.dataset(rows=16),
            processing_class=tiny_trl.tokenizer(),
            callbacks=[SharpwaveCallback(reward)],
        )

    first = build("online")
    size = len(first.store)
    trainer(first, 2).train()
    assert len(first.store) > size
    second = build("online")
    seen = restored(second)
    trainer(second, 3).train(resume_from_checkpoint=True)
    assert seen == [first.store.digest()]
    assert second.store.digest() != seen[0]


def test_a_pickled_reward_is_the_same_function(tmp_path: Path) -> None:
    reward = build()
    trainer = grpo(reward, tmp_path, max_steps=1)
    trainer.train()
    twin = pickle.loads(pickle.dumps(reward))
    assert twin.__name__ == reward.__name__ == "sharpwave"
    assert twin.eval()(*tiny.base()) == reward.eval()(*tiny.base())


def test_bad_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="reward must be"):
        SharpwaveCallback(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="sleep_every"):
        SharpwaveCallback(build(), sleep_every=-1)
