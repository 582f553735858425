"""Reads folders of images, audio or video files: the files as they are, labelled by the folders in which they lie.

A file ``metadata.csv``, ``.jsonl`` or ``.parquet`` beside them, with a column ``file_name``, adds its columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Format, Source
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.limits import MAX_CHUNK_BYTES
from dnc_async.dataset.order.permutation import permuted
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Columns
from dnc_async.errors import DatasetError

_BLOCK_BYTES, _BLOCK_FILES = 8 * 2**20, 4096
_FILE_NAME = "file_name"


class Media:
    """Encoded files of one kind: column ``image``, ``audio`` or ``video``, and ``label``."""

    is_compressible = False

    def __init__(self, name: str, column: str, suffixes: tuple[str, ...], magic: tuple[bytes, ...]) -> None:
        self.name = name
        self.suffixes = suffixes
        self._column = column
        self._magic = magic

    def recognises(self, head: bytes) -> bool:
        """By the magic of the most common ones."""
        return head.startswith(self._magic)

    def read(self, source: Source, options: ReadOptions) -> Iterator[Columns]:
        """Yield blocks of files."""
        labels = _labels(source)
        order = np.arange(len(source.files))
        if options.shuffle is not False and (labels is not None or options.shuffle is not None):
            seed = 0 if options.shuffle is None else int(options.shuffle)
            order = permuted(len(source.files), seed)
            source.is_shuffled = True
            if options.shuffle is None:
                source.notes.append(
                    "the files are shuffled (seed 0), because their order is that of their labels; shuffle=False keeps it"
                )
        start = 0
        while start < len(order):
            rows: list[int] = []
            data: list[bytes] = []
            size = 0
            while start < len(order) and size < _BLOCK_BYTES and len(rows) < _BLOCK_FILES:
                row = int(order[start])
                data.append(_content(source.files[row], source))
                rows.append(row)
                size += len(data[-1])
                start += 1
            block: Columns = {self._column: Ragged.of(data)}
            yield block if labels is None else {**block, "label": labels[rows]}


def _content(file: SourceFile, source: Source) -> bytes:
    source.current = file
    if not 0 < file.size_bytes <= MAX_CHUNK_BYTES:
        raise DatasetError(
            f"{file.path}: has {file.size_bytes} bytes, expected 1 to {MAX_CHUNK_BYTES}; remove it, or mend it"
        )
    data = bytearray(file.size_bytes)
    file.read_into(memoryview(data), 0)
    file.rest()
    return bytes(data)


def _labels(source: Source) -> Any:  # noqa: ANN401 - an array
    """The number of each file's folder among the sorted names of all; ``None`` if the files lie in one folder alone."""
    if source.root is None:
        return None
    folders = [file.path.parent for file in source.files]
    loose = next((file for file, folder in zip(source.files, folders, strict=True) if folder == source.root), None)
    if all(folder == source.root for folder in folders):
        return None
    if loose is not None:
        raise DatasetError(
            f"{source.root}: {loose.path.name} lies beside the folders of classes, such as {_other(folders, source.root)}; move "
            "it into one, or upload that folder alone"
        )
    names = tuple(sorted({folder.name for folder in folders}))
    numbers = {name: number for number, name in enumerate(names)}
    source.classes["label"] = names
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(names[:20])) + (", …" if len(names) > 20 else "")
    source.notes.append(f"labels are folders: {shown}")
    return np.array([numbers[folder.name] for folder in folders], dtype=np.int64)


def _other(folders: list[Path], root: Path) -> str:
    return next(folder.name for folder in folders if folder != root)


class WithMetadata:
    """Media with a table beside them that names each of them once."""

    def __init__(self, media: Media, table: SourceFile, format_: Format) -> None:
        self._media = media
        self._table = table
        self._format = format_

    def read(self, source: Source, options: ReadOptions) -> Iterator[Columns | None]:
        """Yield blocks of files, in their order, with the rows of the table."""
        inner = Source([self._table], str(self._table.path))
        parts = [block for block in self._format.read(inner, options) if block is not None]
        source.notes += inner.notes
        columns = {name: _joined([part[name] for part in parts]) for name in (parts[0] if parts else ())}
        if _FILE_NAME not in columns:
            raise DatasetError(f"{self._table.path}: has no column {_FILE_NAME!r}, which names the files beside it")
        rows = self._rows(source, [_text(each) for each in columns.pop(_FILE_NAME)])
        files = {id(file): row for file, row in zip(source.files, rows, strict=True)}
        kept = ReadOptions(shuffle=False)
        done = 0
        for block in self._media.read(source, kept):
            count = len(next(iter(block.values())))
            order = [files[id(file)] for file in source.files[done : done + count]]
            done += count
            yield {**block, **{name: values[np.array(order)] for name, values in columns.items()}}

    def _rows(self, source: Source, names: list[str]) -> list[int]:
        places = {name: row for row, name in enumerate(names)}
        if len(places) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DatasetError(f"{self._table.path}: {twice} stands twice in the column {_FILE_NAME!r}")
        rows = []
        for file in source.files:
            name = file.path.relative_to(self._table.path.parent).as_posix()
            if name not in places:
                raise DatasetError(
                    f"{self._table.path}: does not name {name}, which lies beside it; add it to the table, or move it away"
                )
            rows.append(places.pop(name))
        if places:
            raise DatasetError(f"{self._table.path}: names {next(iter(places))}, and there is no such file")
        return rows


def _joined(parts: list[Any]) -> Any:  # noqa: ANN401 - arrays, or Ragged
    return type(parts[0]).join(parts) if isinstance(parts[0], Ragged) else np.concatenate(parts)


def _text(value: Any) -> str:  # noqa: ANN401 - of either kind of column
    return value if isinstance(value, str) else bytes(value).decode("utf-8")


IMAGES = Media(
    "images",
    "image",
    (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".heic"),
    (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8"),
)
AUDIO = Media("audio", "audio", (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aiff"), (b"fLaC", b"OggS", b"ID3"))
VIDEO = Media("video", "video", (".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg"), (b"\x1aE\xdf\xa3",))
