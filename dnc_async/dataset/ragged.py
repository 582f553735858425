"""``Ragged``: a column of ``bytes`` samples of different lengths. Encoded media stay encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dnc_async.errors import ArgumentError

Bytes = npt.NDArray[np.uint8]
#: Up to this mean length samples are gathered by an index of all their bytes, longer ones one by one.
_SHORT_BYTES = 256


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Ragged:
    """Samples of bytes, concatenated in ``values``; sample ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    ``ragged[i]`` is a ``uint8`` array that shares this memory, and is writable if ``values`` is. It can be used wherever bytes
    are expected, such as ``io.BytesIO(ragged[i])``. Slices and index arrays select samples, as numpy's do; a slice shares the
    memory, an index array copies. A ``Ragged`` equals another one, or a list of ``bytes``, with the same samples.
    """

    values: Bytes
    offsets: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        """Raise :class:`~dnc_async.errors.ArgumentError` unless the offsets divide the values into samples."""
        values, offsets = self.values, self.offsets
        if values.dtype != np.uint8 or values.ndim != 1 or offsets.dtype.kind not in "iu" or offsets.ndim != 1:
            raise ArgumentError("a Ragged has one axis of uint8 values and one of whole numbers as offsets")
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(values) or (offsets[1:] < offsets[:-1]).any():
            raise ArgumentError(f"a Ragged's offsets go from 0 up to the number of its values, {len(values)}")
        object.__setattr__(self, "offsets", offsets.astype(np.int64, copy=False))

    @classmethod
    def of(cls, samples: Iterable[bytes | bytearray | memoryview | Bytes]) -> Self:
        """Copy ``bytes`` objects, or other objects that contain bytes, into a ``Ragged``."""
        parts = [bytes(sample) for sample in samples]
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return cls(np.frombuffer(bytearray().join(parts), dtype=np.uint8), offsets)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Concatenate several; copies the samples if there is more than one."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.values) for part in parts)])
        shifted = [part.offsets[1:] + start for part, start in zip(parts, starts[:-1], strict=True)]
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([[0], *shifted]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - an array for a number, else a Ragged, as numpy does
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                stop = max(start, stop)
                bounds = self.offsets[start : stop + 1]
                return type(self)(self.values[bounds[0] : bounds[-1]], bounds - bounds[0])
            key = np.arange(len(self))[key]
        if isinstance(key, (list, np.ndarray)) and np.ndim(key):
            return self._gathered(np.arange(len(self))[key])
        at = index(key)
        if not -len(self) <= at < len(self):
            raise IndexError(f"sample {at} of {len(self)}")
        at %= len(self)
        return self.values[self.offsets[at] : self.offsets[at + 1]]

    def _gathered(self, rows: npt.NDArray[np.int64]) -> Self:
        """Copy the samples of these rows, without a Python object for each where they are short."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        if offsets[-1] > _SHORT_BYTES * len(rows):
            return type(self).of(self[int(row)] for row in rows)
        places = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return type(self)(self.values[places], offsets)

    def __iter__(self) -> Iterator[Bytes]:
        return (self.values[start:stop] for start, stop in zip(self.offsets[:-1], self.offsets[1:], strict=True))

    def __repr__(self) -> str:
        return f"<Ragged {len(self):,} samples, {len(self.values):,} bytes>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Ragged):
            return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.values, other.values)
        return self.tolist() == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it can change

    def copy(self) -> Self:
        """The same samples in new memory."""
        return type(self)(self.values.copy(), self.offsets.copy())

    def tolist(self) -> list[bytes]:
        """The samples as a list of ``bytes``."""
        return [sample.tobytes() for sample in self]


class Text(Ragged):
    """Samples of text as UTF-8, as they are in chunks. Only publishing has them: a batch's text is a ``StringDType`` array."""

    __slots__ = ()
