"""Files whose nodes do not say, or not truly, how long their parts are: read from their start on, as Kubo reads them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async.engine.files import sequential
from dnc_async.errors import DagError, PathError
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, build_directory, build_file
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.ipld.dagpb import Link
from dnc_async.ipld.unixfs import Kind
from dnc_async.testing import GatewayProcess

from ..conftest import Shell
from .conftest import Keep, content, threads

DATA = content(9_000)


@dataclass
class Dag:
    """Blocks on their way, and nodes over them that say what they are told to."""

    blocks: list[Block]

    def leaf(self, start: int, end: int, *, raw: bool = True) -> Link:
        data = DATA[start:end]
        block = make(data) if raw else make(dagpb.encode(unixfs.encode(Kind.FILE, data=data), ()), DAG_PB)
        self.blocks.append(block)
        return Link(block.cid, "", end - start)

    def node(self, links: list[Link], data: bytes | None = None, **said: Any) -> Link:
        self.blocks.append(make(dagpb.encode(unixfs.encode(Kind.FILE, data=data, **said), links), DAG_PB))
        return Link(self.blocks[-1].cid, "", 0)


def leaves(dag: Dag, start: int, end: int, count: int, *, raw: bool = True) -> list[Link]:
    edges = [start + (end - start) * i // count for i in range(count + 1)]
    return [dag.leaf(a, b, raw=raw) for a, b in itertools.pairwise(edges)]


def files() -> Iterator[tuple[str, Dag, bool]]:
    """Name, blocks (the root last), and whether ranges of it can be read at random."""
    ten = [900] * 10
    for name, said, is_sized in [
        ("no blocksizes", {"filesize": 9_000}, False),
        ("no sizes at all", {}, False),
        ("filesize 0", {"filesize": 0}, False),
        ("too few blocksizes", {"filesize": 9_000, "blocksizes": ten[:4]}, False),
        ("too many blocksizes", {"filesize": 9_000, "blocksizes": [*ten, 0]}, False),
        ("blocksizes of 0", {"filesize": 0, "blocksizes": [0] * 10}, False),
        ("one blocksize of 0", {"blocksizes": [*ten[:9], 0]}, False),
        ("another filesize", {"filesize": 8_999, "blocksizes": ten}, False),
        ("blocksizes alone", {"blocksizes": ten}, True),
        ("blocksizes and filesize 0", {"filesize": 0, "blocksizes": ten}, True),
    ]:
        for raw in (True, False):
            dag = Dag([])
            dag.node(leaves(dag, 0, 9_000, 10, raw=raw), **said)
            yield f"{name}{'' if raw else ', dag-pb leaves'}", dag, is_sized
    dag = Dag([])
    inner = [dag.node(leaves(dag, 3_000 * i, 3_000 * i + 3_000, 40)) for i in range(3)]
    dag.node(inner, filesize=9_000, blocksizes=[3_000] * 3)
    yield "inner nodes without sizes", dag, True
    dag = Dag([])
    inner = [
        dag.node(leaves(dag, 0, 3_000, 2), filesize=3_000, blocksizes=[1_500] * 2),
        dag.node(leaves(dag, 3_000, 9_000, 2), filesize=6_000, blocksizes=[3_000] * 2),
    ]
    dag.node(inner, filesize=9_000, blocksizes=[4_500] * 2)
    yield "inner nodes of other sizes", dag, True
    dag = Dag([])
    first = leaves(dag, 100, 3_000, 3)
    dag.node([*first, dag.node(leaves(dag, 3_500, 9_000, 30, raw=False), DATA[3_000:3_500])], DATA[:100])
    yield "data on inner nodes", dag, False
    dag = Dag([])
    deep = dag.leaf(0, 9_000)
    for _ in range(60):
        deep = dag.node([deep])
    yield "deep", dag, False
    dag = Dag([])
    empty = make(b"")
    dag.blocks.append(empty)
    dag.node(
        [Link(empty.cid, "", 0), dag.leaf(0, 9_000), Link(empty.cid, "", 0)], filesize=9_000, blocksizes=[0, 9_000, 0]
    )
    yield "empty leaves", dag, True
    dag = Dag([])
    dag.node([], DATA, filesize=3, blocksizes=[7])
    yield "data alone, and sizes of something else", dag, False


FILES = {name: (dag, is_sized) for name, dag, is_sized in files()}
#: Sizes that are wrong somewhere inside: nobody sees it before the inner node is there.
DEEP = ("inner nodes without sizes", "inner nodes of other sizes")


@pytest.mark.parametrize("name", FILES)
async def test_all_of_it_is_read(keep: Keep, tmp_path: Path, name: str) -> None:
    """Whole and by ranges, to the disk alone and in a tree, over what an earlier call left; by ``open`` where that can be."""
    dag, is_sized = FILES[name]
    file = dag.blocks[-1].cid
    other, plain = build_file(b"other", UNIXFS_V1_2025)
    above, root = build_directory([("f", Root(file, None, 1)), ("other", plain)], UNIXFS_V1_2025)
    store = keep([*dag.blocks, *other, *above], root.cid)
    async with dnc.Client(store=store, disk_budget=0) as client:
        for address in (file, f"{root.cid}/f"):
            assert await client.cat(address) == DATA
            for start, end in [
                (0, 1),
                (100, 8_000),
                (8_999, None),
                (-10, None),
                (-9_100, -8_990),
                (5, 3),
                (9_000, 9_999),
            ]:
                assert await client.cat(address, start, end) == DATA[start:end], (start, end)
        (itself,) = await client.ls(file)
        assert (itself.kind, itself.size_bytes) == ("file", 9_000 if is_sized else None)
        assert {e.name: e.size_bytes for e in await client.ls(root.cid)} == {"f": itself.size_bytes, "other": 5}
        saved = await client.get(file, tmp_path / "file")
        assert saved.path.read_bytes() == DATA
        assert (saved.size_bytes, saved.reused_bytes, saved.files) == (9_000, 0, 1)
        part = tmp_path / f".tree.{str(root.cid)[-24:]}.part"
        part.mkdir()
        (part / "f").write_bytes(DATA[:4_000] + bytes(9_000))
        saved = await client.get(root.cid, tmp_path / "tree")
        assert (saved.path / "f").read_bytes() == DATA
        assert (saved.size_bytes, saved.files) == (9_005, 2)
        if is_sized and name not in DEEP:
            async with client.open(file) as opened:
                assert await opened.read() == DATA
        else:
            with pytest.raises((PathError, DagError), match=r"read it whole, by cat\(\) or get\(\)|expected|links"):
                async with client.open(file) as opened:
                    await opened.read()
    assert threads() == []


async def test_through_a_gateway(keep: Keep, tmp_path: Path) -> None:
    """Each block is fetched about once."""
    dag, _ = FILES["no sizes at all"]
    file = dag.blocks[-1].cid
    with GatewayProcess(keep(dag.blocks, file)) as gateway:
        assert await dnc.cat(file, gateways=gateway.url) == DATA
        assert gateway.stats().blocks_served <= 2 * len(dag.blocks)
        saved = await dnc.get(file, tmp_path / "out", gateways=gateway.url)
    assert saved.path.read_bytes() == DATA


async def test_a_leaf_that_is_repeated(keep: Keep) -> None:
    """As files with holes have it: fetched once, given as often as it is linked."""
    dag = Dag([])
    zeros = make(bytes(50_000))
    dag.blocks.append(zeros)
    dag.node([Link(zeros.cid, "", 0)] * 500)
    file = dag.blocks[-1].cid
    with GatewayProcess(keep(dag.blocks, file)) as gateway:
        assert await dnc.cat(file, gateways=gateway.url) == bytes(50_000 * 500)
        assert gateway.stats().blocks_served <= 6


def bomb(levels: int, data: bytes) -> tuple[list[Block], Cid]:
    """A few blocks whose nodes repeat each other, and that do not say how much they are."""
    blocks = [make(data)]
    for _ in range(levels):
        blocks.append(make(dagpb.encode(unixfs.encode(Kind.FILE), [Link(blocks[-1].cid, "", 1)] * 1000), DAG_PB))
    return blocks, blocks[-1].cid


async def test_bombs(keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless ones end at a bound, of nodes that are empty as of those that are not; so do chains."""
    assert sequential.MAX_LEAVES == 131_072
    monkeypatch.setattr(sequential, "MAX_LEAVES", 5_000)
    for data in (b"", b"x"):
        blocks, root = bomb(4, data)
        store = keep(blocks, root)
        with pytest.raises(DagError, match="more than 5000 parts, and does not say"):
            await dnc.cat(root, store=store)
        with pytest.raises(DagError, match="more than 5000 parts"):
            await dnc.get(root, tmp_path / "out", store=store)
        assert await dnc.cat(root, 0, 1, store=store) == b"x" if data else True
    dag = Dag([])
    deep = dag.leaf(0, 10)
    for _ in range(70):
        deep = dag.node([deep])
    with pytest.raises(DagError, match="nested more than 64 levels deep"):
        await dnc.cat(deep.cid, store=keep(dag.blocks, deep.cid))
    assert not (tmp_path / "out").exists()


async def test_parts_that_are_none(keep: Keep) -> None:
    """A directory, a symlink, another codec, or a block that nobody has."""
    dag = Dag([])
    strange = [
        make(dagpb.encode(unixfs.encode(Kind.DIRECTORY), ()), DAG_PB),
        make(dagpb.encode(unixfs.encode(Kind.SYMLINK, data=b"x"), ()), DAG_PB),
        make(b"\xa0", 0x71),
        make(b"git", 0x78, "sha1"),
    ]
    for block in strange:
        dag.blocks.append(block)
        file = dag.node([dag.leaf(0, 10), Link(block.cid, "", 1)])
        with pytest.raises(DagError, match=r"expected a file|neither raw nor dag-pb|is not read"):
            await dnc.cat(file.cid, store=keep(dag.blocks, file.cid))
    missing = dag.node([dag.leaf(0, 10), Link(Cid.of(b"nowhere", RAW), "", 1)])
    with pytest.raises(dnc.ChunkUnavailableError):
        await dnc.cat(missing.cid, store=keep(dag.blocks, missing.cid))


def test_in_the_shell(shell: Shell, keep: Keep) -> None:
    """As any file."""
    dag, _ = FILES["no blocksizes"]
    store = keep(dag.blocks, dag.blocks[-1].cid)
    said = json.loads(shell("get", dag.blocks[-1].cid, "-o", "out", "--store", store, "--json").stdout)
    assert (shell.home / "out").read_bytes() == DATA
    assert said["size_bytes"] == 9_000
