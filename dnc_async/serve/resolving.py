"""Follows the path of a request, in steps: through directories, and inside DAG-CBOR and DAG-JSON blocks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dnc_async.errors import BlockMismatchError, DagError, StoreError
from dnc_async.ipld import stepwise
from dnc_async.ipld.block import verify
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB, Cid
from dnc_async.ipld.stepwise import Source

from .content_request import RefusalError
from .lookup import find
from .open_blocks import OpenBlocks
from .steps import Steps

_STEP_BYTES = 4096  # so much is hashed in the time of a step


class _Codec(NamedTuple):
    """How blocks of one codec are read in steps: their links, one path segment, and the link at a position."""

    links: Callable[[Source, int], Generator[Cid | None, None, int]]
    step: Callable[[Source, int, str], Generator[None, None, int]]
    link: Callable[[Source, int], Cid | None]
    end: Callable[[Source, int], int] = lambda _, end: end


_CODECS = {
    DAG_CBOR: _Codec(stepwise.dag_cbor_links, stepwise.dag_cbor_step, stepwise.dag_cbor_link),
    DAG_JSON: _Codec(stepwise.dag_json_links, stepwise.dag_json_step, stepwise.dag_json_link, stepwise.dag_json_end),
}


@dataclass(frozen=True)
class Resolved:
    """Where a path leads: the block at its end, the blocks that prove it, and the CIDs at its segments.

    ``inside`` are the last segments, if they lead to a value inside the last block and not to all of it.
    """

    terminus: Cid
    proof: tuple[Cid, ...]
    roots: tuple[Cid, ...]
    inside: tuple[str, ...] = ()


def resolve(blocks: OpenBlocks, root: Cid, segments: Sequence[str]) -> Steps[Resolved]:
    """Follow a path. Raises :class:`NotHereError` for a missing block, :class:`RefusalError` (404) for a missing name."""
    cid, left = root, list(segments)
    proof: list[Cid] = []
    roots = [root]
    while left:
        if cid.codec == DAG_PB:
            nodes, cid = yield from _enter(blocks, cid, left.pop(0))
            proof += nodes
        elif cid.codec in _CODECS:
            passed, found = yield from _descend(cid, blocks.source(cid), left)
            if found is None:
                return Resolved(cid, tuple(proof), tuple(roots), tuple(left))
            proof.append(cid)
            cid, left = found, left[passed:]
        else:
            raise RefusalError(404, f"{cid} is a {cid.codec_name} block and has no {left[0]!r} in it")
        roots.append(cid)
    blocks.load(cid)
    return Resolved(cid, tuple(proof), tuple(roots))


def links_inside(cid: Cid, source: Source, segments: Sequence[str]) -> Iterator[Cid | None]:
    """Yield the links in the value to which ``segments`` lead inside a DAG-CBOR or DAG-JSON block, and ``None`` in between."""
    codec, at = _CODECS[cid.codec], 0
    for segment in segments:
        at = yield from codec.step(source, at, segment)
    yield from codec.links(source, at)


def _load_verified(blocks: OpenBlocks, cid: Cid) -> Steps[Source]:
    """Read and verify a node that decides where the path leads: a damaged one must not mislead the client."""
    source = blocks.source(cid)
    try:
        size_bytes = verify(cid, source.get()).size_bytes
    except BlockMismatchError as error:
        raise StoreError(f"a block of the store is damaged: {error}") from error
    for _ in range(0, size_bytes, _STEP_BYTES):
        yield None
    return source


def _enter(blocks: OpenBlocks, directory: Cid, name: str) -> Steps[tuple[list[Cid], Cid]]:
    """Find a name in a directory; returns the nodes that prove it, and where it leads."""
    try:
        nodes, found = yield from find(lambda cid: _load_verified(blocks, cid), directory, name)
    except DagError as error:
        raise RefusalError(404, f"{directory} has no {name!r} in it: {error}") from error
    if found is None:
        raise RefusalError(404, f"{directory} has no {name!r} in it")
    return nodes, found


def _descend(cid: Cid, source: Source, segments: Sequence[str]) -> Steps[tuple[int, Cid | None]]:
    """Follow segments inside one block, up to its first link; returns how many were followed, and the link, if any."""
    codec, at = _CODECS[cid.codec], 0
    try:
        yield from _check(codec, source)
        for count, segment in enumerate(segments, 1):
            at = yield from codec.step(source, at, segment)
            link = codec.link(source, at)
            if link is not None:
                return count, link
    except DagError as error:
        raise RefusalError(404, f"{cid} cannot be followed: {error}") from error
    except KeyError as error:
        raise RefusalError(404, f"there is no {error.args[0]!r} in the block") from None
    return len(segments), None


def _check(codec: _Codec, source: Source) -> Steps[None]:
    """Read a whole block, so that one that is broken after what the path needs is refused, too."""
    end = codec.end(source, (yield from stepwise.passed(codec.links(source, 0))))
    if end != len(source.get()):
        raise DagError(f"{len(source.get()) - end} bytes follow its end")
