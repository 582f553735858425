"""The requests of a simulation on their way, as :mod:`dnc_async.gateways.flight` has them for real."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from dnc_async.gateways.scoreboard import Scoreboard

from .consumer import ROOT, Leaf, SimulatedFlight
from .scripted_line import Body, Ending, ScriptedLine


class _Desk(Protocol):
    """What flights need of the simulator."""

    now: float

    def at(self, when: float, happens: Callable[[], None]) -> None:
        """Let something happen at a time."""

    def tell(self, what: str, gateway: int, *blocks: Leaf) -> None:
        """Add to the timeline."""

    def wake(self) -> None:
        """There may be something to decide."""

    def progressed(self, gateway: int) -> None:
        """Some bytes came: there may be room to ask for more."""

    def came(self, gateway: int, size_bytes: int) -> None:
        """Count bytes on the wire."""

    def land(self, flight: SimulatedFlight, want: Leaf) -> None:
        """A right block came."""

    def failed(self, flight: SimulatedFlight, want: Leaf, *, is_wrong: bool = False, is_final: bool = False) -> None:
        """A gateway could not bring a block."""

    def leave(self, want: Leaf, gateway: int) -> None:
        """A request for a block has ended without it."""


class SimulatedFlights:
    """All that are on their way."""

    def __init__(
        self, board: Scoreboard, lines: Sequence[ScriptedLine], desk: _Desk, *, stall_timeout_s: float
    ) -> None:
        self._board = board
        self._lines = lines
        self._desk = desk
        self._stall_timeout_s = stall_timeout_s
        self._open: list[set[SimulatedFlight]] = [set() for _ in lines]

    def __repr__(self) -> str:
        return f"<SimulatedFlights {[len(each) for each in self._open]}>"

    def end(self, flight: SimulatedFlight) -> None:
        """Give back what did not come."""
        if flight.ended:
            return
        flight.ended = True
        self._open[flight.gateway].discard(flight)
        score = self._board.scores[flight.gateway]
        score.closed_car(flight)
        for want in list(flight.wants):
            score.missed(want)
            self._desk.tell("given back", flight.gateway, want)
            self._desk.leave(want, flight.gateway)
        self._desk.wake()

    def reaches(self, flight: SimulatedFlight) -> None:
        """The request is at its gateway."""
        line = self._lines[flight.gateway]
        if flight.ended:
            return
        if line.is_down(self._desk.now):
            self._breaks(flight)
            return
        self._open[flight.gateway].add(flight)
        self._desk.at(line.begins_at(self._desk.now), partial(self._answers, flight))

    def dies(self, gateway: int) -> None:
        """All its connections break."""
        for flight in list(self._open[gateway]):
            self._breaks(flight)

    def _answers(self, flight: SimulatedFlight) -> None:
        if flight.ended:
            return
        line, board, i = self._lines[flight.gateway], self._board, flight.gateway
        car, first = flight.car, next(iter(flight.wants))
        named = car is not None and board.abilities[i].is_cold(ROOT)
        ending = line.answers(self._desk.now, car=car is not None, root=ROOT if named else "")
        if ending is Ending.BODY:
            board.scores[i].first_byte(first, self._desk.now)
            self._desk.progressed(i)
            flight.body = line.body(sum(want.size_bytes for want in flight.blocks))
            self._continues(flight, flight.body)
        elif ending is Ending.NO_CAR:
            board.abilities[i].refused_car()
            self.end(flight)
        elif ending is Ending.MISS and car is not None:
            board.abilities[i].refused_path(car.path)
            self.end(flight)
        elif ending is Ending.MISS:
            self._desk.failed(flight, first, is_final=True)
            self.end(flight)
        else:
            self._breaks(flight, line.retry_after_s if ending is Ending.BUSY else None)

    def _breaks(self, flight: SimulatedFlight, retry_after_s: float | None = None) -> None:
        """It failed: the block that was to come next is asked of somebody else, the others are given back."""
        if flight.ended:
            return
        first = next(iter(flight.wants), None)
        if first is not None:
            self._board.scores[flight.gateway].failed(first, self._desk.now, retry_after_s)
            self._desk.failed(flight, first)
        self.end(flight)

    def _continues(self, flight: SimulatedFlight, body: Body) -> None:
        size, due = self._lines[flight.gateway].piece(body, self._desk.now)
        if size:
            self._desk.at(due, partial(self._comes, flight, body, size))
        elif self._lines[flight.gateway].stalls(body):
            self._desk.at(self._desk.now + self._stall_timeout_s, partial(self._breaks, flight))
        else:
            self._breaks(flight)

    def _comes(self, flight: SimulatedFlight, body: Body, size: int) -> None:
        """A piece of the body came."""
        if flight.ended:
            return
        i, score = flight.gateway, self._board.scores[flight.gateway]
        self._desk.came(i, size)
        first = next(iter(flight.wants), None)
        if first is None:
            score.received_more(size, self._desk.now)
        else:
            score.received(first, size, self._desk.now)
        self._desk.progressed(i)
        flight.block_bytes += size
        for block in flight.blocks[flight.brought :]:
            if flight.block_bytes < block.size_bytes:
                break
            flight.block_bytes -= block.size_bytes
            flight.brought += 1
            if not self._complete(flight, block):
                return
        if body.sent_bytes < body.size_bytes:
            self._continues(flight, body)
        else:
            self.end(flight)

    def _complete(self, flight: SimulatedFlight, want: Leaf) -> bool:
        """A block of the body is whole; says whether more of it may come."""
        i, score, able = flight.gateway, self._board.scores[flight.gateway], self._board.abilities[flight.gateway]
        if self._lines[i].block_is_right():
            self._desk.land(flight, want)
            if flight.car is not None:
                able.sent_car()
            if not flight.wants:
                self.end(flight)
            return not flight.ended
        if flight.car is None:
            score.delivered(want, want.size_bytes, self._desk.now)
        else:
            able.refused_path(flight.car.path)
        score.mismatched(self._desk.now)
        wrong = next(iter(flight.wants), None)
        if wrong is not None:
            self._desk.failed(flight, wrong, is_wrong=True)
        self.end(flight)
        return False
