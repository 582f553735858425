"""A stream's own record of its position in a file, for runs that are killed.

It is written when the next batch is asked for, so a batch whose step did not end is given again; and at the end. The file is
replaced as a whole, and synced to the disk at most once a second: a kill loses nothing, a power failure the last second.
One stream at a time uses it: a file ``.NAME.lock`` beside it is locked meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dnc_async.errors import ArgumentError, OutputError
from dnc_async.quoting import quoted
from dnc_async.system import Lock, try_lock

_SYNC_S = 1.0
_MOST_BYTES = 2**16


class Checkpoint:
    """The file of one stream."""

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is read or written yet."""
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - the working directory may change, and a symlink stays one
        self._clock = clock
        self._lock = -1
        self._written: Mapping[str, Any] | None = None
        self._synced_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path}{', in use' if self._lock >= 0 else ''}>"

    @property
    def name(self) -> str:
        """How errors name it."""
        return f"checkpoint {quoted(str(self.path))}"

    def read(self) -> object | None:
        """The state in the file, unchecked; ``None`` if there is no file.

        Raises :class:`~dnc_async.errors.ArgumentError` if it cannot be read, or its folder not be used.
        """
        folder = self.path.parent
        if not folder.is_dir():
            raise ArgumentError(f"{self.name}: there is no folder {quoted(str(folder))}; make it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ArgumentError(f"{self.name}: its folder may not be written to; name another place")
        try:
            with self.path.open("rb") as file:
                data = file.read(_MOST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArgumentError(f"{self.name}: cannot be read ({error.strerror}); name another file") from error
        try:
            state: object = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(
                f"{self.name}: is damaged, or no checkpoint; delete it to begin anew, or name another file"
            ) from error
        return state

    def acquire(self) -> None:
        """Lock it for one stream. Raises :class:`~dnc_async.errors.ArgumentError` if another one uses it."""
        if self._lock >= 0:
            return
        try:
            lock = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OutputError(f"{self.name}: cannot be locked: {error.strerror or error}") from error
        if try_lock(lock, self.path.parent, "two streams may use one checkpoint") is Lock.HELD:
            os.close(lock)
            raise ArgumentError(f"{self.name}: another stream uses it; give each its own")
        self._lock = lock
        _in_use.add(self)

    def release(self) -> None:
        """Let other streams use it (in any thread)."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def write(self, state: Mapping[str, Any], *, is_last: bool = False) -> None:
        """Replace the file by this state, unless it holds it already.

        Raises :class:`~dnc_async.errors.OutputError`; the file is then as it was.
        """
        if state == self._written and not is_last:
            return
        now = self._clock()
        syncs = is_last or now - self._synced_at >= _SYNC_S
        draft = self.path.with_name(f".{self.path.name}.part")
        try:
            with draft.open("wb") as file:
                file.write(json.dumps(state).encode() + b"\n")
                if syncs:
                    file.flush()
                    os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise OutputError(f"{self.name}: cannot be written: {error.strerror or error}") from error
        self._written = state
        self._synced_at = now if syncs else self._synced_at


_in_use: weakref.WeakSet[Checkpoint] = weakref.WeakSet()


def _after_fork() -> None:
    for checkpoint in list(_in_use):  # a child would keep its parent's lock
        checkpoint.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
