"""The builder gives the CIDs that Kubo gives, for every row of its table, from pieces of any size."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import (
    UNIXFS_V0_2015,
    UNIXFS_V1_2025,
    FileBuilder,
    Profile,
    Root,
    build_directory,
    build_file,
)

TABLE = json.loads((Path(__file__).parent.parent / "fixtures" / "roots.json").read_text())
PROFILES = {"unixfs-v1-2025": UNIXFS_V1_2025, "unixfs-v0-2015": UNIXFS_V0_2015}


def content(size: int) -> bytes:
    return b"".join(hashlib.sha256(b"ref-open/%d" % i).digest() for i in range(-(-size // 32)))[:size]


def build(pieces: Iterator[bytes], profile: Profile) -> tuple[Root, int]:
    """The root, and the most blocks that one piece gave: memory does not grow with the file."""
    builder, most = FileBuilder(profile), 0
    for piece in pieces:
        most = max(most, len(builder.feed(piece)))
    _, root = builder.finish()
    return root, most


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("row", TABLE["files"], ids=lambda row: str(row["size"]))
def test_files(row: dict[str, Any], profile: str) -> None:
    """Files around every boundary of the two profiles."""
    data = content(row["size"])
    assert hashlib.sha256(data).hexdigest() == row["sha256"]
    blocks, root = build_file(data, PROFILES[profile])
    assert str(root.cid) == row[profile]
    assert root.size == row["size"]
    assert blocks[-1].cid == root.cid
    rng, position, pieces = random.Random(row["size"]), 0, []
    while position < len(data):
        step = rng.randint(1, max(2, len(data) // 20))
        pieces.append(data[position : position + step])
        position += step
    assert build(iter(pieces), PROFILES[profile])[0] == root


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("row", TABLE["two_levels"], ids=lambda row: str(row["size"]))
def test_two_levels(row: dict[str, Any], profile: str) -> None:
    """A file of more than 1024 MiB has nodes above nodes; it streams through."""
    piece, rest = bytes(2**20), row["size"] % 2**20
    pieces = (piece if i < row["size"] // 2**20 else bytes(rest) for i in range(row["size"] // 2**20 + 1))
    root, most = build(pieces, PROFILES[profile])
    assert str(root.cid) == row[profile]
    assert most <= 8


@pytest.mark.parametrize("row", TABLE["directories"]["rows"], ids=lambda row: str(row["entries"]))
def test_directories(row: dict[str, Any]) -> None:
    """Plain directories, sharded ones, and those at the threshold."""
    for name in (name for name in PROFILES if name in row):
        profile = PROFILES[name]
        entries: list[tuple[str, Root]] = []
        for number in range(row["entries"]):
            _, root = build_file(b"%d\n" % number, profile)
            entries.append((f"file-{number:06d}", root))
        random.Random(0).shuffle(entries)
        blocks: list[Block]
        blocks, root = build_directory(entries, profile)
        assert str(root.cid) == row[name]
        assert blocks[-1].cid == root.cid


@pytest.mark.parametrize("row", TABLE["directory_threshold"]["rows"], ids=lambda row: str(row["block_bytes"]))
def test_directory_threshold(row: dict[str, Any]) -> None:
    """A block of exactly 256 KiB is a plain directory, one byte more makes it a sharded one."""
    _, file = build_file(row["content"].encode(), UNIXFS_V1_2025)
    (width,), numbered = row["numbered"]["width"], row["numbered"]
    names = [f"{number:0{width}d}" for number in range(numbered["from"], numbered["to"] + 1)]
    blocks, root = build_directory([(name, file) for name in {*names, *row["other_names"]}], UNIXFS_V1_2025)
    assert str(root.cid) == row["unixfs-v1-2025"]
    assert (len(blocks) == 1) == (row["block_bytes"] == 2**18)


def test_table_has_nothing_else() -> None:
    """A row of a new kind would be skipped silently."""
    assert set(TABLE) <= {"content", "files", "two_levels", "directories", "directory_threshold"}
