"""The local store as a gateway: a block is read where it is verified and handed over, in one go."""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from dnc_async.errors import ChunkUnavailableError, GatewayError, GatewayMissError, GatewayOversizeError, StoreError
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.transport import StoreTransport
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.cid import Cid

from ..conftest import PATIENCE_S, fetcher_over

BLOCKS = [make(bytes([number]) * 1000) for number in range(20)]


@asynccontextmanager
async def running(read: Callable[[Cid], bytes | None]) -> AsyncIterator[tuple[Fetcher, FetchGroup]]:
    """A fetcher over a store alone, with one worker thread."""
    with ThreadPoolExecutor(1) as executor:
        fetcher = fetcher_over([StoreTransport("store", read)], executor, requests_per_gateway=32)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetcher.run)
            group = fetcher.open()
            yield fetcher, group
            with anyio.CancelScope(shield=True):
                await group.aclose()
            tasks.cancel_scope.cancel()


async def test_the_first_block_waits_for_no_other() -> None:
    """It is handed over before the next one is read, however many were asked for at once."""
    data = {block.cid: block.data for block in BLOCKS}
    log: list[tuple[str, Cid]] = []
    loop_thread, landed, done = threading.get_ident(), list[object](), anyio.Event()

    def read(cid: Cid) -> bytes:
        assert threading.get_ident() != loop_thread
        log.append(("read", cid))
        return bytes(data[cid])

    def told(want: object, _: object) -> None:
        landed.append(want)
        if len(landed) == len(BLOCKS):
            done.set()

    async with running(read) as (fetcher, group):
        for place, block in enumerate(BLOCKS):

            def accept(block: Block) -> None:
                log.append(("handed over", block.cid))

            group.submit(block.cid, size_bytes=1000, priority=(place,), accept=accept, done=told)
        with anyio.fail_after(PATIENCE_S):
            await done.wait()
        (line,) = fetcher.statistics()
    assert log == [(what, block.cid) for block in BLOCKS for what in ("read", "handed over")]
    assert (line.blocks, line.bytes, line.failures, line.in_flight) == (20, 20_000, 0, 0)
    assert line.latency_s is not None


def broken(_: Cid) -> bytes | None:
    raise StoreError("the disk is gone")


@pytest.mark.parametrize(
    ("read", "error", "words"),
    [
        (lambda _: None, GatewayMissError, "does not hold this block"),
        (lambda _: bytes(1001), GatewayOversizeError, "holds 1001 bytes, over the limit of 1000"),
        (lambda _: bytes(1000), GatewayError, "do not hash to the CID"),
        (broken, GatewayError, "the disk is gone"),
    ],
)
async def test_what_goes_wrong_is_this_gateways_error(
    read: Callable[[Cid], bytes | None], error: type[GatewayError], words: str
) -> None:
    """Whoever wants the block is told why it cannot be had."""
    async with running(read) as (fetcher, group):
        failed: list[Exception | None] = []
        done = anyio.Event()

        def told(_: object, outcome: Exception | None) -> None:
            failed.append(outcome)
            done.set()

        cid = make(b"x" * 1000).cid
        group.submit(cid, size_bytes=1000, priority=(0,), accept=lambda _: None, done=told)
        with anyio.fail_after(PATIENCE_S):
            await done.wait()
        assert fetcher.statistics()[0].in_flight == 0
    (outcome,) = failed
    assert isinstance(outcome, ChunkUnavailableError)
    (cause,) = outcome.exceptions
    assert isinstance(cause, error)
    assert words in str(cause)


class Slow(ThreadPoolExecutor):
    """Its threads never let go of what they were given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.held: list[object] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.held += [function, args, kwargs]
        return super().submit(function, *args, **kwargs)


async def test_a_worker_holds_nothing() -> None:
    """What it was given, and what it returned, is gone when it has returned, also where its thread is late."""

    class Rows:
        def finish(self) -> int:
            return 5

    with Slow() as executor:
        fetcher = fetcher_over([StoreTransport("the store", lambda _: None)], executor)
        rows = Rows()
        gone = weakref.ref(rows)
        assert await fetcher.in_worker(rows.finish) == 5
        del rows
        assert gone() is None
        assert executor.held
        returned = await fetcher.in_worker(Rows)
        gone = weakref.ref(returned)
        del returned
        assert gone() is None
