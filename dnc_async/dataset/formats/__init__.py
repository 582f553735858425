"""The file formats that a dataset can be read from: a registry by suffix.

A reader takes a path and yields blocks of rows, each a dict, tuple or array as :func:`~dnc_async.dataset.schema.columns_of`
takes them, small enough that a file larger than memory can be read. Readers block: they run in a worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dnc_async.dataset.formats import delimited, numpy_files
from dnc_async.errors import DatasetError

Reader = Callable[[Path], Iterator[Any]]

READERS: dict[str, Reader] = {
    ".npy": numpy_files.read_npy,
    ".npz": numpy_files.read_npz,
    ".csv": delimited.read_csv,
}


def read_file(path: Path) -> Iterator[Any]:
    """Blocks of rows of a file in a known format; raises :class:`~dnc_async.errors.DatasetError`."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(f"{path}: cannot read a {path.suffix or 'file without suffix'}; known: {', '.join(READERS)}")
    if not path.is_file():
        raise DatasetError(f"{path}: no such file" if not path.exists() else f"{path}: not a file")
    try:
        yield from reader(path)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
