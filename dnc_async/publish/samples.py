"""Stacks samples that arrive one by one into blocks of rows of a few megabytes.

All samples must have the fields, types and shapes of the first one; otherwise the dataset would depend on where a block ends.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import numpy as np

from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Columns, Structure
from dnc_async.errors import DatasetError
from dnc_async.publish.columns import check_fields, fields_of
from dnc_async.publish.gaps import present, spread, with_gaps
from dnc_async.publish.python_values import has_zone, is_converted, plain_value
from dnc_async.publish.tables import is_missing, is_table
from dnc_async.publish.values import as_column, column_of_list, is_sequence, stack

_BLOCK_BYTES, _BLOCK_SAMPLES = 4 * 2**20, 4096
#: A call that stacks samples returns after this many seconds, so that the caller can be cancelled.
_TURN_S = 0.1

Signature = tuple[Any, ...]


class SampleBlocks:
    """Stacks samples: ``add`` returns a block when it is full, ``rest`` what is left."""

    def __init__(self, *, copies: bool, where: str, options: ReadOptions) -> None:
        """With ``copies``, samples are copied, because their owner may fill the same arrays again."""
        self._copies = copies
        self._where = where
        self._options = options
        self._count = 0
        self._first: list[object] = []
        self._zoned: list[bool | None] = []
        self._names: tuple[str, ...] = ()
        self._structure: Structure = "array"
        self._fields: list[list[Any]] = []
        self._bytes = 0

    def add(self, sample: object) -> object | None:
        """Add a sample; returns a block of rows if the sample completes it."""
        at = f"{self._where}, sample {self._count}"
        if not self._names:
            self._names, self._structure = fields_of(sample)
            if not self._names:
                raise DatasetError(f"{at}: an empty {type(sample).__name__}; a sample needs a value")
            self._fields = [[] for _ in self._names]
            self._first, self._zoned = [None] * len(self._names), [None] * len(self._names)
        check_fields(sample, self._names, self._structure, at)
        for place, raw in enumerate(self._values(sample)):
            value = self._ready(raw, place, at)
            self._fields[place].append(value)
            self._bytes += value.nbytes if isinstance(value, np.ndarray) else 8 + _length(value)
        self._count += 1
        return self.rest() if self._bytes >= _BLOCK_BYTES or len(self._fields[0]) == _BLOCK_SAMPLES else None

    def rest(self) -> object | None:
        """The samples that are not in a block yet, as a block; ``None`` if there are none."""
        if not self._fields or not self._fields[0]:
            return None
        start = self._count - len(self._fields[0])
        fields, self._fields, self._bytes = self._fields, [[] for _ in self._names], 0
        where = f"{self._where}, samples from {start} on"
        columns: Columns = {}
        for name, field in zip(self._names, fields, strict=True):
            columns.update(self._stacked(name, field, where))
        if self._structure == "dict":
            return columns
        if len(columns) > len(fields):
            raise DatasetError(
                f"{where}: a value is missing; make samples dicts, so that its mask has a name (or missing='fill')"
            )
        return columns["0"] if self._structure == "array" else tuple(columns.values())

    def _stacked(self, name: str, field: list[Any], where: str) -> Columns:
        there = present(field)
        if there is None:
            return {name: _stacked(field, where)}
        kept = [value for value in field if value is not None]
        if not kept:
            raise DatasetError(
                f"{where}: none of them has a value for {name!r}, so that its type is not known; leave it out"
            )
        return with_gaps(name, spread(_stacked(kept, where), there), there, self._options, where)

    def _values(self, sample: Any) -> Iterator[Any]:  # noqa: ANN401 - a dict, a tuple, or a value
        """The values of a sample, one by one, because a mapping may create each of them in the same memory."""
        if self._structure == "dict":
            return (sample[name] for name in self._names)
        return iter(sample if self._structure == "tuple" else [sample])

    def _ready(self, value: object, place: int, at: str) -> Any:  # noqa: ANN401 - whatever stack() and column_of_list() take
        """A value as it is kept until its block is complete, ``None`` if it is missing. It must be like those before."""
        if is_missing(type(value)):
            return None
        if is_converted(type(value)):
            self._check_zone(value, place, at)
            value = plain_value(value, at, decimals=self._options.decimals)
        ready = value if _is_plain(value) else self._checked(value, at)
        signature = _signature(ready)
        if self._first[place] is None:
            self._first[place] = signature
        if signature != self._first[place]:
            self._refuse(place, signature, at)
        return ready

    def _check_zone(self, value: object, place: int, at: str) -> None:
        zoned = has_zone(value)
        if self._zoned[place] not in (None, zoned):
            raise DatasetError(f"{at}: datetimes with a time zone beside others without one; give each one a zone")
        self._zoned[place] = zoned

    def _checked(self, value: object, at: str) -> Any:  # noqa: ANN401 - as above
        if is_table(value):
            raise DatasetError(f"{at}: a table is no sample; publish tables one after the other, without samples=True")
        if isinstance(value, (str, bytes, bool, int, float, complex, np.generic)):
            column_of_list([value], at)  # raises for a lone surrogate, and for a value that does not fit
            return value
        if isinstance(value, (bytearray, memoryview)):
            return bytes(value)
        if not (is_sequence(value) or hasattr(value, "__array__")):
            return column_of_list([value], at)[0]
        array = np.asarray(value) if np.ndim(value) == 0 else as_column(value, at)
        if isinstance(array, Ragged) or array.dtype.kind in "UT":
            raise DatasetError(f"{at}: text and bytes must be one a sample, not several; make a field of each")
        return np.array(array) if self._copies else array

    def _refuse(self, place: int, signature: object, at: str) -> None:
        field = "" if self._structure == "array" else f", {self._names[place]!r}"
        raise DatasetError(
            f"{at}{field}: {_described(signature)}, and {_described(self._first[place])} in the samples before; give one "
            "type and shape throughout (only bytes and text may differ in length)"
        )


def blocks_of_samples(
    samples: Iterable[object], *, copies: bool, where: str, options: ReadOptions
) -> Iterator[object | None]:
    """Yield blocks of rows; ``None`` after a while without one."""
    blocks, turn = SampleBlocks(copies=copies, where=where, options=options), time.monotonic() + _TURN_S
    for sample in samples:
        block = blocks.add(sample)
        if block is not None or time.monotonic() > turn:
            yield block
            del block
            turn = time.monotonic() + _TURN_S
        del sample
    yield blocks.rest()


async def blocks_of_later_samples(
    samples: AsyncIterator[object], *, where: str, options: ReadOptions
) -> AsyncIterator[object | None]:
    """As :func:`blocks_of_samples`, for an async iterable."""
    blocks = SampleBlocks(copies=True, where=where, options=options)
    async for sample in samples:
        block = blocks.add(sample)
        if block is not None:
            yield block
            del block
    yield blocks.rest()


def blocks_of_list(samples: list[Any], where: str, options: ReadOptions) -> Iterator[object | None]:
    """Convert a list of samples: in blocks if all have one type and shape, else as a whole, which finds a common type."""
    if not samples or isinstance(samples[0], (str, bytes, bool, int, float, complex, np.generic)):
        yield samples
        return
    looked, turn = _Looked(samples[0]), time.monotonic() + _TURN_S
    for sample in samples:
        if not looked.is_like(sample):
            yield samples
            return
        if time.monotonic() > turn:
            yield None
            turn = time.monotonic() + _TURN_S
    yield from blocks_of_samples(samples, copies=False, where=where, options=options)


class _Looked:
    """Tells whether samples are like the first one, as far as possible without converting them."""

    def __init__(self, first: object) -> None:
        self._fields = fields_of(first)
        self._signature = self._of(first)

    def is_like(self, sample: object) -> bool:
        return fields_of(sample) == self._fields and self._of(sample) == self._signature is not None

    def _of(self, sample: Any) -> Signature | None:  # noqa: ANN401 - a dict, a tuple, or a value
        names, structure = self._fields
        values = (
            [sample[name] for name in names] if structure == "dict" else sample if structure == "tuple" else [sample]
        )
        known = (np.ndarray, np.generic, str, bytes, bool, int, float, complex)
        if any(not isinstance(value, known) or isinstance(value, np.ma.MaskedArray) for value in values):
            return None
        return tuple(_signature(value) for value in values)


_PLAIN = {
    str: "text",
    bytes: "bytes",
    bool: "a boolean",
    int: "a whole number",
    float: "a float",
    complex: "a complex number",
}


def _is_plain(value: object) -> bool:
    """Whether it is a plain Python value, which any column of its type takes: most are, and need no further check."""
    kind = type(value)
    if kind is int:
        return -(2**63) <= value < 2**64  # type: ignore[operator]  # it is one
    return kind in _PLAIN and (kind is not str or value.isascii())  # type: ignore[attr-defined]  # as above


def _signature(value: object) -> object:
    if type(value) in _PLAIN:
        return _PLAIN[type(value)]
    if isinstance(value, np.ndarray):
        return _dtype_name(value.dtype), value.shape
    for family, name in (((str,), "text"), ((bytes,), "bytes"), ((bool, np.bool_), "a boolean")):
        if isinstance(value, family):
            return name
    if isinstance(value, np.generic):
        return value.dtype.newbyteorder("<").str, ()
    return next((name for kind, name in _PLAIN.items() if isinstance(value, kind)), type(value).__name__)


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.str if dtype.kind == "T" else dtype.newbyteorder("<").str  # which that of strings has not


def _described(signature: Any) -> str:  # noqa: ANN401 - a signature's part
    if isinstance(signature, str):
        return signature
    dtype, shape = signature
    return f"{dtype}{list(shape) if shape else ''}"


def _length(value: object) -> int:
    return len(value) if isinstance(value, (str, bytes)) else 0


def _stacked(field: list[Any], where: str) -> Any:  # noqa: ANN401 - an array or a Ragged
    return stack(field, where) if isinstance(field[0], np.ndarray) else column_of_list(field, where)
