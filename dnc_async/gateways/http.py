"""The HTTP client for one trustless gateway (ipfs/specs ``trustless-gateway.md``).

Bodies are read up to a limit, a response's status and type are checked before its body is read, and a gateway's redirects are
not followed. There is no total timeout: a request fails when no byte arrives for a while.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from dnc_async.errors import (
    GatewayBusyError,
    GatewayError,
    GatewayMissError,
    GatewayNoCarError,
    GatewayOversizeError,
    GatewayRefusedError,
    GatewayTimeoutError,
)
from dnc_async.gateways import redirects
from dnc_async.gateways.connections import SlowAnswerError
from dnc_async.gateways.low_watermark import LowWatermark
from dnc_async.gateways.redirects import Endpoint, RedirectSessions
from dnc_async.gateways.transport import Arrivals, CarRequest
from dnc_async.gateways.urls import take_credentials, without_secrets
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Pieces
from dnc_async.ipld.cid import Cid

RAW_TYPE = "application/vnd.ipld.raw"
CAR_TYPE = "application/vnd.ipld.car"
#: The same parameters as in the URL: gateways differ in which of the two they read.
CAR_ACCEPT = f"{CAR_TYPE}; version=1; order=dfs; dups=y"
#: 200, and the statuses of gateways that do not know CARs, or one of the parameters.
_CAR_ANSWERS = {200, 400, 405, 406, 415, 501}
_MISSES = {301, 302, 303, 307, 308, 403, 404}
_BUSY = {429, 502, 503, 504}
#: Whether a gateway holds a root, by the status of its answer to HEAD with ``only-if-cached``.
_HOLDS = {200: True, 412: False}
#: The standard allows whole seconds only; some servers send a fraction.
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")
_LONGEST_PAUSE_S = 1e9
#: Smaller pieces of a body are joined, to pieces of this size.
_SMALL_BYTES, _JOINED_BYTES = 2**12, 2**16
_NOT_FOUND = b"ipld: could not find node"  # boxo says 500 with this text where it means 404


class HttpSource:
    """Sends GET requests to one host. Every failure is raised as a :class:`~dnc_async.errors.GatewayError` of that host.

    Redirects are followed only with ``redirect_sessions``, which returns the sessions for the hosts that they name.
    """

    def __init__(
        self,
        url: str,
        *,
        session: aiohttp.ClientSession,
        headers: Mapping[str, str],
        server_name: str | None = None,
        redirect_sessions: RedirectSessions | None = None,
    ) -> None:
        """``server_name``: the name in the certificate and the ``Host`` header, if it is not the URL's host."""
        plain, credentials = take_credentials(url)
        self._url = _encoded(plain)
        own = credentials | dict(headers)
        if server_name is not None:
            port = URL(url).explicit_port
            own["Host"] = server_name if port is None else f"{server_name}:{port}"
        self._redirect_sessions = redirect_sessions
        self._base = Endpoint(url=URL(), session=session, headers=own, server_name=server_name)
        self._moved: Endpoint | None = None
        self.name = without_secrets(url)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @asynccontextmanager
    async def get(
        self,
        target: str,
        headers: Mapping[str, str],
        asked: str,
        *,
        expected: Container[int],
        method: str = "GET",
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Request ``target`` below the URL, and check the status. The body is still to be read."""
        try:
            remembered, hops = self._moved, 0
            endpoint = remembered or self._endpoint(target)
            while True:
                async with endpoint.session.request(
                    method,
                    endpoint.url,
                    headers={**endpoint.headers, **headers, "Accept-Encoding": "identity"},
                    allow_redirects=False,
                    server_hostname=endpoint.server_name,
                ) as response:
                    if self._redirect_sessions is not None and response.status in redirects.STATUSES:
                        hops += 1
                        endpoint = self._next(endpoint, response, hops, asked)
                        continue
                    if endpoint is remembered and response.status not in expected:
                        self._moved = remembered = None  # a signed URL expires
                        endpoint = self._endpoint(target)
                        continue
                    await self._check(response, asked, expected)
                    self._moved = endpoint if hops or endpoint is remembered else None
                    yield response
                    return
        except TimeoutError as error:
            self._moved = None
            said = str(error) if isinstance(error, SlowAnswerError) else "no answer within the limit"
            raise GatewayTimeoutError(said, gateway=self.name, cid=asked) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._moved = None
            raise self.error(f"the connection failed: {_reason(error)}", asked) from error

    def _endpoint(self, target: str) -> Endpoint:
        return self._base.at(URL(self._url + target, encoded=True))

    def _next(self, endpoint: Endpoint, response: aiohttp.ClientResponse, hops: int, asked: str) -> Endpoint:
        """The endpoint of a redirect; raises :class:`~dnc_async.errors.GatewayError` if it is not followed."""
        if self._redirect_sessions is None or hops > redirects.MAX_HOPS:
            raise GatewayRefusedError(f"redirects more than {redirects.MAX_HOPS} times", gateway=self.name, cid=asked)
        try:
            return redirects.follow(endpoint, response, self._redirect_sessions)
        except redirects.RedirectError as error:
            raise GatewayRefusedError(str(error), gateway=self.name, cid=asked) from error

    def forget_redirects(self) -> None:
        """Send the next request to the URL itself, not to where it redirected."""
        self._moved = None

    async def body(
        self,
        response: aiohttp.ClientResponse,
        limit_bytes: int,
        asked: str,
        arrivals: Arrivals | None = None,
    ) -> bytes:
        """Read the whole body, unverified, of at most ``limit_bytes``."""
        return b"".join(await self.pieces(response, limit_bytes, asked, arrivals or Arrivals()))

    async def pieces(
        self, response: aiohttp.ClientResponse, limit_bytes: int, asked: str, arrivals: Arrivals
    ) -> Pieces:
        """As :meth:`body`, in the pieces in which it arrived, of which none but the last is small."""
        if response.content_length is not None and response.content_length > limit_bytes:
            raise self.oversize(f"announced {response.content_length} bytes", limit_bytes, asked)
        parts, small, size = list[bytes](), bytearray(), 0
        with LowWatermark(response, arrivals) as watermark:
            while piece := await _next_piece(response):
                size += len(piece)
                arrivals.read(len(piece))
                self._check_size(size, limit_bytes, asked)
                watermark.bytes_read(len(piece))
                if len(piece) < _SMALL_BYTES and len(small) < _JOINED_BYTES:
                    small += piece  # a million objects of a byte each would take far more memory
                    continue
                if small:
                    parts.append(bytes(small))
                    small.clear()
                parts.append(piece)
        return (*parts, bytes(small)) if small or not parts else tuple(parts)

    async def stream(
        self,
        response: aiohttp.ClientResponse,
        limit_bytes: int,
        asked: str,
        arrivals: Arrivals,
        feed: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        """Call ``feed`` with each piece of the body, unverified, until the body ends or ``feed`` returns ``False``."""
        size = 0
        while piece := await _next_piece(response):
            size += len(piece)
            arrivals.read(len(piece))
            self._check_size(size, limit_bytes, asked)
            if not await feed(piece):
                return

    def _check_size(self, size_bytes: int, limit_bytes: int, asked: str) -> None:
        if size_bytes > limit_bytes:
            raise self.oversize(f"sent {size_bytes} bytes and more", limit_bytes, asked)

    def error(self, message: str, asked: str) -> GatewayError:
        """An error that names this host."""
        return GatewayError(message, gateway=self.name, cid=asked)

    async def _check(self, response: aiohttp.ClientResponse, asked: str, expected: Container[int]) -> None:
        status = response.status
        if status in expected:
            encoding = response.headers.get("Content-Encoding", "").strip()
            if encoding.lower() not in ("", "identity"):
                raise self.error(f"sent a Content-Encoding ({encoding}), unasked", asked)
            return
        said = f"answered {status} {response.reason or ''}".rstrip()
        if status in _MISSES or (status == 500 and (await response.content.read(64)).startswith(_NOT_FOUND)):
            raise GatewayMissError(said, gateway=self.name, cid=asked)
        if status in (410, 451):
            raise GatewayRefusedError(said, gateway=self.name, cid=asked)
        if status in _BUSY:
            pause = retry_after(response.headers.get("Retry-After"), time.time())
            if pause is not None:
                said += f", and asked us to come back in {pause:.0f} s"
            raise GatewayBusyError(said, gateway=self.name, cid=asked, retry_after_s=pause)
        raise self.error(said, asked)

    def oversize(self, did: str, limit_bytes: int, asked: str) -> GatewayError:
        """The error of a host that sends more than the limit."""
        return GatewayOversizeError(f"{did}, over the limit of {limit_bytes}", gateway=self.name, cid=asked)


def _reason(error: Exception) -> str:
    """What an error says, without the URL that aiohttp adds: it may be signed, by this host or one that it redirects to."""
    if isinstance(error, aiohttp.InvalidURL):
        return "its URL is not valid"
    said = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return said or type(error).__name__


def _encoded(url: str) -> str:
    """A URL as it is sent, so that it is analysed once: what is added to it is encoded already."""
    try:
        return str(URL(url, encoded="%" in url))
    except ValueError:  # the request fails, and says so
        return url


async def _next_piece(response: aiohttp.ClientResponse) -> bytes:
    """The next piece of a body as it arrived, without joining it to those behind it; empty at the end."""
    piece = b""
    ended_chunk = True
    while not piece and ended_chunk:
        piece, ended_chunk = await response.content.readchunk()
    return piece


class HttpTransport:
    """A trustless gateway over HTTP/1.1."""

    def __init__(
        self, url: str, *, session: aiohttp.ClientSession, headers: Mapping[str, str], server_name: str | None = None
    ) -> None:
        """``server_name``: see :class:`HttpSource`."""
        self._source = HttpSource(url, session=session, headers=headers, server_name=server_name)
        self.name = self._source.name

    def __repr__(self) -> str:
        return f"<HttpTransport {self.name}>"

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> Pieces:
        """Fetch one block, unverified, of at most ``limit_bytes``."""
        source, asked = self._source, str(cid)
        async with source.get(f"/ipfs/{cid}?format=raw", {"Accept": RAW_TYPE}, asked, expected=(200,)) as response:
            if response.content_type != RAW_TYPE:
                raise source.error(f"answered with {response.content_type}, expected {RAW_TYPE}", asked)
            arrivals.begin()
            return await source.pieces(response, limit_bytes, asked, arrivals)

    has_cars = True
    is_complete = False

    async def car(
        self,
        request: CarRequest,
        *,
        limit_bytes: int,
        arrivals: Arrivals,
        feed: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        """Fetch a CAR, unverified, of at most ``limit_bytes``: call ``feed`` with each piece, until it returns ``False``."""
        source, asked = self._source, request.asked
        async with source.get(request.target, {"Accept": CAR_ACCEPT}, asked, expected=_CAR_ANSWERS) as response:
            if response.status != 200 or response.content_type != CAR_TYPE:
                said = f"{response.status} {response.content_type}"
                raise GatewayNoCarError(f"answered {said}, expected {CAR_TYPE}", gateway=self.name, cid=asked)
            arrivals.begin()
            await source.stream(response, limit_bytes, asked, arrivals, feed)

    async def holds(self, root: Cid) -> bool | None:
        """Whether the gateway holds a root itself, without having to look for it elsewhere; ``None`` if it does not say."""
        headers = {"Accept": RAW_TYPE, "Cache-Control": "only-if-cached"}
        target = f"/ipfs/{root}?format=raw"
        async with self._source.get(target, headers, str(root), expected=_HOLDS, method="HEAD") as response:
            return _HOLDS[response.status]

    async def sends_cars(self, root: Cid) -> bool:
        """Whether the gateway answers a request for a CAR of the root block with a CAR. The CAR is read and dropped."""
        source, asked = self._source, str(root)
        target = f"/ipfs/{root}?format=car&dag-scope=block"
        async with source.get(target, {"Accept": CAR_ACCEPT}, asked, expected=_CAR_ANSWERS) as response:
            await source.body(response, MAX_BLOCK_BYTES, asked)
            return response.status == 200 and response.content_type == CAR_TYPE


def retry_after(value: str | None, now: float) -> float | None:
    """The seconds to wait by a ``Retry-After`` header, in either of its forms; ``now`` is seconds since the epoch."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return min(float(value), _LONGEST_PAUSE_S)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):  # a year or a zone of thirty digits
        return None
