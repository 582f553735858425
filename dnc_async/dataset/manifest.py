"""The manifest: what a dataset's root directory says about it, read from bytes that a stranger wrote.

A dataset is a UnixFS directory ``{manifest, pages/, chunks/}``. ``manifest`` is one msgpack map; the chunks are listed in
*pages* of :data:`CHUNKS_PER_PAGE`, the first of them inside the manifest, the others in files whose CIDs the manifest
holds: a dataset of a million chunks starts as fast as one of a hundred. Readers go by CID and never walk ``chunks/``,
which is there so that whoever pins the root pins the data.

The division into chunks is a function, so a page need not repeat it: batch ``k`` holds ``batch_size`` samples (the last
one what remains), its chunks the two halves of them, the first one larger where the number is odd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgpack

from dnc_async.dataset.chunk import fixed_layout
from dnc_async.dataset.schema import Schema
from dnc_async.errors import CidError, ManifestError
from dnc_async.ipld.cid import Cid

FORMAT = "dnc-dataset"
VERSION = 1
CHUNKS_PER_PAGE = 1024
#: Chunks lie in directories of so many, in plan order: one CAR can bring as many as are leased.
CHUNKS_PER_DIRECTORY = 64
#: And those in directories of up to so many, and so on, up to ``chunks``.
ENTRIES_PER_DIRECTORY = 1024
#: No chunk may be larger: its size is reserved in memory and on disk before a byte of it was seen.
MAX_CHUNK_BYTES = 2**32
MAX_MANIFEST_BYTES = 2**26
_MAX_COUNT = 2**48


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """One chunk: its file's CID, its samples, its file's size, and where that lies among those of its directory."""

    index: int
    cid: Cid
    samples: int
    size_bytes: int
    directory: Cid
    directory_offset: int
    directory_bytes: int


@dataclass(frozen=True, slots=True)
class ChunkDirectory:
    """Up to :data:`CHUNKS_PER_DIRECTORY` chunks, in plan order, beneath one directory's CID."""

    cid: Cid
    chunks: tuple[tuple[Cid, int], ...]


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
        """How many batches an epoch has, the last one perhaps short."""
        return -(-self.samples // self.batch_size)

    @property
    def chunks_per_batch(self) -> int:
        """Two halves; one where a batch is a single sample."""
        return 2 if self.batch_size > 1 else 1

    @property
    def chunks(self) -> int:
        """How many chunks the dataset has."""
        full = (self.batches - 1) * self.chunks_per_batch
        return full + len(halves(self.batch_samples(self.batches - 1)))

    def batch_samples(self, batch: int) -> int:
        """How many samples a batch holds."""
        return min(self.batch_size, self.samples - batch * self.batch_size)

    def batch_chunks(self, batch: int) -> range:
        """The indices of a batch's chunks."""
        first = batch * self.chunks_per_batch
        return range(first, first + len(halves(self.batch_samples(batch))))

    def chunk_samples(self, chunk: int) -> int:
        """How many samples a chunk holds."""
        batch, half = divmod(chunk, self.chunks_per_batch)
        return halves(self.batch_samples(batch))[half]

    def encode(self) -> bytes:
        """The bytes of the file ``manifest``: no version of ours, time or host in them."""
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
                    "page": _page_to_wire(self.first_page),
                    "pages": [cid.encode() for cid in self.pages],
                }
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Read untrusted bytes; raises :class:`~dnc_async.errors.ManifestError`."""
        wire = _unpack(data, "manifest")
        if not isinstance(wire, dict) or wire.get("format") != FORMAT:
            raise ManifestError("this is not a dataset's manifest (no 'format': 'dnc-dataset' in it)")
        if wire.get("version") != VERSION:
            raise ManifestError(
                f"the manifest has version {wire.get('version')!r}, this library reads {VERSION}: upgrade dnc-async"
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
            first_page=_page_from_wire(wire.get("page")),
            pages=tuple(_cid(item) for item in pages),
        )
        if manifest.largest_chunk_bytes > MAX_CHUNK_BYTES:
            raise ManifestError(
                f"a chunk of {manifest.largest_chunk_bytes} bytes is over the limit of {MAX_CHUNK_BYTES}"
            )
        if len(manifest.pages) != max(0, -(-manifest.chunks // CHUNKS_PER_PAGE) - 1):
            raise ManifestError(
                f"the manifest lists {len(pages)} more pages, which does not fit {manifest.chunks} chunks"
            )
        list(manifest.entries(0, manifest.first_page))  # raises where the first page does not fit
        return manifest

    def entries(self, page: int, directories: tuple[ChunkDirectory, ...]) -> Iterator[ChunkEntry]:
        """The chunks of a page, each checked against what the manifest promises of it."""
        first = page * CHUNKS_PER_PAGE
        listed = list(_listed(directories))
        if len(listed) != min(CHUNKS_PER_PAGE, self.chunks - first):
            raise ManifestError(f"page {page} of the manifest lists {len(listed)} chunks: too many or too few")
        sizes: dict[int, int] = {}
        for index, (cid, size_bytes, directory, offset, total) in enumerate(listed, first):
            samples = self.chunk_samples(index)
            if not self.schema.varies and samples not in sizes:
                sizes[samples] = fixed_layout(self.schema, samples).size_bytes
            fits = samples * self.schema.smallest_sample_bytes <= size_bytes <= self.largest_chunk_bytes
            if not fits or size_bytes != sizes.get(samples, size_bytes):
                raise ManifestError(
                    f"chunk {index} is listed with {size_bytes} bytes, which cannot hold {samples} samples"
                )
            yield ChunkEntry(index, cid, samples, size_bytes, directory, offset, total)

    def chunk_path(self, index: int) -> str:
        """Where a chunk's file lies beneath the dataset's root, by its number."""
        number, place = divmod(index, CHUNKS_PER_DIRECTORY)
        names = [f"{place:06d}"]
        directories = -(-self.chunks // CHUNKS_PER_DIRECTORY)
        while True:
            number, place = divmod(number, ENTRIES_PER_DIRECTORY)
            names.append(f"{place:06d}")
            directories = -(-directories // ENTRIES_PER_DIRECTORY)
            if directories == 1:
                return "/".join(["chunks", *reversed(names)])


def _listed(directories: tuple[ChunkDirectory, ...]) -> Iterator[tuple[Cid, int, Cid, int, int]]:
    for directory in directories:
        offset, total = 0, sum(size for _, size in directory.chunks)
        for cid, size in directory.chunks:
            yield cid, size, directory.cid, offset, total
            offset += size


def halves(samples: int) -> tuple[int, ...]:
    """How a batch is divided into chunks: two halves, the first one larger where the number is odd."""
    return (samples - samples // 2, samples // 2) if samples > 1 else (samples,)


def encode_page(directories: tuple[ChunkDirectory, ...]) -> bytes:
    """The bytes of a page's file."""
    return bytes(msgpack.packb(_page_to_wire(directories)))


def decode_page(data: bytes) -> tuple[ChunkDirectory, ...]:
    """Read a page's untrusted bytes; raises :class:`~dnc_async.errors.ManifestError`."""
    return _page_from_wire(_unpack(data, "page of the manifest"))


def _page_to_wire(directories: tuple[ChunkDirectory, ...]) -> list[object]:
    return [[d.cid.encode(), [[cid.encode(), size] for cid, size in d.chunks]] for d in directories]


def _page_from_wire(wire: object) -> tuple[ChunkDirectory, ...]:
    problem = ManifestError("a page of the manifest does not list its chunks as [[directory, [[cid, size], …]], …]")
    if not isinstance(wire, list):
        raise problem
    directories = []
    for row in wire:
        match row:
            case [bytes() as cid, list() as chunks] if len(chunks) <= CHUNKS_PER_DIRECTORY and all(
                isinstance(c, list) and len(c) == 2 and isinstance(c[1], int) for c in chunks
            ):
                directories.append(ChunkDirectory(_cid(cid), tuple((_cid(c), size) for c, size in chunks)))
            case _:
                raise problem
    return tuple(directories)


def _unpack(data: bytes, what: str) -> object:
    try:
        return msgpack.unpackb(data)  # its limits follow from len(data), which the fetcher has bounded
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ManifestError(f"the {what} is not msgpack: {error}") from error


def _count(wire: dict[object, object], key: str) -> int:
    value = wire.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAX_COUNT:
        raise ManifestError(f"the manifest's {key!r} is {str(value)[:80]}, expected a number from 1 to {_MAX_COUNT}")
    return value


def _cid(data: bytes) -> Cid:
    try:
        return Cid.decode(data)
    except (CidError, TypeError) as error:
        raise ManifestError(f"the manifest holds something that is not a CID: {str(data)[:80]}") from error
