"""The block store: what it finds, what it refuses, and what survives a crash."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dnc_async.errors import StoreError
from dnc_async.ipld.block import Block, make, verify
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.store import BlockStore
from dnc_async.store.integrity import check

NODE = make(bytes.fromhex("0a020801"), DAG_PB)


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return BlockStore.open(tmp_path / "store", create=True)


def fill(store: BlockStore, *blocks: Block) -> None:
    with store.begin() as transaction:
        for block in blocks:
            transaction.put(block)
        transaction.commit(blocks[-1].cid)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_block_is_found_by_every_cid_with_its_multihash(store: BlockStore) -> None:
    fill(store, NODE)
    v0 = Cid(0, DAG_PB, NODE.cid.multihash)
    raw = Cid(1, RAW, NODE.cid.multihash)
    for cid in (NODE.cid, v0, raw):
        found = store.get(cid)
        assert found is not None
        assert found.cid == cid
        assert found.data == NODE.data
        assert store.read(cid) == NODE.data
        assert store.size_bytes(cid) == len(NODE.data)
        assert store.has(cid)
    assert len(files(store.path / "blocks")) == 1


def test_what_is_not_here_is_none(store: BlockStore) -> None:
    assert store.get(NODE.cid) is None
    assert store.read(NODE.cid) is None
    assert store.size_bytes(NODE.cid) is None
    assert not store.has(NODE.cid)


def test_an_identity_cid_is_always_here_and_never_stored(store: BlockStore) -> None:
    inline = Cid.parse("bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa")
    assert store.has(inline)
    assert store.read(inline) == b"hello i am inlined cid\n"
    assert store.size_bytes(inline) == 23
    block = store.get(inline)
    assert block is not None
    fill(store, block)
    assert files(store.path / "blocks") == []
    assert store.roots() == [inline]


def test_a_damaged_file_names_itself_the_cid_and_the_remedy(store: BlockStore) -> None:
    fill(store, NODE)
    (file,) = files(store.path / "blocks")
    file.write_bytes(b"\x0a\x02\x08\x02")
    with pytest.raises(StoreError) as caught:
        store.get(NODE.cid)
    for word in (str(file), str(NODE.cid), "damaged", "again"):
        assert word in str(caught.value)
    assert store.read(NODE.cid) == b"\x0a\x02\x08\x02"


def test_a_torn_file_is_replaced_when_the_block_comes_again(store: BlockStore) -> None:
    fill(store, NODE)
    (file,) = files(store.path / "blocks")
    file.write_bytes(b"")
    fill(store, NODE)
    assert store.get(NODE.cid) == NODE


def test_a_flipped_byte_is_mended_when_the_block_comes_again(store: BlockStore) -> None:
    fill(store, NODE)
    (file,) = files(store.path / "blocks")
    file.write_bytes(b"\x0a\x02\x08\x02")
    with store.begin() as transaction:
        transaction.put(NODE)
        assert transaction.staged_blocks == 1
        transaction.commit(NODE.cid)
    assert store.get(NODE.cid) == NODE
    with store.begin() as transaction:
        transaction.put(NODE)
        assert transaction.staged_blocks == 0


def folder_in_place(file: Path) -> None:
    file.mkdir()


def fifo_in_place(file: Path) -> None:
    os.mkfifo(file)


def huge_in_place(file: Path) -> None:
    with file.open("wb") as huge:
        huge.truncate(2**40)


def loop_in_place(file: Path) -> None:
    file.symlink_to(file.name)


@pytest.mark.parametrize("put_there", [folder_in_place, fifo_in_place, huge_in_place, loop_in_place])
def test_what_cannot_be_read_is_an_error_at_once_and_is_replaced(
    store: BlockStore, put_there: Callable[[Path], None]
) -> None:
    """It is named for a reader, one of all that a check finds, and no hindrance for who brings the block again."""
    fill(store, NODE)
    (file,) = files(store.path / "blocks")
    file.unlink()
    put_there(file)
    with pytest.raises(StoreError, match="cannot be read") as caught:
        store.get(NODE.cid)
    assert str(file) in str(caught.value)
    assert check(store, NODE.cid).damaged == (NODE.cid,)
    fill(store, NODE)
    assert store.get(NODE.cid) == NODE


def test_a_disk_that_fails(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO while a block is read."""
    fill(store, NODE)

    def fail(_: int, __: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        store.read(NODE.cid)
    assert check(store, NODE.cid).damaged == (NODE.cid,)
    fill(store, NODE)
    monkeypatch.undo()
    assert store.get(NODE.cid) == NODE


def test_a_folder_with_files_in_a_blocks_place_is_not_deleted(store: BlockStore) -> None:
    fill(store, NODE)
    (file,) = files(store.path / "blocks")
    file.unlink()
    file.mkdir()
    (file / "mine").write_text("x")
    with pytest.raises(StoreError, match="a folder that is not empty is in a block's place"):
        fill(store, NODE)
    assert (file / "mine").exists()


def test_files_of_others_are_ignored(store: BlockStore) -> None:
    """In each folder of the store."""
    fill(store, NODE)
    (shard,) = (store.path / "blocks").iterdir()
    for folder in (store.path, store.path / "roots", store.path / "blocks", shard, store.path / "staging"):
        (folder / ".DS_Store").write_bytes(b"x")
        (folder / os.fsdecode(b"\xff.lock")).write_bytes(b"x")
    (store.path / "roots/folder").mkdir()
    assert store.roots() == [NODE.cid]
    assert len(store.strangers()) == 3
    again = BlockStore.open(store.path, create=True)
    fill(again, NODE, make(b"more"))
    assert again.roots() == sorted([NODE.cid, make(b"more").cid], key=str)
    assert (store.path / "staging/.DS_Store").exists()
    assert (store.path / "staging" / os.fsdecode(b"\xff.lock")).exists()


def test_nothing_is_visible_before_commit_and_nothing_stays_without_it(store: BlockStore) -> None:
    with store.begin() as transaction:
        transaction.put(NODE)
        assert not store.has(NODE.cid)
        assert len(files(store.path / "staging")) == 2
    assert not store.has(NODE.cid)
    assert files(store.path / "staging") == []
    assert list((store.path / "staging").iterdir()) == []
    assert store.roots() == []


def test_an_exception_inside_rolls_back(store: BlockStore) -> None:
    def fail() -> None:
        with store.begin() as transaction:
            transaction.put(NODE)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert files(store.path / "staging") == []


def test_the_root_is_renamed_last(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Path] = []
    replace = Path.replace

    def watch(self: Path, target: Path) -> Path:
        done = replace(self, target)
        moved.append(Path(target))
        return done

    leaves = [make(bytes([number])) for number in range(40)]
    monkeypatch.setattr(Path, "replace", watch)
    with store.begin() as transaction:
        transaction.put(NODE)
        for leaf in leaves:
            transaction.put(leaf)
        transaction.commit(NODE.cid)
    assert len(moved) == 41
    assert moved[-1].read_bytes() == NODE.data


def test_a_crash_during_commit_leaves_no_root(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))
    replace = Path.replace

    def fail_at_third(self: Path, target: Path) -> Path:
        if next(calls) == 2:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    def commit() -> None:
        with store.begin() as transaction:
            for number in range(5):
                transaction.put(make(bytes([number])))
            transaction.put(NODE)
            transaction.commit(NODE.cid)

    monkeypatch.setattr(Path, "replace", fail_at_third)
    with pytest.raises(StoreError, match="No space left"):
        commit()
    assert not store.has(NODE.cid)
    assert store.roots() == []
    assert files(store.path / "staging") == []


def test_blocks_that_are_here_are_not_staged_again(store: BlockStore) -> None:
    fill(store, NODE)
    other = make(b"other")
    with store.begin() as transaction:
        for block in (NODE, other, other, verify(Cid(1, RAW, NODE.cid.multihash), NODE.data)):
            transaction.put(block)
        assert (transaction.staged_blocks, transaction.staged_bytes) == (1, 5)
        assert repr(transaction) == "<Transaction open: 1 blocks, 5 bytes staged>"
        transaction.commit(NODE.cid)
    assert store.has(other.cid)


def test_a_root_that_was_never_put_is_refused(store: BlockStore) -> None:
    with store.begin() as transaction, pytest.raises(StoreError, match="was never put"):
        transaction.commit(NODE.cid)


def test_a_transaction_ends_with_its_commit(store: BlockStore) -> None:
    with store.begin() as transaction:
        transaction.put(NODE)
        transaction.commit(NODE.cid)
        with pytest.raises(StoreError, match="has ended"):
            transaction.put(NODE)
        with pytest.raises(StoreError, match="has ended"):
            transaction.commit(NODE.cid)


def test_a_block_that_could_not_be_written_spoils_the_transaction(store: BlockStore) -> None:
    with store.begin() as transaction:
        staging = next(path for path in (store.path / "staging").iterdir() if path.is_dir())
        for first in "abcdefghijklmnopqrstuvwxyz234567":
            for second in "abcdefghijklmnopqrstuvwxyz234567":
                (staging / f"{first}{second}").write_bytes(b"in the way")
        with pytest.raises(StoreError, match="cannot write"):
            transaction.put(NODE)
        with pytest.raises(StoreError, match="was not written"):
            transaction.commit(NODE.cid)


def test_roots_are_listed_once_each_in_their_own_spelling(store: BlockStore) -> None:
    fill(store, NODE)
    fill(store, NODE)
    v0 = Cid(0, DAG_PB, NODE.cid.multihash)
    with store.begin() as transaction:
        transaction.commit(v0)
    assert sorted(map(str, store.roots())) == sorted([str(NODE.cid), str(v0)])


def test_threads_may_put_and_commit_at_the_same_time(store: BlockStore) -> None:
    blocks = [make(number.to_bytes(2, "big") * 50) for number in range(200)]
    start = threading.Barrier(4)

    def work(_: int) -> None:
        start.wait()
        fill(store, *blocks)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert all(store.get(block.cid) == block for block in blocks)
    assert store.roots() == [blocks[-1].cid]
    assert files(store.path / "staging") == []

    others = [make(number.to_bytes(3, "big") * 50) for number in range(200)]
    with store.begin() as transaction, ThreadPoolExecutor(4) as pool:
        list(pool.map(transaction.put, others * 2))
        assert transaction.staged_blocks == 200
        transaction.commit(others[0].cid)
    assert all(store.has(block.cid) for block in others)


def test_two_open_transactions_do_not_disturb_each_other(store: BlockStore) -> None:
    with store.begin() as first, store.begin() as second:
        first.put(NODE)
        second.put(NODE)
        second.commit(NODE.cid)
        first.commit(NODE.cid)
    assert store.get(NODE.cid) == NODE


def test_a_dead_process_leaves_nothing_after_the_next_begin(store: BlockStore) -> None:
    script = (
        "import os, sys\n"
        "from dnc_async.ipld.block import make\n"
        "from dnc_async.store import BlockStore\n"
        "transaction = BlockStore.open(sys.argv[1]).begin()\n"
        "transaction.put(make(b'lost'))\n"
        "os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(store.path)], check=False)
    assert done.returncode == 9
    assert len(files(store.path / "staging")) == 2
    with store.begin() as transaction:
        assert len(files(store.path / "staging")) == 1
        transaction.put(NODE)
        transaction.commit(NODE.cid)
    assert list((store.path / "staging").iterdir()) == []
    assert not store.has(make(b"lost").cid)


def test_a_store_is_found_again(store: BlockStore) -> None:
    fill(store, NODE)
    again = BlockStore.open(str(store.path))
    assert again.get(NODE.cid) == NODE
    assert again.path == store.path
    assert repr(again) == f"<BlockStore {store.path}>"
    assert BlockStore.open(store.path, create=True).roots() == [NODE.cid]


@pytest.mark.parametrize("create", [False, True])
def test_a_file_is_no_store(tmp_path: Path, *, create: bool) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="is a file, not a folder"):
        BlockStore.open(tmp_path / "file", create=create)


def test_a_missing_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="create=True"):
        BlockStore.open(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_bytes(b"precious")
    with pytest.raises(StoreError, match=r"not empty and not a store \(it holds 'thesis.txt'\)"):
        BlockStore.open(tmp_path, create=True)
    with pytest.raises(StoreError, match="is not a store"):
        BlockStore.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("create", [False, True])
def test_another_version_of_the_format_is_refused(store: BlockStore, *, create: bool) -> None:
    (store.path / "format").write_text("dnc_async block store 2\n")
    with pytest.raises(StoreError, match="'dnc_async block store 2', this version reads 'dnc_async block store 1'"):
        BlockStore.open(store.path, create=create)


def test_a_store_that_was_half_made_is_completed(tmp_path: Path) -> None:
    (tmp_path / "blocks").mkdir()
    store = BlockStore.open(tmp_path, create=True)
    fill(store, NODE)
    assert store.has(NODE.cid)


def test_without_the_right_to_write_it_still_reads(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, NODE)
    monkeypatch.setattr(os, "access", lambda *_: False)
    readable = BlockStore.open(store.path)
    assert readable.get(NODE.cid) == NODE
    with pytest.raises(StoreError, match="not writable"):
        readable.begin()
    with pytest.raises(StoreError, match="not writable"):
        BlockStore.open(store.path, create=True)


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot make a store"):
        BlockStore.open(tmp_path / "file" / "store", create=True)
