"""Imports CAR files into the store and exports them: streamed, every block verified. An import is all or nothing.

An import reads CARv1 and CARv2, and accepts incomplete DAGs, because a CAR may be one of several parts; the result says so.
Blocks of codecs and hash functions that are not supported otherwise are kept, too, if their hash can be checked. An export is
deterministic: the root, then its blocks depth first, each once (``order=dfs; dups=n``), without inline ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from dnc_async.errors import CidError, IpldError, StoreError
from dnc_async.ipld.car import CarReader, encode_header, encode_section
from dnc_async.ipld.car_index import HEADER_BYTES, CarV2Header, encode_index
from dnc_async.ipld.codecs import follows_links

from .integrity import check, walk

if TYPE_CHECKING:
    from dnc_async.ipld.cid import Cid

    from .blocks import BlockStore

Progress = Callable[[int, int], None]

_PIECE_BYTES = 2**20
_MAX_ROOTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The result of an import. ``blocks`` and ``size_bytes`` count all blocks of the CAR, also those that were stored before.

    ``absent`` are roots that the CAR names and that are not in the store. ``incomplete`` are roots with a block that is missing
    or cannot be read, each with the first such block. ``unchecked_count`` blocks were not kept because their hashes cannot be
    checked; ``unchecked`` are the first 1,000 of them.
    """

    roots: tuple[Cid, ...]
    absent: tuple[Cid, ...]
    incomplete: tuple[tuple[Cid, Cid], ...]
    blocks: int
    size_bytes: int
    unchecked: tuple[Cid, ...] = ()
    unchecked_count: int = 0


def import_car(store: BlockStore, source: BinaryIO, *, name: str, progress: Progress | None = None) -> Imported:
    """Import the blocks of a CAR into the store and list its roots; ``name`` is the file's name in errors.

    ``progress`` is called with the blocks and bytes so far. Raises :class:`~dnc_async.errors.StoreError` if the CAR is
    malformed or contains a wrong block: then nothing of it is kept.
    """
    reader = CarReader()
    blocks = size_bytes = 0
    with store.begin() as transaction:
        try:
            while piece := _read(source, name):
                for block in reader.feed(piece):
                    transaction.put(block)
                    blocks += 1
                    size_bytes += len(block.data)
                if progress is not None:
                    progress(blocks, size_bytes)
            reader.close()
        except IpldError as error:
            raise StoreError(
                f"{name}: {error}; nothing of it was kept ({blocks} blocks before that are good)"
            ) from error
        roots = tuple(dict.fromkeys(reader.roots or ()))
        if len(roots) > _MAX_ROOTS:
            raise StoreError(f"{name}: its header names {len(roots)} roots, expected at most {_MAX_ROOTS}")
        here = tuple(root for root in roots if transaction.has(root))
        transaction.commit(*here)
    checked = (check(store, root, leaves=False) for root in here)
    lacking = [(found.root, [*found.missing, *found.damaged]) for found in checked if not found.complete]
    return Imported(
        roots=here,
        absent=tuple(root for root in roots if root not in here),
        incomplete=tuple((root, faults[0]) for root, faults in lacking),
        blocks=blocks,
        size_bytes=size_bytes,
        unchecked=tuple(reader.unchecked),
        unchecked_count=reader.unchecked_count,
    )


def _read(source: BinaryIO, name: str) -> bytes:
    try:
        return source.read(_PIECE_BYTES)
    except OSError as error:
        raise StoreError(f"{name}: {error.strerror or error}; nothing of it was kept") from error


def export_car(
    store: BlockStore,
    root: Cid,
    sink: BinaryIO,
    *,
    indexed: bool = False,
    progress: Progress | None = None,
    left_out: Callable[[Cid, str], None] | None = None,
) -> tuple[int, int]:
    """Write the DAG at ``root`` as CARv1; returns the number of blocks and bytes written.

    With ``indexed`` it is a CARv2 file with an index at its end, from which single blocks can be read by HTTP ranges; the sink
    must be at its beginning, and able to seek. ``progress`` is called with the blocks and bytes so far, ``left_out`` with each
    CID that is left out, and why: blocks whose hash cannot be checked, and links of blocks whose codec is not supported. Raises
    :class:`~dnc_async.errors.StoreError` at the first block that is missing or wrong: what was written until then is not a
    whole CAR, and the caller has to delete it.
    """

    def fault(cid: Cid, error: Exception | None) -> None:
        if isinstance(error, CidError):
            told(cid, str(error))
            return
        what = "is not in the store" if error is None else f"is damaged: {error}"
        raise StoreError(f"cannot export {root}: the block {cid} {what}; 'dnc verify {root}' lists all that is wrong")

    told = left_out or (lambda _cid, _why: None)
    front = sink.write(bytes(HEADER_BYTES)) if indexed else 0
    size_bytes = sink.write(encode_header([root]))
    entries: dict[bytes, tuple[Cid, int]] = {}
    blocks = 0
    for block in walk(store, root, fault):
        if block.cid.inline is not None:
            continue
        if not follows_links(block.cid):
            told(block.cid, f"its links are not followed: {block.cid.codec_name} is not read")
        if indexed:
            entries.setdefault(block.cid.multihash, (block.cid, size_bytes))
        size_bytes += sink.write(encode_section(block))
        blocks += 1
        if progress is not None:
            progress(blocks, front + size_bytes)
    if indexed:
        layout = CarV2Header(data_offset=front, data_bytes=size_bytes, index_offset=front + size_bytes)
        size_bytes += sum(map(sink.write, encode_index(entries.values())))
        sink.seek(0)
        sink.write(layout.encode())
    return blocks, front + size_bytes
