"""What may go wrong at a simulated disk, as data, and equivalent to a line of text."""

from __future__ import annotations

from dataclasses import dataclass

from dnc_async.testing.script import (
    Window,
    count_word,
    outage_word,
    parse_script,
    rate_word,
    size_word,
    time_word,
    write_script,
)


@dataclass(frozen=True, kw_only=True)
class DiskFaults:
    """A disk's script. The default is an infinite disk without faults. All times count from the start."""

    capacity: int | None = None
    """``capacity=8MB``: so many bytes fit, all files together."""
    full: Window | None = None
    """``full=2s-5s``: in that time another program has used all free space."""
    rate: float | None = None
    """``rate=4MB``: bytes a second that are written, or read back."""
    write_error: int | None = None
    """``write-error=20``: every 20th write fails (EIO)."""
    read_error: int | None = None
    """``read-error=20``: every 20th read fails (EIO)."""
    flip: int | None = None
    """``flip=20``: every 20th read gives one bit turned."""
    tidy_s: float | None = None
    """``tidy=2s``: then another program deletes the spool's folder with everything in it."""
    files: int | None = None
    """``files=4``: so many files can be open at once."""

    @classmethod
    def parse(cls, text: str) -> DiskFaults:
        """Parse a script such as ``"rate=4MB,full=2s-5s"``. The error names the wrong word."""
        return cls(**parse_script(text, _WORDS, "disk fault"))

    def __str__(self) -> str:
        return write_script(self, _WORDS)


_WORDS = {
    "capacity": size_word("capacity", "8MB"),
    "full": outage_word("full", "2s-5s"),
    "rate": rate_word("rate"),
    "write-error": count_word("write_error", "20"),
    "read-error": count_word("read_error", "20"),
    "flip": count_word("flip", "20"),
    "tidy": time_word("tidy_s", "2s"),
    "files": count_word("files", "4"),
}
