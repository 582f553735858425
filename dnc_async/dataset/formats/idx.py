"""Reads IDX files, as MNIST's: ``train-images-idx3-ubyte``, compressed or not. Images and labels together are two columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnc_async.dataset.formats.compression import ByteStream
from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.limits import MAX_CHUNK_BYTES
from dnc_async.dataset.schema import Array
from dnc_async.errors import DatasetError

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_BLOCK_BYTES = 4 * 2**20


class Idx:
    """An array with a short header, whose first axis is the samples."""

    name = "idx"
    suffixes = (".idx", *(f".idx{axes}-ubyte" for axes in range(1, 5)))
    is_compressible = True

    @staticmethod
    def recognises(head: bytes) -> bool:
        """By two zeros, a known type and a number of axes."""
        return len(head) >= 8 and head[:2] == b"\0\0" and head[2] in _DTYPES and 1 <= head[3] <= 8

    def read(self, source: Source, options: ReadOptions) -> Iterator[Any]:
        """Yield blocks of rows: an array, or of images and labels together a dict."""
        opened = [_Opened(file) for file in source.files]
        axes = sorted(len(each.shape) for each in opened)
        if len(opened) == 2 and axes[0] == 1 < axes[1]:
            yield from _pair(source, *sorted(opened, key=lambda each: -len(each.shape)))
            return
        for each in opened:
            source.current = each.file
            while (block := each.rows(each.at_once)) is not None:
                yield block
            each.file.rest()


def _pair(source: Source, images: _Opened, labels: _Opened) -> Iterator[dict[str, Array]]:
    if images.shape[0] != labels.shape[0]:
        raise DatasetError(
            f"{source.where}: {images.file.path.name} has {images.shape[0]} samples, {labels.file.path.name} {labels.shape[0]}"
        )
    source.current = images.file
    while (block := images.rows(images.at_once)) is not None:
        found = labels.rows(len(block))
        yield {"image": block, "label": np.empty(0) if found is None else found}


@dataclass(init=False)
class _Opened:
    file: SourceFile
    shape: tuple[int, ...]

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self._stream: ByteStream = file.stream(last=True)
        start = self._exactly(4)
        if not Idx.recognises(start + bytes(4)):
            raise DatasetError(
                f"{file.path}: no IDX file: it begins with {start.hex()}, expected 0000, a type and the axes"
            )
        self._dtype = np.dtype(_DTYPES[start[2]])
        self.shape = tuple(int(each) for each in np.frombuffer(self._exactly(4 * start[3]), dtype=">u4"))
        self._sample_bytes = self._dtype.itemsize * math.prod(self.shape[1:])
        if self._sample_bytes > MAX_CHUNK_BYTES:
            raise DatasetError(
                f"{file.path}: a sample has {self._sample_bytes} bytes, at most {MAX_CHUNK_BYTES} are allowed"
            )
        self.at_once = max(1, _BLOCK_BYTES // max(1, self._sample_bytes))
        self._left = self.shape[0]

    def rows(self, count: int) -> Array | None:
        """The next rows; ``None`` at the end."""
        if not self._left:
            if self._stream.read(1):
                raise DatasetError(f"{self.file.path}: bytes follow its array of shape {self.shape}")
            return None
        count = min(count, self._left)
        self._left -= count
        data = self._exactly(count * self._sample_bytes)
        return np.frombuffer(data, dtype=self._dtype).reshape(count, *self.shape[1:])

    def _exactly(self, size: int) -> bytes:
        parts, left = [], size
        while left and (piece := self._stream.read(left)):
            parts.append(piece)
            left -= len(piece)
        if left:
            raise DatasetError(f"{self.file.path}: the file ends before its last row")
        return b"".join(parts)
