"""Owning a folder of the staging area, so that others can tell a living transaction from a dead one.

The owner holds a lock on ``<name>.lock`` beside the folder ``<name>``. A lock is gone when its holder is, however
that happened. Nobody waits for anybody: a lock file that was swept away between its making and its locking is
simply made again under another name.
"""

from __future__ import annotations

import os
import secrets
import shutil
from typing import TYPE_CHECKING, Self

from dnc_async.system import try_lock

if TYPE_CHECKING:
    from pathlib import Path

_SUFFIX = ".lock"


class OwnedFolder:
    """A new folder that this object owns until :meth:`remove`. Make it with :meth:`claim`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def claim(cls, area: Path) -> Self:
        """Make a folder of one's own in ``area``."""
        while True:
            path = area / secrets.token_hex(8)
            lock = path.with_suffix(_SUFFIX)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                if try_lock(descriptor) and lock.exists():
                    path.mkdir()
                    return cls(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # a sweep took it for a dead one's

    def remove(self) -> None:
        """Delete the folder with all it holds and give up the lock. Doing it again does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            shutil.rmtree(self.path, ignore_errors=True)
            _remove(self.path.with_suffix(_SUFFIX), descriptor)


def sweep(area: Path) -> None:
    """Delete the folders in ``area`` whose owners are dead."""
    for lock in area.glob(f"*{_SUFFIX}"):
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except FileNotFoundError:
            continue  # its owner, or another sweep, was faster
        if try_lock(descriptor):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            _remove(lock, descriptor)
        else:
            os.close(descriptor)


def _remove(lock: Path, descriptor: int) -> None:
    """Delete a lock file that we hold: before it is unlocked, or after, where open files cannot be deleted."""
    if os.name == "posix":
        lock.unlink(missing_ok=True)
        os.close(descriptor)
    else:
        os.close(descriptor)
        lock.unlink(missing_ok=True)
