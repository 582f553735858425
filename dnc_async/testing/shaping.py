""":class:`ResponseHooks` that follow a script of :class:`Faults`."""

from __future__ import annotations

import asyncio
import math
import random
import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from aiohttp import web

from dnc_async.serve.accept import only_if_cached
from dnc_async.serve.content_request import RefusalError

from .bucket import PIECE_BYTES, Bucket
from .faults import DRIP_RATE, SLOW_FACTOR, STRAGGLE_S
from .floods import flood
from .stats import GatewayStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from dnc_async.ipld.cid import Cid
    from dnc_async.serve.content_request import ContentRequest
    from dnc_async.serve.hooks import Sink

    from .faults import Faults

_PAGE = "<!doctype html><html><head><title>Welcome</title></head><body>Sign in to use this network.</body></html>\n"
_STRANGER = b"another block than the one that was asked for"


class ScriptedHooks:
    """Applies a script to each request and body. Times count from :meth:`start`."""

    keeps_sizes = False  # a script may put another block in the place of one

    def __init__(self, faults: Faults, *, connections: Callable[[], int], clock: Callable[[], float]) -> None:
        self._faults = faults
        self._connections = connections
        self._clock = clock
        self._start_s = clock()
        self._random = random.Random(faults.seed)  # noqa: S311 - replayable, not secret
        self._line = Bucket(faults.rate, burst_bytes=2 * PIECE_BYTES) if faults.rate else None
        self._last_block: bytes = _STRANGER
        self._counts: Counter[str] = Counter()
        self._found: set[Cid] = set()

    @property
    def stats(self) -> GatewayStats:
        """What was done so far."""
        return GatewayStats(**self._counts)

    def start(self) -> None:
        """Begin the timeline: now is second 0."""
        self._start_s = self._clock()

    async def admit(self, request: web.Request) -> web.StreamResponse | None:
        """Wait for the latency, then answer instead of the gateway if the script says so."""
        number = self._count("requests")
        self._counts["peak_connections"] = max(self._counts["peak_connections"], self._connections())
        pause_s = self._faults.latency_s + self._random.uniform(-1, 1) * self._faults.jitter_s
        if self._faults.straggle is not None and number % self._faults.straggle == 0:
            self._count("answered_late")
            pause_s += STRAGGLE_S
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        if self._faults.cold and only_if_cached(request.headers.get("Cache-Control")):
            return web.Response(status=412)
        if self._faults.busy is not None and self._clock() - self._start_s in self._faults.busy:
            self._count("answered_busy")
            headers = {"Retry-After": str(math.ceil(self._faults.retry_after_s))}
            return web.Response(status=429, text="come back later\n", headers=headers)
        if self._faults.miss is not None and number % self._faults.miss == 0:
            self._count("answered_miss")
            return web.Response(status=404, text="not found\n")
        await flood(request, self._faults)
        if self._faults.html is not None and number % self._faults.html == 0:
            self._count("answered_html")
            return web.Response(text=_PAGE, content_type="text/html")
        return None

    def revise(self, content: ContentRequest) -> ContentRequest:
        """Ignore ``entity-bytes``, or refuse CARs, if the script says so."""
        if self._faults.no_car and content.format == "car":
            raise RefusalError(406, "this gateway serves raw blocks only")
        if self._faults.cold:
            if content.segments:
                self._found.add(content.root)
            elif content.root not in self._found:
                raise RefusalError(404, "no provider was found for this block")
        return replace(content, entity_bytes=None) if self._faults.ignore_entity_bytes else content

    def block(self, cid: Cid, data: bytes) -> bytes:
        """The block, or every so often a damaged copy or another one."""
        if not data or cid.inline is not None:
            return data
        number = self._count("blocks_served")
        if self._faults.other is not None:
            stranger = self._last_block if self._last_block != data else _STRANGER
            self._last_block = data
            if number % self._faults.other == 0:
                self._count("blocks_swapped")
                return stranger
        if self._faults.flip is not None and number % self._faults.flip == 0:
            self._count("blocks_flipped")
            damaged = bytearray(data)
            damaged[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
            return bytes(damaged)
        return data

    def sink(self, request: web.Request, response: web.StreamResponse) -> Sink:
        """Write through the simulated link, and cut the body off where the script says so."""
        shaper = _Shaper(
            request,
            response,
            faults=self._faults,
            line=self._line,
            clock=self._clock,
            start_s=self._start_s,
            served=self._served,
            drips=self._count("bodies") % (self._faults.drip or sys.maxsize) == 0,
        )
        return shaper.write

    def _served(self, size_bytes: int) -> None:
        self._count("bytes_served", size_bytes)

    def _count(self, name: str, more: int = 1) -> int:
        """Add to a counter; returns its new value."""
        self._counts[name] += more
        return self._counts[name]


class _Shaper:
    """One body that is sent by the script."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        *,
        faults: Faults,
        line: Bucket | None,
        clock: Callable[[], float],
        start_s: float,
        served: Callable[[int], None],
        drips: bool,
    ) -> None:
        self._faults = faults
        self._clock = clock
        self._start_s = start_s
        self._served = served
        self._request = request
        self._response = response
        self._sent = 0
        self._line = line
        trickle = DRIP_RATE if drips else faults.trickle
        self._trickle = Bucket(trickle, burst_bytes=0) if trickle else None
        self._step = PIECE_BYTES if line is not None or trickle else 2**20
        if trickle:
            self._step = max(1, min(PIECE_BYTES, int(trickle / 10)))
        self._ready_s: float | None = None

    async def write(self, data: bytes) -> None:
        """Send ``data``, or as much of it as the script allows."""
        rest = memoryview(data)
        while rest:
            limit = await self._limit()
            piece = rest[: min(self._step, limit)]
            rest = rest[len(piece) :]
            due_s = await self._wait_for_line(len(piece))
            before_s = self._clock()
            await self._response.write(piece)
            self._ready_s = due_s if self._clock() - before_s < 1e-3 else None  # None: the client was slow
            self._sent += len(piece)
            self._served(len(piece))

    async def _limit(self) -> int:
        """How many bytes may still be sent; at the script's end of this body, end it instead."""
        left = 2**62
        if self._faults.cut is not None:
            left = self._faults.cut - self._sent
            if left <= 0:
                self._cut()
        if self._faults.stall is not None:
            left = min(left, self._faults.stall - self._sent)
            if left <= 0:
                await asyncio.Event().wait()  # until the client goes away, or the gateway
        return left

    async def _wait_for_line(self, size_bytes: int) -> float | None:
        """Wait until a piece has passed the link and the trickle; returns the instant at which it was due."""
        due_s, slow, silent = None, self._faults.slow, self._faults.silent
        if silent is not None and (now_s := self._clock() - self._start_s) in silent:
            await asyncio.sleep(math.inf if silent.stop_s is None else silent.stop_s - now_s)
            self._ready_s = None
        for bucket in (self._line, self._trickle):
            if bucket is not None:
                if bucket is self._line and slow is not None and self._clock() - self._start_s in slow:
                    size_bytes *= SLOW_FACTOR
                due_s = bucket.reserve(size_bytes, self._clock(), ready_s=self._ready_s)
                await asyncio.sleep(max(0.0, due_s - self._clock()))  # 0 lets the others have their turn
        return due_s

    def _cut(self) -> NoReturn:
        """Close the connection after what was sent."""
        if self._request.transport is not None:
            self._request.transport.close()
        raise ConnectionResetError("cut by the script")
