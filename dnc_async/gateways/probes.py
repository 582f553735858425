"""Asks each gateway whether it holds a root itself: a gateway that does not is sent requests that name the root.

A probe is a request like any other and counts as one: it waits until its gateway allows it. A gateway is asked about a root
once, for as long as the root is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable

from anyio.abc import TaskGroup

from dnc_async.gateways.requester import Requester
from dnc_async.ipld.cid import Cid

_ROOTS_REMEMBERED = 1024


class Probes:
    """The probes that are still to be sent, and the roots about which all gateways were asked."""

    def __init__(self) -> None:
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
        self._due = [(requester, root) for requester, root in self._due if not _sent(tasks, requester, root, now)]


def _sent(tasks: TaskGroup, requester: Requester, root: Cid, now: float) -> bool:
    allowed = requester.spend_probe(now)
    if allowed:
        requester.probe_started()
        tasks.start_soon(requester.probe, root, requester.may_have_cars and requester.spend_probe(now))
    return allowed
