"""Decides which requests are answered at the same time, and whose answer has to make room where they are too many."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from .memory import Account

_STALLED_S = 0.5  # a client that has not read for so long makes room for others
_IPV6_BITS = 64  # one client has a network of so many bits, not one address


@lru_cache(1024)
def peer_of(address: str | None) -> str:
    """Whom to count a connection's requests with: an IPv4 address, or an IPv6 network."""
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or ""
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, _IPV6_BITS), strict=False))


@dataclass(eq=False, slots=True)
class Answer:
    """A request that is being answered. ``cut`` ends its connection, ``used`` are the steps that it has taken so far."""

    peer: str
    cut: Callable[[], None]
    account: Account
    waiting_s: Callable[[], float] = field(default=lambda: 0.0)
    used: int = 0


class Slots:
    """At most ``most`` answers at the same time.

    Where all slots are taken, an answer to a client that does not read makes room, or else the costliest one of a peer that has
    at least two more than the newcomer's. Otherwise the newcomer is refused: within one peer nobody is known to take too much.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: dict[Answer, None] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def admit(self, answer: Answer) -> bool:
        """Take a slot, if there is one or one can be freed."""
        if len(self._answers) >= self._most:
            victim = self._stalled() or self._unfair(answer.peer)
            if victim is None:
                return False
            self.leave(victim)
            victim.cut()
        self._answers[answer] = None
        return True

    def leave(self, answer: Answer) -> None:
        """Free a slot; does nothing for an answer without one."""
        self._answers.pop(answer, None)

    def _stalled(self) -> Answer | None:
        longest = max(self._answers, key=lambda answer: answer.waiting_s(), default=None)
        return longest if longest is not None and longest.waiting_s() >= _STALLED_S else None

    def _unfair(self, peer: str) -> Answer | None:
        counts = Counter(answer.peer for answer in self._answers)
        most, count = max(counts.items(), key=lambda entry: entry[1], default=("", 0))
        if count < counts[peer] + 2:
            return None
        return max((answer for answer in self._answers if answer.peer == most), key=lambda answer: answer.used)
