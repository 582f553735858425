"""The server's connections: how long one may be idle, how much it may send, and which one is closed where there are too many."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError

from dnc_async import system

from .slots import peer_of

_log = logging.getLogger(__name__)

_RESET = struct.pack("ii", 1, 0)  # linger for 0 s: closing sends a reset
_CLOSING_S = 5.0  # so much longer the last answer may wait to be read, when aiohttp has closed the connection
_NO_LOG: dict[str, Any] = {"access_log": None}  # aiohttp's own types know no such value
_MOST = 2048
#: Connections that asyncio accepts in one turn of the event loop; they are counted some turns later.
ACCEPTED_AT_ONCE = 32
#: Connections that the system keeps until then; a client that finds no place waits a second before it tries again.
BACKLOG = 1024
_OTHER_FILES = 32  # standard streams, the listening socket, the event loop's own, and blocks that are being read
_UNCOUNTED = 4  # turns of the event loop until an accepted connection is counted, and one that was cut is closed
_LEAST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How many connections there may be, and what each of them may do.

    ``head_s``: until a request's head is whole. ``idle_s``: until the next request begins, and the last answer was read.
    ``head_bytes``, ``queued_bytes``: what a client may send before a request is answered, and while one is.
    """

    most: int
    head_s: float = 20.0
    idle_s: float = 75.0
    head_bytes: int = 2**16
    queued_bytes: int = 2**18


def most_connections() -> int:
    """As many connections as the process may have files open, less the files that it needs besides."""
    files = system.most_files()
    if files is None:
        return _MOST
    return max(_LEAST, min(_MOST, files - _UNCOUNTED * ACCEPTED_AT_ONCE - _OTHER_FILES))


class Connections:
    """All open connections. Where there are too many, the peer with the most loses the one that has been idle the longest."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._all: set[Connection] = set()
        self._idle: dict[str, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: Connection) -> None:
        """Note a new connection, and cut one off if there are too many now."""
        self._all.add(connection)
        self.idle(connection)
        if len(self._all) > self.limits.most:
            most = max(self._idle.values(), key=len)
            next(iter(most)).cut()

    def idle(self, connection: Connection) -> None:
        """Note that a connection has no request now."""
        self._idle.setdefault(connection.peer, {})[connection] = None

    def busy(self, connection: Connection) -> None:
        """Note that a connection has a request."""
        idle = self._idle.get(connection.peer, {})
        idle.pop(connection, None)
        if not idle:
            self._idle.pop(connection.peer, None)

    def remove(self, connection: Connection) -> None:
        """Note that a connection is closed, or about to be."""
        self.busy(connection)
        self._all.discard(connection)

    def cut(self, *, reset: bool = False) -> None:
        """Cut off all of them; with ``reset`` as a crash does."""
        for connection in list(self._all):
            connection.cut(reset=reset)


class Connection(web.RequestHandler):
    """One connection: aiohttp's, with limits."""

    __slots__ = ("_book", "_deadline", "_in_hand", "_received", "_transport", "peer")

    def __init__(self, book: Connections, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, keepalive_timeout=book.limits.idle_s, **_NO_LOG)
        self._book = book
        self._deadline: asyncio.TimerHandle | None = None
        self._received = 0
        self._in_hand = False
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and give it time for its first request."""
        self._transport: asyncio.Transport = cast("asyncio.Transport", transport)
        self.peer = peer_of((transport.get_extra_info("peername") or [""])[0])
        super().connection_made(transport)
        self._wait(self._book.limits.head_s)
        self._book.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._wait(None)
        self._book.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what the client sends, if it is not too much."""
        if not self._received and not self._in_hand:
            self._wait(self._book.limits.head_s)
        self._received += len(data)
        limits = self._book.limits
        if self._received > (limits.queued_bytes if self._in_hand else limits.head_bytes):
            self.cut()
        else:
            super().data_received(data)

    def begin(self) -> None:
        """A request is being answered."""
        self._in_hand = True
        self._received = 0
        self._wait(None)
        self._book.busy(self)

    def end(self) -> None:
        """Its answer was given."""
        self._in_hand = False
        if not self._transport.is_closing():
            self._wait(self._book.limits.idle_s + _CLOSING_S)
            self._book.idle(self)

    def cut(self, *, reset: bool = False) -> None:
        """End the connection at once; with ``reset`` as a crash does."""
        self._book.remove(self)
        if reset:
            with contextlib.suppress(OSError):  # a system that does not support it
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def log_exception(self, *arguments: object, **keywords: object) -> None:
        """A fault of the client's request is one line at most; one of ours has its traceback."""
        error = keywords.get("exc_info")
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            _log.debug("a request from %s cannot be read: %s", self.peer, error)
        elif isinstance(error, asyncio.InvalidStateError):  # aiohttp's own: an answer ended as the server gave it up
            _log.debug("a request from %s was given up: %s", self.peer, error)
        else:
            super().log_exception(*arguments, **keywords)

    def _wait(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self._loop.call_later(seconds, self.cut)
