"""Serves until told to stop; shared by the command line and the gateway process."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from typing import TYPE_CHECKING

from dnc_async.errors import ArgumentError
from dnc_async.serve.server import GatewayServer
from dnc_async.store import BlockStore

from .scripted import ScriptedGateway

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from pathlib import Path

    from .faults import Faults


async def serve_forever(
    store_path: str | Path,
    *,
    host: str,
    port: int,
    faults: Faults | None,
    allowed_hosts: Collection[str] = (),
    ready: Callable[[str], None],
    stop: Awaitable[object],
) -> None:
    """Serve a store until ``stop`` (for example ``event.wait()``) is done; calls ``ready`` with the URL once it answers.

    With ``faults``, even empty ones, it is a scripted gateway with its statistics; without, a plain one. Raises
    :class:`StoreError` or :class:`ArgumentError` if it cannot start.
    """
    store = BlockStore.open(store_path)
    if faults is None:
        server: GatewayServer | ScriptedGateway = GatewayServer(store, host, port, allowed_hosts=allowed_hosts)
    else:
        server = ScriptedGateway(store, faults, host=host, port=port)
    async with server:
        ready(server.url)
        await stop


async def stdin_closed() -> None:
    """Return when the process at the other end of standard input closes it, or dies.

    Raises :class:`ArgumentError` if standard input is not a pipe, socket or terminal.
    """
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(sys.stdin.fileno())):
        raise ArgumentError("--stop-on-eof needs a pipe as standard input; leave it out, or pipe something in")
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    try:
        while await reader.read(65536):
            pass
    finally:
        transport.close()
