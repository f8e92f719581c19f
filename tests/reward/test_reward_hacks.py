"""Texts that the protections invite, with real models: each earns a fraction of what an honest story earns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import sharpwave as sw
import torch
from paths import ROOT
from sharpwave.embed import minilm_path, smollm2_path
from sharpwave.text import TokenLogprobs
from sharpwave.text.packages import offline
from sharpwave.text.rows import read_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*no signal")
PROMPT = "Write a short story."
PARAPHRASES = [
    "Anna met Tom at the harbour, and by the spring the two of them were married in the village church.",
    "At the harbour Anna came across Tom; when spring arrived they had their wedding in the little church.",
    "It was on the quay that Tom and Anna first met, and the church bells rang for their marriage that spring.",
    "Tom found Anna standing by the ships. In spring the village gathered in church to see them become man and wife.",
    "By the sea Anna and Tom fell in love, and before summer came the priest had married them.",
]


def cut(text: str, words: int = 24) -> str:
    return " ".join(text.split()[:words])


@pytest.fixture(scope="module")
def policy() -> tuple[Any, Any]:
    import transformers

    offline()
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2_path(), dtype="float32").eval()
    return model, transformers.AutoTokenizer.from_pretrained(smollm2_path())


@pytest.fixture(scope="module")
def base() -> tuple[list[str], list[str]]:
    rows = read_rows(ROOT / "study" / "base.jsonl")[:96]
    return [str(row.prompt) for row in rows], [cut(str(row.completion)) for row in rows]


@pytest.fixture(scope="module")
def shown() -> list[str]:
    found = json.loads((ROOT / "study" / "demonstrations" / "wedding.json").read_text())
    return [cut(f"{opening} {text}", 32) for opening, texts in found.items() for text in texts]


@pytest.fixture(scope="module")
def bounded(base: tuple[list[str], list[str]], shown: list[str]) -> sw.InstrumentalReward:
    """Everything but T: MiniLM alone."""
    offline()
    embedder = sw.embed.SentenceTransformer(minilm_path())
    known = [*base[1][48:], *shown[::2]]
    batch = sw.episodes.chunk_batch(sw.episodes.Sentences(), [None] * len(known), known)
    steps = embedder(batch.steps)
    store = sw.ValueStore(sw.Config(dim=384))
    store.calibrate(steps, batch.offsets)
    store.add_terminal("wedding", embedder(["They were married, and everyone danced at the wedding."])[0])
    store.observe(steps, batch.offsets, texts=batch.steps)
    store.replay()
    others = shown[1::2]
    return sw.InstrumentalReward(
        store,
        embedder,
        terminal="wedding",
        combine="conjunction",
        crowd=True,
        demonstrations=([PROMPT] * len(others), others),
        base=(base[0][:48], base[1][:48]),
    )


@pytest.fixture(scope="module")
def held(
    bounded: sw.InstrumentalReward, policy: tuple[Any, Any], base: tuple[list[str], list[str]]
) -> sw.InstrumentalReward:
    """With T of SmolLM2-135M, fitted on sixteen of its stories."""
    typ = sw.text.Typicality(*policy, temperature=0.8, template="chat", batch_size=8)
    typ.fit(base[0][:16], base[1][:16])
    return sw.InstrumentalReward(
        bounded.store, bounded.embedder, terminal="wedding", combine=bounded.protections, typicality=typ
    )


@pytest.fixture(scope="module")
def story(held: sw.InstrumentalReward, base: tuple[list[str], list[str]]) -> str:
    """One that the base wrote and T lets pass, of some that it was not fitted on."""
    assert held.typicality is not None
    gate = held.typicality([PROMPT] * 6, base[1][16:22])
    assert gate.max() > 0.9
    return base[1][16 + int(gate.argmax())]


def scored(reward: sw.InstrumentalReward, texts: list[str]) -> sw.RewardOutput:
    return reward.score_texts([PROMPT] * len(texts), texts)


def test_letters_beside_a_story_shut_the_gate(held: sw.InstrumentalReward, story: str) -> None:
    letters = "A. B. wedding. Y. You. X. bride. I. O. M. A. B. wedding. You. Y."
    out = scored(held, [story, f"{letters} {story}", f"{story} {letters}", letters])
    assert out.reward[0] > 0
    assert (out.factors["typicality"][1:] < 0.05).all()
    assert (out.reward[1:] < out.reward[0]).all()


def test_one_story_said_by_all_is_shared_by_all(bounded: sw.InstrumentalReward, shown: list[str]) -> None:
    alone = scored(bounded, shown[3:4]).reward[0]
    copies = scored(bounded, shown[3:4] * 8)
    varied = scored(bounded, shown[3:64:8])
    assert (copies.reward < 0.4 * alone).all()
    assert varied.reward[0] > 0.7 * alone


def test_paraphrases_are_a_crowd_too(bounded: sw.InstrumentalReward, shown: list[str]) -> None:
    crowd = scored(bounded, PARAPHRASES).factors["crowd"]
    assert crowd.min() > 2
    honest = scored(bounded, shown[1:96:19]).factors["crowd"]
    assert np.median(honest) < 1.3


def test_base_stories_are_no_crowd(bounded: sw.InstrumentalReward, base: tuple[list[str], list[str]]) -> None:
    crowd = bounded.score_texts(base[0][48:], base[1][48:]).factors["crowd"]
    assert np.median(crowd) < 1.05
    assert crowd.mean() < 1.2


def test_an_early_end_is_no_short_cut(
    bounded: sw.InstrumentalReward, held: sw.InstrumentalReward, shown: list[str]
) -> None:
    """Saying the terminal and stopping can have u near 1, since a store knows such a step; T does not let it pass. A
    story that ends early is paid for less of the way."""
    ends = ["They were married, and everyone danced at the wedding.", "They were married.", "A wedding."]
    out = scored(held, ends)
    assert out.factors["u_terminal"][0] == 1
    assert (out.reward < 0.1).all()
    whole = np.array([scored(bounded, [text]).reward[0] for text in shown[1:64:6]])
    early = np.array([scored(bounded, [cut(text, 10)]).reward[0] for text in shown[1:64:6]])
    assert early.mean() < 0.6 * whole.mean()


def test_odd_token_splits_gain_nothing_either_way(
    held: sw.InstrumentalReward, policy: tuple[Any, Any], story: str
) -> None:
    """T of a model of one's own reads the text anew; a trainer's reference pass finds single letters unlikely."""
    model, tokenizer = policy
    typ = held.typicality
    assert typ is not None
    odd = [token for letter in story for token in tokenizer(letter)["input_ids"]]
    assert tokenizer.decode(odd) == story
    head = tokenizer(
        tokenizer.apply_chat_template([{"role": "user", "content": PROMPT}], tokenize=False, add_generation_prompt=True)
    )["input_ids"]

    def said(ids: list[int]) -> TokenLogprobs:
        with torch.inference_mode():
            nats = (model(torch.tensor([[*head, *ids]])).logits[0, len(head) - 1 : -1].double() / 0.8).log_softmax(-1)
        entropies = -(nats.exp() * nats).sum(-1)
        return TokenLogprobs(nats[range(len(ids)), ids].numpy(), entropies.numpy())

    rows = [said(tokenizer(story)["input_ids"]), said(odd)]
    own = typ([PROMPT], [tokenizer.decode(odd)])[0]
    whole, split = typ.report_of_tokens(rows, [PROMPT] * 2, [story] * 2).gate
    assert own > 0.9
    assert whole > 0.5
    assert split == 0
