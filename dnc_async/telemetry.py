"""What the library tells about itself: frozen events for observers, and frozen snapshots for whoever asks.

An observer is any callable that takes an event. It is called where the event happens, in the engine's thread, and must be
quick; what it raises is logged and forgotten, so that it cannot break the engine. Times are seconds of the monotonic clock.

=====================  ==========================================================================================
``BlockReceived``      a gateway delivered a block that was verified
``RequestFailed``      a request failed, or brought bytes that are not the block's
``Gap``                a batch was handed over, and what its consumer waited for
``RequestSent``        one or several blocks were asked for
``RequestEnded``       how that went: enough for a picture of who fetched what, when
=====================  ==========================================================================================

The logger ``dnc_async`` is quiet unless the application configures logging.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

logger = logging.getLogger("dnc_async")
logger.addHandler(logging.NullHandler())  # else Python itself prints warnings where nobody configured logging


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReceived:
    """A gateway delivered a block that was verified."""

    gateway: str
    cid: str
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed:
    """A request to a gateway failed; ``mismatch`` is true where it sent bytes that are not the block's."""

    gateway: str
    cid: str
    reason: str
    mismatch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSent:
    """One or several blocks were asked for in one request: ``asked`` is the first one's CID, or the path of a CAR.

    ``hedge`` is true where another gateway was asked for the same before, and is not given up.
    """

    gateway: str
    asked: str
    blocks: int
    size_bytes: int
    hedge: bool
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded:
    """A request has ended, after ``received_bytes``. ``first_byte_at`` is ``None`` where no answer had begun.

    ``outcome`` is ``"answered"``, ``"failed"``, or ``"cancelled"`` where another gateway was faster or nobody wants it any more.
    """

    gateway: str
    asked: str
    blocks: int
    received_bytes: int
    hedge: bool
    sent_at: float
    first_byte_at: float | None
    at: float
    outcome: Literal["answered", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A batch was handed over, for which the consumer waited ``seconds``; ``causes``, by name, add up to them.

    ``stream`` is the dataset's address, ``position`` counts the batches of the stream from 0.
    """

    stream: str
    position: int
    seconds: float
    causes: dict[str, float]


Event = BlockReceived | RequestFailed | RequestSent | RequestEnded | Gap
Observer = Callable[[Event], None]


class Observers:
    """The observers of one client or stream."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        """Tell one more."""
        self._observers.append(observer)

    def remove(self, observer: Observer) -> None:
        """Tell one less."""
        self._observers.remove(observer)

    def tell(self, event: Event) -> None:
        """Tell all of them; what they raise is logged."""
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception:
                logger.exception("an observer failed on %s", event)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStatistics:
    """One gateway so far. Rates are bytes per second, times seconds; ``None`` until something was measured.

    ``received_bytes`` are all that came in the bodies of its answers, ``bytes`` those of blocks that were verified.

    ``latency_s`` is the least of late, from a request to the first byte of its answer, and ``jitter_s`` how much later than that
    answers begin in the mean.
    """

    url: str
    blocks: int
    bytes: int
    rejected: int
    failures: int
    in_flight: int
    rate: float | None
    latency_s: float | None
    jitter_s: float = 0.0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics:
    """A stream so far. ``waited_s`` and its ``causes`` leave the first batch out, whose time is ``first_batch_s``.

    ``disk_is_full``: the file system has no room, although the budget has, and staging pauses; ``disk_full_s`` is for how long
    it was so, all in all. ``peak_ahead_bytes``: the most that was asked for before there was room for it, which memory holds if
    it comes too early.

    ``fetched_bytes`` are all that came in the bodies of answers, for all streams that share a client's gateways, also what was
    cut off, wrong, or came twice; ``verified_bytes`` are those of blocks that were verified, and ``useful_bytes`` the chunks that
    this stream has handed over.
    """

    batches: int
    samples: int
    budget_bytes: int
    peak_leased_bytes: int
    peak_disk_bytes: int
    fetched_bytes: int
    blocks_rejected: int
    requests_failed: int
    first_batch_s: float | None
    waited_s: float
    elapsed_s: float
    causes: dict[str, float]
    gateways: tuple[GatewayStatistics, ...]
    disk_is_full: bool = False
    disk_full_s: float = 0.0
    peak_ahead_bytes: int = 0
    verified_bytes: int = 0
    useful_bytes: int = 0

    @property
    def idle_share(self) -> float:
        """The share of the time since the first batch that the consumer spent waiting."""
        steady = self.elapsed_s - (self.first_batch_s or 0.0)
        return self.waited_s / steady if steady > 0 else 0.0
