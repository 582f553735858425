"""The HTTP sessions: one for hosts that the user named, and restricted ones for hosts that routers and redirects named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from errno import EACCES
from socket import AddressFamily
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from dnc_async.gateways.connections import BoundedConnector
from dnc_async.gateways.providers import reach
from dnc_async.gateways.redirects import PeerResponse

#: Limits of a response's header. CDNs send fields of tens of kilobytes, and hundreds of them; aiohttp allows 8 KiB and 128.
_HEAD_LIMITS: dict[str, Any] = {"max_line_size": 2**16, "max_field_size": 2**16}
if "max_headers" in inspect.signature(aiohttp.ClientSession).parameters:  # before 3.13.4 there was no limit
    _HEAD_LIMITS["max_headers"] = 512


class Sessions:
    """The sessions of one client. Each is opened when it is first used."""

    def __init__(
        self,
        *,
        requests_per_host: int,
        connect_timeout_s: float,
        stall_timeout_s: float,
        user_agent: str,
        trust_env: bool,
        resolver: Callable[[], AbstractResolver] = aiohttp.DefaultResolver,
    ) -> None:
        """``trust_env`` applies to hosts that the user named; ``resolver`` resolves the names of the others."""
        self._requests_per_host = requests_per_host
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=stall_timeout_s)
        self._user_agent = user_agent
        self._trust_env = trust_env
        self._resolver = resolver
        self._named: aiohttp.ClientSession | None = None
        self._guarded: dict[bool, tuple[aiohttp.ClientSession, AbstractResolver]] = {}

    def named(self) -> aiohttp.ClientSession:
        """The session for hosts that the user named. It may connect to any address."""
        if self._named is None:
            self._named = self._open(trust_env=self._trust_env, resolver=None)
        return self._named

    def guarded(self, *, local: bool) -> aiohttp.ClientSession:
        """The session for hosts that a router or redirect named. Loopback and private addresses only if ``local``."""
        if local not in self._guarded:
            permitted = {"public", "local"} if local else {"public"}
            resolver = GuardedResolver(self._resolver(), lambda address: reach(address) in permitted)
            # A proxy would resolve names out of our sight, and a password in netrc must not be sent to these hosts.
            self._guarded[local] = self._open(trust_env=False, resolver=resolver), resolver
        return self._guarded[local][0]

    async def aclose(self) -> None:
        """Close all sessions."""
        for session, resolver in self._guarded.values():
            await session.close()
            await resolver.close()
        if self._named is not None:
            await self._named.close()

    def _open(self, *, trust_env: bool, resolver: AbstractResolver | None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            read_bufsize=2**20,  # a whole block, so that reading does not pause every 128 KiB
            auto_decompress=False,  # decompression could exceed our size limits
            connector=BoundedConnector(limit=0, limit_per_host=self._requests_per_host, resolver=resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._user_agent},
            trust_env=trust_env,
            timeout=self._timeout,
            response_class=PeerResponse,
            **_HEAD_LIMITS,
        )


class GuardedResolver(AbstractResolver):
    """Resolves host names to permitted addresses only.

    The connection is made to the address that was checked, and the name is not resolved again, which defeats DNS rebinding.
    A URL with a literal address is not resolved at all: it has to be checked where it is parsed.
    """

    def __init__(self, inner: AbstractResolver, permitted: Callable[[str], bool]) -> None:
        """``permitted`` says whether an IP address may be used; ``inner`` resolves names, and is closed with this resolver."""
        self._inner = inner
        self._permitted = permitted

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        """The permitted addresses of a host; raises ``OSError`` if it has none."""
        found = await self._inner.resolve(host, port, family)
        permitted = [each for each in found if self._permitted(each["host"])]
        if not permitted:
            addresses = ", ".join(each["host"] for each in found) or "nothing"
            raise PermissionError(
                EACCES, f"{host} leads to {addresses}: not where a router may send us, nor a redirect"
            )
        return permitted

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()
