"""Break every equation on purpose, once: a test must fail.

    .venv/bin/python tests/helpers/mutations.py [--work DIR] [--only WORD]

Copies the repository's committed files, applies one mutation at a time, builds, runs the tests that compare the store
with the model, and writes the table of docs/testing.md. A mutation is one replacement of text that occurs exactly once;
one that no longer applies is an error, so the list cannot rot unseen.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- mutations: begin -->\n", "<!-- mutations: end -->\n"
TESTS = [
    "tests/core/test_state_machine.py",
    "tests/core/test_properties_graph.py",
    "tests/core/test_properties_score.py",
    "tests/core/test_properties_history.py",
    "tests/core/test_failure_modes.py",
    "tests/core/test_search.py",
    "tests/core/test_calibration.py",
    "tests/core/test_replay.py",
]


@dataclass(frozen=True)
class Mutation:
    """One deliberate mistake in rust/core/src."""

    what: str
    file: str
    old: str
    new: str


def m(what: str, file: str, old: str, new: str) -> Mutation:
    return Mutation(what, file, old, new)


MUTATIONS = [
    # Arithmetic, activation and support (§2)
    m("the lanes fold in another order", "linalg/mod.rs", "+= lanes[lane + half];", "+= lanes[2 * half - 1 - lane];"),
    m(
        "inputs are normalised in f32",
        "memory/episodes.rs",
        "*out = (f64::from(x) / norm) as f32;",
        "*out = x / norm as f32;",
    ),
    m("ties of the nearest go to the higher id", "index/topk.rs", "self.id < other.id", "self.id > other.id"),
    m("κ is not rescaled by 1 − τ", "index/activation.rs", "/ (1.0 - tau)).clamp", "/ 1.0).clamp"),
    m("κ has one power too many", "index/activation.rs", "for _ in 1..config.power", "for _ in 0..config.power"),
    m("φ without ε", "index/activation.rs", "answer.phi /= config.epsilon + total;", "answer.phi /= total;"),
    m("σ is the least κ", "index/activation.rs", "answers.first().map_or", "answers.last().map_or"),
    m(
        "calibration takes τ at the 0.95 quantile",
        "ops/setup.rs",
        "quantile(&mut pairs, 0.90)",
        "quantile(&mut pairs, 0.95)",
    ),
    m(
        "calibration takes d_lo at the median",
        "ops/setup.rs",
        "(quantile(&mut nearest, 0.90),",
        "(quantile(&mut nearest, 0.50),",
    ),
    m(
        "a terminal's low is the sample's 0.4 quantile",
        "ops/setup.rs",
        "quantile(&mut cosines, 0.5)",
        "quantile(&mut cosines, 0.4)",
    ),
    m("embedding drives are not squared", "memory/channels.rs", "(reach * reach) as f32", "reach as f32"),
    m(
        "scalar drives are sums, not means",
        "memory/columns.rs",
        "(self.columns.drive_sums[at] / f64::from(n)) as f32",
        "(self.columns.drive_sums[at] * f64::from(n.min(1))) as f32",
    ),
    # Writing (§3)
    m(
        "novelty = 1 − σ²",
        "ops/gate.rs",
        "|hit| kappa(hit.similarity, &self.config)",
        "|hit| kappa(hit.similarity, &self.config).powi(2)",
    ),
    m("worth omits the drive", "ops/gate.rs", "+ config.w_drive * drive", "+ config.w_drive * 0.0 * drive"),
    m(
        "steps of worth below θ are kept",
        "ops/gate.rs",
        "&& worth >= config.min_worth =>",
        "&& worth >= 0.0 * config.min_worth =>",
    ),
    m("surprise is signed", "ops/gate.rs", "sum + (target - phi[t][q]).abs()", "sum + (target - phi[t][q])"),
    m(
        "surprise looks ahead without γ",
        "ops/gate.rs",
        "let ahead = store.config().gamma * phi[t + 1][q];",
        "let ahead = phi[t + 1][q];",
    ),
    m(
        "Oja's rule with the m before the merge",
        "memory/columns.rs",
        "k + (x - s * k) / m)",
        "k + (x - s * k) / (m - 1.0))",
    ),
    m("Oja's rule without the projection", "memory/columns.rs", "k + (x - s * k) / m)", "k + (x - k) / m)"),
    m(
        "terminals' keys move",
        "memory/columns.rs",
        "let drifts = !self.columns.terminal[at];",
        "let drifts = self.columns.merged[at] > 0;",
    ),
    m("retention halves too slowly", "ops/observe.rs", "kept *= 0.5;", "kept *= 0.75;"),
    m("retention omits the value", "ops/observe.rs", "kept + f64::from(value)", "kept + 0.0 * f64::from(value)"),
    m("ties of retention go to the lower id", "ops/observe.rs", ".then(b.1.cmp(&a.1))", ".then(a.1.cmp(&b.1))"),
    m("merging does not renew the age", "memory/columns.rs", "self.columns.written[at] = clock;", ""),
    m("an evicted memory leaves its mass behind", "graph/hebbian.rs", "graph.mass[slot as usize] = 0.0;", ""),
    # Association (§4)
    m(
        "e decays by λ alone",
        "graph/hebbian.rs",
        "entry.e *= config.gamma * config.trace;",
        "entry.e *= config.trace;",
    ),
    m(
        "e' decays by γλ",
        "graph/hebbian.rs",
        "entry.mass *= config.trace;",
        "entry.mass *= config.gamma * config.trace;",
    ),
    m(
        "the trace keeps one entry too many",
        "graph/hebbian.rs",
        "entries.truncate(config.trace_size);",
        "entries.truncate(config.trace_size + 1);",
    ),
    m("the trace runs across holes in an episode", "graph/hebbian.rs", "            trace.reset();\n", ""),
    m("sums grow by e'", "graph/hebbian.rs", "from.e * phi;", "from.mass * phi;"),
    m("masses grow by e", "graph/hebbian.rs", "+= from.mass;", "+= from.e;"),
    m(
        "memories lead to themselves",
        "graph/hebbian.rs",
        "if target == from.slot {",
        "if target == from.slot && from.e < 0.0 {",
    ),
    m("a row keeps its smallest sums", "graph/hebbian.rs", "b.sum.total_cmp(&a.sum)", "a.sum.total_cmp(&b.sum)"),
    m(
        "P_ij = C_ij / (1 + n_i)",
        "graph/mod.rs",
        "(edge.target, edge.sum / mass)",
        "(edge.target, edge.sum / (1.0 + mass))",
    ),
    # Value and replay (§5)
    m("stopping without γ", "values/backup.rs", "f64::from(r).max(gamma * ahead)", "f64::from(r).max(ahead)"),
    m(
        "stopping adds the drive",
        "values/backup.rs",
        "f64::from(r).max(gamma * ahead)",
        "(f64::from(r) + gamma * ahead)",
    ),
    m(
        "return takes the better part",
        "values/backup.rs",
        "(f64::from(r) + gamma * ahead) as f32",
        "f64::from(r).max(gamma * ahead) as f32",
    ),
    m("predecessors stay clean", "values/backup.rs", "            self.mark_predecessors(slot, model.graph);\n", ""),
    m("dead ends keep an old value", "store.rs", "            self.values.backup(slot, model);\n", ""),
    m("awake replay runs forwards", "values/sweep.rs", "activations.iter().rev()", "activations.iter()"),
    m("awake replay backs up clean memories", "values/sweep.rs", "&& values.is_dirty(slot)", ""),
    m(
        "the residual lacks 1/(1 − γ)",
        "values/backup.rs",
        "let contraction = 1.0 - model.config.gamma;",
        "let contraction = 1.0;",
    ),
    m(
        "prioritized ignores need",
        "values/prioritized.rs",
        "self.needs.of(slot, model) * counted",
        "counted",
    ),
    m(
        "prioritized stops early",
        "values/prioritized.rs",
        "gain > self.threshold",
        "gain > 3.0 * self.threshold",
    ),
    m(
        "predecessors are not queued again",
        "values/lookahead.rs",
        "                queue.update(predecessor, values, model);\n",
        "                let _ = predecessor;\n",
    ),
    m("a floor is added to the gain", "values/prioritized.rs", "gain.max(self.floor)", "gain + self.floor"),
    m(
        "an extension's priority is that of its last place alone",
        "values/lookahead.rs",
        "sum += queue.worth(",
        "sum = queue.worth(",
    ),
    m("extension goes to the least likely", "values/lookahead.rs", "|(_, most)| p > most", "|(_, most)| p < most"),
    m("replay never sweeps", "values/prioritized.rs", "share: 32,", "share: 1,"),
    m(
        "a sweep leaves the marks of a block's own changes",
        "values/sweep.rs",
        "changed > 0 && changed >= backed",
        "changed > 0 && changed > backed",
    ),
    m("need by n, not 1 + n", "values/need.rs", "1.0 + model.graph.mass(slot)", "model.graph.mass(slot)"),
    m("need from starts without γ", "values/need.rs", "config.gamma, graph, memories", "0.999, graph, memories"),
    m("reverse runs from the oldest", "values/sweep.rs", ".in_order().iter().rev()", ".in_order().iter()"),
    m(
        "full sweeps within a block see new values",
        "values/sweep.rs",
        "const ROWS_PER_BLOCK: usize = 1024;",
        "const ROWS_PER_BLOCK: usize = 1;",
    ),
    m(
        "the baseline is the upper of the two middle values",
        "values/baseline.rs",
        "Some(f64::midpoint(f64::from(lower), f64::from(upper)) as f32)",
        "Some(upper.max(lower))",
    ),
    m(
        "the baseline counts terminals",
        "values/baseline.rs",
        "u64::from(id >= 0 && !terminal)",
        "u64::from(id >= 0 || terminal)",
    ),
    m("drift is not the mean", "ops/sleep.rs", "            / n;", "            / 1.0f64.max(n / 2.0);"),
    # Scoring (§6)
    m("predictions weigh P without φ", "graph/predict.rs", "answer.phi * p)", "p)"),
    m(
        "e_lo is the 0.4 quantile",
        "graph/edge_statistics.rs",
        "quantile(&self.unrelated, 0.5)",
        "quantile(&self.unrelated, 0.4)",
    ),
    m(
        "e_hi is the median",
        "graph/edge_statistics.rs",
        "quantile(&self.followed, 0.9)",
        "quantile(&self.followed, 0.5)",
    ),
    m(
        "the unrelated memory is always the oldest",
        "graph/edge_statistics.rs",
        "splitmix64(pairs) % ordinary",
        "splitmix64(pairs) % 1",
    ),
    m(
        "edge support is not clipped above",
        "graph/edge_statistics.rs",
        "/ (self.hi - self.lo)).clamp(0.0, 1.0)",
        "/ (self.hi - self.lo)).max(0.0)",
    ),
    m("redundancy sees the prompt", "query/score/gates.rs", "let nearest = (scored..t)", "let nearest = (first..t)"),
    m(
        "redundancy is not rescaled",
        "query/score/gates.rs",
        "/ (config.d_hi - config.d_lo)).clamp",
        "/ config.d_hi).clamp",
    ),
    m(
        "the gate opens beyond 1",
        "query/score/gates.rs",
        "(support / config.sigma_0).min(1.0)",
        "(support / config.sigma_0)",
    ),
    m(
        "the gate omits ρ",
        "query/score/gates.rs",
        "(config.rho + (1.0 - config.rho) * edge)",
        "(0.0 * config.rho + (1.0 - config.rho) * edge)",
    ),
    m(
        "coverage remembers only the last level",
        "query/score/coverage.rs",
        "*level = level.max(answer.phi);",
        "*level = answer.phi;",
    ),
    m(
        "coverage pays terminals",
        "query/score/coverage.rs",
        "(worth.is_terminal(slot) && !harmful)",
        "(worth.is_terminal(slot) && slot != slot)",
    ),
    m(
        "coverage gates harm",
        "query/score/coverage.rs",
        "                        answer.phi\n",
        "                        trajectory.gates[t].open * answer.phi\n",
    ),
    m(
        "the prompt sets no level",
        "query/score/coverage.rs",
        "*level = level.max(answer.phi);",
        "if scored.contains(&t) { *level = level.max(answer.phi); }",
    ),
    m(
        "coverage fades harm",
        "query/score/coverage.rs",
        "                        answer.phi\n",
        "                        trajectory.fade(t, q) * answer.phi\n",
    ),
    m("coverage does not fade", "query/score/coverage.rs", "* trajectory.fade(t, q)", "* 1.0"),
    m(
        "the fade is not squared",
        "query/score/gates.rs",
        "f64::from(channel.drive(s))",
        "f64::from(channel.drive(s)).sqrt()",
    ),
    m(
        "the advantage may be negative",
        "query/score/worth.rs",
        "self.weights[q] * over.max(0.0)",
        "self.weights[q] * over",
    ),
    m(
        "the advantage is over nothing",
        "query/score/worth.rs",
        "- f64::from(values.baseline[q]);",
        "- 0.0 * f64::from(values.baseline[q]);",
    ),
    m("weights default to 1", "query/score/worth.rs", "vec![1.0 / channels as f64; channels]", "vec![1.0; channels]"),
    m("progress may fall", "query/score/functional.rs", "*best = best.max(phi);", "*best = phi;"),
    m(
        "progress is not gated",
        "query/score/functional.rs",
        "trajectory.gates[t].open * worth.weight(q) * rise",
        "worth.weight(q) * rise",
    ),
    m("potential ignores the discount", "query/score/functional.rs", "trajectory.discount * ahead", "ahead"),
    m(
        "potential does not end at 0",
        "query/score/functional.rs",
        "let ahead = if t == last {\n                    0.0",
        "let ahead = if t == last {\n                    trajectory.phi(t, q)",
    ),
    m("mean is a sum", "query/score/functional.rs", "answer.phi * value / n", "answer.phi * value / n.min(1.0)"),
    m(
        "habituation ignores η",
        "query/score/worth.rs",
        "1.0 / (1.0 + self.eta * self.uses[at].1)",
        "1.0 / (1.0 + self.uses[at].1)",
    ),
    m("association omits the restart", "query/spread.rs", "(1.0 - damping) * phi", "0.0 * damping * phi"),
    m(
        "recall omits γ",
        "query/recall.rs",
        "let reach = beam.reach * model.config.gamma * p;",
        "let reach = beam.reach * p;",
    ),
    # History
    m(
        "veto reuses ids",
        "ops/history.rs",
        "        rebuilt.next_memory = rebuilt.next_memory.max(self.next_memory);\n",
        "",
    ),
    m(
        "a veto begins after what it forgets",
        "ops/history.rs",
        "checkpoints.retain(|moment| moment.0.operations() <= same);",
        "",
    ),
    m("episodes are not cut at holes", "memory/episodes.rs", "&& self.positions[t + 1] == self.positions[t] + 1", ""),
    m(
        "the digest overlooks the dirty marks",
        "storage/digest.rs",
        "if role == Role::Names {",
        'if role == Role::Names || section.name == "dirty" {',
    ),
    m(
        "a snapshot omits the dirty marks",
        "storage/snapshot/sections.rs",
        "u8::from(v.is_dirty(s))",
        "u8::from(v.is_dirty(s) && false)",
    ),
]


def apply(mutation: Mutation, source: Path) -> str:
    """Mutates the file and returns what it was."""
    path = source / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.file}: {mutation.old!r} occurs {text.count(mutation.old)} times")
    path.write_text(text.replace(mutation.old, mutation.new))
    return text


def build(copy: Path) -> bool:
    """Compiles the copy into its own virtual environment."""
    environment = os.environ | {"VIRTUAL_ENV": str(copy / ".venv"), "CARGO_PROFILE_DEV_DEBUG": "0"}
    command = [str(copy / ".venv/bin/maturin"), "develop", "--quiet", "--profile", "dev", "--uv"]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode == 0


def failures(copy: Path, examples: int) -> list[str]:
    """The name of the first test that fails."""
    environment = os.environ | {"SHARPWAVE_HYPOTHESIS": "quick", "SHARPWAVE_EXAMPLES": str(examples)}
    command = [str(copy / ".venv/bin/python"), "-m", "pytest", "-q", "--tb=no", "--no-header", "-x"]
    try:
        result = subprocess.run(
            [*command, *TESTS], cwd=copy, env=environment, capture_output=True, text=True, timeout=600
        )
    except subprocess.TimeoutExpired:
        return ["(does not end)"]
    if result.returncode < 0:
        return ["(crashes)"]
    return re.findall(r"^(?:FAILED|ERROR) tests/core/(\S+)", result.stdout, re.MULTILINE)


def prepare(copy: Path) -> None:
    """A copy of the committed files with a virtual environment of its own."""
    if (copy / ".git").exists():
        subprocess.run(["git", "checkout", "--quiet", "."], cwd=copy, check=True)
        subprocess.run(["git", "pull", "--quiet"], cwd=copy, check=True)
    else:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
        uv = str(ROOT / ".venv/bin/uv")
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(copy / ".venv")], check=True)
        packages = ["numpy", "scipy", "hypothesis", "pytest", "pytest-xdist", "pytest-benchmark", "maturin", "uv"]
        python = str(copy / ".venv/bin/python")
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)


def row(mutation: Mutation, caught: list[str]) -> str:
    """One line of the table."""
    names = [re.sub(r"^test_(\w+)\.py::(?:TestAgreement::runTest)?", r"\1: ", name).rstrip(": ") for name in caught]
    names.sort(key=lambda name: (name != "state_machine", name))
    return f"| {mutation.what} | `{mutation.file}` | {'; '.join(names) or '**nothing**'} |\n"


def main() -> None:
    """Run all mutations and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="a folder for the copy, kept for the next time")
    parser.add_argument("--only", default="", help="only mutations whose description contains this; the page stays")
    arguments = parser.parse_args()
    copy = arguments.work or Path(tempfile.mkdtemp(prefix="mutations-"))
    prepare(copy)
    chosen = [mutation for mutation in MUTATIONS if arguments.only in mutation.what]
    rows, survivors = [], 0
    for number, mutation in enumerate(chosen):
        start = time.monotonic()
        original = apply(mutation, copy / "rust/core/src")
        try:
            built = build(copy)
            caught = (failures(copy, 25) or failures(copy, 100)) if built else ["(does not compile)"]
        finally:
            (copy / "rust/core/src" / mutation.file).write_text(original)
        survivors += not caught
        rows.append(row(mutation, caught))
        print(f"{number + 1}/{len(chosen)} {time.monotonic() - start:.0f} s {rows[-1]}", end="", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    if not arguments.only:
        head, _, rest = PAGE.read_text().partition(BEGIN)
        table = "| mutation | file in `rust/core/src` | caught by |\n|---|---|---|\n" + "".join(rows)
        PAGE.write_text(head + BEGIN + table + END + rest.partition(END)[2])
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
