"""CAR files into the store and out of it, and what a walk says of a DAG that is not whole."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from dnc_async.errors import StoreError
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_directory, build_file
from dnc_async.ipld.car import CarReader, encode_header, encode_section
from dnc_async.ipld.cid import DAG_CBOR, DAG_PB, Cid
from dnc_async.store import BlockStore
from dnc_async.store.cars import Imported, export_car, import_car
from dnc_async.store.integrity import check

from ..conftest import FIXTURES
from ..files.test_get import NAMES


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return BlockStore.open(tmp_path / "store", create=True)


def take(store: BlockStore, car: bytes) -> Imported:
    return import_car(store, io.BytesIO(car), name="x.car")


def give(store: BlockStore, root: Cid) -> bytes:
    sink = io.BytesIO()
    blocks, size_bytes = export_car(store, root, sink)
    assert size_bytes == len(sink.getvalue())
    reader = CarReader()
    assert len(reader.feed(sink.getvalue())) == blocks
    assert reader.roots == (root,)
    return sink.getvalue()


def car(roots: list[Cid], blocks: list[Block]) -> bytes:
    return b"".join([encode_header(roots), *map(encode_section, blocks)])


def test_a_source_that_cannot_be_read(store: BlockStore) -> None:
    """A disk that fails is told as such, with the file's name; nothing is kept."""
    good = make(b"good")

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if found := super().read(size):
                return found
            raise OSError(5, "Input/output error")

    with pytest.raises(StoreError, match=r"x\.car: Input/output error; nothing of it was kept"):
        import_car(store, Failing(car([good.cid], [good])), name="x.car")
    assert not store.has(good.cid)


def as_v2(payload: bytes, padding: int = 0, index: bytes = b"") -> bytes:
    """A CARv2 around a CARv1 (ipld.io/specs/transport/car/carv2)."""
    offset = 51 + padding
    header = bytes(16) + b"".join(n.to_bytes(8, "little") for n in (offset, len(payload), offset + len(payload)))
    return bytes.fromhex("0aa16776657273696f6e02") + header + bytes(padding) + payload + index


@pytest.mark.parametrize("name", NAMES)
def test_every_fixture_in_and_out(store: BlockStore, roots: dict[str, Cid], name: str) -> None:
    """What Kubo wrote is complete; what we write of it is complete, the same every time, and holds no inline block."""
    done = take(store, (FIXTURES / f"{name}.car").read_bytes())
    assert done.roots == (roots[name],)
    assert (done.absent, done.incomplete) == ((), ())
    assert store.roots() == [roots[name]]
    found = check(store, roots[name])
    assert found.complete
    written = give(store, roots[name])
    other = BlockStore.open(store.path.parent / "other", create=True)
    assert take(other, written).incomplete == ()
    assert check(other, roots[name]) == found
    assert give(other, roots[name]) == written
    assert b"".join([bytes([1, cid.codec, 0]) for cid in done.roots]) not in written or name == "inline-leaves"


def test_the_order_is_depth_first_and_each_block_once(store: BlockStore) -> None:
    """The root first, then each child before its next sibling."""
    (a,), file_a = build_file(b"a", UNIXFS_V1_2025)
    (b,), file_b = build_file(b"b", UNIXFS_V1_2025)
    (inner,), folder = build_directory([("a", file_a), ("b", file_b)], UNIXFS_V1_2025)
    (outer,), root = build_directory([("1", folder), ("2", file_b), ("3", folder)], UNIXFS_V1_2025)
    take(store, car([root.cid], [b, inner, a, outer]))
    assert give(store, root.cid) == car([root.cid], [outer, inner, a, b])


@pytest.mark.parametrize("padding", [0, 1, 4096])
def test_car_version_2(store: BlockStore, roots: dict[str, Cid], padding: int) -> None:
    """With padding, and with an index that nobody needs."""
    payload = (FIXTURES / "directory.car").read_bytes()
    assert take(store, as_v2(payload, padding, b"\x81\x08" + bytes(500))).roots == (roots["directory"],)
    assert check(store, roots["directory"]).complete


def test_a_part_of_a_dag_is_taken_and_said(store: BlockStore) -> None:
    """A CAR may be one of several: the roots whose block is there are listed, and what lacks a block is named."""
    blocks, root = build_file(bytes(3 * 2**20) + b"end", UNIXFS_V1_2025)
    stranger = make(b"elsewhere")
    *leaves, top = blocks
    done = take(store, car([root.cid, stranger.cid], [top, leaves[0]]))
    assert done.roots == (root.cid,)
    assert done.absent == (stranger.cid,)
    assert done.incomplete == ((root.cid, leaves[-1].cid),)
    found = check(store, root.cid)
    assert (found.missing, found.damaged) == ((leaves[-1].cid,), ())
    with pytest.raises(StoreError, match=f"the block {leaves[-1].cid} is not in the store; 'dnc verify"):
        give(store, root.cid)
    again = take(store, car([root.cid], leaves))
    assert (again.roots, again.incomplete, again.blocks) == ((root.cid,), (), len(leaves))
    assert give(store, root.cid)


def test_no_roots_at_all(store: BlockStore) -> None:
    """Blocks alone are kept."""
    block = make(b"x")
    assert take(store, car([], [block])).roots == ()
    assert store.has(block.cid)
    assert store.roots() == []


def test_garbage_is_refused_whole(store: BlockStore) -> None:
    """Cut, garbled, wrong, or no CAR at all: one error that names the file, and nothing is kept."""
    blocks, root = build_file(random.Random(0).randbytes(3 * 2**20), UNIXFS_V1_2025)
    good = car([root.cid], blocks)
    flipped = bytearray(good)
    flipped[-500_000] ^= 1
    empty_section = good + b"\0"
    for bad, why in [
        (good[:-1], "ends inside"),
        (bytes(flipped), "hash to something else"),
        (empty_section, "a section of 0 bytes"),
        (b"", "ends inside a section or its header"),
        (b"PK\x03\x04" * 1000, "not a CAR|no readable length|a section of"),
        (b"\xff" * 100, "no readable length"),
    ]:
        with pytest.raises(StoreError, match=rf"x\.car: .*({why}).*nothing of it was kept"):
            take(store, bad)
        assert not [path for path in store.path.rglob("*") if path.is_file() and path.name != "format"]


def test_damage_on_the_disk(store: BlockStore) -> None:
    """A block that was changed, one that was deleted, and one that cannot be read as what its codec says."""
    blocks, root = build_file(random.Random(0).randbytes(4 * 2**20), UNIXFS_V1_2025)
    wrong = make(b"\xff\xff", DAG_PB)
    node = make(b"\xa2\x61a" + link(root.cid) + b"\x61b" + link(wrong.cid), DAG_CBOR)
    take(store, car([node.cid], [*blocks, wrong, node]))
    assert check(store, node.cid).damaged == (wrong.cid,)
    files = {path.stat().st_size: path for path in (store.path / "blocks").rglob("*") if path.is_file()}
    assert len(files) < len(blocks)  # the leaves are of one size
    first, second = (path_of(store, block) for block in blocks[:2])
    first.unlink()
    data = bytearray(second.read_bytes())
    data[77] ^= 4
    second.write_bytes(data)
    found = check(store, node.cid)
    assert found.missing == (blocks[0].cid,)
    assert found.damaged == (blocks[1].cid, wrong.cid)
    assert not found.complete
    assert found.blocks == len(blocks) + 2 - 3
    with pytest.raises(
        StoreError,
        match=rf"^cannot export \S+: the block {blocks[0].cid} is not in the store; 'dnc verify \S+' lists all that is wrong$",
    ):
        give(store, node.cid)
    first.write_bytes(blocks[0].data)
    with pytest.raises(StoreError, match=rf"{blocks[1].cid} is damaged"):
        give(store, node.cid)


def link(cid: Cid) -> bytes:
    return b"\xd8\x2a\x58\x25\0" + cid.encode()


def path_of(store: BlockStore, block: Block) -> Path:
    (found,) = (p for p in (store.path / "blocks").rglob("*") if p.is_file() and p.read_bytes() == block.data)
    return found


def test_a_dag_of_many_paths_is_walked_once(store: BlockStore) -> None:
    """Two to the hundred paths lead to its one leaf."""
    (leaf,), entry = build_file(b"leaf", UNIXFS_V1_2025)
    blocks = [leaf]
    for _ in range(100):
        (node,), entry = build_directory([("l", entry), ("r", entry)], UNIXFS_V1_2025)
        blocks.append(node)
    take(store, car([entry.cid], blocks))
    assert check(store, entry.cid).blocks == 101
    assert len(give(store, entry.cid)) < 20_000
