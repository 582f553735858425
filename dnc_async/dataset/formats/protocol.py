"""What a format is, and what it reads: files, whose columns it yields in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.source_file import SourceFile


class Source:
    """The files of a dataset. ``blocks`` are their rows, ``notes`` the reader's messages for the user, a line each.

    ``current`` is the file that is read just now.
    """

    def __init__(self, files: Sequence[SourceFile], where: str) -> None:
        self.files = list(files)
        self.where = where
        self.current: SourceFile | None = files[0] if len(files) == 1 else None
        self.blocks: Iterator[Any] = iter(())
        self.notes: list[str] = []
        #: The folder in which the files are, if it was named.
        self.root: Path | None = None
        #: The names of a column's classes, where its values are their numbers.
        self.classes: dict[str, tuple[str, ...]] = {}
        #: Whether the reader has shuffled the rows itself.
        self.is_shuffled = False
        self._size_bytes = sum(file.size_bytes for file in files)
        self._read_bytes = 0
        self._counted: SourceFile | None = None

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return self._size_bytes

    @property
    def read_bytes(self) -> int:
        """How many bytes were read so far, in the files before the current one and in that."""
        if self.current is not self._counted:
            if self._counted is not None:
                self._read_bytes += self._counted.size_bytes
            self._counted = self.current
        return self._read_bytes + (0 if self.current is None else self.current.read_bytes)

    @property
    def place(self) -> str:
        """What to name in an error: the current file, or all of them."""
        return self.where if self.current is None else str(self.current.path)

    def check_unchanged(self) -> None:
        """Raise :class:`~dnc_async.errors.DatasetError` if a file was changed since it was first looked at."""
        for file in self.files:
            file.check_unchanged()

    def close(self) -> None:
        """End the reader, and close its files."""
        close = getattr(self.blocks, "close", None)
        if close is not None:
            close()
        for file in self.files:
            file.rest()


class Format(Protocol):
    """A file format. One object of it serves all files, so it keeps nothing between calls."""

    @property
    def name(self) -> str:
        """Its name, as in ``upload(format=…)``."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of its files, in lower case, with the dot."""

    @property
    def is_compressible(self) -> bool:
        """Whether its files are read from beginning to end, so that they may be compressed, or come from a pipe."""

    def recognises(self, head: bytes) -> bool:
        """Whether a file's first bytes (512, fewer in a short file) are those of this format."""

    def read(self, source: Source, options: ReadOptions) -> Iterator[Any]:
        """Yield blocks of rows: dicts, or arrays, of columns, all of one schema.

        It yields ``None`` when it has read for a while without a row to give, so that it can be stopped. It blocks, and runs in
        a worker thread. Raises :class:`~dnc_async.errors.DatasetError`, which names file, place and remedy.
        """
