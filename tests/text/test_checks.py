"""Texts that are cut wrong, or are not what was meant, are said in one line."""

from __future__ import annotations

import pytest
from sharpwave.episodes import Sentences, Turns, Words, chunk_batch
from sharpwave.text.checks import is_joined, joined_warnings, short_warnings, single_warnings

STORIES = ["Anna met Tom at the harbour. They talked all evening. He asked her to marry him."] * 6


def test_steps_of_a_word_or_two_are_said() -> None:
    prompts = [None] * 6
    (said,) = short_warnings(chunk_batch(Turns(max_words=1), prompts, STORIES))
    assert said.startswith("half of the steps have at most 1 words")
    assert short_warnings(chunk_batch(Words(n=2), prompts, STORIES))
    assert not short_warnings(chunk_batch(Words(n=3), prompts, STORIES))
    assert not short_warnings(chunk_batch(Sentences(), prompts, STORIES))


def test_episodes_of_one_step_are_said() -> None:
    prompts = ["Tell me."] * 6
    (said,) = single_warnings(chunk_batch(Turns(), prompts, STORIES))
    assert said.startswith("6 of 6 episodes have a single step")
    assert not single_warnings(chunk_batch(Sentences(), prompts, STORIES))
    assert not single_warnings(chunk_batch(Turns(), prompts[:3], STORIES[:3]))


@pytest.mark.parametrize(
    "text",
    [
        "User: my parcel is lost\nAssistant: I have sent another one.",
        "user: hello\n\nassistant : hi",
        "**Customer:** where is it? **Agent:** on its way",
        "<|im_start|>user\nhello<|im_end|>",
        "[INST] hello [/INST] hi",
    ],
)
def test_a_conversation_in_one_string_is_said(text: str) -> None:
    assert is_joined(text)
    assert joined_warnings([text] * 3 + STORIES[:3])
    assert not joined_warnings([text] * 2 + STORIES[:3])


@pytest.mark.parametrize(
    "text",
    [
        *STORIES[:1],
        "The user asked the assistant for help.",
        "Note: bring an umbrella. System: none.",
        "Support: we reply within a day.",
        [{"role": "user", "content": "User: a\nAssistant: b"}, {"role": "assistant", "content": "hello"}],
    ],
)
def test_other_texts_are_not(text: object) -> None:
    assert not is_joined(text)  # pyright: ignore[reportArgumentType]
