"""The gateway as an aiohttp application: one handler, from the request to the streamed body.

What a client asks for is done in steps, in a small pool of threads where whoever has used least has the next turn
(:mod:`.turns`). The next blocks are read while the current ones are being sent, and not more; what a client does not read is
not held in memory (:mod:`.sending`), and a client that went away has no more turns.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from aiohttp import web

from dnc_async.errors import DagError, StoreError
from dnc_async.ipld.car import encode_header

from . import answers
from .accept import UnsatisfiableError, byte_range, etag_matches, only_if_cached
from .content_request import ContentRequest, RefusalError, parse_request
from .hooks import NoHooks, ResponseHooks
from .memory import HeldMemory
from .open_blocks import OpenBlocks
from .outlet import Outlet
from .resolving import resolve
from .sending import Sender
from .sent_blocks import SharedMemory
from .slots import Answer, Slots, peer_of
from .steps import RUN_BYTES, TURN_STEPS, HeldBlock, NotHereError, Steps, Turn, take_turn
from .turns import ReadingTurns
from .walk import CarWalk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from dnc_async.ipld.cid import Cid
    from dnc_async.store import BlockStore

T = TypeVar("T")

_RETRY_AFTER_S = 1
_MEASURED_BLOCKS = 1024  # a few milliseconds
_MEASURED_STEPS = 16384
_HELD_BYTES = 32 * 2**20  # what all answers may hold before they hold as little as they can
_FIRST_STEPS = 256  # enough for an ordinary request; further turns are longer
_LONG_STEPS = 16 * TURN_STEPS  # who has used so many has no less right to a turn than who has used more
_BLOCK_SHARE = 4  # one slot of so many is kept for single blocks, which cost little
HELD_MEMORY = web.AppKey("HELD_MEMORY", HeldMemory)
"""What an application's answers hold of blocks, for those who want to see it."""
PATIENCE_S = 30.0
"""How many seconds a client may take to read a piece of 128 KiB before it is cut off."""


def make_app(
    store: BlockStore, *, max_requests: int = 256, hooks: ResponseHooks | None = None, patience_s: float = PATIENCE_S
) -> web.Application:
    """Create a web application that serves ``store`` as a trustless gateway.

    More than ``max_requests`` requests at the same time are answered with 429 and Retry-After, unless one of those before is to a
    client that does not read, or to one that has more than its share. A client that does not read for ``patience_s`` is cut off.
    """
    gateway = _Gateway(store, max_requests=max_requests, hooks=hooks or NoHooks(), patience_s=patience_s)
    app = web.Application()
    app[HELD_MEMORY] = gateway.memory
    app.cleanup_ctx.append(gateway.threads_context)
    app.router.add_get(r"/ipfs/{path:[\s\S]*}", gateway.handle)  # a name may have any character in it
    app.router.add_get(r"/ipns/{path:[\s\S]*}", _no_names)
    return app


async def _no_names(_: web.Request) -> web.Response:
    return answers.refused(RefusalError(404, "this gateway serves /ipfs/ only; it keeps no IPNS names or records"))


class _Gateway:
    """The state of one application: the store, the reading threads, the slots, and the memory that is held."""

    def __init__(self, store: BlockStore, *, max_requests: int, hooks: ResponseHooks, patience_s: float) -> None:
        self._store = store
        self._hooks = hooks
        self._patience_s = patience_s
        self._slots = Slots(max_requests)
        self._car_slots = Slots(max_requests - max_requests // _BLOCK_SHARE)
        self._most_measured = max_requests // 2
        self.memory = HeldMemory(_HELD_BYTES)
        self._sent_blocks = SharedMemory()
        self._turns: ReadingTurns | None = None

    async def threads_context(self, _: web.Application) -> AsyncIterator[None]:
        """Own the reading threads while the application runs."""
        self._turns = ReadingTurns()
        yield
        self._turns.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request under ``/ipfs/``."""
        account = self.memory.account()
        answer = Answer(peer_of(request.remote), partial(_cut, request), account)
        try:
            if not self._slots.admit(answer):
                raise _too_many()
            early = await self._hooks.admit(request)
            return early if early is not None else await self._answer(request, answer)
        except ConnectionError:
            return web.Response()  # the client went away before the answer began; nobody receives this
        except (RefusalError, NotHereError, DagError, StoreError) as error:
            return answers.refused(_refusal(request, error))
        finally:
            self._slots.leave(answer)
            self._car_slots.leave(answer)
            account.close()

    async def _answer(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        content = self._hooks.revise(parse_request(request.raw_path, request.query, request.headers.get("Accept")))
        seen = etag_matches(request.headers.get("If-None-Match"), answers.etag(content))
        send = self._raw if content.format == "raw" else self._car
        return await send(request, content, answer, seen=seen)

    async def _raw(
        self, request: web.Request, content: ContentRequest, answer: Answer, *, seen: bool
    ) -> web.StreamResponse:
        """Answer with one block, or with one range of it."""
        cid = content.root
        if seen or request.method == "HEAD":
            size_bytes = await self._threads.take(0, lambda: self._store.size_bytes(cid))
            if size_bytes is None:
                raise NotHereError(cid)
            if seen:
                return answers.not_modified(content)
            return await _send_head(request, answers.headers(content, [cid]), size_bytes)
        block = HeldBlock(cid, await self._read(cid))
        block.change(self._hooks)
        start, stop = 0, block.held_bytes
        response = Outlet(answers.headers(content, [cid]), patience_s=self._patience_s)
        wanted = _wanted_range(request, response.headers["Etag"], stop)
        if wanted is not None:
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {wanted[0]}-{wanted[1] - 1}/{stop}"
            start, stop = wanted
        response.content_length = stop - start
        blocks = OpenBlocks(self._store.read)
        return await self._send(request, response, answer, blocks, lambda sender: sender.send_block(block, start, stop))

    async def _car(
        self, request: web.Request, content: ContentRequest, answer: Answer, *, seen: bool
    ) -> web.StreamResponse:
        """Answer with a CAR: the blocks that prove the path, then those of its end, as they are read."""
        if not self._car_slots.admit(answer):
            raise _too_many()
        blocks = OpenBlocks(self._store.read)
        resolved = await self._work(answer, resolve(blocks, content.root, content.segments))
        with closing(CarWalk(blocks, resolved, content, self._sent_blocks)) as walk:
            size_bytes = await self._work(answer, self._begin(walk, measured=not seen))
            if seen:
                return answers.not_modified(content)
            headers = answers.headers(content, resolved.roots)
            if request.method == "HEAD":
                return await _send_head(request, headers, size_bytes)
            take_turn = partial(self._turn, answer, walk.blocks())
            first = await take_turn()

            async def send(sender: Sender) -> None:
                await sender.send_header(encode_header([resolved.terminus]))
                await sender.send_car(first, take_turn)

            response = Outlet(headers, patience_s=self._patience_s)
            response.content_length = size_bytes  # where it is known, a client sees that a CAR was cut off
            return await self._send(request, response, answer, blocks, send)

    def _begin(self, walk: CarWalk, *, measured: bool) -> Steps[int | None]:
        """Check what was requested, and measure the answer, if there is time, and it has the size that it has in the store."""
        yield from walk.begin()
        if not measured or not self._hooks.keeps_sizes or len(self._slots) > self._most_measured:
            return None
        return (
            yield from walk.measure(self._store.size_bytes, most_blocks=_MEASURED_BLOCKS, most_steps=_MEASURED_STEPS)
        )

    async def _send(
        self,
        request: web.Request,
        response: Outlet,
        answer: Answer,
        blocks: OpenBlocks,
        send: Callable[[Sender], Awaitable[None]],
    ) -> web.StreamResponse:
        """Send a body; if it cannot be completed, or the client is gone, close the connection instead."""
        await response.prepare(request)
        answer.waiting_s = lambda: response.waiting_s
        sink = self._hooks.sink(request, response)
        with closing(response):
            try:
                await send(Sender(response, sink, self._hooks, answer.account, self._read, blocks))
                await response.write_eof()
            except (NotHereError, StoreError, DagError, ConnectionError):
                _break_off(request)
        return response

    async def _work(self, answer: Answer, work: Steps[T]) -> T:
        """Do work without blocks to send, in turns; gives its result."""
        while not (turn := await self._turn(answer, work)).done:
            pass
        if turn.error is not None:
            raise turn.error
        return cast("T", turn.result)

    async def _turn(self, answer: Answer, work: Steps[T]) -> Turn[T]:
        """Take one turn of a client's work; where memory is scarce, with one block at most."""
        most_steps = max(_FIRST_STEPS, min(answer.used, TURN_STEPS))

        def take() -> Turn[T]:
            return take_turn(work, most_steps=most_steps, most_bytes=1 if self.memory.is_scarce else RUN_BYTES)

        turn = await self._threads.take(min(answer.used, _LONG_STEPS), take)
        answer.used += turn.steps
        answer.account.add(sum(block.held_bytes for block in turn.blocks))
        return turn

    async def _read(self, cid: Cid) -> bytes:
        data = await self._threads.take(0, lambda: self._store.read(cid))
        if data is None:
            raise NotHereError(cid)
        return data

    @property
    def _threads(self) -> ReadingTurns:
        assert self._turns is not None  # noqa: S101 - for the type checker: nobody asks before the application has started
        return self._turns


def _too_many() -> RefusalError:
    return RefusalError(429, "too many requests at once", {"Retry-After": str(_RETRY_AFTER_S)})


def _cut(request: web.Request) -> None:
    """Cut a client off at once, whatever it has not read yet."""
    if request.transport is not None:
        request.transport.abort()


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
