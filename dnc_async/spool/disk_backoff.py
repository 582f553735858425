"""Pauses staging while the file system is full although the budget is not, and decides when to try again.

A full disk stops no stream. The next batch has its place in memory and needs no disk, so only what would have been fetched
further ahead is lost; therefore a stream never gives up because of it. A chunk that did not fit is deleted and fetched again
later. Staging is tried again with one chunk at a time, after a pause that doubles each time, until one was written completely.
"""

from __future__ import annotations

from collections.abc import Callable

from dnc_async.errors import DiskFullError
from dnc_async.telemetry import logger


class DiskBackoff:
    """Whether staging on disk is paused, for all streams of a client. Used in the engine's thread."""

    def __init__(self, *, clock: Callable[[], float], retry_s: float, longest_retry_s: float) -> None:
        """The first retry is ``retry_s`` seconds after the disk was full; the pause doubles up to ``longest_retry_s``."""
        self._clock = clock
        self._retry_s = retry_s
        self._longest_retry_s = longest_retry_s
        self._interval_s = retry_s
        self._since: float | None = None
        self._next_try = 0.0
        self._before_s = 0.0
        self._warned = False

    def __repr__(self) -> str:
        state = f"paused, tries again in {self.wait_s:.1f} s" if self.is_full else "writing"
        return f"<DiskBackoff {state}>"

    @property
    def is_full(self) -> bool:
        """Whether the file system was full at the last attempt to write."""
        return self._since is not None

    @property
    def seconds(self) -> float:
        """For how many seconds it was full so far, in total."""
        return self._before_s + (self._clock() - self._since if self._since is not None else 0.0)

    @property
    def wait_s(self) -> float:
        """Seconds to wait before the next attempt; 0 if staging is not paused."""
        return max(0.0, self._next_try - self._clock()) if self.is_full else 0.0

    def refused(self, error: DiskFullError) -> None:
        """Record that the file system was full. Only the first time is logged as a warning."""
        if self._since is not None:
            return
        self._since = self._clock()
        self._interval_s = self._retry_s
        self._next_try = self._since + self._interval_s
        if not self._warned:
            self._warned = True
            logger.warning("%s. Until then nothing is fetched further ahead than memory holds.", error)

    def tries(self) -> None:
        """Record that a chunk is about to be staged: while staging is paused, this is the only attempt before the next pause."""
        if self.is_full:
            self._interval_s = min(2 * self._interval_s, self._longest_retry_s)
            self._next_try = self._clock() + self._interval_s

    def worked(self, *, began: float) -> None:
        """Record that a chunk was written completely. If it began after the disk was full, there is space again."""
        if self._since is not None and began > self._since:
            self._before_s, self._since = self.seconds, None
            logger.info("the file system has space again; staging on disk goes on")
