"""Publishes rows in an order that follows from a seed: ``upload(shuffle=SEED)``, gathered by index while they are packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnc_async.dataset.order.permutation import permuted
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Columns, Structure
from dnc_async.errors import ArgumentError, DatasetError

_BLOCK_BYTES = 4 * 2**20
#: Rows of a file that cannot be read by index are held in memory.
_MOST_HELD_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Ready:
    """A block of rows that is converted already."""

    columns: Columns
    structure: Structure


def gathered(columns: Columns, structure: Structure, seed: int) -> Iterator[Ready]:
    """Yield the rows of whole columns in shuffled order, some megabytes at a time."""
    rows = len(next(iter(columns.values())))
    step = max(1, _BLOCK_BYTES * rows // max(1, sum(map(_size, columns.values()))))
    order = permuted(rows, seed)
    for start in range(0, max(1, rows), step):
        some = order[start : start + step]
        yield Ready({name: column[some] for name, column in columns.items()}, structure)


def joined(parts: Sequence[Columns]) -> Columns:
    """Several pieces of a dataset as one."""
    return {name: _joined([part[name] for part in parts]) for name in parts[0]}


def _joined(parts: list[Any]) -> Any:  # noqa: ANN401 - arrays, or Ragged
    return type(parts[0]).join(parts) if isinstance(parts[0], Ragged) else np.concatenate(parts)


def check_held(held: int, where: str) -> None:
    """Raise if a file's rows do not fit into memory, where they have to be shuffled."""
    if held > _MOST_HELD_BYTES:
        raise DatasetError(
            f"{where}: more than {_MOST_HELD_BYTES} bytes of rows, which cannot be read by index, so that shuffle= would hold "
            "them in memory; shuffle them before, or pass an array or a dataset with __getitem__"
        )


def size_of(columns: Columns) -> int:
    """The bytes of some columns."""
    return sum(map(_size, columns.values()))


def _size(column: Any) -> int:  # noqa: ANN401 - an array, or a Ragged
    return int(column.values.nbytes + column.offsets.nbytes if isinstance(column, Ragged) else column.nbytes)


def refuse(source: object) -> None:
    """Raise: what can be read once has no order but its own."""
    raise ArgumentError(
        f"shuffle: a {type(source).__name__} can be read once, in its own order; shuffle its source, or pass a list, arrays, a "
        "file, or a dataset with __len__ and __getitem__"
    )
