"""Walks a stored DAG, every block in depth-first order, and reports which blocks are missing or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnc_async.errors import BlockMismatchError, CidError, DagError, StoreError
from dnc_async.ipld.block import verify
from dnc_async.ipld.cid import RAW
from dnc_async.ipld.codecs import links
from dnc_async.ipld.multihash import is_checkable, read

if TYPE_CHECKING:
    from dnc_async.ipld.block import Block
    from dnc_async.ipld.cid import Cid

    from .blocks import BlockStore

_MOST_FAULTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Integrity:
    """The result of a check. ``missing``, ``damaged`` and ``unchecked`` are in the order of the walk, at most 1,000 of each.

    ``blocks`` and ``size_bytes`` count the correct blocks, each once. ``complete`` says that no block is missing or damaged;
    ``unchecked`` blocks are neither: their hash functions cannot be computed, so no store contains them.
    """

    root: Cid
    blocks: int
    size_bytes: int
    missing: tuple[Cid, ...]
    damaged: tuple[Cid, ...]
    unchecked: tuple[Cid, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the whole DAG is stored."""
        return not self.missing and not self.damaged


def walk(
    store: BlockStore, root: Cid, fault: Callable[[Cid, Exception | None], None], *, leaves: bool = True
) -> Iterator[Block]:
    """Yield every block of the DAG at ``root`` that is stored, verified, depth first and each once, inline blocks included.

    ``fault(cid, error)`` is called for the other blocks. ``error`` is ``None`` if the block is not stored, a
    :class:`~dnc_async.errors.CidError` if its hash cannot be checked, and otherwise says that it is damaged, or why it cannot
    be read. Without ``leaves``, raw blocks are only looked for: they are neither read nor yielded. The links of unsupported
    codecs are not followed. Memory grows by a hash for each block.
    """
    waiting, seen = [root], set[tuple[int, bytes]]()
    while waiting:
        cid = waiting.pop()
        if (cid.codec, cid.multihash) in seen:
            continue
        seen.add((cid.codec, cid.multihash))
        if not is_checkable(cid.multihash):
            _, start, end = read(cid.multihash, 0)
            fault(cid, CidError(f"the hash function {cid.hash_name}, with {end - start} bytes, cannot be checked"))
            continue
        try:
            if cid.codec == RAW and not leaves and store.has(cid):
                continue
            data = store.read(cid)
            block = None if data is None else verify(cid, data)
            followed = [] if block is None else links(cid, block.data)
        except (BlockMismatchError, DagError, StoreError) as error:
            fault(cid, error)
            continue
        if block is None:
            fault(cid, None)  # not inside the try: what fault() raises is for the caller
            continue
        waiting.extend(reversed(followed))
        yield block


def check(
    store: BlockStore, root: Cid, *, leaves: bool = True, progress: Callable[[int, int], None] | None = None
) -> Integrity:
    """Hash every block of the DAG at ``root`` and follow its links; reports what is missing or wrong.

    Without ``leaves``, raw blocks are only looked for: they are neither hashed nor counted. ``progress`` is called with the
    blocks and bytes so far.
    """
    missing: list[Cid] = []
    damaged: list[Cid] = []
    unchecked: list[Cid] = []
    blocks = size_bytes = 0

    def fault(cid: Cid, error: Exception | None) -> None:
        found = missing if error is None else unchecked if isinstance(error, CidError) else damaged
        if len(found) < _MOST_FAULTS:
            found.append(cid)

    for block in walk(store, root, fault, leaves=leaves):
        blocks += 1
        size_bytes += len(block.data)
        if progress is not None:
            progress(blocks, size_bytes)
    return Integrity(
        root=root,
        blocks=blocks,
        size_bytes=size_bytes,
        missing=tuple(missing),
        damaged=tuple(damaged),
        unchecked=tuple(unchecked),
    )
