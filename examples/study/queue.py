"""``python -m examples.study.queue``: the runs of `study/claim.toml` that are not done, in the order of its matrix.

It can be stopped at any time and goes on where it was. Two may run at once: the process that makes a run locks it.
Results are small files in ``study/results/claim``; checkpoints lie in ``runs/``.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from examples.study.claim import plan
from examples.study.claim.evaluate import read_lines
from examples.study.claim.plan import WORK, Plan, Planned, Unavailable


class Run(Protocol):
    """What an optimiser makes of a planned run."""

    def stages(self, length: int) -> Iterator[str]:
        """Run to ``length`` rounds or steps; after each stage, what was done."""
        ...


Make = Callable[[Planned, Plan, str], Run]


def done(planned: Planned, results: Path) -> bool:
    """Whether a run's file of results reaches its length."""
    lines = read_lines(results)
    if planned.optimiser == "distill":
        return len(lines) > planned.length + 1
    return any(line.get("step") == planned.length and "evaluation" in line for line in lines)


@contextmanager
def locked(planned: Planned, root: Path) -> Generator[bool]:
    """Whether this process has the run for itself; the system frees the lock when a process ends, however it ends."""
    path = root / "locks" / f"{planned.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def real(planned: Planned, whole: Plan, device: str) -> Run:
    """A run with the real models."""
    from examples.study.claim import distill, gradient
    from examples.study.claim.sampling import load

    if planned.optimiser == "distill":
        world = load(planned.policy, planned.seed, device, whole.distill.temperature)
        return distill.make(planned, whole.distillation(planned.attempt), world, device)
    world = load(planned.policy, planned.seed, device, whole.gradient.temperature)
    return gradient.make(planned, whole.gradient, world, device)


def drain(
    whole: Plan,
    device: str = "cpu",
    only: str = "",
    minutes: float = float("inf"),
    make: Make = real,
    results: Path = plan.RESULTS,
    work: Path = WORK,
) -> bool:
    """Make the runs that are not done, in order, until none is left or ``minutes`` are over; whether none is left.

    Args:
        only: of those whose name has this in it.
    """
    end = time.monotonic() + 60 * minutes
    for planned in whole.matrix:
        path = planned.results(device, results)
        if only not in planned.name or done(planned, path):
            continue
        with locked(planned, work) as own:
            if not own:
                print(f"{planned.name}: another process makes it", flush=True)
                continue
            if done(planned, path):  # by the process that had the lock until now
                continue
            try:
                run = make(planned, whole, device)
            except Unavailable as error:
                print(f"{planned.name}: left out, {error}", flush=True)
                continue
            for told in run.stages(planned.length):
                print(f"{time.strftime('%H:%M:%S')} {planned.name}: {told}", flush=True)
                if time.monotonic() > end:
                    print("the time is over; the same command goes on from here", flush=True)
                    return False
    return True


def run_one(planned: Planned, whole: Plan, device: str, threads: int) -> None:
    """One run to its end, whether it is in the matrix or not."""
    _quiet(threads)
    drain(replace(whole, matrix=(planned,)), device)


def from_command_line(about: str | None, length: str, default: int, algorithms: tuple[str, ...]) -> None:
    """The run that the command line names, to its end.

    Args:
        about: the command's description.
        length, default: the option that says how far, in rounds or steps.
        algorithms: one, or those that ``--algorithm`` chooses among, the first by default.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("arm", help="an arm of study/claim.toml")
    if len(algorithms) > 1:
        parser.add_argument("--algorithm", choices=algorithms, default=algorithms[0])
    parser.add_argument("--objective", default="wedding")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(f"--{length}", type=int, default=default, dest="length", metavar=length.upper())
    parser.add_argument("--policy", default="smollm2")
    parser.add_argument(
        "--attempt", default="", help="with the settings of one of its [attempts]; of distillation alone"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    optimiser = getattr(given, "algorithm", algorithms[0])
    whole = plan.read()
    if given.attempt and (optimiser != "distill" or given.attempt not in whole.attempts):
        parser.error(f"--attempt: distillation has {', '.join(whole.attempts) or 'none'}, not {given.attempt!r}")
    planned = Planned(
        optimiser, given.arm, given.objective, given.seed, given.length, float("nan"), given.policy, given.attempt
    )
    run_one(planned, whole, given.device, given.threads)


def _quiet(threads: int) -> None:
    import torch

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about its own arguments
    torch.set_num_threads(threads)


def main() -> None:
    """List the runs, or make them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print every run, in order, and whether it is done")
    parser.add_argument("--only", default="", help="runs whose name has this in it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--budget-minutes", type=float, default=float("inf"), help="stop at the next stage after these")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    whole = plan.read()
    if options.list:
        for planned in whole.matrix:
            if options.only in planned.name:
                state = "done" if done(planned, planned.results(options.device)) else f"~{planned.minutes:.0f} min"
                print(f"{planned.name:50} to {planned.length:4} {state}")
        return
    _quiet(options.threads)
    drain(whole, options.device, options.only, options.budget_minutes)


if __name__ == "__main__":
    main()
