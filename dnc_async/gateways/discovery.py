"""Asks routers which gateways provide a dataset's root, and adds those gateways to a running fetcher.

Everything that a found gateway sends is verified, as for any other gateway, so a router or provider that lies costs time only.
A router that fails is a warning in the log, and its error is part of the error of a block that no gateway can serve. Found
gateways may serve raw blocks only: CARs are optional for a trustless gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import anyio

from dnc_async.errors import GatewayError, GatewayMissError, GatewayTimeoutError
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.http import HttpTransport
from dnc_async.gateways.providers import Provider, is_local_url, same_place
from dnc_async.gateways.routing import Router
from dnc_async.gateways.session import Sessions
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import logger

_AGAIN_AFTER_S = 10.0


class Discovery:
    """Searches for gateways on behalf of one fetcher."""

    def __init__(
        self,
        fetcher: Fetcher,
        routers: Sequence[str],
        *,
        sessions: Sessions,
        known: Sequence[str],
        private_providers: bool,
        max_found: int,
        max_records: int,
        timeout_s: float,
        clock: Callable[[], float],
        is_local: Callable[[str], bool] = is_local_url,
    ) -> None:
        """``routers`` are URLs. ``known`` are the URLs of the gateways that the fetcher has already.

        Loopback and private addresses are accepted from routers whose own URL ``is_local``; with ``private_providers``, from
        all routers. ``timeout_s`` limits the time for one router's whole answer.
        """
        self._fetcher = fetcher
        self._sessions = sessions
        self._routers = [
            Router(url, session=sessions.named(), local=private_providers or is_local(url), max_records=max_records)
            for url in routers
        ]
        self._places = {same_place(url) for url in known}
        self._free = max_found
        self._timeout_s = timeout_s
        self._clock = clock
        self._next_search: dict[bytes, float] = {}

    def __repr__(self) -> str:
        return f"<Discovery by {len(self._routers)} routers, {len(self._next_search)} roots>"

    def begin(self, root: Cid) -> bool:
        """Whether to call :meth:`search` for this root: it was never searched for, or a while ago without success.

        If so, the fetcher counts the search as started.
        """
        if self._clock() < self._next_search.get(root.multihash, float("-inf")):
            return False
        self._next_search[root.multihash] = float("inf")
        self._fetcher.search_started()
        return True

    async def search(self, root: Cid) -> None:
        """Ask all routers at the same time. Raises nothing but cancellation."""
        causes: list[GatewayError] = []
        try:
            async with anyio.create_task_group() as tasks:
                for router in self._routers:
                    tasks.start_soon(self._ask, router, root, causes)
        finally:
            if len(causes) == len(self._routers):
                self._next_search[root.multihash] = self._clock() + _AGAIN_AFTER_S
            self._fetcher.search_ended(causes)

    async def _ask(self, router: Router, root: Cid, causes: list[GatewayError]) -> None:
        named: list[Provider] = []
        try:
            await self._answer(router, root, named)
        except GatewayError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 - our own mistake must not end the engine
            error = GatewayError(f"asking it failed: {failure!r}", gateway=router.name, cid=str(root))
        else:
            return
        if not named:
            causes.append(error)
        logger.warning("router %s", error)

    async def _answer(self, router: Router, root: Cid, named: list[Provider]) -> None:
        try:
            with anyio.fail_after(self._timeout_s):
                await router.providers(root, partial(self._found, router, named))
        except TimeoutError as error:
            late = f"its answer had not ended after {self._timeout_s:g} s"
            raise GatewayTimeoutError(late, gateway=router.name, cid=str(root)) from error
        if not named:
            full = "named only gateways beyond the limit that found_gateways sets"
            said = "knows no gateway that serves it over HTTP" if self._free > 0 else full
            raise GatewayMissError(said, gateway=router.name, cid=str(root))

    def _found(self, router: Router, named: list[Provider], provider: Provider) -> bool:
        place = same_place(provider.url)
        if self._free > 0 and place not in self._places:
            self._free -= 1
            self._places.add(place)
            session = self._sessions.guarded(local=router.local)
            self._fetcher.add(
                HttpTransport(provider.url, session=session, headers={}, server_name=provider.server_name)
            )
            logger.info("router %s names the gateway %s", router.name, provider.url)
        if place in self._places:
            named.append(provider)
        return self._free > 0
