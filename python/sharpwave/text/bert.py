"""BERT sentence encoders in plain torch: what sentence-transformers makes of a directory, without its imports.

Importing sentence-transformers takes about 8 s of processor time, more than the rest of most commands. `load` reads the
plain case, such as all-MiniLM-L6-v2: a BERT in float32, mean or first-token pooling, no prompt. It has the part of
sentence-transformers' interface that `SentenceTransformer` uses, the same names of weights, and the same vectors up to
rounding (1e-6). A model with any other setting is left to sentence-transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

WITHOUT_EFFECT = {
    "_name_or_path", "architectures", "attention_probs_dropout_prob", "bos_token_id", "classifier_dropout",
    "eos_token_id", "gradient_checkpointing", "hidden_dropout_prob", "id2label", "initializer_range", "label2id",
    "tie_word_embeddings", "transformers_version", "use_cache",
}  # fmt: skip
"""Names in a BERT's config.json that change no vector."""
FIXED = {
    "model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False,
    "add_cross_attention": False, "dtype": "float32", "torch_dtype": "float32",
}  # fmt: skip
"""Settings that a config.json may leave out, and their values here."""
SIZES = (
    "hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
    "type_vocab_size", "vocab_size",
)  # fmt: skip
NUMBERS = {*SIZES, "layer_norm_eps", "pad_token_id"}
READING = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings", "do_lower_case": False}
HIDDEN_STATES = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
"""Likewise of sentence_bert_config.json."""
TOKENS = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}
"""The parts of a BERT's tokenizer."""


def load(path: Path) -> BertEncoder | None:
    """The encoder in a directory, or None where it is another one than this module computes."""
    try:
        modules = [(m["type"].rpartition(".")[2], m["path"]) for m in _json(path / "modules.json")]
        names = [name for name, _ in modules]
        if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or modules[0][1]:
            return None
        config = _json(path / "config.json")
        longest = _longest(path, config)
        pooling = _pooling(_json(path / modules[1][1] / "config.json"), config)
        tokenizer = _tokenizer(path)
        if longest is None or pooling is None or tokenizer is None or not _is_plain(path, config):
            return None
        weights = {
            name: tensor for name, tensor in load_file(path / "model.safetensors").items() if "position_ids" not in name
        }
        with torch.device("meta"):
            made = BertEncoder(config, longest, pooling, tokenizer, normalized=names[-1] == "Normalize")
        inner = made.transformer.model
        if {n: t.shape for n, t in inner.state_dict().items()} != {n: t.shape for n, t in weights.items()}:
            return None
        if any(tensor.dtype != torch.float32 for tensor in weights.values()):
            return None
        inner.load_state_dict(weights, assign=True)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        SafetensorError,
    ):  # it is for sentence-transformers to say why
        return None
    return made.eval().requires_grad_(False)


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _longest(path: Path, config: Mapping[str, Any]) -> int | None:
    """The most tokens of a text: older versions of sentence-transformers write it apart from the tokenizer's."""
    found = _json(path / "sentence_bert_config.json")
    longest = found.pop("max_seq_length", None) or _json(path / "tokenizer_config.json")["model_max_length"]
    if found.pop("modality_config", HIDDEN_STATES) != HIDDEN_STATES or not found.items() <= READING.items():
        return None
    return longest if isinstance(longest, int) and 2 < longest <= config["max_position_embeddings"] else None


def _pooling(found: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """``mean`` or ``cls``."""
    modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if isinstance(found.get("pooling_mode"), str):
        modes = {"pooling_mode": found["pooling_mode"]}
    chosen = [name for name, value in found.items() if name.startswith("pooling_mode") and value]
    width = found.get("word_embedding_dimension", found.get("embedding_dimension"))
    if len(chosen) != 1 or width != config["hidden_size"] or not found.get("include_prompt", True):
        return None
    mode = modes.get(chosen[0])
    return mode if mode in ("mean", "cls") else None


def _is_plain(path: Path, config: Mapping[str, Any]) -> bool:
    """Whether nothing in the configs of the model and of sentence-transformers asks for more than is done here."""
    if any(config.get(name, value) != value for name, value in FIXED.items()) or "model_type" not in config:
        return False
    if set(config) - {*FIXED, *NUMBERS, *WITHOUT_EFFECT}:
        return False
    if (
        not all(isinstance(config[name], int) for name in SIZES)
        or config["hidden_size"] % config["num_attention_heads"]
    ):
        return False
    whole = path / "config_sentence_transformers.json"
    found = _json(whole) if whole.is_file() else {}
    return not (
        any((found.get("prompts") or {}).values())
        or found.get("default_prompt_name")
        or found.get("truncate_dim")
        or found.get("model_type", "SentenceTransformer") != "SentenceTransformer"
        or list(path.glob("*.py"))
    )


def _tokenizer(path: Path) -> Tokenizer | None:
    """The tokenizer, if transformers would make the same one of the files."""
    found, said = _json(path / "tokenizer.json"), _json(path / "tokenizer_config.json")
    if any(found[name]["type"] != kind for name, kind in TOKENS.items()):
        return None
    if found["post_processor"]["type"] not in ("TemplateProcessing", "BertProcessing"):
        return None
    if said.get("tokenizer_class") not in ("BertTokenizer", "BertTokenizerFast"):
        return None
    if any(said.get(f"{what}_side", "right") != "right" for what in ("padding", "truncation")):
        return None
    same = {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    }
    if any(name in said and said[name] != found["normalizer"][other] for name, other in same.items()):
        return None
    return Tokenizer.from_file(str(path / "tokenizer.json"))


class BertEncoder(nn.Sequential):
    """Texts to vectors; named as sentence-transformers names its parts.

    Args:
        config: of the BERT, as in config.json.
        longest: the most tokens of a text.
        pooling: ``mean`` or ``cls``.
        tokenizer: of the ``tokenizers`` library.
        normalized: whether rows have unit length.
    """

    default_prompt_name = None

    def __init__(
        self, config: Mapping[str, Any], longest: int, pooling: str, tokenizer: Tokenizer, normalized: bool
    ) -> None:
        super().__init__(Transformer(config), Pooling(pooling), *([Normalize()] if normalized else []))
        self.dim = int(config["hidden_size"])
        self.max_seq_length = longest
        self.prompts: dict[str, str] = {}
        tokenizer.enable_truncation(longest)
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.pad = int(config.get("pad_token_id") or 0)

    @property
    def transformer(self) -> Transformer:
        """Its first part."""
        first = self[0]
        assert isinstance(first, Transformer)
        return first

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.parameters()).device

    def get_embedding_dimension(self) -> int:
        """The length of a row."""
        return self.dim

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, batch_size: int, **_: Any) -> torch.Tensor:
        """(n, d), in the order of the texts."""
        read = [one.ids for one in self.tokenizer.encode_batch(list(texts))]
        rows = torch.empty(len(read), self.dim, dtype=next(self.parameters()).dtype, device=self.device)
        for batch in batches([len(ids) for ids in read], batch_size):
            rows[batch] = self([read[n] for n in batch])
        return rows

    def forward(self, input: Sequence[Sequence[int]]) -> torch.Tensor:
        """(n, d) of token ids."""
        longest = max(map(len, input))
        ids = torch.tensor([[*one, *[self.pad] * (longest - len(one))] for one in input], device=self.device)
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in input], device=self.device)
        _, pooling, *rest = self
        rows = pooling(self.transformer(ids, mask), mask)
        return rest[0](rows) if rest else rows


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Numbers of texts, the longest first, at most ``size`` at once, of which none is less than half of the longest.

    A text is padded to the longest of its batch, and the padding takes as long as words.
    """
    batch: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if batch and (len(batch) == size or 2 * lengths[n] < lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


class Transformer(nn.Module):
    """Token ids (n, t) and their mask to hidden states (n, t, d)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = Bert(config)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(ids, mask)


class Pooling(nn.Module):
    """Hidden states (n, t, d) to rows (n, d): their mean over the mask, or the first."""

    include_prompt = True

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.pooling_mode = mode

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.pooling_mode == "cls":
            return states[:, 0]
        weight = mask.unsqueeze(-1).to(states.dtype)
        total = (states * weight).sum(dim=1, dtype=torch.float32)
        return (total / weight.sum(dim=1, dtype=torch.float32).clamp(min=1e-9)).to(states.dtype)


class Normalize(nn.Module):
    """Rows at unit length."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return functional.normalize(rows, p=2, dim=1)


# BERT (Devlin et al., 2019), with the names of transformers' weights ------------------------------


class Bert(nn.Module):
    """Token ids (n, t) and their mask to the last hidden states (n, t, d)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Layers(config)
        self.pooler = _Dense(config["hidden_size"], config["hidden_size"])  # unused, and part of the weights

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        padded = None if bool(mask.all()) else mask[:, None, None, :].bool().expand(-1, 1, ids.shape[1], -1)
        states = self.embeddings(ids)
        for layer in self.encoder.layer:
            states = layer(states, padded)
        return states


class _Embeddings(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.word_embeddings = _embedding(config["vocab_size"], size)
        self.position_embeddings = _embedding(config["max_position_embeddings"], size)
        self.token_type_embeddings = _embedding(config["type_vocab_size"], size)
        self.LayerNorm = nn.LayerNorm(size, eps=config["layer_norm_eps"])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]
        return self.LayerNorm(states + self.position_embeddings.weight[: ids.shape[1]])


def _embedding(count: int, size: int) -> nn.Embedding:
    """Without initial weights: drawing them on the meta device imports torch's compiler, which takes 3 s."""
    return nn.Embedding(count, size, _weight=torch.empty(count, size))


class _Layers(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_Layer(config) for _ in range(config["num_hidden_layers"])])


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size, inner = config["hidden_size"], config["intermediate_size"]
        self.attention = _Attention(config)
        self.intermediate = _Dense(size, inner)
        self.output = _Residual(inner, config)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        states = self.attention(states, mask)
        return self.output(functional.gelu(self.intermediate.dense(states)), states)


class _Attention(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Residual(config["hidden_size"], config)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return self.output(self.self(states, mask), states)


class _SelfAttention(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        shape = (*states.shape[:2], self.heads, -1)
        query, key, value = (part(states).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).reshape(states.shape)


class _Dense(nn.Module):
    def __init__(self, given: int, out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(given, out)


class _Residual(nn.Module):
    def __init__(self, given: int, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.dense = nn.Linear(given, config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, states: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dense(states) + beside)
