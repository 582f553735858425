"""Writes to a file name that the user gives. A file appears only when it is complete; a device or pipe is never replaced by one.

Devices, FIFOs and sockets are written into. So are file descriptors: ``/dev/stdout`` and ``/dev/fd/3`` mean that open stream,
as in a shell, whatever it is connected to. A symlink is followed to the file that it names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_SLASHES = tuple(filter(None, (os.sep, os.altsep)))
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MOST_NUMBER = 2**31 - 1
_NUMBERED = re.compile(r"/(?:dev|proc/(?:self|thread-self|\d+))/fd/(\d+)")


def open_number(name: str | os.PathLike[str]) -> int | None:
    """The file descriptor that a name stands for, such as 1 for ``/dev/stdout``; ``None`` for other names."""
    text = os.fspath(name)
    found = _NUMBERED.fullmatch(text)
    if (
        found is not None
        and text.startswith("/proc/")
        and text.split("/")[2] not in ("self", "thread-self", str(os.getpid()))
    ):
        return None
    return int(found[1]) if found is not None else _STREAMS.get(text)


def is_special(name: str | os.PathLike[str]) -> bool:
    """Whether a name is written into: it exists and is neither a file nor a folder."""
    if open_number(name) is not None:
        return True
    try:
        mode = Path(name).stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def whole_file(name: str | os.PathLike[str], *, replace: bool, wait: bool = True) -> Iterator[BinaryIO]:
    """Open a name for writing. The file appears under it when the block ends without an error, and not before.

    Without ``replace`` an existing file is refused with ``FileExistsError``. Opening a FIFO waits for its reader; without
    ``wait`` it fails if there is none. Raises ``OSError``.
    """
    number = open_number(name)
    if number is not None or is_special(name):
        with _opened(name, number, wait=wait) as file:
            yield file
        return
    if os.fspath(name).endswith(_SLASHES):  # a Path would drop the slash and create a file, although a folder is meant
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(name))
    target = Path(os.path.realpath(name))
    mode = _mode_of(target, replace=replace)
    draft = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        with draft.open("xb") as file:
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
            yield file
        draft.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _opened(name: str | os.PathLike[str], number: int | None, *, wait: bool) -> BinaryIO:
    """Open what is written into. It is never created, and never truncated."""
    if number is not None:
        if number in (1, 2):
            (sys.stdout if number == 1 else sys.stderr).flush()
        if number > _MOST_NUMBER:  # the system call would overflow
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), os.fspath(name))
        return os.fdopen(os.dup(number), "wb")
    flags = os.O_WRONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
    descriptor = os.open(name, flags | (0 if wait else getattr(os, "O_NONBLOCK", 0)))
    if not wait:
        os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "wb")


def _mode_of(target: Path, *, replace: bool) -> int | None:
    """The permissions of the file that will be replaced; ``None`` if there is none."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not replace:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    if not os.access(target, os.W_OK):  # a rename over it would not check that
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    return stat.S_IMODE(status.st_mode)
