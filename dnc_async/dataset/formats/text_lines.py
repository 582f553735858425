"""Text files: their bytes as UTF-8, whatever encoding they have, and their lines. What is not text is refused, with its line."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from dnc_async.dataset.formats.compression import ByteStream
from dnc_async.errors import DatasetError

_PIECE_BYTES = 2**18
_LONGEST_LINE = 2**24
_OTHER_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF32_BE: "utf-32",
}


class Utf8Stream:
    """A file's text as UTF-8 without a byte order mark. It is decoded if it has another encoding, or a mark says so."""

    def __init__(self, stream: ByteStream, where: str, encoding: str | None) -> None:
        self._stream = stream
        self._where = where
        self._decoder: codecs.IncrementalDecoder | None = None
        self._start = b""
        while len(self._start) < 4 and (piece := stream.read(4 - len(self._start))):
            self._start += piece
        found = next((name for mark, name in _OTHER_BOMS.items() if self._start.startswith(mark)), encoding)
        if found is not None and codecs.lookup(found).name not in ("utf-8", "utf-8-sig"):
            self._encoding = found
            self._decoder = codecs.getincrementaldecoder(found)()
        whole = self._start
        self._start = whole.removeprefix(codecs.BOM_UTF8)
        #: The bytes of the mark, which are not given.
        self.mark_bytes = len(whole) - len(self._start)

    def read(self, size: int) -> bytes:
        """Some of the next bytes; none at the end."""
        while True:
            data, self._start = self._start, b""
            data += self._stream.read(max(1, size - len(data)))
            if self._decoder is None:
                return data
            text = self._decode(self._decoder, data)
            if text or not data:
                return text.encode("utf-8", "surrogatepass")

    def _decode(self, decoder: codecs.IncrementalDecoder, data: bytes) -> str:
        try:
            return decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{self._where}: not {self._encoding} text: {error.reason}; which encoding has it?"
            ) from error


class LineReader:
    """Iterates over the lines of a UTF-8 stream with their ends (LF, CRLF or CR). ``line`` is the number of the next one.

    ``characters`` counts those that were read; the caller may reset it.
    """

    def __init__(self, stream: ByteStream, where: str, *, line: int = 1) -> None:
        self._stream = stream
        self._where = where
        self._line = line
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
        pending, number = "", self._line
        for lines in self._pieces():
            self.characters += sum(map(len, lines))
            lines[0] = pending + lines[0]
            pending = "" if lines[-1].endswith(("\n", "\r")) else lines.pop()
            if len(pending) > _LONGEST_LINE:
                raise DatasetError(f"{self._where}: a line is longer than {_LONGEST_LINE} characters; is this text?")
            self._recent.append((number, lines))
            yield from lines
            number += len(lines)
        if pending:
            self._recent.append((number, [pending]))
            yield pending

    def _pieces(self) -> Iterator[list[str]]:
        """Yield lists of lines, about 256 KiB each, none empty. The last line of a list may continue in the next list."""
        offset, line = getattr(self._stream, "mark_bytes", 0), self._line
        decoder = codecs.getincrementaldecoder("utf-8")()
        newlines = io.IncrementalNewlineDecoder(None, translate=False)  # keeps CR and LF together
        while True:
            data = self._stream.read(_PIECE_BYTES)
            offset += len(data)
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                good = error.object[: error.start].decode("utf-8")
                at = offset - len(data) - held + error.start
                raise DatasetError(
                    f"{self._where}, line {line + count_lines(good)}: not UTF-8 text (byte {at}); if it has another encoding, "
                    "pass it, for example encoding='latin-1' or 'cp1252'"
                ) from error
            text = newlines.decode(text, final=not data)
            if "\0" in text:
                at = line + count_lines(text[: text.index("\0")])
                raise DatasetError(
                    f"{self._where}, line {at}: a zero byte, which is no text; is it UTF-16 (pass encoding=), or binary?"
                )
            line += count_lines(text)
            if text:
                yield list(io.StringIO(text, newline=""))
            if not data:
                return


def count_lines(text: str) -> int:
    """How many line ends (LF, CRLF or CR) a text contains."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")
