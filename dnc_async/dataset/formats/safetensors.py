"""Reads safetensors: a JSON header, and tensors whose first axis is the samples, side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.limits import MAX_CHUNK_BYTES
from dnc_async.dataset.schema import Array, Columns
from dnc_async.errors import DatasetError

_DTYPES = {
    **{
        f"{letter}{bits}": f"<{kind}{bits // 8}"
        for letter, kind in (("I", "i"), ("U", "u"))
        for bits in (8, 16, 32, 64)
    },
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "BOOL": "|b1",
    "C64": "<c8",
    "BF16": "<u2",
}
_LARGEST_HEADER = 100_000_000
_BLOCK_BYTES = 4 * 2**20


class Safetensors:
    """Columns by their names, in the order of the header."""

    name = "safetensors"
    suffixes = (".safetensors",)
    is_compressible = False

    @staticmethod
    def recognises(head: bytes) -> bool:
        """By a JSON object behind its length."""
        return head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < _LARGEST_HEADER

    def read(self, source: Source, options: ReadOptions) -> Iterator[Columns]:
        """Yield blocks of rows."""
        for file in source.files:
            source.current = file
            tensors = _tensors(file)
            for tensor in tensors:
                if (
                    tensor.is_bfloat
                    and (note := f"column {tensor.name!r}: bfloat16 is published as float32, exactly")
                    not in source.notes
                ):
                    source.notes.append(note)
            samples = _samples(tensors, file)
            step = max(1, _BLOCK_BYTES // max(1, sum(tensor.sample_bytes for tensor in tensors)))
            for start in range(0, samples, step):
                yield {tensor.name: tensor.rows(file, start, min(step, samples - start)) for tensor in tensors}
            file.rest()


def _samples(tensors: list[_Tensor], file: SourceFile) -> int:
    lengths = {tensor.name: tensor.shape[0] for tensor in tensors}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name!r} has {n}" for name, n in lengths.items()) or "there are none"
        raise DatasetError(f"{file.path}: all tensors need the same number of samples (first axis), but {listed}")
    return next(iter(lengths.values()))


class _Tensor:
    def __init__(self, name: str, entry: Any, start: int, file: SourceFile) -> None:  # noqa: ANN401 - of a header
        where = f"{file.path}, tensor {name!r}"
        try:
            kind, self.shape = str(entry["dtype"]), tuple(int(each) for each in entry["shape"])
            begin, end = (int(each) for each in entry["data_offsets"])
        except (TypeError, KeyError, ValueError) as error:
            raise DatasetError(f"{where}: its entry in the header is damaged") from error
        if kind not in _DTYPES:
            raise DatasetError(f"{where}: {kind} is no type of numpy's; convert it, for example to F32")
        if not self.shape:
            raise DatasetError(f"{where}: a single value; expected a tensor whose first axis is the samples")
        self.name = name
        self.is_bfloat = kind == "BF16"
        self._dtype = np.dtype(_DTYPES[kind])
        self._offset = start + begin
        self.sample_bytes = self._dtype.itemsize * math.prod(self.shape[1:])
        size = self.sample_bytes * self.shape[0]
        if min(self.shape) < 0 or begin < 0 or end - begin != size or start + end > file.size_bytes:
            raise DatasetError(
                f"{where}: its place in the file is not that of its shape {list(self.shape)}: damaged, or cut off"
            )
        if self.sample_bytes > MAX_CHUNK_BYTES:
            raise DatasetError(
                f"{where}: a sample has {self.sample_bytes} bytes, at most {MAX_CHUNK_BYTES} are allowed"
            )

    def rows(self, file: SourceFile, start: int, count: int) -> Array:
        """Read some rows."""
        block = np.empty((count, *self.shape[1:]), dtype=self._dtype)
        if block.nbytes:
            file.read_into(block.reshape(-1).view(np.uint8).data, self._offset + start * self.sample_bytes)
        if self.is_bfloat:  # the upper half of a float32
            return (block.astype(np.uint32) << 16).view(np.float32)
        return block


def _tensors(file: SourceFile) -> list[_Tensor]:
    length = int.from_bytes(file.head(8), "little")
    if file.size_bytes < 8 or not 2 <= length <= min(_LARGEST_HEADER, file.size_bytes - 8):
        raise DatasetError(f"{file.path}: no safetensors file, or cut off: its header would have {length} bytes")
    head = bytearray(length)
    file.read_into(memoryview(head), 8)
    try:
        header = json.loads(head)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{file.path}: the header is no JSON object ({error})") from error
    return [_Tensor(name, entry, 8 + length, file) for name, entry in entries.items()]
