"""Runs the gateway on a socket: an async context manager around :func:`make_app`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self, cast

from aiohttp import web

from dnc_async.errors import ArgumentError

from . import answers
from .app import PATIENCE_S, make_app
from .connections import ACCEPTED_AT_ONCE, BACKLOG, Connection, ConnectionLimits, Connections, most_connections
from .content_request import RefusalError
from .hosts import AllowedHosts

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from dnc_async.store import BlockStore

    from .hooks import ResponseHooks

_SHUTDOWN_S = 0.25  # how many seconds open requests get to finish when the server stops
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Turns of the event loop from a connection's acceptance until it is known: the task that accepts it, its transport, its handler.
_ACCEPT_TURNS = 3
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound


class Listener:
    """One application on one port. It can go away as a crashed server does, and return on the same port."""

    def __init__(self, app: web.Application, host: str, port: int, *, limits: ConnectionLimits | None = None) -> None:
        app.middlewares.insert(0, _watched)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        self._connections = Connections(limits or ConnectionLimits(most=most_connections()))
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self._listening: socket.socket | None = None

    @property
    def url(self) -> str:
        """The URL for clients on this machine, without a slash at the end."""
        host = _WILDCARDS.get(self._host, self._host)  # the bound address: a name may lead to others, too
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def address(self) -> str:
        """The address that is bound."""
        return self._host

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self) -> None:
        """Start listening; raises :class:`ArgumentError` if the address cannot be used."""
        await self._runner.setup()
        try:
            self._reserved = self._bind()
            await self.revive()
        except BaseException:
            await self.close()
            raise

    async def die(self) -> None:
        """Reset every connection and refuse new ones; the port stays reserved. Does nothing if already dead."""
        if self._server is None:
            return
        await self._stop_accepting()
        self._connections.cut(reset=True)
        self._reserved = self._bind()

    async def revive(self) -> None:
        """Listen on the reserved port; does nothing when already listening."""
        if self._reserved is not None:
            self._listening, self._reserved = self._reserved, None
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._connect, sock=self._listening, backlog=ACCEPTED_AT_ONCE)
            self._listening.listen(BACKLOG)

    async def close(self) -> None:
        """Stop listening, wait a moment for open requests, then cut them off."""
        await self._stop_accepting()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        await self._runner.cleanup()
        self._connections.cut()  # whatever their clients have not read yet
        await asyncio.sleep(0)

    def _connect(self) -> Connection:
        """The protocol of a new connection."""
        assert self._runner.server is not None  # noqa: S101 - for the type checker
        return Connection(self._connections, self._runner.server, asyncio.get_running_loop())

    async def _stop_accepting(self) -> None:
        """Stop listening. Each connection that was accepted is known then, and will be closed with the others.

        asyncio forgets, unclosed, one whose server is closed between its acceptance and its first turn of the event loop.
        """
        server, self._server = self._server, None
        if server is not None and self._listening is not None:
            with contextlib.suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().remove_reader(self._listening.fileno())
            for _ in range(_ACCEPT_TURNS):
                await asyncio.sleep(0)
            server.close()
        self._listening = None

    def _bind(self) -> socket.socket:
        """Bind the port without listening: connections to it are refused until :meth:`revive`."""
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, ValueError) as error:
            raise self._refusal(error) from error
        failed: OSError | None = None
        # IPv4 first: clients that know only a name's IPv4 address are many, those that know only the other are few.
        for family, kind, proto, _, address in sorted(found, key=lambda each: each[0] != socket.AF_INET):
            try:
                bound = _bound(family, kind, proto, address)
            except OSError as error:  # a machine may have a name for an address of a kind that it does not have
                failed = failed or error
                continue
            self._host, self._port = bound.getsockname()[:2]
            return bound
        raise self._refusal(failed or OSError("the name has no address")) from failed

    def _refusal(self, error: Exception) -> ArgumentError:
        why = getattr(error, "strerror", None) or error
        return ArgumentError(f"cannot listen on {self._host}:{self._port}: {why}; choose another host or port")


def _bound(family: int, kind: int, proto: int, address: Any) -> socket.socket:  # noqa: ANN401 - as of getaddrinfo
    bound = socket.socket(family, kind, proto)
    try:
        if os.name == "posix":  # elsewhere this option lets others take the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


class GatewayServer:
    """Serves ``store`` while the ``async with`` block runs.

    It listens on the loopback address unless told otherwise, because every client that can reach it can read the whole store.
    Port 0 uses a free port; ``url`` tells which. Leaving closes the socket, waits a moment for open requests, then cuts them
    off.

    On a loopback address it refuses requests whose Host header names another host, but for those of ``allowed_hosts``; so does
    one on another address, if there are any, and else it answers to all. A client that does not read for ``patience_s`` seconds
    is cut off, and so is one that exceeds the ``limits``.
    """

    def __init__(
        self,
        store: BlockStore,
        host: str = "127.0.0.1",
        port: int = 0,
        hooks: ResponseHooks | None = None,
        *,
        max_requests: int = 256,
        allowed_hosts: Collection[str] = (),
        patience_s: float = PATIENCE_S,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self.app = make_app(store, max_requests=max_requests, hooks=hooks, patience_s=patience_s)
        self.app.middlewares.append(self._check_host)
        self._host = host
        self._allowed_hosts = allowed_hosts
        self._hosts: AllowedHosts | None = None  # known once the address is bound
        self._listener = Listener(self.app, host, port, limits=limits)

    @property
    def url(self) -> str:
        """The gateway's URL, without a slash at the end. With port 0 it is known once the block was entered."""
        return self._listener.url

    async def __aenter__(self) -> Self:
        """Start listening; raises :class:`ArgumentError` if the address cannot be used."""
        await self._listener.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening and end all connections."""
        await self._listener.close()

    @web.middleware
    async def _check_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what a web page asks for under a name of its own."""
        if self._hosts is None:
            self._hosts = AllowedHosts(self._listener.address, self._host, self._allowed_hosts)
        if not self._hosts.allow(request.headers.getall("Host", ())):
            name = request.headers["Host"]
            message = f"this server does not answer to {name!r}; 'dnc serve --allow-host NAME' lets it"
            return answers.refused(RefusalError(403, message))
        return await handler(request)


@web.middleware
async def _watched(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell a connection when it has a request, and when it was answered."""
    connection = cast("Connection", request.protocol)
    connection.begin()
    try:
        return await handler(request)
    finally:
        connection.end()
