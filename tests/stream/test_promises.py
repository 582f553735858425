"""A manifest may promise anything: nothing is allocated for it before verified bytes have come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

import dnc_async as dnc
from dnc_async import system
from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.page import ChunkDirectory, ChunkRow
from dnc_async.dataset.schema import Column, Schema
from dnc_async.errors import ManifestError
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_directory, build_file
from dnc_async.ipld.cid import DAG_PB, Cid
from dnc_async.ipld.dagpb import Link
from dnc_async.ipld.unixfs import Kind

from ..conftest import PATIENCE_S
from .conftest import keep

CHUNK_BYTES = 900_000_000
LEAF_BYTES = 1_800_000

#: Streams in a process of its own, whose peak of resident memory is its own, and prints by how much it has grown.
CONSUMER = r"""
import asyncio, re, sys, dnc_async as dnc
from pathlib import Path
cid, store, spool, budget = sys.argv[1:]

def peak_kib():  # of this program: what getrusage tells includes the one that has started it
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])

async def main():
    before = peak_kib()
    try:
        async for batch in dnc.stream(cid, store=store, spool_dir=spool, disk_budget=budget):
            print("a batch")
    except dnc.DncError as error:
        print(type(error).__name__)
    print(peak_kib() - before)

asyncio.run(main())
"""


def promising(dtype: str, *, chunk: Cid, chunk_bytes: int = CHUNK_BYTES) -> tuple[list[Block], Cid]:
    """The blocks of a dataset of two chunks, without those chunks, and its root."""
    manifest = Manifest(
        schema=Schema(columns=(Column(name="x", dtype=dtype, shape=()),), structure="dict"),
        samples=2,
        batch_size=2,
        size_bytes=2 * chunk_bytes,
        largest_chunk_bytes=chunk_bytes,
        first_page=(ChunkDirectory(Cid.of(b""), (ChunkRow(chunk, chunk_bytes),) * 2),),
        pages=(),
    )
    data = manifest.encode()
    assert len(data) < 300
    blocks, file = build_file(data, UNIXFS_V1_2025)
    nodes, root = build_directory([("manifest", file)], UNIXFS_V1_2025)
    return [*reversed(nodes), *blocks], root.cid


@pytest.mark.parametrize("budget", ["0", "2GB"])
@pytest.mark.parametrize("dtype", ["text", "bytes"])
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
def test_chunks_of_900_mb(tmp_path: Path, dtype: str, budget: str) -> None:
    """Their root names 500 leaves that nobody has, or is missing itself: an error, and a few megabytes of memory."""
    leaf = make(b"a leaf that nobody has")
    message = unixfs.encode(Kind.FILE, filesize=CHUNK_BYTES, blocksizes=[LEAF_BYTES] * (CHUNK_BYTES // LEAF_BYTES))
    links = [Link(leaf.cid, "", LEAF_BYTES)] * (CHUNK_BYTES // LEAF_BYTES)
    chunk = make(dagpb.encode(message, links), DAG_PB)
    blocks, root = promising(dtype, chunk=chunk.cid)
    for number, kept in enumerate(([*blocks, chunk], blocks)):
        store = keep(tmp_path / f"store{number}", kept)
        done = subprocess.run(
            [sys.executable, "-c", CONSUMER, str(root), str(store), str(tmp_path / "spool"), budget],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        error, grown = done.stdout.split()
        assert (error, done.stderr) == ("ChunkUnavailableError", "")
        assert int(grown) < 100_000


async def test_a_root_of_another_size(tmp_path: Path) -> None:
    """The chunk's own verified root says its size."""
    message = unixfs.encode(Kind.FILE, filesize=100, blocksizes=[100])
    chunk = make(dagpb.encode(message, [Link(make(bytes(100)).cid, "", 100)]), DAG_PB)
    blocks, root = promising("text", chunk=chunk.cid)
    store = keep(tmp_path / "store", [*blocks, chunk])
    with pytest.raises(ManifestError, match=f"has 100 bytes, the manifest says {CHUNK_BYTES}"):
        async for _ in dnc.stream(str(root), store=store, spool_dir=tmp_path / "spool", disk_budget=0):
            pass


async def test_a_raw_block_that_no_block_can_be(tmp_path: Path) -> None:
    """Refused with its manifest."""
    blocks, root = promising("text", chunk=Cid.of(b""))
    with pytest.raises(ManifestError, match="a raw block of more than 2097152 bytes"):
        await dnc.inspect(str(root), store=keep(tmp_path / "store", blocks))


@pytest.mark.parametrize(("dtype", "needed"), [("bytes", 4 * CHUNK_BYTES), ("text", 2 * CHUNK_BYTES + 32)])
@pytest.mark.parametrize("budget", [0, "20GB"])
async def test_a_batch_larger_than_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int | str, dtype: str, needed: int
) -> None:
    """Refused at the start, with both sizes and what to do; where the memory is not known, it is tried."""
    blocks, root = promising(dtype, chunk=make(b"", DAG_PB).cid)
    store = keep(tmp_path / "store", blocks)

    async def run() -> None:
        async for _ in dnc.stream(str(root), store=store, spool_dir=tmp_path / "spool", disk_budget=budget):
            pass

    monkeypatch.setattr(system, "memory_bytes", lambda: needed - 1)
    with pytest.raises(ManifestError, match=f"a batch may need {needed} bytes .* has {needed - 1}; stream it where"):
        await run()
    for memory in (needed, None):
        monkeypatch.setattr(system, "memory_bytes", lambda memory=memory: memory)
        with pytest.raises(dnc.ChunkUnavailableError):
            await run()


def test_the_memory_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of the limits that are known."""
    found = system.memory_bytes()
    assert found is None or found > 2**26
    texts = {"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "1234\n"}
    monkeypatch.setattr(Path, "read_text", lambda path, **_: texts[str(path)])
    assert system.memory_bytes() == 1234


@pytest.mark.parametrize("item", [b"\x90", b"\x80", b"\xc0", b"\x92\xc0\xc0", b"\x81\xa1a\x90"])
async def test_a_manifest_of_empty_lists(tmp_path: Path, item: bytes) -> None:
    """An item of a byte takes 64 in memory: as many as a file can hold are refused while they are read."""
    count = 2**21
    data = b"\x92\xdd" + (count // 2).to_bytes(4, "big") + item * (count // 2)
    data += b"\xdd" + (count // 2).to_bytes(4, "big") + item * (count // 2)
    blocks, file = build_file(data, UNIXFS_V1_2025)
    nodes, root = build_directory([("manifest", file)], UNIXFS_V1_2025)
    with pytest.raises(ManifestError, match="is not msgpack"):
        await dnc.inspect(str(root.cid), store=keep(tmp_path / "store", [*reversed(nodes), *blocks]))


@pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62, 4], [True], [0, 2**62]])
async def test_shapes_that_numpy_cannot_have(tmp_path: Path, shape: list[object]) -> None:
    """Nothing lies in an axis of length 0, and numpy refuses the others all the same."""
    blocks, _ = promising("|u1", chunk=make(b"", DAG_PB).cid)
    wire = msgpack.unpackb(blocks[1].data)
    wire["schema"]["columns"][0][2] = shape
    blocks, file = build_file(msgpack.packb(wire), UNIXFS_V1_2025)
    nodes, root = build_directory([("manifest", file)], UNIXFS_V1_2025)
    with pytest.raises(ManifestError, match=r"too large for a batch|cannot read"):
        await dnc.inspect(str(root.cid), store=keep(tmp_path / "store", [*reversed(nodes), *blocks]))
