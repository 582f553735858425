"""One gateway's HTTP: the trustless gateway specification as a client speaks it (ipfs/specs ``trustless-gateway.md``).

Every size is bounded before it is read, every answer's status and type are checked before its body, redirects are not
followed, and there is no total timeout: a request fails when no byte came for a while.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp

from dnc_async.errors import (
    GatewayBusyError,
    GatewayError,
    GatewayMissError,
    GatewayOversizeError,
    GatewayRefusedError,
    GatewayTimeoutError,
)
from dnc_async.ipld.cid import Cid

RAW_TYPE = "application/vnd.ipld.raw"
_MISSES = {301, 302, 303, 307, 308, 403, 404}
_BUSY = {429, 502, 503, 504}
_NOT_FOUND = b"ipld: could not find node"  # boxo says 500 with this text where it means 404


class HttpTransport:
    """A gateway over HTTP/1.1 on a session that its owner closes."""

    def __init__(self, url: str, *, session: aiohttp.ClientSession, headers: Mapping[str, str]) -> None:
        self._url = url
        self._session = session
        self._headers = dict(headers)
        self.name = _without_secrets(url)

    def __repr__(self) -> str:
        return f"<HttpTransport {self.name}>"

    async def raw(self, cid: Cid, *, limit_bytes: int, first_byte: Callable[[], None]) -> bytes:
        """One block, unverified, of at most ``limit_bytes``."""
        async with self._request(f"/ipfs/{cid}?format=raw", RAW_TYPE, str(cid)) as response:
            first_byte()
            if response.content_length is not None and response.content_length > limit_bytes:
                raise self._oversize(f"announced {response.content_length} bytes", limit_bytes, cid)
            parts, size = [], 0
            async for part in response.content.iter_any():
                size += len(part)
                if size > limit_bytes:
                    raise self._oversize(f"sent {size} bytes and more", limit_bytes, cid)
                parts.append(part)
            return b"".join(parts)

    @asynccontextmanager
    async def _request(self, target: str, accept: str, asked: str) -> AsyncGenerator[aiohttp.ClientResponse]:
        headers = {**self._headers, "Accept": accept, "Accept-Encoding": "identity"}
        try:
            async with self._session.get(self._url + target, headers=headers, allow_redirects=False) as response:
                await self._check(response, accept, asked)
                yield response
        except TimeoutError as error:
            raise GatewayTimeoutError("no answer within the limit", gateway=self.name, cid=asked) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise self._error(f"the connection failed: {reason}", asked) from error

    async def _check(self, response: aiohttp.ClientResponse, expected: str, asked: str) -> None:
        status = response.status
        if status == 200:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise self._error(f"sent a Content-Encoding ({response.headers['Content-Encoding']}), unasked", asked)
            if response.content_type != expected:
                raise self._error(f"answered with {response.content_type}, expected {expected}", asked)
            return
        said = f"answered {status} {response.reason or ''}".rstrip()
        if status in _MISSES or (status == 500 and (await response.content.read(64)).startswith(_NOT_FOUND)):
            raise GatewayMissError(said, gateway=self.name, cid=asked)
        if status in (410, 451):
            raise GatewayRefusedError(said, gateway=self.name, cid=asked)
        if status in _BUSY:
            pause = retry_after(response.headers.get("Retry-After"), time.time())
            raise GatewayBusyError(said, gateway=self.name, cid=asked, retry_after_s=pause)
        raise self._error(said, asked)

    def _oversize(self, did: str, limit_bytes: int, cid: Cid) -> GatewayError:
        return GatewayOversizeError(f"{did}, over the limit of {limit_bytes}", gateway=self.name, cid=str(cid))

    def _error(self, message: str, asked: str) -> GatewayError:
        return GatewayError(message, gateway=self.name, cid=asked)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a ``Retry-After`` header in either form; ``now`` is seconds since the epoch."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None


def _without_secrets(url: str) -> str:
    scheme, _, rest = url.partition("://")
    userinfo, at, host = rest.partition("@")
    return f"{scheme}://***@{host}" if at and "/" not in userinfo else url
