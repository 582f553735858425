"""Converts the caller's values to a column: each of them exactly, or with an error that names the row and the remedy.

numpy finds a type for almost everything: ``["a", nan]`` becomes text, ``[2**63, -1]`` floats, and zeros at the end of a text
are lost. Here a value is refused if it would not come back unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeGuard

import numpy as np

from dnc_async.dataset.formats.arrow_columns import ArrowColumns
from dnc_async.dataset.formats.options import ERROR, ReadOptions
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Array
from dnc_async.errors import DatasetError
from dnc_async.publish.tables import (
    arrow_array,
    is_arrow,
    is_frame,
    is_missing,
    is_series,
    is_table,
    matrix,
    pandas_values,
)
from dnc_async.publish.times import times_in_one_unit

Column = Array | Ragged

_TEXT_DTYPE = np.dtypes.StringDType()
_BYTES = (bytes, bytearray, memoryview)
_ARRAYS = ("__array__", "__array_interface__", "__array_struct__")
_SURROGATES, _LAST_CHARACTER = (0xD800, 0xDFFF), 0x10FFFF
_ROWS_AT_ONCE = 2**16
#: Python does not convert integers of more than 4300 digits to text.
_MOST_BITS_SHOWN = 2**12
_IF_BLOCKS = "; a list holds samples: if these are blocks of rows, pass iter(…) of it"


def as_column(value: object, where: str) -> Column:
    """A column of one value per sample: from an array, a list, a series of pandas, polars or Arrow, or a ``Ragged``.

    ``where`` begins each error message. Raises :class:`~dnc_async.errors.DatasetError`.
    """
    if isinstance(value, Ragged):
        return value
    if is_table(value):
        if is_frame(value):
            return _checked(matrix(value, where), where)
        raise DatasetError(f"{where}: a table within a column; pass its columns one by one, in a dict")
    if is_series(value):
        return _series(value, where)
    if is_sequence(value) or not (isinstance(value, np.ndarray) or _is_one_object(value)):
        return column_of_list(_values_of(value), where)
    if isinstance(value, Mapping):
        raise DatasetError(f"{where}: a {type(value).__name__} within a column; make a column of each of its keys")
    if isinstance(value, np.ma.MaskedArray):
        return _checked(_unmasked(value, where), where)
    return _checked(np.asarray(value) if isinstance(value, np.ndarray) else _foreign(value, where), where)


def _series(value: Any, where: str) -> Column:  # noqa: ANN401 - of pandas, polars or Arrow
    """One column from a series without missing values."""
    if is_arrow(value):
        options = ReadOptions(missing=ERROR)
        found = list(ArrowColumns(where, options).of_array(arrow_array(value, where), "value"))
        if len(found) > 1:
            raise DatasetError(f"{where}: values with fields; make a column of each")
        return found[0][1]
    values, missing = pandas_values(value, where, [])
    if missing is not None:
        raise missing_value(f"{where}, row {int(np.argmax(missing))}", "the value")
    return column_of_list(values, where) if isinstance(values, list) else _checked(values, where)


def listed(value: Any) -> list[Any] | None:  # noqa: ANN401 - what the caller has for a column
    """The values of a list or of an array of Python objects; ``None`` for anything else."""
    if isinstance(value, np.ndarray):
        is_objects = value.dtype.kind == "O" or hasattr(value.dtype, "na_object")
        is_plain = value.ndim == 1 and not isinstance(value, np.ma.MaskedArray)
        return value.tolist() if is_objects and is_plain else None
    if isinstance(value, Ragged) or is_table(value) or is_series(value):
        return None
    return _values_of(value) if is_sequence(value) or not _is_one_object(value) else None


def _is_one_object(value: object) -> bool:
    """Whether it is not a sequence of values: an array, text, a dict, or a sparse matrix of scipy."""
    if isinstance(value, (str, *_BYTES, Mapping)) or any(hasattr(value, name) for name in (*_ARRAYS, "toarray")):
        return True
    return not (hasattr(value, "__len__") and hasattr(value, "__getitem__"))


def _values_of(value: Any) -> list[Any]:  # noqa: ANN401 - a sequence, or what is indexed like one
    """The values of a list, or of a sequence that creates them on request and may reuse the same array."""
    if is_held(value):
        return list(value)
    return [deepcopy(value[place]) for place in range(len(value))]


def is_held(value: object) -> bool:
    """Whether it is one of Python's own sequences, which contain their values."""
    return isinstance(value, (list, tuple)) or type(value).__module__ in ("builtins", "collections", "array")


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it is a plain sequence of values, and not an array, text or bytes."""
    is_plain = isinstance(value, Sequence) and not isinstance(value, (str, *_BYTES))
    return is_plain and not hasattr(value, "__array__")


def _unmasked(value: np.ma.MaskedArray[Any, Any], where: str) -> Array:
    mask = np.ma.getmaskarray(value)
    if mask.any():
        row = int(np.argwhere(mask.reshape(mask.shape or (1,)))[0][0])
        raise DatasetError(
            f"{where}, row {row}: the value is masked; fill it in with .filled(…), or publish the mask as a column of its own"
        )
    return np.asarray(value.data)


def _foreign(value: object, where: str) -> Array:
    """Convert an object that is not an array yet, such as a tensor."""
    try:
        return np.asarray(value)
    except Exception as error:  # the object's own __array__ may raise anything
        raise DatasetError(
            f"{where}: a {type(value).__name__} cannot be read as an array: {str(error) or type(error).__name__}"
        ) from error


def _checked(array: Array, where: str) -> Column:
    """Convert an array of any dtype to one that can be published."""
    if array.ndim == 0:
        found = f"a single {array.dtype}" if array.dtype.kind != "O" else f"a {type(array.item()).__name__}"
        raise DatasetError(
            f"{where}: expected an array whose first axis is the samples, got {found} (samples are taken from a list, or "
            "from an iterable with samples=True)"
        )
    if array.dtype.kind == "O":
        return _objects(array, where)
    if array.dtype.kind in "UT" and array.ndim != 1:
        raise DatasetError(
            f"{where}: text must be one string a sample, got shape {array.shape}; make a column of each place"
        )
    if array.dtype.kind == "T":
        return _string_dtype(array, where)
    if array.dtype.kind == "U":
        return _fixed_text(array, where)
    return array


def _objects(array: Array, where: str) -> Column:
    column = column_of_list(array.reshape(-1).tolist(), where)
    if array.ndim == 1:
        return column
    if isinstance(column, Ragged) or column.dtype.kind == "T" or column.ndim != 1:
        raise DatasetError(
            f"{where}: Python objects of shape {array.shape} cannot be published; make a column of each place"
        )
    return column.reshape(array.shape)


def _string_dtype(array: Array, where: str) -> Array:
    if not hasattr(array.dtype, "na_object"):
        return array
    return _text(array.tolist(), where)  # what is missing is no string there


def _fixed_text(array: Array, where: str) -> Array:
    """Check text of fixed width, as numpy has it, for invalid characters."""
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    width = array.dtype.itemsize // 4
    for start in range(0, len(array) if width else 0, _ROWS_AT_ONCE):
        codes = np.ascontiguousarray(array[start : start + _ROWS_AT_ONCE]).view(np.uint32).reshape(-1, width)
        wrong = ((codes >= _SURROGATES[0]) & (codes <= _SURROGATES[1])) | (codes > _LAST_CHARACTER)
        if wrong.any():
            raise _half_character(where, start + int(np.argwhere(wrong)[0][0]))
    return array


def _half_character(where: str, row: int) -> DatasetError:
    return DatasetError(
        f"{where}, row {row}: the text holds half a character (a lone surrogate), which UTF-8 has not; "
        "repair it, for example with text.encode('utf-8', 'replace').decode()"
    )


def column_of_list(values: list[Any], where: str) -> Column:
    """A column of a list of values, one a sample: numbers, strings, bytes, or arrays and lists of equal shape."""
    types = set(map(type, values))
    if any(is_missing(kind) for kind in types):
        row = next(i for i, value in enumerate(values) if is_missing(type(value)))
        raise missing_value(f"{where}, row {row}", repr(values[row]))
    for family, build in (((str,), _text), (_BYTES, lambda values, _: Ragged.of(values))):
        if any(issubclass(kind, family) for kind in types):
            _all_of(values, family, where)
            return build(values, where)
    if any(issubclass(kind, (np.datetime64, np.timedelta64)) for kind in types):
        return stack([np.asarray(value) for value in values], where)
    if all(issubclass(kind, (bool, np.bool_)) for kind in types):
        return np.array(values, dtype=np.bool_ if values else np.float64)
    if all(issubclass(kind, (int, float, complex, np.number)) for kind in types):
        return _numbers(values, types, where)
    return _nested(values, where)


def missing_value(at: str, what: str) -> DatasetError:
    """The error for a missing value."""
    return DatasetError(
        f"{at}: {what} is missing; fill it in, or leave the row out (a missing float can be NaN; missing='mask' keeps a "
        "column that says where)"
    )


def _all_of(values: list[Any], family: tuple[type, ...], where: str) -> None:
    """Raise unless all values are of one family of types."""
    row = next((i for i, value in enumerate(values) if not isinstance(value, family)), None)
    if row is None:
        return
    other = next(i for i, value in enumerate(values) if isinstance(value, family))
    found, beside = values[row], f"{type(values[other]).__name__} in row {other}"
    if is_missing(type(found)) or (isinstance(found, (float, np.floating)) and np.isnan(found)):
        raise missing_value(f"{where}, row {row}", f"{found!r} beside {beside}")
    raise DatasetError(
        f"{where}, row {row}: {_short(found)} is a {type(found).__name__} beside {beside}; make all of them one type"
    )


def _text(values: list[Any], where: str) -> Array:
    try:
        _all_of(values, (str,), where)
        return np.array(values, dtype=_TEXT_DTYPE)
    except UnicodeEncodeError as error:
        row = next(i for i, value in enumerate(values) if any("\ud800" <= letter <= "\udfff" for letter in value))
        raise _half_character(where, row) from error
    except StopIteration:  # no string at all: the array's dtype has a missing value in each row
        raise missing_value(f"{where}, row 0", repr(values[0])) from None


def _numbers(values: list[Any], types: set[type], where: str) -> Array:
    """Convert Python or numpy numbers to the smallest numpy type that represents each of them exactly."""
    booleans = (bool, np.bool_)
    if any(issubclass(kind, booleans) for kind in types):
        row = next(i for i, value in enumerate(values) if not isinstance(value, booleans))
        raise DatasetError(f"{where}, row {row}: {_short(values[row])} beside booleans; make all of them one type")
    if all(issubclass(kind, (int, np.integer)) for kind in types):
        return _integers(values, types, where)
    try:
        array = np.array(values)
    except OverflowError:
        array = np.array([], dtype=object)
    if array.dtype.kind == "O":
        row = next(i for i, v in enumerate(values) if isinstance(v, int) and not -(2**63) <= v < 2**64)
        raise DatasetError(f"{where}, row {row}: {_short(values[row])} has more than 64 bits; {_AS_TEXT}")
    for row, value in enumerate(values):
        if isinstance(value, (int, np.integer)) and int(value) != int(array[row].real):  # numpy would compare floats
            raise _inexact(where, row, value, array.dtype)
    return array


_AS_TEXT = "publish such numbers as text"


def _inexact(where: str, row: int, value: object, dtype: np.dtype[Any]) -> DatasetError:
    return DatasetError(
        f"{where}, row {row}: the whole number {_short(value)} stands among floats, and {dtype} does not hold it exactly; "
        f"round it yourself, or {_AS_TEXT}"
    )


def _integers(values: list[Any], types: set[type], where: str) -> Array:
    if all(issubclass(kind, np.integer) for kind in types):
        dtype = np.result_type(*types)
        if dtype.kind in "iu":
            return np.array(values, dtype=dtype)
    least, most = min(values, key=int), max(values, key=int)
    for integers in (np.int64, np.uint64):
        limits = np.iinfo(integers)
        if limits.min <= int(least) and int(most) <= limits.max:
            return np.array([int(value) for value in values], dtype=integers)
    row = next(i for i, value in enumerate(values) if int(value) in (int(least), int(most)) and not _fits(int(value)))
    both = "" if int(least) < -(2**63) or int(most) >= 2**64 else f" beside {_short(least)}"
    raise DatasetError(
        f"{where}, row {row}: {_short(values[row])}{both} fits no whole number of 64 bits; {_AS_TEXT}, or convert them to floats"
    )


def _fits(value: int) -> bool:
    return -(2**63) <= value < 2**63


def _nested(values: list[Any], where: str) -> Column:
    """Convert a list of arrays, or of lists: stacked if they have one shape."""
    rows = _plain_rows(values)
    if rows is not None:
        return rows
    arrays: list[Array] = []
    for row, value in enumerate(values):
        at = f"{where}, row {row}"
        if isinstance(value, (int, float, complex, np.generic)):
            arrays.append(np.asarray(value))
            continue
        if is_table(value):
            raise DatasetError(
                f"{at}: a table is no sample; publish tables one after the other with iter(…) of the list"
            )
        if not (is_sequence(value) or hasattr(value, "__array__") or hasattr(value, "__array_interface__")):
            raise _no_value(value, at)
        array = np.asarray(value) if np.ndim(value) == 0 and hasattr(value, "__array__") else as_column(value, at)
        if isinstance(array, Ragged) or array.dtype.kind in "UT":
            raise DatasetError(
                f"{at}: text and bytes must be one a sample, not several; make a column of each place{_IF_BLOCKS}"
            )
        arrays.append(array)
    return stack(arrays, where)


def _plain_rows(values: list[Any]) -> Array | None:
    """Convert lists of one length with floats only, or 64-bit integers only, at once; ``None`` for others."""
    if set(map(type, values)) != {list} or len(set(map(len, values))) != 1:
        return None
    flat = [number for row in values for number in row]
    types = set(map(type, flat))
    if types == {float} or (types == {int} and min(flat) >= -(2**63) and max(flat) < 2**63):
        return np.array(flat, dtype=np.float64 if types == {float} else np.int64).reshape(len(values), -1)
    return None


def _no_value(value: object, at: str) -> DatasetError:
    kind = type(value).__name__
    remedy = {
        "dict": "make a column of each key",
        "set": "a set has no order: publish a sorted list of one length, or text",
    }.get(kind, "use numbers, text or bytes")
    return DatasetError(f"{at}: a {kind} is a Python object that cannot be published; {remedy}")


def stack(arrays: list[Array], where: str) -> Column:
    """Stack samples of one shape to one array, uncopied if there is only one; ``uint8`` of different lengths as ``Ragged``."""
    shape = arrays[0].shape
    row = next((i for i, array in enumerate(arrays) if array.shape != shape), None)
    if row is not None:
        if all(array.ndim == 1 and array.dtype == np.uint8 for array in arrays):
            return Ragged.of(arrays)
        are_blocks = len(shape) > 0 and arrays[row].shape[1:] == shape[1:]
        raise DatasetError(
            f"{where}, row {row}: the sample has shape {arrays[row].shape}, those before it {shape}; "
            "pad or cut them to one shape (only bytes may differ in length)" + (_IF_BLOCKS if are_blocks else "")
        )
    if len(arrays) == 1:
        return arrays[0][np.newaxis]
    dtype = _common_dtype(arrays, where)
    return np.stack(arrays, dtype=dtype, casting="unsafe")  # checked above: every value is kept


def _common_dtype(arrays: list[Array], where: str) -> np.dtype[Any]:
    dtypes = list(dict.fromkeys(array.dtype for array in arrays))
    if len(dtypes) == 1:
        return dtypes[0]
    if any(dtype.kind in "Mm" for dtype in dtypes):
        return times_in_one_unit(arrays, where)
    try:
        dtype = np.result_type(*dtypes)
    except TypeError:
        dtype = np.dtype(object)
    kinds = {each.kind for each in dtypes}
    if dtype.kind == "O" or (len(kinds) > 1 and kinds - set("iufc")) or (kinds == {"i", "u"} and dtype.kind == "f"):
        row = next(i for i, array in enumerate(arrays) if array.dtype != dtypes[0])
        raise DatasetError(f"{where}, row {row}: {dtypes[1]} beside {dtypes[0]} in row 0; convert them to one dtype")
    if dtype.kind in "fc":
        for row, array in enumerate(arrays):
            wrong = _first_inexact(array, dtype)
            if wrong is not None:
                raise _inexact(where, row, wrong, dtype)
    return dtype


def _first_inexact(array: Array, dtype: np.dtype[Any]) -> int | None:
    if array.dtype.kind not in "iu":
        return None
    digits = np.finfo(dtype).nmant + 1
    large = array[(array > 2**digits) | (array < -(2**digits))] if array.dtype.itemsize * 8 > digits else array[:0]
    return next((int(each) for each in large.reshape(-1) if int(each) != int(dtype.type(each).real)), None)


def _short(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS_SHOWN:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:57]}…"
