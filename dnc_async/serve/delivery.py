"""The way of the bodies: the one seam between what the gateway answers and what the client receives.

The gateway decides what to send; a :class:`Delivery` may refuse, change, shape or break it. The default,
:class:`Straight`, does nothing and costs nothing. The scripted gateways of ``dnc_async.testing`` are the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aiohttp import web

    from dnc_async.ipld.cid import Cid

    from .ask import Ask

Sink = Callable[[bytes], Awaitable[None]]
"""Takes the next bytes of one body; returns when the client's connection can take more (backpressure)."""


class Delivery(Protocol):
    """What happens to requests and bodies. One object serves all requests of a gateway, in its event loop."""

    keeps_sizes: bool
    """Whether every body has the size that it has in the store, and so a CAR a Content-Length."""

    async def admit(self, request: web.Request) -> web.StreamResponse | None:
        """Look at a request before anything else does; an answer given here is sent instead. May take its time."""

    def revise(self, ask: Ask) -> Ask:
        """Change what was asked, before the gateway acts on it."""

    def block(self, cid: Cid, data: bytes) -> bytes:
        """Give the bytes to send as the block ``cid``; called once per block sent, in the order of sending."""

    def sink(self, request: web.Request, response: web.StreamResponse) -> Sink:
        """Give what writes the body of ``response``, whose headers are prepared. Called once per response."""


class Straight:
    """The plain delivery: everything as it is, as fast as the client takes it."""

    keeps_sizes = True

    async def admit(self, request: web.Request) -> web.StreamResponse | None:  # noqa: ARG002, RUF100 - the protocol's
        """Let everything in."""
        return None

    def revise(self, ask: Ask) -> Ask:
        """Change nothing."""
        return ask

    def block(self, cid: Cid, data: bytes) -> bytes:  # noqa: ARG002, RUF100 - the protocol's
        """Change nothing."""
        return data

    def sink(self, request: web.Request, response: web.StreamResponse) -> Sink:  # noqa: ARG002, RUF100
        """Write straight to the response; aiohttp waits for a slow client."""
        return response.write
