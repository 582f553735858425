"""Reads JSON Lines: an object a line, whose keys are the columns. Types are decided from the first records, and then held."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from dnc_async.dataset.formats.arrow_columns import ArrowColumns
from dnc_async.dataset.formats.extras import pyarrow
from dnc_async.dataset.formats.json_types import JsonColumn, JsonType
from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.formats.text_lines import LineReader, Utf8Stream
from dnc_async.dataset.schema import Columns
from dnc_async.errors import DatasetError

_BLOCK_ROWS, _BLOCK_CHARACTERS = 4096, 4 * 2**20
#: The types are decided from so many records and characters of the first file, and a share of that of each other one.
_LOOK_ROWS, _LOOK_CHARACTERS = 10_000, 4 * 2**20
_LARGEST_ARRAY = 2**28

Records = tuple[list[Any], list[int]]


class JsonLines:
    """JSON Lines, compressed or not; and a file that is one JSON array of objects."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson", ".jsonlines", ".json")
    is_compressible = True

    @staticmethod
    def recognises(head: bytes) -> bool:
        """By an object at the beginning."""
        return head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b'{"', b"[{"))

    def read(self, source: Source, options: ReadOptions) -> Iterator[Columns | None]:
        """Yield blocks of rows."""
        arrow = pyarrow(source.where)
        root = JsonColumn("")
        whole = True
        for file in source.files:
            rows = characters = 0
            for records, lines, size in _records(file, options):
                _look(root, records, lines, file)
                rows, characters = rows + len(records), characters + size
                yield None
                if rows > _LOOK_ROWS // len(source.files) + 100 and characters > _LOOK_CHARACTERS // len(source.files):
                    whole = False
                    break
            file.rest()
        held = _decided(root, source.where if len(source.files) > 1 else str(source.files[0].path))
        masked = set(root.leaves_with_gaps()) if options.missing == "mask" else set()
        kind = _arrow_type(arrow, held)
        for file in source.files:
            source.current = file
            columns = ArrowColumns(str(file.path), options, masked=masked, notes=source.notes)
            start = 0
            for records, lines, _ in _records(file, options, last=True):
                if not whole:
                    self._check(root, records, lines, held, file)
                    _check_gaps(root, masked, options, file)
                yield columns.of_table(_table(arrow, records, kind, lines, file), start)
                start += len(records)
            file.rest()

    @staticmethod
    def _check(root: JsonColumn, records: list[Any], lines: list[int], held: JsonType, file: SourceFile) -> None:
        _look(root, records, lines, file)
        now = _decided(root, str(file.path))
        if now != held:
            before, after = dict(held[1]), dict(now[1])
            name = next(name for name in after if after[name] != before.get(name))
            said = f"a type that the first records had not ({_shown(after[name])}, before {_shown(before.get(name))})"
            raise DatasetError(
                f"{file.path}, lines {lines[0]} to {lines[-1]}, key {name!r}: {said}; write all of them alike, or put such a "
                "record first"
            )


def _shown(kind: JsonType) -> str:
    return "no such key" if kind is None else kind if isinstance(kind, str) else str(kind[0])


def _check_gaps(root: JsonColumn, masked: set[str], options: ReadOptions, file: SourceFile) -> None:
    if options.missing != "mask":
        return
    for path, line in root.leaves_with_gaps().items():
        if path not in masked:
            raise DatasetError(
                f"{file.path}, line {line}, key {path!r}: the value is missing, and none was in the first records; put such a "
                "record first, or pass missing='fill'"
            )


def _look(root: JsonColumn, records: list[Any], lines: list[int], file: SourceFile) -> None:
    for record, line in zip(records, lines, strict=True):
        if type(record) is not dict:
            raise DatasetError(
                f"{file.path}, line {line}: {str(record)[:40]!r} is no object; expected one JSON object a line"
            )
    root.look(records, lines)


def _decided(root: JsonColumn, where: str) -> JsonType:
    try:
        held = root.decide()
    except ValueError as error:
        raise DatasetError(f"{where}, {error}") from error
    if held == "null" or not held[1]:
        raise DatasetError(f"{where}: there are no records, or none with a key: no samples to publish")
    return held


def _arrow_type(arrow: Any, kind: JsonType) -> Any:  # noqa: ANN401 - the module, a type
    if isinstance(kind, str):
        names = {"bool": arrow.bool_(), "text": arrow.large_string(), "null": arrow.null()}
        return names.get(kind) or getattr(arrow, kind)()
    if kind[0] == "list":
        return arrow.large_list(_arrow_type(arrow, kind[1]))
    return arrow.struct([(name, _arrow_type(arrow, each)) for name, each in kind[1]])


def _table(arrow: Any, records: list[Any], kind: Any, lines: list[int], file: SourceFile) -> Any:  # noqa: ANN401
    try:
        return arrow.Table.from_struct_array(arrow.array(records, kind))
    except UnicodeEncodeError as error:
        for record, line in zip(records, lines, strict=True):
            try:
                json.dumps(record, ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError:
                raise DatasetError(
                    f"{file.path}, line {line}: half a character (a lone surrogate), which is no Unicode text; repair it"
                ) from error
        raise
    except (arrow.ArrowException, OverflowError) as error:
        raise DatasetError(f"{file.path}, lines {lines[0]} to {lines[-1]}: cannot be converted ({error})") from error


def _records(
    file: SourceFile, options: ReadOptions, *, last: bool = False
) -> Iterator[tuple[list[Any], list[int], int]]:
    """Yield records with their lines, and how many characters they had."""
    text = Utf8Stream(file.stream(last=last), str(file.path), options.encoding)
    reader = LineReader(text, str(file.path))
    records: list[Any] = []
    lines: list[int] = []
    size = 0
    following = iter(reader)
    for number, line in enumerate(following, 1):
        reader.forget()
        if not size and not records and line.lstrip().startswith("["):
            yield from _whole_array(line, following, file)
            return
        if line.strip():
            records.append(_parsed(line, number, file))
            lines.append(number)
            size += len(line)
        if len(records) >= _BLOCK_ROWS or size >= _BLOCK_CHARACTERS:
            yield records, lines, size
            records, lines, size = [], [], 0
    if records:
        yield records, lines, size


def _whole_array(first: str, following: Iterator[str], file: SourceFile) -> Iterator[tuple[list[Any], list[int], int]]:
    """A file that is one array: it is held whole, so it must not be large."""
    parts, size = [first], 0
    for line in following:
        parts.append(line)
        size += len(line)
        if size > _LARGEST_ARRAY:
            raise DatasetError(
                f"{file.path}: one JSON array of more than {_LARGEST_ARRAY} characters; write an object a line"
            )
    values = _parsed("".join(parts), 1, file)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DatasetError(f"{file.path}, line 1: a list; expected one JSON object a line, or a list of objects")
    for start in range(0, len(values), _BLOCK_ROWS):
        some = values[start : start + _BLOCK_ROWS]
        yield some, list(range(start + 1, start + 1 + len(some))), size // max(1, len(values) // _BLOCK_ROWS)


def _parsed(line: str, number: int, file: SourceFile) -> Any:  # noqa: ANN401 - any JSON
    try:
        return _decode(line)
    except RecursionError:
        raise DatasetError(f"{file.path}, line {number}: nested too deeply") from None
    except ValueError as error:
        raise DatasetError(f"{file.path}, line {number}: no JSON that can be read ({error})") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return found


_decode = json.JSONDecoder(object_pairs_hook=_object).decode
