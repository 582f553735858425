"""The connections to gateways: aiohttp's, with limits for what a server may send that no body's limit covers.

aiohttp bounds a header's fields, but neither the header as a whole, nor how many interim answers (1xx) come before an answer, nor
what a server sends that nobody asked for; and its read timeout begins anew with each byte. A connection that goes beyond one of
these limits is closed, and its request fails.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

#: CDNs send fields of tens of kilobytes, and hundreds of them, but not megabytes of them.
_MAX_HEAD_BYTES = 2**20
#: A proxy may say 102 or 103 a few times; we never ask for 100.
_MAX_INTERIM = 16
#: An answer that brings less than this per second, over the read timeout, counts as none.
LEAST_BYTES_PER_S = 256


class SlowAnswerError(aiohttp.SocketTimeoutError):
    """Bytes come, but so few that the answer would take for ever. Not raised outside ``gateways``."""


class BoundedConnector(aiohttp.TCPConnector):
    """A connector whose connections are :class:`BoundedConnection`."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - the options of aiohttp's connector
        """Takes the options of :class:`aiohttp.TCPConnector`."""
        super().__init__(**options)
        # The only place where aiohttp can be told which protocol to use.
        self._factory = cast("partial[ResponseHandler]", partial(BoundedConnection, asyncio.get_running_loop()))


class BoundedConnection(ResponseHandler):
    """One connection to a server."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._awaits_answer = self._is_given_up = self._is_paused = False
        self._interim = 0
        self._window_s = 0.0
        self._since: float | None = None
        self._came = 0

    def __repr__(self) -> str:
        state = "given up" if self._is_given_up else "awaits an answer" if self._awaits_answer else "idle"
        return f"<BoundedConnection {state}, {self._came} bytes>"

    def set_response_params(self, *, read_timeout: float | None = None, **parameters: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """Expect the answer to one request."""
        self._awaits_answer, self._interim = True, 0
        self._window_s = read_timeout or 0.0
        self._begin_window()
        super().set_response_params(read_timeout=read_timeout, **parameters)

    def data_received(self, data: bytes) -> None:
        """Pass on what the server sent, unless it is too much, too little or unasked."""
        now = self._loop.time()
        self._since = now if self._since is None else self._since
        self._came += len(data)
        if self._window_s and now - self._since >= self._window_s:
            if self._came < self._window_s * LEAST_BYTES_PER_S:
                said = f"{self._came} bytes came in {now - self._since:.0f} s"
                self._give_up(SlowAnswerError(said))
                return
            self._begin_window()
        interim = self._interim
        super().data_received(data)
        if self._awaits_answer:
            if self._came > _MAX_HEAD_BYTES:
                self._give_up(aiohttp.ClientPayloadError(f"the header has more than {_MAX_HEAD_BYTES} bytes"))
            elif self._interim > interim:
                self.start_timeout()  # aiohttp has taken the interim answer for the end

    def pause_reading(self) -> None:
        """Stop reading for a while."""
        self._is_paused = True
        super().pause_reading()

    def resume_reading(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - differs between versions of aiohttp
        """Read on; a pause of ours is not the server's slowness."""
        if self._is_paused:
            self._is_paused = False
            self._begin_window()
        super().resume_reading(*args, **options)

    def feed_data(self, data: Any, size: int = 0) -> None:  # noqa: ANN401 - aiohttp's own: a parsed header, and its body
        """Take a parsed header: that of the expected answer, or of an interim one, which is dropped."""
        code = data[0].code
        if self._is_given_up:
            return
        if not self._awaits_answer:  # nobody asked for it; what came before is complete, and stays readable
            self._close()
        elif 100 <= code < 200 and code != 101:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                self._give_up(aiohttp.ClientPayloadError(f"more than {_MAX_INTERIM} interim answers came"))
        else:
            self._awaits_answer = False
            super().feed_data(data, size)

    def _begin_window(self) -> None:
        self._since, self._came = None, 0

    def _give_up(self, error: Exception) -> None:
        """Fail the request, and close the connection."""
        payload = self._payload
        self.set_exception(error)
        if payload is not None:
            payload.set_exception(error)
        self._close()

    def _close(self) -> None:
        self._is_given_up = True
        self.force_close()
        if self.transport is not None:
            self.transport.abort()
