"""The engine's process as its parent holds it: the process, the channel to it, and all that the parent's thread waits on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess

from dnc_async.engine.process.channel import Channel
from dnc_async.engine.process.messages import Setup
from dnc_async.engine.process.spawn import spawned

#: A process that has nothing more to say has so long to end.
EXIT_S = 5.0


class Child:
    """A process that was started. It is left by :meth:`abandon`, or by :meth:`reap` and :meth:`close`."""

    def __init__(self, setup: Setup) -> None:
        """Start it, and tell it its setup. Raises :class:`~dnc_async.errors.EngineError` where it cannot be started."""
        with contextlib.ExitStack() as undo:
            self.control, theirs = Channel.pair()
            undo.callback(self.control.close)
            with theirs:
                # Not one of the three standard streams, which may be closed here.
                descriptor = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)
                try:
                    self.process = spawned(descriptor)
                finally:
                    os.close(descriptor)
            undo.callback(self.process.wait)
            undo.callback(self.process.kill)
            self._epoll = select.epoll()
            undo.callback(self._epoll.close)
            self._epoll.register(self.control.fileno(), select.EPOLLIN)
            # A process that it forked, or that we did meanwhile, may hold a copy of the other end.
            self._pidfd = os.pidfd_open(self.process.pid)
            undo.callback(os.close, self._pidfd)
            self._epoll.register(self._pidfd, select.EPOLLIN)
            # Wakes the thread, which may sleep for longer.
            self._news = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._news)
            self._epoll.register(self._news, select.EPOLLIN)
            with contextlib.suppress(OSError):  # it has ended, which the thread reports
                self.control.send(setup)
            self._undo = undo.pop_all()

    def __repr__(self) -> str:
        return f"<Child {self.process.pid}>"

    def watch(self, channel: Channel) -> None:
        """Have the thread wait on a stream's channel, too, whenever it is armed."""
        self._epoll.register(channel.fileno(), select.EPOLLONESHOT)

    def arm(self, channel: Channel) -> None:
        """Wake the thread, once, when something lies in a stream's channel."""
        self._epoll.modify(channel.fileno(), select.EPOLLIN | select.EPOLLONESHOT)

    def wake(self) -> None:
        """Wake the thread: there is something to do that it does not know of."""
        os.eventfd_write(self._news, 1)

    def wait(self, seconds: float | None) -> list[int]:
        """Wait until something is there to be read; gives the descriptors, and last the process's own, if it has ended."""
        found = {descriptor for descriptor, _ in self._epoll.poll(seconds)}
        if self._news in found:
            os.eventfd_read(self._news)
        return sorted(found - {self._news}, key=self.is_exit)

    def wait_for_message(self, seconds: float) -> bool:
        """Wait for nothing but a message on the control channel, or the end of the process; ``False`` if neither came."""
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def is_exit(self, descriptor: int) -> bool:
        """Whether a descriptor is the process's own, which tells that it has ended."""
        return descriptor == self._pidfd

    def reap(self) -> int:
        """Hear no more of it, wait until it has ended, and give its exit status. One that does not end is killed."""
        self.control.close()
        try:
            return self.process.wait(EXIT_S)
        except (
            subprocess.TimeoutExpired
        ):  # something in it does not end; its lock goes with it, and the next engine removes its files
            self.process.kill()
            return self.process.wait()

    def close(self) -> None:
        """Close what was waited on. Nobody may wake the thread any more."""
        self._epoll.close()
        os.close(self._pidfd)
        os.close(self._news)

    def abandon(self) -> None:
        """Kill it, and leave nothing of it: no thread has begun to wait on it."""
        self._undo.close()
