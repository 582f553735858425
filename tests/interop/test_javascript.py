"""Helia and js-ipfs: their readers read our gateway, we read theirs, and their builders give our CIDs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import dnc_async as dnc
from dnc_async.ipld.builder import UNIXFS_V0_2015, UNIXFS_V1_2025, Profile
from dnc_async.ipld.cid import Cid
from dnc_async.publish.files import Adder
from dnc_async.serve.server import GatewayServer
from dnc_async.store import BlockStore
from dnc_async.store.cars import export_car, import_car

from ..conftest import FIXTURES
from ..files.conftest import content
from .conftest import Node

PROFILES = {"unixfs-v1-2025": UNIXFS_V1_2025, "unixfs-v0-2015": UNIXFS_V0_2015}
#: Hash functions that Helia does not know unless it is given them.
BEYOND_HELIA = {"blake2b-256", "blake3"}


def plain_tree(folder: Path) -> Path:
    """Files of all sizes and names, and a folder large enough to be sharded; no symlinks, which js-ipfs cannot add."""
    (folder / "deep/er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "many").mkdir()
    for size in (0, 1, 2**18, 2**18 + 1, 2**20, 2**20 + 1, 5_000_000):
        (folder / f"deep/er/{size}").write_bytes(content(size, size))
    for name in ("ü", "名前", "a b%20c", "+", "#?", "-"):
        (folder / name).write_text(name)
    for i in range(6000):
        (folder / f"many/file-{i:06}").write_text(f"{i}\n")
    return folder


def add(path: Path, profile: Profile, store: BlockStore | None = None) -> str:
    if store is None:
        return str(Adder(lambda _: None, profile=profile, hidden=True).add(path).cid)
    with store.begin() as transaction:
        root = Adder(transaction.put, profile=profile, hidden=True).add(path).cid
        transaction.commit(root)
    return str(root)


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return BlockStore.open(tmp_path / "store", create=True)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_importer_gives_our_cids(node: Node, tmp_path: Path, profile: str) -> None:
    """Files, folders, and a sharded one."""
    tree = plain_tree(tmp_path / "tree")
    for path in [tree, tree / "many", *(tree / "deep/er").iterdir()]:
        assert node("import.mjs", profile, path).strip() == add(path, PROFILES[profile]), path.name


async def test_ipfs_car_packs_what_we_take_and_unpacks_what_we_give(
    node: Node, store: BlockStore, tmp_path: Path
) -> None:
    """CARs both ways, with the same root."""
    tree, program = plain_tree(tmp_path / "tree"), "node_modules/ipfs-car/bin.js"
    packed = node(program, "pack", tree, "--output", tmp_path / "theirs.car").strip()
    with (tmp_path / "theirs.car").open("rb") as file:
        done = import_car(store, file, name="theirs.car")
    assert [str(root) for root in done.roots] == [packed]
    assert (done.absent, done.incomplete) == ((), ())
    root = Cid.parse(add(tree, UNIXFS_V1_2025, store))
    with (tmp_path / "ours.car").open("wb") as file:
        export_car(store, root, file)
    assert node(program, "roots", tmp_path / "ours.car").split() == [str(root)]
    node(program, "unpack", tmp_path / "ours.car", "--output", tmp_path / "unpacked")
    saved = await dnc.get(packed, tmp_path / "got", store=store.path)
    for copy in (tmp_path / "unpacked", saved.path):
        for path in (path for path in tree.rglob("*") if path.is_file()):
            assert (copy / path.relative_to(tree)).read_bytes() == path.read_bytes()


async def test_verified_fetch_reads_our_gateway(
    node: Node, kubo_store: BlockStore, roots: dict[str, Cid], fixture_files: dict[str, Any]
) -> None:
    """Every file of every fixture whose hash function Helia knows, from ``dnc serve``."""
    wanted: dict[str, dict[str, Any]] = {}
    rng = random.Random(0)
    for name in roots.keys() - BEYOND_HELIA:
        files = {path: row for path, row in fixture_files[name].items() if "sha256" in row}
        for path in rng.sample(sorted(files), min(12, len(files))):
            wanted[quote(f"{roots[name]}/{path}".rstrip("/"))] = files[path]
    async with GatewayServer(kubo_store, "127.0.0.1", 0) as gateway:
        answer = await asyncio.to_thread(node, "read.mjs", gateway.url, say="\n".join(wanted))
    for line in answer.splitlines():
        said = json.loads(line)
        row = wanted.pop(said["path"])
        assert (said.get("sha256"), said.get("size")) == (row["sha256"], row["size"]), said
    assert not wanted


@pytest.mark.parametrize("way", ["fixtures", "ours"])
async def test_we_read_helias_gateway(
    node: Node, roots: dict[str, Cid], fixture_files: dict[str, Any], store: BlockStore, tmp_path: Path, way: str
) -> None:
    """Every fixture, and a tree that we built, from Helia as the only gateway."""
    if way == "ours":
        tree = plain_tree(tmp_path / "tree")
        root = Cid.parse(add(tree, UNIXFS_V1_2025, store))
        with (tmp_path / "ours.car").open("wb") as file:
            export_car(store, root, file)
        with node.helia(tmp_path / "ours.car") as url:
            saved = await dnc.get(root, tmp_path / "got", gateways=url)
            assert saved.files == 6013
            assert await dnc.cat(f"{root}/deep/er/5000000", -10, gateways=url) == content(5_000_000, 5_000_000)[-10:]
        assert add(saved.path, UNIXFS_V1_2025) == str(root)
        return
    names = sorted(roots.keys() - BEYOND_HELIA)
    with node.helia(*(FIXTURES / f"{name}.car" for name in names)) as url:
        for name in names:
            saved = await dnc.get(roots[name], tmp_path / name, gateways=url)
            for path, row in fixture_files[name].items():
                if "sha256" in row:
                    data = (Path(os.fspath(saved)) / path).read_bytes() if path else saved.path.read_bytes()
                    assert hashlib.sha256(data).hexdigest() == row["sha256"], (name, path)
