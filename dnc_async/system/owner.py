"""Identifies the process that created something on another machine, where locks do not work, and tells whether it is dead."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TEXT = re.compile(r"([0-9a-f]{12})-(\d{1,10})-(\d{1,20})")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process. ``host`` identifies a machine until its next boot, and a container on it.

    ``started`` distinguishes a process from a later one with the same pid, if the system tells when processes started.
    """

    host: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.host}-{self.pid}-{self.started}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The owner that ``str()`` wrote; ``None`` for any other text."""
        found = _TEXT.fullmatch(text)
        return cls(found[1], int(found[2]), int(found[3])) if found else None

    @classmethod
    def this_process(cls) -> Self:
        """The calling process."""
        return cls(_host(), os.getpid(), _running_since(os.getpid()) or 0)

    def is_dead(self) -> bool | None:
        """Whether the process has ended; ``None`` if that cannot be known: it ran on another machine or container."""
        if self.host != _host() or os.name != "posix":
            return None
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:  # another user's
            pass
        since = _running_since(self.pid)
        return since is not None and self.started not in (0, since)


def _host() -> str:
    """A hash that is the same for all processes whose pids we can see until the machine's next boot, and for no others."""
    parts = [socket.gethostname()]
    if sys.platform == "linux":
        try:
            parts += [
                Path("/proc/sys/kernel/random/boot_id").read_text("ascii"),
                str(Path("/proc/self/ns/pid").readlink()),
            ]
        except OSError:  # without /proc it is not known: equal to no other
            parts.append(str(uuid.uuid4()))
    else:
        parts.append(str(uuid.getnode()))  # random for each process, if there is no hardware address
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _running_since(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; -1 if it has ended and was not reaped; ``None`` if not known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return -1 if fields[0] in (b"Z", b"X") else int(fields[19])
    return None
