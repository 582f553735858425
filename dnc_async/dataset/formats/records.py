"""Reads files of records of one size without a header: ``dtype=`` says what a record is, such as ``"<u2"`` for tokens.

A dtype with several fields, such as ``"u1, (3, 32, 32)u1"``, gives a column for each (``f0``, ``f1``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.formats.tokens import windows
from dnc_async.dataset.schema import Array
from dnc_async.errors import ArgumentError, DatasetError

_BLOCK_BYTES = 4 * 2**20


class Records:
    """Records end to end; of one number each, an array."""

    name = "records"
    suffixes = (".bin", ".raw", ".dat")
    is_compressible = True

    @staticmethod
    def recognises(head: bytes) -> bool:
        """It is never told by its content."""
        return False

    def read(self, source: Source, options: ReadOptions) -> Iterator[Any]:
        """Yield blocks of records, or windows of tokens."""
        dtype = _dtype_of(options, source)
        for file in source.files:
            source.current = file
            blocks = _blocks(file, dtype)
            if options.length is not None:
                yield from windows(blocks, options, source, file)
            elif dtype.names is None:
                yield from blocks
            else:
                for block in blocks:
                    yield {name: block[name] for name in dtype.names}
            file.rest()


def _dtype_of(options: ReadOptions, source: Source) -> np.dtype[Any]:
    if options.dtype is None:
        raise DatasetError(
            f"{source.where}: such a file does not say what is in it; pass dtype=, for example '<u2' for tokens of 16 bits"
        )
    try:
        dtype = np.dtype(options.dtype)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ArgumentError(f"dtype: {options.dtype!r} is no dtype of numpy's ({error})") from error
    if dtype.hasobject or not dtype.itemsize:
        raise ArgumentError(f"dtype: {options.dtype!r} is no record of a fixed number of bytes")
    return dtype


def _blocks(file: SourceFile, dtype: np.dtype[Any]) -> Iterator[Array]:
    stream, kept, place = file.stream(last=True), b"", 0
    while piece := stream.read(_BLOCK_BYTES):
        kept = kept + piece if kept else piece
        whole = len(kept) - len(kept) % dtype.itemsize
        if whole:
            yield np.frombuffer(kept[:whole], dtype=dtype)
        place, kept = place + whole, kept[whole:]
    if kept:
        raise DatasetError(
            f"{file.path}: {place + len(kept)} bytes are no whole number of records of {dtype.itemsize} bytes; is dtype= right, "
            "or is the file cut off?"
        )
