"""Reads tar files in the WebDataset convention: members of one name but for the extension are one sample.

``a/0001.jpg`` and ``a/0001.cls`` are the sample ``a/0001``, with the columns ``jpg`` and ``cls``, and its name is the column
``__key__``. Members of a sample may lie apart, where the file can be read by place. Links are not followed but refused.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from dnc_async.dataset.formats.options import ERROR, MASK, VALID_SUFFIX, ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile, StdinFile
from dnc_async.dataset.limits import MAX_CHUNK_BYTES
from dnc_async.dataset.ragged import Ragged, Text
from dnc_async.dataset.schema import Columns
from dnc_async.errors import DatasetError

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_TEXT = ("txt", "text", "json", "caption", "transcript")
_WHOLE = ("cls", "cls2", "index", "inx")
_BLOCK_BYTES, _BLOCK_SAMPLES = 8 * 2**20, 4096
_TURN_MEMBERS = 2000
_REST_BYTES = 2**20


@dataclass(slots=True)
class _Sample:
    key: str
    members: dict[str, int] = field(default_factory=dict)  # extension → place among the members


class Tar:
    """Tar files, compressed or not."""

    name = "tar"
    suffixes = (".tar",)
    is_compressible = True

    @staticmethod
    def recognises(head: bytes) -> bool:
        """By its magic."""
        return head[257:262] == b"ustar"

    def read(self, source: Source, options: ReadOptions) -> Iterator[Columns | None]:
        """Yield blocks of samples. Two passes: the first finds the samples, and which members they lack."""
        indexes: list[_Index] = []
        for file in source.files:
            if isinstance(file, StdinFile):
                raise DatasetError("stdin: a tar is read twice; save it to a file first")
            index = _Index(file)
            for _ in index.look():
                yield None
            indexes.append(index)
            file.rest()
        columns = dict.fromkeys(name for index in indexes for sample in index.samples for name in sample.members)
        kinds = dict.fromkeys(columns, "bytes")
        for index in indexes:
            for name, kind in index.kinds.items():
                kinds[name] = kind if kinds[name] in ("bytes", kind) else "text"
        lacking = _lacking(indexes, list(columns), options)
        for index in indexes:
            source.current = index.file
            for samples in index.read():
                yield _block(samples, kinds, lacking, index.file)
            index.file.rest()


def _lacking(indexes: list[_Index], columns: list[str], options: ReadOptions) -> set[str]:
    """The columns that have a mask."""
    found: dict[str, tuple[SourceFile, str]] = {}
    for index in indexes:
        for sample in index.samples:
            if len(sample.members) < len(columns):
                for name in columns:
                    if name not in sample.members:
                        found.setdefault(name, (index.file, sample.key))
    if found and options.missing == ERROR:
        name, (file, key) = next(iter(found.items()))
        raise DatasetError(f"{file.path}: the sample {key!r} has no member {name!r}, which others have")
    return set(found) if options.missing == MASK else set()


class _Index:
    """The samples of one file."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.samples: list[_Sample] = []
        self.kinds: dict[str, str] = {}
        self._apart: str | None = None

    def look(self) -> Iterator[None]:
        """Find the samples; yields now and then."""
        by_key: dict[str, _Sample] = {}
        last = ""
        with _opened(self.file) as archive:
            for place, member in enumerate(_members(archive, self.file)):
                if place % _TURN_MEMBERS == 0:
                    yield
                key, extension = _divided(member, self.file)
                if not extension:
                    continue
                if key not in by_key:
                    self.samples.append(by_key.setdefault(key, _Sample(key)))
                elif last != key:
                    self._apart = self._apart or key
                sample, last = by_key[key], key
                if extension in sample.members:
                    raise DatasetError(f"{self.file.path}: {member.name} is there twice; rename one of them")
                sample.members[extension] = place
                if extension in (*_TEXT, *_WHOLE) and self.kinds.get(extension) != "text":
                    self.kinds[extension] = _kind(_data(archive, member, self.file), extension)
        if not self.samples:
            raise DatasetError(f"{self.file.path}: there are no samples in it: no file with an extension")
        if self._apart is not None and self.file.compression:
            raise DatasetError(
                f"{self.file.path}: the members of {self._apart!r} lie apart, and a compressed tar is read in sequence: unpack it"
            )

    def read(self) -> Iterator[list[tuple[str, dict[str, bytes]]]]:
        """Yield samples, some megabytes at a time."""
        with _opened(self.file) as archive:
            if self._apart is None:
                yield from self._in_sequence(archive)
                return
            members = list(_members(archive, self.file))
            block, size = [], 0
            for sample in self.samples:
                found = {name: _data(archive, members[place], self.file) for name, place in sample.members.items()}
                block.append((sample.key, found))
                size += sum(map(len, found.values()))
                if size >= _BLOCK_BYTES or len(block) == _BLOCK_SAMPLES:
                    yield block
                    block, size = [], 0
            yield block

    def _in_sequence(self, archive: tarfile.TarFile) -> Iterator[list[tuple[str, dict[str, bytes]]]]:
        block: list[tuple[str, dict[str, bytes]]] = []
        size = 0
        for member in _members(archive, self.file):
            key, extension = _divided(member, self.file)
            if not extension:
                continue
            if not block or block[-1][0] != key:
                if size >= _BLOCK_BYTES or len(block) == _BLOCK_SAMPLES:
                    yield block
                    block, size = [], 0
                block.append((key, {}))
            block[-1][1][extension] = data = _data(archive, member, self.file)
            size += len(data)
            archive.members.clear()  # type: ignore[attr-defined]  # they would all be kept
        yield block


def _opened(file: SourceFile) -> tarfile.TarFile:
    """Open a tar: by place, or in sequence if it is compressed."""
    try:
        if file.compression:
            stream: Any = file.stream()
            return tarfile.open(fileobj=stream, mode="r|")
        file.raw.seek(0)
        unclosed: IO[bytes] = _Kept(file)  # type: ignore[assignment]  # what tarfile needs of it
        return tarfile.open(fileobj=unclosed, mode="r:")
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{file.path}: no tar file, or damaged ({error})") from error


class _Kept:
    """The open file, which tarfile does not close."""

    def __init__(self, file: SourceFile) -> None:
        self.read = file.raw.read
        self.seek = file.raw.seek
        self.tell = file.raw.tell
        self.name = str(file.path)
        self.mode = "rb"


def _members(archive: tarfile.TarFile, file: SourceFile) -> Iterator[tarfile.TarInfo]:
    try:
        while (member := archive.next()) is not None:
            yield member
        _check_end(archive, file)
    except (tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{file.path}: damaged, or cut off ({error})") from error


def _check_end(archive: tarfile.TarFile, file: SourceFile) -> None:
    """Raise if the file ends before its last member, which tarfile takes for its end."""
    if file.compression:
        return
    if archive.offset > file.size_bytes:
        raise DatasetError(f"{file.path}: the file ends before its last member: cut off")
    file.raw.seek(archive.offset)
    while rest := file.raw.read(_REST_BYTES):
        if rest.strip(b"\0"):
            raise DatasetError(
                f"{file.path}: bytes follow the end of the archive; joined archives have to be passed as files of their own"
            )


def _divided(member: tarfile.TarInfo, file: SourceFile) -> tuple[str, str]:
    """The key and the extension of a member; both are empty for what is no sample's, such as a folder."""
    name = member.name.removeprefix("./")
    where = f"{file.path}: the member {member.name!r}"
    if member.isdir():
        return "", ""
    if member.issym() or member.islnk():
        raise DatasetError(f"{where} is a link to {member.linkname!r}; links are not followed, pack the file itself")
    if not member.isreg() and not member.issparse():
        raise DatasetError(f"{where} is no regular file; leave it out")
    if name.startswith("/") or ".." in name.split("/"):
        raise DatasetError(
            f"{where} has an absolute path, or one that leads out of the archive; pack it with a relative one"
        )
    base = name.rsplit("/", 1)[-1]
    if base.startswith(".") or "__MACOSX" in name.split("/"):
        return "", ""
    found = _NAME.fullmatch(name)
    if found is None:
        raise DatasetError(f"{where} has no extension, which would name its column; rename it, or leave it out")
    return found[1], found[2].lower()


def _data(archive: tarfile.TarFile, member: tarfile.TarInfo, file: SourceFile) -> bytes:
    if member.size > MAX_CHUNK_BYTES:
        raise DatasetError(f"{file.path}: {member.name} has {member.size} bytes, at most {MAX_CHUNK_BYTES} are allowed")
    opened = archive.extractfile(member)
    try:
        data = b"" if opened is None else opened.read()
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{file.path}: {member.name} is damaged, or cut off ({error})") from error
    if len(data) != member.size:
        raise DatasetError(f"{file.path}: {member.name} is cut off")
    return data


def _kind(data: bytes, extension: str) -> str:
    """The type of a text or class member, found out from each of them: whole numbers, else text, else bytes."""
    if extension in _WHOLE and re.fullmatch(rb"\s*(?:0|-?[1-9][0-9]{0,17})\s*", data):
        return "whole"
    return "text"


def _block(
    samples: list[tuple[str, dict[str, bytes]]], kinds: dict[str, str], lacking: set[str], file: SourceFile
) -> Columns:
    keys = [key.encode("utf-8", "surrogateescape") for key, _ in samples]
    columns: Columns = {"__key__": _texts(keys, "__key__", samples, file)}
    for name, kind in kinds.items():
        values = [members.get(name, b"") for _, members in samples]
        if kind == "whole":
            columns[name] = np.array([int(value or 0) for value in values], dtype=np.int64)
        else:
            columns[name] = _texts(values, name, samples, file) if kind == "text" else Ragged.of(values)
        if name in lacking:
            columns[name + VALID_SUFFIX] = np.array([name in members for _, members in samples], dtype=np.bool_)
    return columns


def _texts(values: list[bytes], name: str, samples: list[Any], file: SourceFile) -> Text:
    for value, (key, _) in zip(values, samples, strict=True):
        try:
            value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DatasetError(f"{file.path}: {key}.{name} is not UTF-8 text ({error.reason}); convert it") from error
    return Text.of(values)
