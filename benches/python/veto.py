"""What it takes to forget an episode at a million memories.

A store into which a million memories were inserted observes 257 episodes of 16 steps and forgets three of them, one
after the other; what is left must have the digest of a store that never saw these. The same in a store whose 100,000
memories were all lived: there the time of a veto is that of living again, or, with a checkpoint at nine tenths of its
life and a veto of what came after, of living the last tenth again.

    python -m benches.python.veto 62500      the same in a store of so many lived episodes, a million memories
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sharpwave as sw
from numpy.typing import NDArray

from benches.python import timing
from benches.python.data import DIM, Rows, episodes, memories
from benches.python.verbs import EPISODES, LENGTH

INSERTED, AFTERWARDS = 1_000_000, 257
FORGOTTEN = (0, 100, 200)


def main() -> None:
    """A store of any number of lived episodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("episodes", type=int)
    options = parser.parse_args()
    sw.set_num_threads(1)
    seconds, n, late, (early,) = lived(options.episodes, FORGOTTEN[:1])
    print(
        f"{options.episodes:,} episodes, {n:,} memories: lived in {seconds:.3g} s, forgot the first in {early:.3g} s, "
        f"and one after a checkpoint at nine tenths in {late:.3g} s"
    )


def measured() -> dict[str, Any]:
    """Process time of each veto, one thread, in seconds."""
    sw.set_num_threads(1)
    steps, offsets = episodes(AFTERWARDS, LENGTH, seed=5)
    observed, vetoes, found = _vetoed(steps, offsets)
    saint = _inserted()
    left = [e for e in range(AFTERWARDS) if e not in FORGOTTEN]
    saint.observe(np.concatenate([steps[offsets[e] : offsets[e + 1]] for e in left]), np.arange(len(left) + 1) * LENGTH)
    if found != saint.digest():
        raise AssertionError("a veto left something behind")
    del saint
    lived_in, n, late, again = lived(EPISODES, FORGOTTEN[:2])
    rows: dict[str, Sequence[float]] = {
        f"{AFTERWARDS} episodes at {INSERTED:,} inserted: observe": [observed],
        f"{AFTERWARDS} episodes at {INSERTED:,} inserted: veto": vetoes,
        f"{EPISODES:,} episodes, {n:,} memories: observe": [lived_in],
        f"{EPISODES:,} episodes, {n:,} memories: veto": again,
        f"{EPISODES:,} episodes, {n:,} memories: veto in the last tenth, after a checkpoint": [late],
    }
    return {"rows": {name: timing.summary(list(samples)) for name, samples in rows.items()}, "clock": "process"}


def lived(count: int, forgotten: Sequence[int]) -> tuple[float, int, float, list[float]]:
    """Seconds to live so many episodes, the memories that this leaves, and the seconds of vetoes.

    The first veto is of one of the last tenth, after a checkpoint; then each of `forgotten`.
    """
    store = sw.ValueStore(sw.Config(dim=DIM, min_novelty=0.1))
    steps, offsets = episodes(count, LENGTH)
    late = count * 9 // 10
    middle = offsets[late]
    seconds = _seconds(lambda: store.observe(steps[:middle], offsets[: late + 1]))
    store.checkpoint()
    seconds += _seconds(lambda: store.observe(steps[middle:], offsets[late:] - middle))
    memories_of_all = len(store)
    after_checkpoint = _seconds(lambda: store.veto(episode=late))
    others = [_seconds(lambda id_=id_: store.veto(episode=id_)) for id_ in forgotten]
    return seconds, memories_of_all, after_checkpoint, others


def _vetoed(steps: Rows, offsets: NDArray[np.int64]) -> tuple[float, list[float], str]:
    """Seconds to observe, seconds of each veto, and the digest of what is left."""
    store = _inserted()
    observed = _seconds(lambda: store.observe(steps, offsets))
    return observed, [_seconds(lambda id_=id_: store.veto(episode=id_)) for id_ in FORGOTTEN], store.digest()


def _inserted() -> sw.ValueStore:
    store = sw.ValueStore(sw.Config(dim=DIM, min_novelty=0.1))
    store.insert(memories("minilm", INSERTED))
    return store


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
