"""A block that somebody waits for, from its wish to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dnc_async.errors import (
    ChunkUnavailableError,
    GatewayError,
    GatewayMismatchError,
    GatewayMissError,
    GatewayOversizeError,
    GatewayRefusedError,
)
from dnc_async.gateways.retries import Failures, Patience
from dnc_async.gateways.spans import Want
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Block, as_link
from dnc_async.ipld.cid import Cid

if TYPE_CHECKING:
    from dnc_async.gateways.request import Request

Priority = tuple[int, ...]


class Accepted(NamedTuple):
    """A block was accepted, or went wrong there."""

    error: Exception | None


@dataclass(slots=True, eq=False, kw_only=True)
class BlockWant(Want):
    """A block to fetch. ``accept`` gets it in a worker thread; ``done`` is called in the loop, once.

    ``faults`` counts the failures on the way, by gateway. ``requests`` are the requests that are to bring it, by gateway, several
    where it was hedged; the first that does, or fails for a reason that no gateway is to blame for, settles the ``outcome``.
    ``sent_at``, ``first_byte_at`` and ``received_at`` are for the gap report: first asked for, first byte, last whole body;
    ``worked_s`` is what the processor then took to verify and write it.
    ``done`` waits until no worker thread writes the block any more: after it the memory may be the consumer's.
    """

    cid: Cid
    priority: Priority
    accept: Callable[[Block], None]
    done: Callable[[BlockWant, Exception | None], None]
    limit_bytes: int = MAX_BLOCK_BYTES
    faults: dict[str, int] = field(default_factory=dict)
    sent_at: float | None = None
    first_byte_at: float | None = None
    received_at: float | None = None
    worked_s: float = 0.0
    requests: dict[int, Request] = field(default_factory=dict)
    settled: bool = False
    outcome: Exception | None = None
    is_hopeful: bool = True
    _errors: dict[int, GatewayError] = field(default_factory=dict)
    _failures: Failures = field(default_factory=Failures)
    _is_taken: bool = False
    _is_written: bool = False
    _told: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def offer(self, block: Block) -> Accepted | None:
        """Accept the block, in a worker thread; ``None`` where it was settled before, or another thread is at it."""
        with self._lock:
            if self.settled or self._is_taken:
                return None
            self._is_taken = self._is_written = True
        try:
            self.accept(as_link(block, self.cid))
        except Exception as error:  # noqa: BLE001 - a full disk, or our own mistake: whoever wants it is told
            return Accepted(error)
        finally:
            with self._lock:
                self._is_written = False
        return Accepted(None)

    def settle(self, outcome: Exception | None) -> bool:
        """Decide how it ended; ``False`` where that was decided before."""
        with self._lock:
            if self.settled:
                return False
            self.settled, self.outcome = True, outcome
        return True

    def tell(self) -> None:
        """Call ``done``, once it is settled and nobody writes it any more."""
        with self._lock:
            if not self.settled or self._is_written or self._told:
                return
            self._told = True
        self.done(self, self.outcome)

    def fault(
        self, gateway: int, error: GatewayError, now: float, *, patience: Patience, has_delivered: bool, gateways: int
    ) -> None:
        """Note a failure; ``is_hopeful`` says after it whether anybody is left to ask."""
        self._errors[gateway] = error
        self.faults[error.gateway] = self.faults.get(error.gateway, 0) + 1
        self._failures.note(
            self,
            gateway,
            now,
            gateways=gateways,
            patience=patience,
            has_delivered=has_delivered,
            is_wrong=isinstance(error, (GatewayMismatchError, GatewayOversizeError)),
            is_final=isinstance(error, (GatewayMissError, GatewayRefusedError)),
            back_at=None if error.retry_after_s is None else now + error.retry_after_s,
        )
        self.is_hopeful = len(self._failures.hopeless) < gateways

    def unavailable(self, now: float, causes: Iterable[GatewayError] = ()) -> ChunkUnavailableError:
        """The error that holds the last cause of each gateway, and these."""
        tried_s = now - (now if self.sent_at is None else self.sent_at)
        return ChunkUnavailableError(
            f"no gateway could serve the block {self.cid} (tried for {tried_s:.1f} s); what each of them said last:",
            [*self._errors.values(), *causes],
        )
