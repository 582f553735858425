"""Directories in which some entries are of codecs or hash functions that we do not read: the others are read all the same."""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async.errors import CidError, DagError, PathError, StoreError
from dnc_async.ipld import dagpb, unixfs, varint
from dnc_async.ipld.block import Block, make, verify
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, build_directory, build_file
from dnc_async.ipld.car import CarReader, encode_header, encode_section, section
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB, RAW, Cid
from dnc_async.ipld.dagpb import Link
from dnc_async.ipld.unixfs import Kind
from dnc_async.store import BlockStore
from dnc_async.store.cars import export_car, import_car
from dnc_async.store.integrity import check
from dnc_async.testing import GatewayProcess

from ..conftest import Shell
from .conftest import Keep, threads

DATA = b"tree 0\0"


def foreign(codec: int, code: int, digest: bytes) -> Cid:
    return Cid(1, codec, varint.encode(code) + varint.encode(len(digest)) + digest)


def by_hash(name: str, codec: int = RAW) -> Cid:
    return Cid.of(DATA, codec, name)


#: name: (its CID, its codec's and its hash function's name). These can be checked…
CHECKED = {
    "json": (by_hash("sha2-256", 0x0200), "json", "sha2-256"),
    "cbor": (by_hash("sha2-256", 0x51), "cbor", "sha2-256"),
    "jose": (by_hash("sha2-256", 0x85), "dag-jose", "sha2-256"),
    "git": (by_hash("sha1", 0x78), "git-raw", "sha1"),
    "key": (Cid.of(DATA, 0x72, "identity"), "libp2p-key", "identity"),
    "sha1": (by_hash("sha1"), "raw", "sha1"),
    "sha3": (by_hash("sha3-256"), "raw", "sha3-256"),
    "sha384": (by_hash("sha2-384"), "raw", "sha2-384"),
    "shake": (by_hash("shake-256"), "raw", "shake-256"),
    "blake2s": (by_hash("blake2s-256"), "raw", "blake2s-256"),
    "double": (by_hash("dbl-sha2-256"), "raw", "dbl-sha2-256"),
    "half": (foreign(RAW, 0x12, hashlib.sha256(DATA).digest()[:20]), "raw", "sha2-256"),
    "inline": (foreign(RAW, 0, DATA * 50), "raw", "identity"),
    "number": (by_hash("sha2-512", 2**60 + 7), hex(2**60 + 7), "sha2-512"),
}
#: …and these cannot.
UNCHECKED = {
    "keccak": (foreign(RAW, 0x1B, bytes(32)), "raw", "keccak-256"),
    "md5": (foreign(RAW, 0xD5, bytes(16)), "raw", "md5"),
    "poseidon": (foreign(0xF102, 0xB401, bytes(32)), "0xf102", "poseidon-bls12_381-a2-fc1"),
    "stub": (foreign(RAW, 0x12, bytes(4)), "raw", "sha2-256"),
    "function": (foreign(DAG_PB, 2**60, bytes(128)), "dag-pb", hex(2**60)),
}
FOREIGN = CHECKED | UNCHECKED
#: Codecs that we read, but not as a file.
OTHERS = {"dag.json": (Cid.of(b"{}", DAG_JSON), b"{}"), "dag.cbor": (Cid.of(b"\xa0", DAG_CBOR), b"\xa0")}


def tree(fanout: int | None) -> tuple[list[Block], Root]:
    """Files beside all of these, in a plain or a sharded directory; a folder below it has some of them, too."""
    blocks, file = build_file(b"hello", UNIXFS_V1_2025)
    inner, folder = build_directory([("a.txt", file), ("sha1", Root(FOREIGN["sha1"][0], None, 1))], UNIXFS_V1_2025)
    entries = [("a.txt", file), ("b.txt", file), ("folder", folder)]
    entries += [(name, Root(cid, None, 10)) for name, (cid, *_) in (FOREIGN | OTHERS).items()]
    profile = UNIXFS_V1_2025 if fanout is None else replace(UNIXFS_V1_2025, hamt_threshold_bytes=10, hamt_fanout=fanout)
    outer, root = build_directory(entries, profile)
    others = [verify(cid, data) for cid, data in OTHERS.values()]
    kept = [verify(cid, DATA) for name, (cid, *_) in CHECKED.items() if name != "inline"]
    return [*blocks, *inner, *outer, *others, *kept], root


@pytest.fixture(params=[None, 8, 256], ids=["plain", "hamt-8", "hamt-256"])
def made(request: pytest.FixtureRequest) -> tuple[list[Block], Root]:
    return tree(request.param)


@pytest.mark.parametrize("through", ["store", "gateway"])
async def test_what_is_ours_is_read(keep: Keep, tmp_path: Path, made: tuple[list[Block], Root], through: str) -> None:
    """A file beside them; a listing that names their codecs and hash functions; the tree without them, which is said."""
    blocks, root = made
    store = keep(blocks, root.cid)
    with GatewayProcess(store) as gateway:
        source: dict[str, Any] = {"store": store} if through == "store" else {"gateways": gateway.url}
        async with dnc.Client(**source, disk_budget=0) as client:
            assert await client.cat(f"{root.cid}/a.txt") == b"hello"
            listed = {entry.name: entry for entry in await client.ls(root.cid)}
            assert {n: (e.cid, e.codec, e.hash_name) for n, e in listed.items() if n in FOREIGN} == {
                name: (str(cid), codec, hash_name) for name, (cid, codec, hash_name) in FOREIGN.items()
            }
            assert {e.kind for n, e in listed.items() if n in FOREIGN | OTHERS} == {"other"}
            assert {e.size_bytes for n, e in listed.items() if n in FOREIGN | OTHERS} == {None}
            assert (listed["a.txt"].kind, listed["a.txt"].codec, listed["folder"].kind) == ("file", "raw", "directory")
            saved = await client.get(root.cid, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["a.txt", "b.txt", "folder"]
    assert os.listdir(tmp_path / "out/folder") == ["a.txt"]
    assert (saved.files, saved.directories, saved.others) == (3, 2, len(FOREIGN | OTHERS) + 1)
    why = dict(saved.left_out)
    assert set(why) == {*FOREIGN, *OTHERS, "folder/sha1"}
    assert why["jose"] == "dag-jose by sha2-256, which is not read"
    assert why["stub"] == "a sha2-256 digest has 4 bytes, expected 32"
    assert why["sha3"] == "raw by sha3-256, which is not read"
    assert why["dag.json"] == "dag-json, neither a file, a directory nor a symlink"
    assert threads() == []


async def test_asked_for_directly(keep: Keep, tmp_path: Path) -> None:
    """An error that says what it is; nothing is asked of anybody, and nothing is written."""
    blocks, root = tree(None)
    async with dnc.Client(store=keep(blocks, root.cid), disk_budget=0) as client:
        for name, (cid, codec, hash_name) in FOREIGN.items():
            said = hash_name if codec in ("raw", "dag-pb") else codec
            for path in (name, f"{name}/x"):
                with pytest.raises(PathError, match=f"{root.cid}/{name} cannot be read: .*{said}"):
                    await client.cat(f"{root.cid}/{path}")
                with pytest.raises(PathError, match="cannot be read"):
                    await client.get(f"{root.cid}/{path}", tmp_path / "out")
                with pytest.raises(PathError, match="cannot be read"):
                    await client.ls(f"{root.cid}/{path}")
            for address in (cid, str(cid), f"ipfs://{cid}/x"):
                with pytest.raises(CidError, match=r"^cid: "):
                    await client.cat(address)
        with pytest.raises(PathError, match=r"dag\.json is neither a file nor a directory, expected a file"):
            await client.cat(f"{root.cid}/dag.json")
        with pytest.raises(PathError, match=r"dag\.cbor is neither a file nor a directory: there is no 'x' in it"):
            await client.cat(f"{root.cid}/dag.cbor/x")
    assert not (tmp_path / "out").exists()


async def test_a_file_with_a_foreign_part(keep: Keep, tmp_path: Path) -> None:
    """It is one file, so none of it is given."""
    own = make(b"own")
    for cid, *_ in FOREIGN.values():
        links = [Link(own.cid, "", 3), Link(cid, "", 7)]
        root = make(dagpb.encode(unixfs.encode(Kind.FILE, filesize=10, blocksizes=[3, 7]), links), DAG_PB)
        store = keep([own, root], root.cid)
        for call in (dnc.cat(root.cid, store=store), dnc.get(root.cid, tmp_path / "out", store=store)):
            with pytest.raises(DagError, match="is a part of the file"):
                await call
    assert not (tmp_path / "out").exists()


def car(root: Cid, blocks: list[Block]) -> bytes:
    """With sections of those that nobody can check, too."""
    odd = [section(cid, b"who knows") for cid, *_ in UNCHECKED.values()]
    return encode_header([root]) + b"".join([*odd, *map(encode_section, blocks), *odd])


@pytest.mark.parametrize("piece", [1, 7, 2**20])
def test_cars_in_and_out(tmp_path: Path, made: tuple[list[Block], Root], piece: int) -> None:
    """What can be checked is kept, to the last byte, and what cannot is named."""
    blocks, root = made

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or piece, piece))

    store = BlockStore.open(tmp_path / "store", create=True)
    done = import_car(store, Slow(car(root.cid, blocks)), name="x.car")
    assert (done.roots, done.absent, done.incomplete, done.blocks) == ((root.cid,), (), (), len(blocks))
    assert done.unchecked == tuple(cid for cid, *_ in UNCHECKED.values()) * 2
    assert done.unchecked_count == 2 * len(UNCHECKED)
    found = check(store, root.cid)
    assert found.complete
    assert set(found.unchecked) == {cid for cid, *_ in UNCHECKED.values()}
    told: dict[Cid, str] = {}
    sink = io.BytesIO()
    export_car(store, root.cid, sink, left_out=told.__setitem__)
    assert set(told) == {cid for name, (cid, *_) in FOREIGN.items() if name in (*UNCHECKED, "jose", "git", "number")}
    reader = CarReader()
    assert {(b.cid, b.data) for b in reader.feed(sink.getvalue())} == {
        (b.cid, b.data) for b in blocks if b.cid.inline is None
    }
    reader.close()
    again = BlockStore.open(tmp_path / "again", create=True)
    assert import_car(again, io.BytesIO(sink.getvalue()), name="y.car").incomplete == ()


@pytest.mark.parametrize("name", [name for name in CHECKED if name not in ("key", "inline")])
def test_a_wrong_foreign_block(tmp_path: Path, name: str) -> None:
    """Its hash is checked like any other: such a CAR is refused, and nothing of it is kept."""
    cid, _, _ = CHECKED[name]
    store = BlockStore.open(tmp_path / "store", create=True)
    good = make(b"good")
    bad = encode_header([cid]) + encode_section(good) + section(cid, DATA + b"!")
    with pytest.raises(StoreError, match="hash to something else"):
        import_car(store, io.BytesIO(bad), name="x.car")
    assert not store.has(good.cid)
    right = encode_header([cid]) + section(cid, DATA)
    assert import_car(store, io.BytesIO(right), name="x.car").roots == (cid,)
    assert store.roots() == [cid]
    assert store.read(cid) == DATA


def test_in_the_shell(shell: Shell) -> None:
    """Told in a line each on stderr; the exit status is that of what was asked for and done."""
    blocks, root = tree(None)
    (shell.home / "x.car").write_bytes(car(root.cid, blocks))
    done = shell("import", "x.car", "--store", "store")
    assert done.stdout == f"{root.cid}\n"
    assert f"left out {2 * len(UNCHECKED)} blocks whose hash cannot be checked here: " in done.stderr
    assert "(keccak-256)" in done.stderr
    assert "not complete" not in done.stderr
    done = shell("get", root.cid, "-o", "out", "--store", "store")
    assert done.stdout == f"{shell.home / 'out'}\n"
    told = next(line for line in done.stderr.splitlines() if line.startswith("left out"))
    assert told.startswith(f"left out {len(FOREIGN | OTHERS) + 1} entries of the tree: ")
    assert "git (git-raw by sha1, which is not read)" in told
    saved = json.loads(shell("get", root.cid, "-o", "again", "--store", "store", "--json").stdout)
    assert saved["others"] == len(FOREIGN | OTHERS) + 1
    done = shell("verify", "--store", "store")
    assert f"complete, but for {len(UNCHECKED)} blocks whose hash cannot be checked" in done.stdout
    done = shell("export", root.cid, "-o", "y.car", "--store", "store")
    assert "not all of the DAG: " in done.stderr
    assert shell("import", "y.car", "--store", "other").stdout == f"{root.cid}\n"
    git, _, _ = FOREIGN["git"]
    assert "git-raw is not read" in shell("export", git, "-o", "git.car", "--store", "store").stderr
    assert "git-raw" in shell.refuses("get", git, "--store", "store")
    assert "git-raw" in shell.refuses("get", f"{root.cid}/git", "--store", "store")
    assert "git-raw" in shell.refuses("stream", git, "--store", "store", "--budget", 0)
    assert "git-raw" in shell.refuses("inspect", git, "--store", "store")


@pytest.mark.parametrize(
    "link",
    [
        b"\x02\x55\x12\x20" + bytes(32),
        b"\x01\x55\x12\x20" + bytes(31),
        b"\x01\x55\x12\x20" + bytes(33),
        b"\x01\xd5\x00\x12\x20" + bytes(32),
        b"\x01\x55\x00\x81\x08" + bytes(1025),
        b"\x01\x55\x1b\x81\x01" + bytes(129),
        b"\x01\x55\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
        b"",
    ],
)
def test_what_is_no_cid_at_all(link: bytes) -> None:
    """A link that no reader takes, or that is longer than any, spoils its node."""
    body = b"\x0a" + varint.encode(len(link)) + link + b"\x12\x01a\x18\x01"
    with pytest.raises(DagError, match="a dag-pb link's CID cannot be read"):
        dagpb.decode(b"\x12" + varint.encode(len(body)) + body)
