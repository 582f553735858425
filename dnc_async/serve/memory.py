"""Counts the bytes of blocks that all answers hold, so that they can hold less where these are many."""

from __future__ import annotations


class HeldMemory:
    """How many bytes are held by all, and whether these are too many."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0

    @property
    def is_scarce(self) -> bool:
        """Whether more is held than there should be: then nothing is read ahead, or held for a client that does not read."""
        return self.held_bytes > self._limit_bytes

    def account(self) -> Account:
        """An account for one answer, to be closed."""
        return Account(self)


class Account:
    """What one answer holds."""

    def __init__(self, memory: HeldMemory) -> None:
        self._memory = memory
        self._held_bytes = 0

    @property
    def is_scarce(self) -> bool:
        """Whether all answers together hold too much."""
        return self._memory.is_scarce

    def add(self, held_bytes: int) -> None:
        """Say how much it holds besides."""
        self.set(self._held_bytes + held_bytes)

    def set(self, held_bytes: int) -> None:
        """Say how much it holds now."""
        self._memory.held_bytes += held_bytes - self._held_bytes
        self._held_bytes = held_bytes

    def close(self) -> None:
        """It holds nothing any more."""
        self.set(0)
