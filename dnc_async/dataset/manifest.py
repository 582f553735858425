"""The manifest: the description of a dataset in its root directory, parsed from bytes that cannot be trusted.

A dataset is a UnixFS directory ``{manifest, pages/, chunks/}``. ``manifest`` is one msgpack map; the chunks are listed in
*pages*. The first page is inside the manifest, and short, because it is needed before the first batch. The other pages list
:data:`CHUNKS_PER_PAGE` chunks each, and are files whose CIDs the manifest lists, so a dataset of a million chunks starts as
fast as one of a hundred. Readers fetch chunks by CID and never walk ``chunks/``, which exists so that pinning the root pins all
data.

The division into chunks is computed, so a page need not repeat it: batch ``k`` has ``batch_size`` samples (the last one the
rest), and its chunks are the two halves of them, the first one larger if the number is odd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgpack

from dnc_async.dataset.chunk_format import Layouts
from dnc_async.dataset.limits import MAX_CHUNK_BYTES, MAX_COUNT, MAX_EXTENT_BYTES
from dnc_async.dataset.page import (
    CHUNKS_PER_DIRECTORY,
    ChunkDirectory,
    ChunkEntry,
    cid_from_wire,
    listed,
    page_from_wire,
    page_to_wire,
    unpack,
)
from dnc_async.dataset.schema import Schema
from dnc_async.errors import ManifestError
from dnc_async.ipld.cid import Cid
from dnc_async.quoting import quoted

FORMAT = "dnc-dataset"
VERSION = 2
#: In version 1, pages list no leaves, and the first page is as long as the others.
_READABLE = (1, VERSION)
CHUNKS_PER_PAGE = 1024
#: When written. A reader accepts any number.
CHUNKS_ON_FIRST_PAGE = CHUNKS_PER_DIRECTORY
#: The directories of chunks are entries of directories with at most this many entries each, and so on up to ``chunks``.
ENTRIES_PER_DIRECTORY = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A dataset's description. ``pages`` are the CIDs of all pages but the first, which is ``first_page``."""

    schema: Schema
    samples: int
    batch_size: int
    size_bytes: int
    largest_chunk_bytes: int
    first_page: tuple[ChunkDirectory, ...] = field(repr=False)
    pages: tuple[Cid, ...] = field(repr=False)

    @property
    def batches(self) -> int:
        """The number of batches in an epoch; the last one may be short."""
        return -(-self.samples // self.batch_size)

    @property
    def chunks_per_batch(self) -> int:
        """Two, for the halves; one if a batch is a single sample."""
        return 2 if self.batch_size > 1 else 1

    @property
    def largest_batch_bytes(self) -> int:
        """An upper bound of the bytes of a batch's chunks."""
        return min(self.size_bytes, self.chunks_per_batch * self.largest_chunk_bytes)

    @property
    def chunks(self) -> int:
        """The number of chunks of the dataset."""
        full = (self.batches - 1) * self.chunks_per_batch
        return full + len(halves(self.batch_samples(self.batches - 1)))

    def batch_samples(self, batch: int) -> int:
        """The number of samples of a batch."""
        return min(self.batch_size, self.samples - batch * self.batch_size)

    def batch_chunks(self, batch: int) -> range:
        """The indices of a batch's chunks."""
        first = batch * self.chunks_per_batch
        return range(first, first + len(halves(self.batch_samples(batch))))

    def chunk_samples(self, chunk: int) -> int:
        """The number of samples of a chunk."""
        batch, half = divmod(chunk, self.chunks_per_batch)
        return halves(self.batch_samples(batch))[half]

    def encode(self) -> bytes:
        """The bytes of the file ``manifest``. They contain no library version, time or host name."""
        return bytes(
            msgpack.packb(
                {
                    "format": FORMAT,
                    "version": VERSION,
                    "schema": self.schema.to_wire(),
                    "samples": self.samples,
                    "batch_size": self.batch_size,
                    "size_bytes": self.size_bytes,
                    "largest_chunk_bytes": self.largest_chunk_bytes,
                    "page": page_to_wire(self.first_page),
                    "pages": [cid.encode() for cid in self.pages],
                }
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Parse untrusted bytes; raises :class:`~dnc_async.errors.ManifestError`."""
        wire = unpack(data, "manifest")
        if not isinstance(wire, dict) or wire.get("format") != FORMAT:
            raise ManifestError("this is not a dataset's manifest (no 'format': 'dnc-dataset' in it)")
        if wire.get("version") not in _READABLE:
            version = quoted(str(wire.get("version"))[:80])
            raise ManifestError(
                f"the manifest has version {version}, this library reads 1 to {VERSION}: upgrade dnc-async"
            )
        pages = wire.get("pages")
        if not isinstance(pages, list):
            raise ManifestError("the manifest's list of pages is missing")
        manifest = cls(
            schema=Schema.from_wire(wire.get("schema")),
            samples=_count(wire, "samples"),
            batch_size=_count(wire, "batch_size"),
            size_bytes=_count(wire, "size_bytes"),
            largest_chunk_bytes=_count(wire, "largest_chunk_bytes"),
            first_page=page_from_wire(wire.get("page")),
            pages=tuple(cid_from_wire(item) for item in pages),
        )
        if manifest.largest_chunk_bytes > MAX_CHUNK_BYTES:
            raise ManifestError(
                f"a chunk of {manifest.largest_chunk_bytes} bytes is over the limit of {MAX_CHUNK_BYTES}"
            )
        for column in manifest.schema.columns:
            if column.extent_bytes * min(manifest.batch_size, manifest.samples) > MAX_EXTENT_BYTES:
                raise ManifestError(
                    f"the manifest's column {column.name[:80]!r} of shape {str(column.shape)[:80]} is too large for a batch"
                )
        if len(manifest.pages) != max(0, -(-(manifest.chunks - manifest.chunks_on_first_page) // CHUNKS_PER_PAGE)):
            raise ManifestError(
                f"the manifest lists {len(pages)} more pages, which does not fit {manifest.chunks} chunks"
            )
        list(manifest.entries(0, manifest.first_page))  # raises if the first page does not fit the manifest
        return manifest

    def entries(self, page: int, directories: tuple[ChunkDirectory, ...]) -> Iterator[ChunkEntry]:
        """The chunks of a page, each checked against the manifest."""
        first = self.chunks_on_first_page + (page - 1) * CHUNKS_PER_PAGE if page else 0
        chunks = list(listed(directories))
        expected = min(CHUNKS_PER_PAGE, self.chunks - first)
        if len(chunks) != expected and (page or not 0 < len(chunks) < expected):
            raise ManifestError(f"page {page} of the manifest lists {len(chunks)} chunks: too many or too few")
        is_end = first + len(chunks) == self.chunks
        if any(len(each.chunks) != CHUNKS_PER_DIRECTORY for each in (directories[:-1] if is_end else directories)):
            raise ManifestError(
                f"page {page} of the manifest has directories of other than {CHUNKS_PER_DIRECTORY} chunks"
            )
        layouts, smallest = None if self.schema.varies else Layouts(self.schema), self.schema.smallest_sample_bytes
        last, per_batch = self.batches - 1, self.chunks_per_batch
        full, rest = halves(self.batch_size), halves(self.batch_samples(last))
        for index, (row, directory, offset, total) in enumerate(chunks, first):
            batch, half = divmod(index, per_batch)
            size_bytes, samples = row.size_bytes, (full if batch < last else rest)[half]
            fits = samples * smallest <= size_bytes <= self.largest_chunk_bytes
            if not fits or (layouts is not None and size_bytes != layouts.of(samples).size_bytes):
                raise ManifestError(
                    f"chunk {index} is listed with {size_bytes} bytes, which cannot hold {samples} samples"
                )
            yield ChunkEntry(index, row, samples, directory, offset, total)

    @property
    def chunks_on_first_page(self) -> int:
        """The number of chunks on the first page."""
        return sum(len(each.chunks) for each in self.first_page)

    def page_of(self, chunk: int) -> tuple[int, int]:
        """The number of the page that lists a chunk, and the chunk's place on it."""
        rest = chunk - self.chunks_on_first_page
        return (rest // CHUNKS_PER_PAGE + 1, rest % CHUNKS_PER_PAGE) if rest >= 0 else (0, chunk)

    def chunk_path(self, index: int) -> str:
        """The path of a chunk's file below the dataset's root, by the chunk's number."""
        directory, place = divmod(index, CHUNKS_PER_DIRECTORY)
        return f"{self.directory_path(directory)}/{file_name(place)}"

    def directory_path(self, number: int) -> str:
        """The path of a directory of chunks below the dataset's root, by the directory's number."""
        names, directories = list[str](), -(-self.chunks // CHUNKS_PER_DIRECTORY)
        while True:
            number, place = divmod(number, ENTRIES_PER_DIRECTORY)
            names.append(file_name(place))
            directories = -(-directories // ENTRIES_PER_DIRECTORY)
            if directories == 1:
                return "/".join(["chunks", *reversed(names)])


def file_name(place: int) -> str:
    """The name of a chunk's file, or of a directory, by its place in its directory."""
    return f"{place:06d}"


def halves(samples: int) -> tuple[int, ...]:
    """The numbers of samples of a batch's chunks: two halves, the first one larger if the number is odd."""
    return (samples - samples // 2, samples // 2) if samples > 1 else (samples,)


def _count(wire: dict[object, object], key: str) -> int:
    value = wire.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_COUNT:
        shown = quoted(str(value)[:80])
        raise ManifestError(f"the manifest's {key!r} is {shown}, expected a number from 1 to {MAX_COUNT}")
    return value
