"""The folders in a node's MFS that contain the parts of uploads: their names, and which of them can be removed.

A folder is called ``/dnc-upload-HOST-PID-STARTED-TIME-NONCE``, and a part in it ``NUMBER-TIME``. The next upload to the node
removes the folders of dead processes. Whether a process is dead is known only on the machine (and in the container) where it
ran; other folders are removed if nothing was added for a week. A living process's folder is never removed on its own machine.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from dnc_async.system.owner import Owner

_NAME = re.compile(r"dnc-upload-([0-9a-f]{12}-\d{1,10}-\d{1,20})-(\d{1,12})-([0-9a-f]{16})")
_PART = re.compile(r"\d+-(\d{1,12})")
#: An upload that sends no part (16 MiB, or 1,024 blocks) for this long is taken for dead.
_SILENT_S = 7 * 86_400

#: The folders of this process that are in use.
_living: set[str] = set()


@dataclass(frozen=True, slots=True)
class UploadFolder:
    """One upload's folder."""

    owner: Owner
    made_at: int
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def new(cls, now: float) -> Self:
        """A folder for an upload of this process; in use until :meth:`let_go`."""
        folder = cls(Owner.this_process(), int(now))
        _living.add(folder.nonce)
        return folder

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The folder with this name in the MFS's root; ``None`` for anything else."""
        found = _NAME.fullmatch(name)
        owner = Owner.parse(found[1]) if found else None
        return cls(owner, int(found[2]), found[3]) if found and owner else None

    @property
    def path(self) -> str:
        """The path of the folder in the MFS."""
        return f"/dnc-upload-{self.owner}-{self.made_at}-{self.nonce}"

    def part(self, number: int, now: float) -> str:
        """The path of a part, which includes the time when it was sent."""
        return f"{self.path}/{number}-{int(now)}"

    def let_go(self) -> None:
        """Mark the folder as not in use any more."""
        _living.discard(self.nonce)

    def is_left(self) -> bool | None:
        """Whether its upload is over; ``None`` if only its age can tell."""
        if self.owner == Owner.this_process():
            return self.nonce not in _living
        return self.owner.is_dead()

    def is_old(self, parts: Iterable[str], now: float) -> bool:
        """Whether nothing was added for a long time; ``parts`` are the names in it."""
        times = [int(found[1]) for name in parts if (found := _PART.fullmatch(name))]
        return now - max([self.made_at, *times]) > _SILENT_S
