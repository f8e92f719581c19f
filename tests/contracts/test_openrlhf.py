"""OpenRLHF's own client asks the reward: in a file, and over HTTP from a real server."""

from __future__ import annotations

import asyncio
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
