"""Two ranks: what both see reaches both stores in one order, so that the stores stay the same."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import sharpwave as sw
import tiny
from served import Server

torch = pytest.importorskip("torch")
NEW = ["Jane met a sailor. They married in spring.", "The cat slept. It stole the fish.", "A storm came. They rowed."]
OTHER = "Tell me another story."
OPTIONS: dict[str, Any] = {
    "terminal": tiny.length,
    "normalise": "running",
    "habituation": {"episodes": 6},
    "base": tiny.base(),
}


def steps(number: int | None) -> list[tuple[list[str], list[str]]]:
    """Prompts and completions of two steps: of one rank of two, or of all. A group straddles the ranks."""
    first = [(tiny.PROMPT, NEW[0]), (OTHER, NEW[1]), (tiny.PROMPT, NEW[2]), (tiny.PROMPT, NEW[1])]
    second = [(tiny.PROMPT, NEW[0] + " The end of it."), (OTHER, "")]  # one rank has nothing to write
    cut = {None: slice(None), 0: slice(0, None, 2), 1: slice(1, None, 2)}[number]
    return [([p for p, _ in rows[cut]], [c for _, c in rows[cut]]) for rows in (first, second)]


def live(reward: sw.InstrumentalReward, number: int | None) -> list[str]:
    """What the store is after each of the steps, and what the reward has become."""
    digests = []
    for prompts, completions in steps(number):
        reward(prompts, completions)
        reward.sleep()
        digests.append(reward.store.digest())
    reward.score_texts([tiny.PROMPT], NEW[:1], learn=False)  # one rank alone may score
    state = reward.state_dict()
    return [*digests, json.dumps({"scale": state["scale"], "habituation": state["habituation"]})]


def crowded(number: int | None) -> list[list[float]]:
    """What a crowd makes of four completions, whose near copies are on different ranks: crowds, likeness, rewards; and
    the crowds of a rank's own completions alone."""
    rows = [
        (tiny.PROMPT, NEW[0]),
        (tiny.PROMPT, NEW[0][:-1] + " then."),
        (OTHER, NEW[1]),
        (OTHER, NEW[1] + " Rain fell."),
    ]
    cut = {None: slice(None), 0: slice(0, None, 2), 1: slice(1, None, 2)}[number]
    prompts, completions = [p for p, _ in rows[cut]], [c for _, c in rows[cut]]
    options = {**OPTIONS, "combine": "conjunction", "crowd": True, "habituation": None}
    reward = sw.InstrumentalReward(tiny.store(), tiny.embed, **options).eval()
    out = reward.call(prompts, completions, asker="")
    alone = reward.score_texts(prompts, completions, learn=False)
    tables = out.factors["crowd"], out.factors["alike"], out.reward, alone.factors["crowd"]
    return [table.tolist() for table in tables]


def rank(number: int, folder: str, url: str | None) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    lines = []
    for learn in ("online", "propose"):
        reward = sw.InstrumentalReward(tiny.store(), tiny.embed, learn=learn, **OPTIONS).train()
        lines += live(reward, number)
        reward.save(Path(folder, f"saved-{learn}")) if number == 0 else None
        torch.distributed.barrier()
        again = sw.InstrumentalReward(tiny.store([]), tiny.embed, learn=learn, **OPTIONS).train()
        again.restore(Path(folder, f"saved-{learn}"))
        lines += live(again, number)
    with pytest.raises(ValueError, match="stores of several ranks would differ"):
        reward.sleep(seconds=1.0)
    if number == 1:
        reward.store.insert(tiny.embed(["A step that one rank alone has seen."]))
    with pytest.raises(RuntimeError, match="stores of rank 0 and rank 1 differ before this step"):
        reward([tiny.PROMPT], NEW[:1])
    shared = sw.InstrumentalReward(sw.serve.Client(str(url)), tiny.embed, learn="online", **OPTIONS).train()
    lines += live(shared, number)
    Path(folder, f"lines-{number}").write_text("\n".join(lines))
    Path(folder, f"crowd-{number}").write_text(json.dumps(crowded(number)))
    torch.distributed.destroy_process_group()


def test_stores_of_two_ranks_are_those_of_one(tmp_path: Path) -> None:
    with Server(tmp_path / "served", dim=tiny.DIM) as server:
        client = server.client()
        client.become(tiny.store())
        sw.InstrumentalReward(client, tiny.embed, learn="online", **OPTIONS)  # makes the channel, on no rank's account
        torch.multiprocessing.spawn(rank, (str(tmp_path), server.url), nprocs=2)
    first, second = (Path(tmp_path, f"lines-{number}").read_text().splitlines() for number in range(2))
    alone: list[str] = []
    for learn in ("online", "propose"):
        reward = sw.InstrumentalReward(tiny.store(), tiny.embed, learn=learn, **OPTIONS).train()  # type: ignore[arg-type]
        alone += live(reward, None)
        alone += live(reward, None)
    known = tiny.store()
    sw.InstrumentalReward(known, tiny.embed, learn="online", **OPTIONS)
    shared = live(sw.InstrumentalReward(known, tiny.embed, learn="online", **OPTIONS).train(), None)
    assert len(set(alone[:6])) == 6  # something was learned at every step
    assert first == second
    assert first[:-3] == alone
    assert first[-3:] == shared
    # One crowd for the batch of all ranks: what each rank gives is what one process gives, bit for bit.
    whole, one, two = crowded(None), *(json.loads(Path(tmp_path, f"crowd-{n}").read_text()) for n in range(2))
    for table in range(3):
        assert one[table] == whole[table][0::2]
        assert two[table] == whole[table][1::2]
    assert min(whole[0]) > 1  # each has a near copy, which is on the other rank
    assert one[3] == two[3] == [1, 1]  # and would not be crowded among its own rank's completions


# TRL's own trainer


def train(number: int, folder: str, port: int) -> None:
    where = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in where.items()}}
    import tiny_trl
    from sharpwave.trainers.trl import SharpwaveCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    seen: list[str] = []

    class Watch(SharpwaveCallback):
        def on_step_end(self, *given: Any, **rest: Any) -> None:
            super().on_step_end(*given, **rest)
            seen.append(self.reward.store.digest())

    def run(until: int, resume: bool) -> sw.InstrumentalReward:
        options = {"save_strategy": "steps", "save_steps": 2, "max_steps": until, "num_generations": 8}
        reward = sw.InstrumentalReward(
            tiny.store(), tiny.embed, terminal=tiny.length, learn="propose", base=tiny.base()
        )
        trainer = GRPOTrainer(
            tiny_trl.model(),
            reward_funcs=reward,
            args=tiny_trl.arguments(GRPOConfig, Path(folder, "out"), **options, ddp_backend="gloo"),
            train_dataset=tiny_trl.dataset(),
            processing_class=tiny_trl.tokenizer(),
            callbacks=[Watch(reward)],
        )
        assert trainer.accelerator.num_processes == 2
        trainer.train(resume_from_checkpoint=resume)
        return reward

    run(2, resume=False)
    reward = run(3, resume=True)
    Path(folder, f"seen-{number}").write_text("\n".join([*seen, json.dumps(reward.state_dict()["scale"])]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_grpo_on_two_ranks_keeps_replicas_equal_and_resumes_both(tmp_path: Path) -> None:
    """A prompt's group of eight completions lies on both ranks."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(train, (str(tmp_path), port), nprocs=2)
    first, second = ((tmp_path / f"seen-{number}").read_text().splitlines() for number in range(2))
    assert first == second
    assert len(first) == 4
    assert len(set(first[:3])) == 3  # each step changed the store, and the third went on from the second
