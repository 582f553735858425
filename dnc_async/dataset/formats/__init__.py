"""The file formats from which a dataset can be read: a registry by file name suffix.

A reader takes an open :class:`SourceFile` and yields blocks of rows: a dict or an array whose first axis is the samples, small
enough that a file larger than memory can be read. It yields ``None`` when it has read for a while without a row to give, so
that it can be stopped. Readers block: they run in a worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dnc_async.dataset.formats import delimited, numpy_files
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.errors import DatasetError

__all__ = ["READERS", "Reader", "SourceFile", "read_file"]

Reader = Callable[[SourceFile], Iterator[Any]]

READERS: dict[str, Reader] = {
    ".npy": numpy_files.read_npy,
    ".npz": numpy_files.read_npz,
    ".csv": delimited.read_csv,
}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")


def read_file(path: Path) -> SourceFile:
    """Open a file in a known format, whose ``blocks`` can then be read. Raises :class:`~dnc_async.errors.DatasetError`."""
    source = SourceFile(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        source.close()
        raise DatasetError(f"{path}: {_unknown(path.suffix)}")
    source.blocks = _blocks(reader, source)
    return source


def _blocks(reader: Reader, source: SourceFile) -> Iterator[Any]:
    try:
        yield from reader(source)
    except DatasetError:
        source.check_unchanged()  # a changed file may be the cause, and its error says what to do
        raise
    except OSError as error:
        raise DatasetError(f"{source.path}: {error.strerror or error}") from error


def _unknown(suffix: str) -> str:
    *most, last = READERS
    known = f"{', '.join(most)} and {last}"
    if suffix.lower() in _COMPRESSED:
        return f"compressed files ({suffix}) are not read yet; decompress it first (read are {known})"
    said = f"{suffix} files are not read yet" if suffix else "a file without a suffix does not say its format"
    return f"{said}; read are {known}. Convert it, or pass its columns in Python; 'dnc add' takes any file as it is, without rows"
