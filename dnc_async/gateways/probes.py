"""Asks each gateway whether it holds a root itself: a gateway that does not is sent requests that name the root.

A probe is a request like any other and counts as one: it waits until its gateway allows it. A gateway is asked about a root
once, for as long as the root is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from anyio.abc import TaskGroup

from dnc_async.gateways.requester import Probed, Requester
from dnc_async.ipld.cid import Cid

_ROOTS_REMEMBERED = 1024


class _Fetcher(Protocol):
    def search_started(self) -> None:
        """It is being found out how a gateway is to be asked: no block is given up meanwhile."""

    def search_ended(self) -> None:
        """It was found out, or cannot be."""

    def probed(self, gateway: int, answer: Probed) -> None:
        """A gateway answered."""


class Probes:
    """The probes that are still to be sent, and the roots about which all gateways were asked."""

    def __init__(self, fetcher: _Fetcher) -> None:
        self._fetcher = fetcher
        self._roots: dict[Cid, None] = {}
        self._due: list[tuple[Requester, Cid]] = []

    def __repr__(self) -> str:
        return f"<Probes {len(self._due)} due, {len(self._roots)} roots>"

    def add_root(self, root: Cid, requesters: Iterable[Requester]) -> None:
        """Plan to ask all gateways about a root, beneath which blocks will be wanted."""
        if root.inline is not None or root in self._roots:
            return
        self._roots[root] = None
        self._due += [(requester, root) for requester in requesters]
        if len(self._roots) > _ROOTS_REMEMBERED:
            self._roots.pop(next(iter(self._roots)))

    def add_gateway(self, requester: Requester) -> None:
        """Plan to ask a new gateway about the newest root."""
        self._due += [(requester, root) for root in list(self._roots)[-1:]]

    def send_due(self, tasks: TaskGroup, now: float) -> None:
        """Send the probes that their gateways allow now."""
        self._due = [(requester, root) for requester, root in self._due if not self._sent(tasks, requester, root, now)]

    def _sent(self, tasks: TaskGroup, requester: Requester, root: Cid, now: float) -> bool:
        allowed = requester.spend_probe(now)
        if allowed:
            self._fetcher.search_started()
            for_car = requester.may_have_cars and requester.spend_probe(now)
            tasks.start_soon(partial(self._probe, requester, root, for_car=for_car))
        return allowed

    async def _probe(self, requester: Requester, root: Cid, *, for_car: bool) -> None:
        try:
            self._fetcher.probed(requester.gateway, await requester.probe(root, for_car))
        finally:
            self._fetcher.search_ended()
