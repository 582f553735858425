"""A scripted gateway as a :class:`Transport` of the engine: no socket, but real blocks, CARs and errors.

It answers what ``dnc serve`` would answer with the same store, at the times and with the faults of :class:`ScriptedLine`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from urllib.parse import parse_qsl

from dnc_async.errors import (
    GatewayBusyError,
    GatewayError,
    GatewayMissError,
    GatewayNoCarError,
    GatewayOversizeError,
    GatewayTimeoutError,
)
from dnc_async.gateways.connections import LEAST_BYTES_PER_S
from dnc_async.gateways.transport import Arrivals, CarRequest
from dnc_async.ipld.block import Pieces
from dnc_async.ipld.car import encode_header, section
from dnc_async.ipld.cid import Cid
from dnc_async.serve.content_request import RefusalError, parse_request
from dnc_async.serve.open_blocks import OpenBlocks
from dnc_async.serve.resolving import resolve
from dnc_async.serve.sent_blocks import SharedMemory
from dnc_async.serve.steps import NotHereError, finish
from dnc_async.serve.walk import CarWalk
from dnc_async.testing.faults import Faults
from dnc_async.testing.scripted_line import Ending, ScriptedLine

_PIECE_BYTES = 2**16
#: Times that differ by less than this are equal, except for rounding.
_NO_TIME_S = 1e-6
_STRANGER = b"another block than the one that was asked for"


class SimulatedGateway:
    """One gateway with ``blocks``. Its seconds count from its creation; ``faults`` counts the faults that were injected."""

    has_cars = True
    is_complete = False

    def __init__(
        self,
        name: str,
        script: Faults,
        blocks: Mapping[Cid, bytes],
        *,
        seed: str,
        clock: Callable[[], float],
        stall_timeout_s: float,
    ) -> None:
        """``stall_timeout_s`` is how long a silent answer is waited for."""
        self.name = name
        self.script = script
        self._blocks = blocks
        self._clock = clock
        self._start_s = clock()
        self._stall_timeout_s = stall_timeout_s
        self._line = ScriptedLine(replace(script, ignore_entity_bytes=False), seed=seed, piece_bytes=_PIECE_BYTES)
        self._dice = random.Random(f"{seed}/places")  # noqa: S311 - replayable, not secret
        self._known: set[str] = set()
        self.requests = 0
        self.faults: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<SimulatedGateway {self.name} {self._line!r}>"

    @property
    def _now(self) -> float:
        return self._clock() - self._start_s

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> Pieces:
        """One block, unverified, as the script sends it."""
        asked = str(cid)
        await self._begin(asked, root="", car=False)
        data = self._read(cid)
        if data is None:
            raise GatewayMissError("answered 404 Not Found", gateway=self.name, cid=asked)
        data = self._sent(data)
        if len(data) > limit_bytes:
            raise GatewayOversizeError(
                f"announced {len(data)} bytes, over the limit of {limit_bytes}", gateway=self.name, cid=asked
            )
        arrivals.begin()
        return tuple([piece async for piece in self._pieces(data, asked, arrivals)]) or (b"",)

    async def car(
        self,
        request: CarRequest,
        *,
        limit_bytes: int,
        arrivals: Arrivals,
        feed: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        """The requested CAR, in pieces to ``feed``."""
        asked = request.asked
        path, _, query = request.target.partition("?")
        ask = parse_request(path, dict(parse_qsl(query)), None)
        root = str(ask.root) if ask.segments else ""
        await self._begin(asked, root=root, car=True)
        if self.script.ignore_entity_bytes and ask.entity_bytes is not None:
            self.faults["ignore-entity-bytes"] += 1
            ask = replace(ask, entity_bytes=None)
        try:
            opened = OpenBlocks(self._read)
            resolved = finish(resolve(opened, ask.root, ask.segments))
            walk = CarWalk(opened, resolved, ask, SharedMemory())
            finish(walk.begin())
        except (RefusalError, NotHereError) as error:
            raise GatewayMissError(f"answered 404: {error}", gateway=self.name, cid=asked) from error
        body = encode_header([resolved.terminus]) + b"".join(
            section(found[0], self._sent(found[1])) for found in walk.blocks() if found is not None
        )
        arrivals.begin()
        size = 0
        async for piece in self._pieces(body, asked, arrivals):
            size += len(piece)
            if size > limit_bytes:
                raise GatewayOversizeError(
                    f"sent {size} bytes and more, over the limit of {limit_bytes}", gateway=self.name, cid=asked
                )
            if not await feed(piece):
                return

    async def holds(self, root: Cid) -> bool | None:
        """Whether it holds a root, as a HEAD request would tell."""
        await self._begin(str(root), root=str(root), car=False)
        return False if self.script.cold else root in self._blocks

    async def sends_cars(self, root: Cid) -> bool:
        """Whether it answers a request for a CAR of the root block with a CAR."""
        await self._begin(str(root), root=str(root), car=False)
        return not self.script.no_car

    def _read(self, cid: Cid) -> bytes | None:
        return cid.inline if cid.inline is not None else self._blocks.get(cid)

    def _fail(self, fault: str, kind: type[GatewayError], said: str, asked: str, **more: float) -> GatewayError:
        self.faults[fault] += 1
        return kind(said, gateway=self.name, cid=asked, **more)

    async def _begin(self, asked: str, *, root: str, car: bool) -> None:
        """Wait for the answer to begin; raises the client's error if it is a failure."""
        self.requests += 1
        self._check_up(asked)
        begins_at = self._line.begins_at(self._now)
        late_s = begins_at - self._now
        if late_s > self.script.latency_s + self.script.jitter_s + 1.0:
            self.faults["straggle"] += 1
        await asyncio.sleep(min(late_s, self._stall_timeout_s))
        if late_s > self._stall_timeout_s:
            raise GatewayTimeoutError("no answer within the limit", gateway=self.name, cid=asked)
        self._check_up(asked)
        known = root or (asked if asked in self._known else "")
        ending = self._line.answers(self._now, car=car, root=known)
        self._known |= {root} - {""}
        if ending is Ending.BUSY:
            raise self._fail("busy", GatewayBusyError, "answered 429", asked, retry_after_s=self._line.retry_after_s)
        if ending is Ending.MISS:
            fault = "cold" if self.script.cold and not known else "miss"
            raise self._fail(fault, GatewayMissError, "answered 404 Not Found", asked)
        if ending is Ending.NO_CAR:
            raise self._fail("no-car" if self.script.no_car else "html", GatewayNoCarError, "answered text/html", asked)
        if ending is Ending.BROKEN:
            raise self._fail("html", GatewayError, "answered with text/html", asked)

    def _check_up(self, asked: str) -> None:
        if self._line.is_down(self._now):
            raise self._fail("down", GatewayError, "the connection failed: refused", asked)

    def _sent(self, data: bytes) -> bytes:
        """A block as it is sent: sometimes damaged, or another one."""
        if not data or self._line.block_is_right():
            return data
        if self.script.other is not None and self.script.flip is None:
            self.faults["other"] += 1
            return _STRANGER
        self.faults["flip"] += 1
        damaged = bytearray(data)
        damaged[self._dice.randrange(len(data))] ^= 1 << self._dice.randrange(8)
        return bytes(damaged)

    async def _pieces(self, data: bytes, asked: str, arrivals: Arrivals) -> AsyncIterator[bytes]:
        """The body's pieces at their times; the error of a body that is cut off."""
        body = self._line.body(len(data))
        since, since_bytes = self._now, 0
        while body.sent_bytes < len(data):
            before, start = body.sent_bytes, self._now
            if start - since >= self._stall_timeout_s:
                if before - since_bytes < self._stall_timeout_s * LEAST_BYTES_PER_S:
                    raise self._fail("drip", GatewayTimeoutError, "hardly anything came", asked)
                since, since_bytes = start, before
            size, due = self._line.piece(body, start)
            if due - start > self._stall_timeout_s or (not size and due - start < _NO_TIME_S):
                await self._breaks(body_stalls=self._line.stalls(body), asked=asked)
            if due > start:
                if self.script.silent is not None and start in self.script.silent:
                    self.faults["silent"] += 1
                await asyncio.sleep(due - start)
            if self._line.is_down(self._now):
                raise self._fail("down", GatewayError, "the connection failed: reset", asked)
            if size:
                arrivals.read(size)
                yield data[before : before + size]

    async def _breaks(self, *, body_stalls: bool, asked: str) -> None:
        if body_stalls:
            self.faults["stall"] += 1
            await asyncio.sleep(self._stall_timeout_s)
            raise GatewayTimeoutError("no answer within the limit", gateway=self.name, cid=asked)
        raise self._fail("cut", GatewayError, "the connection failed: the body was cut off", asked)
