"""A random two-layer Llama with a tokenizer of its own, datasets and arguments for TRL's real trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 320 tokens, so that a random model writes pieces of words, blanks and broken characters."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        tiny.STORIES,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<pad>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="<pad>", padding_side="left")
    made.chat_template = CHAT
    return made


def model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def dataset(chat: bool = False, rows: int = 8) -> Dataset:
    texts = [f"{tiny.PROMPT} {n % 4}" for n in range(rows)]
    prompts: list[Any] = [[{"role": "user", "content": text}] for text in texts] if chat else texts
    return Dataset.from_dict({"prompt": prompts, "answer": ["altar"] * rows})


def arguments(kind: Any, out: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "output_dir": str(out),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "max_completion_length": 24,
        "num_generations": 4,
        "max_steps": 2,
        "seed": 1,
    }
    settings.update(options)
    if kind.__name__.startswith("OnlineDPO"):  # it has a pair of completions a prompt, and max_new_tokens
        del settings["max_completion_length"], settings["num_generations"]
    return kind(**settings)


def logged(trainer: Any, name: str) -> list[float]:
    """The values of one metric over the log."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]
