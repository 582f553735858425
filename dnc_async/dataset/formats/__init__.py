"""The file formats from which a dataset can be read: one module and one entry of the registry each.

A package may bring more: an entry point of the group ``dnc_async.formats`` names a
:class:`~dnc_async.dataset.formats.protocol.Format`, or a function that returns one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dnc_async.dataset.formats.arrow_files import ArrowIpc
from dnc_async.dataset.formats.delimited import Csv
from dnc_async.dataset.formats.idx import Idx
from dnc_async.dataset.formats.json_lines import JsonLines
from dnc_async.dataset.formats.listing import Listing, files_of
from dnc_async.dataset.formats.media import AUDIO, IMAGES, VIDEO, Media, WithMetadata
from dnc_async.dataset.formats.numpy_files import Npy, Npz
from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.parquet import Parquet
from dnc_async.dataset.formats.partitions import Partitions
from dnc_async.dataset.formats.protocol import Format, Source
from dnc_async.dataset.formats.records import Records
from dnc_async.dataset.formats.safetensors import Safetensors
from dnc_async.dataset.formats.source_file import SourceFile, StdinFile
from dnc_async.dataset.formats.tar import Tar
from dnc_async.dataset.formats.text_files import TextLines
from dnc_async.errors import ArgumentError, DatasetError

__all__ = ["FORMATS", "Format", "Source", "SourceFile", "open_source"]

FORMATS: tuple[Format, ...] = (
    *(Csv(), JsonLines(), Parquet(), ArrowIpc(), Npy(), Npz(), Safetensors()),
    *(IMAGES, AUDIO, VIDEO, Tar(), TextLines(), Idx(), Records()),
)
_METADATA = "metadata"
_HEAD_BYTES = 512


def open_source(paths: Path | Sequence[Path], options: ReadOptions) -> Source:
    """Open a file, several, or a folder, whose ``blocks`` can then be read.

    Raises :class:`~dnc_async.errors.DatasetError` if their format is not known, or if they have several.
    """
    listing = files_of(paths)
    formats = {file: _format_of(file, options) for file in listing.files}
    chosen = _with_metadata(listing, formats) or _only_format(listing, formats)
    source = Source(listing.files, listing.where)
    source.notes += listing.notes
    source.root = listing.root
    source.blocks = _blocks(chosen, source, options)
    return source


def _blocks(chosen: Format | WithMetadata, source: Source, options: ReadOptions) -> Iterator[Any]:
    try:
        blocks = chosen.read(source, options)
        yield from blocks if isinstance(chosen, (Media, WithMetadata)) else Partitions(source).added(blocks, source)
    except DatasetError:
        source.check_unchanged()  # a changed file may be the cause, and its error says what to do
        raise
    except OSError as error:
        raise DatasetError(f"{source.place}: {error.strerror or error}") from error


def _format_of(file: SourceFile, options: ReadOptions) -> Format | None:
    """The format of a file: what the caller says, what its suffix says, or what its first bytes say."""
    if options.format is not None:
        return _named(options.format)
    found = next((each for each in _all() if file.suffix in each.suffixes), None)
    if found is None:
        head = file.stream().read(_HEAD_BYTES) if file.compression else file.head(_HEAD_BYTES)
        file.rest()
        found = next((each for each in _all() if head and each.recognises(head)), None)
        if found is None and isinstance(file, StdinFile) and any(each in head.partition(b"\n")[0] for each in b",;\t|"):
            found = next(each for each in FORMATS if isinstance(each, Csv))
    if found is not None and file.compression and not found.is_compressible:
        raise DatasetError(
            f"{file.path}: a {found.name} file is read by place, and cannot be compressed as a whole ({file.compression}); "
            "decompress it first"
        )
    return found


def _named(name: str) -> Format:
    found = next((each for each in _all() if each.name == name), None)
    if found is None:
        raise ArgumentError(f"format: {name!r} is none of {', '.join(each.name for each in _all())}")
    return found


def _all() -> Iterator[Format]:
    yield from FORMATS
    for entry in entry_points(group="dnc_async.formats"):
        loaded = entry.load()
        yield loaded() if callable(loaded) else loaded


def _with_metadata(listing: Listing, formats: dict[SourceFile, Format | None]) -> WithMetadata | None:
    """The reader of a folder of media with a table of metadata beside them, which is then no file of the listing."""
    tables = [file for file in listing.files if file.path.stem == _METADATA and file.path.parent == listing.root]
    others = [file for file in listing.files if file not in tables]
    media = next((found for file in others if isinstance(found := formats[file], Media)), None)
    if len(tables) != 1 or media is None or any(formats[file] is not media for file in others):
        return None
    table = formats[tables[0]]
    listing.files[:] = others
    return None if table is None else WithMetadata(media, tables[0], table)


def _only_format(listing: Listing, formats: dict[SourceFile, Format | None]) -> Format:
    """The one format of all files; raises if there are several, or none that is known."""
    by_format: dict[Format | None, list[SourceFile]] = {}
    for file, found in formats.items():
        by_format.setdefault(found, []).append(file)
    if len(by_format) == 1:
        chosen = next(iter(by_format))
        if chosen is not None:
            return chosen
        raise DatasetError(f"{listing.where}: {_unknown(listing.files)}")
    shown = "; ".join(f"{found.name if found else 'unknown'}: {_some(files)}" for found, files in by_format.items())
    raise DatasetError(
        f"{listing.where}: files of several formats ({shown}); pass those of one, for example with a pattern such as "
        f"'{listing.where}/*{listing.files[0].path.suffix}'"
    )


def _some(files: list[SourceFile]) -> str:
    names = ", ".join(file.path.name for file in files[:3])
    return names if len(files) <= 3 else f"{names}, … ({len(files)} files)"


def _unknown(files: list[SourceFile]) -> str:
    known = ", ".join(f"{each.name} ({' '.join(each.suffixes[:3])})" for each in _all())
    what = f"{files[0].suffix} files are" if files[0].suffix else "a file without a suffix, with such a beginning, is"
    seen = "" if len(files) == 1 else f" (there are {_some(files)})"
    return (
        f"{what} in no known format{seen}; known are {known}. Pass format= if it is one of them, convert it, or pass its columns "
        "in Python; 'dnc add' takes any file as it is, without rows"
    )
