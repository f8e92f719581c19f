"""The reference pass of TRL's real trainers reaches the reward: the same numbers, and no pass more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

pytest.importorskip("trl")

import sharpwave as sw
import tiny_trl
import torch
from sharpwave.text import TokenLogprobs, Typicality
from sharpwave.trainers.trl import DenseCreditMixin, ReferenceLogprobsMixin, SharpwaveCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

pytestmark = pytest.mark.filterwarnings("ignore:.*no signal", "ignore:.*demonstrations")


class GatedGRPO(ReferenceLogprobsMixin, GRPOTrainer):
    pass


class GatedRLOO(ReferenceLogprobsMixin, RLOOTrainer):
    pass


class GatedDense(ReferenceLogprobsMixin, DenseCreditMixin, GRPOTrainer):
    pass


KINDS = pytest.mark.parametrize(
    ("gated", "plain", "config"),
    [(GatedGRPO, GRPOTrainer, GRPOConfig), (GatedRLOO, RLOOTrainer, RLOOConfig)],
    ids=["grpo", "rloo"],
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on disk, from which a trainer loads its reference."""
    path = tmp_path_factory.mktemp("policy")
    tiny_trl.model().save_pretrained(path)
    tiny_trl.tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def base(policy: Path) -> tuple[list[str], list[str]]:
    """What the policy says before it is trained."""
    from transformers import AutoModelForCausalLM

    model, tokenizer = AutoModelForCausalLM.from_pretrained(policy), tiny_trl.tokenizer()
    prompts = [f"{tiny.PROMPT} {n % 4}" for n in range(16)]
    asked = tokenizer(prompts, return_tensors="pt", padding=True)
    torch.manual_seed(0)
    said = model.generate(**asked, max_new_tokens=24, do_sample=True, temperature=0.8, top_k=0, pad_token_id=0)
    return prompts, tokenizer.batch_decode(said[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)


class Spy:
    """A reward function that keeps what it is given."""

    __name__ = "spy"

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def __call__(self, completions: list[str], **given: Any) -> list[float]:
        self.seen.append({"completions": completions, **given})
        return [float(len(text)) for text in completions]


def trained(kind: Any, config: Any, policy: Path, out: Path, reward: Any, **options: Any) -> Any:
    own = {name: options.pop(name) for name in ("peft_config", "callbacks", "dense_reward") if name in options}
    settings = {"beta": 0.05, "max_steps": 1, "temperature": 0.8, **options}
    trainer = kind(
        str(policy),
        reward_funcs=reward,
        args=tiny_trl.arguments(config, out, **settings),
        train_dataset=tiny_trl.dataset(),
        processing_class=tiny_trl.tokenizer(),
        **own,
    )
    trainer.passes = 0
    model = trainer.accelerator.unwrap_model(trainer.model if trainer.ref_model is None else trainer.ref_model)
    model.get_input_embeddings().register_forward_hook(lambda *_: setattr(trainer, "passes", trainer.passes + 1))
    trainer.train()
    return trainer


@KINDS
def test_the_reward_sees_what_the_reference_said_and_no_pass_is_added(
    gated: Any, plain: Any, config: Any, policy: Path, tmp_path: Path
) -> None:
    spy = Spy()
    trainer = trained(gated, config, policy, tmp_path / "gated", spy)
    without = trained(plain, config, policy, tmp_path / "plain", Spy())
    assert trainer.passes == without.passes == 1
    seen = spy.seen[0]
    reference, tokenizer = trainer.ref_model.eval(), tiny_trl.tokenizer()
    for prompt, ids, row in zip(seen["prompts"], seen["completion_ids"], seen["reference_logprobs"], strict=True):
        assert isinstance(row, TokenLogprobs)
        ids = [token for token in ids if token != tokenizer.eos_token_id]
        head = tokenizer(prompt)["input_ids"]
        with torch.inference_mode():
            logits = reference(torch.tensor([[*head, *ids]])).logits[0, len(head) - 1 : -1].double()
        nats = (logits / 0.8).log_softmax(-1)
        np.testing.assert_allclose(row.logps, nats[range(len(ids)), ids], atol=1e-4)
        np.testing.assert_allclose(row.entropies, -(nats.exp() * nats).sum(-1), atol=1e-4)


@KINDS
def test_a_gate_without_a_model_is_fitted_and_fed_by_the_reference(
    gated: Any, plain: Any, config: Any, policy: Path, base: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    reward = sw.InstrumentalReward(
        tiny.store(), tiny.embed, terminal=tiny.length, base=base, combine="conjunction", typicality=True, crowd=True
    )
    spy = Spy()
    trainer = trained(gated, config, policy, tmp_path, [reward, spy], callbacks=[SharpwaveCallback(reward)])
    typ = Typicality(str(policy), temperature=0.8, cache=False).fit(*base)
    assert reward.typicality is not None
    assert reward.typicality.fitted is not None
    assert reward.typicality.fitted.z["entropy"].high == pytest.approx(typ.fitted.z["entropy"].high, rel=1e-4)
    seen = spy.seen[0]
    gate = reward.typicality.report_of_tokens(seen["reference_logprobs"], seen["prompts"], seen["completions"]).gate
    assert tiny_trl.logged(trainer, "sharpwave/typicality") == [pytest.approx(gate.mean(), rel=1e-5)]
    assert gate.max() > 0.5
    again = sw.InstrumentalReward.from_config(reward.to_config(), store=tiny.store())
    assert again.typicality is not None
    assert again.typicality.fitted == reward.typicality.fitted


def test_an_adapters_reference_is_the_model_without_it(policy: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    spy = Spy()
    adapter = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    trainer = trained(GatedGRPO, GRPOConfig, policy, tmp_path, spy, peft_config=adapter, max_steps=2)
    seen, tokenizer = spy.seen[1], tiny_trl.tokenizer()  # after the first step the adapter is not nothing
    prompt, ids, row = (seen[name][0] for name in ("prompts", "completion_ids", "reference_logprobs"))
    ids = [token for token in ids if token != tokenizer.eos_token_id]
    head = tokenizer(prompt)["input_ids"]
    model = trainer.accelerator.unwrap_model(trainer.model)
    with torch.inference_mode(), model.disable_adapter():
        nats = (model(torch.tensor([[*head, *ids]])).logits[0, len(head) - 1 : -1].double() / 0.8).log_softmax(-1)
    np.testing.assert_allclose(row.logps, nats[range(len(ids)), ids], atol=1e-4)


def test_dense_credit_goes_with_it(policy: Path, base: tuple[list[str], list[str]], tmp_path: Path) -> None:
    reward = sw.InstrumentalReward(tiny.store(), tiny.embed, base=base, typicality=True)
    trainer = trained(GatedDense, GRPOConfig, policy, tmp_path, reward, callbacks=[SharpwaveCallback(reward)])
    assert len(tiny_trl.logged(trainer, "sharpwave/typicality")) == 1


def test_without_a_reference_pass_nothing_is_handed_over(
    policy: Path, base: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    spy = Spy()
    trained(GatedGRPO, GRPOConfig, policy, tmp_path / "spy", spy, beta=0.0)
    assert "reference_logprobs" not in spy.seen[0]
    reward = sw.InstrumentalReward(tiny.store(), tiny.embed, base=base, typicality=True)
    with pytest.raises(ValueError, match="no model to read with"):
        trained(GatedGRPO, GRPOConfig, policy, tmp_path, reward, beta=0.0)
    own = Typicality(str(policy), temperature=0.8, cache=False)
    reading = sw.InstrumentalReward(tiny.store(), tiny.embed, base=base, typicality=own)
    trainer = trained(GatedGRPO, GRPOConfig, policy, tmp_path / "own", reading, beta=0.0)
    assert len(tiny_trl.logged(trainer, "sharpwave/typicality")) == 1


def test_it_goes_before_a_trainer_that_has_one() -> None:
    class Wrong(ReferenceLogprobsMixin):
        pass

    with pytest.raises(TypeError, match="goes before"):
        Wrong()
