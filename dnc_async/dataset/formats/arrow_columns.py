"""Converts Arrow's tables to columns: each type has one mapping, and no value changes without a word.

==========================  ==================================================================================================
Arrow                       column
==========================  ==================================================================================================
integers, booleans, floats  the same; a missing float is NaN
null (no value at all)      float64, all NaN
text                        text
binary                      bytes
dictionary, run-end         their values
decimal                     text with all digits; floats with ``decimals="float"``
timestamp                   ``datetime64`` of the same unit; with a time zone the same instant in UTC; missing ones are NaT
date                        ``datetime64[D]``
time of day, duration       ``timedelta64`` of the same unit (of a time of day since midnight)
list of one length          an axis; of ``uint8`` of any length: bytes
struct                      a column ``NAME.FIELD`` for each field; Hugging Face's ``struct<bytes, path>`` the bytes
map, union, interval        refused
==========================  ==================================================================================================

Other missing values give a second column, ``NAME__valid``, False in their rows, whose values are 0, False or empty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from dnc_async.dataset.formats.extras import pyarrow
from dnc_async.dataset.formats.options import ERROR, MASK, VALID_SUFFIX, ReadOptions
from dnc_async.dataset.formats.tokens import TokenLists
from dnc_async.dataset.ragged import Ragged, Text
from dnc_async.dataset.schema import Array, Columns
from dnc_async.errors import DatasetError

Column = Array | Ragged
_UNITS = {"s": "s", "ms": "ms", "us": "us", "ns": "ns"}


class ArrowColumns:
    """Converts the tables of one source. ``masked`` names the columns that have a mask even where no value is missing."""

    def __init__(
        self,
        where: str,
        options: ReadOptions,
        *,
        masked: Collection[str] = (),
        notes: list[str] | None = None,
    ) -> None:
        self._where = where
        self._options = options
        self._masked = masked
        self._notes = [] if notes is None else notes
        self._arrow = pyarrow(where, "compute")
        self._start = 0

    def of_table(self, table: Any, start: int = 0) -> Columns:  # noqa: ANN401 - a Table or RecordBatch
        """Convert a table; ``start`` is the number of its first row in the source, for messages."""
        self._start = start
        columns: Columns = {}
        for name, array in zip(table.schema.names, table.columns, strict=True):
            for key, column in self.of_array(array, name):
                if key in columns:
                    raise DatasetError(f"{self._where}: two columns are named {key!r}; give each a name of its own")
                columns[key] = column
        return columns

    def of_array(self, array: Any, name: str) -> Iterator[tuple[str, Column]]:  # noqa: ANN401 - an Array or ChunkedArray
        """Convert one column; yields several if it has fields, or missing values."""
        if isinstance(array.type, self._arrow.FixedShapeTensorType) and not array.null_count and len(array):
            chunks = array.chunks if isinstance(array, self._arrow.ChunkedArray) else [array]
            yield name, np.concatenate([chunk.to_numpy_ndarray() for chunk in chunks])
            return
        whole = self._plain(array)
        types, kind = self._arrow.types, whole.type
        if types.is_struct(kind):
            yield from self._struct(whole, name)
            return
        if types.is_null(kind):
            self._note(f"column {name!r} has no value at all: it is published as NaN")
            yield name, np.full(len(whole), np.nan)
            return
        column, has_own_gap = self._values(whole, name)
        yield name, column
        if has_own_gap:
            return
        if whole.null_count and self._options.missing == ERROR:
            row = self._start + int(np.argmax(np.asarray(whole.is_null())))
            raise self._refused(
                f"{name!r}, row {row}",
                "the value is missing; fill it in, leave the row out, or pass missing='mask' or 'fill'",
            )
        if (whole.null_count and self._options.missing == MASK) or name in self._masked:
            yield name + VALID_SUFFIX, np.asarray(whole.is_valid().to_numpy(zero_copy_only=False))

    def _plain(self, array: Any) -> Any:  # noqa: ANN401 - an Array
        """One array without dictionaries, runs and extension types."""
        arrow, types = self._arrow, self._arrow.types
        if isinstance(array, arrow.ChunkedArray):
            parts = [self._plain(chunk) for chunk in array.chunks]
            return arrow.concat_arrays(parts) if parts else self._plain(arrow.array([], _storage(array.type)))
        if types.is_dictionary(array.type):
            words = array.dictionary
            words = words.cast(arrow.large_string()) if types.is_string_view(words.type) else words
            return self._plain(words.take(array.indices))
        if types.is_run_end_encoded(array.type):
            return self._plain(arrow.compute.run_end_decode(array))
        if isinstance(array, arrow.ExtensionArray):
            return self._plain(array.storage)
        if types.is_list_view(array.type) or types.is_large_list_view(array.type):
            return arrow.array(array.to_pylist(), arrow.large_list(array.type.value_type))
        return array

    def _values(self, array: Any, name: str) -> tuple[Column, bool]:  # noqa: ANN401
        """The values, and whether they have their own way to say that one is missing."""
        types, kind = self._arrow.types, array.type
        if types.is_floating(kind) or types.is_boolean(kind) or types.is_integer(kind):
            missing = self._arrow.scalar(float("nan") if types.is_floating(kind) else 0).cast(kind)
            filled = array.fill_null(missing) if array.null_count else array
            return np.asarray(filled.to_numpy(zero_copy_only=False)), types.is_floating(kind)
        if types.is_temporal(kind) and not types.is_interval(kind):
            return self._times(array, name), True
        if types.is_decimal(kind):
            return self._decimals(array), self._options.decimals == "float"
        return self._of_varying_length(array, name), False

    def _of_varying_length(self, array: Any, name: str) -> Column:  # noqa: ANN401
        types, kind = self._arrow.types, array.type
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            return self._text(array, name)
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
            return self._ragged(array, self._arrow.large_binary(), Ragged)
        if types.is_fixed_size_binary(kind):
            return self._ragged(array.cast(self._arrow.binary()), self._arrow.large_binary(), Ragged)
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            return self._lists(array, name)
        raise self._refused(
            repr(name), f"values of type {kind} cannot be published; convert them to numbers, text, bytes or fields"
        )

    def _text(self, array: Any, name: str) -> Column:  # noqa: ANN401
        try:
            array.validate(full=True)
        except self._arrow.ArrowInvalid as error:
            raise self._refused(
                repr(name), f"not UTF-8 text ({error}); cast it to binary to publish it as bytes"
            ) from error
        return self._ragged(array, self._arrow.large_string(), Text)

    def _ragged(self, array: Any, kind: Any, build: type[Ragged]) -> Ragged:  # noqa: ANN401
        wide = array.cast(kind)
        wide = wide.fill_null("" if build is Text else b"") if wide.null_count else wide
        _, offsets, values = wide.buffers()
        places = (
            np.frombuffer(offsets, dtype=np.int64)[wide.offset : wide.offset + len(wide) + 1]
            if len(wide)
            else np.zeros(1, np.int64)
        )
        data = np.frombuffer(values, dtype=np.uint8) if values is not None else np.empty(0, np.uint8)
        return build(data[places[0] : places[-1]], places - places[0])

    def _times(self, array: Any, name: str) -> Array:  # noqa: ANN401
        types, kind = self._arrow.types, array.type
        if types.is_date(kind):
            days = array.cast(self._arrow.date32())  # raises where a date64 has hours
            return self._raw(days, np.int32, "M8[D]")
        if types.is_timestamp(kind) and kind.tz is not None:
            self._note(
                f"column {name!r} has times of the zone {kind.tz}: they are published as the same instants in UTC"
            )
        base = "M8" if types.is_timestamp(kind) else "m8"
        return self._raw(array, np.int32 if types.is_time32(kind) else np.int64, f"{base}[{_UNITS[kind.unit]}]")

    def _raw(self, array: Any, width: type[np.signedinteger[Any]], dtype: str) -> Array:  # noqa: ANN401
        values = np.empty(0, dtype=width)
        if len(array):
            values = np.frombuffer(array.buffers()[1], dtype=width)[array.offset : array.offset + len(array)]
        times = values.astype(np.int64).astype(dtype)
        if array.null_count:
            times[np.asarray(array.is_null().to_numpy(zero_copy_only=False))] = np.array("NaT", dtype=dtype)
        return times

    def _decimals(self, array: Any) -> Column:  # noqa: ANN401
        if self._options.decimals == "float":
            return self._values(array.cast(self._arrow.float64()), "")[0]
        text = array.cast(self._arrow.large_string())
        if self._arrow.compute.any(self._arrow.compute.match_substring(text, "E")).as_py():
            text = self._arrow.array(
                [None if value is None else f"{value:f}" for value in array.to_pylist()], self._arrow.large_string()
            )
        return self._ragged(text, self._arrow.large_string(), Text)

    def _lists(self, array: Any, name: str) -> Column:  # noqa: ANN401
        """Lists of one length as an axis, of ``uint8`` as bytes."""
        compute = self._arrow.compute
        there = array.drop_null() if array.null_count else array
        lengths = np.asarray(compute.list_value_length(there).to_numpy(zero_copy_only=False))
        inner = self._plain(there.flatten())
        length = int(lengths[0]) if len(lengths) else 0
        if (lengths != length).any() and self._options.pack is not None and self._arrow.types.is_integer(inner.type):
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            return TokenLists(self._values(inner, name)[0], offsets)  # type: ignore[return-value, arg-type]  # packed later
        if (lengths != length).any():
            if inner.type == self._arrow.uint8() and not inner.null_count:
                return self._byte_lists(array)
            row = self._start + int(np.argmax(lengths != length))
            raise self._refused(
                f"{name!r}, row {row}",
                f"a list of {int(lengths[lengths != length][0])} values, and {length} in the rows before; pad or cut the lists "
                "to one length (only bytes may differ in length), or make an array of each",
            )
        if self._arrow.types.is_null(inner.type):
            raise self._refused(
                repr(name), "lists without values, so that their type is not known; leave the column out"
            )
        values, has_own_gap = self._values(inner, name)
        if isinstance(values, Ragged):
            raise self._refused(repr(name), "lists of text or bytes; make a column of each place")
        if inner.null_count and not has_own_gap:
            missing = np.asarray(inner.is_null().to_numpy(zero_copy_only=False)).reshape(len(there), -1).any(axis=1)
            row = self._start + int(np.argmax(missing))
            raise self._refused(f"{name!r}, row {row}", "a value within the list is missing; fill it in, or use floats")
        rows = values.reshape(len(there), length, *values.shape[1:])
        if not array.null_count:
            return rows
        whole = np.zeros((len(array), *rows.shape[1:]), dtype=rows.dtype)
        whole[np.asarray(array.is_valid().to_numpy(zero_copy_only=False))] = rows
        return whole

    def _byte_lists(self, array: Any) -> Ragged:  # noqa: ANN401
        lengths = self._arrow.compute.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        offsets = np.zeros(len(array) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return Ragged(np.asarray(array.flatten().to_numpy()), offsets)

    def _struct(self, array: Any, name: str) -> Iterator[tuple[str, Column]]:  # noqa: ANN401
        fields = [array.type.field(place) for place in range(array.type.num_fields)]
        parts = array.flatten()  # what is missing is missing in each field
        if {field.name for field in fields} == {"bytes", "path"} and not self._is_lacking(array, fields, parts):
            place = next(i for i, field in enumerate(fields) if field.name == "bytes")
            self._note(f"column {name!r} is the bytes of files; their paths are left out")
            yield from self.of_array(parts[place], name)
            return
        if not fields:
            raise self._refused(repr(name), "an object without fields")
        for field, part in zip(fields, parts, strict=True):
            yield from self.of_array(part, f"{name}.{field.name}")

    def _is_lacking(self, array: Any, fields: list[Any], parts: list[Any]) -> bool:  # noqa: ANN401
        """Whether a file's bytes are missing where there is a path."""
        of = {field.name: part for field, part in zip(fields, parts, strict=True)}
        if not self._arrow.types.is_binary(of["bytes"].type) and not self._arrow.types.is_large_binary(
            of["bytes"].type
        ):
            return True
        return bool(of["bytes"].null_count > array.null_count)

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)

    def _refused(self, at: str, said: str) -> DatasetError:
        return DatasetError(f"{self._where}, column {at}: {said}")


def _storage(kind: Any) -> Any:  # noqa: ANN401 - a type
    """The type of an array without values: extension types have no empty arrays of their own."""
    return getattr(kind, "storage_type", kind)
