"""Follows the redirects of a static host, a few of them, as far as they are safe.

Not from HTTPS to HTTP; not from the public internet to a private or loopback address (judged by the address of the connection,
not by the name); and our credentials for one host are not sent to another. A trustless gateway's redirects are not followed
at all: they mean that it does not have the block.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from typing import Protocol

import aiohttp
from aiohttp.client_reqrep import ClientResponse
from aiohttp.connector import Connection
from yarl import URL

from dnc_async.gateways.providers import is_local_url, reach
from dnc_async.gateways.urls import without_secrets

STATUSES = frozenset({301, 302, 303, 307, 308})
MAX_HOPS = 5


class RedirectSessions(Protocol):
    """Returns the HTTP session for hosts that a redirect names."""

    def __call__(self, *, local: bool) -> aiohttp.ClientSession:
        """With ``local``, the session may also connect to private and loopback addresses."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where to send a request: a URL, the session to use, and our headers. ``local``: no redirect on the way was public."""

    url: URL
    session: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    server_name: str | None = None
    local: bool = True

    def at(self, url: URL) -> Endpoint:
        """The same host's endpoint with another URL."""
        return Endpoint(
            url=url, session=self.session, headers=self.headers, server_name=self.server_name, local=self.local
        )


class PeerResponse(ClientResponse):
    """A response that remembers the IP address of its server."""

    peer: str | None = None

    async def start(self, connection: Connection) -> ClientResponse:
        """Note the address, and read the header."""
        address = connection.transport.get_extra_info("peername") if connection.transport is not None else None
        self.peer = address[0] if isinstance(address, tuple) else None
        return await super().start(connection)


class RedirectError(Exception):
    """A redirect is not followed; the message says why. Not raised outside ``gateways``."""


def follow(endpoint: Endpoint, response: ClientResponse, redirect_sessions: RedirectSessions) -> Endpoint:
    """The endpoint to which an answer redirects; raises :class:`RedirectError` if it must not be followed."""
    here, target = response.url, _target(response)
    if here.scheme == "https" and target.scheme == "http":
        raise RedirectError(f"redirects from HTTPS to {_shown(target)}, which is not followed")
    if _is_same_host(here, target):
        return replace(endpoint, url=target, local=endpoint.local and _is_local(endpoint, response))
    local = endpoint.local and _is_local(endpoint, response)
    if _is_address(target) and reach(target.host or "") not in ({"public", "local"} if local else {"public"}):
        raise RedirectError(f"redirects to {_shown(target)}: not where the public internet may send us")
    return Endpoint(url=target, session=redirect_sessions(local=local), local=local)


def _target(response: ClientResponse) -> URL:
    location = response.headers.get("Location", "")
    try:
        written = URL(location, encoded="%" in location and location.isascii())
        target = response.url.join(written).with_fragment(None)
        found = target.scheme in ("http", "https") and bool(target.host) and bool(location)
        # We do not use credentials that a host writes into a redirect.
        target = target.with_user(None) if found and target.raw_user is not None else target
    except ValueError:
        found = False
    if not found:
        raise RedirectError(f"redirects to {location[:200]!r}, which is nowhere")
    return target


def _is_same_host(here: URL, target: URL) -> bool:
    """Whether our credentials for ``here`` may be sent to ``target``: the same host and port, or HTTPS instead of HTTP."""
    ports = (here.scheme, here.port), (target.scheme, target.port)
    return here.host == target.host and (ports[0] == ports[1] or ports == (("http", 80), ("https", 443)))


def _is_local(endpoint: Endpoint, response: ClientResponse) -> bool:
    """Whether the answer came from a loopback or private address. Behind a proxy, only a literal address in the URL tells."""
    peer = getattr(response, "peer", None)
    if endpoint.session.trust_env or peer is None:
        return is_local_url(str(response.url))
    return reach(peer) == "local"


def _is_address(url: URL) -> bool:
    try:
        ipaddress.ip_address(url.host or "")
    except ValueError:
        return False  # a name: GuardedResolver checks its address
    return True


def _shown(url: URL) -> str:
    return without_secrets(str(url))
