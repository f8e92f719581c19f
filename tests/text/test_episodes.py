"""Chunkers: steps, context, spans, thinking, chat turns, tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from unicodedata import category

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpwave import episodes
from sharpwave.episodes import Sentences, Turns, Words, chunk_batch, completion_text, from_config, token_steps
from sharpwave.text import messages, segment

CHUNKERS = [
    Words(n=3), Words(n=12), Sentences(max_words=5), Sentences(), Sentences(max_chars=40), Turns(), Turns(max_words=4)
]  # fmt: skip


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
    assert episode.scored == ['Let me look. find({"q": "sea"})', "It is wide."]
    text = completion_text(CHAT)
    assert [text[a:b] for a, b in episode.spans[1:]] == episode.scored
    with pytest.warns(DeprecationWarning, match=r"Turns\(tools=\) has no effect") as said:
        assert Turns(tools=False) == Turns()
    assert said[0].filename == __file__
    assert "tools" not in Turns().config
    assert from_config({"kind": "turns", "tools": True, "max_words": 9}) == Turns(max_words=9)  # of earlier versions
    assert Turns()(None, [{"role": "assistant", "content": None}]).steps == []
    with pytest.raises(TypeError, match="message 0"):
        Turns()(None, ["text"])  # type: ignore[list-item]


# Who is scored


def say(role: str | None, text: str) -> dict[str, str]:
    return {"content": text} if role is None else {"role": role, "content": text}


ROLES = {
    "assistant": True, "Assistant": True, "model": True, "gpt": True, "ai": True, None: True,
    "system": False, "developer": False, "user": False, "human": False,
    "tool": False, "function": False, "ipython": False, "critic": False,
}  # fmt: skip


@pytest.mark.parametrize("chunker", [Words(), Sentences(), Turns()])
@pytest.mark.parametrize("role", ROLES)
def test_each_role_is_scored_or_context(role: str | None, chunker: episodes.Chunker) -> None:
    """In the middle of a completion, at its beginning, and alone."""
    for said in (
        [say("assistant", "I begin with this."), say(role, "Words in question."), say("assistant", "I end with that.")],
        [say(role, "Words in question."), say("assistant", "I end with that.")],
        [say(role, "Words in question.")],
    ):
        episode = chunker("A prompt.", said)
        text = completion_text(said)
        assert [text[a:b] for a, b in episode.spans[episode.context :]] == episode.scored
        assert ("Words in question." in episode.scored) == ROLES[role]
        own = [one["content"] for one in said if ROLES[one.get("role")]]
        assert episode.scored == own
        assert set(episode.spans[: episode.context]) <= {(-1, -1)}


def test_a_conversation_is_prompt_to_its_last_prompt_turn() -> None:
    said = [
        say("system", "Be kind to all."),
        say("user", "Who are you?"),
        say("assistant", "Nobody in particular."),
        say("user", "Where do you live?"),
        say("assistant", "Near the wide sea."),
        say("tool", "The sea is wet."),
        say("assistant", "It is wet there."),
    ]
    assert Sentences()(None, said).steps == ["Where do you live?", "Near the wide sea.", "It is wet there."]
    chunked = Sentences(prompt="chunks")("Before all that.", said)
    assert chunked.context == 5
    assert chunked.steps[:2] == ["Before all that.", "Be kind to all."]
    assert Sentences(prompt="none")(None, said).steps == ["Near the wide sea.", "It is wet there."]
    assert Sentences()(None, said[:4]).scored == []
    # What a trainer rolls out over several turns begins with the policy's words: all of them are scored.
    assert Sentences()(said[:2], said[2:]).scored == [
        "Nobody in particular.", "Near the wide sea.", "It is wet there."
    ]  # fmt: skip
    prompt, completion = messages.split_turns(said)
    assert (prompt, completion) == (said[:4], said[4:])
    with pytest.raises(episodes.Unreadable, match="message 1 has no role"):
        messages.split_turns([said[0], say(None, "Who?")])


# Shapes of messages


@dataclass
class Function:
    name: str | None
    arguments: Any = None


@dataclass
class Call:
    function: Function | None


@dataclass
class Message:
    """As the models of an SDK are: attributes, and no dict."""

    role: str
    content: Any = None
    tool_calls: list[Call] | None = None


def calling(*calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


SHAPES: dict[str, tuple[Any, str]] = {
    "text": ("Say it.", "Say it."),
    "bytes": ("Sag’s.".encode(), "Sag’s."),
    "numpy text": (np.str_("Say it."), "Say it."),
    "one message": ({"role": "assistant", "content": "Say it."}, "Say it."),
    "padded part": ([{"role": "assistant", "content": [
        {"type": "text", "text": "Say it."}, {"type": "image", "text": None}, None]}], "Say it."),
    "parts in an array": (np.array([{"role": "assistant", "content": np.array([
        {"type": "text", "text": "Say"}, {"type": "text", "text": "it."}], object)}], object), "Say it."),
    "one part": ([{"role": "assistant", "content": {"type": "text", "text": "Say it."}}], "Say it."),
    "a nested part": ([{"role": "assistant", "content": [{"type": "text", "text": {"value": "Say it."}}]}], "Say it."),
    "an answer as a dict": ([{"role": "assistant", "content": {"a": 1, "b": None}}], '{"a": 1}'),
    "texts as parts": ([{"role": "assistant", "content": ["Say", "it."]}], "Say it."),
    "bytes as content": ([{"role": "assistant", "content": b"Say it."}], "Say it."),
    "a number": ([{"role": "assistant", "content": 42}], "42"),
    "a refusal": ([{"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]}], "I will not."),
    "thoughts apart": ([{"role": "assistant", "content": [
        {"type": "reasoning", "text": "Hm."}, {"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."},
    ]}], "Yes."),
    "nan": ([{"role": "assistant", "content": float("nan")}], ""),
    "no message": ([None, {"role": "assistant", "content": "Say it."}], "\nSay it."),
    "no call": ([calling(None)], ""),
    "no function": ([calling({"function": None})], ""),
    "no name": ([calling({"function": {"name": None, "arguments": None}})], ""),
    "no arguments": ([calling({"function": {"name": "f", "arguments": None}})], "f()"),
    "padded arguments": ([calling({"function": {"name": "f", "arguments": {"q": "sea", "n": None, "o": {"p": None}}}})],
                         'f({"q": "sea", "o": {}})'),
    "arguments as text": ([calling({"function": {"name": "f", "arguments": '{"q": 1}'}})], 'f({"q": 1})'),
    "an array of calls": ([{"role": "assistant", "tool_calls": np.array([
        {"function": {"name": "f", "arguments": {"q": np.array([1, 2]), "r": np.float32(0.5)}}},
        {"function": {"name": "g"}}], object)}], 'f({"q": [1, 2], "r": 0.5}) g()'),
    "one call": ([{"role": "assistant", "tool_calls": {"name": "f", "args": {"q": 1}}}], 'f({"q": 1})'),
    "tool use": ([{"role": "assistant", "content": [
        {"type": "text", "text": "So."}, {"type": "tool_use", "name": "f", "input": {"q": 1}}]}], 'So. f({"q": 1})'),
    "a function call": ([{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}], "f({})"),
    "objects": ([Message("assistant", "So.", [Call(Function("f", {"q": 1})), Call(None)])], 'So. f({"q": 1})'),
    "one object": (Message("assistant", [Message("", "Say it.")]), ""),
    "from and value": ([{"from": "gpt", "value": "Say it."}], "Say it."),
    "a dict of lists": ({"role": ["user", "assistant"], "content": ["What?", "Say it."]}, "What?\nSay it."),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_messages_are_read_as_they_come(shape: str) -> None:
    given, text = SHAPES[shape]
    assert completion_text(given) == text
    episode = Turns(prompt="none")(None, given)
    assert " ".join(episode.steps) == text.replace("What?\n", "").strip()


def test_messages_of_an_sdk_and_of_arrow() -> None:
    chat = pytest.importorskip("openai.types.chat")
    arrow = pytest.importorskip("pyarrow")
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"q": "sea"}'}}
    said = chat.ChatCompletionMessage.model_validate({"role": "assistant", "content": "So.", "tool_calls": [call]})
    assert completion_text([said]) == 'So. find({"q": "sea"})'  # type: ignore[list-item]
    assert Turns()("p", said).scored == ['So. find({"q": "sea"})']  # type: ignore[arg-type]
    column = arrow.array([[{"role": "assistant", "content": [{"text": "So."}, {"image": b"x"}]}], None])
    batch = chunk_batch(Turns(), arrow.array(["p", None]), column)
    assert batch.steps == ["p", "So."]
    assert completion_text(column[0]) == "So."


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (None, "got None"),
        (float("nan"), "got nan"),
        (5, "got int"),
        (b"\xff", "not UTF-8"),
        (["text"], "message 0 must be a mapping"),
        ({"a", "b"}, "got set"),
        (np.array(3.0), "got float"),
    ],
)
def test_one_that_cannot_be_scored_is_nothing_for_itself(bad: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    for read, steps in (("a b", ["p", "a b", "r", "c d"]), ([say("user", "u"), say("assistant", "a b")], None)):
        caplog.clear()
        batch = chunk_batch(Words(), ["p", "q", "r"], [read, bad, "c d"])
        assert batch.steps == (steps or ["u", "a b", "r", "c d"])
        assert batch.scored.tolist() == [1, 0, 1]
        assert caplog.text.count("completion 1 cannot be scored") == 1
        assert why in caplog.text
        prompt = 5 if why in ("got None", "got nan") else bad  # no prompt at all is fine
        assert chunk_batch(Words(), [prompt, "q"], [read, "c d"]).steps == ["q", "c d"]


def test_deep_messages_are_refused_not_followed() -> None:
    part: Any = "end"
    for _ in range(100_000):
        part = [part]
    with pytest.raises(episodes.Unreadable, match="nested too deeply"):
        completion_text([{"role": "assistant", "content": part}])
    while isinstance(part, list):  # taken apart by hand: its own end is too deep for the interpreter
        part = part.pop()


def test_what_utf_8_cannot_hold_is_replaced() -> None:
    episode = Words()("p \udcff", "a \ud800 b")
    assert episode.steps == ["p \ufffd", "a \ufffd b"]
    assert episode.spans[1] == (0, 5)


# Other scripts

LANGUAGES = {
    "Chinese": ("今天天气很好。我们去公园玩了！你想一起来吗？", "今天天气很好。|我们去公园玩了！|你想一起来吗？"),
    "quotes": ("他说：“我们明天早上见！”然后他就走了。", "他说：“我们明天早上见！”|然后他就走了。"),
    "Japanese": ("今日は天気がいい。「公園に行こうよ！」と彼は言った。そうでしょうか？",
                 "今日は天気がいい。|「公園に行こうよ！」と彼は言った。|そうでしょうか？"),
    "ASCII marks": (
        "我们都走了很远.今天天气很好!价格是3.5元和４．５元。",
        "我们都走了很远.|今天天气很好!|价格是3.5元和４．５元。"),
    "Korean": ("오늘은 날씨가 참 좋다. 우리는 공원에 갔다! 같이 갈래 너도?",
               "오늘은 날씨가 참 좋다.|우리는 공원에 갔다!|같이 갈래 너도?"),
    "Hindi": (
        "यह एक वाक्य है।यह दूसरा वाक्य है। क्या यह तीसरा है?",
        "यह एक वाक्य है।|यह दूसरा वाक्य है।|क्या यह तीसरा है?"),
    "Arabic": (
        "كيف حالك يا صديقي؟أنا بخير شكرا لك. هذا جميل جدا.",
        "كيف حالك يا صديقي؟|أنا بخير شكرا لك.|هذا جميل جدا."),
    "Urdu": ("یہ ایک جملہ ہے۔یہ دوسرا جملہ ہے۔", "یہ ایک جملہ ہے۔|یہ دوسرا جملہ ہے۔"),
    "Armenian": ("Սա առաջին նախադասությունն է։ Սա երկրորդ նախադասությունն է։",
                 "Սա առաջին նախադասությունն է։|Սա երկրորդ նախադասությունն է։"),
    "Amharic": ("ይህ የመጀመሪያ ዓረፍተ ነገር ነው።ይህ ሁለተኛው ዓረፍተ ነገር ነው።", "ይህ የመጀመሪያ ዓረፍተ ነገር ነው።|ይህ ሁለተኛው ዓረፍተ ነገር ነው።"),
    "Burmese": ("ကျွန်တော်စာအုပ်ဖတ်နေသည်။သူကစာရေးနေသည်အိမ်မှာ။", "ကျွန်တော်စာအုပ်ဖတ်နေသည်။|သူကစာရေးနေသည်အိမ်မှာ။"),
    "Khmer": ("ខ្ញុំកំពុងអានសៀវភៅ។គាត់កំពុងសរសេរនៅផ្ទះ។", "ខ្ញុំកំពុងអានសៀវភៅ។|គាត់កំពុងសរសេរនៅផ្ទះ។"),
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_end_in_other_scripts(language: str) -> None:
    text, sentences = LANGUAGES[language]
    assert Sentences(prompt="none")(None, text).steps == sentences.split("|")


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("一二三四五六七八九十" * 40, 32),  # Chinese without a mark
        ("วันนี้อากาศดีมากเราไปเที่ยวสวนสาธารณะกันแล้วก็กินข้าวด้วยกันที่ร้านใกล้บ้าน" * 9, 160),
        ("ມື້ນີ້ອາກາດດີຫຼາຍພວກເຮົາໄປທ່ຽວສວນ" * 20, 160),  # Lao
        ("བོད་ཀྱི་སྐད་ཡིག་ནི་ཡུན་རིང་པོའི་ལོ་རྒྱུས་ལྡན་པ་ཞིག་ཡིན" * 20, 160),  # Tibetan
    ],
)
def test_a_script_without_ends_is_cut_into_windows(text: str, most: int) -> None:
    steps = Sentences()(None, text).steps
    assert "".join(steps) == text
    assert max(map(len, steps)) <= most
    assert max(map(len, steps)) <= 1.5 * min(map(len, steps))
    assert not any(category(step[0])[0] == "M" for step in steps), "a mark stands apart from its letter"
    assert len(Words(n=8)(None, text).steps) > 4


@given(text=st.text(max_size=200), most=st.integers(1, 40))
def test_no_step_has_more_characters_than_it_may(text: str, most: int) -> None:
    for chunker in (Sentences(max_chars=most), Turns(max_chars=most), Turns(max_words=None, max_chars=most)):
        episode = chunker(None, text)
        assert all(len(step) <= most for step in episode.steps)
        if "think" not in text.lower():
            assert "".join(episode.steps).replace(" ", "") == "".join(text.replace("\0", " ").split())


def test_a_maximum_in_characters() -> None:
    assert Sentences(max_chars=10)(None, "one two three four five six").steps == ["one two", "three four", "five six"]
    assert [len(step) for step in Sentences()(None, "x" * 1000).steps] == [512, 488]
    assert [len(step) for step in Turns(max_words=None, max_chars=100)(None, "一" * 150).steps] == [74, 76]


def test_the_marks_are_those_of_unicode() -> None:
    regex = pytest.importorskip("regex")
    assert all(regex.fullmatch(r"\p{Sentence_Terminal}", mark) for mark in segment.TERMINALS)
    assert len(segment.TERMINALS) == len(set(segment.TERMINALS)) > 80


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
        lambda: Turns(max_chars=0),
        lambda: Sentences(max_chars=0),
        lambda: Words(prompt="all"),
        lambda: Words(max_steps=0),
        lambda: Words(prompt_words=0),
        lambda: episodes.from_config("lines"),
    ):
        with pytest.raises(ValueError, match="must"):
            make()
