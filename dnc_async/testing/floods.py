"""Answers that never end: what a hostile server sends beside HTTP's usual ways."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

    from .faults import Faults

_HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(1000)
_FIELD = b"X-Padding: " + b"a" * 1000 + b"\r\n"
#: How much is written at once.
_PIECE_BYTES = 2**16


async def flood(request: web.Request, faults: Faults) -> None:
    """Send what the script says until the client goes away; returns at once if it says nothing of the kind."""
    if faults.interim:
        await _send_for_ever(request, b"", _HINT)
    if faults.unasked:
        await _send_for_ever(request, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", _ANSWER)
    if faults.long_header:
        await _send_for_ever(request, b"HTTP/1.1 200 OK\r\n", _FIELD)


async def _send_for_ever(request: web.Request, first: bytes, then: bytes) -> None:
    transport, piece = request.transport, then * (_PIECE_BYTES // len(then))
    if transport is not None:
        transport.write(first)
    while transport is not None and not transport.is_closing():
        transport.write(piece)
        while not transport.is_closing() and transport.get_write_buffer_size() > _PIECE_BYTES:  # noqa: ASYNC110 - no event says it
            await asyncio.sleep(0.001)  # the protocol's own flow control belongs to the server
        await asyncio.sleep(0)
    raise ConnectionResetError("the client has gone away")
