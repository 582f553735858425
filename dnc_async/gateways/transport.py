"""The interface of a gateway, as the fetcher uses it, and its simplest implementation: a store on this machine."""

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
from dnc_async.ipld.block import Pieces
from dnc_async.ipld.cid import Cid

#: A block's bytes, whole or in pieces as they arrived, or a function that reads them in the worker thread that verifies them.
Body = bytes | Pieces | Callable[[], bytes]
#: The same, with whole bytes as one piece.
UnverifiedBody = Pieces | Callable[[], bytes]


class CarRequest(NamedTuple):
    """A request for one CAR, in two forms: the ``target`` below a gateway's URL, and the ``cids`` of its first blocks, in order.

    ``expected_bytes`` is how much file content the CAR will contain, these blocks included; ``asked`` names the CAR in errors.
    """

    target: str
    asked: str
    cids: tuple[Cid, ...]
    expected_bytes: int


class Arrivals:
    """Counts the bytes of one answer as they arrive, each byte once.

    A transport may read a body in pieces of ``piece_bytes()`` bytes. It then sets ``unread`` to a function that returns how many
    bytes of the next piece have arrived already, so that :meth:`count_unread` can count them before they are read.
    """

    def __init__(
        self, count: Callable[[int], None] = lambda _: None, piece_bytes: Callable[[], int] = lambda: 0
    ) -> None:
        """``count`` is called with 0 when the answer begins, and with a number of bytes when more have arrived."""
        self._count = count
        self.piece_bytes = piece_bytes
        self.unread: Callable[[], int] | None = None
        self._counted = 0

    def __repr__(self) -> str:
        return f"<Arrivals {'in pieces' if self.unread else 'as they come'}, {self._counted} bytes counted ahead>"

    def begin(self) -> None:
        """Note that the answer begins."""
        self._count(0)

    def read(self, size_bytes: int) -> None:
        """Count bytes that were read, unless :meth:`count_unread` counted them before."""
        new = size_bytes - self._counted
        self._counted = max(0, -new)
        if new > 0:
            self._count(new)

    def count_unread(self) -> None:
        """Count the bytes that have arrived and were not read yet."""
        if self.unread is not None:
            new = self.unread() - self._counted
            if new > 0:
                self._counted += new
                self._count(new)


class Transport(Protocol):
    """Fetches unverified bytes from one gateway. All errors that it raises are :class:`~dnc_async.errors.GatewayError`."""

    @property
    def name(self) -> str:
        """The gateway's name in errors and reports: its URL without secrets."""

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> Body:
        """Fetch one block, unverified, of at most ``limit_bytes``. If it returns a function, that may raise the same errors."""

    @property
    def has_cars(self) -> bool:
        """Whether :meth:`car` may work."""

    @property
    def is_complete(self) -> bool:
        """Whether it knows all that it holds: a block that it did not find once, it will not find later."""

    async def car(
        self,
        request: CarRequest,
        *,
        limit_bytes: int,
        arrivals: Arrivals,
        feed: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        """Fetch a CAR, unverified, of at most ``limit_bytes``: call ``feed`` with each piece, until it returns ``False``.

        Raises :class:`~dnc_async.errors.GatewayNoCarError` if the gateway sends no CARs.
        """

    async def holds(self, root: Cid) -> bool | None:
        """Whether the gateway holds a root itself, without having to look for it elsewhere; ``None`` if it does not say."""

    async def sends_cars(self, root: Cid) -> bool:
        """Whether the gateway answers a request for a CAR with a CAR; tried with the root block alone."""


class RawOnly:
    """The part of a transport that has no CARs."""

    name: str
    has_cars = False
    is_complete = False

    async def car(
        self,
        request: CarRequest,
        *,
        limit_bytes: int,
        arrivals: Arrivals,
        feed: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        """Not called, because ``has_cars`` is ``False``."""
        raise GatewayNoCarError("has single blocks only", gateway=self.name, cid=request.asked)

    async def holds(self, root: Cid) -> bool | None:
        """Not known before a block is requested."""
        return None

    async def sends_cars(self, root: Cid) -> bool:
        """It sends none."""
        return False


class StoreTransport(RawOnly):
    """The local store as a gateway inside this process. Its blocks are verified and spooled like any other's."""

    is_complete = True

    def __init__(self, name: str, read: Callable[[Cid], bytes | None]) -> None:
        self.name = name
        self._read = read

    def __repr__(self) -> str:
        return f"<StoreTransport {self.name}>"

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> Body:
        """Return a function that reads one block, unverified, so that the worker thread that verifies it also reads it."""
        arrivals.begin()
        return partial(self._body, cid, limit_bytes)

    def _body(self, cid: Cid, limit_bytes: int) -> bytes:
        try:
            data = self._read(cid)
        except StoreError as error:  # another attempt would fail the same way
            raise GatewayRefusedError(str(error), gateway=self.name, cid=str(cid)) from error
        if data is None:
            raise GatewayMissError("the local store does not hold this block", gateway=self.name, cid=str(cid))
        if len(data) > limit_bytes:
            raise GatewayOversizeError(
                f"holds {len(data)} bytes, over the limit of {limit_bytes}", gateway=self.name, cid=str(cid)
            )
        return data


def mismatch_message(transport: Transport) -> str:
    """The error message for a gateway whose block does not hash to its CID."""
    if isinstance(transport, StoreTransport):
        return "holds bytes that do not hash to the CID; publish or import the same data again, which writes them anew"
    return "sent bytes that do not hash to the CID; they were thrown away"
