"""The open requests of a simulation, in the role of :mod:`dnc_async.gateways.request`. PURE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from dnc_async.gateways.scoreboard import Scoreboard

from .consumer import ROOT, Leaf, SimulatedRequest
from .scripted_line import Body, Ending, ScriptedLine


class _Desk(Protocol):
    """What the requests need of the simulator."""

    now: float

    def at(self, when: float, happens: Callable[[], None]) -> None:
        """Call a function at a time."""

    def tell(self, what: str, gateway: int, *blocks: Leaf) -> None:
        """Add an entry to the timeline."""

    def wake(self) -> None:
        """Have the scoreboard decide again."""

    def progressed(self, gateway: int) -> None:
        """Some bytes arrived: the window may have space for another request."""

    def came(self, gateway: int, size_bytes: int) -> None:
        """Count bytes on the wire."""

    def land(self, request: SimulatedRequest, want: Leaf) -> None:
        """A correct block arrived."""

    def failed(self, request: SimulatedRequest, want: Leaf, *, is_wrong: bool = False, is_final: bool = False) -> None:
        """A gateway failed to send a block."""

    def leave(self, want: Leaf, gateway: int) -> None:
        """A request for a block ended without it."""


class SimulatedRequests:
    """All open requests."""

    def __init__(
        self, board: Scoreboard, lines: Sequence[ScriptedLine], events: _Desk, *, stall_timeout_s: float
    ) -> None:
        self._board = board
        self._lines = lines
        self._events = events
        self._stall_timeout_s = stall_timeout_s
        self._open: list[set[SimulatedRequest]] = [set() for _ in lines]

    def __repr__(self) -> str:
        return f"<SimulatedRequests {[len(each) for each in self._open]}>"

    def end(self, request: SimulatedRequest) -> None:
        """End a request, and give back the blocks that did not arrive."""
        if request.ended:
            return
        request.ended = True
        self._open[request.gateway].discard(request)
        score = self._board.scores[request.gateway]
        score.closed_car(request)
        for want in list(request.wants):
            score.missed(want)
            self._events.tell("given back", request.gateway, want)
            self._events.leave(want, request.gateway)
        self._events.wake()

    def reaches(self, request: SimulatedRequest) -> None:
        """The request arrives at its gateway."""
        line = self._lines[request.gateway]
        if request.ended:
            return
        if line.is_down(self._events.now):
            self._breaks(request)
            return
        self._open[request.gateway].add(request)
        self._events.at(line.begins_at(self._events.now), partial(self._answers, request))

    def dies(self, gateway: int) -> None:
        """All connections of a gateway break."""
        for request in list(self._open[gateway]):
            self._breaks(request)

    def _answers(self, request: SimulatedRequest) -> None:
        if request.ended:
            return
        line, board, i = self._lines[request.gateway], self._board, request.gateway
        car, first = request.car, next(iter(request.wants))
        named = car is not None and board.capabilities[i].lacks_root(ROOT)
        ending = line.answers(self._events.now, car=car is not None, root=ROOT if named else "")
        if ending is Ending.BODY:
            board.scores[i].first_byte(first, self._events.now)
            self._events.progressed(i)
            request.body = line.body(sum(want.size_bytes for want in request.blocks))
            self._continues(request, request.body)
        elif ending is Ending.NO_CAR:
            board.capabilities[i].refused_car()
            self.end(request)
        elif ending is Ending.MISS and car is not None:
            board.capabilities[i].refused_path(car.path)
            self.end(request)
        elif ending is Ending.MISS:
            self._events.failed(request, first, is_final=True)
            self.end(request)
        else:
            self._breaks(request, line.retry_after_s if ending is Ending.BUSY else None)

    def _breaks(self, request: SimulatedRequest, retry_after_s: float | None = None) -> None:
        """A request failed: its next block is requested from another gateway, the others are given back."""
        if request.ended:
            return
        first = next(iter(request.wants), None)
        if first is not None:
            self._board.scores[request.gateway].failed(first, self._events.now, retry_after_s)
            self._events.failed(request, first)
        self.end(request)

    def _continues(self, request: SimulatedRequest, body: Body) -> None:
        size, due = self._lines[request.gateway].piece(body, self._events.now)
        if size:
            self._events.at(due, partial(self._comes, request, body, size))
        elif self._lines[request.gateway].stalls(body):
            self._events.at(self._events.now + self._stall_timeout_s, partial(self._breaks, request))
        else:
            self._breaks(request)

    def _comes(self, request: SimulatedRequest, body: Body, size: int) -> None:
        """A piece of the body arrived."""
        if request.ended:
            return
        i, score = request.gateway, self._board.scores[request.gateway]
        self._events.came(i, size)
        first = next(iter(request.wants), None)
        if first is None:
            score.received_unexpected(size, self._events.now)
        else:
            score.received(first, size, self._events.now)
        self._events.progressed(i)
        request.block_bytes += size
        for block in request.blocks[request.brought :]:
            if request.block_bytes < block.size_bytes:
                break
            request.block_bytes -= block.size_bytes
            request.brought += 1
            if not self._complete(request, block):
                return
        if body.sent_bytes < body.size_bytes:
            self._continues(request, body)
        else:
            self.end(request)

    def _complete(self, request: SimulatedRequest, want: Leaf) -> bool:
        """A block of the body is complete; returns whether more of the body may arrive."""
        i, score, able = request.gateway, self._board.scores[request.gateway], self._board.capabilities[request.gateway]
        if self._lines[i].block_is_right():
            self._events.land(request, want)
            if request.car is not None:
                able.sent_car()
            if not request.wants:
                self.end(request)
            return not request.ended
        if request.car is None:
            score.delivered(want, want.size_bytes, self._events.now)
        else:
            able.refused_path(request.car.path)
        score.mismatched(self._events.now)
        wrong = next(iter(request.wants), None)
        if wrong is not None:
            self._events.failed(request, wrong, is_wrong=True)
        self.end(request)
        return False
