"""``cat``, ``ls`` and ``open``: ranges of any file, and what is in any directory."""

from __future__ import annotations

import hashlib
import io
import os
import random
from dataclasses import replace
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async.config import FetchSettings
from dnc_async.errors import ArgumentError, CidError, PathError, StreamClosedError
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import UNIXFS_V0_2015, UNIXFS_V1_2025, Root, build_directory, build_file, build_symlink
from dnc_async.ipld.cid import DAG_PB, Cid
from dnc_async.ipld.dagpb import Link
from dnc_async.ipld.unixfs import Kind
from dnc_async.store import BlockStore
from dnc_async.testing import GatewayProcess

from ..conftest import NOBODY
from .conftest import Keep, content, threads
from .test_get import NAMES


@pytest.mark.parametrize("name", NAMES)
async def test_every_file_of_every_fixture(
    kubo_store: BlockStore, roots: dict[str, Cid], fixture_files: dict[str, Any], name: str
) -> None:
    """Whole, and by ranges that begin and end anywhere."""
    rng = random.Random(name)
    async with dnc.Client(store=kubo_store.path, disk_budget=0) as client:
        for path, row in rng.sample(sorted(fixture_files[name].items()), min(8, len(fixture_files[name]))):
            if "sha256" not in row:
                continue
            address = f"{roots[name]}/{path}".rstrip("/")
            data = await client.cat(address)
            assert hashlib.sha256(data).hexdigest() == row["sha256"]
            for _ in range(12):
                start, end = (rng.randint(-len(data) - 3, len(data) + 3) for _ in range(2))
                assert await client.cat(address, start, rng.choice([end, None])) in (data[start:end], data[start:])


def inner_data() -> tuple[list[Block], Cid, bytes]:
    """A file whose data lies on its inner nodes too, before their children: no writer that we know makes one."""
    data, leaves = content(4000), []

    def leaf(start: int, end: int) -> tuple[Link, int]:
        leaves.append(make(data[start:end]))
        return Link(leaves[-1].cid, "", end - start), end - start

    def node(own: bytes, children: list[tuple[Link, int]]) -> tuple[Link, int]:
        size = len(own) + sum(each[1] for each in children)
        message = unixfs.encode(Kind.FILE, data=own, filesize=size, blocksizes=[each[1] for each in children])
        leaves.append(make(dagpb.encode(message, [each[0] for each in children]), DAG_PB))
        return Link(leaves[-1].cid, "", size), size

    left = node(data[100:400], [leaf(400, 1000), leaf(1000, 1001), node(data[1001:1500], [])])
    right = node(data[1500:1700], [node(data[1700:1710], [leaf(1710, 3000)]), leaf(3000, 4000)])
    root, size = node(data[:100], [left, right])
    assert size == len(data)
    return leaves, root.cid, data


async def test_data_on_inner_nodes(keep: Keep, tmp_path: Any) -> None:
    """Every range of some hundred, and the whole to the disk."""
    blocks, root, data = inner_data()
    store, rng = keep(blocks, root), random.Random(0)
    async with dnc.Client(store=store, disk_budget=0) as client:
        assert await client.cat(root) == data
        for _ in range(200):
            start, end = sorted(rng.randint(0, len(data)) for _ in range(2))
            assert await client.cat(root, start, end) == data[start:end]
    assert (await dnc.get(root, tmp_path / "out", store=store)).path.read_bytes() == data


async def test_only_the_blocks_of_the_range_are_fetched(keep: Keep) -> None:
    """A slice in the middle of a large file costs its nodes and one leaf."""
    data = content(2**22)
    for profile in (replace(UNIXFS_V1_2025, leaf_bytes=2**14), replace(UNIXFS_V0_2015, leaf_bytes=2**14)):
        blocks, root = build_file(data, profile)
        with GatewayProcess(keep(blocks, root.cid)) as gateway:
            assert await dnc.cat(root.cid, 10**6, 10**6 + 10, gateways=gateway.url) == data[10**6 : 10**6 + 10]
            assert gateway.stats().blocks_served <= 3


async def test_ls(keep: Keep) -> None:
    """Kinds and sizes of what is in a directory, plain and sharded; and of a file itself."""
    made: dict[str, tuple[list[Block], Root]] = {
        "raw": build_file(b"12345", UNIXFS_V1_2025),
        "old": build_file(b"1234567", UNIXFS_V0_2015),
        "large": build_file(content(2**21), UNIXFS_V1_2025),
        "link": build_symlink("raw", UNIXFS_V1_2025),
        "folder": build_directory([], UNIXFS_V1_2025),
    }
    entries = [(name, root) for name, (_, root) in made.items()]
    many = [(f"n{i:03}", made["raw"][1]) for i in range(300)]
    expected = {"raw": ("file", 5), "old": ("file", 7), "large": ("file", 2**21), "link": ("symlink", None)}
    expected["folder"] = ("directory", None)
    for profile in (UNIXFS_V1_2025, replace(UNIXFS_V1_2025, hamt_threshold_bytes=100, hamt_fanout=8)):
        blocks, root = build_directory([*entries, *many], profile)
        store = keep([*blocks, *(block for each in made.values() for block in each[0])], root.cid)
        listed = await dnc.ls(root.cid, store=store)
        assert len(listed) == 305
        found = {entry.name: (entry.kind, entry.size_bytes) for entry in listed}
        assert {name: found[name] for name in expected} == expected
        assert found["n299"] == ("file", 5)
        assert {entry.cid for entry in listed} == {str(root.cid) for _, root in entries}
        (itself,) = await dnc.ls(f"{root.cid}/large", store=store)
        assert (itself.name, itself.kind, itself.size_bytes) == ("large", "file", 2**21)


async def test_what_is_not_there_or_not_a_file(keep: Keep) -> None:
    """Errors name the path and what is there instead."""
    blocks, root = build_directory([], UNIXFS_V1_2025)
    store = keep(blocks, root.cid)
    with pytest.raises(PathError, match=f"{root.cid} is a directory, expected a file"):
        await dnc.cat(root.cid, store=store)
    with pytest.raises(PathError, match="has no 'x' in it"):
        await dnc.ls(f"{root.cid}/x", store=store)
    with pytest.raises(PathError, match="is a directory"):
        async with dnc.open(root.cid, store=store):
            pass
    assert threads() == []


async def test_ways_to_write_a_path(keep: Keep) -> None:
    """A URL is decoded; a path is what it is, to its last white space."""
    names = ["a b", "a%20b", "a.txt", "a.txt ", "a.txt\xa0", "a.txt\t", "a.txt\n", " a", "a?b#c", " "]
    made = {name: build_file(repr(name).encode(), UNIXFS_V1_2025) for name in names}
    blocks, root = build_directory([(name, each[1]) for name, each in made.items()], UNIXFS_V1_2025)
    store = keep([*blocks, *(block for each in made.values() for block in each[0])], root.cid)
    forms = {
        "ipfs://{}/a%20b": "a b",
        "IPFS://{}/a%2520b": "a%20b",
        "ipfs://{}/a%20b?filename=x#top": "a b",
        "ipfs://{}/a%3fb%23c": "a?b#c",
        "ipfs://{}/a.txt%20": "a.txt ",
        "ipfs://{}/a.txt%C2%a0": "a.txt\xa0",
        "ipfs://{}/x/%2e%2E/./a.txt": "a.txt",
        "/ipfs/{}/a b": "a b",
        "/ipfs/{}//a.txt ": "a.txt ",
        "{}/a%20b": "a%20b",
        "{}/a?b#c": "a?b#c",
        " {}//a b/": "a b",
        "\n{}/./x/..// a": " a",
        "{}/ ": " ",
        **{"{}/" + name: name for name in names},
    }
    async with dnc.Client(store=store, disk_budget=0) as client:
        for form, name in forms.items():
            assert await client.cat(form.format(root.cid)) == repr(name).encode(), form
        for form in (" {}\n", "ipfs://{}\xa0", "/ipfs/{}/", "ipfs://{}?x#y", "{}/x/.."):
            assert len(await client.ls(form.format(root.cid))) == len(names), form


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/ipns/example.com/a", r"^cid: '/ipns/example\.com/a' is a name .* give a CID"),
        (" IPNS://k51", "is a name"),
        ("", "got ''$"),
        ("ipfs://", "got ''$"),
        ("b" * 5000, "got 'text of 5000 characters'"),
    ],
)
async def test_addresses_that_are_none(address: str, said: str) -> None:
    """What was given is shown, and names that change are no CIDs."""
    with pytest.raises(CidError, match=said):
        await dnc.cat(address)


@pytest.mark.parametrize(("path", "said"), [("a/../..", "leads above its root"), ("a\ud800", "lone surrogate")])
async def test_paths_that_lead_nowhere(path: str, said: str) -> None:
    """Told before anything is asked."""
    with pytest.raises((ArgumentError, PathError), match=said):
        await dnc.cat(f"{make(b'x').cid}/{path}")


async def test_open_reads_like_a_file(keep: Keep) -> None:
    """Any row of seeks and reads gives what a file in memory gives."""
    data = content(300_000)
    blocks, root = build_file(data, replace(UNIXFS_V1_2025, leaf_bytes=2**13, links_per_node=4))
    store, rng = keep(blocks, root.cid), random.Random(1)
    async with dnc.open(root.cid, store=store) as file:
        model = io.BytesIO(data)
        assert await file.size() == len(data)
        for _ in range(400):
            if rng.random() < 0.4:
                whence = rng.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
                offset = rng.randint(0, len(data)) - (0 if whence == os.SEEK_SET else len(data) // 2)
                if whence == os.SEEK_CUR and model.tell() + offset < 0:
                    offset = -offset
                assert await file.seek(offset, whence) == model.seek(offset, whence)
            size = rng.choice([0, 1, 100, 8192, 50_000, -1])
            assert await file.read(size) == model.read(size)
            assert await file.tell() == model.tell()
        assert f"at byte {model.tell()}" in repr(file)
        with pytest.raises(ArgumentError, match="seek"):
            await file.seek(-1)
    assert "closed" in repr(file)
    with pytest.raises(StreamClosedError):
        await file.read()
    assert threads() == []


async def test_small_reads_in_a_row_are_read_ahead(keep: Keep) -> None:
    """A thousand reads of 100 bytes fetch each leaf once; a read elsewhere fetches only its own."""
    data = content(2**20)
    blocks, root = build_file(data, replace(UNIXFS_V1_2025, leaf_bytes=2**14))
    with GatewayProcess(keep(blocks, root.cid)) as gateway:
        async with dnc.Client(gateways=gateway.url, disk_budget=0) as client:
            async with client.open(root.cid) as file:
                assert b"".join([await file.read(100) for _ in range(1000)]) == data[:100_000]
                stats = gateway.stats()
                assert stats.blocks_served <= len(blocks) + stats.requests  # each CAR repeats the root
            async with client.open(root.cid) as file:
                await file.seek(500_000)
                assert await file.read(10) == data[500_000:500_010]
                assert gateway.stats().blocks_served <= stats.blocks_served + 3
            assert await client.cat(root.cid, 0, 3) == data[:3]  # closing a file does not close its client


async def test_proxies_are_heeded_by_leave(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is passed by, unless the settings say otherwise."""
    (block,), root = build_file(b"direct", UNIXFS_V1_2025)
    with GatewayProcess(keep([block], root.cid)) as gateway:
        monkeypatch.setenv("http_proxy", NOBODY)
        monkeypatch.delenv("no_proxy", raising=False)
        assert await dnc.cat(root.cid, gateways=gateway.url) == b"direct"
        settings = FetchSettings(trust_env=True, attempts=1)
        async with dnc.Client(gateways=gateway.url, disk_budget=0, settings=settings) as client:
            with pytest.raises(dnc.ChunkUnavailableError, match="no gateway could serve"):
                await client.cat(root.cid)
