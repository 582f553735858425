"""A wanted block: what the scoreboard knows of it, and how the fetcher delivers it. PURE.

:class:`Want` is what the scoreboard needs in order to choose a gateway. :class:`BlockWant` adds the CID, the callbacks of
the stream that wants the block, and the outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from dnc_async.errors import (
    ChunkUnavailableError,
    GatewayError,
    GatewayMismatchError,
    GatewayMissError,
    GatewayOversizeError,
    GatewayRefusedError,
    GatewayTimeoutError,
)
from dnc_async.gateways.dag_range import DagRange
from dnc_async.gateways.retries import Failures, Patience
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Block, as_link
from dnc_async.ipld.cid import Cid

#: Smaller tuples are requested first.
Priority = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Want:
    """A wanted block, as far as the scoreboard is concerned. Gateways are numbers: their places in the scoreboard.

    =============  ====================================================================================================
    ``size_bytes`` the block's likely size
    ``within``     the ranges of DAGs in which it lies, the smallest DAG first
    ``ahead``      whether it is a file's root whose leaves will be wanted next, so that a CAR may bring the whole file
    ``asked``      the gateways from which it is requested now
    ``excluded``   the gateways that failed for it in this round of attempts
    ``hopeless``   those of the excluded that are never asked for it again, even if no other gateway is left
    ``retry_at``   when a gateway that failed for it may be asked for it again, beside the gateways' own pauses
    ``raw_only``   the gateways that failed to send it in a CAR: they are asked for the raw block
    ``sent_by``    the open CAR requests that have sent it already, and will not send it again
    ``group``      the group of wants to which it belongs
    =============  ====================================================================================================
    """

    size_bytes: int
    within: tuple[DagRange, ...] = ()
    ahead: bool = False
    excluded: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    sent_by: set[object] = field(default_factory=set)
    raw_only: set[int] = field(default_factory=set)
    hopeless: Collection[int] = ()
    retry_at: float = 0.0
    group: object = None

    @property
    def begins_file(self) -> bool:
        """Whether it is the first block of its file: the file's root, or its first leaf."""
        return bool(self.within) and self.within[0].start == 0

    @property
    def has_more(self) -> bool:
        """Whether its range of the file is larger than the block itself: it is a node with leaves below it."""
        return bool(self.within) and self.within[0].end - self.within[0].start > self.size_bytes


class AcceptResult(NamedTuple):
    """How a want's ``accept`` callback ended: ``error`` is what it raised, or ``None``."""

    error: Exception | None


class OpenRequest(Protocol):
    """A request on the wire, as far as a want is concerned."""

    def remove(self, want: BlockWant) -> None:
        """Stop expecting this block from the request."""


def never() -> bool:
    """``False``."""
    return False


@dataclass(slots=True, eq=False, kw_only=True)
class BlockWant(Want):
    """A block to fetch: ``accept`` is called with it, in a worker thread unless it is quick.

    After that ``done`` is called in the event loop, exactly once.

    ``done`` is not called before every worker thread has left ``accept``: afterwards the memory that ``accept`` wrote to may
    be handed to the consumer.

    ``is_quick`` tells whether ``accept`` only copies the block in memory now, so that it may be called in the event loop;
    ``is_urgent`` whether the consumer waits for it next, so that it may always be requested from a second gateway.

    ``requests`` are the open requests that may bring the block, by gateway: two if it was hedged. The first that brings it,
    or an error that is no gateway's fault, settles the want: its ``outcome`` is ``None`` or that error. ``faults`` counts the
    failed attempts by gateway URL, and ``is_hopeful`` tells whether any gateway is left to try.

    For the gap report: ``sent_at``, ``first_byte_at`` and ``received_at`` are when the block was first requested, when the
    first byte of an answer arrived, and when its last byte arrived; ``worked_s`` is the processor time, in seconds, that
    verifying and writing it took.
    """

    cid: Cid
    priority: Priority
    accept: Callable[[Block], None]
    done: Callable[[BlockWant, Exception | None], None]
    is_quick: Callable[[], bool] = never
    is_urgent: Callable[[], bool] = never
    limit_bytes: int = MAX_BLOCK_BYTES
    faults: dict[str, int] = field(default_factory=dict)
    sent_at: float | None = None
    first_byte_at: float | None = None
    received_at: float | None = None
    worked_s: float = 0.0
    requests: dict[int, OpenRequest] = field(default_factory=dict)
    settled: bool = False
    outcome: Exception | None = None
    is_hopeful: bool = True
    _errors: dict[int, GatewayError] = field(default_factory=dict)
    _failures: Failures = field(default_factory=Failures)
    _is_accepted: bool = False
    _is_accepting: bool = False
    _is_done_called: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def offer(self, block: Block) -> AcceptResult | None:
        """Call ``accept`` with the block (in a worker thread); ``None`` if it is settled or another thread called it first."""
        with self._lock:
            if self.settled or self._is_accepted:
                return None
            self._is_accepted = self._is_accepting = True
        try:
            self.accept(as_link(block, self.cid))
        except Exception as error:  # noqa: BLE001 - a full disk, or a mistake of ours: the stream is told
            return AcceptResult(error)
        finally:
            with self._lock:
                self._is_accepting = False
        return AcceptResult(None)

    def settle(self, outcome: Exception | None) -> bool:
        """Record the outcome; ``False`` if it was recorded before, and stays as it was."""
        with self._lock:
            if self.settled:
                return False
            self.settled, self.outcome = True, outcome
        return True

    def call_done(self) -> None:
        """Call ``done`` if the want is settled, no thread is in ``accept``, and it was not called before."""
        with self._lock:
            if not self.settled or self._is_accepting or self._is_done_called:
                return
            self._is_done_called = True
        self.done(self, self.outcome)

    def record_failure(
        self, gateway: int, error: GatewayError, now: float, *, patience: Patience, has_delivered: bool, gateways: int
    ) -> None:
        """Record that a gateway failed for this block, and update ``is_hopeful``; there are ``gateways`` of them in all.

        If it ``has_delivered`` blocks and may find this one later, a miss is not final.
        """
        is_miss = isinstance(error, GatewayMissError)
        self._errors[gateway] = error
        self.faults[error.gateway] = self.faults.get(error.gateway, 0) + 1
        self._failures.record(
            self,
            gateway,
            now,
            gateways=gateways,
            patience=patience,
            has_delivered=has_delivered,
            is_wrong=isinstance(error, (GatewayMismatchError, GatewayOversizeError)),
            is_miss=is_miss,
            is_final=isinstance(error, GatewayRefusedError) or (is_miss and not has_delivered),
            is_silent=isinstance(error, GatewayTimeoutError),
            back_at=None if error.retry_after_s is None else now + error.retry_after_s,
        )
        self.is_hopeful = len(self._failures.hopeless) < gateways

    def forgive_miss(self, gateway: int) -> None:
        """Forget that the gateway did not find the block: it is asked for it in another way."""
        if isinstance(self._errors.get(gateway), GatewayMissError):
            self._failures.hopeless.discard(gateway)
            self.excluded.discard(gateway)
            self.is_hopeful = True

    def unavailable_error(self, now: float, causes: Iterable[GatewayError] = ()) -> ChunkUnavailableError:
        """The error that says why no gateway could serve the block: each gateway's last error, and ``causes``."""
        tried_s = now - (now if self.sent_at is None else self.sent_at)
        return ChunkUnavailableError(
            f"no gateway could serve the block {self.cid} (tried for {tried_s:.1f} s); what each of them said last:",
            [*self._errors.values(), *causes],
        )
