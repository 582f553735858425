"""``get``: every kind of tree, byte for byte; and gone on with after a kill."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async.engine.files.saving import leads_out
from dnc_async.errors import OutputError, PathError
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import (
    UNIXFS_V0_2015,
    UNIXFS_V1_2025,
    Root,
    build_directory,
    build_file,
    build_symlink,
)
from dnc_async.ipld.cid import DAG_PB, Cid
from dnc_async.ipld.dagpb import Link
from dnc_async.ipld.unixfs import Kind
from dnc_async.store import BlockStore
from dnc_async.testing import GatewayProcess

from ..conftest import FIXTURES, Shell, eventually
from .conftest import Keep, content, threads

NAMES = [row["name"] for row in json.loads((FIXTURES / "index.json").read_text())["fixtures"]]
SMALL = replace(UNIXFS_V1_2025, leaf_bytes=4096, links_per_node=8)


def files_below(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


@pytest.mark.parametrize("name", NAMES)
async def test_every_fixture(
    kubo_store: BlockStore, roots: dict[str, Cid], fixture_files: dict[str, Any], tmp_path: Path, name: str
) -> None:
    """What Kubo made comes out as it went in."""
    saved = await dnc.get(roots[name], tmp_path / "out", store=kubo_store.path)
    assert saved.path == tmp_path / "out"
    found = {}
    for path in [saved.path] if saved.path.is_file() else files_below(saved.path):
        relative = "" if path == saved.path else path.relative_to(saved.path).as_posix()
        if path.is_symlink():
            found[relative] = {"symlink": os.readlink(path)}
        else:
            data = path.read_bytes()
            found[relative] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    expected = fixture_files[name]
    assert found.keys() == expected.keys()
    for path, row in expected.items():
        assert {key: row[key] for key in found[path] if key in row} == {
            k: v for k, v in found[path].items() if k in row
        }
    assert saved.size_bytes == sum(row.get("size", 0) for row in found.values())
    assert os.listdir(tmp_path) == ["out"]
    assert threads() == []


async def test_mode_and_mtime(kubo_store: BlockStore, roots: dict[str, Cid], tmp_path: Path) -> None:
    """Permission bits and times are those of the DAG."""
    saved = await dnc.get(roots["mode-mtime-file"], tmp_path / "out", store=kubo_store.path)
    status = saved.path.stat()
    block = kubo_store.get(roots["mode-mtime-file"])
    assert block is not None
    body = unixfs.decode(dagpb.decode(block.data).data)
    assert body.mode is not None
    assert body.mtime is not None
    assert stat.S_IMODE(status.st_mode) == body.mode & 0o777
    assert status.st_mtime_ns == body.mtime[0] * 10**9 + body.mtime[1]


async def test_a_folders_mode_and_time(keep: Keep, tmp_path: Path) -> None:
    """They are set when all is written: also where they forbid writing. Set-uid is dropped."""
    (leaf,), file = build_file(b"inside", UNIXFS_V1_2025)
    message = unixfs.encode(Kind.DIRECTORY) + bytes([7 << 3]) + b"\xed\x09" + bytes([8 << 3 | 2, 2, 8, 100])
    node = make(dagpb.encode(message, [Link(file.cid, "f", 6)]), DAG_PB)
    assert unixfs.decode(message).mode == 0o2355
    saved = await dnc.get(node.cid, tmp_path / "out", store=keep([leaf, node], node.cid))
    status = saved.path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o355, 100)
    saved.path.chmod(0o700)
    assert (saved.path / "f").read_bytes() == b"inside"


def tree() -> tuple[list[Block], Root, dict[str, bytes]]:
    """A tree of files of all sizes, some of them alike, with symlinks and an empty folder."""
    contents = {f"f{i}": content(size, i) for i, size in enumerate([0, 1, 4096, 4097, 50_000, 300_000])}
    contents["again"] = contents["f4"]
    blocks: list[Block] = []

    def keep(made: tuple[list[Block], Root]) -> Root:
        blocks.extend(made[0])
        return made[1]

    entries = [(name, keep(build_file(data, SMALL))) for name, data in contents.items()]
    entries += [("old", keep(build_file(contents["f5"], UNIXFS_V0_2015))), ("in", keep(build_symlink("f1", SMALL)))]
    inner = keep(build_directory([*entries, ("out", keep(build_symlink("../../elsewhere", SMALL)))], SMALL))
    root = keep(build_directory([("inner", inner), ("empty", keep(build_directory([], SMALL))), *entries], SMALL))
    return blocks, root, contents


async def test_a_tree(keep: Keep, tmp_path: Path) -> None:
    """Files, folders, symlinks; links that lead out are kept and named; progress is told."""
    blocks, root, contents = tree()
    told: list[dnc.Saved] = []
    saved = await dnc.get(root.cid, str(tmp_path / "a/b"), store=keep(blocks, root.cid), progress=told.append)
    for folder in (saved.path, saved.path / "inner"):
        for name, data in contents.items():
            assert (folder / name).read_bytes() == data
        assert (folder / "old").read_bytes() == contents["f5"]
        assert os.readlink(folder / "in") == "f1"
    assert os.readlink(saved.path / "inner/out") == "../../elsewhere"
    assert list((saved.path / "empty").iterdir()) == []
    assert (saved.files, saved.directories, saved.symlinks) == (16, 3, 3)
    assert saved.outward == ("inner/out",)
    assert told[-1] == saved
    assert all(a.size_bytes <= b.size_bytes for a, b in itertools.pairwise(told))
    assert os.fspath(saved) == str(saved) == str(tmp_path / "a/b")


@pytest.mark.parametrize(
    ("name", "text", "out"),
    [
        ("a", "b", False),
        ("a", "../b", True),
        ("d/a", "../b", False),
        ("d/a", "../../b", True),
        ("a", "/etc", True),
        ("d/e/a", "x/../../../../y", True),
        ("a", "..b", False),
    ],
)
def test_which_links_lead_out(name: str, text: str, out: bool) -> None:
    """By their text."""
    assert leads_out(name, text) is out


async def test_where_it_goes(keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file goes into a folder that is there, or is named with a slash; a tree takes the name; nothing is replaced."""
    blocks, root, contents = tree()
    store = keep(blocks, root.cid)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    path = f"{root.cid}/inner/f1"
    assert (await dnc.get(path, "here", store=store)).path == tmp_path / "here/f1"
    assert (await dnc.get(path, "new/", store=store)).path == tmp_path / "new/f1"
    assert (await dnc.get(path, store=store)).path == tmp_path / "f1"
    assert (await dnc.get(f"ipfs://{root.cid}/inner/in", "link", store=store)).path == tmp_path / "link"
    assert os.readlink(tmp_path / "link") == "f1"
    (tmp_path / "empty").mkdir()
    assert (await dnc.get(f"/ipfs/{root.cid}/inner", "empty", store=store)).path == tmp_path / "empty"
    assert (tmp_path / "empty/f4").read_bytes() == contents["f4"]
    for address, target, why in [
        (path, "here/f1", "there already"),
        (path, "here", "there already"),
        (str(root.cid), "here", "not empty"),
        (str(root.cid), "f1", "there already"),
        (str(root.cid), ".", "no name"),
        (path, "f1/x", "File exists"),
    ]:
        with pytest.raises(OutputError, match=why):
            await dnc.get(address, target, store=store)
    assert not list(tmp_path.rglob(".*"))


async def test_paths_that_lead_nowhere(keep: Keep, tmp_path: Path) -> None:
    """Each is a PathError that says where it went wrong, and nothing is written."""
    blocks, root, _ = tree()
    store = keep(blocks, root.cid)
    for path, why in [
        ("nix", "has no 'nix' in it"),
        ("inner/f1/x", "inner/f1 is a file"),
        ("inner/old/x", "inner/old is a file"),
        ("inner/in/x", "is a symlink to 'f1', which is not followed"),
        ("..", "may not be named"),
        ("\udcf6", r"has no '\\udcf6' in it"),
    ]:
        with pytest.raises(PathError, match=why):
            await dnc.get(f"{root.cid}/{path}", tmp_path / "out", store=store)
    assert not (tmp_path / "out").exists()


async def test_targets_that_cannot_be_written(keep: Keep, tmp_path: Path) -> None:
    """Names that no system has are an OutputError, too."""
    blocks, root, _ = tree()
    store = keep(blocks, root.cid)
    for target, why in [("a\0b", "zero byte"), ("a\ud800b", "cannot write"), ("\ud800/", "cannot write")]:
        with pytest.raises(OutputError, match=why):
            await dnc.get(f"{root.cid}/inner/f1", f"{tmp_path}/{target}", store=store)


@pytest.mark.parametrize("profile", [SMALL, replace(UNIXFS_V0_2015, leaf_bytes=4096), UNIXFS_V1_2025, UNIXFS_V0_2015])
async def test_what_an_earlier_call_left_is_used_if_it_is_right(keep: Keep, tmp_path: Path, profile: Any) -> None:
    """Right leaves are not fetched again; wrong ones are, wherever they lie. A file that was too long is cut."""
    data = content(3 * 2**20 + 7)
    blocks, root = build_file(data, profile)
    store = keep(blocks, root.cid)
    part = tmp_path / f".out.{str(root.cid)[-24:]}.part"
    part.write_bytes(data[: 2**21] + b"\xff" + data[2**21 + 1 :] + b"more")
    saved = await dnc.get(root.cid, tmp_path / "out", store=store)
    assert saved.path.read_bytes() == data
    assert saved.size_bytes == len(data)
    assert len(data) - 2**20 <= saved.reused_bytes < len(data)
    assert sorted(os.listdir(tmp_path)) == ["out", "store"]


@pytest.mark.parametrize("kind", ["file", "old", "tree"])
def test_killed_and_gone_on_with(shell: Shell, keep: Keep, tmp_path: Path, kind: str) -> None:
    """SIGKILL half way, then the same command again: what had come is not fetched again, and the result is right."""
    data = content(6 * 2**20)
    profile = UNIXFS_V0_2015 if kind == "old" else UNIXFS_V1_2025
    if kind == "tree":
        made = [(f"f{i}", build_file(data[i << 17 : (i + 1) << 17], profile)) for i in range(48)]
        blocks, root = build_directory([(name, each[1]) for name, each in made], profile)
        blocks += [block for _, each in made for block in each[0]]
    else:
        blocks, root = build_file(data, profile)
    store = keep(blocks, root.cid)
    words = ["get", root.cid, "-o", "out", "--gateway"]
    with GatewayProcess(store, "rate=2MB") as slow, shell.start(*words, slow.url) as process:
        assert eventually(lambda: arrived(shell.home) > 2 * 2**20)
        process.kill()
    assert not (shell.home / "out").exists()
    with GatewayProcess(store) as gateway:
        saved = json.loads(shell(*words, gateway.url, "--json").stdout)
        fetched = gateway.stats().bytes_served
    assert saved["size_bytes"] == len(data)
    assert saved["reused_bytes"] > 2**20
    assert fetched < len(data) - saved["reused_bytes"] + 2**16
    paths = (
        sorted((shell.home / "out").iterdir(), key=lambda p: int(p.name[1:]))
        if kind == "tree"
        else [shell.home / "out"]
    )
    assert b"".join(path.read_bytes() for path in paths) == data
    assert not list(shell.home.glob(".out*"))


def arrived(home: Path) -> int:
    return sum(path.stat().st_blocks * 512 for part in home.glob(".out*") for path in [part, *part.rglob("*")])


async def cancelled(call: Coroutine[Any, Any, object], when: Callable[[], bool]) -> None:
    """Begin a call, and cancel it in the middle."""
    task = asyncio.create_task(call)
    await asyncio.to_thread(eventually, when)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_call_leaves_no_thread_and_can_be_gone_on_with(keep: Keep, tmp_path: Path) -> None:
    """Cancelled while gateways are slow, alone and in a client that goes on."""
    data = content(4 * 2**20)
    blocks, root = build_file(data, replace(UNIXFS_V1_2025, leaf_bytes=2**16))
    store = keep(blocks, root.cid)
    with GatewayProcess(store, "rate=400kB") as gateway:
        await cancelled(dnc.get(root.cid, tmp_path / "out", gateways=gateway.url), lambda: arrived(tmp_path) > 2**17)
        assert threads() == []
        assert not (tmp_path / "out").exists()
        async with dnc.Client(gateways=gateway.url, disk_budget=0) as client:
            served = gateway.stats().bytes_served
            await cancelled(client.get(root.cid, tmp_path / "out"), lambda: gateway.stats().bytes_served > served)
            assert (await client.cat(root.cid, 5, 10)) == data[5:10]
    saved = await dnc.get(root.cid, tmp_path / "out", store=store)
    assert saved.reused_bytes > 0
    assert saved.path.read_bytes() == data


async def test_gateways_that_lie_or_die(keep: Keep, tmp_path: Path) -> None:
    """Two bad gateways and a good one: the tree is right, and nothing wrong is ever on the disk."""
    blocks, root, contents = tree()
    store = keep(blocks, root.cid)
    with (
        GatewayProcess(store, "flip=3") as lying,
        GatewayProcess(store, "down=0.2s-") as dying,
        GatewayProcess(store) as good,
    ):
        saved = await dnc.get(root.cid, tmp_path / "out", gateways=[lying.url, dying.url, good.url])
    assert all((saved.path / name).read_bytes() == data for name, data in contents.items())


async def test_a_missing_block(keep: Keep, tmp_path: Path) -> None:
    """One clear error; nothing at the target; what came is kept."""
    data = content(3 * 4096)
    blocks, root = build_file(data, SMALL)
    store = keep([block for block in blocks if block is not blocks[1]], root.cid)
    with pytest.raises(dnc.ChunkUnavailableError, match=str(blocks[1].cid)):
        await dnc.get(root.cid, tmp_path / "out", store=store)
    assert not (tmp_path / "out").exists()
    with BlockStore.open(store).begin() as transaction:
        transaction.put(blocks[1])
        transaction.commit()
    assert (await dnc.get(root.cid, tmp_path / "out", store=store)).path.read_bytes() == data
