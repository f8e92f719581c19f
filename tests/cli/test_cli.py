"""The command line: each command once, and bad input in one line with exit code 2."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharpwave as sw

pytest.importorskip("typer")

from sharpwave import cli
from sharpwave.cli import explaining, jobs
from sharpwave.embed import CallableEmbedder, fingerprint
from sharpwave.episodes import Words
from sharpwave.probe.probes import load_probes
from sharpwave.results import Association, Explanation, Payment
from sharpwave.text import rows as corpus

WORDS = "the bride sea storm garden seeds rain rings danced ship sails plants grew village boat harvest".split()


def bag(texts: list[str]) -> np.ndarray:
    """A bag of words: equal words, equal directions."""
    rows = np.full((len(texts), 64), 0.01, np.float32)
    for n, text in enumerate(texts):
        for word in text.lower().split():
            rows[n, sum(map(ord, word.strip(".,!"))) % 64] += 1
    return rows


@pytest.fixture(autouse=True)
def small_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "embedder_from", lambda *_: CallableEmbedder(bag))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "episodes.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for n in range(24):
            text = " ".join(rng.choice(WORDS, 30)) + "."
            row = {"prompt": "Tell me.", "completion": text, "grade": n / 24}
            out.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def store(file: Path, tmp_path: Path) -> Path:
    out = tmp_path / "store"
    run("build", file, "--out", out, "--terminal", "wed=the bride danced", "--channel", "grade", "--chunker", "words:6")
    return out


def run(*arguments: Any) -> None:
    cli.app([str(a) for a in arguments])


def fails(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.count("\n") == 1, error
    assert error.startswith(("error: ", "damaged file: ")), error
    return error


def test_build_writes_a_store(store: Path) -> None:
    loaded = sw.ValueStore.load(store / "snapshot.safetensors")
    assert loaded.channels == ["wed", "grade"]
    assert len(loaded) > 1
    assert loaded.embedder == fingerprint(bag)
    assert loaded.values.max() > 0
    notes = json.loads((store / "store.json").read_text())
    assert notes["terminals"] == {"wed": "the bride danced"}
    assert notes["chunker"] == Words(n=6).config


def test_score_and_explain(store: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    run("score", store, file, "--json", "--weight", "wed=1")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 24
    assert all(r["score"] == pytest.approx(sum(r["step"]), abs=1e-5) for r in rows)
    run("score", store, file, "--functional", "progress")
    assert "support" in capsys.readouterr().out
    run("explain", store, file, "--episode", 3, "--full", "--weight", "wed=1")
    out = capsys.readouterr().out
    assert out.startswith("“Tell me.”")
    assert "step 1: pay" in out
    run("explain", store, file, "--episode", 3, "--weight", "wed=1")
    said, legend = capsys.readouterr().out.split("\n\npay: ")
    head, *steps = said.split("\n\n")
    assert head == f"score {rows[3]['score']:+.2f} in {rows[3]['steps']} steps"
    assert len(steps) == 1 + rows[3]["steps"]
    assert "“Tell me.”  context, earns nothing" in steps[0]
    assert all(step.count("\n") <= 2 for step in steps)
    assert all(abs(float(pay)) >= 0.01 for pay in re.findall(r"” ([+-][\d.]+)", said))
    assert "like “" in said
    assert " → " not in said
    assert "support: how well" in legend


def test_explain_says_which_factor_of_a_reward_took_how_much(store: Path, file: Path, capsys: Any) -> None:
    config = file.with_name("reward.json")
    settings = {"terminal": "wed", "combine": "conjunction", "crowd": True, "base": str(file)}
    config.write_text(json.dumps({"config": settings}))  # as in a checkpoint
    capsys.readouterr()
    run("explain", store, file, "--reward", config)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * 24
    assert [line.split()[0] for line in lines[1:3]] == ["made", "lost"]
    run("explain", store, file, "--reward", config, "--json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    reward = sw.InstrumentalReward.from_config(settings, store=sw.ValueStore.load(store), embedder=bag)
    texts = corpus.read_rows(file)
    out = reward.score_texts([row.prompt for row in texts], [row.completion for row in texts], learn=False)
    assert [row["reward"] for row in rows] == pytest.approx(out.rewards)
    assert rows[5]["costs"] == pytest.approx({name: float(values[5]) for name, values in out.costs.items()})
    run("explain", store, file, "--reward", config, "--full")
    assert len(capsys.readouterr().out.splitlines()) > 10 * 24
    assert (store / "snapshot.safetensors").is_file()


def test_only_what_the_assistant_says_is_scored(store: Path, tmp_path: Path, capsys: Any, caplog: Any) -> None:
    """A system prompt that says the terminal itself earns nothing, and changes nothing but levels."""
    file = tmp_path / "chat\udcff.jsonl"  # a name that is not UTF-8
    chat = [
        {"role": "system", "content": "The bride danced. The bride danced. The bride danced. The bride danced."},
        {"role": "user", "content": "Tell me."},
        {"role": "assistant", "content": "the sea storm and the ship sails"},
    ]
    rows = [{"messages": chat}, {"messages": chat[1:]}, {"messages": chat[:2]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    run("score", store, file, "--json", "--weight", "wed=1")
    full, short, unsaid = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert full["steps"] == 1
    assert full["text"] == "the sea storm and the ship sails"
    assert full["score"] == short["score"]
    assert (unsaid["score"], unsaid["support"], unsaid["steps"]) == (None, None, 0)
    run("score", store, file)
    assert "–" in capsys.readouterr().out
    out = tmp_path / "chat"
    run("build", file, "--out", out, "--terminal", "wed=the bride danced")
    assert "row 3: left out" in caplog.text
    texts = sw.ValueStore.load(out / "snapshot.safetensors").texts
    assert set(texts) == {"wed", "Tell me.", "the sea storm and the ship sails"}
    file.write_text(json.dumps(rows[2]))
    assert "no episode in which" in fails(capsys, "build", file, "--out", tmp_path / "none")


def test_inspect(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    run("inspect", store, "--json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["terminals"] == 1
    assert [c["name"] for c in facts["channels"]] == ["wed", "grade"]
    run("inspect", store / "snapshot.safetensors")
    assert "memories" in capsys.readouterr().out


def test_probe_and_report(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "probe"
    run("probe", store, "--out", out)
    report = json.loads((out / "report.json").read_text())
    names = {r["name"] for r in report["objectives"][0]["rows"]}
    assert {"parrot one terminal", "list all terminals", "word salad", "shuffled words"} <= names
    (out / "report.html").unlink()
    run("report", out)
    page = (out / "report.html").read_text("utf-8")
    assert "The exploit table" in page
    assert "A value memory of your episodes." in page
    assert re.search(r"<b>24</b><span>base episodes, [\d.]+ words each, over 1 prompt</span>", page)
    assert "base stories" not in page
    assert "base episodes" in names
    bare = report | {"base": report["base"] | {"prompts": 0}}
    (out / "report.json").write_text(json.dumps(bare))
    run("report", out)
    assert "prompt" not in (out / "report.html").read_text("utf-8").split("memories of")[0].split("</style>")[1]


def test_bad_input_is_one_line(store: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no store" in fails(capsys, "inspect", tmp_path / "nothing")
    assert "No such file" in fails(capsys, "score", store, tmp_path / "nothing.jsonl")
    assert "No such file" in fails(capsys, "score", store, tmp_path / "nothing.parquet")
    assert ".json or .parquet" in fails(capsys, "score", store, store / "store.json.txt")
    assert "no channel" in fails(capsys, "score", store, file, "--weight", "love=1")
    assert "--weight" in fails(capsys, "score", store, file, "--weight", "love")
    assert "functional" in fails(capsys, "score", store, file, "--functional", "nothing")
    assert "--episode" in fails(capsys, "explain", store, file, "--episode", "99")
    assert "holds a store" in fails(capsys, "build", file, "--out", store)
    assert "N is the most words of a step" in fails(
        capsys, "build", file, "--out", tmp_path / "x", "--chunker", "lines:3"
    )
    assert "--terminal" in fails(capsys, "build", file, "--out", tmp_path / "x", "--terminal", "love")
    assert "no row has a number" in fails(capsys, "build", file, "--out", tmp_path / "x", "--channel", "love")
    assert "No such file" in fails(capsys, "report", tmp_path / "nothing.json")
    assert "--stories" in fails(capsys, "demo", "--stories", "3")
    assert "Missing argument" in fails(capsys, "build")
    assert "No such option" in fails(capsys, "inspect", store, "--nothing")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"completion": "x"}\n{oops\n')
    assert "line 2" in fails(capsys, "score", store, broken)
    broken.write_text('{"other": 3}\n')
    assert "row 1" in fails(capsys, "score", store, broken)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "snapshot.safetensors").write_bytes(b"x" * 100)
    assert fails(capsys, "inspect", damaged)


def test_another_embedder_is_refused(store: Path, file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "embedder_from", lambda *_: CallableEmbedder(bag, "another"))
    assert "another" in fails(capsys, "score", store, file)


def test_build_reads_fluency_too(file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store remembers how, so that the other commands need not be told."""
    monkeypatch.undo()  # the real embedders
    stories = [o.stories[0].text for o in load_probes().objectives]
    file.write_text("".join(json.dumps({"completion": text}) + "\n" for text in stories))
    out = tmp_path / "fluent"
    assert "--fluency" in fails(capsys, "build", file, "--out", out, "--fluency", "nowhere")
    assert not out.exists()
    run("build", file, "--out", out, "--chunker", "words:6", "--fluency", "smollm2")
    assert sw.ValueStore.load(out / "snapshot.safetensors").dim == 384 + 2
    capsys.readouterr()
    run("score", out, file, "--json")
    assert len(capsys.readouterr().out.splitlines()) == len(stories)


def test_parquet_and_ready_steps(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    rows = [{"steps": ["a b", "c"], "prompt": "p", "grade": 1.0}, {"steps": ["d"], "prompt": None, "grade": None}]
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    read = corpus.read_rows(path)
    batch = corpus.chunk_rows(read, Words())
    assert batch.steps == ["p", "a b", "c", "d"]
    assert batch.context.tolist() == [1, 0]
    grades = corpus.number_columns(read, ["grade"])
    assert grades[0, 0] == 1
    assert np.isnan(grades[1, 0])
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="Parquet"):
        corpus.read_rows(path)


def test_bench_measures_a_store_and_leaves_it_as_it_is(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sw.ValueStore.open(store, readonly=True).digest()
    run("bench", store, "--seconds", "0.01", "--json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["memories"] == len(sw.ValueStore.open(store, readonly=True))
    assert [row["verb"] for row in facts["rows"]] == ["search"] * 3 + ["value", "score", "observe", "observe, replay"]
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in facts["rows"])
    assert sw.ValueStore.open(store, readonly=True).digest() == before


def test_bench_makes_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    threads = sw.get_num_threads()
    run("bench", "--memories", "64", "--dim", "8", "--seconds", "0.01", "--threads", "1")
    sw.set_num_threads(threads)
    out = capsys.readouterr().out
    assert "observe, replay" in out
    assert "66 memories of 8, 1 threads" in out
    for wrong in (("--memories", "3"), ("--dim", "1"), ("--seconds", "0")):
        assert wrong[0].removeprefix("--").rstrip("s") in fails(
            capsys, "bench", "--memories", "64", "--dim", "8", *wrong
        )


def test_tune_chooses_a_config_that_build_takes(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, given = (
        tmp_path / "tuned.json",
        ["--terminal", "wed=the bride danced", "--channel", "grade", "--chunker", "words:6"],
    )
    run("tune", file, "--out", out, *given)
    said = capsys.readouterr().out
    assert "chosen" in said
    assert "merge cosine" in said
    run("tune", file, "--json", *given)
    facts = json.loads(capsys.readouterr().out)
    chosen = facts["table"][facts["chosen"]]
    config = sw.Config.from_json(out.read_text("utf-8"))
    assert facts["config"] == config.to_dict()
    assert (chosen["merge_cosine"], chosen["k"], chosen["gamma"]) == (config.merge_cosine, config.k, config.gamma)
    run("build", file, "--out", tmp_path / "made", "--config", out, *given)
    made = sw.ValueStore.load(tmp_path / "made")
    assert (made.config.merge_cosine, made.config.power) == (config.merge_cosine, config.power)
    out.write_text('{"dim": 3}')
    with pytest.raises(SystemExit):
        run("build", file, "--out", tmp_path / "x", "--config", out, *given)
    assert "it is for steps of length 3, these have 64" in capsys.readouterr().err
    out.write_text('{"dims": 3}')
    assert "unknown config name: dims" in fails(capsys, "build", file, "--out", tmp_path / "x", "--config", out, *given)


def test_build_warns_of_memories_with_different_outcomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Last steps that read nearly the same, with grades of 0 and 1."""
    path = tmp_path / "games.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for n in range(24):
            steps = [" ".join(WORDS[(n + k) % 12 : (n + k) % 12 + 5]) for k in range(3)]
            last = "the door is locked and the lamp is lit in the dark hall" + (" now" if n % 2 else "")
            out.write(json.dumps({"steps": [*steps, last], "grade": n % 2}) + "\n")
    run("build", path, "--out", tmp_path / "merged", "--channel", "grade")
    said = capsys.readouterr()
    assert "steps, " in said.out
    assert "of them different" in said.out
    assert "1 of 1 memories hold different steps whose observed drives differ" in said.err


def chats(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"completion": text, "grade": n % 2}) + "\n" for n, text in enumerate(texts)))
    return path


def test_build_and_score_warn_where_a_user_goes_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stories = [" ".join(np.random.default_rng(n).choice(WORDS, 24)) + "." for n in range(8)]
    joined = [f"User: {text}\nAssistant: {text}" for text in stories]

    def said(texts: list[str], *options: str) -> str:
        capsys.readouterr()
        out = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        run("build", chats(tmp_path / "file.jsonl", texts), "--out", out, *options)
        return capsys.readouterr().err

    good = ("--channel", "grade", "--chunker", "words:6")
    assert "warning" not in said(stories, *good)
    assert "whole conversations in one string" in said(joined, *good)
    assert "half of the steps have at most 1 words" in said(stories, "--channel", "grade", "--chunker", "turns:1")
    assert "8 of 8 episodes have a single step" in said(stories, "--channel", "grade", "--chunker", "turns")
    assert "the store has no channel" in said(stories, "--chunker", "words:6")


def test_build_warns_of_one_memory_for_many_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "games.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for n in range(24):
            steps = [" ".join(WORDS[(n + k) % 12 : (n + k) % 12 + 5]) for k in range(3)]
            last = "the door is locked and the lamp is lit in the dark hall " * 6 + "abcdefghijklmnopqrstuvwx"[n]
            out.write(json.dumps({"steps": [*steps, last], "grade": n % 2}) + "\n")
    run("build", path, "--out", tmp_path / "merged", "--channel", "grade")
    found = re.search(r"one memory holds (\d+) of (\d+) different steps", capsys.readouterr().err)
    assert found is not None
    assert int(found[1]) > 0.2 * int(found[2])


def test_score_warns_of_what_says_nothing(store: Path, file: Path, tmp_path: Path, capsys: Any) -> None:
    def said(*arguments: Any) -> str:
        capsys.readouterr()
        run("score", *arguments)
        return capsys.readouterr().err

    assert "warning" not in said(store, file)
    assert "functional 'potential' pays transitions" in said(store, file, "--functional", "potential")
    strange = chats(tmp_path / "strange.jsonl", ["qqq vvv jjj kkk " * 3] * 4)
    assert "100% of the episodes are unknown to the store" in said(store, strange)
    run("build", file, "--out", tmp_path / "bare", "--chunker", "words:6")
    assert "the store has no channel" in said(tmp_path / "bare", file)


def test_explain_names_texts_and_leaves_out_what_pays_little() -> None:
    paid = [
        Payment(7, 0.5, 0.5, 0.4, 0.2, False, "the sea"),
        Payment(8, 0.1, 0.1, 0.1, 0.009, False, "rain"),
        Payment(9, 0.5, 0.5, -0.1, -0.05, False, "a storm"),
    ]
    ways = [Association(7, 9, 0.5, 0.9), Association(8, 7, 0.6, 0.1)]
    step = Explanation(0, 0.159, 0.5, 0.3, 1.0, paid, {"wed": 0.159}, ways)
    lines = explaining.brief([step, step], ["ship", "user speaks"], [True, False], {7: "the sea", 9: "a storm"})
    assert lines[:7] == [
        "score +0.16 in 1 steps",
        "",
        "0  +0.16  “ship”  support 0.50",
        "   like “the sea” +0.20, “a storm” -0.05",
        "   known way from “the sea” to “a storm”",
        "",
        "1         “user speaks”  context, earns nothing",
    ]
    assert "7 → 9" in "\n".join(explaining.full([step], ["ship"]))
