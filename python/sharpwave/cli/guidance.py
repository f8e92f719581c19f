"""``sharpwave guide``: texts of a language model that a store guides, with pay and memories beside them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from sharpwave._show import console, shown, table_of
from sharpwave.cli.options import Embedder, Weights


def guide(
    store: Annotated[Path, typer.Argument(help="a store: its directory or its snapshot")],
    model: Annotated[str, typer.Option(help="a causal language model's directory, or smollm2")],
    prompt: Annotated[list[str], typer.Option(help="repeatable")],
    strength: Annotated[float, typer.Option(help="0: best of n, without guidance")] = 2.0,
    particles: Annotated[int, typer.Option(help="samples of each prompt")] = 8,
    follow: Annotated[float, typer.Option(help="weight of the steps that recall proposes")] = 0.5,
    remind: Annotated[int, typer.Option(help="how many texts of the way to value stand before the prompt")] = 0,
    tokens: Annotated[int, typer.Option(help="at most so many tokens a text")] = 64,
    temperature: Annotated[float, typer.Option(help="of the sampling")] = 0.8,
    template: Annotated[
        str | None, typer.Option(help='how a prompt is put: "chat", or a text with {prompt}; default: as it is')
    ] = None,
    weight: Weights = None,
    embedder: Embedder = None,
    seed: Annotated[int, typer.Option(help="of the sampling")] = 0,
    memories: Annotated[int, typer.Option(help="how many memories are shown for a step")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, for programs")] = False,
) -> None:
    """Let a store guide a language model, and show what each step was paid and for which memories.

    Samples are weighed after every step by what the store pays for it and by the value that can still be reached.
    --strength 0 shows the best of as many samples of the model itself.

    Example: sharpwave guide runs/mine --model smollm2 --prompt "The old man opened the door and"
    """
    from sharpwave.cli import jobs
    from sharpwave.guide import Guide
    from sharpwave.text import chunkers
    from sharpwave.text.packages import load_language_model, smollm2_path

    if memories < 0:
        raise ValueError(f"--memories must be at least 0, got {memories}")
    if model != "smollm2" and not (Path(model) / "config.json").is_file():
        raise ValueError(f"--model {model}: there is no such language model; a directory or 'smollm2'")
    opened, notes = jobs.open_store(store)
    made = Guide(
        opened,
        jobs.embedder_from(embedder, notes),
        chunkers.from_config(notes.get("chunker", "sentences")),
        weights=jobs.weights_from(weight or [], notes),
        strength=strength,
        particles=particles,
        follow=follow,
        remind=remind,
    )
    loaded = load_language_model(smollm2_path() if model == "smollm2" else model)
    out = made.generate(*loaded, prompt, seed, max_new_tokens=tokens, temperature=temperature, template=template)
    if as_json:
        print(json.dumps({**out.to_dict(), "prompts": prompt}))
        return
    for n, asked in enumerate(prompt):
        print(shown(f"{asked} …"))
        table = table_of("pay", "step", "memories", pad_edge=False)
        for step in out.explain(n):
            paid = sorted(step.explanation.memories, key=lambda payment: -abs(payment.pay))[:memories]
            because = "\n".join(textwrap.shorten(f"{m.pay:+.3f} {m.text or m.id}", 60) for m in paid if m.pay)
            table.add_row(
                f"{step.explanation.pay:+.3f}", shown("\n".join(textwrap.wrap(step.text, 56))), shown(because)
            )
        console().print(table)
        print(f"score {out.scores[n][0]:+.3f}, best of {particles}; KL {out.kl[n]:.3f} nats a token\n")
    print(f"{out.tokens} tokens; digest {out.digest}, seed {out.seed}")
