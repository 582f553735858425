"""Reads Arrow's files and streams of record batches: ``.arrow``, ``.feather``, ``.arrows``."""

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

_FILE_MAGIC, _STREAM_MAGIC = b"ARROW1", b"\xff\xff\xff\xff"


class ArrowIpc:
    """Arrow's own format, as a file or as a stream."""

    name = "arrow"
    suffixes = (".arrow", ".arrows", ".feather", ".ipc", ".fea", ".ftr")
    is_compressible = False

    @staticmethod
    def recognises(head: bytes) -> bool:
        """By its magic."""
        return head.startswith((_FILE_MAGIC, b"FEA1"))

    def read(self, source: Source, options: ReadOptions) -> Iterator[Columns | None]:
        """Yield blocks of rows. Two passes: the first finds in which columns values are missing."""
        arrow = pyarrow(source.where, "ipc")
        schemas = []
        missing: set[str] = set()
        for file in source.files:
            with _opened(arrow, file) as reader:
                schemas.append((file, reader.schema))
                for batch in _batches(arrow, reader, file):
                    missing |= {
                        name
                        for name, column in zip(batch.schema.names, batch.columns, strict=True)
                        if column.null_count
                    }
                    yield None
            file.rest()
        schema = common_schema(schemas, source.notes)
        pieces = Pieces(schema, missing, options, source)
        for file in source.files:
            source.current = file
            with _opened(arrow, file) as reader:
                for batch in _batches(arrow, reader, file):
                    yield from pieces.of(batch, file)
            file.rest()


def _opened(arrow: Any, file: SourceFile) -> Any:  # noqa: ANN401 - the module, a reader
    head = file.head(8)
    file.raw.seek(0)
    opened = arrow.PythonFile(_Kept(file), mode="r")
    try:
        if head.startswith(b"FEA1"):
            raise DatasetError(f"{file.path}: Feather version 1, which Arrow no longer reads everywhere; save it again")
        if head.startswith(_FILE_MAGIC):
            return arrow.ipc.open_file(opened)
        return arrow.ipc.open_stream(opened)
    except arrow.ArrowException as error:
        raise _damaged(file, error) from error


def _batches(arrow: Any, reader: Any, file: SourceFile) -> Iterator[Any]:  # noqa: ANN401
    try:
        if hasattr(reader, "get_batch"):
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
        else:
            yield from reader
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(file, error) from error


def _damaged(file: SourceFile, error: Exception) -> DatasetError:
    return DatasetError(f"{file.path}: no valid Arrow data, damaged or cut off ({error})")


class _Kept:
    """The open file; closing Arrow's reader does not close it."""

    closed = False

    def __init__(self, file: SourceFile) -> None:
        self.read = file.raw.read
        self.seek = file.raw.seek
        self.tell = file.raw.tell
        self.readable = file.raw.readable
        self.seekable = file.raw.seekable

    def close(self) -> None:
        """Leave it open."""
