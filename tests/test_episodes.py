"""Chunkers: steps, context, spans, thinking, chat turns, tokens."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpwave import episodes
from sharpwave.episodes import Sentences, Turns, Words, chunk_batch, completion_text, token_steps

CHUNKERS = [Words(n=3), Words(n=12), Sentences(max_words=5), Sentences(), Turns(), Turns(max_words=4)]


@given(text=st.text(max_size=300), chunker=st.sampled_from(CHUNKERS))
def test_steps_are_what_their_spans_say(text: str, chunker: episodes.Chunker) -> None:
    episode = chunker("A prompt.", text)
    assert episode.context == 1
    assert episode.spans[0] == (-1, -1)
    end = 0
    for step, (a, b) in zip(episode.scored, episode.spans[1:], strict=True):
        assert end <= a < b <= len(text)
        assert step
        assert "\0" not in step
        end = b
    if "think" not in text.lower():
        said = "".join(episode.scored).replace(" ", "")
        assert said == "".join(text.replace("\0", " ").split())


def test_words() -> None:
    text = " ".join(f"w{n}" for n in range(26))
    assert [len(s.split()) for s in Words(n=12)(None, text).steps] == [12, 14]
    assert [len(s.split()) for s in Words(n=8)(None, text).steps] == [8, 8, 10]
    assert Words()(None, "").steps == []


def test_sentences() -> None:
    text = 'Mr. Green said: "Stay!" He left. Oh. It rained for 3.5 hours on end\nand then'
    assert Sentences()(None, text).steps == [
        'Mr. Green said: "Stay!"',
        "He left. Oh.",
        "It rained for 3.5 hours on end and then",
    ]
    long = " ".join(["word"] * 40)
    assert [len(s.split()) for s in Sentences(max_words=16)(None, long).steps] == [13, 13, 14]


def test_the_prompt_as_context() -> None:
    assert Words()("Say it.", "a b").steps == ["Say it.", "a b"]
    assert Words(prompt="none")("Say it.", "a b").context == 0
    assert Words()("", "a b").context == 0
    assert Words(prompt_words=2)("one two three", "a").steps[0] == "two three"
    chunked = Sentences(prompt="chunks")("First it was so. Then it was not.", "And now this.")
    assert chunked.context == 2
    assert chunked.steps[1] == "Then it was not."
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello you."}]
    assert Words()(messages, "x").steps[0] == "Hello you."


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>no</think>yes", "yes"),
        ("a <thinking>no</thinking> b", "a  b"),
        ("so I think</think> yes", "yes"),
        ("yes <think>cut off here", "yes"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_thinking_is_left_out(text: str, left: str) -> None:
    assert episodes.strip_think(text) == left
    episode = Words()(None, text)
    assert "no" not in " ".join(episode.steps).split()
    for step, (a, b) in zip(episode.steps, episode.spans, strict=True):
        assert "think" in text[a:b] or text[a:b].split() == step.split()
    assert len(Words(strip_think=False)(None, text).steps) == 1


CHAT = [
    {"role": "assistant", "content": "Let me look.", "tool_calls": [
        {"function": {"name": "find", "arguments": {"q": "sea"}}}]},
    {"role": "tool", "content": [{"type": "text", "text": "The sea is wide."}]},
    {"role": "assistant", "content": "It is wide."},
]  # fmt: skip


def test_turns() -> None:
    episode = Turns()("How wide?", CHAT)
    assert episode.scored == ['Let me look. find({"q": "sea"})', "The sea is wide.", "It is wide."]
    text = completion_text(CHAT)
    assert [text[a:b] for a, b in episode.spans[1:]] == episode.scored
    short = Turns(tools=False)("How wide?", CHAT)
    assert [text[a:b] for a, b in short.spans[1:]] == short.scored == [episode.scored[0], "It is wide."]
    assert Turns()(None, [{"role": "assistant", "content": None}]).steps == []
    with pytest.raises(TypeError, match="message 0"):
        Turns()(None, ["text"])  # type: ignore[list-item]


def test_a_long_completion_is_quick_and_may_be_cut() -> None:
    text = " ".join(["All work and no play makes a dull boy of him, they say."] * 600)
    start = time.perf_counter()
    for chunker in CHUNKERS:
        assert chunker("p", text).scored
    assert time.perf_counter() - start < 2
    assert len(Words(n=12, max_steps=10)("p", text).scored) == 10
    assert len(Words(n=1)(None, "x" * 1000).steps) == 16


def test_batches() -> None:
    batch = chunk_batch(Words(n=2), ["p", None, "q"], ["a b c d", "e", ""])
    assert batch.steps == ["p", "a b", "c d", "e", "q"]
    assert batch.offsets.tolist() == [0, 3, 4, 5]
    assert batch.context.tolist() == [1, 0, 1]
    assert batch.scored.tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="2 prompts for 1"):
        chunk_batch(Words(), ["a", "b"], ["c"])


def test_tokens_know_their_step() -> None:
    text = "one two three four"
    episode = Words(n=2)("prompt", text)
    tokens = [(0, 3), (3, 7), (7, 8), (7, 13), (13, 18), (18, 18)]
    assert token_steps(episode.spans, tokens).tolist() == [1, 1, -1, 2, 2, -1]
    assert token_steps([], tokens).tolist() == [-1] * 6
    assert token_steps(episode.spans, np.zeros((0, 2))).shape == (0,)


@pytest.mark.parametrize("chunker", CHUNKERS)
def test_configurations_go_round(chunker: episodes.Words) -> None:
    assert episodes.from_config(chunker.config) == chunker


def test_bad_configurations() -> None:
    assert episodes.from_config("words") == Words()
    for make in (
        lambda: Words(n=0),
        lambda: Sentences(max_words=2, min_words=3),
        lambda: Turns(max_words=0),
        lambda: Words(prompt="all"),
        lambda: Words(max_steps=0),
        lambda: Words(prompt_words=0),
        lambda: episodes.from_config("lines"),
    ):
        with pytest.raises(ValueError, match="must"):
            make()
