"""Messages between two of our own processes: pickled, and mapped instead of copied if they are large.

A packet contains a small message itself. Otherwise the message and the buffers of its arrays (pickle's protocol 5) are in
anonymous memory, whose descriptor is sent with the packet. The receiver maps that memory privately, so its arrays are writable,
and stay its own even after a fork.
"""

from __future__ import annotations

import array
import contextlib
import errno
import mmap
import os
import pickle
import socket
import struct
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dnc_async.errors import EngineError

#: The size of a packet; a local socket's buffer has some 200 KiB by default.
_PACKET_BYTES = 32 * 2**10
_MOST_BUFFERS = 1024
_ALIGNMENT = 64
#: Up to Python 3.12 a mapping keeps a descriptor open: at most this many; further messages are copied.
_MOST_DESCRIPTORS = 64
_HEADER = struct.Struct("<?I")
_SIZE = struct.Struct("<Q")

_mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


class Channel:
    """One end of a socket pair. Packets arrive whole, in order, or not at all. Any thread may send; one at a time may receive."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._spare = -1
        _channels.add(self)
        self._keep_spare()

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Create an end for this process, and the socket for the other."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def __repr__(self) -> str:
        return f"<Channel {self._socket.fileno()}>"

    def fileno(self) -> int:
        """The socket's descriptor, to wait on."""
        return self._socket.fileno()

    def send(self, message: object, *, descriptors: Sequence[int] = (), wait: bool = True) -> None:
        """Send a message, and descriptors, of which the other end gets copies.

        Raises ``OSError`` if the other end is gone, ``BlockingIOError`` if it would have to wait and may not,
        :class:`~dnc_async.errors.EngineError` if there is no memory for the message, and what pickle raises.
        """
        packed = Packed(message)
        try:
            self.send_packed(packed, descriptors=descriptors, wait=wait)
        finally:
            packed.close()

    def send_packed(self, packed: Packed, *, descriptors: Sequence[int] = (), wait: bool = True) -> None:
        """Send a packed message; may be tried again."""
        flags = socket.MSG_NOSIGNAL | (0 if wait else socket.MSG_DONTWAIT)
        passed = array.array("i", [*packed.descriptors, *descriptors])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)] if passed else []
        self._socket.sendmsg([packed.packet], rights, flags)
        packed.close()

    def receive(self, *, wait: bool) -> tuple[Any, list[int]]:
        """The next message, and the descriptors that were sent with it.

        Raises ``EOFError`` if the other end is gone, and ``BlockingIOError`` if there is no message yet and it may not wait.
        """
        received = self.receive_packed(wait=wait)
        return received.unpack(), received.descriptors

    def receive_packed(self, *, wait: bool) -> Received:
        """The next message, packed. Raises as :meth:`receive` does, or :class:`~dnc_async.errors.EngineError` for a lost one."""
        packet = bytearray(_PACKET_BYTES)
        room = socket.CMSG_SPACE(8 * array.array("i").itemsize)
        flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
        self._give_up_spare()
        try:
            count, ancillary, told, _ = self._socket.recvmsg_into([packet], room, flags)
        except ConnectionError as error:
            raise EOFError from error
        except BlockingIOError:
            self._keep_spare()
            raise
        descriptors = list(_descriptors(ancillary))
        if not count:
            raise EOFError
        if told & socket.MSG_CTRUNC:  # the packet is lost
            for descriptor in descriptors:
                os.close(descriptor)
            raise EngineError(
                "engine='process': a message was lost, as this process may open no more files; close some, or raise the limit "
                "(ulimit -n)"
            )
        return Received(memoryview(packet)[:count], descriptors, self._keep_spare)

    def _keep_spare(self) -> None:
        """Reserve a descriptor for the next message, in case the process uses up all others meanwhile."""
        if self._spare < 0:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_up_spare(self) -> None:
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)

    def close(self) -> None:
        """Tell the other end that nothing more is sent, even if other copies of this end exist. May be called again."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.forget()

    def forget(self) -> None:
        """Close only this copy, in a forked process."""
        self._give_up_spare()
        self._socket.close()


class Received:
    """A received message, and its descriptors."""

    def __init__(self, packet: memoryview, descriptors: list[int], unpacked: Callable[[], None]) -> None:
        """``unpacked`` is called when its memory needs no descriptor any more."""
        self._packet = packet
        self._unpacked = unpacked
        self.descriptors = descriptors

    def unpack(self) -> Any:  # noqa: ANN401 - whatever was sent
        """The message. If interrupted (Ctrl-C), it may be called again; other exceptions are raised once."""
        message = _unpack(self._packet, self.descriptors)
        self._unpacked()
        return message


class Packed:
    """A message that is ready to be sent; its large parts are in anonymous memory, whose descriptor it holds until then."""

    def __init__(self, message: object) -> None:
        """Raises :class:`~dnc_async.errors.EngineError` if there is no memory for the message, and what pickle raises."""
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        if len(buffers) > _MOST_BUFFERS:
            data, buffers = pickle.dumps(message, protocol=5), []
        parts = [memoryview(data), *(buffer.raw() for buffer in buffers)]
        head_bytes = _HEADER.size + len(parts) * _SIZE.size
        is_inline = _aligned(head_bytes) + sum(_aligned(len(part)) for part in parts) <= _PACKET_BYTES
        self.descriptors: list[int] = [] if is_inline else [_to_pass(parts)]
        head = _HEADER.pack(is_inline, len(parts)) + b"".join(_SIZE.pack(len(part)) for part in parts)
        self.packet = b"".join(_padded(part) for part in (memoryview(head), *parts)) if is_inline else head

    def close(self) -> None:
        """Close the descriptor. May be called again."""
        while self.descriptors:
            os.close(self.descriptors.pop())


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT


def _padded(part: memoryview) -> bytes:
    return bytes(part).ljust(_aligned(len(part)), b"\0")


def _to_pass(parts: Sequence[memoryview]) -> int:
    """As :func:`_in_memory`, but errors of the system are distinguished from those of pickle."""
    try:
        return _in_memory(parts)
    except OSError as error:
        size_bytes = sum(map(len, parts))
        limited = error.errno == errno.EFBIG  # the limit applies to anonymous memory, too
        why = "it is larger than a file may be here (ulimit -f)" if limited else error.strerror or str(error)
        raise EngineError(f"{size_bytes:,} bytes cannot be passed to another process: {why}") from error


def _in_memory(parts: Sequence[memoryview]) -> int:
    descriptor = os.memfd_create("dnc_async", os.MFD_CLOEXEC)
    try:
        at = 0
        for part in parts:
            written = 0
            while written < len(part):
                written += os.pwrite(descriptor, part[written:], at + written)
            at += _aligned(len(part))
        os.ftruncate(descriptor, at)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> Iterator[int]:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) // numbers.itemsize * numbers.itemsize])
            yield from numbers


def _unpack(packet: memoryview, descriptors: list[int]) -> Any:  # noqa: ANN401 - whatever was sent
    """The message. Removes the descriptor of its memory from the list, unless interrupted."""
    is_inline, count = _HEADER.unpack_from(packet)
    sizes = [_SIZE.unpack_from(packet, _HEADER.size + i * _SIZE.size)[0] for i in range(count)]
    if is_inline:  # a copy: aligned, and no larger than necessary
        body = np.frombuffer(packet, np.uint8)[_aligned(_HEADER.size + count * _SIZE.size) :].copy()
        return _loaded(body.data, sizes)
    try:
        message = _loaded(_map(descriptors[0], sum(map(_aligned, sizes))), sizes)
    except Exception:
        os.close(descriptors.pop(0))
        raise
    os.close(descriptors.pop(0))
    return message


def _loaded(body: memoryview, sizes: Sequence[int]) -> Any:  # noqa: ANN401 - as above
    parts, at = [], 0
    for size in sizes:
        parts.append(body[at : at + size])
        at += _aligned(size)
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 - from our own child or parent, over a socket pair that only we have


def _map(descriptor: int, size_bytes: int) -> memoryview:
    with contextlib.suppress(OSError):  # too many files, or mappings: vm.max_map_count
        if sys.version_info >= (3, 13):
            return memoryview(mmap.mmap(descriptor, size_bytes, flags=mmap.MAP_PRIVATE, trackfd=False))
        if len(_mapped) < _MOST_DESCRIPTORS:
            mapping = mmap.mmap(descriptor, size_bytes, flags=mmap.MAP_PRIVATE)
            _mapped.add(mapping)
            return memoryview(mapping)
    whole = np.empty(size_bytes, np.uint8).data
    at = 0
    while at < size_bytes:
        at += os.preadv(descriptor, [whole[at:]], at)
    return whole


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child's copies would keep the other end from hearing that this process is gone."""
    for channel in list(_channels):
        channel.forget()


os.register_at_fork(after_in_child=_after_fork)
