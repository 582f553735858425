"""A group of wanted blocks: those of one stream, or of one call, which are withdrawn together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

import anyio

from dnc_async.condition import Condition
from dnc_async.errors import CidError, StreamClosedError
from dnc_async.gateways.dag_range import DagRange
from dnc_async.gateways.want import BlockWant, Priority, never
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Block, verify
from dnc_async.ipld.cid import RAW, Cid

P = ParamSpec("P")
T = TypeVar("T")

_UNKNOWN_BYTES = 4096  # the assumed size of a node


def _always() -> bool:
    return True


class _Fetcher(Protocol):
    def submit(self, want: BlockWant) -> None:
        """Start to fetch a block."""

    def hurry(self) -> None:
        """Verify what has arrived without waiting for more."""

    def withdraw(self, wants: Sequence[BlockWant]) -> None:
        """Stop fetching blocks."""

    def group_closed(self, group: FetchGroup) -> None:
        """Drop what is kept for this group alone."""

    async def in_worker(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function in a worker thread."""


class FetchGroup:
    """Wanted blocks that are withdrawn together. Closing the group withdraws all of them, and waits for their worker threads."""

    def __init__(self, fetcher: _Fetcher) -> None:
        self._fetcher = fetcher
        self._open: dict[BlockWant, None] = {}  # in order: which is given up first must not depend on chance
        self._done = Condition()
        self._closed = False

    def __repr__(self) -> str:
        return f"<FetchGroup {'closed' if self._closed else 'open'}, {len(self._open)} blocks wanted>"

    def in_worker(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Call a blocking function in a worker thread. A cancelled caller waits for it to end, because it may use a file."""
        return self._fetcher.in_worker(function, *args, **kwargs)

    def submit(
        self,
        cid: Cid,
        *,
        size_bytes: int,
        priority: Priority,
        accept: Callable[[Block], None],
        done: Callable[[BlockWant, Exception | None], None],
        is_quick: Callable[[], bool] = never,
        is_urgent: Callable[[], bool] = never,
        within: Sequence[DagRange] = (),
        ahead: bool = False,
    ) -> BlockWant:
        """Start to fetch a block of this likely size. Smaller priorities are requested first.

        ``accept`` is called with the block in a worker thread, or in the event loop if ``is_quick()`` says that it waits for
        nothing; then ``done`` in the event loop, with an error or ``None``, but not after the group was closed. ``is_urgent()``
        tells whether the consumer waits for it next. ``within`` are the DAG ranges in which the block lies, the smallest first;
        ``ahead`` says that the rest of the first is wanted next.
        """

        def finished(want: BlockWant, error: Exception | None) -> None:
            self._open.pop(want, None)
            if self._closed:
                self._done.notify_all()
            else:
                done(want, error)

        if self._closed:
            raise StreamClosedError("the stream was closed")
        if (problem := cid.problem) is not None:  # only blocks whose hash function resists forgery can be verified
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
            is_quick=is_quick,
            is_urgent=is_urgent,
            limit_bytes=limit,
        )
        self._open[want] = None
        self._fetcher.submit(want)
        return want

    async def block(
        self, cid: Cid, *, priority: Priority, within: Sequence[DagRange] = (), ahead: bool = False
    ) -> Block:
        """Fetch one block. Raises :class:`~dnc_async.errors.ChunkUnavailableError` if no gateway can serve it."""
        return (await self.blocks([cid], priority=priority, within=within, ahead=ahead))[0]

    async def blocks(
        self, cids: Sequence[Cid], *, priority: Priority, within: Sequence[DagRange] = (), ahead: bool = False
    ) -> list[Block]:
        """Fetch several blocks at the same time, all of which are held in memory. Raises as :meth:`block` does."""
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
                self.submit(
                    cid,
                    size_bytes=0,
                    priority=priority,
                    accept=partial(found.__setitem__, place),
                    done=done,
                    is_quick=_always,
                    is_urgent=_always,
                    within=within,
                    ahead=ahead,
                )
        if len(found) < len(cids):
            await changed.wait()
        if failed:
            raise failed[0]
        return [found[place] for place in range(len(cids))]

    def hurry(self) -> None:
        """Deliver what has arrived at once: its place in memory is free now."""
        self._fetcher.hurry()

    async def withdraw(self, wants: Iterable[BlockWant]) -> None:
        """Stop fetching some blocks, whose ``done`` is not called any more. Returns when no worker thread uses them."""
        withdrawn = [want for want in wants if want in self._open]
        for want in withdrawn:
            want.done = self._withdrawn
        self._fetcher.withdraw(withdrawn)
        with anyio.CancelScope(shield=True):
            await self._done.until(lambda: not any(want in self._open for want in withdrawn))

    def _withdrawn(self, want: BlockWant, _: Exception | None) -> None:
        self._open.pop(want, None)
        self._done.notify_all()

    async def aclose(self) -> None:
        """Stop fetching all blocks of the group. Returns when no worker thread uses them any more."""
        if not self._closed:
            self._closed = True
            self._fetcher.group_closed(self)
        self._fetcher.withdraw(list(self._open))
        with anyio.CancelScope(shield=True):
            await self._done.until(lambda: not self._open)
