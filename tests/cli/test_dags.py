"""``dnc get | add | import | export | verify``, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dnc_async.store import BlockStore
from dnc_async.testing import GatewayProcess

from ..conftest import FIXTURES, NOBODY, Shell

HELLO = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"  # "hello world\n", as Kubo adds it


@pytest.fixture
def tree(shell: Shell) -> Path:
    """A small folder in the home."""
    root = shell.home / "tree"
    (root / "d").mkdir(parents=True)
    (root / "hello").write_text("hello world\n")
    (root / "d/data").write_bytes(bytes(range(256)) * 20_000)
    (root / "link").symlink_to("d/data")
    (root / ".hidden").write_text("x")
    return root


def last(text: str) -> str:
    return text.splitlines()[-1]


def test_add_and_get_through_a_gateway(shell: Shell, tree: Path) -> None:
    """A folder into the store, out of a gateway, and back into the same CID; the CID is the last line."""
    done = shell("add", "tree", "--store", "store")
    cid = last(done.stdout)
    assert "left out 1 names that begin with a dot" in done.stderr
    assert cid == last(shell("add", "tree", "--only-hash").stdout)
    with GatewayProcess(shell.home / "store") as gateway:
        done = shell("get", cid, "-o", "copy", "--gateway", gateway.url, "--gateway", NOBODY)
        assert done.stdout == f"{shell.home / 'copy'}\n"
        assert "2 files, 2 folders, 1 symlink, 5.1 MB" in done.stderr
        saved = json.loads(shell("get", f"/ipfs/{cid}/d/data", "--gateway", gateway.url, "--json").stdout)
    assert saved["path"] == str(shell.home / "data")
    assert (shell.home / "data").read_bytes() == (tree / "d/data").read_bytes()
    assert (shell.home / "copy/hello").read_text() == "hello world\n"
    assert (shell.home / "copy/link").readlink() == Path("d/data")
    assert last(shell("add", "copy", "--only-hash").stdout) == cid


def test_add(shell: Shell, tree: Path) -> None:
    """A file alone, both profiles, hidden names, JSON; --only-hash writes nothing."""
    before = shell.files()
    assert last(shell("add", tree / "hello", "--only-hash").stdout) == HELLO
    old = last(shell("add", tree / "hello", "--only-hash", "--profile", "unixfs-v0-2015").stdout)
    assert old == "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"
    assert shell.files() == before
    said = json.loads(shell("add", "tree", "--hidden", "--json").stdout)
    assert said["files"] == 4
    assert (shell.home / "data/dnc_async/store/roots" / said["cid"]).exists()
    assert shell("verify").stdout.startswith(f"{said['cid']}: complete; ")


def test_import_verify_export(shell: Shell) -> None:
    """A CAR in, walked, out again; standard input and output."""
    source = FIXTURES / "directory.car"
    root = shell("import", source).stdout.strip()
    assert shell("import", source, "--json").stdout.count(root) == 1
    assert "complete; 62 blocks" in shell("verify", root).stdout
    assert json.loads(shell("verify", "--json").stdout)["complete"] is True
    assert shell("export", root, "-o", "out.car").stdout == "out.car\n"
    assert last(shell("export", root).stdout) == f"{root}.car"
    assert (shell.home / "out.car").read_bytes() == (shell.home / f"{root}.car").read_bytes()
    assert shell("import", "out.car", "--store", "second").stdout.strip() == root
    assert shell("export", root, "-o", "indexed.car", "--indexed").stdout == "indexed.car\n"
    assert shell("import", "indexed.car", "--store", "third").stdout.strip() == root
    assert "name a file with -o" in shell.refuses("export", root, "-o", "-", "--indexed", status=2)
    assert [name for name in shell.files() if name.endswith(".part")] == []


def test_what_is_missing_or_wrong_is_listed(shell: Shell) -> None:
    """Verify says which blocks, and fails; import and export say so, too."""
    root = shell("import", FIXTURES / "deep-balanced-raw.car", "--store", "s").stdout.strip()
    files = sorted(path for path in (shell.home / "s/blocks").rglob("*") if path.is_file())
    files[0].unlink()
    files[1].write_bytes(b"wrong")
    done = shell("verify", root, "--store", "s", status=1)
    assert f"{root}: 1 blocks missing, 1 wrong; " in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith(("  missing baf", "  wrong baf"))]) == 2
    found = json.loads(shell("verify", root, "--store", "s", "--json", status=1).stdout)
    assert (len(found["missing"]), len(found["damaged"]), found["complete"]) == (1, 1, False)
    said = shell.refuses("export", root, "--store", "s", "-o", "x.car")
    assert "cannot export" in said
    assert "dnc verify" in said
    assert not (shell.home / "x.car").exists()


def test_bad_input(shell: Shell, tree: Path) -> None:
    """One line each, that says what to do; nothing is left behind."""
    before = shell.files()
    assert "not a CID" in shell.refuses("get", "nonsense")
    assert "no gateway could serve" in shell("get", HELLO, "--gateway", NOBODY, status=1).stderr
    assert "is there already" in shell.refuses("get", "bafkqaaa", "-o", tree / "hello", "--gateway", NOBODY)
    assert "is not empty" in shell.refuses("get", "bafyaabakaieac", "-o", tree, "--gateway", NOBODY)
    assert "nix: No such file" in shell.refuses("add", "nix")
    assert "nix.car: No such file" in shell.refuses("import", "nix.car")
    assert "tree: Is a directory" in shell.refuses("import", "tree")
    assert "there is no store here" in shell.refuses("export", HELLO)
    assert "there is no store here" in shell.refuses("verify")
    assert "a CID alone" in shell.refuses("export", f"{HELLO}/x", "--store", "tree", status=2)
    assert shell.files() == before
    BlockStore.open(shell.home / "s", create=True)
    assert "the CAR ends inside" in shell.refuses("import", "/dev/null", "--store", "s")
    assert "is not in the store" in shell.refuses("export", HELLO, "--store", "s")
    assert "lists no roots" in shell("verify", "--store", "s").stderr
    assert "nix/x.car: No such file" in shell.refuses("export", "bafkqaaa", "--store", "s", "-o", "nix/x.car")
