"""Reads Parquet files, a row group at a time, in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dnc_async.dataset.formats.arrow_schema import Pieces, common_schema
from dnc_async.dataset.formats.extras import pyarrow
from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.schema import Columns
from dnc_async.errors import DatasetError

_BATCH_ROWS = 2**14
#: Microseconds between which nanoseconds of 64 bits hold every time.
_NANOSECOND_RANGE = 2**63 // 1000 - 1


class Parquet:
    """Parquet files, each with the same columns."""

    name = "parquet"
    suffixes = (".parquet", ".pq", ".parq")
    is_compressible = False

    @staticmethod
    def recognises(head: bytes) -> bool:
        """By its magic."""
        return head.startswith((b"PAR1", b"PARE"))

    def read(self, source: Source, options: ReadOptions) -> Iterator[Columns | None]:
        """Yield blocks of rows."""
        arrow = pyarrow(source.where, "parquet")
        schemas, missing, unit = [], set(), "ns"
        for file in source.files:
            opened = _opened(arrow, file)
            schemas.append((file, opened.schema_arrow))
            for found in _missing_in(opened, file, arrow):
                missing |= found
                yield None
            if unit == "ns" and _has_far_times(arrow, opened, file):
                unit = "us"
            file.rest()
        schema = common_schema(schemas, source.notes)
        pieces = Pieces(schema, missing, options, source)
        for file in source.files:
            source.current = file
            for batch in _batches(arrow, _opened(arrow, file, unit), file):
                yield from pieces.of(batch, file)
            file.rest()


def _opened(arrow: Any, file: SourceFile, unit: str = "ns") -> Any:  # noqa: ANN401 - the module, a ParquetFile
    file.raw.seek(0)
    try:
        return arrow.parquet.ParquetFile(file.raw, coerce_int96_timestamp_unit=unit)
    except (arrow.ArrowException, OSError) as error:
        raise DatasetError(f"{file.path}: no Parquet file that can be read ({str(error).rstrip('.')})") from error


def _batches(arrow: Any, opened: Any, file: SourceFile, columns: list[str] | None = None) -> Iterator[Any]:  # noqa: ANN401
    try:
        yield from opened.iter_batches(batch_size=_BATCH_ROWS, columns=columns)
    except (arrow.ArrowException, OSError) as error:
        raise DatasetError(f"{file.path}: damaged, cut off, or encrypted ({str(error).rstrip('.')})") from error


def _missing_in(opened: Any, file: SourceFile, arrow: Any) -> Iterator[set[str]]:  # noqa: ANN401
    """Yield the names of columns in which a value is missing: by the file's statistics, else by reading those columns."""
    unknown: set[str] = set()
    metadata = opened.metadata
    for place in range(metadata.num_columns):
        column = metadata.schema.column(place)
        name = _top_name(opened, column)
        if column.max_definition_level == 0 or _is_path_of_file(metadata, column.path):
            continue
        groups = [metadata.row_group(group).column(place) for group in range(metadata.num_row_groups)]
        counts = [
            each.statistics.null_count if each.is_stats_set and each.statistics.has_null_count else None
            for each in groups
        ]
        if column.max_repetition_level or None in counts:
            unknown.add(name)
        elif any(counts):
            yield {name}
    if unknown:
        for batch in _batches(arrow, opened, file, sorted(unknown)):
            yield {name for name, column in zip(batch.schema.names, batch.columns, strict=True) if column.null_count}


def _is_path_of_file(metadata: Any, path: str) -> bool:  # noqa: ANN401
    """Whether a leaf is the path beside a file's bytes, which is left out."""
    parent, _, name = path.rpartition(".")
    leaves = [metadata.schema.column(place).path for place in range(metadata.num_columns)]
    return name == "path" and [leaf for leaf in leaves if leaf.startswith(f"{parent}.")] in (
        [f"{parent}.bytes", path],
        [path, f"{parent}.bytes"],
    )


def _top_name(opened: Any, column: Any) -> str:  # noqa: ANN401
    """The name of the column to which a leaf belongs; a name may have dots."""
    names = opened.schema_arrow.names
    path: str = column.path
    return next(
        (name for name in sorted(names, key=len, reverse=True) if path == name or path.startswith(f"{name}.")), path
    )


def _has_far_times(arrow: Any, opened: Any, file: SourceFile) -> bool:  # noqa: ANN401
    """Whether old timestamps of 96 bits have years that nanoseconds do not hold, such as 1000 or 9999."""
    leaves = [opened.metadata.schema.column(place) for place in range(opened.metadata.num_columns)]
    names = {_top_name(opened, leaf) for leaf in leaves if leaf.physical_type == "INT96"}
    if not names:
        return False
    compute = pyarrow(str(file.path), "compute").compute
    for batch in _batches(arrow, _opened(arrow, file, "us"), file, sorted(names)):
        for column in batch.columns:
            if arrow.types.is_timestamp(column.type):
                ends = compute.min_max(column.cast(arrow.int64())).as_py()
                if any(end is not None and abs(end) > _NANOSECOND_RANGE for end in ends.values()):
                    return True
    return False
