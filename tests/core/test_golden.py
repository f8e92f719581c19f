"""Files that earlier versions wrote: still read, and still the same stores."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import sharpwave as sw
from paths import TESTS
from safetensors import safe_open

GOLDEN = TESTS / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
SNAPSHOTS = [path for version in VERSIONS for path in sorted((GOLDEN / version).glob("*.safetensors"))]


def expected(path: Path) -> str:
    return json.loads((path.parent / "expected.json").read_text())[path.name]


def rows(n: int, dim: int, seed: int) -> np.ndarray:
    """Numbers that need no generator."""
    i = np.arange(n * dim, dtype=np.int64) + 7919 * seed
    return (((i * 2654435761) % 1000003) / 500001.5 - 1).astype(np.float32).reshape(n, dim)


def test_there_is_a_file_of_every_kind() -> None:
    assert VERSIONS == ["v1"]
    assert len(SNAPSHOTS) == 3


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: path.name)
def test_a_snapshot_is_the_store_that_it_was(path: Path) -> None:
    store = sw.ValueStore.load(path)
    assert store.digest() == expected(path)
    assert sw.ValueStore.from_bytes(store.to_bytes()).digest() == expected(path)


def test_scores_are_what_they_were() -> None:
    path = GOLDEN / "v1" / "snapshot.safetensors"
    scores = sw.ValueStore.load(path).score(rows(10, 12, 70), [0, 4, 10])
    wanted = json.loads((path.parent / "expected.json").read_text())["scores of snapshot.safetensors"]
    assert [float(x).hex() for x in scores.total] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("simd", ["portable", "best"])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_a_journal_makes_the_store_that_it_made(simd: str, threads: int) -> None:
    """On any number of threads and any instruction set, in another process."""
    path = GOLDEN / "v1" / "store"
    code = (
        "import sys, sharpwave as sw; sw.set_num_threads(int(sys.argv[2])); "
        "s = sw.ValueStore.open(sys.argv[1], readonly=True); print(s.digest(), s.recovery.operations)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "SHARPWAVE_SIMD"}
    if simd == "portable":
        environment["SHARPWAVE_SIMD"] = simd
    program = [sys.executable, "-c", code, str(path), str(threads)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    digest, operations = done.stdout.split()
    assert digest == expected(path)
    assert int(operations) > 20


def test_a_directory_can_be_gone_on_with(tmp_path: Path) -> None:
    where = shutil.copytree(GOLDEN / "v1" / "store", tmp_path / "store")
    with sw.ValueStore.open(where) as store:
        assert store.digest() == expected(GOLDEN / "v1" / "store")
        assert store.embedder == "golden 1"
        store.observe(rows(3, 12, 80))
        digest = store.digest()
    assert sw.ValueStore.load(where).digest() == digest


# What docs/format.md says, read without sharpwave


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: path.name)
def test_safetensors_reads_a_snapshot(path: Path) -> None:
    store = sw.ValueStore.load(path)
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    np.testing.assert_array_equal(tensors["keys"], store.keys)
    np.testing.assert_array_equal(tensors["values"], store.values)
    np.testing.assert_array_equal(tensors["ids"], store.ids)
    assert (metadata["format"], metadata["version"]) == ("sharpwave-snapshot", "1")
    state = json.loads(metadata["state"])
    assert [channel["name"] for channel in state["channels"]] == store.channels
    assert sum(state["pooled"]) == len(tensors["archive"])


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: path.name)
def test_a_snapshot_is_laid_out_as_documented(path: Path) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    tensors = data[8 + length :]
    at = 0
    widths = {"U8": 1, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
    for name in sorted(header, key=lambda name: (-widths[header[name]["dtype"]], name)):
        begin, end = header[name]["data_offsets"]
        assert begin == at
        assert end - begin == widths[header[name]["dtype"]] * int(np.prod(header[name]["shape"]))
        at = end
    assert at == len(tensors)
    parts = [metadata["version"].encode(), metadata["state"].encode()]
    sums = {"state": zlib.crc32(parts[1])}
    for name in sorted(header):
        begin, end = header[name]["data_offsets"]
        sums[name] = zlib.crc32(tensors[begin:end])
        parts += [name.encode(), f"{header[name]['dtype']} {header[name]['shape']}".encode(), tensors[begin:end]]
    assert json.loads(metadata["sums"]) == sums
    assert metadata["checksum"] == sha256(b"".join(struct.pack("<Q", len(p)) + p for p in parts)).hexdigest()


def test_a_journal_is_laid_out_as_documented() -> None:
    store = GOLDEN / "v1" / "store"
    (path,) = (store / "journal").iterdir()
    data = path.read_bytes()
    magic, version, zero, number, checksum, none, crc = struct.unpack("<8sIIQ32sII", data[:64])
    assert (magic, version, zero, number, none) == (b"swjournl", 1, 0, int(path.stem), 0)
    assert crc == zlib.crc32(data[:60])
    with safe_open(store / "snapshot.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert checksum.hex() == metadata["checksum"]
    assert json.loads(metadata["state"])["journal"] == number
    at, count, did = 64, 0, []
    while at < len(data):
        length, record, payload_crc, header_crc = struct.unpack("<QQII", data[at : at + 24])
        payload = data[at + 24 : at + 24 + length]
        assert record == count
        assert header_crc == zlib.crc32(data[at : at + 20])
        assert payload_crc == zlib.crc32(payload)
        (j,) = struct.unpack("<Q", payload[:8])
        written = json.loads(payload[8 : 8 + j])
        assert len(payload) - 8 - j == 4 * sum(written["pooled"])
        did.append(written["did"])
        at, count = at + 24 + length, count + 1
    kinds = {name for entry in did for name in entry.get("operation", entry)}
    assert kinds == {
        *("calibrate", "add_terminal", "add_channel", "remove_channel", "observe", "propose", "insert", "replay"),
        *("veto_episode", "veto_memory", "bind_embedder"),
    }


def test_the_same_store_has_the_same_bytes() -> None:
    data = (GOLDEN / "v1" / "snapshot.safetensors").read_bytes()
    assert sw.ValueStore.from_bytes(data).to_bytes() == data


# Copies


def there(store: sw.ValueStore) -> tuple[str, bytes, str | None]:
    return store.digest(), store.to_bytes(), store.embedder


@pytest.mark.slow
def test_a_header_of_any_length_is_read() -> None:
    """The texts of an archive lie in the header, for which the safetensors library allows 100 MB."""
    store = sw.ValueStore(sw.Config(dim=4))
    store.observe(np.eye(4)[:1], texts=["x" * 100_000_000])
    copy = sw.ValueStore.from_bytes(store.to_bytes())
    assert copy.digest() == store.digest()
    assert copy.texts == store.texts


def test_copies_go_through_the_same_bytes() -> None:
    store = sw.ValueStore.load(GOLDEN / "v1" / "snapshot.safetensors")
    data = store.to_bytes()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(store, protocol)
        assert protocol < 3 or data in pickled  # before, bytes were written as text
        assert pickle.loads(pickled).to_bytes() == data
    assert copy.copy(store).to_bytes() == copy.deepcopy(store).to_bytes() == data
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(there, (store,)) == (store.digest(), data, "golden 1")


def test_a_copy_of_a_store_in_a_directory_lives_in_memory(tmp_path: Path) -> None:
    where = shutil.copytree(GOLDEN / "v1" / "store", tmp_path / "store")
    with sw.ValueStore.open(where) as store:
        for twin in (copy.copy(store), copy.deepcopy(store), pickle.loads(pickle.dumps(store))):
            assert twin.path is None
            before = store.digest()
            assert twin.digest() == before
            twin.observe(rows(3, 12, 90))
            assert store.digest() == before != twin.digest()
