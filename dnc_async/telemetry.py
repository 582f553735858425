"""Events that observers receive, and snapshots of statistics; all are frozen. PURE.

An observer is any callable that takes an event. It is called in the engine's thread, where the event happens, and must return
quickly. An exception that it raises is logged and does not disturb the engine. Times are seconds of the monotonic clock.

=====================  ==========================================================================================
``BlockReceived``      a gateway delivered a block that was verified
``RequestFailed``      a request failed, or brought bytes that do not match the CID
``Gap``                a batch was handed over; how long the consumer waited for it, and why
``RequestSent``        one or several blocks were requested
``RequestEnded``       a request ended, with its times, bytes and outcome
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
    """A request to a gateway failed; ``mismatch`` is true if the gateway sent bytes that do not match the CID."""

    gateway: str
    cid: str
    reason: str
    mismatch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSent:
    """A request for one or several blocks was sent. ``asked`` is the CID of a raw block, or the path of a CAR.

    ``hedge`` is true if another gateway was asked for the same block before, and that request is still open.
    """

    gateway: str
    asked: str
    blocks: int
    size_bytes: int
    hedge: bool
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded:
    """A request ended, after ``received_bytes``. ``first_byte_at`` is ``None`` if no answer had begun.

    ``outcome`` is ``"answered"``, ``"failed"``, or ``"cancelled"`` because another gateway was faster or no stream wants it.
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
    """The consumer waited ``seconds`` for a batch; ``causes``, in seconds by name, add up to that.

    ``stream`` is the dataset's address, ``position`` counts the batches of the stream from 0.
    """

    stream: str
    position: int
    seconds: float
    causes: dict[str, float]


Event = BlockReceived | RequestFailed | RequestSent | RequestEnded | Gap
Observer = Callable[[Event], None]
_ALL: tuple[type[Event], ...] = (BlockReceived, RequestFailed, RequestSent, RequestEnded, Gap)


class Observers:
    """The observers of one client or stream. It may itself be added to others, which then tell it."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = [(observer, _ALL) for observer in observers]

    def add(self, observer: Observer | Observers, *kinds: type[Event]) -> None:
        """Add an observer, of all events or of these kinds only."""
        self._observers.append((observer, kinds or _ALL))

    def remove(self, observer: Observer | Observers) -> None:
        """Remove an observer."""
        self._observers = [each for each in self._observers if each[0] != observer]

    def hear(self, kind: type[Event]) -> bool:
        """Whether anybody observes events of this kind: if not, they need not be made."""
        return any(
            observer.hear(kind) if isinstance(observer, Observers) else kind in kinds
            for observer, kinds in self._observers
        )

    def tell(self, event: Event) -> None:
        """Call all observers with an event, and log what they raise."""
        for observer, kinds in tuple(self._observers):
            if type(event) not in kinds:
                continue
            try:
                observer(event)
            except Exception:
                logger.exception("an observer failed on %s", event)

    __call__ = tell


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStatistics:
    """One gateway so far. Rates are bytes per second, times seconds; ``None`` until something was measured.

    ``received_bytes`` counts all bytes of its answers' bodies, ``bytes`` those of verified blocks.

    ``latency_s`` is the recent minimum of the time from a request to the first byte of its answer; ``jitter_s`` is how much later
    than that answers begin on average.
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
    """A stream so far. ``waited_s`` and its ``causes`` do not include the first batch, for which ``first_batch_s`` was waited.

    ``disk_is_full``: staging pauses, because the file system is full although the budget is not; ``disk_full_s`` is for how long
    that was so in total. ``peak_ahead_bytes``: the most bytes that were requested before there was space for them on disk, which
    are held in memory if they arrive too early.

    ``fetched_bytes`` counts all bytes of answers' bodies, for all streams that share a client's gateways, including what was cut
    off, wrong, or received twice. ``verified_bytes`` counts those of verified blocks, and ``useful_bytes`` the chunks that this
    stream has handed over.
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
