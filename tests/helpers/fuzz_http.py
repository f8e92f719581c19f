"""Fuzzes the bodies of requests: ``python tests/helpers/fuzz_http.py FOUND CORPUS -max_total_time=60`` (`make fuzz`).

The arguments are libFuzzer's. With ``seed`` as the only one, the corpus begins anew: one good request a verb and form.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sharpwave"]):
    import http_bodies

CORPUS = Path(__file__).resolve().parents[2] / "rust" / "fuzz" / "corpus" / "http"


def main() -> None:
    if sys.argv[1:] == ["seed"]:
        CORPUS.mkdir(parents=True, exist_ok=True)
        for name, data in http_bodies.seeds().items():
            (CORPUS / name).write_bytes(data)
        return
    served = http_bodies.Served()
    atheris.Setup(sys.argv, served.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
