"""Reads ``.npy`` and ``.npz`` files a block of rows at a time. Pickled objects are refused."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.formats.tokens import windows
from dnc_async.dataset.limits import MAX_CHUNK_BYTES
from dnc_async.dataset.schema import Array, Columns
from dnc_async.errors import DatasetError

_BLOCK_BYTES = 4 * 2**20
_LARGEST_BLOCK_BYTES = 64 * 2**20
#: The smallest piece of a column that is worth a read.
_PIECE_BYTES = 4096
#: For an array in an archive: a zip file of a few kilobytes may claim any size.
_LARGEST_FORTRAN_BYTES = 2**30
#: The longest header that numpy reads.
_HEADER_BYTES = 2**14


class Npy:
    """One array in a file; several files are one array after the other."""

    name = "npy"
    suffixes = (".npy",)
    is_compressible = False

    @staticmethod
    def recognises(head: bytes) -> bool:
        """By numpy's magic."""
        return head.startswith(b"\x93NUMPY")

    def read(self, source: Source, options: ReadOptions) -> Iterator[Any]:
        """Yield blocks of rows."""
        for file in source.files:
            source.current = file
            yield from read_npy(file) if options.length is None else windows(read_npy(file), options, source, file)
            file.rest()


class Npz:
    """Arrays by their names; several files are the rows of one after those of the other."""

    name = "npz"
    suffixes = (".npz",)
    is_compressible = False

    @staticmethod
    def recognises(head: bytes) -> bool:
        """By the name of its first member, as numpy writes it."""
        return head.startswith(b"PK\x03\x04") and b".npy" in head[:300]

    def read(self, source: Source, options: ReadOptions) -> Iterator[Any]:
        """Yield blocks of rows."""
        for file in source.files:
            source.current = file
            yield from read_npz(file)
            file.rest()


def read_npy(source: SourceFile) -> Iterator[Array]:
    """Yield blocks of rows of one array. The file is neither mapped nor loaded whole."""
    head = bytearray(min(_HEADER_BYTES, source.size_bytes))
    source.read_into(memoryview(head), 0)
    if head.startswith(b"PK\x03\x04"):
        raise DatasetError(f"{source.path}: this is an .npz archive, or another zip file; name it .npz")
    header = _Header(io.BytesIO(head), str(source.path))
    header.check_size(source.size_bytes - header.offset)
    rows = header.rows_at_once()
    for start in range(0, max(1, header.samples), rows):
        count = min(rows, header.samples - start)
        yield _columnwise(source, header, start, count) if header.is_fortran else _rowwise(source, header, start, count)


def _rowwise(source: SourceFile, header: _Header, start: int, count: int) -> Array:
    block = np.empty((count, *header.shape[1:]), dtype=header.dtype)
    if block.nbytes:
        source.read_into(_bytes_of(block), header.offset + start * header.sample_bytes)
    return block


def _columnwise(source: SourceFile, header: _Header, start: int, count: int) -> Array:
    """Read rows of a column-major array: a piece of each column."""
    size = header.dtype.itemsize
    columns = math.prod(header.shape[1:])
    block = np.empty((columns, count), dtype=header.dtype)
    if block.nbytes:
        view = _bytes_of(block)
        for column in range(columns):
            piece = view[column * count * size : (column + 1) * count * size]
            source.read_into(piece, header.offset + (column * header.samples + start) * size)
    return block.reshape(*header.shape[:0:-1], count).transpose()


def _bytes_of(block: Array) -> memoryview:
    return block.reshape(-1).view(np.uint8).data


class _Header:
    """The header of an array file; the values begin at ``offset``."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self.where = where
        try:
            version = npy_format.read_magic(file)
            # Version 3 differs from 2 only in field names, and arrays with fields are refused.
            read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            self.shape, is_fortran, self.dtype = read(file)
            np.empty((0, *self.shape[1:]), dtype=self.dtype)  # raises for lengths that numpy cannot count
        except Exception as error:  # the header is parsed as Python, so damage may raise anything
            raise DatasetError(
                f"{where}: not an array of numpy's, or damaged ({str(error) or type(error).__name__})"
            ) from error
        self.offset = file.tell()
        if self.dtype.hasobject:
            raise DatasetError(f"{where}: holds pickled Python objects, which are refused; save numbers or text")
        if not all(type(length) is int and length >= 0 for length in self.shape):
            raise DatasetError(f"{where}: damaged, its shape is {self.shape}")
        if not self.shape:
            raise DatasetError(f"{where}: expected an array whose first axis is the samples, got a single value")
        self.is_fortran = is_fortran and len(self.shape) > 1
        self.samples: int = self.shape[0]
        self.sample_bytes = self.dtype.itemsize * math.prod(self.shape[1:])

    def check_size(self, size_bytes: int) -> None:
        """Raise unless the values have so many bytes, and a sample not too many."""
        if self.sample_bytes > MAX_CHUNK_BYTES:
            raise DatasetError(
                f"{self.where}: a sample has {self.sample_bytes} bytes, at most {MAX_CHUNK_BYTES} are allowed"
            )
        expected = self.samples * self.sample_bytes
        if size_bytes < expected:
            raise DatasetError(
                f"{self.where}: the file ends before its last row: {size_bytes} bytes of values, expected {expected}"
            )
        if size_bytes > expected:
            raise DatasetError(
                f"{self.where}: {size_bytes - expected} bytes follow its array of shape {self.shape}: damaged, or several arrays "
                "in one file; save them as an .npz"
            )

    def rows_at_once(self) -> int:
        """How many rows a block has."""
        sample_bytes = max(1, self.sample_bytes)
        rows = _BLOCK_BYTES // sample_bytes
        if self.is_fortran:  # wide rows make small pieces, so more of them at once
            rows = max(rows, min(_PIECE_BYTES // max(1, self.dtype.itemsize), _LARGEST_BLOCK_BYTES // sample_bytes))
        return max(1, rows)


def read_npz(source: SourceFile) -> Iterator[Columns]:
    """Blocks of rows of an archive's arrays, side by side in its order, as a dict; no array is loaded whole."""
    members: list[_Member] = []
    try:
        with zipfile.ZipFile(source.raw) as archive:
            try:
                members.extend(_Member(archive, entry, source) for entry in archive.infolist())
                yield from _blocks(members, source)
            finally:
                for member in members:
                    member.close()
    except (DatasetError, OSError):
        raise
    except Exception as error:  # zipfile and the decompressors raise many kinds of errors for damage
        raise DatasetError(
            f"{source.path}: not an .npz file, or damaged ({str(error) or type(error).__name__})"
        ) from error


def _blocks(members: list[_Member], source: SourceFile) -> Iterator[Columns]:
    lengths = {member.name: member.header.samples for member in members}
    if len(lengths) < len(members):
        raise DatasetError(
            f"{source.path}: two of its arrays have one name: {sorted(member.name for member in members)}"
        )
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name!r} has {n}" for name, n in lengths.items()) or "there are none"
        raise DatasetError(f"{source.path}: all arrays need the same number of samples (first axis), but {listed}")
    total = next(iter(lengths.values()))
    rows = max(1, _BLOCK_BYTES // max(1, sum(member.header.sample_bytes for member in members)))
    for start in range(0, max(1, total), rows):
        yield {member.name: member.read(min(rows, total - start)) for member in members}
    for member in members:
        member.check_end()


class _Member:
    """One array of an archive, read from its first row to its last."""

    def __init__(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, source: SourceFile) -> None:
        self.name = entry.filename.removesuffix(".npy")
        self._where = f"{source.path}, array {self.name!r}"
        if entry.flag_bits & 1:
            raise DatasetError(f"{self._where}: is encrypted; save it without a password")
        self._file: IO[bytes] = archive.open(entry)
        self.header = _Header(self._file, self._where)
        self.header.check_size(entry.file_size - self.header.offset)
        self._whole = self._load_fortran() if self.header.is_fortran else None
        self._next = 0

    def _load_fortran(self) -> Array:
        """Load a column-major array whole, because it cannot be read by rows."""
        size = self.header.samples * self.header.sample_bytes
        if size > _LARGEST_FORTRAN_BYTES:
            raise DatasetError(
                f"{self._where}: lies column by column, {size} bytes of it, and would have to be held whole; save it after "
                "numpy.ascontiguousarray(…), or as an .npy"
            )
        return self._array(self.header.samples, self.header.shape[::-1]).transpose()

    def read(self, rows: int) -> Array:
        if self._whole is not None:
            self._next += rows
            return self._whole[self._next - rows : self._next]
        return self._array(rows, (rows, *self.header.shape[1:]))

    def _array(self, rows: int, shape: tuple[int, ...]) -> Array:
        size = rows * self.header.sample_bytes
        data = self._file.read(size) if size else b""
        if len(data) != size:
            raise DatasetError(f"{self._where}: the file ends before its last row")
        return (
            np.frombuffer(data, dtype=self.header.dtype).reshape(shape) if size else np.empty(shape, self.header.dtype)
        )

    def check_end(self) -> None:
        """Read to the end of the member, where zipfile compares its checksum."""
        if self._file.read(1):
            raise DatasetError(f"{self._where}: bytes follow its array")

    def close(self) -> None:
        self._file.close()
