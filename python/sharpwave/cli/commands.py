"""The commands of ``sharpwave``; its `--help` lists them.

What they do is in `sharpwave.cli.jobs`, `sharpwave.probe` and a checkout's examples/demo; this file parses and prints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpwave._core import functionals
from sharpwave._progress import stages
from sharpwave._show import cell, console, shown, table_of
from sharpwave.cli import bon, evaluation, guidance, tune
from sharpwave.cli.options import CHUNKERS, Embedder, Weights, warn

commands = typer.Typer(
    name="sharpwave",
    help="A value memory for reinforcement learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


_Out = Annotated[Path, typer.Option(help="directory for everything that is written")]
_File = Annotated[Path, typer.Argument(help=".jsonl or .parquet, one episode a row")]
_Store = Annotated[Path, typer.Argument(help="a store: its directory or its snapshot")]
_Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
_Functional = Annotated[str, typer.Option(help=", ".join(functionals()))]


@commands.command()
def demo(
    out: _Out = Path("runs/demo"),
    quick: Annotated[bool, typer.Option(help="the two-minute form")] = False,
    seed: Annotated[int, typer.Option(help="of the sampling and the splits")] = 0,
    stories: Annotated[int | None, typer.Option(help="how many base stories")] = None,
    splits: Annotated[int | None, typer.Option(help="how many splits")] = None,
    train: Annotated[
        bool | None, typer.Option("--train/--no-train", help="train afterwards; default: yes, but not with --quick")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="how many training steps; a longer run goes on")] = None,
    objective: Annotated[str, typer.Option(help="what is trained toward")] = "wedding",
    prompts: Annotated[Path | None, typer.Option(help="training prompts: one a line, or .jsonl")] = None,
    model: Annotated[str | None, typer.Option(help="path of a causal model; default: SmolLM2-135M")] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for a larger run")] = "cpu",
) -> None:
    """Sample a small language model, build a store, try to exploit it, and train on its reward: in a checkout.

    The last lines say which claims of the report hold, fail, or are undecided. Exit code 1 if one fails.
    """
    from sharpwave.demo import checkout
    from sharpwave.probe import claims

    command = checkout("command")
    with stages() as progress:
        report = command.run(
            progress, out=out, quick=quick, seed=seed, stories=stories, splits=splits, train=train, steps=steps,
            objective=objective, prompts=prompts, model=model, device=device,
        )  # fmt: skip
    print_report(report)
    if report.get("train"):
        for line in checkout("train_report").lines(report["train"]):
            print(line)
    print(f"\n{shown(str(out / 'report.html'))}")
    found = claims.of_report(report)
    for line in claims.summary(found):
        print(shown(line))
    if claims.failed(found):
        raise typer.Exit(1)


@commands.command()
def build(
    file: _File,
    out: Annotated[Path, typer.Option(help="the store's directory")],
    terminal: Annotated[list[str] | None, typer.Option(help="name=a sentence to approach; repeatable")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="a numeric field to learn from; repeatable")] = None,
    embedder: Embedder = None,
    chunker: Annotated[str, typer.Option(help=f"words:N, sentences:N or turns:N; {CHUNKERS}")] = "sentences:16",
    fluency: Annotated[
        str | None, typer.Option(help="read fluency beside meaning: a causal model's directory, or smollm2")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="the store's numbers, as sharpwave tune --out wrote them")] = None,
    roles: Annotated[
        str | None,
        typer.Option(
            help="roles of the policy, with commas: each of their turns is scored; last: only the last reply. "
            "Default: the assistant's, where it speaks more than once"
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="the field that says which episodes are good: what leads to bad ends costs, "
            "and what tells good steps from bad is part of the embedding"
        ),
    ] = None,
    good: Annotated[
        str | None, typer.Option(help="a number: good is above it; or the texts of good rows, with commas")
    ] = None,
) -> None:
    """Build a store from episodes in a file.

    Example: sharpwave build chats.jsonl --label resolved --out runs/chats
    """
    from sharpwave.cli import jobs

    with stages() as progress:
        facts = jobs.build(
            file, out, terminal or [], channel or [], embedder, chunker, fluency, progress, config, roles, label, good
        )
    print(
        f"{out}: {facts['memories']} memories, {facts['associations']} associations "
        f"of {facts['episodes']} episodes ({facts['steps']} steps, {facts['different']} of them different)"
    )
    warn(facts["warnings"])


commands.command()(tune.tune)
commands.command()(bon.bon)
commands.command(name="eval")(evaluation.evaluate)
commands.command()(guidance.guide)


@commands.command()
def score(
    store: _Store,
    file: _File,
    functional: _Functional = "coverage",
    weight: Weights = None,
    embedder: Embedder = None,
    as_json: _Json = False,
) -> None:
    """Score the episodes of a file against a store: one line an episode."""
    from sharpwave.cli import jobs

    rows, said = jobs.score(store, file, functional, weight or [], embedder)
    warn(said)
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = table_of("episode", "score", "support", "edge", "steps", "text")
    for row in rows:
        table.add_row(
            str(row["episode"]),
            number(row["score"], "+.4f"),
            number(row["support"], ".2f") + " unknown" * row["unknown"],
            number(row["edge"], ".2f"),
            str(row["steps"]),
            cell(row["text"][:60]),
        )
    console().print(table)


@commands.command()
def explain(
    store: _Store,
    file: _File,
    episode: Annotated[int, typer.Option(help="which row of the file, from 0")] = 0,
    functional: _Functional = "coverage",
    weight: Weights = None,
    embedder: Embedder = None,
    reward: Annotated[
        Path | None,
        typer.Option(help="a reward's configuration (YAML or JSON): say instead which of its factors took how much"),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="every memory and association, with ids; with --reward every number")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --reward: print JSON, a line an episode")] = False,
) -> None:
    """Say in words, step by step, what an episode was paid for: at most three lines a step.

    With --reward, say of every episode of the file, as one batch, what a reward pays it and which factor took how much.
    """
    if reward is not None:
        from sharpwave.cli import factors

        for one in factors.explain(store, file, reward, embedder):
            print(json.dumps(one.to_dict()) if as_json else shown(one.full() if full else str(one)))
        return
    from sharpwave.cli import jobs

    for line in jobs.explain(store, file, episode, functional, weight or [], embedder, full):
        print(shown(line))


@commands.command()
def inspect(
    store: _Store,
    as_json: _Json = False,
    verify: Annotated[bool, typer.Option("--verify", help="only check every byte of its files")] = False,
) -> None:
    """Show what a store holds: channels, its most valuable memories, its strongest ways."""
    from sharpwave.cli import jobs

    if verify:
        print(shown(jobs.verify(store)))
        return
    facts = jobs.inspect(store)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for line in jobs.inspect_lines(facts):
        print(shown(line))


@commands.command()
def repair(store: Annotated[Path, typer.Argument(help="a store's directory")]) -> None:
    """Save what is intact in a damaged store, and say what is not; exit code 1 if anything was lost."""
    from sharpwave.store import ValueStore

    done = ValueStore.repair(store)
    print(shown(str(done)))
    if not done.complete:
        raise typer.Exit(1)


@commands.command()
def probe(
    store: _Store,
    base: Annotated[
        Path | None,
        typer.Option(help="base episodes for the ruler; default: what it was built from"),
    ] = None,
    probes: Annotated[Path | None, typer.Option(help="texts as in probe/probes.json; default: made here")] = None,
    out: _Out = Path("runs/probe"),
    embedder: Embedder = None,
) -> None:
    """Run the exploit table on one's own store."""
    from sharpwave.cli import jobs

    with stages() as progress:
        report = jobs.probe(store, base, probes, out, embedder, progress)
    print_report(report)
    print(out / "report.html")


@commands.command()
def report(
    run: Annotated[Path, typer.Argument(help="a run's directory, or its report.json")] = Path("runs/demo"),
) -> None:
    """Rebuild report.html and the plots from report.json."""
    from sharpwave.demo import checkout
    from sharpwave.probe import report as reporting

    data = reporting.load(run)
    section = checkout("train_report").section if data.get("train") else None
    page = reporting.write(data, run if run.is_dir() else run.parent, section)
    print(page)


@commands.command()
def blend(
    base: Annotated[Path, typer.Argument(help="what was there before training: a model, or an adapter")],
    tuned: Annotated[Path, typer.Argument(help="what training made of it: a model, or an adapter")],
    out: Annotated[Path, typer.Option(help="directory of the blend; it must not exist yet")],
    weight: Annotated[float, typer.Option(help="how much of TUNED, from 0 (all BASE) to 1 (all TUNED)")] = 0.5,
    method: Annotated[str, typer.Option(help="linear, or spherical: each tensor turned, its length kept")] = "linear",
) -> None:
    """Write a checkpoint between two others: tuned, but nearer to the base.

    A policy that was trained too far against its reward often keeps most of what it learned, and gets back most of what
    it lost, a part of the way towards the base. Both are directories with safetensors files; at most a few megabytes of
    each are in memory.

    Adapters (LoRA, as peft writes them) are recognised: with a model as BASE the adapter is weakened, two adapters are
    blended exactly.

    Which weight? Try a few, and measure each on prompts that were not trained on, by something else than the reward:
    sharpwave.remedies.search does it, docs/remedies.md shows how.

    Example: sharpwave blend SmolLM2-135M runs/tuned --out runs/blend --weight 0.6
    """
    from sharpwave.remedies.adapters import is_adapter
    from sharpwave.remedies.blend_search import any_blend

    with stages() as progress:
        any_blend(base, tuned, out, weight, method, lambda done, total: progress("blending", done, total))  # pyright: ignore[reportArgumentType]
    kind = "adapter" if is_adapter(out) else "checkpoint"
    print(f"{out}: {kind}, {method}, {1 - weight:.4g} of {base} and {weight:.4g} of {tuned}")


@commands.command()
def bench(
    store: Annotated[
        Path | None, typer.Argument(help="a store: its directory or its snapshot; default: one that is made")
    ] = None,
    memories: Annotated[int, typer.Option(help="how many the made store has")] = 100_000,
    dim: Annotated[int, typer.Option(help="length of its embeddings")] = 384,
    seconds: Annotated[float, typer.Option(help="for each row of the table")] = 2.0,
    threads: Annotated[int | None, typer.Option(help="how many; default: as many as cores")] = None,
    seed: Annotated[int, typer.Option(help="of what is asked, and of the made store")] = 0,
    as_json: _Json = False,
) -> None:
    """Measure a store on this machine: search, value, score, observe, replay.

    A store of one's own is copied into memory and only read. What else runs on the machine is measured too.

    Example: sharpwave bench runs/demo/store --seconds 5
    """
    import sharpwave as sw
    from sharpwave import speed
    from sharpwave.cli import jobs

    speed.check(seconds)
    if threads is not None:
        sw.set_num_threads(threads)
    with stages() as progress:
        subject = speed.made(memories, dim, seed, progress) if store is None else jobs.open_store(store)[0]
        found = speed.measure(subject, seconds, seed, progress)
    facts = {"memories": len(subject), "dim": subject.dim, "threads": sw.get_num_threads(), **sw.cpu_features()}
    if as_json:
        rows = [{"verb": s.verb, "steps": s.steps, "median": s.median, "low": s.low, "high": s.high} for s in found]
        print(json.dumps({**facts, "rows": rows}, indent=1))
        return
    table = table_of("verb", "steps", "a second", "ms a call", "quartiles", "calls")
    for s in found:
        spread = cell(f"{s.low * 1e3:.3g} … {s.high * 1e3:.3g}")
        table.add_row(s.verb, str(s.steps), f"{s.rate:,.0f}", f"{s.median * 1e3:.3g}", spread, str(s.calls))
    console().print(table)
    print(f"{facts['memories']:,} memories of {facts['dim']}, {facts['threads']} threads, kernels: {facts['used']}")


@commands.command()
def serve(
    store: Annotated[Path, typer.Argument(help="a store's directory, or a snapshot (then writes stay in memory)")],
    host: Annotated[
        str, typer.Option(help="address to listen at; one that others can reach needs a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8808,
    token: Annotated[
        str | None,
        typer.Option(help="bearer token that requests must have; better in the environment", envvar="SHARPWAVE_TOKEN"),
    ] = None,
    dim: Annotated[int | None, typer.Option(help="make an empty store of this dimension if there is none")] = None,
    durability: Annotated[str, typer.Option(help="process: survives kill -9; power: a power cut too")] = "process",
    concurrent: Annotated[int, typer.Option(help="requests at once; what is more is told to come again")] = 512,
    megabytes: Annotated[int, typer.Option(help="of one request's body")] = 64,
    seconds: Annotated[float, typer.Option(help="for one request")] = 60.0,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="a further name under which it may be asked, as by a proxy; may be repeated"),
    ] = None,
    grace: Annotated[float, typer.Option(help="seconds for what is being answered when the end comes")] = 30.0,
) -> None:
    """Serve a store over HTTP, so that many processes share it.

    sharpwave.serve.Client(url) has the methods of a ValueStore; other languages use JSON. What many ask at once is
    answered together. A write is in the store's journal before it is answered, and one that is sent again with the same
    Idempotency-Key is not done again, also after the server was killed. SIGTERM and Ctrl-C end it without a loss.

    /docs describes the API, /metrics counts for Prometheus, /health says whether it answers.

    Example: sharpwave serve runs/a/store --port 8808
    """
    from sharpwave import Config
    from sharpwave.serve.limits import Limits
    from sharpwave.serve.server import check_address
    from sharpwave.serve.server import serve as run
    from sharpwave.serve.service import Service
    from sharpwave.store import SNAPSHOT, ValueStore

    check_address(host, port, token)
    limits = Limits(body=megabytes << 20, concurrent=concurrent, seconds=seconds)
    new = not store.is_file() and not (store / SNAPSHOT).exists()
    config = Config(dim=dim) if new and dim is not None else None
    kept: Any = durability
    service = Service(ValueStore.load(store)) if store.is_file() else Service.open(store, config, durability=kept)
    if dim is not None and service.store.dim != dim:
        raise ValueError(f"--dim {dim}: the store in {store} has dimension {service.store.dim}")
    if service.settled is not None:
        print(shown(service.settled))

    def ready(url: str) -> None:
        print(f"{shown(str(store))}: {len(service.store)} memories at {url}", flush=True)

    run(service, host, port, token=token, limits=limits, allowed_hosts=allowed_host or (), grace=grace, ready=ready)
    print("closed: everything that was acknowledged is in the store", flush=True)


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else format(value, form)


def print_report(report: Any) -> None:
    """The default's column beside cosine, and the claims, on the terminal."""
    from rich.text import Text

    from sharpwave.probe import claims
    from sharpwave.probe.columns import DEFAULT
    from sharpwave.probe.report import signed

    page = console()
    columns = [c for c in report["columns"] if c["id"] in ("cosine", DEFAULT, "ones")]
    for o in report["objectives"]:
        held = " (held out of all tuning)" if o["held_out"] else ""
        table = table_of(cell(f"{o['name']}{held}"), *(cell(c["title"]) for c in columns), padding=(0, 2))
        for row in o["rows"]:
            cells = []
            for c in columns:
                failed = c["id"] in row["fails"]
                text = signed(row["z"].get(c["id"])) + (" ✗" if failed else "")
                cells.append(Text(cell(text), style="red" if failed else ""))
            table.add_row(cell(row["name"]), *cells)
        page.print(table)
    for claim in report.get("claims", ()):
        style = {"fails": "red", "undecided": "yellow"}.get(claims.said(claim), "")
        page.print(Text(shown(claims.line(claim)), style=style))
