"""verl's real reward loop, with Ray workers that share one served store; its checkpoint callback; its configuration.

Needs verl and Ray, which are in the second environment: `make test-contracts` runs it there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import served
import sharpwave as sw
import tiny
import torch
import verl
from omegaconf import DictConfig, OmegaConf, open_dict
from sharpwave.serve.ray import Handle, actor
from sharpwave.text import Typicality
from sharpwave.trainers import pointwise
from sharpwave.trainers.verl import FOLDER, ReferenceGateMixin, StoreCheckpoint, described, resumed
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopManager
from verl.experimental.separation.ray_trainer import SeparateRayPPOTrainer
from verl.trainer.ppo.checkpoint_callback import build_checkpoint_callback
from verl.trainer.ppo.reward import extract_reward

TOLD = [
    "Jane met a sailor. They talked all night. He asked her to marry him.",
    "Ben built a boat with Carl. A storm broke the mast. They rowed home at night.",
    "yes yes yes. yes yes yes.",
    "Ruth lost her ring at the market. They met at the altar.",
]
TESTS = Path(__file__).parents[1]


@dataclass
class Shared:
    """A store that workers share: how a file names it, and the way to it from here, which starts what is not there."""

    named: object
    reach: Callable[[], sw.ValueStore]

    @property
    def store(self) -> sw.ValueStore:
        return self.reach()


@pytest.fixture(params=["served", "actor"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    directory = tmp_path / "store"
    with sw.ValueStore.open(directory, sw.Config(dim=tiny.DIM, min_novelty=0.5)) as filled:
        filled.become(tiny.store())
    if request.param == "served":
        with served.Server(directory, dim=None) as running:
            yield Shared(running.url, running.client)
        return
    request.getfixturevalue("cluster")
    named = {"ray": "stories", "namespace": "stores", "directory": str(directory)}
    yield Shared(named, lambda: actor("stories", directory, namespace="stores"))
    Handle("stories", "stores").stop()


@pytest.fixture
def reward_file(shared: Shared, tmp_path: Path) -> Path:
    (tmp_path / "reward.json").write_text(json.dumps(tiny.described(shared.named, learn="online")))
    return tmp_path / "reward.json"


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    words = sorted({word for text in [tiny.PROMPT, *TOLD] for word in text.split()})
    raw = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["<pad>", "<end>", *words])}, unk_token="<end>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<end>")
    made.save_pretrained(tmp_path / "policy")
    (tmp_path / "policy" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return made


def documented(number: int, reward_file: Path) -> DictConfig:
    """A block of YAML of docs/trainers/verl.md, with the file that describes the reward."""
    page = (TESTS.parent / "docs" / "trainers" / "verl.md").read_text()
    text = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)[number]
    made = OmegaConf.create(text.replace("reward.yaml", str(reward_file)))
    assert isinstance(made, DictConfig)
    return made


def config(tmp_path: Path, ours: Any = None) -> DictConfig:
    """verl's own configuration, with ours on top."""
    made = OmegaConf.load(Path(verl.__file__).parent / "trainer" / "config" / "_generated_ppo_trainer.yaml")
    assert isinstance(made, DictConfig)
    with open_dict(made):
        made.actor_rollout_ref.model.path = str(tmp_path / "policy")
        made.trainer.default_local_dir = str(tmp_path / "checkpoints")
        made = OmegaConf.merge(made, ours or {})
    assert isinstance(made, DictConfig)
    return made


def batch(tokenizer: PreTrainedTokenizerFast, split: str, raw: bool = False) -> DataProto:
    """What rollouts hand to the reward loop: prompts padded on the left, answers on the right."""
    prompts = tokenizer([tiny.PROMPT] * len(TOLD), padding=True, padding_side="left", return_tensors="pt")
    answers = tokenizer(TOLD, padding=True, padding_side="right", return_tensors="pt")
    tensors = {
        "prompts": prompts["input_ids"],
        "responses": answers["input_ids"],
        "attention_mask": torch.cat([prompts["attention_mask"], answers["attention_mask"]], dim=1),
    }
    columns: dict[str, Any] = {
        "data_source": ["stories"] * len(TOLD),
        "reward_model": [{"ground_truth": "altar", "style": "rule"}] * len(TOLD),
        "extra_info": [{"split": split, "index": n, "prompt": tiny.PROMPT} for n in range(len(TOLD))],
    }
    if raw:
        columns["raw_prompt"] = [[{"role": "user", "content": tiny.PROMPT}]] * len(TOLD)
    return DataProto.from_dict(tensors, {name: np.array(rows, dtype=object) for name, rows in columns.items()})


def expected(shared: Shared, prompt: Any = tiny.PROMPT) -> Any:
    """What the same reward says here, of a copy of the served store."""
    copy = sw.ValueStore.from_bytes(shared.store.to_bytes())
    options: dict[str, Any] = {"terminal": tiny.likes_altars, "base": tiny.base(), "learn": "online"}
    return sw.InstrumentalReward(copy, tiny.embed, **options).score_texts([prompt] * len(TOLD), TOLD, learn=False)


def at_the_end(data: DataProto, rm_scores: torch.Tensor) -> np.ndarray:
    """The score of each sample, which must stand at its last token and nowhere else."""
    last = data.batch["attention_mask"][:, data.batch["prompts"].shape[1] :].sum(dim=1) - 1
    rows = torch.arange(len(last))
    rest = rm_scores.clone()
    rest[rows, last] = 0
    assert not rest.any()
    return rm_scores[rows, last].numpy()


def test_the_reward_loop_scores_with_one_store_for_all_workers(
    cluster: None, shared: Shared, reward_file: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    loop = RewardLoopManager(config(tmp_path, documented(1, reward_file)))
    assert len(loop.reward_loop_workers) == 2
    here = expected(shared)

    validated = loop.compute_rm_score(batch(tokenizer, "test"))
    scores, parts = extract_reward(validated)
    np.testing.assert_allclose(at_the_end(batch(tokenizer, "test"), scores), np.nan_to_num(here.reward), atol=1e-5)
    np.testing.assert_allclose(parts["support"], np.nan_to_num(here.support), atol=1e-6)
    np.testing.assert_allclose(parts["instrumental"], here.standardised["instrumental"], atol=1e-5)
    before = shared.store.episodes_observed
    assert before == len(tiny.STORIES)

    loop.compute_rm_score(batch(tokenizer, "train"))
    assert shared.store.episodes_observed == before + len(TOLD)  # both workers wrote into the one store
    again = extract_reward(loop.compute_rm_score(batch(tokenizer, "test")))[1]
    now = expected(shared)
    np.testing.assert_allclose(again["support"], np.nan_to_num(now.support), atol=1e-6)
    assert (again["support"] > parts["support"]).any()  # each worker scores with what the other learned
    for worker in loop.reward_loop_workers:
        ray.kill(worker)


def with_tool_results(tokenizer: PreTrainedTokenizerFast, masked: bool) -> DataProto:
    """Rollouts of three turns: the first sentence of an answer, what a tool said, the other sentences."""
    data, ids, masks = batch(tokenizer, "test", raw=True), [], []
    for told in TOLD:
        first, rest = told.split(". ", 1)
        turns = [tokenizer(text)["input_ids"] for text in (f"{first}.", "He asked her to marry him.", rest)]
        ids.append(torch.tensor([token for turn in turns for token in turn]))
        masks.append(torch.tensor([int(n != 1) for n, turn in enumerate(turns) for _ in turn]))
    there = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    prompts = data.batch["prompts"]
    tensors = {
        "prompts": prompts,
        "responses": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
        "attention_mask": torch.cat([data.batch["attention_mask"][:, : prompts.shape[1]], there], dim=1),
    }
    if masked:
        tensors["response_mask"] = torch.nn.utils.rnn.pad_sequence(masks, batch_first=True)
    turns = {"__num_turns__": np.array([4] * len(TOLD), dtype=object)}
    return DataProto.from_dict(tensors, {**data.non_tensor_batch, **turns})


def test_what_a_tool_said_in_a_rollout_is_not_paid(
    cluster: None, shared: Shared, reward_file: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    loop = RewardLoopManager(config(tmp_path, documented(2, reward_file)))
    data = with_tool_results(tokenizer, masked=True)
    scores, _ = extract_reward(loop.compute_rm_score(data))
    own = ["\n".join(told.split(". ", 1)).replace("\n", ".\n", 1) for told in TOLD]
    prompt = [{"role": "user", "content": tiny.PROMPT}]
    copy = sw.ValueStore.from_bytes(shared.store.to_bytes())
    options: dict[str, Any] = {"terminal": tiny.likes_altars, "base": tiny.base(), "learn": "online"}
    here = sw.InstrumentalReward(copy, tiny.embed, **options).score_texts([prompt] * len(TOLD), own, learn=False)
    np.testing.assert_allclose(at_the_end(data, scores), np.nan_to_num(here.reward), atol=1e-5)
    unmasked, _ = extract_reward(loop.compute_rm_score(with_tool_results(tokenizer, masked=False)))
    assert not np.allclose(at_the_end(data, unmasked), np.nan_to_num(here.reward), atol=1e-3)


def test_the_reward_manager_scores_the_prompts_as_they_were_given(
    cluster: None, shared: Shared, reward_file: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    loop = RewardLoopManager(config(tmp_path, documented(2, reward_file)))
    data = batch(tokenizer, "test", raw=True)
    scores, parts = extract_reward(loop.compute_rm_score(data))
    here = expected(shared, [{"role": "user", "content": tiny.PROMPT}])
    np.testing.assert_allclose(at_the_end(data, scores), np.nan_to_num(here.reward), atol=1e-5)
    np.testing.assert_allclose(parts["sharpwave_instrumental"], here.standardised["instrumental"], atol=1e-5)
    assert shared.store.episodes_observed == len(tiny.STORIES)
    bare, _ = extract_reward(loop.compute_rm_score(batch(tokenizer, "test")))
    np.testing.assert_allclose(at_the_end(data, bare), np.nan_to_num(here.reward), atol=1e-5)
    for worker in loop.reward_loop_workers:
        ray.kill(worker)


def test_the_callback_saves_the_shared_store_and_a_resumed_run_gets_it_back(
    shared: Shared, reward_file: Path, tmp_path: Path
) -> None:
    made = config(tmp_path, documented(1, reward_file))
    folder = tmp_path / "checkpoints" / "global_step_3"
    folder.mkdir(parents=True)
    callback = build_checkpoint_callback(made)
    assert isinstance(callback, StoreCheckpoint)
    assert callback.resumed_from is None
    kept = shared.store.digest()
    callback.on_save(trainer=None, global_step=3, checkpoint_dir=str(folder), async_save=False, later="ignored")
    assert (folder / FOLDER / "snapshot.safetensors").is_file()
    (folder.parent / "latest_checkpointed_iteration.txt").write_text("3")

    shared.store.observe(tiny.embed(["A dragon.", "A knight."]))
    assert shared.store.digest() != kept
    again = build_checkpoint_callback(made)
    assert isinstance(again, StoreCheckpoint)
    assert again.resumed_from == folder
    assert shared.store.digest() == kept


def test_the_first_worker_starts_the_actor_that_the_page_names(cluster: None, tmp_path: Path) -> None:
    page = OmegaConf.to_container(documented(0, tmp_path))
    assert isinstance(page, dict)
    named = {**page["store"], "directory": str(tmp_path / "store"), "config": {"dim": tiny.DIM}}
    one, other = (sw.InstrumentalReward.from_config(tiny.described(named, base=None)) for _ in range(2))
    assert isinstance(one.store, Handle)
    assert isinstance(other.store, Handle)
    assert one.store.process == other.store.process != os.getpid()
    assert one.to_config()["store"] == {"ray": page["store"]["ray"], "namespace": page["store"]["namespace"]}
    one.observe_texts([tiny.PROMPT], TOLD[:1])
    assert sw.InstrumentalReward.from_config(one.to_config()).store.digest() == other.store.digest()
    one.store.stop()
    assert sw.ValueStore.open(tmp_path / "store").episodes_observed == 1


def test_what_to_resume_from_is_found_as_verl_finds_it(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert resumed(made) is None
    with open_dict(made):
        made.trainer.resume_mode, made.trainer.resume_from_path = "resume_path", str(tmp_path / "global_step_9")
    assert resumed(made) == tmp_path / "global_step_9"
    with open_dict(made):
        made.trainer.resume_mode = "disable"
    assert resumed(made) is None


def test_a_configuration_without_a_reward_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pointwise.CONFIG, raising=False)
    with pytest.raises(ValueError, match="SHARPWAVE_REWARD"):
        described(config(tmp_path))
    monkeypatch.setenv(pointwise.CONFIG, "reward.yaml")
    assert described(config(tmp_path)) == "reward.yaml"


def test_scores_are_gated_by_the_reference_pass_before_advantages(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Through verl's own trainer of separate steps, which computes GRPO's advantages from what the gate left."""
    base = np.random.default_rng(0).normal(2.0, 0.3, size=(64, 12))
    typ = Typicality(None).fit_logprobs(-base, np.ones((64, 12)), prompts=[tiny.PROMPT] * 64)
    (tmp_path / "reward.json").write_text(json.dumps({"typicality": typ.to_config()}))

    class Gated(ReferenceGateMixin, SeparateRayPPOTrainer):
        def __init__(self) -> None:  # the rest of it starts workers
            self.config, self.tokenizer = config(tmp_path, documented(1, tmp_path / "reward.json")), tokenizer
            with open_dict(self.config):
                self.config.algorithm.adv_estimator = "grpo"
            self.metrics, self.timing_raw = {}, {}

    data = batch(tokenizer, "train")
    answers = data.batch["attention_mask"][:, data.batch["prompts"].shape[1] :]
    data.batch["response_mask"] = answers
    data.batch["ref_log_prob"] = torch.where(torch.arange(4)[:, None] == 2, -5.0, -2.0) * answers
    data.non_tensor_batch["uid"] = np.array(["one"] * 4, dtype=object)
    pay = [0.5, 0.25, 0.75, 0.25]
    scores = torch.zeros(answers.shape)
    scores[torch.arange(4), answers.sum(dim=1) - 1] = torch.tensor(pay)
    trainer = Gated()
    trainer.reward_tensor, trainer.reward_extra_infos_dict = scores, {"gated": pay}
    found = trainer._fit_compute_advantage(data)
    assert trainer.metrics["sharpwave/typicality"] == 0.75
    np.testing.assert_allclose(at_the_end(data, found.batch["token_level_scores"]), [0.5, 0.25, -0.5, 0.25], atol=1e-6)
    assert found.batch["advantages"][:, 0].argmin() == 2
    assert scores.sum() == sum(pay)  # verl's own tensor is left as it was
