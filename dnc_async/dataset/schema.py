"""The schema of a dataset: its columns, and the structure that a batch has.

A batch has the structure of what was uploaded: a dict of arrays comes back as a dict, ``(X, y)`` as a tuple, one
array as an array. Inside, all of them are *columns* with a name, a dtype and the shape of one sample. Columns are kept
in sorted order, so that two dicts with the same arrays in another order are the same dataset.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dnc_async.dataset.ragged import Ragged
from dnc_async.errors import DatasetError, ManifestError

Structure = Literal["dict", "tuple", "array"]
Array = npt.NDArray[Any]
Columns = dict[str, Array | Ragged]

#: The dtype of a column of text: UTF-8 in the chunk, ``numpy.dtypes.StringDType`` in a batch.
TEXT = "text"
#: The dtype of a column of ``bytes`` objects, a :class:`~dnc_async.dataset.ragged.Ragged` in a batch.
BYTES = "bytes"

# longdouble and its complex are left out: their size and format differ from machine to machine.
_DTYPE = re.compile(r"[|<](b1|[iu][1248]|f[248]|c8|c16|S[1-9]\d{0,6}|[Mm]8\[\d{0,4}(?:[YMWDhms]|ms|us|ns|ps|fs|as)\])")
_MAX_COLUMNS = 4096
_MAX_SAMPLE_BYTES = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: ``shape`` is that of one sample, ``dtype`` a little-endian numpy dtype string, ``"text"`` or ``"bytes"``."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def is_text(self) -> bool:
        """Whether the samples are strings of any length."""
        return self.dtype == TEXT

    @property
    def is_bytes(self) -> bool:
        """Whether the samples are ``bytes`` of any length."""
        return self.dtype == BYTES

    @property
    def varies(self) -> bool:
        """Whether samples differ in length, so that a chunk has their offsets."""
        return self.is_text or self.is_bytes

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample; 0 where samples differ in length."""
        return 0 if self.varies else np.dtype(self.dtype).itemsize * math.prod(self.shape)

    def empty(self, samples: int) -> Array:
        """A fresh writable array for so many samples (little-endian, as almost every machine is); not for ``bytes``."""
        if self.is_text:
            return np.empty((samples, *self.shape), dtype=np.dtypes.StringDType())
        return np.empty((samples, *self.shape), dtype=np.dtype(self.dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The columns, in sorted order, and the structure of a batch."""

    columns: tuple[Column, ...]
    structure: Structure

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample over all columns of fixed size."""
        return sum(column.sample_bytes for column in self.columns)

    @property
    def smallest_sample_bytes(self) -> int:
        """The least that one sample takes in a chunk: one that differs in length has at least its offset."""
        return sum(8 if column.varies else column.sample_bytes for column in self.columns)

    @property
    def varies(self) -> bool:
        """Whether a chunk's layout depends on its content."""
        return any(column.varies for column in self.columns)

    def restore(self, columns: Columns) -> Any:  # noqa: ANN401 - a dict, a tuple or an array: what was uploaded
        """Columns in the structure that was uploaded."""
        if self.structure == "dict":
            return columns
        if self.structure == "array":
            return columns["0"]
        return tuple(columns[str(i)] for i in range(len(columns)))

    def to_wire(self) -> dict[str, object]:
        """The form in a manifest."""
        return {"structure": self.structure, "columns": [[c.name, c.dtype, list(c.shape)] for c in self.columns]}

    @classmethod
    def from_wire(cls, wire: object) -> Schema:
        """Read :meth:`to_wire`'s form from an untrusted manifest; raises :class:`~dnc_async.errors.ManifestError`."""
        if not isinstance(wire, dict) or wire.get("structure") not in ("dict", "tuple", "array"):
            raise ManifestError("the manifest's schema has no known structure")
        rows = wire.get("columns")
        if not isinstance(rows, list) or not 1 <= len(rows) <= _MAX_COLUMNS:
            raise ManifestError(f"the manifest's schema must list 1 to {_MAX_COLUMNS} columns")
        columns = tuple(_column_from_wire(row) for row in rows)
        names = [column.name for column in columns]
        expected = sorted(set(names), key=_column_order(wire["structure"]))
        if names != expected:
            raise ManifestError("the manifest's columns are not sorted, or a name stands twice")
        if wire["structure"] != "dict" and names != [str(i) for i in range(len(names))]:
            raise ManifestError("the columns of a tuple or array must be named 0, 1, …")
        return cls(columns=columns, structure=wire["structure"])


def _column_order(structure: Structure) -> Any:  # noqa: ANN401 - a sort key: str or int
    return str if structure == "dict" else (lambda name: int(name) if name.isdecimal() else -1)


def _column_from_wire(row: object) -> Column:
    match row:
        case [str() as name, str() as dtype, list() as shape] if (
            (dtype in (TEXT, BYTES) and not shape) or _DTYPE.fullmatch(dtype)
        ) and all(isinstance(n, int) and n >= 0 for n in shape):
            column = Column(name=name, dtype=dtype, shape=tuple(shape))
            if len(shape) <= 32 and column.sample_bytes <= _MAX_SAMPLE_BYTES:
                return column
    raise ManifestError(f"the manifest describes a column that this version cannot read: {str(row)[:200]}")


def columns_of(value: object, *, where: str) -> tuple[Columns, Structure]:
    """Take a dict of arrays, a tuple of arrays or an array apart into normalised columns.

    ``where`` is put into the errors. Raises :class:`~dnc_async.errors.DatasetError` for ragged or object arrays,
    unequal first axes and names that are not text.
    """
    structure: Structure
    if isinstance(value, Mapping):
        bad = next((key for key in value if not isinstance(key, str)), None)
        if bad is not None:
            raise DatasetError(f"{where}: column names must be text, not {bad!r}")
        named, structure = dict(sorted(value.items())), "dict"
    elif isinstance(value, tuple):
        named, structure = {str(i): item for i, item in enumerate(value)}, "tuple"
    else:
        named, structure = {"0": value}, "array"
    if not named:
        raise DatasetError(f"{where}: there are no columns")
    columns = {name: _normalise(item, f"{where}, column {name!r}") for name, item in named.items()}
    lengths = {name: len(array) for name, array in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} has {n}" for name, n in lengths.items())
        raise DatasetError(f"{where}: all columns need the same number of samples (first axis), but {listed}")
    return columns, structure


def _normalise(value: object, where: str) -> Array | Ragged:
    if isinstance(value, Ragged):
        return value
    if isinstance(value, list) and _are_bytes(value):  # numpy would cut their zeros off, and pad them to one length
        return Ragged.of(value)
    array = _as_array(value, where)
    if array.dtype.kind in "UT":
        if array.ndim != 1:
            raise DatasetError(f"{where}: text must be one string a sample, got shape {array.shape}")
        return array
    if array.dtype.kind == "O" and array.ndim == 1 and all(isinstance(item, str) for item in array):
        return array.astype(np.dtypes.StringDType())  # as pandas keeps its text
    if array.dtype.kind == "O" and array.ndim == 1 and _are_bytes(array):
        return Ragged.of(array)
    if array.dtype.kind == "O":
        raise DatasetError(f"{where}: Python objects cannot be published (is it ragged?); use numbers, text or bytes")
    dtype = array.dtype.newbyteorder("<")
    if not _DTYPE.fullmatch(dtype.str):
        raise DatasetError(
            f"{where}: dtype {array.dtype} differs from machine to machine or has fields; "
            "convert it, or pass its fields as columns of their own"
        )
    return array if array.dtype == dtype else array.astype(dtype)


def _as_array(value: object, where: str) -> Array:
    try:
        array = np.asanyarray(value)
    except ValueError as error:  # numpy: "setting an array element with a sequence …"
        raise DatasetError(f"{where}: the samples do not all have the same shape; pad or cut them") from error
    if array.ndim == 0:
        raise DatasetError(f"{where}: expected an array whose first axis is the samples, got {type(value).__name__}")
    return array


def _are_bytes(samples: Sequence[object] | Array) -> bool:
    return bool(len(samples)) and all(isinstance(item, (bytes, bytearray, memoryview)) for item in samples)


def schema_of(columns: Columns, structure: Structure) -> Schema:
    """The schema of normalised columns."""
    return Schema(
        columns=tuple(_column_of(name, values) for name, values in columns.items()),
        structure=structure,
    )


def _column_of(name: str, values: Array | Ragged) -> Column:
    if isinstance(values, Ragged):
        return Column(name=name, dtype=BYTES, shape=())
    dtype = TEXT if values.dtype.kind in "UT" else values.dtype.newbyteorder("<").str
    return Column(name=name, dtype=dtype, shape=values.shape[1:])


def join(parts: Sequence[Columns]) -> Columns:
    """The rows of several pieces of one dataset, one after the other."""
    return {name: _concatenate([part[name] for part in parts]) for name in parts[0]}


def _concatenate(parts: Sequence[Array | Ragged]) -> Array | Ragged:
    ragged = [part for part in parts if isinstance(part, Ragged)]
    return Ragged.join(ragged) if ragged else np.concatenate([part for part in parts if not isinstance(part, Ragged)])
