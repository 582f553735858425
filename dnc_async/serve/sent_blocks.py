"""Remembers which blocks an answer with ``dups=n`` has sent already, in bounded memory for each answer and for all together."""

from __future__ import annotations

import threading

from dnc_async.ipld.cid import Cid

_OWN = 2048  # each answer may remember so many; more than one whose length is measured before it is sent
_SHARED = 2**19  # and all together so many more: about 60 MB
_PORTION = 1024


class SharedMemory:
    """How many more blocks all answers together may remember. Its methods may be called from any thread."""

    def __init__(self, blocks: int = _SHARED) -> None:
        self._left = blocks
        self._lock = threading.Lock()

    def take(self, blocks: int) -> bool:
        """Take so many, if they are left."""
        with self._lock:
            if self._left < blocks:
                return False
            self._left -= blocks
            return True

    def give_back(self, blocks: int) -> None:
        """Return what was taken."""
        with self._lock:
            self._left += blocks


class SentBlocks:
    """The blocks of one answer. Where memory ends, further ones are forgotten, and may be sent twice."""

    def __init__(self, shared: SharedMemory) -> None:
        self._shared = shared
        self._sent: set[tuple[int, bytes]] = set()
        self._partly: set[tuple[int, bytes]] = set()
        self._room = _OWN
        self._taken = 0

    def add(self, cid: Cid, *, whole: bool = True) -> tuple[bool, bool]:
        """Note a block that is about to be sent; returns whether it is to be sent, and whether its links are to be followed.

        Without ``whole`` only some of its links are followed now, and the others when it comes again.
        """
        key = (cid.codec, cid.multihash)
        is_new = key not in self._sent
        if not is_new and key not in self._partly:
            return False, False
        if is_new and self._has_room():
            self._sent.add(key)
        if not whole and key in self._sent:
            self._partly.add(key)
        else:
            self._partly.discard(key)
        return is_new, True

    def close(self) -> None:
        """Forget them all."""
        self._sent.clear()
        self._shared.give_back(self._taken)
        self._room = self._taken = 0

    def _has_room(self) -> bool:
        if len(self._sent) < self._room:
            return True
        if not self._shared.take(_PORTION):
            return False
        self._room += _PORTION
        self._taken += _PORTION
        return True
