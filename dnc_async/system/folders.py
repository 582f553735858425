"""Folders that belong to a process, so that a dead process's folder can be told from a living one's and removed.

The owner holds a lock on ``<name>.lock`` beside the folder ``<name>``. The operating system releases the lock when its holder
dies, for whatever reason. No process waits for another: if a lock file was removed between its creation and its locking, it is
created again under another name.

If the file system has no locks, a folder has no lock file. Then nothing tells whether its owner is alive, and it is never
removed.

A forked child inherits the lock's descriptor, and would keep a dead parent's folder locked, so it closes the descriptor at
once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import weakref
from typing import TYPE_CHECKING, Self

from dnc_async.system import Lock, try_lock, unlink_quietly

if TYPE_CHECKING:
    from pathlib import Path

_SUFFIX = ".lock"
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NAME = re.compile(
    r"[0-9a-f]{16}\.lock"
)  # the names that we create; other lock files (uv.lock, poetry.lock) are left alone
_TRIES = 100
_UNPROTECTED = "what a killed process leaves behind stays there: remove it by hand when nothing uses the folder"


def delete_tree(path: Path) -> None:
    """Delete a folder with everything in it that can be deleted. Does nothing to what is not a folder."""
    with contextlib.suppress(OSError):
        # Python 3.11's rmtree opens whatever it is given, and waits at a FIFO for ever.
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)


class OwnedFolder:
    """A new folder that this object owns until :meth:`remove`. Create it with :meth:`claim`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """``descriptor`` holds the lock; -1 if the file system has no locks."""
        self.path = path
        self._descriptor = descriptor
        self._is_ours = True
        _owned.add(self)

    @classmethod
    def claim(cls, area: Path) -> Self:
        """Create a folder in ``area`` and own it."""
        for _ in range(_TRIES):
            path = area / secrets.token_hex(8)
            lock = path.with_suffix(_SUFFIX)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | _CLOEXEC, 0o600)
            try:
                locked = try_lock(descriptor, area, _UNPROTECTED)
                if locked is Lock.OURS and lock.exists():
                    path.mkdir(mode=0o700)
                    return cls(path, descriptor)
            except BaseException:
                delete_tree(path)
                _remove(lock, descriptor)
                raise
            _remove(lock, descriptor)  # a sweep took it for a dead process's, or there are no locks
            if locked is Lock.UNAVAILABLE:
                path = area / secrets.token_hex(8)  # a name that never had a lock file, which a sweep might have seen
                path.mkdir(mode=0o700)
                return cls(path, -1)
        raise OSError(errno.EAGAIN, f"each of {_TRIES} new lock files was locked by somebody else at once", str(area))

    def restore(self) -> None:
        """Create the folder again, empty, after something else deleted it. Raises ``OSError`` if that fails."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_suffix(_SUFFIX)
        if self._descriptor >= 0 and not lock.exists():  # else the next sweep would not know that it is ours
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | _CLOEXEC, 0o600)
            os.close(self._descriptor)
            self._descriptor = descriptor
            try_lock(descriptor, self.path.parent, _UNPROTECTED)
        self.path.mkdir(mode=0o700, exist_ok=True)  # last: it is never there without its lock

    def remove(self) -> None:
        """Delete the folder with everything in it and release the lock. A second call does nothing."""
        if self._is_ours:
            try:
                self._remove()
            except KeyboardInterrupt:  # in the middle of the removal: finish it, because nothing else would
                self._remove()
                raise

    def _remove(self) -> None:
        delete_tree(self.path)
        descriptor, self._descriptor = self._descriptor, -1
        self._is_ours = False
        if descriptor >= 0:
            _remove(self.path.with_suffix(_SUFFIX), descriptor)

    def abandon(self) -> None:
        """Release the lock and leave the folder alone: it belongs to the parent process."""
        self._is_ours = False
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


_owned: weakref.WeakSet[OwnedFolder] = weakref.WeakSet()


def _after_fork() -> None:
    for folder in list(_owned):
        folder.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)  # only fork itself can tell


def sweep(area: Path) -> None:
    """Delete the folders in ``area`` whose owners are dead. Leaves alone what we did not create, and what may be in use."""
    for lock in area.glob(f"*{_SUFFIX}"):
        if not _NAME.fullmatch(lock.name):
            continue
        try:
            descriptor = os.open(
                lock, os.O_RDWR | _CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            )
        except OSError:
            continue  # its owner, or another sweep, was faster; or it is another user's
        if try_lock(descriptor, area, _UNPROTECTED) is Lock.OURS:
            delete_tree(lock.with_suffix(""))
            _remove(lock, descriptor)
        else:
            os.close(descriptor)


def _remove(lock: Path, descriptor: int) -> None:
    """Delete a lock file that we opened: before it is unlocked, or after, where open files cannot be deleted."""
    with contextlib.ExitStack() as stack:
        if os.name == "posix":
            stack.callback(os.close, descriptor)
        else:
            os.close(descriptor)
        unlink_quietly(lock)
