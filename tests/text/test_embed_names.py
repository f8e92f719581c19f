"""Fingerprints: whatever changes a vector changes the name, and what does not, does not."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
from sharpwave import _names as names
from sharpwave import embed
from sharpwave._names import agree, old_form

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

TEXTS = ["A wedding in spring.", "A storm at sea, and no land in sight.", "def f(x): return x"]


@pytest.fixture(scope="module")
def loaded() -> Any:
    from sharpwave.text.packages import minilm_path, offline

    offline()
    return embed.SentenceTransformer(minilm_path()).model


@pytest.fixture
def model(loaded: Any) -> Any:
    """MiniLM, to be changed."""
    return copy.deepcopy(loaded)


@pytest.fixture(scope="module")
def plain(loaded: Any) -> embed.SentenceTransformer:
    return embed.SentenceTransformer(loaded, cache=False)


def prompt(model: Any) -> None:
    model.prompts = {"query": "Represent this sentence for searching relevant passages: "}
    model.default_prompt_name = "query"


def pooling(model: Any) -> None:
    model[1].pooling_mode = "cls"


def cut(model: Any) -> None:
    model.max_seq_length = 16


def normalisation(model: Any) -> None:
    model[2] = torch.nn.Identity()


def truncation(model: Any) -> None:
    model.truncate_dim = 128


def weights(model: Any) -> None:
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)


def unforeseen(model: Any) -> None:
    """What no setting and no weight says."""
    for layer in model[0].model.encoder.layer:
        layer.intermediate.intermediate_act_fn = torch.nn.ReLU()


CHANGES = [prompt, pooling, cut, normalisation, truncation, weights, unforeseen]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_vector_changes_the_name(change: Callable[[Any], None], model: Any, plain: Any) -> None:
    """Of the same object too, where it is a setting or a weight: the name is that of what it computes now."""
    cache = embed.EmbeddingCache()
    one = embed.SentenceTransformer(model, cache=cache)
    before, rows = one.fingerprint, one(TEXTS)
    assert before == plain.fingerprint
    change(model)
    fresh = embed.SentenceTransformer(model, cache=False)
    if change is unforeseen:
        one = fresh
    assert not agree(one.fingerprint, before)
    assert agree(one.fingerprint, fresh.fingerprint)
    np.testing.assert_allclose(one(TEXTS), fresh(TEXTS), atol=1e-5)  # not what the cache held before
    store = sw.ValueStore(sw.Config(dim=384))
    store.bind_embedder(before)
    with pytest.raises(sw.EmbedderError) as caught:
        store.bind_embedder(one)
    said = {prompt: "prompt=", pooling: "pool=cls", cut: "16 now", normalisation: "modules=", truncation: "128 now"}
    assert said.get(change, "probe" if change is unforeseen else "now") in str(caught.value)
    assert rows.shape[1] == 384


def test_what_does_not_change_a_vector_does_not_change_the_name(loaded: Any, plain: Any) -> None:
    """Batches, threads and precision: the probe moves by less than is allowed, by a factor that is measured here."""
    threads = torch.get_num_threads()
    others = []
    for count, batch in ((1, 1), (2, 3)):
        torch.set_num_threads(count)
        others.append(embed.SentenceTransformer(loaded, batch_size=batch, cache=False).fingerprint)
    torch.set_num_threads(threads)
    half = embed.SentenceTransformer(copy.deepcopy(loaded), dtype="bfloat16", cache=False).fingerprint
    probes = [names._PROBE.findall(name)[0] for name in (plain.fingerprint, *others, half)]
    assert all(agree(plain.fingerprint, other) for other in (*others, half))
    assert max(names._distance(probes[0], p) for p in probes[1:-1]) < names.NEAR / 5
    assert names._distance(probes[0], probes[-1]) < names.NEAR / 2


def test_precisions_are_kept_apart_in_a_cache(loaded: Any) -> None:
    """Also of models that came loaded, of which no dtype was said."""
    cache = embed.EmbeddingCache()
    full = embed.SentenceTransformer(loaded, cache=cache)
    half = embed.SentenceTransformer(copy.deepcopy(loaded).bfloat16(), cache=cache)
    assert (full(TEXTS) != half(TEXTS)).any()
    assert cache.misses == 2 * len(TEXTS)


@pytest.fixture
def old_store(plain: Any) -> sw.ValueStore:
    """A store as older versions bound it."""
    store = sw.ValueStore(sw.Config(dim=384))
    store.bind_embedder(old_form(plain.fingerprint))
    store.observe(plain(TEXTS), np.array([0, 3]), texts=TEXTS)
    return store


def test_a_store_of_an_older_version_is_accepted_where_its_texts_agree(
    old_store: sw.ValueStore, plain: Any, model: Any
) -> None:
    digest = old_store.digest()
    old_store.bind_embedder(plain)
    assert old_store.digest() == digest  # its name stays as it was
    prompt(model)
    other = embed.SentenceTransformer(model, cache=False)
    with pytest.raises(sw.EmbedderError, match=r"mean cosine 0\.\d\d"):
        old_store.bind_embedder(other)
    old_store.bind_embedder(embed.CallableEmbedder(other, old_store.embedder))  # the way out that it names


def scaled(texts: list[str], power: float = 1.0) -> np.ndarray:
    return np.array([[len(t) ** power, t.count("e") + 1, 1.0] for t in texts], np.float32)


def test_functions_of_one_name_are_compared_by_the_store_s_texts() -> None:
    store = sw.ValueStore(sw.Config(dim=3))
    store.bind_embedder(scaled)
    store.observe(scaled(TEXTS[:1]), np.array([0, 1]), texts=TEXTS[:1])
    store.bind_embedder(functools.partial(scaled, power=1.0))
    with pytest.warns(RuntimeWarning, match="other vectors of the store's texts"):
        store.bind_embedder(functools.partial(scaled, power=-2.0))


@pytest.fixture(scope="module")
def tiny() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, initializer_range=0.5,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


class Letters:
    """A tokenizer of characters."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def __call__(self, texts: Any, **options: Any) -> dict[str, Any]:
        several = [texts] if isinstance(texts, str) else texts
        ids = [[3 + (ord(c) + self.shift) % 500 for c in t][: options.get("max_length")] for t in several]
        if isinstance(texts, str):
            return {"input_ids": ids[0]}
        width = max(map(len, ids))
        return {
            "input_ids": torch.tensor([i + [0] * (width - len(i)) for i in ids]),
            "attention_mask": torch.tensor([[1] * len(i) + [0] * (width - len(i)) for i in ids]),
        }


def test_hidden_states_and_fluency_are_named_by_all_of_it(tiny: Any) -> None:
    hidden = functools.partial(embed.HiddenStates, tiny)
    centre = np.zeros(32, np.float32)
    other = centre.copy()
    other[-1] = 0.5
    ways = [
        hidden(Letters()), hidden(Letters(7)), hidden(Letters(), max_tokens=9),
        hidden(Letters(), center=centre), hidden(Letters(), center=other),
        embed.Fluency(tiny, Letters()), embed.Fluency(tiny, Letters(7)), embed.Fluency(tiny, Letters(), max_tokens=9),
    ]  # fmt: skip
    assert [[agree(a.fingerprint, b.fingerprint) for b in ways] for a in ways] == np.eye(len(ways), dtype=bool).tolist()
    joined = [embed.Joined([ways[0], w]).fingerprint for w in ways[5:]]
    assert [[agree(a, b) for b in joined] for a in joined] == np.eye(3, dtype=bool).tolist()
    assert agree(joined[0], embed.Joined([hidden(Letters(), batch_size=1), ways[5]]).fingerprint)


def test_training_changes_the_name(tiny: Any) -> None:
    model = copy.deepcopy(tiny)
    for one in (embed.Fluency(model, Letters()), embed.HiddenStates(model, Letters())):
        before = one.fingerprint
        assert one.fingerprint == before
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.01)
        assert not agree(one.fingerprint, before)


def test_a_model_s_path_and_a_cache_s_are_fixed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    cache = embed.EmbeddingCache("cache.sqlite")
    one = embed.SentenceTransformer("model", cache="other.sqlite")
    two = embed.Fluency("model")
    assert embed.SentenceTransformer("org/model").path == "org/model"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cache.embed("m", ["a"], scaled)
    assert one.path == two.path == str(tmp_path / "model")
    assert one.config["cache"] == str(tmp_path / "other.sqlite")
    assert [p.name for p in tmp_path.glob("cache.sqlite")] == ["cache.sqlite"]
    assert not list((tmp_path / "elsewhere").iterdir())
