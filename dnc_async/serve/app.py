"""The gateway as an aiohttp application: one handler, from the request to the streamed body.

The store is read in a small pool of threads, a run of blocks at a time. The next run is read while the current one is being
sent, and not more, so a slow client holds two runs in memory, and a client that went away none.
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
from .content_request import ContentRequest, RefusalError, parse_request
from .hooks import NoHooks, ResponseHooks, Sink
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


def make_app(store: BlockStore, *, max_requests: int = 256, hooks: ResponseHooks | None = None) -> web.Application:
    """Create a web application that serves ``store`` as a trustless gateway.

    More than ``max_requests`` requests at the same time are answered with 429 and Retry-After.
    """
    gateway = _Gateway(store, max_requests=max_requests, hooks=hooks or NoHooks())
    app = web.Application()
    app.cleanup_ctx.append(gateway.pool_context)
    app.router.add_get("/ipfs/{path:.*}", gateway.handle)
    app.router.add_get("/ipns/{path:.*}", _no_names)
    return app


async def _no_names(_: web.Request) -> web.Response:
    return answers.refused(RefusalError(404, "this gateway serves /ipfs/ only; it keeps no IPNS names or records"))


class _Gateway:
    """The state of one application: the store, the reading threads, and the number of requests."""

    def __init__(self, store: BlockStore, *, max_requests: int, hooks: ResponseHooks) -> None:
        self._store = store
        self._max_requests = max_requests
        self._hooks = hooks
        self._in_flight = 0
        self._pool: ThreadPoolExecutor | None = None

    async def pool_context(self, _: web.Application) -> AsyncIterator[None]:
        """Own the reading threads while the application runs."""
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
            early = await self._hooks.admit(request)
            return early if early is not None else await self._answer(request)
        except ConnectionError:
            return web.Response()  # the client went away before the answer began; nobody receives this
        except (RefusalError, NotHereError, DagError, StoreError) as error:
            return answers.refused(_refusal(request, error))
        finally:
            self._in_flight -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        content = self._hooks.revise(parse_request(request.raw_path, request.query, request.headers.get("Accept")))
        seen = etag_matches(request.headers.get("If-None-Match"), answers.etag(content))
        answer = self._raw if content.format == "raw" else self._car
        return await answer(request, content, seen=seen)

    async def _raw(self, request: web.Request, content: ContentRequest, *, seen: bool) -> web.StreamResponse:
        """Answer with one block, or with one range of it."""
        if seen or request.method == "HEAD":
            size_bytes = await self._hop(lambda: self._store.size_bytes(content.root))
            if size_bytes is None:
                raise NotHereError(content.root)
            if seen:
                return answers.not_modified(content)
            return await _send_head(request, answers.headers(content, [content.root]), size_bytes)
        data = await self._hop(lambda: self._store.read(content.root))
        if data is None:
            raise NotHereError(content.root)
        data = self._hooks.block(content.root, data)
        response = web.StreamResponse(headers=answers.headers(content, [content.root]))
        wanted = _wanted_range(request, response.headers["Etag"], len(data))
        if wanted is not None:
            start, stop = wanted
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data = data[start:stop]
        response.content_length = len(data)
        return await self._send(request, response, lambda sink: sink(data))

    async def _car(self, request: web.Request, content: ContentRequest, *, seen: bool) -> web.StreamResponse:
        """Answer with a CAR: the blocks that prove the path, then those of its end, as they are read."""

        def begin() -> tuple[Resolved, Runs, int | None]:
            read, size_of = self._store.read, self._store.size_bytes
            resolved = resolve(read, content.root, content.segments)
            runs = Runs(read, resolved, content)
            measured = self._hooks.keeps_sizes and not seen
            size = car_bytes(read, size_of, resolved, content, most_blocks=_MEASURED_BLOCKS) if measured else None
            return resolved, runs, size

        resolved, runs, size_bytes = await self._hop(begin)
        if seen:
            return answers.not_modified(content)
        headers = answers.headers(content, resolved.roots)
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
        """The run's blocks as CAR sections, after the hooks: small ones joined, large ones as they are."""
        small: list[bytes] = []
        held = 0
        for cid, stored in run:
            data, name = self._hooks.block(cid, stored), cid.encode()
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
        """Send a body; if it cannot be completed, or the client is gone, close the connection instead."""
        await response.prepare(request)
        try:
            await send(self._hooks.sink(request, response))
            await response.write_eof()
        except (NotHereError, StoreError, DagError, ConnectionError):
            _break_off(request)
        return response

    def _hop(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Call ``work`` in a reading thread; if the caller was cancelled, its result is dropped."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)


def _refusal(request: web.Request, error: RefusalError | NotHereError | DagError | StoreError) -> RefusalError:
    """The answer that says why there is no data."""
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
    """The range of a raw block to send; ``None`` for all of it."""
    if request.headers.get("If-Range", etag) != etag:
        return None
    try:
        return byte_range(request.headers.get("Range"), size_bytes)
    except UnsatisfiableError:
        headers = {"Content-Range": f"bytes */{size_bytes}"}
        raise RefusalError(416, f"the block has only {size_bytes} bytes", headers) from None


async def _send_head(request: web.Request, headers: dict[str, str], size_bytes: int | None) -> web.StreamResponse:
    """Answer HEAD as GET, without a body. The size of a large CAR is not known."""
    response = web.StreamResponse(headers=headers)
    response.content_length = size_bytes
    await response.prepare(request)
    await response.write_eof()
    return response


def _break_off(request: web.Request) -> None:
    """Close the connection after what was written, so that the client does not take the body for complete."""
    if request.transport is not None:
        request.transport.close()
