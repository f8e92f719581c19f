"""A tiny random language model with an adapter, and an embedder of bags of words: for the study's harness."""

import zlib

import numpy as np
import tokenizers
import torch
import transformers

from examples.study.policy import Lora, Policy

WORDS = (
    "yes Yes YES no No NO once upon a time in small village there was the old man and bride groom rings kissed dancing "
    "storm sea ship waves girl boy dog happy story read text : ? . , A B I is this she he they walked home laughed"
)
DIM = 32


def tokenizer():
    vocabulary = ["<unk>", "<|im_start|>", "<|im_end|>", *dict.fromkeys(WORDS.split())]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: n for n, w in enumerate(vocabulary)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )


def policy(seed=0):
    words = tokenizer()
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
        )
    )
    return Policy(model, words, Lora(rank=2, alpha=4, first_layer=1), seed)


def embed(texts):
    """Hashed bags of words."""
    rows = np.full((len(texts), DIM), 0.01, np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            row[zlib.crc32(word.encode()) % DIM] += 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
