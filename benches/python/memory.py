"""Peak memory: what each peer needs beside the rows themselves to hold 100,000 memories and search 256 of them.

Each runs in a process of its own; the peak is counted from the moment when the rows are in memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from benches.python.data import memories, queries
from benches.python.exact import PEERS


def peaks(kind: str, n: int, batch: int) -> dict[str, float]:
    """Bytes a memory at the peak, over those of the rows that were given."""
    found = dict[str, float]()
    for peer in PEERS:
        code = f"from benches.python.memory import peak; peak({peer!r}, {kind!r}, {n}, {batch})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found[peer] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak(peer: str, kind: str, n: int, batch: int) -> None:
    """Prints bytes a memory, in JSON."""
    from benches.python import exact, timing

    rows, asked = memories(kind, n), queries(kind, batch)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    with timing.threads(1):
        search = exact.search_of(peer, rows)
        search(asked, 1)
        print(json.dumps((_status("VmHWM") - before) / n))


def _status(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert match is not None
    return 1024 * int(match[1])
