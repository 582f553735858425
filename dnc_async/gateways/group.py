"""The wanted blocks of one stream, or of one call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

import anyio

from dnc_async.condition import Condition
from dnc_async.errors import CidError, StreamClosedError
from dnc_async.gateways.spans import Within
from dnc_async.gateways.want import BlockWant, Priority
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Block, verify
from dnc_async.ipld.cid import RAW, Cid

P = ParamSpec("P")
T = TypeVar("T")

_UNKNOWN_BYTES = 4096  # what a node is taken to have


class _Fetcher(Protocol):
    def submit(self, want: BlockWant) -> None:
        """Take a wanted block into the order."""

    def drop(self, wants: Sequence[BlockWant]) -> None:
        """Give up on wanted blocks."""

    def left(self, group: FetchGroup) -> None:
        """A group was closed."""

    async def in_worker(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking code in a worker thread."""


class FetchGroup:
    """Wanted blocks that are given up together. Closing it gives up on all of them, and waits for their workers."""

    def __init__(self, fetcher: _Fetcher) -> None:
        self._fetcher = fetcher
        self._open: dict[BlockWant, None] = {}  # in order: which is given up first must not depend on chance
        self._given_up = Condition()
        self._closed = False

    def __repr__(self) -> str:
        return f"<FetchGroup {'closed' if self._closed else 'open'}, {len(self._open)} blocks wanted>"

    def in_worker(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Run blocking code in a worker thread; when cancelled, wait for it, because it may hold a file."""
        return self._fetcher.in_worker(function, *args, **kwargs)

    def submit(
        self,
        cid: Cid,
        *,
        size_bytes: int,
        priority: Priority,
        accept: Callable[[Block], None],
        done: Callable[[BlockWant, Exception | None], None],
        within: Sequence[Within] = (),
        ahead: bool = False,
    ) -> BlockWant:
        """Want a block of this likely size; smaller priorities first.

        ``within`` are the DAGs in which it lies, the smallest first; ``ahead`` says that the rest of the first is wanted next.
        """

        def finished(want: BlockWant, error: Exception | None) -> None:
            self._open.pop(want, None)
            if self._closed:
                self._given_up.notify_all()
            else:
                done(want, error)

        if self._closed:
            raise StreamClosedError("the stream was closed")
        if (problem := cid.problem) is not None:  # whatever is fetched is verified by a hash that resists forgery
            raise CidError(f"{cid}: {problem}")
        limit = min(size_bytes, MAX_BLOCK_BYTES) if cid.codec == RAW and size_bytes else MAX_BLOCK_BYTES
        want = BlockWant(
            cid=cid,
            size_bytes=size_bytes or _UNKNOWN_BYTES,
            within=tuple(within),
            ahead=ahead,
            group=self,
            priority=priority,
            accept=accept,
            done=finished,
            limit_bytes=limit,
        )
        self._open[want] = None
        self._fetcher.submit(want)
        return want

    async def block(self, cid: Cid, *, priority: Priority, within: Sequence[Within] = (), ahead: bool = False) -> Block:
        """Wait for one block. Raises :class:`~dnc_async.errors.ChunkUnavailableError` where nobody can serve it."""
        return (await self.blocks([cid], priority=priority, within=within, ahead=ahead))[0]

    async def blocks(
        self, cids: Sequence[Cid], *, priority: Priority, within: Sequence[Within] = (), ahead: bool = False
    ) -> list[Block]:
        """Wait for blocks that are wanted at once, and are held at once; errors as of :meth:`block`."""
        found: dict[int, Block] = {}
        failed: list[Exception] = []
        changed = anyio.Event()

        def done(_: BlockWant, error: Exception | None) -> None:
            if error is not None:
                failed.append(error)
            if failed or len(found) == len(cids):
                changed.set()

        for place, cid in enumerate(cids):
            if cid.inline is not None and cid.problem is None:
                found[place] = verify(cid, cid.inline)
            else:
                accept = partial(found.__setitem__, place)
                self.submit(cid, size_bytes=0, priority=priority, accept=accept, done=done, within=within, ahead=ahead)
        if len(found) < len(cids):
            await changed.wait()
        if failed:
            raise failed[0]
        return [found[place] for place in range(len(cids))]

    async def withdraw(self, wants: Iterable[BlockWant]) -> None:
        """Give up on some, whose ``done`` is not called any more; returns when no worker touches them."""
        given_up = [want for want in wants if want in self._open]
        for want in given_up:
            want.done = self._gone
        self._fetcher.drop(given_up)
        with anyio.CancelScope(shield=True):
            await self._given_up.until(lambda: not any(want in self._open for want in given_up))

    def _gone(self, want: BlockWant, _: Exception | None) -> None:
        self._open.pop(want, None)
        self._given_up.notify_all()

    async def aclose(self) -> None:
        """Give up on everything that is still wanted; returns when no worker touches it any more."""
        if not self._closed:
            self._closed = True
            self._fetcher.left(self)
        self._fetcher.drop(list(self._open))
        with anyio.CancelScope(shield=True):
            await self._given_up.until(lambda: not self._open)
