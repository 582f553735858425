"""How a wanted block ends: it was delivered, it is requested from another gateway, or no gateway is left that may serve it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dnc_async.errors import GatewayError, GatewayMismatchError, GatewayMissError
from dnc_async.gateways.pending import Pending
from dnc_async.gateways.request import Request
from dnc_async.gateways.request_log import RequestLog
from dnc_async.gateways.retries import HedgeBudget, Patience
from dnc_async.gateways.scoreboard import Scoreboard
from dnc_async.gateways.transport import Transport
from dnc_async.gateways.want import BlockWant


class Settling:
    """Settles wants, and records for each what failed.

    While gateways are searched for, or it is being found out how one is to be asked, no want is given up.
    """

    def __init__(
        self,
        *,
        transports: Sequence[Transport],
        pending: Pending,
        board: Scoreboard,
        log: RequestLog,
        hedges: HedgeBudget,
        patience: Patience,
        clock: Callable[[], float],
        enqueue: Callable[[BlockWant], None],
        wake: Callable[[], None],
    ) -> None:
        """``enqueue`` has a want requested again, ``wake`` wakes the dispatcher. ``transports`` may grow."""
        self._transports = transports
        self._pending = pending
        self._board = board
        self._log = log
        self._hedges = hedges
        self._patience = patience
        self._clock = clock
        self._enqueue = enqueue
        self._wake = wake
        self._searches = 0
        self._search_causes: dict[str, GatewayError] = {}

    def __repr__(self) -> str:
        return f"<Settling of {len(self._pending)} wants, {self._searches} searches>"

    def search_started(self) -> None:
        """A search for gateways began: until it ends, a block for which all gateways failed waits for new ones."""
        self._searches += 1

    def search_ended(self, causes: Iterable[GatewayError] = ()) -> None:
        """A search for gateways ended; ``causes`` say why it found none."""
        self._searches -= 1
        for cause in causes:
            self.add_search_cause(cause)
        self.give_up_hopeless()
        self._wake()

    def add_search_cause(self, cause: GatewayError) -> None:
        """Add a cause to the error of a block that no gateway serves: which other source there was, and why it was not used."""
        self._search_causes[cause.gateway] = cause

    def give_up_hopeless(self) -> None:
        """Settle the queued wants that no gateway can serve, unless more gateways may be found."""
        for want in self._pending.queued() if not self._searches else ():
            if not want.is_hopeful or not self._transports:
                self._give_up(want)

    def _give_up(self, want: BlockWant) -> None:
        self.settle(want, want.unavailable_error(self._clock(), self._search_causes.values()))

    def settle(self, want: BlockWant, outcome: Exception | None) -> None:
        """Record a want's outcome, and remove it from all requests that still expect it."""
        if not want.settle(outcome):
            return
        if self._pending.remove(want):  # other wants for the same block may have waited for this one's request
            self._wake()
        requests, want.requests = want.requests, {}
        for gateway, request in requests.items():
            score = self._board.scores[gateway]
            if outcome is not None:
                score.missed(want)
            elif score.beaten(want, self._clock()) and self._hedges.is_exceeded(gateway, score.bytes):
                score.distrust(self._clock())
            request.remove(want)
        want.asked.clear()
        want.call_done()

    def failed(self, request: Request, want: BlockWant | None, error: GatewayError) -> None:
        """Record that a gateway failed to send a block, if one was expected, and request it from another."""
        if want is None:
            self._log.failed(error, request.asked)
            return
        # A lie is told of even if another gateway was faster.
        if not want.settled or isinstance(error, GatewayMismatchError):
            self._log.failed(error, str(want.cid))
        if not want.settled:
            self._record(want, request.gateway, error)
        self.not_sent(want, request.gateway)

    def not_sent(self, want: BlockWant, gateway: int) -> None:
        """A request ended without the block: unless another request for it is open, queue it again or give it up."""
        want.requests.pop(gateway, None)
        want.asked.discard(gateway)
        self._wake()
        if want.settled or want.requests:
            return
        if want.is_hopeful or self._searches:
            self._enqueue(want)
        else:
            self._give_up(want)

    def _record(self, want: BlockWant, gateway: int, error: GatewayError) -> None:
        knows_all = self._transports[gateway].is_complete and isinstance(error, GatewayMissError)
        want.record_failure(
            gateway,
            error,
            self._clock(),
            patience=self._patience,
            has_delivered=bool(self._board.scores[gateway].blocks) and not knows_all,
            gateways=len(self._transports),
        )
