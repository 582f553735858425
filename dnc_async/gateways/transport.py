"""What the fetcher needs of a gateway, and the plainest one: a store on this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Protocol

from dnc_async.errors import (
    GatewayMissError,
    GatewayNoCarError,
    GatewayOversizeError,
    GatewayRefusedError,
    StoreError,
)
from dnc_async.ipld.cid import Cid

#: A block's bytes, or what reads them: that is called in the worker thread that verifies them, and raises as ``raw`` does.
Body = bytes | Callable[[], bytes]


class CarRequest(NamedTuple):
    """One CAR: its ``target`` below a gateway's URL, or the ``cids`` that are expected of it first, in order.

    ``expected_bytes`` are what it brings of files, these and what follows; ``asked`` is what to call it in errors.
    """

    target: str
    asked: str
    cids: tuple[Cid, ...]
    expected_bytes: int


class Arrivals:
    """Hears of one answer as it comes: that it begins, and how many bytes of its body have come. Each byte counts once.

    A transport may read a body in pieces of ``piece_bytes()``, and say by ``unread`` how many bytes are here already of the next
    one: who wants to know it sooner calls :meth:`look`.
    """

    def __init__(
        self, heard: Callable[[int], None] = lambda _: None, piece_bytes: Callable[[], int] = lambda: 0
    ) -> None:
        """``heard`` is called with 0 when the answer begins, and with a count when bytes have come."""
        self._heard = heard
        self.piece_bytes = piece_bytes
        self.unread: Callable[[], int] | None = None
        self._counted = 0

    def __repr__(self) -> str:
        return f"<Arrivals {'in pieces' if self.unread else 'as they come'}, {self._counted} bytes counted ahead>"

    def begins(self) -> None:
        """The answer begins."""
        self._heard(0)

    def brings(self, size_bytes: int) -> None:
        """So many bytes were read."""
        new = size_bytes - self._counted
        self._counted = max(0, -new)
        if new > 0:
            self._heard(new)

    def look(self) -> None:
        """Count what is here and not read yet."""
        if self.unread is not None:
            new = self.unread() - self._counted
            if new > 0:
                self._counted += new
                self._heard(new)


class Transport(Protocol):
    """Brings unverified bytes. Errors are :class:`~dnc_async.errors.GatewayError` and nothing else."""

    @property
    def name(self) -> str:
        """What to call it in errors and reports: a URL without secrets."""

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> Body:
        """One block, unverified, of at most ``limit_bytes``."""

    @property
    def has_cars(self) -> bool:
        """Whether :meth:`car` is worth a try."""

    async def car(
        self,
        request: CarRequest,
        *,
        limit_bytes: int,
        arrivals: Arrivals,
        feed: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        """A CAR, unverified, of at most ``limit_bytes``, in pieces to ``feed``, until that is ``False``.

        Raises :class:`~dnc_async.errors.GatewayNoCarError` where it has no CARs.
        """

    async def holds(self, root: Cid) -> bool | None:
        """Whether it holds a root itself and would not look for it elsewhere; ``None`` where it does not say."""

    async def sends_cars(self, root: Cid) -> bool:
        """Whether it answers with a CAR where it is asked for one, of a root alone."""


class RawOnly:
    """What has no CARs."""

    name: str
    has_cars = False

    async def car(
        self,
        request: CarRequest,
        *,
        limit_bytes: int,
        arrivals: Arrivals,
        feed: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        """Never called."""
        raise GatewayNoCarError("has single blocks only", gateway=self.name, cid=request.asked)

    async def holds(self, root: Cid) -> bool | None:
        """Nobody knows before a block is asked for."""
        return None

    async def sends_cars(self, root: Cid) -> bool:
        """It does not."""
        return False


class StoreTransport(RawOnly):
    """The local store as a gateway of this process: no socket, the same way through verification and spool."""

    def __init__(self, name: str, read: Callable[[Cid], bytes | None]) -> None:
        self.name = name
        self._read = read

    def __repr__(self) -> str:
        return f"<StoreTransport {self.name}>"

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> Body:
        """What reads one block, unverified: there is nothing to wait for before a worker thread has it anyway."""
        arrivals.begins()
        return partial(self._body, cid, limit_bytes)

    def _body(self, cid: Cid, limit_bytes: int) -> bytes:
        try:
            data = self._read(cid)
        except StoreError as error:  # asked again it would say the same
            raise GatewayRefusedError(str(error), gateway=self.name, cid=str(cid)) from error
        if data is None:
            raise GatewayMissError("the local store does not hold this block", gateway=self.name, cid=str(cid))
        if len(data) > limit_bytes:
            raise GatewayOversizeError(
                f"holds {len(data)} bytes, over the limit of {limit_bytes}", gateway=self.name, cid=str(cid)
            )
        return data


def wrong_bytes(transport: Transport) -> str:
    """What to say of one that gave a block which does not hash to its CID."""
    if isinstance(transport, StoreTransport):
        return "holds bytes that do not hash to the CID; publish or import the same data again, which writes them anew"
    return "sent bytes that do not hash to the CID; they were thrown away"
