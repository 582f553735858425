"""What a hostile DAG, or a neighbour on the same disk, could try on ``get``."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

import dnc_async as dnc
from dnc_async.engine.files import output
from dnc_async.engine.files.output import PartialOutput
from dnc_async.engine.files.tree_size import TreeSize
from dnc_async.errors import DagError, OutputError
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import (
    UNIXFS_V1_2025,
    build_file,
    build_symlink,
)
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.ipld.dagpb import Link
from dnc_async.ipld.plan import Leaf
from dnc_async.ipld.unixfs import Kind

from .conftest import Keep


def directory_of(*links: Link) -> Block:
    return make(dagpb.encode(unixfs.encode(Kind.DIRECTORY), links), DAG_PB)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../../victim", "/etc/x", "a\0b"])
async def test_names_that_would_leave_the_target(keep: Keep, tmp_path: Path, name: str) -> None:
    """Refused, with nothing written anywhere."""
    (leaf,), _ = build_file(b"evil", UNIXFS_V1_2025)
    node = directory_of(Link(leaf.cid, name, 4))
    store = keep([leaf, node], node.cid)
    with pytest.raises(DagError, match="may not be named"):
        await dnc.get(node.cid, tmp_path / "in/out", store=store)
    assert os.listdir(tmp_path / "in") == []


async def test_nothing_is_written_through_a_symlink(keep: Keep, tmp_path: Path) -> None:
    """A link and a folder of one name: the first counts, and what is below the other goes nowhere."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (leaf,), _ = build_file(b"evil", UNIXFS_V1_2025)
    (link,), _ = build_symlink(str(victim), UNIXFS_V1_2025)
    folder = directory_of(Link(leaf.cid, "f", 4))
    for order in ([link, folder], [folder, link]):
        node = directory_of(*(Link(block.cid, "x", 4) for block in order))
        store = keep([leaf, link, folder, node], node.cid)
        saved = await dnc.get(node.cid, tmp_path / f"out{order.index(link)}", store=store)
        assert saved.files == order.index(link)
    assert os.listdir(victim) == []


async def test_a_part_that_is_a_symlink(keep: Keep, tmp_path: Path) -> None:
    """Somebody laid a link where the part would be: it is not followed."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (leaf,), root = build_file(b"evil", UNIXFS_V1_2025)
    part = tmp_path / f".out.{str(root.cid)[-24:]}.part"
    part.symlink_to(victim)
    with pytest.raises(OutputError, match=r"\.part: "):
        await dnc.get(root.cid, tmp_path / "out", store=keep([leaf], root.cid))
    assert victim.read_text() == "mine"


def test_two_names_that_the_file_system_cannot_tell_apart(tmp_path: Path) -> None:
    """A hard link stands for a file system without upper and lower case."""
    part = PartialOutput(tmp_path / ".part", tmp_path / "out", folder=True)
    part.file("Name").close()
    os.link(tmp_path / ".part/Name", tmp_path / ".part/name")
    with pytest.raises(OutputError, match="does not tell their names apart"):
        part.file("name")
    part.make_folder("Folder")
    part.make_folder("Folder")  # the same again, as when a call goes on
    part.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """Whoever comes second is told so; the first one's part stays as it is."""
    for folder in (True, False):
        first = PartialOutput(tmp_path / f".{folder}", tmp_path / "out", folder=folder)
        with pytest.raises(OutputError, match="being written by another process"):
            PartialOutput(tmp_path / f".{folder}", tmp_path / "out", folder=folder)
        first.close()
        assert not (tmp_path / f".{folder}").exists()


def test_a_part_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not where all that we make belongs to somebody else, as on a mount that squashes users."""
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    for folder in (True, False):
        for resumed in (False, True):
            part = PartialOutput(tmp_path / f".{folder}", tmp_path / f"out-{folder}-{resumed}", folder=folder)
            assert part.resumed is resumed
            part.file("f" if folder else "").place(Leaf(make(b"x").cid, 0, 1, b"x"), b"x")
            part.close()
        monkeypatch.setattr(output, "_owner_of_new_files", lambda _: own + 1)
        with pytest.raises(OutputError, match="is another user's; remove it, or choose another place"):
            PartialOutput(tmp_path / f".{folder}", tmp_path / "out", folder=folder)
        monkeypatch.undo()
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert sorted(os.listdir(tmp_path)) == [".False", ".True"]


async def test_a_file_larger_than_the_disk(keep: Keep, tmp_path: Path) -> None:
    """A few blocks that claim to be terabytes: refused before a byte is written; a range of it can be read."""
    blocks, root = bomb(levels=4)
    store = keep(blocks, root)
    with pytest.raises(OutputError, match="no space"):
        await dnc.get(root, tmp_path / "out", store=store)
    size = 1000**4
    assert [entry.size_bytes for entry in await dnc.ls(root, store=store)] == [size]
    assert await dnc.cat(root, size // 2, size // 2 + 5, store=store) == b"xxxxx"


def bomb(levels: int) -> tuple[list[Block], Cid]:
    """A file of 1000 ** levels bytes in levels + 1 blocks."""
    block, size = make(b"x"), 1
    blocks = [block]
    for _ in range(levels):
        message = unixfs.encode(Kind.FILE, filesize=1000 * size, blocksizes=[size] * 1000)
        block, size = make(dagpb.encode(message, [Link(block.cid, "", 1)] * 1000), DAG_PB), 1000 * size
        blocks.append(block)
    return blocks, block.cid


async def test_a_tree_without_a_ground(keep: Keep, tmp_path: Path) -> None:
    """More than 256 folders in each other are refused."""
    blocks = [directory_of()]
    for _ in range(260):
        blocks.append(directory_of(Link(blocks[-1].cid, "d", 1)))
    with pytest.raises(DagError, match="nested more than 256"):
        await dnc.get(blocks[-1].cid, tmp_path / "out", store=keep(blocks, blocks[-1].cid))


async def test_sizes_that_do_not_add_up(keep: Keep, tmp_path: Path) -> None:
    """A leaf that is longer or shorter than its parent says; and one that no block can be."""
    for claimed, why in [
        (3, "the leaf .* has 4 bytes|over the limit"),
        (5, "has 4 bytes"),
        (2**22, "a block may have"),
    ]:
        (leaf,), _ = build_file(b"data", UNIXFS_V1_2025)
        message = unixfs.encode(Kind.FILE, filesize=claimed, blocksizes=[claimed])
        node = make(dagpb.encode(message, [Link(leaf.cid, "", 4)]), DAG_PB)
        with pytest.raises(dnc.DncError) as caught:
            await dnc.get(node.cid, tmp_path / "out", store=keep([leaf, node], node.cid))
        assert re.search(why, str(caught.value))
    assert not (tmp_path / "out").exists()


async def test_what_is_no_file_at_all(keep: Keep, tmp_path: Path) -> None:
    """dag-cbor, and dag-pb that is not UnixFS."""
    for node in (make(b"\xa0", 0x71), make(dagpb.encode(b"\xff", []), DAG_PB)):
        with pytest.raises(DagError, match="neither a file"):
            await dnc.get(node.cid, tmp_path / "out", store=keep([node], node.cid))


def forest(lowest: list[Block], levels: int, links: int = 1000) -> tuple[list[Block], Cid]:
    """Directories that hold the one below them ``links`` times, down to a block, in levels + 1 blocks."""
    blocks = list(lowest)
    for _ in range(levels):
        below = blocks[-1].cid
        blocks.append(directory_of(*(Link(below, f"{i:03}", 1) for i in range(links))))
    return blocks, blocks[-1].cid


@pytest.mark.parametrize("lowest", [directory_of(), make(b""), build_symlink("x", UNIXFS_V1_2025)[0][0]])
async def test_a_tree_larger_than_the_disk(keep: Keep, tmp_path: Path, lowest: Block) -> None:
    """10^18 folders, empty files or symlinks in 300 kB: refused when some folders were read, and few were made."""
    blocks, root = forest([lowest], levels=6)
    assert sum(block.size_bytes for block in blocks) < 300_000
    told: list[dnc.Saved] = []
    with pytest.raises(OutputError, match=r"the tree has [0-9,]{10,} entries or more, of which") as caught:
        await dnc.get(root, tmp_path / "out", store=keep(blocks, root), progress=told.append)
    assert "free some space, or get a part of it" in str(caught.value)
    part = next(tmp_path.glob(".out.*.part"))
    assert sum(len(folders) + len(names) for _, folders, names in os.walk(part)) < 10_000
    assert told[-1].directories > 1


async def test_a_tree_that_just_fits(keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry counts a block of the disk; what an earlier call made counts no more, nor where the disk does not tell."""
    blocks, root = forest([directory_of(), make(b"")], levels=2, links=40)
    store = keep(blocks, root)
    monkeypatch.setattr(output, "block_bytes", lambda _: 10)
    monkeypatch.setattr(output, "free_bytes", lambda _: 0)
    with pytest.raises(OutputError, match="the tree has 1,640 entries or more"):
        await dnc.get(root, tmp_path / "out", store=store)
    part = next(tmp_path.glob(".out.*.part"))
    made = sum(len(folders) + len(names) for _, folders, names in os.walk(part))
    monkeypatch.setattr(output, "free_bytes", lambda _: 10 * (1_640 - made))
    assert (await dnc.get(root, tmp_path / "out", store=store)).files == 1600
    monkeypatch.setattr(output, "free_bytes", lambda _: None)
    assert (await dnc.get(root, tmp_path / "again", store=store)).files == 1600


def test_the_size_of_a_tree() -> None:
    """Directories in each other in any way are counted once each; beyond a limit their own entries alone count."""
    tree, nodes = TreeSize(), [make(b"%d" % i, DAG_PB).cid for i in range(100)]
    for place in range(98):  # each holds the two below it: 2^50 ways to the lowest
        tree.listed(nodes[place], [nodes[place + 1], nodes[place + 2]])
    assert tree.entries() > 2**64
    assert "98 directories" in repr(tree)
    tree = TreeSize()
    assert not tree.listed(nodes[0], [nodes[1]] * 1023)
    assert tree.listed(nodes[0], [nodes[1]] * 1023)
    assert not tree.listed(nodes[0], [nodes[1]] * 2045)
    assert tree.entries() == 1023 + 1023 + 2045
    many = [Cid(1, DAG_PB, b"\x12\x20" + i.to_bytes(32, "big")) for i in range(2**17)]
    tree.listed(nodes[1], many)
    tree.listed(nodes[2], many)
    assert "2 directories" in repr(tree)


async def test_large_nodes_are_parsed_beside_the_loop(
    keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node of 2 MiB may have 262,000 links: where the other streams of a client run, it is not parsed."""
    links = [Link(Cid(1, RAW, b"\0\0"), "", 0)] * 20_000
    odd = make(dagpb.encode(unixfs.encode(Kind.FILE, data=b"x"), links), DAG_PB)
    sized = make(dagpb.encode(unixfs.encode(Kind.FILE, data=b"x", blocksizes=[0] * 20_000), links), DAG_PB)
    (leaf,), _ = build_file(b"data", UNIXFS_V1_2025)
    root = directory_of(
        *(Link(block.cid, f"{block.cid}", 1) for block in (odd, sized)),
        *(Link(leaf.cid, f"{i:05}", 1) for i in range(1000)),
    )
    store = keep([leaf, odd, sized, root], root.cid)
    large: dict[str, int] = {}
    decode = dagpb.decode

    def watched(data: bytes) -> dagpb.Node:
        if len(data) > 2**14:
            name = threading.current_thread().name
            large[name] = large.get(name, 0) + 1
        return decode(data)

    monkeypatch.setattr(dagpb, "decode", watched)
    async with dnc.Client(store=store, disk_budget=0) as client:
        assert len(await client.ls(root.cid)) == 1002
        assert [entry.kind for entry in await client.ls(odd.cid)] == ["file"]
        assert await client.cat(odd.cid) == await client.cat(sized.cid) == b"x"
        assert (await client.get(root.cid, tmp_path / "out")).files == 1002
        async with client.open(sized.cid) as file:
            assert await file.read() == b"x"
    assert len(large) >= 1
    assert all(name.startswith("dnc_async worker") for name in large), large
