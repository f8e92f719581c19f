"""From z-scores to the plain data of ``report.json``: rows, margins, AUCs, claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpwave.probe.claims import RESAMPLES, Claim, claim, interval
from sharpwave.probe.columns import BASELINE, COLUMNS, DEFAULT, Floats
from sharpwave.probe.table import Measured, auc

AUC_AT_LEAST = 0.85
SPAM_Z = -1.5  # at most
SPLITS_AT_LEAST = 3  # for an interval over splits: fewer would seem to agree


def number(value: float, digits: int = 3) -> float | None:
    """``value`` rounded, None where it is not finite (JSON has no NaN)."""
    return round(float(value), digits) if math.isfinite(value) else None


def drawn(rows: int, seed: int = 0) -> NDArray[np.int64]:
    """``(RESAMPLES, rows)`` numbers of splits, drawn with replacement: each split has its own stores and rulers."""
    return np.random.default_rng((5, seed)).integers(rows, size=(RESAMPLES, rows))


def medians(z: Floats) -> Floats:
    """``(RESAMPLES, n)`` of z ``(splits, n)``: the median over the splits, with the splits drawn again."""
    return np.median(z[drawn(len(z))], axis=1)


def objective_summary(measured: Measured) -> dict[str, Any]:
    """One objective's rows (median z by column, and its range over the splits), margins, cells.

    ``margin`` by column: the least story's median z minus the largest exploit's, splices and what
    training found left out. ``margin_interval``, ``spam_interval`` and ``gain_interval`` (what the
    default's margin is more than plain cosine's) are 95 % intervals over the splits, None of fewer
    than three.

    A cell ``fails`` where a story does not lie above every exploit, or another text that should
    does not lie below every story. Without stories, the .95 quantile of
    the base stories stands for them.
    """
    median = {c: np.median(z, axis=0) for c, z in measured.z.items()}
    kinds = np.array([p.kind for p in measured.probes])
    story, exploit = np.flatnonzero(kinds == "story"), np.flatnonzero(kinds == "exploit")
    margin: dict[str, float | None] = {}
    resampled: dict[str, Floats] = {}
    rows: list[dict[str, Any]] = [_base_row(measured)]
    worst: dict[str, tuple[float, float]] = {}
    for column, z in median.items():
        ruler = np.concatenate(measured.ruler_z[column])
        least = float(z[story].min()) if len(story) else float(np.quantile(ruler, 0.95))
        most = float(z[exploit].max()) if len(exploit) else -math.inf
        worst[column] = least, most
        margin[column] = number(least - most)
        again = medians(measured.z[column])
        if len(story) and len(exploit):
            resampled[column] = again[:, story].min(1) - again[:, exploit].max(1)
    for n, probe in enumerate(measured.probes):
        fails = []
        for column, z in median.items():
            least, most = worst[column]
            if (probe.kind == "story" and not z[n] > most) or (probe.kind in ("exploit", "found") and not z[n] < least):
                fails.append(column)
        rows.append(
            {
                "name": probe.name,
                "kind": probe.kind,
                "text": probe.text,
                "z": {c: number(z[n]) for c, z in median.items()},
                "range": {
                    c: [number(float(z[:, n].min())), number(float(z[:, n].max()))] for c, z in measured.z.items()
                },
                "fails": fails,
            }
        )
    rows.append(_splice_row(measured))
    spam = [n for n, p in enumerate(measured.probes) if p.name.startswith("spam")]
    several = len(measured.z[DEFAULT]) >= SPLITS_AT_LEAST
    spam_z = medians(measured.z[DEFAULT])[:, spam].mean(1) if spam else None
    compared = DEFAULT in resampled and BASELINE in resampled
    return {
        "name": measured.objective.name,
        "title": measured.objective.title,
        "held_out": measured.objective.held_out,
        "terminals": list(measured.objective.terminals),
        "rows": rows,
        "margin": margin,
        "margin_interval": {c: interval(v) if several else None for c, v in resampled.items()},
        "gain_interval": interval(resampled[DEFAULT] - resampled[BASELINE]) if several and compared else None,
        "spam": number(float(median[DEFAULT][spam].mean())) if spam else None,
        "spam_interval": interval(spam_z) if several and spam_z is not None else None,
    }


def _base_row(measured: Measured) -> dict[str, Any]:
    pooled = {c: np.concatenate(z) for c, z in measured.ruler_z.items()}
    return {
        "name": "held-out base stories",
        "kind": "base",
        "text": "",
        "z": {c: number(float(np.median(z))) for c, z in pooled.items()},
        "range": {
            c: [number(float(np.quantile(z, 0.05))), number(float(np.quantile(z, 0.95)))] for c, z in pooled.items()
        },
        "fails": [],
    }


def _splice_row(measured: Measured) -> dict[str, Any]:
    by_split = {c: np.median(z, axis=1) for c, z in measured.splice_z.items()}
    return {
        "name": "splice of valuable steps",
        "kind": "splice",
        "text": "five of the most valuable stored steps, each of another episode, in random order",
        "z": {c: number(float(np.median(z))) for c, z in by_split.items()},
        "range": {c: [number(float(z.min())), number(float(z.max()))] for c, z in by_split.items()},
        "fails": [],
    }


def foreign_z(measured: Measured, among: Sequence[str], column: str) -> Floats:
    """``(splits, stories)``: other objectives' stories, of the objectives ``among``."""
    keep = [n for n, (name, _) in enumerate(measured.foreign) if name in among]
    return measured.z[column][:, len(measured.probes) :][:, keep]


def story_z(measured: Measured, column: str) -> Floats:
    """``(splits, stories)``: the objective's own stories."""
    keep = [n for n, p in enumerate(measured.probes) if p.kind == "story"]
    return measured.z[column][:, keep]


def off_objective(all_measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Median z of each objective's stories (``stories``) under each objective (``under``)."""
    out = []
    for measured in all_measured:
        for name in [m.objective.name for m in all_measured]:
            own = name == measured.objective.name
            z = {c: story_z(measured, c) if own else foreign_z(measured, [name], c) for c in measured.z}
            out.append(
                {
                    "stories": name,
                    "under": measured.objective.name,
                    "z": {c: number(float(np.median(v))) for c, v in z.items()},
                }
            )
    return out


def aucs(all_measured: Sequence[Measured]) -> dict[str, Any]:
    """AUC of on- against off-objective stories, by column: medians over the splits.

    ``tuned`` pools the z-scores of the tuned objectives, against one another's stories only;
    ``objective`` has each by itself; a held-out one is told from the tuned ones. ``interval`` has the default's 95 %
    intervals, by objective and of all ``tuned``, and under ``over ones`` what the tuned AUC is more than with v ≡ 1.
    """
    tuned = [m for m in all_measured if not m.objective.held_out]
    names = [m.objective.name for m in tuned]
    columns = list(all_measured[0].z)
    out: dict[str, Any] = {"tuned": {}, "objective": {}}
    for column in columns:
        if len(tuned) > 1:
            on = np.concatenate([story_z(m, column) for m in tuned], axis=1)
            off = np.concatenate([foreign_z(m, names, column) for m in tuned], axis=1)
            pooled = [auc(a, b) for a, b in zip(on, off, strict=True)]
            out["tuned"][column] = number(float(np.median(pooled)))
        for m in all_measured:
            each = [auc(a, b) for a, b in zip(story_z(m, column), foreign_z(m, names, column), strict=True)]
            out["objective"].setdefault(m.objective.name, {})[column] = number(float(np.median(each)))
    around: dict[str, list[float] | None] = {
        m.objective.name: interval(resampled_auc([m], tuned, DEFAULT)) for m in all_measured
    }
    if len(tuned) > 1:
        pooled = {c: resampled_auc(tuned, tuned, c) for c in (DEFAULT, "ones") if c in columns}
        around["tuned"] = interval(pooled[DEFAULT])
        around["over ones"] = interval(pooled[DEFAULT] - pooled["ones"]) if "ones" in pooled else None
    return {**out, "interval": around}


def resampled_auc(under: Sequence[Measured], tuned: Sequence[Measured], column: str) -> Floats:
    """``(RESAMPLES,)`` the AUC pooled over the objectives ``under``, with splits and stories drawn again.

    The stories of an objective are drawn once, for where they are on it and for where they are off the others: those
    of ``tuned``.
    """
    rng = np.random.default_rng(6)
    own = {m.objective.name: story_z(m, column) for m in under}
    names = [m.objective.name for m in tuned]
    off = {m.objective.name: {n: foreign_z(m, [n], column) for n in names if n != m.objective.name} for m in under}
    sizes = {name: z.shape[1] for m in off.values() for name, z in m.items()} | {n: z.shape[1] for n, z in own.items()}
    out = np.empty(RESAMPLES)
    for n, splits in enumerate(drawn(len(next(iter(own.values()))))):
        picked = {name: rng.integers(size, size=size) for name, size in sizes.items()}
        on = np.concatenate([z[splits][:, picked[name]] for name, z in own.items()], axis=1)
        others = [z[splits][:, picked[name]] for m in off.values() for name, z in m.items()]
        out[n] = np.median(aucs_of_rows(on, np.concatenate(others, axis=1))) if others else np.nan
    return out


def aucs_of_rows(on: Floats, off: Floats) -> Floats:
    """``(rows,)`` the AUC of each row of ``on`` against that row of ``off``, ties half."""
    return (np.sign(on[:, :, None] - off[:, None, :]).mean((1, 2)) + 1) / 2


def succession(all_measured: Sequence[Measured]) -> dict[str, float | None]:
    """AUC of true against shuffled successions, by edge support and by plain cosine."""
    values = [s for m in all_measured for s in m.succession]
    return {k: number(float(np.median([v[k] for v in values]))) for k in ("edge", "cosine")}


def claims(objectives: Sequence[Mapping[str, Any]], auc_table: Mapping[str, Any]) -> list[Claim]:
    """What the table is meant to show, each with its number, its interval and what follows."""
    out: list[Claim] = []
    for o in objectives:
        name, held_out = o["name"], o["held_out"]
        out += [
            claim(
                f"stories-above-exploits:{name}",
                f"{name}: every story lies above every exploit but the splice (margin in sd)",
                o["margin"].get(DEFAULT),
                o["margin_interval"].get(DEFAULT),
                at_least=0.0,
                held_out=held_out,
            ),
            claim(
                f"cosine-is-exploited:{name}",
                f"{name}: under plain cosine it does not (margin in sd)",
                o["margin"].get(BASELINE),
                o["margin_interval"].get(BASELINE),
                at_most=0.0,
                held_out=held_out,
            ),
            claim(
                f"spam-below-base:{name}",
                f"{name}: “yes” spam lies {-SPAM_Z} sd or more below the base mean (z)",
                o["spam"],
                o["spam_interval"],
                at_most=SPAM_Z,
                held_out=held_out,
            ),
        ]
        if held_out:
            out.append(
                claim(
                    f"on-off-auc:{name}",
                    f"{name}: AUC of its stories against the others’ is at least {AUC_AT_LEAST}",
                    auc_table["objective"][name][DEFAULT],
                    auc_table["interval"][name],
                    at_least=AUC_AT_LEAST,
                    held_out=True,
                )
            )
    if DEFAULT in auc_table["tuned"]:
        out.append(
            claim(
                "on-off-auc",
                f"AUC of on- against off-objective stories is at least {AUC_AT_LEAST}",
                auc_table["tuned"][DEFAULT],
                auc_table["interval"]["tuned"],
                at_least=AUC_AT_LEAST,
            )
        )
    return sorted(out, key=lambda c: c["held_out"])


def findings(report: Mapping[str, Any]) -> list[str]:
    """What the ablation columns, splices and edges say, in plain sentences with their numbers."""
    objectives = report["objectives"]
    pooled = report["auc"]["tuned"] or next(iter(report["auc"]["objective"].values()))
    titles = {c.id: c.title for c in COLUMNS}
    out = []

    def margins(column: str) -> str:
        return ", ".join(f"{o['name']} {_signed(o['margin'].get(column))}" for o in objectives)

    for column in (c.id for c in COLUMNS if c.ablation and c.id in pooled):
        drop = (pooled[DEFAULT] or 0) - (pooled[column] or 0)
        weight = (
            "telling on- from off-objective stories needs what was knocked out"
            if drop > 0.1
            else "telling on- from off-objective stories hardly needs what was knocked out"
        )
        out.append(
            f"{titles[column]}: margins {margins(column)} sd (default: {margins(DEFAULT)}); "
            f"on/off AUC {pooled[column]:.2f} (default {pooled[DEFAULT]:.2f}): {weight}."
        )
    splice = [r["z"][DEFAULT] for o in objectives for r in o["rows"] if r["kind"] == "splice"]
    stories = [r["z"][DEFAULT] for o in objectives for r in o["rows"] if r["kind"] == "story"]
    if splice and stories:
        verdict = "above" if np.mean(splice) > np.mean(stories) else "below"
        out.append(
            f"Splices of valuable stored steps score {np.mean(splice):+.1f} sd on average, {verdict} "
            f"the coherent stories’ {np.mean(stories):+.1f}."
        )
    found = [(r["z"][DEFAULT], _least_story(o)) for o in objectives for r in o["rows"] if r["kind"] == "found"]
    if found and stories:
        paid = [z for z, least in found if z >= least]
        out.append(
            f"Of {len(found)} scores of texts that policies found in training, {len(paid)} reach the weakest story "
            f"({', '.join(f'{z:+.1f}' for z in paid) or 'none'}): text on the objective that is unlikely as a whole, "
            "though no step of it stands out. A token KL holds that off, the store does not."
        )
    edge = report["succession"]
    better = "worse than" if edge["edge"] < edge["cosine"] else "at least as well as"
    out.append(
        f"True successions are told from shuffled ones with AUC {edge['edge']:.2f} by edge support, "
        f"{better} by the plain cosine of neighbours ({edge['cosine']:.2f})."
    )
    out.append(
        f"Plain cosine tells on- from off-objective stories with AUC {pooled[BASELINE]:.2f}: it "
        f"knows the topic, and is exploited all the same (margins {margins(BASELINE)} sd)."
    )
    return out


def _least_story(objective: Mapping[str, Any]) -> float:
    return min((r["z"][DEFAULT] for r in objective["rows"] if r["kind"] == "story"), default=math.inf)


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"
