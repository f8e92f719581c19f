"""Two ranks: the writes of both reach both stores in one order, so that the stores stay the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import sharpwave as sw
import tiny

torch = pytest.importorskip("torch")
NEW = ["Jane met a sailor. They married in spring.", "The cat slept. It stole the fish.", "A storm came. They rowed."]


def rank(number: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    mine = NEW[:2] if number == 0 else NEW[2:]
    lines = []
    for learn in ("online", "propose"):
        reward = sw.InstrumentalReward(tiny.store(), tiny.embed, learn=learn, base=tiny.base()).train()
        size = len(reward.store)
        reward([tiny.PROMPT] * len(mine), mine)
        reward([tiny.PROMPT], [mine[0] + " The end of it."] if number == 0 else [""])  # a rank with nothing to write
        reward.sleep()
        reward.score_texts([tiny.PROMPT], mine[:1], learn=False)  # one rank alone may score
        lines.append(f"{reward.store.digest()} {len(reward.store) - size}")
    Path(folder, f"digests-{number}").write_text("\n".join(lines))
    torch.distributed.destroy_process_group()


def test_stores_of_two_ranks_stay_the_same(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(rank, (str(tmp_path),), nprocs=2)
    first, second = (Path(tmp_path, f"digests-{number}").read_text().splitlines() for number in range(2))
    assert first == second
    assert all(int(line.split()[1]) > 0 for line in first)
