"""Files and folders as plain UnixFS: the CIDs that Kubo gives them, in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dnc_async.errors import DatasetError
from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import UNIXFS_V0_2015, UNIXFS_V1_2025, Profile
from dnc_async.publish.files import Added, Adder

from ..files.conftest import content

TABLE = json.loads((Path(__file__).parent.parent / "fixtures" / "roots.json").read_text())
PROFILES = {"unixfs-v1-2025": UNIXFS_V1_2025, "unixfs-v0-2015": UNIXFS_V0_2015}


def add(path: Path, profile: Profile = UNIXFS_V1_2025, *, hidden: bool = False) -> tuple[str, list[Block], Added]:
    blocks: list[Block] = []
    adder = Adder(blocks.append, profile=profile, hidden=hidden)
    return str(adder.add(path).cid), blocks, adder.added


@pytest.mark.parametrize("row", TABLE["directories"]["rows"], ids=lambda row: str(row["entries"]))
def test_folders_of_kubos_table(tmp_path: Path, row: dict[str, Any]) -> None:
    """Plain and sharded ones, on both sides of the threshold: as ``ipfs add -r`` gives them."""
    for i in range(row["entries"]):
        (tmp_path / f"file-{i:06}").write_text(f"{i}\n")
    cid, blocks, added = add(tmp_path)
    assert cid == row["unixfs-v1-2025"]
    assert str(blocks[-1].cid) == cid
    assert added.files == row["entries"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("row", TABLE["files"], ids=lambda row: str(row["size"]))
def test_files_of_kubos_table(tmp_path: Path, row: dict[str, Any], profile: str) -> None:
    """Files around every boundary of the two profiles."""
    (tmp_path / "f").write_bytes(
        b"".join(sha256(b"ref-open/%d" % i).digest() for i in range(-(-row["size"] // 32)))[: row["size"]]
    )
    cid, _, added = add(tmp_path / "f", PROFILES[profile])
    assert cid == row[profile]
    assert added.size_bytes == row["size"]


def test_a_tree(tmp_path: Path) -> None:
    """Hidden names are left out and counted, or taken; symlinks are kept and never followed; order does not matter."""
    trees = []
    for order in (1, -1):
        root = tmp_path / f"tree{order}"
        (root / "d/e").mkdir(parents=True)
        for name in ["a", "d/b", "d/e/c", ".hidden", "d/.git"][::order]:
            (root / name).write_text(name)
        (root / "up").symlink_to("../../etc/passwd")
        (root / "loop").symlink_to(".")
        trees.append(root)
    (first, blocks, added), (second, _, _) = map(add, trees)
    assert first == second
    assert added.files == 5
    assert added.hidden_count == 2
    assert sorted(Path(name).name for name in added.hidden) == [".git", ".hidden"]
    assert not any(b"root:" in block.data for block in blocks)
    with_hidden, _, _ = add(trees[0], hidden=True)
    assert with_hidden != first
    assert add(trees[0] / ".hidden")[0] == add(trees[1] / ".hidden")[0]  # one that is named itself is taken


def test_names_that_are_not_text(tmp_path: Path) -> None:
    """Linux allows any bytes in a name; what came in comes out."""
    name = os.fsdecode(b"\xff\xfe name")
    try:
        (tmp_path / name).write_text("x")
    except OSError:
        pytest.skip("this file system wants UTF-8")
    _, blocks, _ = add(tmp_path)
    assert b"\xff\xfe name" in blocks[-1].data


def test_folders_deeper_than_python_calls(tmp_path: Path) -> None:
    """A thousand folders in each other, which no recursion would survive, and which are removed again."""
    depth = 1200
    subprocess.run(["/bin/mkdir", "-p", tmp_path / "/".join(["d"] * depth)], check=True)
    cid, blocks, _ = add(tmp_path / "d")
    assert len(blocks) == depth
    subprocess.run(["/bin/rm", "-r", tmp_path / "d"], check=True)
    assert cid == str(blocks[-1].cid)


def test_what_cannot_be_added(tmp_path: Path) -> None:
    """Each error names the path. A FIFO is not waited for."""
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d/fifo")
    with pytest.raises(DatasetError, match=r"d/fifo is neither a file"):
        add(tmp_path / "d")
    with pytest.raises(DatasetError, match=r"nix: No such file"):
        add(tmp_path / "nix")


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    """Half of the old and half of the new would be a file that never was."""
    path = tmp_path / "log"
    path.write_bytes(content(3 * 2**20))

    def append(_: Block) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(DatasetError, match="log changed while it was read"):
        Adder(append, profile=UNIXFS_V1_2025, hidden=False).add(path)


def test_progress_is_told(tmp_path: Path) -> None:
    """After each megabyte, and each file."""
    (tmp_path / "f").write_bytes(content(3 * 2**20))
    told: list[int] = []
    Adder(lambda _: None, profile=UNIXFS_V1_2025, hidden=False, progress=lambda a: told.append(a.size_bytes)).add(
        tmp_path
    )
    assert told == [2**20, 2**21, 3 * 2**20, 3 * 2**20]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 400 MB, in a process of its own, costs no more than a few leaves."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(400 * 2**20)
    code = (
        "import resource, sys; from pathlib import Path; from dnc_async.publish.files import Adder\n"
        "from dnc_async.ipld.builder import UNIXFS_V1_2025 as P\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "Adder(lambda block: None, profile=P, hidden=False).add(Path(sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 30_000
