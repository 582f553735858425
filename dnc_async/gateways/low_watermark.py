"""Reads a response body from the socket in large pieces instead of packet by packet.

Each packet of a body wakes the event loop, the parser and a task, although a block cannot be used before its last byte. So this
sets the socket's low watermark (``SO_RCVLOWAT``, socket(7)): the loop is not woken before that many bytes have arrived. The
watermark is never larger than the rest of the body, so the body's end wakes the loop; a closed connection always does. The bytes
that wait in the socket can be counted meanwhile (``FIONREAD``).

On Linux only, and only for bodies with a ``Content-Length``.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if sys.platform == "linux":
    import fcntl
    import termios

if TYPE_CHECKING:
    import aiohttp

    from dnc_async.gateways.transport import Arrivals

#: A smaller piece saves too few wakeups for the two system calls; a larger one would not be read in one go.
_SMALLEST_BYTES, _LARGEST_BYTES = 48 * 2**10, 2**18
#: How many bytes TLS may have taken from the socket without passing them on: one record and its framing.
_RECORD_BYTES = 2**14 + 2**11
_COUNT = struct.Struct("i")


class LowWatermark:
    """A context manager around the reading of one body. Lets ``arrivals`` count the bytes that wait in the socket.

    The body has to be read without waiting for anything else: once it has ended, its connection may serve another request.
    """

    def __init__(self, response: aiohttp.ClientResponse, arrivals: Arrivals) -> None:
        self._content = response.content
        self._arrivals = arrivals
        self._size = response.content_length or 0
        self._socket: socket.socket | None = None
        self._margin = self._read = 0
        self._wakes_at = 1
        transport = response.connection.transport if response.connection is not None else None
        if sys.platform == "linux" and transport is not None and self._size > _SMALLEST_BYTES:
            self._socket = transport.get_extra_info("socket")
            self._margin = _RECORD_BYTES if transport.get_extra_info("sslcontext") is not None else 0

    def __repr__(self) -> str:
        return f"<LowWatermark {self._content.total_bytes} of {self._size} bytes, wakes at {self._wakes_at} more>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Reset the watermark: the next bytes on the connection belong to another answer."""
        self._wake_at(1)

    def bytes_read(self, size_bytes: int) -> None:
        """Count bytes that were read, and set the watermark for the next piece."""
        self._read += size_bytes
        if self._socket is None:
            return
        left, piece = self._size - self._content.total_bytes, self._arrivals.piece_bytes()
        if left > piece + piece // 2:
            left = piece
        worth = min(left, _LARGEST_BYTES) - self._margin
        self._wake_at(worth if worth >= _SMALLEST_BYTES else 1)

    def _wake_at(self, size_bytes: int) -> None:
        if self._socket is None or size_bytes == self._wakes_at:
            return
        self._wakes_at = size_bytes
        self._arrivals.unread = self._unread if size_bytes > 1 else None
        with contextlib.suppress(OSError):  # the socket was closed meanwhile
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)

    def _unread(self) -> int:
        came = self._content.total_bytes
        return came - self._read + min(self._waiting(), self._size - came)

    def _waiting(self) -> int:
        """How many bytes wait in the socket."""
        if sys.platform != "linux" or self._socket is None or self._socket.fileno() < 0:
            return 0
        with contextlib.suppress(OSError):
            return int(_COUNT.unpack(fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, bytes(_COUNT.size)))[0])
        return 0
