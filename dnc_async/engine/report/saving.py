"""Writes a report completely or not at all."""

from __future__ import annotations

import errno
import os

from dnc_async.errors import ReportError
from dnc_async.system.writing import whole_file


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file. An existing one is replaced when the new one is complete; a device or pipe is written into.

    Raises :class:`~dnc_async.errors.ReportError`.
    """
    try:
        with whole_file(path, replace=True, wait=False) as file:
            file.write(data)
    except BrokenPipeError:  # the reader has closed the pipe
        pass
    except OSError as error:
        why = "nobody reads from this pipe" if error.errno == errno.ENXIO else error.strerror or error
        raise ReportError(f"{os.fspath(path)}: cannot be written: {why}") from error
