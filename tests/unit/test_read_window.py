"""What an open file requests: what reads ask for, and ahead of them only what is allowed. With requests that the test answers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, cast

import anyio
import pytest

from dnc_async.engine.bridge import RunningCall
from dnc_async.engine.files.read_window import AheadLimit, ReadWindow
from dnc_async.engine.files.reader import FileReader
from dnc_async.engine.files.remote_file import RemoteFile
from dnc_async.errors import ChunkUnavailableError, StreamClosedError
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import UNIXFS_V0_2015, UNIXFS_V1_2025, build_file
from dnc_async.ipld.cid import Cid

LEAF = 2**16
LEAVES = 64
MEG = 2**20


def content(size: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(-(-size // 32)))[:size]


DATA = content(LEAF * LEAVES)
FILE, ROOT = build_file(DATA, replace(UNIXFS_V1_2025, leaf_bytes=LEAF, links_per_node=4096))
OLD, OLD_ROOT = build_file(DATA, replace(UNIXFS_V0_2015, leaf_bytes=2**12, links_per_node=8))


class Requests:
    """A group whose requests the test answers: ``open`` are those without an answer, by the offset of their leaf."""

    def __init__(self, blocks: list[Block], *, answers: bool = False) -> None:
        self._blocks = {block.cid: block for block in blocks}
        self._answers = answers
        self.open: dict[int, tuple[Cid, Callable[[Block], None], Callable[[Any, Exception | None], None]]] = {}
        self.offsets: list[int] = []
        self.nodes: list[Cid] = []
        self.calls: list[RunningCall[Any]] = []

    def submit(self, cid: Cid, *, within: Any, accept: Any, done: Any, **_: Any) -> None:
        self.offsets.append(within[0].start)
        self.open[within[0].start] = cid, accept, done
        if self._answers:
            asyncio.get_running_loop().call_soon(self.answer, within[0].start)

    def answer(self, offset: int, error: Exception | None = None) -> None:
        cid, accept, done = self.open.pop(offset)
        if error is None:
            accept(self._blocks[cid])
        done(None, error)

    async def block(self, cid: Cid, **_: Any) -> Block:
        return self._blocks[cid]

    async def blocks(self, cids: list[Cid], **_: Any) -> list[Block]:
        self.nodes += cids
        return [self._blocks[cid] for cid in cids]

    async def in_worker(self, function: Any, *args: Any) -> Any:
        return function(*args)

    def begin(self, function: Callable[[FetchGroup], Awaitable[Any]], /) -> RunningCall[Any]:
        """As an engine does it, in this loop."""
        scope, result = anyio.CancelScope(), Future[Any]()

        async def run() -> None:
            try:
                with scope:
                    result.set_result(await function(cast("FetchGroup", self)))
                if not result.done():
                    result.set_exception(StreamClosedError("the call was cancelled"))
            except Exception as error:  # noqa: BLE001 - it is the call's
                result.set_exception(error)

        task = asyncio.get_running_loop().create_task(run())

        def post(function: Callable[..., object], *args: Any) -> bool:
            asyncio.get_running_loop().call_soon(function, *args)
            return not task.done()

        self.calls.append(RunningCall(result, scope, post))
        return self.calls[-1]


def window(
    requests: Requests, start: int, end: int, *, limit: AheadLimit | None = None, old: bool = False
) -> ReadWindow:
    root = (OLD if old else FILE)[-1]
    assert root.cid == (OLD_ROOT if old else ROOT).cid
    reader = FileReader(root, about="file")
    return ReadWindow(reader, start, end, begin=requests.begin, limit=limit or AheadLimit(32 * MEG))


async def taken(window: ReadWindow, start: int, end: int) -> bytes:
    found = b""
    while True:
        found += b"".join(window.take(start + len(found), end))
        if len(found) == end - start:
            window.advance(end)
            return found
        await window.wait(start + len(found), end)


async def settled() -> None:
    """Let the engine's side do all that it can: each answer takes a few turns of this loop."""
    for _ in range(100):
        await asyncio.sleep(0)


def leaves(start: int, end: int) -> list[int]:
    return list(range(start // LEAF * LEAF, end, LEAF))


async def test_a_single_read_requests_its_own_leaves() -> None:
    """Whatever its place: those that its range touches."""
    for start, end in [(0, 1), (LEAF - 1, LEAF + 1), (10 * LEAF, 12 * LEAF), (len(DATA) - 8, len(DATA))]:
        requests = Requests(FILE, answers=True)
        opened = window(requests, start, end)
        assert await taken(opened, start, end) == DATA[start:end]
        await settled()
        assert requests.offsets == leaves(start, end)
        await opened.aclose()
        assert opened.has_ended


async def test_reads_in_a_row_are_read_ahead_more_and_more() -> None:
    """The second one by the least, later ones by twice what was read, and never by more than the limit."""
    requests, limit = Requests(FILE, answers=True), AheadLimit(2 * MEG)
    opened = window(requests, 0, LEAF, limit=limit)
    await taken(opened, 0, LEAF)
    for end in range(2 * LEAF, len(DATA) + 1, LEAF):
        start = end - LEAF
        assert opened.serves(start)
        opened.ask(start, end)
        assert await taken(opened, start, end) == DATA[start:end]
        await settled()
        ahead = min(len(DATA), requests.offsets[-1] + LEAF) - end
        most = min(2 * MEG, max(MEG, 2 * end))
        assert min(most * 7 // 8 - LEAF, len(DATA) - end) <= ahead <= most
        assert len(opened._bodies) * LEAF <= ahead + LEAF  # what was read before is dropped
    assert requests.offsets == leaves(0, len(DATA))
    assert opened.has_ended


async def test_a_reader_that_stops_is_not_read_ahead_any_more() -> None:
    """What was requested comes; nothing follows."""
    requests = Requests(FILE, answers=True)
    opened = window(requests, 0, LEAF)
    await taken(opened, 0, LEAF)
    opened.ask(LEAF, 2 * LEAF)
    await taken(opened, LEAF, 2 * LEAF)
    await settled()
    assert requests.offsets == leaves(0, 2 * LEAF + MEG)
    await opened.aclose()


async def test_seeks() -> None:
    """Within what is there or requested they are served, and nothing is requested ahead; elsewhere not."""
    requests = Requests(FILE, answers=True)
    opened = window(requests, 4 * LEAF + 5, 5 * LEAF)
    assert await taken(opened, 4 * LEAF + 5, 5 * LEAF) == DATA[4 * LEAF + 5 : 5 * LEAF]
    # The leaf of the last byte is still there, from its start on.
    assert not opened.serves(4 * LEAF - 1)
    assert opened.serves(4 * LEAF)
    opened.ask(4 * LEAF, 4 * LEAF + 9)
    assert await taken(opened, 4 * LEAF, 4 * LEAF + 9) == DATA[4 * LEAF : 4 * LEAF + 9]
    assert opened.serves(5 * LEAF)
    assert not opened.serves(5 * LEAF + 1)
    await settled()
    assert requests.offsets == [4 * LEAF]
    opened.ask(4 * LEAF + 9, 5 * LEAF)  # in a row
    await taken(opened, 4 * LEAF + 9, 5 * LEAF)
    await settled()
    last = requests.offsets[-1]
    assert last >= 4 * LEAF + MEG
    opened.ask(last, last + 1)  # over what was read ahead, to its last leaf
    assert await taken(opened, last, last + 1) == DATA[last : last + 1]
    await settled()
    assert requests.offsets[-1] == last
    assert not opened.serves(last - 1)
    await opened.aclose()


async def test_a_read_larger_than_the_limit() -> None:
    """What may be requested moves with what was taken."""
    requests, limit = Requests(FILE), AheadLimit(4 * LEAF)
    opened = window(requests, 0, len(DATA), limit=limit)
    found = b""
    while len(found) < len(DATA):
        await settled()
        assert max(requests.open) < len(found) + 4 * LEAF
        for offset in sorted(requests.open, reverse=True):
            requests.answer(offset)
        found += b"".join(opened.take(len(found), len(DATA)))
        opened.advance(len(found))
    assert found == DATA
    await settled()
    assert opened.has_ended


async def test_files_share_the_limit() -> None:
    """Each file that reads ahead has an equal part of it, until it is closed."""
    limit = AheadLimit(8 * LEAF)
    every = [(each, window(each, 0, LEAF, limit=limit)) for each in (Requests(FILE, answers=True) for _ in range(4))]
    for _, opened in every:
        await taken(opened, 0, LEAF)
    for end in range(2 * LEAF, 40 * LEAF, LEAF):
        for requests, opened in every:
            opened.ask(end - LEAF, end)
            await taken(opened, end - LEAF, end)
            await settled()
            assert len(requests.offsets) * LEAF <= end + 8 * LEAF
    assert all(len(requests.offsets) <= 39 + 2 for requests, _ in every)
    assert "shared by 4 files" in repr(limit)
    for _, opened in every[1:]:
        await opened.aclose()
    requests, opened = every[0]
    opened.ask(39 * LEAF, 40 * LEAF)
    await taken(opened, 39 * LEAF, 40 * LEAF)
    await settled()
    assert len(requests.offsets) == 40 + 8
    await opened.aclose()


async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    """What it waited for is still requested, once, and is there for the next one."""
    requests = Requests(FILE)
    opened = window(requests, 0, 3 * LEAF)
    task = asyncio.create_task(taken(opened, 0, 3 * LEAF))
    await settled()
    requests.answer(LEAF)
    requests.answer(0)
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert opened.serves(0)
    opened.ask(0, 3 * LEAF)
    task = asyncio.create_task(taken(opened, 0, 3 * LEAF))
    await settled()
    assert not opened.has_read_ahead
    requests.answer(2 * LEAF)
    assert await task == DATA[: 3 * LEAF]
    assert requests.offsets == leaves(0, 3 * LEAF)
    await opened.aclose()


async def test_what_was_there_before_an_error_is_given() -> None:
    """The error is raised by the read that needs what does not come."""
    requests = Requests(FILE)
    opened = window(requests, 0, 2 * LEAF)
    await settled()
    requests.answer(0)
    failure = ChunkUnavailableError("no gateway", [ValueError()])
    requests.answer(LEAF, failure)
    await settled()
    assert opened.has_ended
    assert await taken(opened, 0, LEAF) == DATA[:LEAF]
    opened.ask(LEAF, 2 * LEAF)
    with pytest.raises(ChunkUnavailableError, match="no gateway"):
        await taken(opened, LEAF, 2 * LEAF)


async def test_closed_while_a_read_waits() -> None:
    """The read ends, what comes late is dropped, and nothing runs any more."""
    requests = Requests(FILE)
    opened = window(requests, 0, 2 * LEAF)
    task = asyncio.create_task(taken(opened, 0, 2 * LEAF))
    await settled()
    await opened.aclose()
    with pytest.raises(StreamClosedError, match="cancelled"):
        await task
    cid, accept, _ = requests.open[0]
    accept(next(block for block in FILE if block.cid == cid))
    assert "0 bytes held" in repr(opened)
    assert not opened.serves(0)
    assert requests.calls[0].result.done()
    await opened.aclose()


async def test_nodes_that_were_taken_for_leaves() -> None:
    """A tree of tiny leaves, where only a node itself says that it has some: all is read."""
    for piece in (1000, 2**14, len(DATA)):
        requests = Requests(OLD, answers=True)
        opened = window(requests, 0, min(piece, len(DATA)), old=True)
        found = await taken(opened, 0, min(piece, len(DATA)))
        while len(found) < len(DATA):
            end = min(len(DATA), len(found) + piece)
            opened.ask(len(found), end)
            found += await taken(opened, len(found), end)
        assert found == DATA
        await opened.aclose()


async def test_a_single_read_of_tiny_leaves_requests_no_others() -> None:
    """Below a node that was taken for a leaf, too."""
    requests = Requests(OLD, answers=True)
    start, end = 100_000, 100_010
    opened = window(requests, start, end, old=True)
    assert await taken(opened, start, end) == DATA[start:end]
    await settled()
    assert [offset for offset in requests.offsets if offset // 2**12 == start // 2**12][-1:] == requests.offsets[-1:]
    assert len(requests.offsets) <= 4  # a node on each level that was taken for a leaf
    await opened.aclose()


async def test_an_error_ahead_of_a_read_is_not_its_own() -> None:
    """What the read needs is requested again, with nothing ahead; the read that needs what is missing gets the error."""
    requests = Requests(FILE)

    async def call(function: Callable[[FetchGroup], Awaitable[Any]]) -> Any:
        return await function(cast("FetchGroup", requests))

    file = RemoteFile(ROOT.cid, (), call=call, begin=requests.begin, close=None, limit=AheadLimit(32 * MEG))
    failure = ChunkUnavailableError("no gateway has the fifth", [ValueError()])

    async def read() -> asyncio.Task[bytes]:
        requests.offsets.clear()
        task = asyncio.create_task(file.read(LEAF))
        await settled()
        return task

    task = await read()
    requests.answer(0)
    assert await task == DATA[:LEAF]
    task = await read()
    requests.answer(5 * LEAF, failure)
    await settled()
    assert requests.offsets == [*leaves(LEAF, 2 * LEAF + MEG), LEAF]
    for leaf in range(1, 5):
        requests.answer(leaf * LEAF)
        assert await task == DATA[leaf * LEAF : (leaf + 1) * LEAF]
        task = await read()
        assert requests.offsets == [(leaf + 1) * LEAF]
    requests.answer(5 * LEAF, failure)
    with pytest.raises(ChunkUnavailableError, match="the fifth"):
        await task
    await file.seek(6 * LEAF)
    task = await read()
    requests.answer(6 * LEAF)
    assert await task == DATA[6 * LEAF : 7 * LEAF]
    await file.aclose()
    assert all(call.result.done() for call in requests.calls)
