"""Reads plain text: a line a sample, column ``text``. Lines are converted in bulk, without a Python object for each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.formats.text_lines import Utf8Stream
from dnc_async.dataset.ragged import Text
from dnc_async.dataset.schema import Columns
from dnc_async.errors import DatasetError

_BLOCK_BYTES = 4 * 2**20
_LONGEST_LINE = 2**28
_LF, _CR = 10, 13


class TextLines:
    """Lines that end with LF or CRLF, or all with CR; an empty line is an empty text."""

    name = "text"
    suffixes = (".txt", ".text")
    is_compressible = True

    @staticmethod
    def recognises(head: bytes) -> bool:
        """It is never told by its content."""
        return False

    def read(self, source: Source, options: ReadOptions) -> Iterator[Columns | None]:
        """Yield blocks of lines."""
        for file in source.files:
            source.current = file
            stream = Utf8Stream(file.stream(last=True), str(file.path), options.encoding)
            line, kept = 1, b""
            has_cr_alone: bool | None = None
            while piece := stream.read(_BLOCK_BYTES):
                if has_cr_alone is None:  # as the first Macintosh wrote them
                    has_cr_alone = b"\r" in piece[:-1] and b"\n" not in piece
                kept += piece.replace(b"\r", b"\n") if has_cr_alone else piece
                end = kept.rfind(b"\n") + 1
                if not end:
                    if len(kept) > _LONGEST_LINE:
                        raise DatasetError(
                            f"{file.path}, line {line}: longer than {_LONGEST_LINE} bytes; is this text?"
                        )
                    yield None
                    continue
                yield {"text": _lines(kept[:end], line, file)}
                line += kept.count(b"\n", 0, end)
                kept = kept[end:]
            if kept:
                yield {"text": _lines(kept + b"\n", line, file)}
            file.rest()


def _lines(data: bytes, line: int, file: SourceFile) -> Text:
    """Divide whole lines; the first one has the number ``line``."""
    try:
        data.decode("utf-8")
        problem, at = ("a zero byte, which is no text; is it UTF-16 (pass encoding=), or binary?", data.find(b"\0"))
    except UnicodeDecodeError as error:
        problem, at = (
            "not UTF-8 text; if it has another encoding, pass it, for example encoding='latin-1'",
            error.start,
        )
    if at >= 0:
        number = line + data.count(b"\n", 0, at)
        raise DatasetError(f"{file.path}, line {number}: {problem}")
    values = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(values == _LF)
    is_kept = np.ones(len(values), dtype=np.bool_)
    is_kept[ends] = False
    returns = ends[(ends > 0) & (values[ends - 1] == _CR)] - 1
    is_kept[returns] = False
    offsets = np.concatenate([[0], np.cumsum(is_kept)[ends]]).astype(np.int64)
    return Text(values[is_kept], offsets)
