"""``.npy`` and ``.npz`` files, read a block of rows at a time. Pickled objects are refused."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from dnc_async.dataset.schema import Array, Columns
from dnc_async.errors import DatasetError

_BLOCK_BYTES = 4 * 2**20


def read_npy(path: Path) -> Iterator[Array]:
    """Blocks of rows of one array; the file is mapped, not loaded."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DatasetError(f"{path}: not an .npy file of numbers ({error})") from error
    if array.ndim == 0:
        raise DatasetError(f"{path}: expected an array whose first axis is the samples, got a single value")
    rows = max(1, _BLOCK_BYTES // max(1, array.nbytes // max(1, len(array))))
    for start in range(0, max(1, len(array)), rows):
        yield np.asarray(array[start : start + rows])


def read_npz(path: Path) -> Iterator[Columns]:
    """Blocks of rows of an archive's arrays, side by side, as a dict; no array is loaded whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [_Member(archive, name, path) for name in sorted(archive.namelist())]
            try:
                yield from _blocks(members, path)
            finally:
                for member in members:
                    member.close()
    except (zipfile.BadZipFile, EOFError) as error:
        raise DatasetError(f"{path}: not an .npz file ({error})") from error


def _blocks(members: list[_Member], path: Path) -> Iterator[Columns]:
    lengths = {member.name: member.shape[0] for member in members}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name!r} has {n}" for name, n in lengths.items()) or "there are none"
        raise DatasetError(f"{path}: all arrays need the same number of samples (first axis), but {listed}")
    total = next(iter(lengths.values()))
    rows = max(1, _BLOCK_BYTES // max(1, sum(member.sample_bytes for member in members)))
    for start in range(0, max(1, total), rows):
        yield {member.name: member.read(min(rows, total - start)) for member in members}


class _Member:
    """One array of an archive, read from its first row to its last."""

    def __init__(self, archive: zipfile.ZipFile, entry: str, path: Path) -> None:
        self.name = entry.removesuffix(".npy")
        self._where = f"{path}, array {self.name!r}"
        self._file: IO[bytes] = archive.open(entry)
        try:
            self.shape, fortran, self._dtype = _read_header(self._file)
        except ValueError as error:
            raise DatasetError(f"{self._where}: not an array ({error})") from error
        if self._dtype.hasobject:
            raise DatasetError(f"{self._where}: holds pickled Python objects, which are refused; save numbers or text")
        if not self.shape:
            raise DatasetError(f"{self._where}: expected an array whose first axis is the samples, got a single value")
        self.sample_bytes = self._dtype.itemsize * math.prod(self.shape[1:])
        self._whole = self._load_fortran() if fortran and len(self.shape) > 1 else None
        self._next = 0

    def _load_fortran(self) -> Array:
        """A column-major array cannot be read by rows: this one is held whole."""
        flat = np.frombuffer(self._file.read(), dtype=self._dtype)
        return flat.reshape(self.shape[::-1]).transpose()

    def read(self, rows: int) -> Array:
        if self._whole is not None:
            self._next += rows
            return self._whole[self._next - rows : self._next]
        data = self._file.read(rows * self.sample_bytes)
        if len(data) != rows * self.sample_bytes:
            raise DatasetError(f"{self._where}: the file ends before its last row")
        return np.frombuffer(data, dtype=self._dtype).reshape(rows, *self.shape[1:])

    def close(self) -> None:
        self._file.close()


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(file)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(file)
    return npy_format.read_array_header_2_0(file)
