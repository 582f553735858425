"""Asks each gateway whether it holds a root itself: one that would have to look for it elsewhere is asked for raw blocks.

A probe is a request like others and counts as one: it waits until its gateway allows it. Each root is asked about once, for as
long as it is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable

from anyio.abc import TaskGroup

from dnc_async.gateways.requester import Requester
from dnc_async.ipld.cid import Cid

_ROOTS_REMEMBERED = 1024


class Probes:
    """The probes that are still to be sent, and the roots for which all were, or are."""

    def __init__(self) -> None:
        self._roots: dict[Cid, None] = {}
        self._due: list[tuple[Requester, Cid]] = []

    def __repr__(self) -> str:
        return f"<Probes {len(self._due)} due, {len(self._roots)} roots>"

    def opened(self, root: Cid, requesters: Iterable[Requester]) -> None:
        """Blocks beneath this root will be wanted."""
        if root.inline is not None or root in self._roots:
            return
        self._roots[root] = None
        self._due += [(requester, root) for requester in requesters]
        if len(self._roots) > _ROOTS_REMEMBERED:
            self._roots.pop(next(iter(self._roots)))

    def joined(self, requester: Requester) -> None:
        """There is one more gateway: it is asked about the last root."""
        self._due += [(requester, root) for root in list(self._roots)[-1:]]

    def send(self, tasks: TaskGroup, now: float) -> None:
        """Send those that may go now."""
        self._due = [(requester, root) for requester, root in self._due if not _sent(tasks, requester, root, now)]


def _sent(tasks: TaskGroup, requester: Requester, root: Cid, now: float) -> bool:
    may_go = requester.may_probe(now)
    if may_go:
        tasks.start_soon(requester.probe, root, requester.is_unknown and requester.may_probe(now))
    return may_go
