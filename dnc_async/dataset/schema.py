"""The schema of a dataset: its columns, and the structure of its batches.

A batch has the structure of what was uploaded: a dict of arrays comes back as a dict, ``(X, y)`` as a tuple, one array as an
array. Internally they all are *columns* with a name, a dtype and the shape of one sample. Chunks contain the columns sorted by
name, so that two dicts with the same arrays in another order have the same chunks; the schema keeps the order in which the
columns were published.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dnc_async.dataset.limits import MAX_COLUMNS, MAX_DIMENSIONS, MAX_NAME_BYTES, MAX_SAMPLE_BYTES
from dnc_async.dataset.ragged import Ragged, Text
from dnc_async.errors import ManifestError
from dnc_async.quoting import quoted

Structure = Literal["dict", "tuple", "array"]
Array = npt.NDArray[Any]
Columns = dict[str, Array | Ragged]

#: The dtype of a column of text: UTF-8 in the chunk, ``numpy.dtypes.StringDType`` in a batch.
TEXT = "text"
#: The dtype of a column of ``bytes`` objects, a :class:`~dnc_async.dataset.ragged.Ragged` in a batch.
BYTES = "bytes"

# longdouble and its complex are excluded: their size and format depend on the machine.
_DTYPE = re.compile(
    r"[|<](b1|[iu][1248]|f[248]|c8|c16|S[1-9][0-9]{0,6}|[Mm]8\[(?:[1-9][0-9]{0,3})?(?:[YMWDhms]|ms|us|ns|ps|fs|as)\])"
)


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
    def is_boolean(self) -> bool:
        """Whether the samples are booleans: bytes of 0 or 1."""
        return not self.varies and np.dtype(self.dtype) == np.bool_

    @property
    def varies(self) -> bool:
        """Whether samples differ in length, so that a chunk contains their offsets."""
        return self.is_text or self.is_bytes

    @property
    def sample_bytes(self) -> int:
        """The bytes of one sample; 0 if samples differ in length."""
        return 0 if self.varies else np.dtype(self.dtype).itemsize * math.prod(self.shape)

    @property
    def extent_bytes(self) -> int:
        """The product that numpy must be able to compute for one sample: an axis of length 0 counts as 1."""
        return 1 if self.varies else np.dtype(self.dtype).itemsize * math.prod(max(1, n) for n in self.shape)

    def empty(self, samples: int) -> Array:
        """A new writable array for ``samples`` samples, little-endian as on almost every machine. Not for ``bytes``."""
        if self.is_text:
            return np.empty((samples, *self.shape), dtype=np.dtypes.StringDType())
        return np.empty((samples, *self.shape), dtype=np.dtype(self.dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The columns, sorted as in chunks, and the structure of a batch.

    ``order`` lists the columns' places in the publisher's order; it is empty if that is the sorted order. ``classes`` names the
    classes of columns whose values are their numbers.
    """

    columns: tuple[Column, ...]
    structure: Structure
    order: tuple[int, ...] = ()
    classes: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def ordered(self) -> tuple[Column, ...]:
        """The columns in the publisher's order, as in batches."""
        return tuple(self.columns[place] for place in self.order) or self.columns

    @property
    def sample_bytes(self) -> int:
        """The bytes of one sample in all columns of fixed size."""
        return sum(column.sample_bytes for column in self.columns)

    @property
    def smallest_sample_bytes(self) -> int:
        """The least that one sample takes in a chunk; in a column of varying length at least an offset."""
        return sum(8 if column.varies else column.sample_bytes for column in self.columns)

    @property
    def varies(self) -> bool:
        """Whether a chunk's layout depends on its content."""
        return any(column.varies for column in self.columns)

    def restore(self, columns: Columns) -> Any:  # noqa: ANN401 - a dict, a tuple or an array: what was uploaded
        """Put columns into the structure that was uploaded."""
        if self.structure == "dict":
            return {column.name: columns[column.name] for column in self.ordered}
        if self.structure == "array":
            return columns["0"]
        return tuple(columns[str(i)] for i in range(len(columns)))

    def to_wire(self) -> dict[str, object]:
        """The schema as values for the manifest."""
        wire: dict[str, object] = {
            "structure": self.structure,
            "columns": [[c.name, c.dtype, list(c.shape)] for c in self.columns],
        }
        if self.order:
            wire["order"] = list(self.order)
        if self.classes:
            wire["classes"] = [[name, list(names)] for name, names in self.classes]
        return wire

    @classmethod
    def from_wire(cls, wire: object) -> Schema:
        """Parse the values of :meth:`to_wire` from an untrusted manifest; raises :class:`~dnc_async.errors.ManifestError`."""
        if not isinstance(wire, dict) or wire.get("structure") not in ("dict", "tuple", "array"):
            raise ManifestError("the manifest's schema has no known structure")
        rows = wire.get("columns")
        if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_COLUMNS:
            raise ManifestError(f"the manifest's schema must list 1 to {MAX_COLUMNS} columns")
        columns = tuple(_column_from_wire(row) for row in rows)
        names = [column.name for column in columns]
        if wire["structure"] == "dict" and names != sorted(set(names)):
            raise ManifestError("the manifest's columns are not sorted, or a name stands twice")
        if wire["structure"] != "dict" and names != [str(i) for i in range(len(names))]:
            raise ManifestError("the columns of a tuple or array must be named 0, 1, …")
        return cls(
            columns=columns,
            structure=wire["structure"],
            order=_order_from_wire(wire.get("order", []), wire),
            classes=_classes_from_wire(wire.get("classes", []), names),
        )


def _order_from_wire(order: object, wire: Mapping[str, Any]) -> tuple[int, ...]:
    if order == []:
        return ()
    are_places = isinstance(order, list) and all(type(place) is int for place in order)
    if not are_places or wire["structure"] != "dict" or sorted(order) != list(range(len(wire["columns"]))):  # type: ignore[call-overload]
        raise ManifestError("the order of the manifest's columns does not name each of them once")
    return tuple(order)  # type: ignore[arg-type]


def _classes_from_wire(classes: object, columns: list[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found = []
    for each in classes if isinstance(classes, list) else [None]:
        match each:
            case [str() as name, list() as names] if name in columns and all(isinstance(one, str) for one in names):
                found.append((name, tuple(names)))
            case _:
                raise ManifestError("the manifest's names of classes are not those of its columns")
    return tuple(found)


def column_problem(column: Column) -> str | None:
    """Why a column cannot be published or read, with the limit; ``None`` if it can."""
    try:
        name_bytes = len(column.name.encode("utf-8"))
    except UnicodeEncodeError:
        return "its name holds half a character (a lone surrogate), which is no text"
    if name_bytes > MAX_NAME_BYTES:
        return f"its name has {name_bytes} bytes, at most {MAX_NAME_BYTES} are allowed"
    if not (_DTYPE.fullmatch(column.dtype) or column.varies):
        return f"its dtype {column.dtype} is none that can be published"
    if len(column.shape) > (0 if column.varies else MAX_DIMENSIONS):
        return f"a sample has {len(column.shape)} axes, at most {0 if column.varies else MAX_DIMENSIONS} are allowed"
    if column.sample_bytes > MAX_SAMPLE_BYTES:
        return f"a sample has {column.sample_bytes} bytes, at most {MAX_SAMPLE_BYTES} are allowed"
    return None


def _column_from_wire(row: object) -> Column:
    match row:
        case [str() as name, str() as dtype, list() as shape] if all(type(n) is int and n >= 0 for n in shape):
            if dtype in (TEXT, BYTES) or _DTYPE.fullmatch(dtype):
                column = Column(name=name, dtype=dtype, shape=tuple(shape))
                if column_problem(column) is None:
                    return column
    raise ManifestError(f"the manifest describes a column that this version cannot read: {quoted(str(row)[:200])}")


def schema_of(columns: Columns, structure: Structure) -> Schema:
    """The schema of normalised columns, which are in the publisher's order."""
    names = sorted(columns) if structure == "dict" else list(columns)
    places = {name: place for place, name in enumerate(names)}
    order = tuple(places[name] for name in columns)
    return Schema(
        columns=tuple(_column_of(name, columns[name]) for name in names),
        structure=structure,
        order=() if order == tuple(range(len(order))) else order,
    )


def _column_of(name: str, values: Array | Ragged) -> Column:
    if isinstance(values, Ragged):
        return Column(name=name, dtype=TEXT if isinstance(values, Text) else BYTES, shape=())
    dtype = TEXT if values.dtype.kind in "UT" else values.dtype.newbyteorder("<").str
    return Column(name=name, dtype=dtype, shape=values.shape[1:])
