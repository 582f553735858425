"""Work for a client in steps: a generator that yields after each, so that no client has a reading thread for long.

A generator yields ``None`` for a step without a result (a node or a link that was looked at), or a block to send.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from dnc_async.errors import DagError, StoreError
from dnc_async.ipld.cid import Cid

if TYPE_CHECKING:
    from .hooks import ResponseHooks

T = TypeVar("T")
Steps = Generator[tuple[Cid, bytes] | None, None, T]

#: How many steps a client has before others have their turn: some milliseconds.
TURN_STEPS = 2048
_BLOCK_STEPS = 8  # a block that is read takes about as long as so many links
#: How many bytes of blocks are read in one turn.
RUN_BYTES = 2**20


class NotHereError(Exception):
    """A needed block is not in the store. Not raised outside ``serve``."""

    def __init__(self, cid: Cid) -> None:
        super().__init__(f"the block {cid} is not in the store")
        self.cid = cid


@dataclass(slots=True)
class HeldBlock:
    """A block to send. ``data`` is ``None`` while it is not in memory; without ``rereadable`` it is not what the store has."""

    cid: Cid
    data: bytes | None
    rereadable: bool = True

    @property
    def held_bytes(self) -> int:
        """How many bytes are in memory."""
        return 0 if self.data is None else len(self.data)

    def change(self, hooks: ResponseHooks) -> None:
        """Let the hooks change it, once."""
        if self.data is not None:
            changed = hooks.block(self.cid, self.data)
            self.rereadable = changed is self.data
            self.data = changed

    def let_go(self) -> None:
        """Do not hold it in memory, if it can be read again."""
        if self.rereadable:
            self.data = None


@dataclass(slots=True)
class Turn(Generic[T]):
    """What one turn gave: blocks in the order of sending, and, if this was the last, the result or the error."""

    blocks: list[HeldBlock] = field(default_factory=list)
    steps: int = 0
    done: bool = False
    result: T | None = None
    error: NotHereError | DagError | StoreError | None = None


def take_turn(work: Steps[T], *, most_steps: int = TURN_STEPS, most_bytes: int = RUN_BYTES) -> Turn[T]:
    """Do as much of ``work`` as one turn allows: a number of steps, or of bytes of blocks, of which it gives at least one.

    The turn holds a missing block's or a broken node's error, because the blocks before it are to be sent.
    """
    turn: Turn[T] = Turn()
    size_bytes = 0
    try:
        while turn.steps < most_steps and size_bytes < most_bytes:
            block = next(work)
            turn.steps += 1
            if block is not None:
                turn.blocks.append(HeldBlock(*block))
                turn.steps += _BLOCK_STEPS
                size_bytes += len(block[1])
    except StopIteration as end:
        turn.done, turn.result = True, end.value
    except (NotHereError, DagError, StoreError) as error:
        turn.done, turn.error = True, error
    return turn


def finish(work: Steps[T]) -> T:
    """Do all of the work at once, without the blocks; gives its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
