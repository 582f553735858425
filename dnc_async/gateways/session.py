"""The HTTP sessions: one for hosts that the user named, and guarded ones for hosts that routers and redirects named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from errno import EACCES
from socket import AddressFamily
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from dnc_async.gateways.providers import reach
from dnc_async.gateways.redirects import PeerResponse

#: What an answer's head may have. CDNs send policies of tens of kilobytes, and hundreds of fields; aiohttp takes 8 KiB and 128.
_HEAD_LIMITS: dict[str, Any] = {"max_line_size": 2**16, "max_field_size": 2**16}
if "max_headers" in inspect.signature(aiohttp.ClientSession).parameters:  # before 3.13.4 there was no limit
    _HEAD_LIMITS["max_headers"] = 512


class Sessions:
    """The sessions of one client, each opened when it is first needed."""

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
        """``trust_env`` is for hosts that the user named; ``resolver`` finds the addresses of the others."""
        self._requests_per_host = requests_per_host
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=stall_timeout_s)
        self._user_agent = user_agent
        self._trust_env = trust_env
        self._resolver = resolver
        self._named: aiohttp.ClientSession | None = None
        self._guarded: dict[bool, tuple[aiohttp.ClientSession, AbstractResolver]] = {}

    def named(self) -> aiohttp.ClientSession:
        """For hosts that the user named, wherever they are."""
        if self._named is None:
            self._named = self._open(trust_env=self._trust_env, resolver=None)
        return self._named

    def guarded(self, *, local: bool) -> aiohttp.ClientSession:
        """For hosts that a router or a redirect named; those of this machine and of private networks only where ``local``."""
        if local not in self._guarded:
            permitted = {"public", "local"} if local else {"public"}
            resolver = GuardedResolver(self._resolver(), lambda address: reach(address) in permitted)
            # A proxy would resolve names where we cannot see it, and a password in netrc is not for strangers.
            self._guarded[local] = self._open(trust_env=False, resolver=resolver), resolver
        return self._guarded[local][0]

    async def aclose(self) -> None:
        """Close all of them."""
        for session, resolver in self._guarded.values():
            await session.close()
            await resolver.close()
        if self._named is not None:
            await self._named.close()

    def _open(self, *, trust_env: bool, resolver: AbstractResolver | None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            read_bufsize=2**20,  # a block in one go, instead of stopping the socket every 128 KiB
            auto_decompress=False,  # a body that grows behind our size limit is an attack
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=self._requests_per_host, resolver=resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._user_agent},
            trust_env=trust_env,
            timeout=self._timeout,
            response_class=PeerResponse,
            **_HEAD_LIMITS,
        )


class GuardedResolver(AbstractResolver):
    """Resolves names to permitted addresses only.

    What it says is what is connected to, and nothing else is ever looked up: a name that leads to another address a second
    later (DNS rebinding) gains nothing. A URL that is written with an address does not come here: judge it when it is read.
    """

    def __init__(self, inner: AbstractResolver, permitted: Callable[[str], bool]) -> None:
        """``permitted`` judges an IP address; ``inner`` is closed with this."""
        self._inner = inner
        self._permitted = permitted

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        """The permitted addresses of a host; raises ``OSError`` where there is none."""
        found = await self._inner.resolve(host, port, family)
        permitted = [each for each in found if self._permitted(each["host"])]
        if not permitted:
            addresses = ", ".join(each["host"] for each in found) or "nothing"
            raise PermissionError(
                EACCES, f"{host} leads to {addresses}: not where a router may send us, nor a redirect"
            )
        return permitted

    async def close(self) -> None:
        """Close what it asks."""
        await self._inner.close()
