"""One schema for several files of Arrow's types, and their tables cut into blocks of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from dnc_async.dataset.formats.arrow_columns import ArrowColumns
from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.schema import Columns
from dnc_async.errors import DatasetError

_BLOCK_BYTES = 8 * 2**20


def common_schema(schemas: list[tuple[SourceFile, Any]], notes: list[str]) -> Any:  # noqa: ANN401 - a Schema
    """The schema of the first file, which all others must have; columns in another order are put into that of the first."""
    (first, schema), *others = schemas
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{first.path}: two columns are named {twice!r}; give each a name of its own")
    for file, other in others:
        lacking = [name for name in schema.names if name not in other.names]
        more = [name for name in other.names if name not in schema.names]
        if lacking or more:
            said = f"has no column {lacking[0]!r}" if lacking else f"has a column {more[0]!r}"
            raise DatasetError(f"{file.path}: {said}, unlike {first.path.name}; all files need the same schema")
        if other.names != schema.names:
            note = (
                f"the columns of {file.path.name} are in another order than those of {first.path.name}, which is kept"
            )
            notes.append(note)
        for name in schema.names:
            here, there = schema.field(name).type, other.field(name).type
            if not _is_like(here, there):
                raise DatasetError(
                    f"{file.path}: column {name!r} has the type {there}, and {here} in {first.path.name}; convert it to one type"
                )
    return schema


def _is_like(here: Any, there: Any) -> bool:  # noqa: ANN401 - types
    """Whether two types give the same columns: dictionaries are their values, whatever their codes are."""
    values = [
        getattr(kind, "value_type", kind) if str(kind).startswith("dictionary") else kind for kind in (here, there)
    ]
    return bool(values[0] == values[1])


class Pieces:
    """Converts tables to blocks of rows of some megabytes; ``missing`` are the columns in which a value is missing somewhere."""

    def __init__(self, schema: Any, missing: Collection[str], options: ReadOptions, source: Source) -> None:  # noqa: ANN401
        self._names = schema.names
        self._options = options
        self._notes = source.notes
        self._missing = set(missing)
        self._rows: dict[SourceFile, int] = {}
        self._masked: set[str] | None = None

    def of(self, table: Any, file: SourceFile) -> Iterator[Columns]:  # noqa: ANN401 - a Table or RecordBatch
        """Yield the rows of the next table of a file."""
        start = self._rows.get(file, 0)
        self._rows[file] = start + table.num_rows
        table = table.select(self._names)
        columns = ArrowColumns(str(file.path), self._options, masked=self._mask_names(table), notes=self._notes)
        step = max(1, _BLOCK_BYTES * table.num_rows // max(1, table.nbytes))
        for at in range(0, table.num_rows, step):
            yield columns.of_table(table.slice(at, step), start + at)

    def _mask_names(self, table: Any) -> set[str]:  # noqa: ANN401
        """The names of columns, and of fields of columns, that have a mask."""
        if self._options.missing != "mask":
            return set()
        if self._masked is None:
            self._masked = set()
            for name in self._missing:
                self._masked |= _leaves(name, table.schema.field(name).type)
        return self._masked


def _leaves(name: str, kind: Any) -> set[str]:  # noqa: ANN401 - a type
    """A column's name, or those of its fields' columns."""
    if not str(kind).startswith("struct"):
        return {name}
    fields = [kind.field(place) for place in range(kind.num_fields)]
    return {name}.union(*(_leaves(f"{name}.{field.name}", field.type) for field in fields))
