"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from dnc_async.errors import ReportError


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file; what stood there is replaced when the new one is whole. Raises :class:`~dnc_async.errors.ReportError`."""
    target = Path(path)
    unfinished = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        try:
            with unfinished.open("xb") as file:
                file.write(data)
            unfinished.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ReportError(f"{target}: cannot be written: {error.strerror or error}") from error
