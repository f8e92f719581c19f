"""Early stopping and averaging in TRL's real trainer, on a tiny random model: whole, with an adapter, resumed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import peft
import sharpwave as sw
import tiny
import tiny_trl
import torch
from safetensors.torch import load_file
from sharpwave.remedies import LIMITS, Drift, EarlyStop, Ema
from sharpwave.remedies.early_stop import crossing, last_before, load_weights
from sharpwave.trainers.trl import SharpwaveCallback
from transformers import TrainerCallback, TrainerState
from trl import GRPOConfig, GRPOTrainer

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)


def proxy(completions: list[Any], trainer_state: Any = None, **_: Any) -> list[float]:
    """Rises at step 4."""
    return [n % 2 + 3.0 * (trainer_state.global_step >= 4) for n in range(len(completions))]


def gold(completions: list[Any], trainer_state: Any = None, **_: Any) -> list[float]:
    """Falls at step 5."""
    return [n % 2 - 3.0 * (trainer_state.global_step >= 5) for n in range(len(completions))]


def run(
    out: Path, *callbacks: Any, drift: Drift | None = None, adapter: bool = False, functions: Any = None, **options: Any
) -> GRPOTrainer:
    watched = functions or ([drift.watch(proxy), drift.watch(gold)] if drift is not None else [proxy])
    functions = [*watched, *([drift] if drift is not None else [])]
    settings = {
        "beta": 0.0,
        "max_steps": 10,
        "save_strategy": "steps",
        "save_steps": 2,
        "lr_scheduler_type": "constant",
    }
    weights = [1.0] * len(watched) + [0.0] * (len(functions) - len(watched))
    return GRPOTrainer(
        tiny_trl.model(),
        reward_funcs=functions,
        args=tiny_trl.arguments(GRPOConfig, out, reward_weights=weights, **{**settings, **options}),
        train_dataset=tiny_trl.dataset(),
        processing_class=tiny_trl.tokenizer(),
        peft_config=peft.LoraConfig(**LORA) if adapter else None,
        callbacks=list(callbacks),
    )


def monitor() -> Drift:
    return Drift(tiny.base(), tiny.embed, start=2)


def weights(model: Any) -> dict[str, Any]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def equal(model: Any, directory: Path) -> bool:
    """Whether what is trained of a model is what a checkpoint holds."""
    (file,) = directory.glob("*model.safetensors")
    saved = load_file(file)
    own = {n.replace(".default", ""): p for n, p in weights(model).items()}
    shared = set(own) & set(saved)
    assert len(shared) == len(own) > 3
    return all(torch.equal(own[n], saved[n]) for n in shared)


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "adapter"])
def test_a_run_is_stopped_and_goes_back(adapter: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    drift = monitor()
    stop = EarlyStop(drift, {"gap": 1.0}, patience=2)
    with caplog.at_level(logging.WARNING, "sharpwave"):
        trainer = run(tmp_path, stop, drift=drift, adapter=adapter)
        trainer.train()
    assert stop.stopped is not None
    assert (stop.stopped.monitor, stop.stopped.crossed, stop.stopped.step) == ("gap", 5, 7)
    assert stop.stopped.value == pytest.approx(6.0)
    assert stop.stopped.restored == tmp_path / "checkpoint-4"
    assert trainer.state.global_step == 7
    assert equal(trainer.model, tmp_path / "checkpoint-4")
    assert not equal(trainer.model, tmp_path / "checkpoint-6")
    assert "stopped at step 7: gap is 6, above its limit of 1 since step 5" in caplog.text
    assert "checkpoint-4 again" in caplog.text
    assert [reading["step"] for reading in drift.readings] == list(range(7))
    for name in ("distance", "distinct_2", "empty", "gap"):
        assert len(tiny_trl.logged(trainer, f"drift/{name}")) == (5 if name == "gap" else 7)
    assert tiny_trl.logged(trainer, "rewards/drift/mean") == [0.0] * 7


def test_a_resumed_run_stops_where_the_whole_one_does(tmp_path: Path) -> None:
    whole = monitor()
    straight = EarlyStop(whole, {"gap": 1.0}, patience=2)
    run(tmp_path / "whole", straight, drift=whole).train()
    first = monitor()
    run(tmp_path / "run", EarlyStop(first, {"gap": 1.0}, patience=2), drift=first, max_steps=6).train()
    second = monitor()
    stop = EarlyStop(second, {"gap": 1.0}, patience=2)
    resumed = run(tmp_path / "run", stop, drift=second)
    resumed.train(resume_from_checkpoint=True)
    assert straight.stopped is not None
    assert stop.stopped is not None
    assert str(stop.stopped) == str(straight.stopped)
    assert stop.stopped.restored == tmp_path / "run" / "checkpoint-4"
    assert equal(resumed.model, tmp_path / "run" / "checkpoint-4")
    assert [set(r) for r in second.readings] == [set(r) for r in whole.readings]
    assert [r.get("gap") for r in second.readings] == [r.get("gap") for r in whole.readings]
    third = monitor()
    elsewhere = run(tmp_path / "other", EarlyStop(third), drift=third)
    with pytest.raises(FileNotFoundError, match="no drift was saved in"):
        (tmp_path / "run" / "checkpoint-4" / "drift" / "drift.json").unlink()
        (tmp_path / "run" / "checkpoint-4" / "drift").rmdir()
        elsewhere.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))


def test_a_run_that_is_resumed_elsewhere_has_what_its_checkpoint_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory that it saves into has a checkpoint of the same step, of another run."""
    kept: dict[str, Any] = {}
    for name in ("a", "b"):
        drift, ema = monitor(), Ema(0.7 if name == "a" else 0.2)
        run(tmp_path / name, EarlyStop(drift, {}), ema, drift=drift, max_steps=2, seed=1 + len(kept)).train()
        kept[name] = drift.state_dict(), ema.average
    drift, ema = monitor(), Ema(0.7)

    class Begun(TrainerCallback):
        def on_train_begin(self, *given: Any, **_: Any) -> None:
            assert drift.state_dict() == kept["a"][0] != kept["b"][0]
            assert all(torch.equal(average, kept["a"][1][n]) for n, average in ema.average.items())
            assert not all(torch.equal(average, kept["b"][1][n]) for n, average in ema.average.items())
            given[2].should_training_stop = True

    begun = run(tmp_path / "b", EarlyStop(drift, {}), ema, Begun(), drift=drift, max_steps=3)
    begun.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    (tmp_path / "a").rename(tmp_path / "moved")
    lost = run(tmp_path / "b", Ema(0.7), max_steps=3)
    with pytest.raises(FileNotFoundError, match=r"b/checkpoint-2 is another checkpoint \(step 2\): pass resume_from="):
        lost.train(resume_from_checkpoint=str(tmp_path / "moved" / "checkpoint-2"))

    monkeypatch.chdir(tmp_path)
    drift, there = monitor(), Path("moved", "checkpoint-2")  # a relative path, of the working directory of now
    ema, stop = Ema(0.7, resume_from=there), EarlyStop(drift, {}, resume_from=there)
    monkeypatch.chdir(tmp_path / "b")
    moved = run(tmp_path / "b", stop, ema, Begun(), drift=drift, max_steps=3)
    moved.train(resume_from_checkpoint=str(tmp_path / "moved" / "checkpoint-2"))
    assert moved.state.global_step == 3
    assert ema.average


def test_without_a_checkpoint_the_model_stays_and_one_is_told(tmp_path: Path) -> None:
    drift = monitor()
    stop = EarlyStop(drift, {"gap": 1.0}, patience=1)
    trainer = run(tmp_path, stop, drift=drift, save_strategy="no")
    with pytest.warns(RuntimeWarning, match="no checkpoint from before step 5"):
        trainer.train()
    assert stop.stopped is not None
    assert stop.stopped.restored is None


def test_a_run_that_stays_within_its_limits_goes_on(tmp_path: Path) -> None:
    """Beside a reward with a store; with the defaults, on the reward's own terms."""
    reward = sw.InstrumentalReward(tiny.store(), tiny.embed, terminal=tiny.length, base=tiny.base())
    drift = Drift(tiny.base(), tiny.embed, store=tiny.store(), start=1)
    stop = EarlyStop(drift, {"gap": 50.0})
    callbacks = [SharpwaveCallback(reward), stop]
    trainer = run(tmp_path, *callbacks, drift=drift, functions=[drift.watch(reward)], max_steps=4)
    trainer.train()
    trainer.evaluate(eval_dataset=tiny_trl.dataset(rows=4))
    assert tiny_trl.logged(trainer, "eval_drift/distance")
    assert stop.stopped is None
    assert trainer.state.global_step == 4
    assert len(drift.readings) == 4
    assert all("gap" in reading and "support" in reading for reading in drift.readings[1:])


# The decision


def test_a_limit_must_be_passed_in_a_row() -> None:
    values = [0.1, 2.0, 0.1, 2.0, None, 3.0, 4.0, 0.0]
    readings = [{"step": float(n), **({} if v is None else {"gap": v})} for n, v in enumerate(values)]
    assert crossing(readings, {"gap": 1.0}, 1) == ("gap", 2.0, 1)
    assert crossing(readings, {"gap": 1.0}, 2) == ("gap", 3.0, 3)
    assert crossing(readings, {"gap": 1.0}, 3) == ("gap", 4.0, 3)
    assert crossing(readings, {"gap": 1.0}, 4) is None
    assert crossing(readings, {"distance": 1.0}, 1) is None
    low = [{"step": 3.0, "distinct_2": 0.4, "distance": 9.0, "support": 0.1}]
    assert crossing(low, LIMITS, 1) == ("distance", 9.0, 3)
    assert crossing(low, {"distinct_2": 0.5}, 1) == ("distinct_2", 0.4, 3)
    assert crossing(low, {"distinct_2": 0.4}, 1) is None


def test_the_checkpoint_is_older_than_the_batch_and_of_this_run(tmp_path: Path) -> None:
    state = TrainerState(log_history=[{"step": step, "loss": 1.0 / step, "gap": float("nan")} for step in range(1, 13)])
    for name in ("checkpoint-2", "checkpoint-10", "checkpoint-4", "checkpoint-x", "checkpoint-6", "checkpoint-8"):
        (tmp_path / name).mkdir()
        if name != "checkpoint-6":  # its weights are gone
            (tmp_path / name / "model.safetensors").write_bytes(b"")
        logged = [dict(entry) for entry in state.log_history[: int(name[11:].replace("x", "1"))]]
        if name == "checkpoint-8":  # another run's
            logged[3]["loss"] = 0.3
        TrainerState(log_history=logged).save_to_json(str(tmp_path / name / "trainer_state.json"))
    assert last_before(tmp_path, 2, state) is None
    assert last_before(tmp_path, 4, state) == tmp_path / "checkpoint-2"
    assert last_before(tmp_path, 10, state) == tmp_path / "checkpoint-4"
    assert last_before(tmp_path, 99, state) == tmp_path / "checkpoint-10"


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = tiny_trl.model()
    model.save_pretrained(tmp_path / "whole")
    before = weights(model)
    other = tiny_trl.model(1)
    load_weights(other, tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(other).values(), before.values(), strict=True))
    with pytest.raises(ValueError, match="lacks the parameter"):
        load_weights(torch.nn.Linear(2, 2), tmp_path / "whole")
    lora = peft.get_peft_model(tiny_trl.model(), peft.LoraConfig(**LORA))
    with pytest.raises(ValueError, match="holds no adapter"):
        load_weights(lora, tmp_path / "whole")


def test_bad_arguments_are_named() -> None:
    drift = monitor()
    with pytest.raises(TypeError, match=r"drift must be a sharpwave\.remedies\.Drift"):
        EarlyStop(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="patience must be at least 1"):
        EarlyStop(drift, patience=0)
    with pytest.raises(KeyError, match="no monitor 'kl'"):
        EarlyStop(drift, {"kl": 1.0})
    with pytest.raises(ValueError, match="limit of gap is not a number"):
        EarlyStop(drift, {"gap": float("nan")})
    with pytest.raises(ValueError, match="decay must lie in"):
        Ema(1.0)


# The average


class Weights(TrainerCallback):
    """What is trained, after every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        self.seen.append(weights(kwargs["model"]))

    def on_step_end(self, *_: Any, **kwargs: Any) -> None:
        self.seen.append(weights(kwargs["model"]))


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "adapter"])
def test_the_average_is_the_recurrence_and_survives_a_resume(adapter: bool, tmp_path: Path) -> None:
    ema, seen = Ema(0.7), Weights()
    trainer = run(tmp_path / "whole", seen, ema, adapter=adapter, max_steps=4)
    trainer.train()
    expected = {n: w.float() for n, w in seen.seen[0].items()}
    for step in seen.seen[1:]:
        expected = {n: 0.7 * w + 0.3 * step[n] for n, w in expected.items()}
    assert set(ema.average) == set(expected)
    for name, average in ema.average.items():
        assert torch.allclose(average, expected[name], atol=1e-7)
    assert any(not torch.equal(a, seen.seen[-1][n]) for n, a in ema.average.items())

    now = weights(trainer.model)
    with ema.in_place(trainer.model) as model:
        assert all(torch.equal(p, ema.average[n]) for n, p in weights(model).items())
    assert all(torch.equal(p, now[n]) for n, p in weights(trainer.model).items())

    run(tmp_path / "run", Ema(0.7), adapter=adapter, max_steps=2).train()
    again = Ema(0.7)
    run(tmp_path / "run", again, adapter=adapter, max_steps=4).train(resume_from_checkpoint=True)
    for name, average in again.average.items():
        assert torch.allclose(average, ema.average[name], atol=1e-6)
    if not adapter:
        (tmp_path / "run" / "checkpoint-4" / "ema.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match="resume_from="):
            run(tmp_path / "run", Ema(), max_steps=5).train(resume_from_checkpoint=True)
