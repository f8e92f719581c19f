"""The example on text games, with a tiny game that is really compiled: two rooms, a box, its key, a computer in it."""

from __future__ import annotations

import json
import lzma
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.paths import ROOT

from examples.textworld import __main__ as command
from examples.textworld import cooking, game, keys, learners, making, report, study
from examples.textworld.data import Data, Embed, minilm

TINY = ROOT / "tests/data/textworld/custom-2-4-3-1"
MADE = making.Custom(2, 4, 3, 1)
WON = ["unlock box with keycard", "open box", "take desktop computer from box"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory where the game lies as `making` would leave it."""
    root = tmp_path_factory.mktemp("textworld")
    games = root / making.GAMES
    games.mkdir(parents=True)
    (games / f"{MADE.name}.z8").write_bytes(lzma.decompress(TINY.with_name(f"{TINY.name}.z8.xz").read_bytes()))
    shutil.copy(TINY.with_name(f"{TINY.name}.json"), games / f"{MADE.name}.json")
    return root


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    return folder / making.GAMES / f"{MADE.name}.z8"


@pytest.fixture(scope="module")
def embed(folder: Path) -> Embed:
    return minilm(folder / "embeddings.sqlite")


@pytest.fixture(scope="module")
def data(path: Path, embed: Embed) -> Data:
    return Data.of(game.Game(path, rules=True).random_episodes(0, 12), embed)


@pytest.fixture(autouse=True)
def few_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q-learning is three quarters of the time of a learning."""
    monkeypatch.setattr(learners, "UPDATES", 300)


def last_line(path: Path, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    command.main([str(path), "--episodes", "6", "--cache", str(folder / "embeddings.sqlite"), *more])
    return capsys.readouterr().out.splitlines()[-1]


def test_the_last_line_says_what_each_player_needed(
    path: Path, folder: Path, data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    line = last_line(path, folder, capsys, "--json", "--seed", "0")
    found = json.loads(line)
    assert set(learners.ABOUT) <= set(found)
    assert {"store", "mfec", "probe", "drives", "monte_carlo", "constant_p", "random_wins", "memories"} <= set(found)
    assert all(found[name] is None or 3 <= found[name] <= game.WALK for name in learners.ABOUT)
    assert found["store"] is not None
    assert found["random_wins"] == int(data.won[:6].sum()) > 0, "the compiled game plays as its rules do"
    assert found["memories"] == found["different"] == len(set(data.ids[: data.offsets[6]])), "a memory for each key"
    assert found["memories_broad"] < found["memories"]
    assert last_line(path, folder, capsys, "--json", "--seed", "0") == line


def test_the_account_names_commands_values_and_memories(
    path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main([str(path), "--episodes", "6", "--cache", str(folder / "embeddings.sqlite")])
    said = capsys.readouterr().out
    assert re.search(r"\n  take desktop computer from box   0\.98\d\d\n", said), "v / (1 + ε), v = 1"
    assert re.search(r"\n      cosine 1\.000, met \d+ times: take desktop computer from box\. ", said)
    assert re.search(r"\n      leads in \d+ steps to: take desktop computer from box\. ", said)
    assert "\nwon\n" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: GAME"),
        (["/no/such.z8"], "no such game: /no/such.z8"),
        ([__file__], "not a game of TextWorld"),
        (["GAME", "--episodes", "3"], "'3' is not a whole number from 4"),
        (["GAME", "--episodes", "many"], "'many' is not a whole number"),
        (["GAME", "--seed", "-1"], "'-1' is not a whole number"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], said: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([str(path) if one == "GAME" else one for one in arguments])
    assert stopped.value.code not in (0, None)
    line = capsys.readouterr().err.strip() or str(stopped.value.code)
    assert said in line
    assert "\n" not in line


def test_a_story_that_is_cut_off_does_not_end_the_process(path: Path, tmp_path: Path) -> None:
    """The interpreter would: it calls exit."""
    cut = tmp_path / "cut.z8"
    cut.write_bytes(path.read_bytes()[:100_000])
    shutil.copy(path.with_suffix(".json"), tmp_path / "cut.json")
    with pytest.raises(game.GameError, match=r"not a game of TextWorld: .*cut.z8"):
        game.Game(cut)
    shutil.copy(path, cut)
    (tmp_path / "cut.json").write_text("{}")
    with pytest.raises(game.GameError, match=r"not a game of TextWorld: .*cut.json \(KeyError"):
        game.Game(cut)
    (tmp_path / "cut.json").unlink()
    with pytest.raises(game.GameError, match=r"cut.json is missing: it says what commands"):
        game.Game(cut)


def test_without_textworld_the_line_says_how_to_get_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "textworld", None)
    with pytest.raises(game.GameError, match="pip install textworld"):
        game.Game(path)


def test_the_rules_play_as_the_compiled_game_does(path: Path) -> None:
    compiled, rules = game.Game(path), game.Game(path, rules=True)
    assert compiled.random_episodes(1, 3) == rules.random_episodes(1, 3)
    assert compiled.walkthrough == WON
    episode = compiled.follow(["look", "dance", *WON])
    assert episode == rules.follow(WON)
    assert episode.won
    assert [(step.command, step.gain) for step in episode.steps] == list(zip(WON, (0.0, 0.0, 1.0), strict=True))


def test_a_draw_begins_with_the_same_episodes(path: Path) -> None:
    played = game.Game(path, rules=True)
    assert played.random_episodes(2, 3) == [*played.random_episodes(2, 2), played.random_episode(2, 2)]
    assert played.random_episode(2, 0) != played.random_episode(3, 0)


def test_a_key_says_the_parts_that_are_asked_for(path: Path) -> None:
    def first(*parts: str) -> str:
        return game.Game(path, parts, rules=True).follow(WON).steps[0].key

    assert first() == "unlock box with keycard. studio."
    assert first("closed") == "unlock box with keycard. studio. closed: box."
    assert first("closed", "locked") == "unlock box with keycard. studio. closed: nothing. locked: box."
    assert first("inventory", "here") == ("unlock box with keycard. studio. carrying: glass, keycard. here: box.")


FACTS = {
    "base": [("red potato", "ingredient_0"), ("onion", "ingredient_1")],
    "sliced": [("ingredient_0",), ("onion",)],
    "fried": [("ingredient_0",), ("red potato",)],
    "roasted": [("ingredient_1",)],
    "in": [("red potato", "I")],
    "edible": [("onion",), ("apple",), ("meal",)],
}


def test_a_recipe_says_what_is_left_of_it_and_which_food_is_which() -> None:
    assert game._to_do(FACTS, ["red potato"]) == ["slice red potato", "get onion", "roast onion"]
    speak = game._roles(FACTS)
    assert speak("slice red potato with knife") == "slice food to slice with knife"
    assert (
        speak("cook onion with oven, eat apple, eat meal") == "cook food to roast with oven, eat other food, eat meal"
    )
    done = {**FACTS, "roasted": [("ingredient_1",), ("onion",)], "sliced": [("ingredient_0",), ("red potato",)]}
    assert game._to_do(done, ["red potato", "onion"]) == ["prepare meal"]
    assert game._roles(done)("drop onion") == "drop finished food"


def test_a_player_without_values_gives_no_command_twice_before_all_others(path: Path) -> None:
    walk, worth = game.Game(path, rules=True).walk(learners.nothing, 0)
    assert worth == [0.0] * len(walk.steps)
    given: dict[str, list[str]] = {}
    for step in walk.steps:
        given.setdefault(step.state, []).append(step.command)
    state, commands = max(given.items(), key=lambda one: len(one[1]))
    times = [commands.count(command) for command in set(commands)]
    assert max(times) - min(times) <= 1, state
    assert max(times) == 1 or len(set(commands)) > 1


def returns_of(data: Data, gamma: float) -> dict[str, list[float]]:
    """What followed each key, each time that it was met."""
    found: dict[str, list[float]] = {}
    for begin, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        for t in range(begin, end):
            value = sum(gamma ** (u - t) * float(data.gains[u]) for u in range(t, end))
            found.setdefault(data.keys[data.ids[t]], []).append(value)
    return found


def test_the_rivals_are_what_they_are_called(data: Data) -> None:
    followed = returns_of(data, learners.GAMMA)
    assert list(followed) == data.keys
    best = [max(found) for found in followed.values()]
    assert np.allclose(learners.mfec(data)(data.keys), best, atol=1e-6)
    means = [float(np.mean(found)) for found in followed.values()]
    tau = 0.5
    assert np.allclose(learners.monte_carlo(data, tau, neighbours=1)(data.keys), means, atol=1e-5)
    assert not np.allclose(learners.monte_carlo(data, tau)(data.keys), means, atol=1e-3), "eight are not one"
    far = ["The parliament voted on fisheries."]
    assert learners.monte_carlo(data, tau)(far)[0] == 0.0, "nothing is known of what reads like no key"
    last = data.keys[data.ids[int(np.flatnonzero(data.gains)[0])]]
    fitted = learners.q_learning(data)([last])[0]
    assert abs(fitted - 1.0) < 0.25


def test_the_store_backs_the_score_up_and_its_ablations_do_not(data: Data) -> None:
    config, chosen = learners.tuned(data)
    assert (config.k, config.power, config.merge_cosine) == (1, 8, 0.9995)
    assert chosen["gamma"] in learners.GRID["gamma"]
    whole = learners.remember(data, config)
    store = learners.Store(whole.frozen(), data, chosen)
    source, target, weight = whole.edges()
    p = np.zeros((len(whole), len(whole)))
    p[source, target] = weight
    gains = np.array([max(data.gains[data.ids == row]) for row in range(len(data.keys))], np.float64)
    values = gains
    for _ in range(2000):
        values = np.maximum(gains, config.gamma * p @ values)
    assert np.allclose(store(data.keys), values / (1 + config.epsilon), atol=1e-5)
    assert np.count_nonzero(values > 1e-6) > np.count_nonzero(gains)
    assert np.allclose(learners.drives_alone(store)(data.keys), gains / (1 + config.epsilon), atol=1e-6)
    constant = learners.constant_p(store)(data.keys)
    assert len(set(np.round(constant[gains == 0], 6))) == 1, "every key leads where the average one leads"
    assert constant[gains > 0].min() > 0.98


def test_a_probe_of_episodes_that_were_all_lost_knows_nothing(path: Path, embed: Embed) -> None:
    episodes = [game.Game(path, rules=True).random_episode(0, number) for number in range(12)]
    lost = Data.of([episode for episode in episodes if not episode.won], embed)
    assert len(lost.won)
    assert learners.probe(lost)(lost.keys[:3]).tolist() == [0.0, 0.0, 0.0]


def test_the_study_goes_on_where_it_was_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(study, "GAMES", (MADE,))
    monkeypatch.setattr(study, "TRIED", ())
    monkeypatch.setattr(study, "DRAWS", range(1))
    monkeypatch.setattr(study, "FIRST", (4,))
    monkeypatch.setattr(study, "THEN", (5,))
    results = tmp_path / "cells.jsonl"

    def go(*share: str) -> list[dict[str, Any]]:
        monkeypatch.setattr("sys.argv", ["study", "--results", str(results), *share])
        study.main()
        capsys.readouterr()
        return study.read(results)

    first = go("--share", "0/2")
    assert [cell["episodes"] for cell in first] == [4]
    assert set(first[0]["walks"]) == set(learners.ABOUT)
    whole = go()
    assert [cell["episodes"] for cell in whole] == [4, 5]
    assert whole[:1] == first
    assert go() == whole, "nothing is run twice"


def test_the_games_are_as_many_as_said_and_their_names_are_their_numbers() -> None:
    assert len(set(study.GAMES)) == 20
    assert not set(study.GAMES) & set(study.TRIED)
    assert making.Custom(6, 12, 6, 2).arguments[-2:] == ["--seed", "2"]
    shown = {making.Cooking(2, 1, 1, seed, "train").name for seed in cooking.SHOWN}
    assert not shown & {making.Cooking(2, 1, 1, seed, "test").name for seed in cooking.UNSEEN}


def test_the_page_has_what_the_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cells = study.read()
    known = {game.name for game in (*study.GAMES, *study.TRIED)}
    assert {cell["game"] for cell in cells} <= known
    assert len({(cell["game"], cell["draw"], cell["episodes"]) for cell in cells}) == len(cells), "no cell twice"
    assert {game.name for game in study.GAMES} <= {cell["game"] for cell in cells}
    assert all(cell["variant"] in {*keys.KEYS, "settings"} for cell in study.read(keys.RESULTS))
    assert report.write(report.PAGE) == report.PAGE.read_text("utf-8")


def test_a_bootstrap_over_games_holds_their_mean() -> None:
    values = report.by_game([("a", 1.0), ("a", 0.0), ("b", 1.0), ("c", 0.0), ("d", 1.0)])
    assert values.tolist() == [0.5, 1.0, 0.0, 1.0]
    low, high = report.interval(values)
    assert low < 0.625 < high
    assert report.ranged(np.ones(4)) == "1.00 (1.00 to 1.00)"
    assert (report.length(None), report.length(7), report.solved(None), report.solved(7)) == (40.0, 7.0, 0.0, 1.0)
