"""A gateway that is closed while somebody connects to it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from urllib.parse import urlsplit

import pytest

from dnc_async.serve import GatewayServer
from dnc_async.store import BlockStore

from ..conftest import PATIENCE_S


@pytest.mark.parametrize("turns", range(8))
async def test_whoever_connects_is_cut_off(kubo_store: BlockStore, turns: int) -> None:
    """Also where the connection was accepted in that very moment: no transport is left to the garbage collector."""
    async with GatewayServer(kubo_store) as gateway:
        address = urlsplit(gateway.url)
        client = socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S)
        for _ in range(turns):
            await asyncio.sleep(0)
    with client, contextlib.suppress(ConnectionResetError):
        assert await asyncio.to_thread(client.recv, 1) == b""
    gc.collect()
