"""Every CAR that Kubo made, read whole, in pieces, cut and garbled, and its files put together again."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dnc_async.errors import BlockMismatchError, CarError, CarTruncatedError, IpldError
from dnc_async.ipld import varint
from dnc_async.ipld.block import Block
from dnc_async.ipld.car import CarReader, encode_header, encode_section, section_bytes
from dnc_async.ipld.cid import Cid
from dnc_async.ipld.directory import DirectoryReader, node_kind, symlink_target
from dnc_async.ipld.plan import FilePlanner, payload

FOLDER = Path(__file__).parent.parent / "fixtures"
FIXTURES = {row["name"]: row for row in json.loads((FOLDER / "index.json").read_text())["fixtures"]}


def car_of(name: str) -> bytes:
    return (FOLDER / f"{name}.car").read_bytes()


def boundaries(car: bytes) -> list[int]:
    """Where the header and each section end."""
    ends, position = [], 0
    while position < len(car):
        size, start = varint.read(car, position)
        position = start + size
        ends.append(position)
    return ends


def read(car: bytes, sizes: Iterator[int] | None = None) -> list[Block]:
    reader, found, position = CarReader(), [], 0
    while position < len(car):
        size = len(car) if sizes is None else next(sizes)
        found += reader.feed(car[position : position + size])
        position += size
    reader.close()
    return found


@pytest.mark.parametrize("name", FIXTURES)
def test_pieces_of_any_size_give_the_same(name: str) -> None:
    """Whole, byte by byte, and in random pieces; bytes, bytearrays and views alike."""
    car = car_of(name)
    whole = read(car)
    assert len(whole) == len(boundaries(car)) - 1
    assert read(car, iter([1] * len(car))) == whole
    rng = random.Random(name)
    for _ in range(5):
        assert read(car, iter([rng.choice([1, 2, 40, 200, 300, 5000])] * len(car))) == whole
        assert read(car, (rng.randint(1, 700) for _ in car)) == whole
    reader, reused, found = CarReader(), bytearray(64), []
    for start in range(0, len(car), 64):
        piece = car[start : start + 64]
        reused[: len(piece)] = piece
        found += reader.feed(memoryview(reused)[: len(piece)])
        reused[:] = bytes(64)  # what was fed may be used again by its owner
    reader.close()
    assert found == whole


@pytest.mark.parametrize("name", FIXTURES)
def test_cut_anywhere(name: str) -> None:
    """A CAR cut inside a section is truncated there, and all before it is kept; cut between sections it looks whole."""
    car, ends = car_of(name), boundaries(car_of(name))
    rng = random.Random(name)
    cuts = {*ends[:40], *(end - 1 for end in ends[:40]), *(end + 1 for end in ends[:-1][:40])}
    cuts |= {rng.randrange(len(car)) for _ in range(40)}
    for cut in sorted(cuts):
        complete = sum(end <= cut for end in ends)
        for size in (cut or 1, 37):
            reader, found = CarReader(), []
            for start in range(0, cut, size):
                found += reader.feed(car[start : min(cut, start + size)])
            assert len(found) == max(0, complete - 1)
            if cut in ends:
                reader.close()
                continue
            with pytest.raises(CarTruncatedError) as raised:
                reader.close()
            assert raised.value.offset == ([0, *ends][complete])


@pytest.mark.parametrize("name", FIXTURES)
def test_tail_and_garbage(name: str) -> None:
    """What follows the last section is an error at its offset, and takes nothing verified along."""
    car = car_of(name)
    whole = read(car)
    for tail, kind in ((b"\0" * 100, CarError), (b"\n[Gateway Error: CAR stream truncated]\n" * 9, IpldError)):
        reader = CarReader()
        found = reader.feed(car + tail) if whole else []
        assert found == whole
        with pytest.raises(kind) as raised:
            reader.feed(b"more") if whole else reader.feed(car + tail)
        assert getattr(raised.value, "offset", len(car)) == len(car)
        with pytest.raises(kind):
            reader.close()


@pytest.mark.parametrize("name", FIXTURES)
def test_flipped_bit(name: str) -> None:
    """One flipped bit anywhere in the sections: every block before is right, none behind it is believed."""
    car, rng = car_of(name), random.Random(name)
    whole, ends = read(car), boundaries(car)
    for _ in range(60 if whole and ends[0] < len(car) else 0):
        at = rng.randrange(ends[0], len(car))
        damaged = bytearray(car)
        damaged[at] ^= 1 << rng.randrange(8)
        reader, found = CarReader(), []
        try:
            found += reader.feed(bytes(damaged))
            reader.close()
        except IpldError:
            pass
        # A flip in a CID's codec or version still names the same bytes.
        sound = {block.cid.multihash: block.data for block in whole}
        assert all(sound[block.cid.multihash] == block.data for block in found)


def test_mismatch_says_where() -> None:
    """The error names the CID and the section."""
    car = bytearray(car_of("directory"))
    car[-1] ^= 1
    reader = CarReader()
    assert reader.feed(bytes(car))
    with pytest.raises(BlockMismatchError, match=r"in the section at byte \d+"):
        reader.close()


@pytest.mark.parametrize("name", FIXTURES)
def test_writer_gives_kubos_bytes(name: str) -> None:
    """The same roots and blocks are the same CAR, of the size that was known before."""
    car = car_of(name)
    reader = CarReader()
    blocks = reader.feed(car)
    assert reader.roots == (Cid.parse(FIXTURES[name]["root"]),)
    header = encode_header(reader.roots)
    assert b"".join([header, *map(encode_section, blocks)]) == car
    assert len(header) + sum(section_bytes(block.cid, len(block.data)) for block in blocks) == len(car)


class Tree:
    """A DAG's blocks, and its files by walking from the root."""

    def __init__(self, name: str) -> None:
        self.blocks = {block.cid.multihash: block for block in read(car_of(name))}
        self.root = Cid.parse(FIXTURES[name]["root"])

    def file(self, cid: Cid, start: int = 0, end: int | None = None) -> bytes:
        planner = FilePlanner(cid, start, end)
        while wanted := planner.wanted():
            for node in wanted:
                planner.receive(self.blocks[node.multihash])
        out = []
        for leaf in planner.leaves:
            data = leaf.inline if leaf.inline is not None else payload(leaf, self.blocks[leaf.cid.multihash])
            first = max(0, start - leaf.offset)
            out.append(data[first : None if end is None else max(0, end - leaf.offset)])
        return b"".join(out)

    def walk(self, cid: Cid, path: str = "") -> Iterator[tuple[str, Any]]:
        block = self.blocks.get(cid.multihash)
        kind = "file" if block is None or cid.inline is not None else node_kind(block)
        if kind == "directory":
            reader = DirectoryReader(cid)
            while wanted := reader.wanted():
                for node in wanted:
                    reader.receive(self.blocks[node.multihash])
            for entry in reader.entries:
                yield from self.walk(entry.cid, f"{path}/{entry.name}".lstrip("/"))
        elif kind == "symlink" and block is not None:
            yield path, symlink_target(block)
        else:
            yield path, self.file(cid)


@pytest.mark.parametrize("name", FIXTURES)
def test_files_come_back(name: str) -> None:
    """Every file that Kubo put in, with its hash and size; nothing else."""
    tree = Tree(name)
    found = dict(tree.walk(tree.root))
    for path, expected in FIXTURES[name]["files"].items():
        content = found.pop(path)
        if isinstance(content, str):
            assert content in expected.values()
            continue
        assert len(content) == expected["size"]
        assert hashlib.sha256(content).hexdigest() == expected["sha256"]
    assert all(isinstance(content, str) for content in found.values())  # symlinks


@pytest.mark.parametrize("name", [name for name, row in FIXTURES.items() if list(row["files"]) == [""]])
def test_ranges_are_slices(name: str) -> None:
    """A plan of a byte range has the leaves that it touches, and no node that it does not need."""
    tree, rng = Tree(name), random.Random(name)
    content = tree.file(tree.root)
    for _ in range(40):
        start = rng.randint(0, len(content) + 10)
        end = rng.choice([None, rng.randint(start, len(content) + 20)])
        assert tree.file(tree.root, start, end) == content[start:end]
