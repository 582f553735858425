"""The gateway as an aiohttp application: one handler, from request to streamed body.

The store is read in a small pool of threads, one hop for each run of blocks; the next run is read while the
current one is on its way to the client, and never more than that, so a slow client holds two runs of memory and
a client that went away holds none.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from dnc_async.errors import DagError, StoreError
from dnc_async.ipld import varint
from dnc_async.ipld.car import encode_header

from . import answers
from .accept import UnsatisfiableError, byte_range, etag_matches, only_if_cached
from .ask import Ask, RefusalError, parse_ask
from .delivery import Delivery, Sink, Straight
from .walk import NotHereError, Resolved, Runs, car_bytes, resolve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from dnc_async.store import BlockStore

    from .walk import Run

T = TypeVar("T")

_READERS = 4  # threads that read the store; more do not help, the data is in the page cache or on one disk
_RETRY_AFTER_S = 1
_MEASURED_BLOCKS = 1024  # a few milliseconds
_LARGE_BYTES = 64 * 1024  # from here on, copying a block costs more than one more write


def make_app(store: BlockStore, *, max_requests: int = 256, delivery: Delivery | None = None) -> web.Application:
    """Make a web application that serves ``store`` as a trustless gateway.

    Of the requests in flight at once, those beyond ``max_requests`` are answered 429 with Retry-After.
    """
    gateway = _Gateway(store, max_requests=max_requests, delivery=delivery or Straight())
    app = web.Application()
    app.cleanup_ctx.append(gateway.pool_context)
    app.router.add_get("/ipfs/{path:.*}", gateway.handle)
    app.router.add_get("/ipns/{path:.*}", _no_names)
    return app


async def _no_names(_: web.Request) -> web.Response:
    return answers.refused(RefusalError(404, "this gateway serves /ipfs/ only; it keeps no IPNS names or records"))


class _Gateway:
    """The state of one application: the store, the threads that read it, and the count of requests."""

    def __init__(self, store: BlockStore, *, max_requests: int, delivery: Delivery) -> None:
        self._store = store
        self._max_requests = max_requests
        self._delivery = delivery
        self._in_flight = 0
        self._pool: ThreadPoolExecutor | None = None

    async def pool_context(self, _: web.Application) -> AsyncIterator[None]:
        """Own the reading threads for as long as the application lives."""
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="dnc-serve")
        yield
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request under ``/ipfs/``."""
        if self._in_flight >= self._max_requests:
            headers = {"Retry-After": str(_RETRY_AFTER_S)}
            return answers.refused(RefusalError(429, "too many requests at once", headers))
        self._in_flight += 1
        try:
            early = await self._delivery.admit(request)
            return early if early is not None else await self._answer(request)
        except ConnectionError:
            return web.Response()  # the client went away before the answer began; nobody receives this
        except (RefusalError, NotHereError, DagError, StoreError) as error:
            return answers.refused(_refusal(request, error))
        finally:
            self._in_flight -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        ask = self._delivery.revise(parse_ask(request.raw_path, request.query, request.headers.get("Accept")))
        seen = etag_matches(request.headers.get("If-None-Match"), answers.etag(ask))
        answer = self._raw if ask.format == "raw" else self._car
        return await answer(request, ask, seen=seen)

    async def _raw(self, request: web.Request, ask: Ask, *, seen: bool) -> web.StreamResponse:
        """Answer with one block, or with one range of it."""
        if seen or request.method == "HEAD":
            size_bytes = await self._hop(lambda: self._store.size_bytes(ask.root))
            if size_bytes is None:
                raise NotHereError(ask.root)
            if seen:
                return answers.not_modified(ask)
            return await _send_head(request, answers.headers(ask, [ask.root]), size_bytes)
        data = await self._hop(lambda: self._store.read(ask.root))
        if data is None:
            raise NotHereError(ask.root)
        data = self._delivery.block(ask.root, data)
        response = web.StreamResponse(headers=answers.headers(ask, [ask.root]))
        wanted = _wanted_range(request, response.headers["Etag"], len(data))
        if wanted is not None:
            start, stop = wanted
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data = data[start:stop]
        response.content_length = len(data)
        return await self._send(request, response, lambda sink: sink(data))

    async def _car(self, request: web.Request, ask: Ask, *, seen: bool) -> web.StreamResponse:
        """Answer with a CAR: the blocks that prove the path, then those of its end, as they are read."""

        def begin() -> tuple[Resolved, Runs, int | None]:
            read, size_of = self._store.read, self._store.size_bytes
            resolved = resolve(read, ask.root, ask.segments)
            runs = Runs(read, resolved, ask)
            measured = self._delivery.keeps_sizes and not seen
            size = car_bytes(read, size_of, resolved, ask, most_blocks=_MEASURED_BLOCKS) if measured else None
            return resolved, runs, size

        resolved, runs, size_bytes = await self._hop(begin)
        if seen:
            return answers.not_modified(ask)
        headers = answers.headers(ask, resolved.roots)
        if request.method == "HEAD":
            return await _send_head(request, headers, size_bytes)

        async def send(sink: Sink) -> None:
            await sink(encode_header([resolved.terminus]))
            await self._send_runs(runs, sink)

        response = web.StreamResponse(headers=headers)
        response.content_length = size_bytes  # where it is known, a client sees that a CAR was cut off
        return await self._send(request, response, send)

    async def _send_runs(self, runs: Runs, sink: Sink) -> None:
        """Send one run while the next is read."""
        reading = self._hop(runs.next)
        try:
            while run := await reading:
                reading = self._hop(runs.next)
                for piece in self._pieces(run):
                    await sink(piece)
        finally:
            reading.cancel()

    def _pieces(self, run: Run) -> Iterator[bytes]:
        """Give the run's blocks as CAR sections, passed through the delivery: small ones together, large ones as is."""
        small: list[bytes] = []
        held = 0
        for cid, stored in run:
            data, name = self._delivery.block(cid, stored), cid.encode()
            small += (varint.encode(len(name) + len(data)), name)
            if len(data) < _LARGE_BYTES:
                small.append(data)
                held += len(data)
                if held < _LARGE_BYTES:
                    continue
            yield b"".join(small)
            small.clear()
            held = 0
            if len(data) >= _LARGE_BYTES:
                yield data
        if small:
            yield b"".join(small)

    async def _send(
        self, request: web.Request, response: web.StreamResponse, send: Callable[[Sink], Awaitable[None]]
    ) -> web.StreamResponse:
        """Send a body; if it cannot be completed, or nobody is there any more, end the connection instead."""
        await response.prepare(request)
        try:
            await send(self._delivery.sink(request, response))
            await response.write_eof()
        except (NotHereError, StoreError, DagError, ConnectionError):
            _break_off(request)
        return response

    def _hop(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``work`` in a reading thread; if nobody waits for it any more, its result is dropped."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)


def _refusal(request: web.Request, error: RefusalError | NotHereError | DagError | StoreError) -> RefusalError:
    """Say why there is no data, in the protocol's terms."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, StoreError):
        return RefusalError(500, "the gateway cannot read its store")
    if isinstance(error, DagError):
        return RefusalError(404, f"the path ends at a block that cannot be read: {error}")
    if only_if_cached(request.headers.get("Cache-Control")):
        return RefusalError(412, "not in the store")
    return RefusalError(404, str(error))


def _wanted_range(request: web.Request, etag: str, size_bytes: int) -> tuple[int, int] | None:
    """Give the range of a raw block to send, or None for all of it."""
    if request.headers.get("If-Range", etag) != etag:
        return None
    try:
        return byte_range(request.headers.get("Range"), size_bytes)
    except UnsatisfiableError:
        headers = {"Content-Range": f"bytes */{size_bytes}"}
        raise RefusalError(416, f"the block has only {size_bytes} bytes", headers) from None


async def _send_head(request: web.Request, headers: dict[str, str], size_bytes: int | None) -> web.StreamResponse:
    """Answer HEAD: what GET would say, without a byte of it. The size of a large CAR is not known."""
    response = web.StreamResponse(headers=headers)
    response.content_length = size_bytes
    await response.prepare(request)
    await response.write_eof()
    return response


def _break_off(request: web.Request) -> None:
    """Close the connection after what was written, so that the client sees a broken body and not a complete one."""
    if request.transport is not None:
        request.transport.close()
