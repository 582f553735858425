"""Follows the path of a request, in steps: through directories, and inside DAG-CBOR and DAG-JSON blocks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dnc_async.errors import BlockMismatchError, DagError, StoreError
from dnc_async.ipld import stepwise
from dnc_async.ipld.block import verify
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB, Cid
from dnc_async.ipld.codecs import decode_dag_json, links_in, step
from dnc_async.ipld.stepwise import Source

from .content_request import RefusalError
from .lookup import find
from .open_blocks import OpenBlocks
from .steps import Steps

_JSON_LINKS = 4096  # so many are held at once
_STEP_BYTES = 4096  # so much is hashed in the time of a step
_one_json = threading.Lock()
"""Held while a DAG-JSON block is decoded, which cannot be done in steps and takes many times its size."""


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
        elif cid.codec in {DAG_CBOR, DAG_JSON}:
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
    """Yield the links in the value to which ``segments`` lead inside a block, in order, and ``None`` for steps without one."""
    if cid.codec == DAG_JSON:
        yield from _json_links(source, segments)
    elif cid.codec == DAG_CBOR:
        at = 0
        for segment in segments:
            at = yield from stepwise.dag_cbor_step(source, at, segment)
        yield from stepwise.dag_cbor_links(source, at)


def _json_links(source: Source, segments: Sequence[str]) -> Iterator[Cid]:
    """A few links at a time: all of them take more memory than the block, which is decoded again for the next ones."""
    known = 0
    while True:
        with _one_json:
            value: object = decode_dag_json(source.get())
            for segment in segments:
                value = step(value, segment)
            some = list(itertools.islice(links_in(value), known, known + _JSON_LINKS))
            del value
        yield from some
        known += len(some)
        if len(some) < _JSON_LINKS:
            return


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
    follow = _descend_cbor if cid.codec == DAG_CBOR else _descend_json
    try:
        return (yield from follow(source, segments))
    except DagError as error:
        raise RefusalError(404, f"{cid} cannot be followed: {error}") from error
    except KeyError as error:
        raise RefusalError(404, f"there is no {error.args[0]!r} in the block") from None


def _descend_cbor(source: Source, segments: Sequence[str]) -> Steps[tuple[int, Cid | None]]:
    end = yield from stepwise.passed(stepwise.dag_cbor_links(source))
    if end != len(source.get()):
        raise DagError(f"not a DAG-CBOR block: {len(source.get()) - end} bytes follow its end")
    at = 0
    for count, segment in enumerate(segments, 1):
        at = yield from stepwise.dag_cbor_step(source, at, segment)
        link = stepwise.dag_cbor_link(source, at)
        if link is not None:
            return count, link
    return len(segments), None


def _descend_json(source: Source, segments: Sequence[str]) -> Steps[tuple[int, Cid | None]]:
    yield None
    with _one_json:
        value: object = decode_dag_json(source.get())
        for count, segment in enumerate(segments, 1):
            value = step(value, segment)
            if isinstance(value, Cid):
                return count, value
    return len(segments), None
