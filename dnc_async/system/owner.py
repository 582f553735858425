"""Who made something that lies elsewhere, where no lock can tell: a process of a machine, and whether it is dead for certain."""

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
    """A process: its ``host`` stands for a machine, as long as that runs, and a container on it.

    ``started`` tells a process from a later one with its pid, where the system says when processes began.
    """

    host: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.host}-{self.pid}-{self.started}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What :meth:`__str__` gave; ``None`` for any other text."""
        found = _TEXT.fullmatch(text)
        return cls(found[1], int(found[2]), int(found[3])) if found else None

    @classmethod
    def this_process(cls) -> Self:
        """The one that calls."""
        return cls(_host(), os.getpid(), _running_since(os.getpid()) or 0)

    def is_dead(self) -> bool | None:
        """Whether it runs no more; ``None`` where that cannot be told from here: it is another machine's, or container's."""
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
    """The same for all processes whose pids we see, as long as this machine runs, and for no others."""
    parts = [socket.gethostname()]
    if sys.platform == "linux":
        try:
            parts += [
                Path("/proc/sys/kernel/random/boot_id").read_text("ascii"),
                str(Path("/proc/self/ns/pid").readlink()),
            ]
        except OSError:  # without /proc nobody knows: it is nobody's equal
            parts.append(str(uuid.uuid4()))
    else:
        parts.append(str(uuid.getnode()))  # where there is none to be had, random for each process
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _running_since(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; -1 where it has ended, and nobody has asked how."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return -1 if fields[0] in (b"Z", b"X") else int(fields[19])
    return None
