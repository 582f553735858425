"""Locks of files: held, ours, or not to be had; and folders that are owned by them."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dnc_async.engine.files.output import PartialOutput
from dnc_async.errors import OutputError
from dnc_async.ipld.block import make
from dnc_async.store import BlockStore
from dnc_async.system import Lock, try_lock
from dnc_async.system.folders import OwnedFolder, sweep

Fail = Callable[[int], list[int]]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Have every lock fail so; gives a list that grows by each try."""

    def failing(number: int) -> list[int]:
        tries: list[int] = []

        def flock(_: int, __: int) -> None:
            tries.append(number)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)
        return tries

    return failing


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES])
def test_held(tmp_path: Path, fail: Fail, number: int) -> None:
    """The three ways to say so; nobody is warned, and no loop goes on for ever."""
    tries = fail(number)
    with (tmp_path / "f").open("w") as file:
        assert try_lock(file.fileno(), tmp_path, "x") is Lock.HELD
    assert len(tries) == 1
    with pytest.raises(OSError, match="locked by somebody else"):
        OwnedFolder.claim(tmp_path)
    assert len(tries) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    with pytest.raises(OutputError, match="being written by another process"):
        PartialOutput(tmp_path / "p", tmp_path / "t", folder=False)


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EIO, errno.EINTR]
)
def test_not_to_be_had(tmp_path: Path, fail: Fail, number: int, caplog: pytest.LogCaptureFixture) -> None:
    """One warning for each folder; what was there before stays, and what is ours goes."""
    (tmp_path / "0123456789abcdef").mkdir()
    (tmp_path / "0123456789abcdef.lock").touch()
    fail(number)
    for _ in range(2):
        sweep(tmp_path)
        owned = OwnedFolder.claim(tmp_path)
        assert owned.path.is_dir()
        owned.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0123456789abcdef", "0123456789abcdef.lock"]
    (warning,) = caplog.messages
    assert str(tmp_path) in warning
    assert os.strerror(number) in warning
    PartialOutput(tmp_path / "p", tmp_path / "t", folder=False).close()
    with BlockStore.open(tmp_path / "store", create=True).begin():
        assert len(list((tmp_path / "store/staging").iterdir())) == 1
    assert list((tmp_path / "store/staging").iterdir()) == []


def test_a_folder_without_a_lock_is_not_swept(tmp_path: Path, fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where locks can be had again."""
    fail(errno.ENOLCK)
    owned = OwnedFolder.claim(tmp_path)
    monkeypatch.undo()
    sweep(tmp_path)
    other = OwnedFolder.claim(tmp_path)
    sweep(tmp_path)
    assert owned.path.is_dir()
    assert other.path.is_dir()
    owned.remove()
    other.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_others_have_there_is_left_alone(tmp_path: Path) -> None:
    """Lock files with other names than ours, their folders, and symlinks that are called as ours are."""
    (tmp_path / "uv").mkdir()
    for name in ("uv.lock", "uv/x", ".lock", "0123456789ABCDEF.lock"):
        (tmp_path / name).touch()
    (tmp_path / "0123456789abcdef.lock").symlink_to("uv.lock")
    before = sorted(tmp_path.rglob("*"))
    sweep(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("times", [0, 1, 5])
def test_an_interrupt_while_a_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Ctrl-C after some of it is gone: the rest goes, too, before the interrupt is heeded."""
    owned = OwnedFolder.claim(tmp_path)
    for name in "abcdef":
        (owned.path / name).mkdir()
    rmdir, left = os.rmdir, [times]

    def interrupted(*words: Any, **more: Any) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise KeyboardInterrupt
        rmdir(*words, **more)

    monkeypatch.setattr(os, "rmdir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        owned.remove()
    assert list(tmp_path.iterdir()) == []
    owned.remove()


def test_an_interrupt_while_a_transaction_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed stays, and nothing else."""
    store = BlockStore.open(tmp_path / "store", create=True)
    block, remove = make(b"x"), OwnedFolder.remove
    calls: list[OwnedFolder] = []

    def interrupted(owned: OwnedFolder) -> None:
        calls.append(owned)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(owned)

    monkeypatch.setattr(OwnedFolder, "remove", interrupted)

    def publish() -> None:
        with store.begin() as transaction:
            transaction.put(block)
            transaction.commit(block.cid)

    with pytest.raises(KeyboardInterrupt):
        publish()
    assert list((tmp_path / "store/staging").iterdir()) == []
    assert store.has(block.cid)
