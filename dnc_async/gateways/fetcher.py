"""The fetcher: wanted blocks in, verified blocks out, over all gateways at once.

The scoreboard decides, one dispatcher sends, and a task per request brings the body. Hashing a block and handing it to
whoever wants it is one hop to a worker thread. A block that a gateway could not give, or gave wrong, goes back among the
wanted ones and is asked of another; when all have failed for it, whoever wants it is told why each of them did.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
from anyio.abc import TaskGroup

from dnc_async.errors import (
    BlockMismatchError,
    ChunkUnavailableError,
    GatewayError,
    GatewayMismatchError,
    GatewayMissError,
    GatewayOversizeError,
    GatewayRefusedError,
    StreamClosedError,
)
from dnc_async.gateways.scoreboard import Scoreboard, Want
from dnc_async.gateways.transport import Transport
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Block, verify
from dnc_async.ipld.cid import RAW, Cid
from dnc_async.telemetry import BlockReceived, GatewayStatistics, Observers, RequestFailed

#: May be asked for twice before anything was delivered.
_FREE_HEDGES_BYTES = 4 * 2**20

Priority = tuple[int, ...]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, eq=False, kw_only=True)
class WantedBlock(Want):
    """A block to fetch. ``accept`` gets it in a worker thread; ``done`` is called in the loop, once.

    ``faults`` counts the failures on the way, by gateway. ``flights`` are its requests, several where it was hedged; the first
    that brings it, or fails for a reason that no gateway is to blame for, settles the ``outcome`` and cancels the others.
    """

    cid: Cid
    priority: Priority
    accept: Callable[[Block], None]
    done: Callable[[WantedBlock, Exception | None], None]
    limit_bytes: int = MAX_BLOCK_BYTES
    faults: dict[str, int] = field(default_factory=dict)
    failing_since: float | None = None
    flights: dict[int, anyio.CancelScope] = field(default_factory=dict)
    settled: bool = False
    outcome: Exception | None = None
    is_hopeful: bool = True
    _errors: dict[int, GatewayError] = field(default_factory=dict)
    _attempts: dict[int, int] = field(default_factory=dict)
    _hopeless: set[int] = field(default_factory=set)

    def fault(self, gateway: int, error: GatewayError, *, hopeless: Callable[[int], bool], gateways: int) -> None:
        """Note a failure; ``is_hopeful`` says after it whether anybody is left to ask.

        A gateway that failed comes last in the next round, and not at all once it is hopeless for this block.
        """
        self._errors[gateway] = error
        self.faults[error.gateway] = self.faults.get(error.gateway, 0) + 1
        attempts = self._attempts[gateway] = self._attempts.get(gateway, 0) + 1
        if isinstance(error, (GatewayMissError, GatewayRefusedError)) or hopeless(attempts):
            self._hopeless.add(gateway)
        self.excluded.add(gateway)
        if len(self.excluded) == gateways:
            self.excluded = set(self._hopeless)
        self.is_hopeful = len(self._hopeless) < gateways

    def unavailable(self) -> ChunkUnavailableError:
        """The error that holds the last cause of each gateway."""
        return ChunkUnavailableError(
            f"no gateway could serve the block {self.cid}; what each of them said last:", list(self._errors.values())
        )


class Fetcher:
    """Fetches for all streams of a client. :meth:`run` must be running for anything to happen."""

    def __init__(
        self,
        transports: Sequence[Transport],
        *,
        executor: Executor,
        clock: Callable[[], float],
        attempts: int,
        patience_s: float,
        requests_per_gateway: int,
        in_flight_bytes: int,
        hedge_share: float,
        requests_per_minute: Sequence[float | None] = (),
    ) -> None:
        """Over these gateways.

        ``hedge_share``: how many bytes may be asked for twice, of those that were delivered (and 4 MiB more).
        ``requests_per_minute``: what each of the gateways allows, where that is known.
        """
        self._hedge_share = hedge_share
        self._hedged_bytes = 0
        self._transports = tuple(transports)
        self._executor = executor
        self._clock = clock
        self._attempts = attempts
        self._patience_s = patience_s
        self._board = Scoreboard(
            len(self._transports),
            max_requests=requests_per_gateway,
            max_bytes=in_flight_bytes,
            jitter=random.random,
            requests_per_minute=requests_per_minute,
        )
        self._pending: list[tuple[Priority, int, WantedBlock]] = []
        self._order = itertools.count()
        self._wake = anyio.Event()
        self.observers = Observers()

    def __repr__(self) -> str:
        return f"<Fetcher over {len(self._transports)} gateways, {len(self._pending)} blocks pending>"

    def statistics(self) -> tuple[GatewayStatistics, ...]:
        """A line for each gateway."""
        return tuple(
            GatewayStatistics(
                url=transport.name,
                blocks=score.blocks,
                bytes=score.bytes,
                rejected=score.rejected,
                failures=score.failures,
                in_flight=score.in_flight,
                rate=score.rate,
                latency_s=score.latency_s,
            )
            for transport, score in zip(self._transports, self._board.scores, strict=True)
        )

    @property
    def hedged_bytes(self) -> int:
        """How many bytes were asked for twice."""
        return self._hedged_bytes

    def open(self) -> FetchGroup:
        """A group of wanted blocks that are given up together."""
        return FetchGroup(self)

    async def run(self) -> None:
        """Send requests until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._wake = anyio.Event()
                now = self._clock()
                self._dispatch(tasks, now)
                change = self._board.next_change(now)
                with anyio.move_on_after(None if change is None else max(0.001, change - now)):
                    await self._wake.wait()

    def submit(self, want: WantedBlock) -> None:
        """Take a wanted block into the order (called by a group)."""
        bisect.insort(self._pending, (want.priority, next(self._order), want))
        self._wake.set()

    def drop(self, wants: set[WantedBlock]) -> set[WantedBlock]:
        """Forget those that are still pending and cancel the others; returns the latter (called by a group)."""
        pending = {want for _, _, want in self._pending if want in wants}
        self._pending = [entry for entry in self._pending if entry[2] not in wants]
        for want in wants - pending:
            for scope in want.flights.values():
                scope.cancel()
        return wants - pending

    async def in_worker(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking code in a worker thread; when cancelled, wait for it, because it may hold a file."""
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))
        with anyio.CancelScope(shield=True):
            await asyncio.wait([running])
        return running.result()

    def _dispatch(self, tasks: TaskGroup, now: float) -> None:
        if len(self._transports) > 1:
            delivered = sum(score.bytes for score in self._board.scores)
            budget = self._hedge_share * delivered + _FREE_HEDGES_BYTES - self._hedged_bytes
            for want, gateway in self._board.hedges(now, budget):
                self._hedged_bytes += want.size_bytes
                self._send(tasks, want, gateway, now)
        chosen = dict(self._board.assign((want for _, _, want in self._pending), now))
        if chosen:
            self._pending = [entry for entry in self._pending if entry[2] not in chosen]
        for want, gateway in chosen.items():
            self._send(tasks, want, gateway, now)

    def _send(self, tasks: TaskGroup, want: Want, gateway: int, now: float) -> None:
        assert isinstance(want, WantedBlock)  # noqa: S101 - what went in comes out
        self._board.scores[gateway].sent(want, want.size_bytes, now)
        # The scope is made now, not by the task: the block may be given up before that has begun.
        want.flights[gateway] = scope = anyio.CancelScope()
        want.asked.add(gateway)
        tasks.start_soon(self._request, want, gateway, scope)

    async def _request(self, want: WantedBlock, gateway: int, scope: anyio.CancelScope) -> None:
        score, began = self._board.scores[gateway], self._clock()
        outcome: Exception | None = StreamClosedError("the stream was closed")  # stands where this is cancelled
        try:
            with scope:
                try:
                    await self._bring(want, gateway)
                    outcome = None
                except Exception as error:  # noqa: BLE001 - a full disk, or our own mistake: the stream is told
                    outcome = error
        finally:
            score.missed(want)
            del want.flights[gateway]
            want.asked.discard(gateway)
            self._wake.set()
            if outcome is None and not want.settled:
                name, seconds = self._transports[gateway].name, self._clock() - began
                self.observers.tell(
                    BlockReceived(gateway=name, cid=str(want.cid), size_bytes=want.size_bytes, seconds=seconds)
                )
            self._ended(want, gateway, outcome)

    def _ended(self, want: WantedBlock, gateway: int, outcome: Exception | None) -> None:
        """A request has ended: settle the block, or leave it to its other request, or ask again."""
        if not want.settled and isinstance(outcome, GatewayError):
            self._note(want, gateway, outcome)
        elif not want.settled and not (isinstance(outcome, StreamClosedError) and want.flights):
            want.settled, want.outcome = True, outcome
        if want.settled:
            for other, scope in want.flights.items():
                self._board.scores[other].beaten(want, self._clock())
                scope.cancel()
        if want.flights:
            return  # its worker may be writing the block this very moment: whoever ends last tells
        if want.settled:
            want.done(want, want.outcome)
        elif want.is_hopeful:
            self.submit(want)
        else:
            want.done(want, want.unavailable())

    async def _bring(self, want: WantedBlock, gateway: int) -> None:
        score, transport = self._board.scores[gateway], self._transports[gateway]

        def arrived(size_bytes: int) -> None:
            now = self._clock()
            if size_bytes:
                score.received(want, size_bytes, now)
                if self._pending and score.has_room(self._pending[0][2].size_bytes):
                    self._wake.set()
            else:
                score.first_byte(want, now)

        try:
            data = await transport.raw(want.cid, limit_bytes=want.limit_bytes, arrived=arrived)
        except (GatewayMissError, GatewayRefusedError):
            score.missed(want)
            raise
        except GatewayError as error:
            score.failed(want, self._clock(), error.retry_after_s)
            raise
        score.delivered(want, len(data), self._clock())
        self._wake.set()
        try:
            await self.in_worker(_verify_and_accept, want, data)
        except BlockMismatchError as error:
            score.mismatched(self._clock())
            raise GatewayMismatchError(
                "sent bytes that do not hash to the CID; they were thrown away",
                gateway=transport.name,
                cid=str(want.cid),
            ) from error
        score.verified(len(data))

    def _note(self, want: WantedBlock, gateway: int, error: GatewayError) -> None:
        now = self._clock()
        if want.failing_since is None:
            want.failing_since = now
        mismatch = isinstance(error, GatewayMismatchError)
        self.observers.tell(
            RequestFailed(gateway=error.gateway, cid=str(want.cid), reason=str(error), mismatch=mismatch)
        )
        score, waited = self._board.scores[gateway], now - want.failing_since

        def hopeless(attempts: int) -> bool:
            wrong = mismatch or isinstance(error, GatewayOversizeError)
            return attempts >= self._attempts and (not score.blocks or wrong or waited >= self._patience_s)

        want.fault(gateway, error, hopeless=hopeless, gateways=len(self._transports))


class FetchGroup:
    """The wanted blocks of one stream. Closing it gives up on all of them, and waits for their workers."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._open: set[WantedBlock] = set()
        self._idle = anyio.Event()
        self._ended = anyio.Event()
        self._closed = False
        self.in_worker = fetcher.in_worker

    def submit(
        self,
        cid: Cid,
        *,
        size_bytes: int,
        priority: Priority,
        accept: Callable[[Block], None],
        done: Callable[[WantedBlock, Exception | None], None],
    ) -> WantedBlock:
        """Want a block of this likely size; smaller priorities first."""

        def finished(want: WantedBlock, error: Exception | None) -> None:
            self._open.discard(want)
            if not self._open:
                self._idle.set()
            if not self._closed:
                done(want, error)

        if self._closed:
            raise StreamClosedError("the stream was closed")
        limit = min(size_bytes, MAX_BLOCK_BYTES) if cid.codec == RAW and size_bytes else MAX_BLOCK_BYTES
        want = WantedBlock(
            cid=cid, size_bytes=size_bytes or 4096, priority=priority, accept=accept, done=finished, limit_bytes=limit
        )
        self._open.add(want)
        self._fetcher.submit(want)
        return want

    async def block(self, cid: Cid, *, priority: Priority) -> Block:
        """Wait for one block. Raises :class:`~dnc_async.errors.ChunkUnavailableError` where nobody can serve it."""
        return (await self.blocks([cid], priority=priority))[0]

    async def blocks(self, cids: Sequence[Cid], *, priority: Priority) -> list[Block]:
        """Wait for blocks that are wanted at once, and are held at once; errors as of :meth:`block`."""
        found: dict[int, Block] = {}
        failed: list[Exception] = []
        changed = anyio.Event()

        def done(_: WantedBlock, error: Exception | None) -> None:
            if error is not None:
                failed.append(error)
            if failed or len(found) == len(cids):
                changed.set()

        for place, cid in enumerate(cids):
            if cid.inline is not None:
                found[place] = verify(cid, cid.inline)
            else:
                accept = partial(found.__setitem__, place)
                self.submit(cid, size_bytes=0, priority=priority, accept=accept, done=done)
        if len(found) < len(cids):
            await changed.wait()
        if failed:
            raise failed[0]
        return [found[place] for place in range(len(cids))]

    async def withdraw(self, wants: Iterable[WantedBlock]) -> None:
        """Give up on some, whose ``done`` is not called any more; returns when no worker touches them."""
        given_up = self._open.intersection(wants)
        for want in given_up:  # settled, so that one that fails this very moment is not asked for again
            want.settled, want.outcome, want.done = True, StreamClosedError("the block was given up"), self._gone
        self._open -= given_up - self._fetcher.drop(given_up)
        with anyio.CancelScope(shield=True):
            while given_up & self._open:
                await self._ended.wait()

    def _gone(self, want: WantedBlock, _: Exception | None) -> None:
        self._open.discard(want)
        if not self._open:
            self._idle.set()
        self._ended.set()
        self._ended = anyio.Event()

    async def aclose(self) -> None:
        """Give up on everything that is still wanted; returns when no worker touches it any more."""
        self._closed = True
        self._open = self._fetcher.drop(self._open)
        while self._open:
            self._idle = anyio.Event()
            with anyio.CancelScope(shield=True):
                await self._idle.wait()


def _verify_and_accept(want: WantedBlock, data: bytes) -> None:
    want.accept(verify(want.cid, data))
