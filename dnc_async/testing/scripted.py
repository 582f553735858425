"""A gateway that misbehaves by script, in this event loop."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

from aiohttp import web

from dnc_async.serve.app import make_app
from dnc_async.serve.server import Listener

from .faults import Faults
from .shaping import ScriptedHooks
from .stats import STATS_PATH, GatewayStats

if TYPE_CHECKING:
    from types import TracebackType

    from dnc_async.store import BlockStore


class ScriptedGateway:
    """Serves ``store`` as a gateway with ``faults``, while the ``async with`` block runs.

    It is the library's own gateway with a script in its hooks, so whatever the script does not change is served as usual. Its
    seconds count from entering the block. Besides ``/ipfs/`` it answers ``GET /_scripted/stats``.
    """

    def __init__(
        self,
        store: BlockStore,
        faults: Faults | str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_requests: int = 1024,
    ) -> None:
        self._faults = Faults.parse(faults) if isinstance(faults, str) else faults or Faults()
        self._store = store
        self._host = host
        self._port = port
        self._max_requests = max_requests
        self._hooks: ScriptedHooks | None = None
        self._listener: Listener | None = None
        self._outage: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        where = self._listener.url if self._listener else "not started"
        return f"<ScriptedGateway {where} {str(self._faults) or 'without faults'}>"

    @property
    def faults(self) -> Faults:
        """The script."""
        return self._faults

    @property
    def url(self) -> str:
        """The gateway's URL, without a slash at the end; known once the block was entered."""
        if self._listener is None:
            raise RuntimeError("this gateway was not started; enter it with 'async with' first")
        return self._listener.url

    def stats(self) -> GatewayStats:
        """What it has done so far."""
        return self._hooks.stats if self._hooks else GatewayStats()

    async def __aenter__(self) -> Self:
        """Start listening, and the timeline."""
        clock = asyncio.get_running_loop().time
        hooks = ScriptedHooks(self._faults, connections=lambda: listener.connections, clock=clock)
        app = make_app(self._store, max_requests=self._max_requests, hooks=hooks)
        app.router.add_get(STATS_PATH, self._answer_stats)
        listener = Listener(app, self._host, self._port)
        await listener.start()
        hooks.start()
        self._hooks, self._listener = hooks, listener
        if self._faults.down is not None:
            self._outage = asyncio.create_task(self._play_outage(listener))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the timeline and all connections."""
        outage, self._outage = self._outage, None
        try:
            if outage is not None:
                outage.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await outage
        finally:
            if self._listener is not None:
                await self._listener.close()

    async def _play_outage(self, listener: Listener) -> None:
        """Go down and return when the script says so."""
        window = self._faults.down
        if window is None:
            return
        await asyncio.sleep(window.start_s)
        await listener.die()
        if window.stop_s is not None:
            await asyncio.sleep(window.stop_s - window.start_s)
            await listener.revive()

    async def _answer_stats(self, _: web.Request) -> web.Response:
        return web.json_response(asdict(self.stats()))
