"""Reads the lines of a UTF-8 file piece by piece. What is not text is refused, with the number of its line."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.errors import DatasetError

_PIECE_BYTES = 2**18
_LONGEST_LINE = 2**24
_OTHER_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    codecs.BOM_UTF32_BE: "UTF-32",
}


class LineReader:
    """Iterates over the lines with their ends (LF, CRLF or CR), from the beginning of the file.

    ``characters`` counts those that were read; the caller may reset it.
    """

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._recent: list[tuple[int, list[str]]] = []  # with the number of the first line of each
        self.characters = 0

    def forget(self) -> None:
        """Forget the lines before the current piece."""
        self._recent = self._recent[-1:]

    def lines(self, first: int, last: int) -> list[str]:
        """The lines from one number to another, of those that were not forgotten."""
        return [
            line for start, lines in self._recent for number, line in enumerate(lines, start) if first <= number <= last
        ]

    def first(self) -> list[str]:
        """The lines of the first piece, at least one; without the last one, which may be cut off, if there are others."""
        text = ""
        for lines in self._pieces():
            text += "".join(lines)
            if len(lines) > 1 or len(text) > _LONGEST_LINE:
                break
        lines = list(io.StringIO(text, newline=""))
        return lines[:-1] if len(lines) > 1 and not lines[-1].endswith(("\n", "\r")) else lines

    def __iter__(self) -> Iterator[str]:
        pending, number = "", 1
        for lines in self._pieces():
            self.characters += sum(map(len, lines))
            lines[0] = pending + lines[0]
            pending = "" if lines[-1].endswith(("\n", "\r")) else lines.pop()
            if len(pending) > _LONGEST_LINE:
                raise DatasetError(
                    f"{self._source.path}: a line is longer than {_LONGEST_LINE} characters; is this text?"
                )
            self._recent.append((number, lines))
            yield from lines
            number += len(lines)
        if pending:
            self._recent.append((number, [pending]))
            yield pending

    def _pieces(self) -> Iterator[list[str]]:
        """Yield lists of lines, about 256 KiB each, none empty. The last line of a list may continue in the next list."""
        offset, line = 0, 1
        decoder = codecs.getincrementaldecoder("utf-8")()
        newlines = io.IncrementalNewlineDecoder(None, translate=False)  # keeps CR and LF together
        while True:
            self._source.raw.seek(offset)
            data = self._source.raw.read(_PIECE_BYTES) or b""
            start = offset
            offset = self._source.raw.tell()
            if not start:
                data = self._without_bom(data)
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                good = error.object[: error.start].decode("utf-8")
                raise DatasetError(
                    f"{self._source.path}, line {line + count_lines(good)}: not UTF-8 text (byte "
                    f"{offset - len(data) - held + error.start}); convert it first, for example with iconv -f latin1 -t utf-8"
                ) from error
            text = newlines.decode(text, final=not data)
            if "\0" in text:
                at = line + count_lines(text[: text.index("\0")])
                raise DatasetError(
                    f"{self._source.path}, line {at}: a zero byte, which is no text; is it UTF-16, or binary?"
                )
            line += count_lines(text)
            if text:
                yield list(io.StringIO(text, newline=""))
            if not data:
                return

    def _without_bom(self, data: bytes) -> bytes:
        for mark, name in _OTHER_BOMS.items():
            if data.startswith(mark):
                raise DatasetError(
                    f"{self._source.path}: is {name} text; convert it to UTF-8 first, for example with iconv"
                )
        return data.removeprefix(codecs.BOM_UTF8)


def count_lines(text: str) -> int:
    """How many line ends (LF, CRLF or CR) a text contains."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")
