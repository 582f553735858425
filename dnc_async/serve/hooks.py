"""Hooks between what the gateway answers and what the client receives.

The gateway decides what to send; :class:`ResponseHooks` may refuse, change, slow down or cut it. The default, :class:`NoHooks`,
changes nothing and costs nothing. The scripted gateways of ``dnc_async.testing`` are the other implementation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aiohttp import web

    from dnc_async.ipld.cid import Cid

    from .content_request import ContentRequest

Sink = Callable[[bytes], Awaitable[None]]
"""Takes the next bytes of one body; returns when the client's connection can take more (backpressure)."""


class ResponseHooks(Protocol):
    """Called for requests and bodies. One object serves all requests of a gateway, in its event loop."""

    keeps_sizes: bool
    """Whether every body has the size that it has in the store, and so a CAR a Content-Length."""

    async def admit(self, request: web.Request) -> web.StreamResponse | None:
        """Called with a request first of all. May wait; an answer that it returns is sent instead."""

    def revise(self, content: ContentRequest) -> ContentRequest:
        """Change what was requested, before the gateway acts on it."""

    def block(self, cid: Cid, data: bytes) -> bytes:
        """The bytes to send as the block ``cid``. Called once per block, in the order of sending."""

    def sink(self, request: web.Request, response: web.StreamResponse) -> Sink:
        """The function that writes the body of ``response``, whose headers are prepared. Called once per response."""


class NoHooks:
    """Changes nothing: bodies are sent as fast as the client takes them."""

    keeps_sizes = True

    async def admit(self, request: web.Request) -> web.StreamResponse | None:  # noqa: ARG002, RUF100 - the protocol's
        """Admit every request."""
        return None

    def revise(self, content: ContentRequest) -> ContentRequest:
        """Change nothing."""
        return content

    def block(self, cid: Cid, data: bytes) -> bytes:  # noqa: ARG002, RUF100 - the protocol's
        """Change nothing."""
        return data

    def sink(self, request: web.Request, response: web.StreamResponse) -> Sink:  # noqa: ARG002, RUF100
        """Write directly to the response; aiohttp waits for a slow client."""
        return response.write
