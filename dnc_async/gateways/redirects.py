"""Where a static host may send us: a few redirects, to no worse a place than where they came from.

Never from HTTPS to HTTP, never from the public internet into a private network or this machine (by the addresses that are
connected to, not by names), and what authorizes us at one host goes to no other. A trustless gateway's redirects are not
followed at all: there they mean that it does not have the block.
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


class Elsewhere(Protocol):
    """Gives the session for hosts that strangers named."""

    def __call__(self, *, local: bool) -> aiohttp.ClientSession:
        """With ``local`` it also connects to private networks and this machine."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to ask: a URL, by which session, with which headers of ours. ``local``: no hop on the way was public."""

    url: URL
    session: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    server_name: str | None = None
    local: bool = True


class PeerResponse(ClientResponse):
    """A response that remembers the IP address from which it came."""

    peer: str | None = None

    async def start(self, connection: Connection) -> ClientResponse:
        """Read the head."""
        address = connection.transport.get_extra_info("peername") if connection.transport is not None else None
        self.peer = address[0] if isinstance(address, tuple) else None
        return await super().start(connection)


class RedirectError(Exception):
    """A redirect that is not followed, and why. Never leaves ``gateways``."""


def follow(place: Place, response: ClientResponse, elsewhere: Elsewhere) -> Place:
    """Where an answer sends us; raises :class:`RedirectError`."""
    here, target = response.url, _target(response)
    if here.scheme == "https" and target.scheme == "http":
        raise RedirectError(f"redirects from HTTPS to {_shown(target)}, which is not followed")
    if _is_same_host(here, target):
        return replace(place, url=target, local=place.local and _is_local(place, response))
    local = place.local and _is_local(place, response)
    if _is_address(target) and reach(target.host or "") not in ({"public", "local"} if local else {"public"}):
        raise RedirectError(f"redirects to {_shown(target)}: not where the public internet may send us")
    return Place(url=target, session=elsewhere(local=local), local=local)


def _target(response: ClientResponse) -> URL:
    location = response.headers.get("Location", "")
    try:
        written = URL(location, encoded="%" in location and location.isascii())
        target = response.url.join(written).with_fragment(None)
        found = target.scheme in ("http", "https") and bool(target.host) and bool(location)
        # Credentials that a stranger writes into it are of no use to us.
        target = target.with_user(None) if found and target.raw_user is not None else target
    except ValueError:
        found = False
    if not found:
        raise RedirectError(f"redirects to {location[:200]!r}, which is nowhere")
    return target


def _is_same_host(here: URL, target: URL) -> bool:
    """Whether what may be told to one may be told to the other: the same host, or its HTTPS in the place of its HTTP."""
    ports = (here.scheme, here.port), (target.scheme, target.port)
    return here.host == target.host and (ports[0] == ports[1] or ports == (("http", 80), ("https", 443)))


def _is_local(place: Place, response: ClientResponse) -> bool:
    """Whether the answer came from this machine or a private network. Behind a proxy only a number in the URL tells."""
    peer = getattr(response, "peer", None)
    if place.session.trust_env or peer is None:
        return is_local_url(str(response.url))
    return reach(peer) == "local"


def _is_address(url: URL) -> bool:
    try:
        ipaddress.ip_address(url.host or "")
    except ValueError:
        return False  # a name: its resolver looks where it leads
    return True


def _shown(url: URL) -> str:
    return without_secrets(str(url))
