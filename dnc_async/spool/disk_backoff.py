"""What is done when the file system is full although the budget is not: staging pauses, and tries again now and then.

A full disk stops no stream. The next batch has its place in memory and needs no disk, so what is lost is only what would
have been fetched ahead; that is why there is no time after which a stream would give up. What did not fit is deleted and
fetched again later. Here is only told what happened, and decided when to try again: one chunk at a time, each time after
twice as long a pause as before, until one was written whole.
"""

from __future__ import annotations

from collections.abc import Callable

from dnc_async.errors import DiskFullError
from dnc_async.telemetry import logger


class DiskBackoff:
    """Whether staging on disk pauses, for all streams of a client. Lives in the engine's thread."""

    def __init__(self, *, clock: Callable[[], float], retry_s: float, longest_retry_s: float) -> None:
        """Try again ``retry_s`` after the disk was full, and then ever later, but every ``longest_retry_s`` at least."""
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
        """Whether the file system was full when something was last written."""
        return self._since is not None

    @property
    def seconds(self) -> float:
        """How long it was full so far, all in all."""
        return self._before_s + (self._clock() - self._since if self._since is not None else 0.0)

    @property
    def wait_s(self) -> float:
        """How long to wait before the next try; 0 where nothing is in its way."""
        return max(0.0, self._next_try - self._clock()) if self.is_full else 0.0

    def refused(self, error: DiskFullError) -> None:
        """The file system had no room. The first time is worth a warning, the next ones are not."""
        if self._since is not None:
            return
        self._since = self._clock()
        self._interval_s = self._retry_s
        self._next_try = self._since + self._interval_s
        if not self._warned:
            self._warned = True
            logger.warning("%s. Until then nothing is fetched further ahead than memory holds.", error)

    def tries(self) -> None:
        """A chunk is about to be staged; where staging pauses, this is the one try of its time."""
        if self.is_full:
            self._interval_s = min(2 * self._interval_s, self._longest_retry_s)
            self._next_try = self._clock() + self._interval_s

    def worked(self, *, began: float) -> None:
        """A chunk was written whole. If that began after the disk was full, there is room again."""
        if self._since is not None and began > self._since:
            self._before_s, self._since = self.seconds, None
            logger.info("the file system has room again; staging on disk goes on")
