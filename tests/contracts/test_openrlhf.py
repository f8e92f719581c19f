"""OpenRLHF's own client asks the reward: in a file, and over HTTP from a real server."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import tiny
import torch
from sharpwave.text import Typicality
from sharpwave.trainers import openrlhf, pointwise

ROOT = Path(__file__).resolve().parents[2]
STORY = "Jane met a sailor. They talked all night. He asked her to marry him."
PROMPT = f"<|im_start|>user\n{tiny.PROMPT}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def reward_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    tiny.store().save(tmp_path / "store.safetensors")
    described = tiny.described(str(tmp_path / "store.safetensors"), learn="online")
    (tmp_path / "reward.json").write_text(json.dumps(described))
    monkeypatch.setenv(pointwise.CONFIG, str(tmp_path / "reward.json"))
    yield tmp_path / "reward.json"
    pointwise.forget()


def here() -> Any:
    options: dict[str, Any] = {"terminal": tiny.likes_altars, "base": tiny.base(), "learn": "online"}
    reward = sw.InstrumentalReward(tiny.store(), tiny.embed, **options)
    return reward.score_texts([openrlhf.plain(PROMPT)], [STORY], learn=False)


def client() -> types.ModuleType:
    """`openrlhf.utils.agent` of the real package, whose other dependencies need a GPU; see `make test-contracts`."""
    folder = ROOT / ".openrlhf"
    found = next(folder.rglob("openrlhf/utils/agent.py"))
    for name in ("openrlhf", "openrlhf.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(found.parents[1] if name == "openrlhf" else found.parent)]
        sys.modules.setdefault(name, package)
    spec = importlib.util.spec_from_file_location("openrlhf.utils.agent", found)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tokenizer:
    """Characters are tokens: what the client needs of a tokenizer."""

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        return {"input_ids": torch.tensor([[ord(letter) for letter in text]])}

    def decode(self, tokens: list[int], **_: Any) -> str:
        return "".join(map(chr, tokens))


class Engine:
    """An engine that says one thing, as vLLM would."""

    async def generate(self, tokens: list[int], *_: Any, **__: Any) -> Any:
        said = types.SimpleNamespace(
            token_ids=[ord(letter) for letter in STORY + "<|im_end|>"], finish_reason="stop", logprobs=None
        )
        return types.SimpleNamespace(outputs=[said])


def rollout(url: str) -> dict[str, Any]:
    executor = client().SingleTurnAgentExecutor(url)
    sampling = types.SimpleNamespace(max_tokens=200, logprobs=None)
    return asyncio.run(executor.execute(PROMPT, "altar", sampling, 4096, Tokenizer(), Engine()))


@pytest.fixture
def server(reward_file: Path) -> Iterator[str]:
    code = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
    port = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    paths = os.pathsep.join([str(ROOT / "tests" / "helpers"), str(ROOT / "python")])
    command = [sys.executable, "-m", "sharpwave.trainers.openrlhf", "--config", str(reward_file), "--port", port]
    process = subprocess.Popen(
        [*command, "--frozen"], env={**os.environ, "PYTHONPATH": paths, "SHARPWAVE_ALLOW": "tiny"}
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(1200):
        assert process.poll() is None
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
                assert json.loads(answer.read())["status"] == "ok"
                break
        except OSError:
            import time

            time.sleep(0.1)
    yield f"{url}/get_reward"
    process.terminate()
    process.wait(timeout=60)


def assert_rewarded(found: dict[str, Any]) -> None:
    out = here()
    for name in ("reward", "scores"):
        assert float(torch.tensor([found[name]]).reshape(-1)[0]) == pytest.approx(float(out.reward[0]), abs=1e-5)
    logs = {name: float(torch.as_tensor(value).reshape(-1)[0]) for name, value in found["extra_logs"].items()}
    assert logs["sharpwave_support"] == pytest.approx(float(out.support[0]), abs=1e-5)
    assert logs["sharpwave_instrumental"] == pytest.approx(float(out.standardised["instrumental"][0]), abs=1e-5)
    assert logs["sharpwave_scorable"] == 1


def test_its_client_loads_the_file_and_is_rewarded(reward_file: Path) -> None:
    path = subprocess.run(
        [sys.executable, "-m", "sharpwave.trainers.openrlhf"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert_rewarded(rollout(path))
    store = pointwise.shared().reward.store
    assert store.episodes_observed == len(tiny.STORIES) + 1  # it was learned from, as a training sample is


def test_its_client_asks_over_http_and_is_rewarded(server: str) -> None:
    assert_rewarded(rollout(server))


def test_what_it_returns_is_tensors_of_a_number_a_query(reward_file: Path) -> None:
    found = openrlhf.reward_func([PROMPT + STORY, PROMPT], [PROMPT, PROMPT], ["altar", None])
    assert found["rewards"].shape == found["scores"].shape == (2,)
    assert found["rewards"].dtype == torch.float32
    assert found["rewards"][1] == 0
    np.testing.assert_array_equal(found["extra_logs"]["sharpwave_scorable"], [1, 0])
    with pytest.raises(ValueError, match="2 queries"):
        openrlhf.reward_func(["a", "b"], ["a"], [None, None])


def test_bad_requests_are_named(reward_file: Path) -> None:
    from fastapi.testclient import TestClient

    ask = TestClient(openrlhf.create_app(pointwise.shared(), learn=False))
    assert ask.post("/get_reward", json={"query": "text"}).status_code == 422
    assert ask.post("/get_reward", json={"query": ["a"], "prompts": ["a", "b"]}).json()["detail"].startswith("got 1")
    found = ask.post("/get_reward", json={"query": [PROMPT + STORY], "prompts": [PROMPT], "labels": ["x"]}).json()
    assert found["rewards"] == found["scores"]
    assert len(found["rewards"]) == 1


@pytest.mark.parametrize(
    ("query", "prompt", "completion"),
    [
        (PROMPT + STORY + "<|im_end|>", PROMPT, STORY),
        ("<s> Tell me.\n Anna met Tom.</s>", "Tell me.", "Anna met Tom."),
        ("Tell  me a\nstory. Anna met Tom.", "Tell me a story.", "Anna met Tom."),
        ("Quite another text.", "Tell me.", "Quite another text."),
        ("Tell me. a < b and c > d", "Tell me.", "a < b and c > d"),
        ("Tell me.", "Tell me.", ""),
    ],
)
def test_the_answer_is_found_in_the_query(query: str, prompt: str, completion: str) -> None:
    assert openrlhf.completion_of(query, prompt) == completion


# The gate of its reference pass ---------------------------------------------------------------------


def maker() -> types.ModuleType:
    """`openrlhf.trainer.ppo_utils.experience_maker` of the real package; what it imports for its models needs a GPU."""
    folder = next((ROOT / ".openrlhf").rglob("openrlhf/trainer/ppo_utils/experience_maker.py")).parents[2]
    client()
    for name in ("trainer", "trainer.ppo_utils", "trainer.ray", "models"):
        package = types.ModuleType(f"openrlhf.{name}")
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules.setdefault(f"openrlhf.{name}", package)
    importlib.import_module("openrlhf.utils.utils")  # transformers looks for a deepspeed that works
    launcher = types.ModuleType("openrlhf.trainer.ray.launcher")
    launcher.RayActorGroup = object  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules.setdefault("openrlhf.trainer.ray.launcher", launcher)
    sys.modules["deepspeed"] = types.ModuleType("deepspeed")
    try:
        return importlib.import_module("openrlhf.trainer.ppo_utils.experience_maker")
    finally:
        del sys.modules["deepspeed"]


TOLD = [STORY, "Ben built a boat with Carl. A storm broke the mast.", "Ruth lost her ring. They met at the altar."]


class Letters(Tokenizer):
    eos_token_id, pad_token_id = 0, 0


def experience(kind: Any, surprise: list[float], pay: list[float]) -> Any:
    """A batch as its rollouts make it: prompt and answer padded on the right, masks of what follows each token."""
    rows = [[ord(letter) for letter in PROMPT + text] for text in TOLD]
    width = max(map(len, rows))
    sequences = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    said = torch.zeros_like(sequences)
    for n, row in enumerate(rows):
        said[n, len(PROMPT) : len(row)] = 1
    mask = said[:, 1:].bool()
    logps = -torch.tensor(surprise)[:, None] * mask
    return kind(
        sequences=sequences,
        action_mask=mask,
        action_log_probs=logps + 0.25 * mask,
        kl=0.25 * mask,
        rewards=torch.tensor(pay),
        index=list(range(len(TOLD))),
        prompts=[PROMPT] * len(TOLD),
        info={"sharpwave_gated": torch.tensor(pay)},
    )


@pytest.mark.parametrize("source", ["use_loss", "k1"])
def test_its_experience_maker_gates_rewards_by_its_reference(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = maker()
    base = np.random.default_rng(0).normal(2.0, 0.3, size=(64, 80))
    typ = Typicality(None).fit_logprobs(-base, np.ones((64, 80)), prompts=[openrlhf.plain(PROMPT)] * 64)
    (tmp_path / "reward.json").write_text(json.dumps({"typicality": typ.to_config()}))
    monkeypatch.setenv(pointwise.CONFIG, str(tmp_path / "reward.json"))

    class Gated(openrlhf.ReferenceGateMixin, real.RemoteExperienceMaker):
        pass

    one = types.SimpleNamespace
    args = one(
        algo=one(advantage=one(estimator="reinforce", gamma=1.0, no_std_norm=True), kl=one(estimator="k1")),
        rollout=one(n_samples_per_prompt=len(TOLD)),
        reward=one(clip_range=None, overlong_buffer_len=None, stop_properly_penalty_coef=None),
    )
    made = Gated(None, None, None, None, one(value=0.0), one(args=args), Letters())
    batch = experience(real.Experience, [2.0, 4.0, 2.0], [0.5, 0.75, 0.25])
    if source == "use_loss":
        batch.base_action_log_probs, batch.kl = batch.action_log_probs - batch.kl, torch.zeros_like(batch.kl)
    [found] = made.compute_advantages_and_returns([batch])
    assert found.info["sharpwave_typicality"].tolist() == [1, 0, 1]
    # the second falls to nothing, less .05 for each of ten deviations beyond
    assert found.rewards.tolist() == pytest.approx([0.5, -0.5, 0.25])
    assert found.info["return"].argmin() == 1


def test_without_reference_log_probabilities_it_says_what_to_set() -> None:
    real = maker()
    batch = experience(real.Experience, [2.0, 2.0, 2.0], [0.5, 0.5, 0.5])
    args = types.SimpleNamespace(algo=types.SimpleNamespace(kl=types.SimpleNamespace(estimator="k3")))
    with pytest.raises(ValueError, match="use_loss"):
        openrlhf._gate(batch, Typicality(None), Letters(), args)


def test_a_reward_without_a_model_is_scored_with_an_open_gate_and_says_what_it_multiplies() -> None:
    typ = Typicality(None).fit_logprobs(np.random.default_rng(0).normal(-2.0, 0.3, size=(64, 80)), np.ones((64, 80)))
    reward = sw.InstrumentalReward(
        tiny.store(), tiny.embed, base=tiny.base(), combine="conjunction", typicality=typ, crowd=True
    )
    parts = pointwise.BatchedReward(reward).ask(tiny.PROMPT, STORY)
    assert parts["gated"] == parts["score"] > 0
