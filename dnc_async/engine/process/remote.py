"""The consumer's side: the engine's process, and the streams that run in it, as their client holds them.

One thread reads what the engine tells. It sleeps while a batch is ready when it is wanted, so that a consumer that holds
Python's lock is not disturbed, and loses nothing by disturbing it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from dnc_async.engine.bridge import end_at_exit
from dnc_async.engine.process.channel import Channel
from dnc_async.engine.process.inbox import Inbox
from dnc_async.engine.process.messages import (
    Answer,
    Ask,
    Cancel,
    Events,
    Finished,
    Log,
    Open,
    Opened,
    Setup,
    Stop,
)
from dnc_async.engine.report.report import Report
from dnc_async.engine.runtime import StreamRequest
from dnc_async.errors import ArgumentError, EngineError, StreamClosedError
from dnc_async.system import peak_memory_bytes
from dnc_async.telemetry import Observer, Observers, StreamStatistics, logger

_ANSWER_S = 30.0
_EXIT_S = 10.0
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from dnc_async.engine.process.host import main; main(int(sys.argv[1]))"
)


def check_supported() -> None:
    """Raise :class:`~dnc_async.errors.ArgumentError` where there is no anonymous memory that can be passed on."""
    if not (sys.platform == "linux" and hasattr(os, "memfd_create")):
        raise ArgumentError("engine: 'process' works on Linux alone; leave it at 'thread' here")
    if not sys.executable:
        raise ArgumentError("engine: 'process' needs to know which Python to start, and sys.executable is empty")


class RemoteStream:
    """One stream that runs in the engine's process."""

    def __init__(self, engine: RemoteEngine, number: int, inbox: Inbox, observers: Iterable[Observer]) -> None:
        self._engine = engine
        self._number = number
        self._last: Answer | None = None
        self.inbox = inbox
        self.observers = Observers(observers)
        self.opened: Future[int | None] = Future()
        self.finished: Future[None] = Future()

    def __repr__(self) -> str:
        return f"<RemoteStream {self._number}, {'finished' if self.finished.done() else 'running'}>"

    def cancel(self) -> None:
        """Stop it; from any thread."""
        self._engine.tell(Cancel(self._number))

    def statistics(self) -> StreamStatistics:
        """A snapshot, from any thread. Raises :class:`~dnc_async.errors.EngineError` where nobody can tell any more."""
        return self._ask(report=False).statistics

    def report(self) -> Report:
        """The gap report so far, from any thread. Its peak of memory is that of both processes together."""
        report = self._ask(report=True).report
        assert report is not None  # noqa: S101 - it was asked for
        ours, theirs = peak_memory_bytes(), report.peak_memory_bytes
        return report if ours is None or theirs is None else replace(report, peak_memory_bytes=ours + theirs)

    def _ask(self, *, report: bool) -> Answer:
        try:
            return self._last_word() or self._engine.ask(self._number, report=report)
        except EngineError:
            last = self._last_word()  # it may have finished meanwhile
            if last is None:
                raise
            return last

    def _last_word(self) -> Answer | None:
        return self._last

    # What the thread is told.

    def told_opened(self, message: Opened) -> None:
        """It is open, or cannot be."""
        if self.opened.done():
            return
        if message.failure is None:
            self.opened.set_result(message.batches)
        else:
            self.opened.set_exception(message.failure.revived())

    def told_finished(self, message: Finished) -> None:
        """It left a last word."""
        if message.statistics is not None:
            self._last = Answer(-1, message.statistics, message.report)

    def end(self, error: Exception) -> None:
        """Nothing more comes; ``error`` is for those who were told of no other end. May be called again."""
        self.inbox.close(error)
        if not self.opened.done():
            self.opened.set_exception(error)
        if not self.finished.done():
            self.finished.set_result(None)


class RemoteEngine:
    """The process in which a client's streams run. Started with the first stream, or earlier by :meth:`start`."""

    def __init__(self, setup: Callable[[bool], Setup], observers: Iterable[Observer]) -> None:
        """``setup`` gives the engine's settings, told whether there are ``observers`` of all streams."""
        self._setup = setup
        self._pid = os.getpid()
        self._observers = list(observers)
        self._told = Observers(self._observers)
        self._control: Channel | None = None
        self._process: subprocess.Popen[bytes]
        self._epoll: select.epoll
        self._thread = threading.Thread(target=self._run, name="dnc_async engine's process", daemon=True)
        self._numbers = itertools.count()
        self._streams: dict[int, tuple[RemoteStream, bool]] = {}
        self._by_descriptor: weakref.WeakValueDictionary[int, Inbox] = weakref.WeakValueDictionary()
        self._questions: dict[int, tuple[int, Future[Answer]]] = {}
        self._stopping = False
        self._ended: Exception | None = None

    def __repr__(self) -> str:
        if self._control is None:
            return "<RemoteEngine, not started>"
        return f"<RemoteEngine {self._process.pid}, {'ended' if self._ended else 'running'}>"

    @property
    def ours(self) -> bool:
        """Whether this process is the one that started it, not a fork of that."""
        return os.getpid() == self._pid

    def check_process(self) -> None:
        """Raise :class:`~dnc_async.errors.StreamClosedError` in a forked child."""
        if not self.ours:
            raise StreamClosedError(
                f"this stream was opened in process {self._pid}, and process {os.getpid()} is a fork of it: "
                "open streams and clients after the fork, or start processes by 'spawn'"
            )

    def start(self) -> None:
        """Start the process, which takes half a second; nobody waits for it here. Raises :class:`EngineError`."""
        if self._control is not None:
            return
        control, theirs = Channel.pair()
        with theirs:
            command = [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), *sys.path]
            try:
                # In a group of its own: Ctrl-C reaches the consumer alone, which closes its streams in order.
                self._process = subprocess.Popen(  # noqa: S603 - our own module, under our own interpreter
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0
                )
            except OSError as error:
                control.close()
                raise EngineError(f"engine='process': {sys.executable} could not be started: {error}") from error
        self._control = control
        _channels.add(control)
        self._epoll = select.epoll()
        self._epoll.register(control.fileno(), select.EPOLLIN)
        control.send(self._setup(bool(self._observers)))
        end_at_exit(self)
        self._thread.start()

    def open(self, request: StreamRequest, *, observers: Iterable[Observer], owned: bool) -> RemoteStream:
        """Start a stream; ``owned``: the process ends with it."""
        started = time.monotonic()
        self.start()
        ended = self._ended
        if ended is not None:
            raise ended
        observers = list(observers)
        channel, theirs = Channel.pair()
        _channels.add(channel)
        number = next(self._numbers)
        inbox = Inbox(
            channel,
            number,
            clock=time.monotonic,
            tell=self.tell,
            arm=lambda: self._epoll.modify(channel.fileno(), select.EPOLLIN | select.EPOLLONESHOT),
        )
        self._by_descriptor[channel.fileno()] = inbox
        self._epoll.register(channel.fileno(), 0)
        stream = RemoteStream(self, number, inbox, observers)
        self._streams[number] = stream, owned
        with theirs:
            asked = Open(number, pickle.dumps(request), started, bool(observers))
            self.tell(asked, descriptors=[theirs.fileno()])
        ended = self._ended
        if ended is not None:  # meanwhile
            stream.end(ended)
        return stream

    def tell(self, message: object, *, descriptors: Iterable[int] = ()) -> None:
        """Tell the engine something, if it is there. From any thread."""
        if self._control is not None and self.ours:
            with contextlib.suppress(OSError):  # it has ended, of which the thread tells
                self._control.send(message, descriptors=list(descriptors))

    def ask(self, stream: int, *, report: bool) -> Answer:
        """What the engine says of a stream. Raises :class:`~dnc_async.errors.EngineError` where it does not answer."""
        self.check_process()
        question, answer = next(self._numbers), Future[Answer]()
        self._questions[question] = stream, answer
        try:
            self.tell(Ask(question, stream, report))
            if self._ended is not None or stream not in self._streams:
                raise EngineError("the engine's process has ended, and left no statistics of this stream")
            return answer.result(_ANSWER_S)
        except TimeoutError as error:
            raise EngineError(f"the engine's process did not answer within {_ANSWER_S:g} s") from error
        finally:
            del self._questions[question]

    def post(self, function: Callable[..., object], *args: Any) -> bool:  # noqa: ANN401
        """Call a function that tells the engine something: that may be done in any thread."""
        if self._ended is not None or not self.ours:
            return False
        function(*args)
        return True

    def stop(self) -> None:
        """Ask the process to end; returns at once."""
        self._stopping = True
        self.tell(Stop())

    def join(self) -> None:
        """Wait until the process has ended, and nothing is left of it."""
        if self._thread is not threading.current_thread() and self.ours and self._thread.ident is not None:
            self._thread.join(2 * _EXIT_S)

    # The thread.

    def _run(self) -> None:
        assert self._control is not None  # noqa: S101 - set before the thread starts
        try:
            while True:
                self._look(self._control)
        except EOFError:
            pass
        except Exception:  # noqa: BLE001 - the consumer is told that the process has ended
            logger.exception("what the engine's process said was not understood")
        finally:
            self._control.close()
            self._end(self._reaped())
            self._epoll.close()

    def _reaped(self) -> int:
        try:
            return self._process.wait(_EXIT_S)
        except (
            subprocess.TimeoutExpired
        ):  # something in it holds on; its lock goes with it, and its files with the next one
            self._process.kill()
            return self._process.wait()

    def _look(self, control: Channel) -> None:
        for descriptor, _ in self._epoll.poll():
            if descriptor == control.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        self._handle(control.receive(wait=False)[0])
            else:
                inbox = self._by_descriptor.get(descriptor)
                if inbox is not None:
                    inbox.wake()

    def _handle(self, message: object) -> None:
        match message:
            case Opened():
                self._streams[message.stream][0].told_opened(message)
            case Finished():
                self._finished(message)
            case Answer():
                if message.question in self._questions:  # else nobody waits any more
                    self._questions[message.question][1].set_result(message)
            case Events():
                self._tell_observers(message)
            case Log():
                logger.handle(message.record)

    def _finished(self, message: Finished) -> None:
        stream, owned = self._streams[message.stream]
        stream.told_finished(message)
        self._leave_unanswered(lambda asked: asked == message.stream)
        if owned:  # it is finished when the process has ended
            stream.inbox.close(StreamClosedError("the stream was closed"))
            self.stop()
        else:
            del self._streams[message.stream]
            stream.end(StreamClosedError("the stream was closed"))

    def _leave_unanswered(self, choose: Callable[[int], bool]) -> None:
        for stream, answer in list(self._questions.values()):
            if choose(stream) and not answer.done():
                answer.set_exception(EngineError("the stream ended before the question came"))

    def _tell_observers(self, events: Events) -> None:
        if events.dropped:
            logger.warning(
                "%d events were dropped: observers of an engine in another process are told too late", events.dropped
            )
        for number, event in events.told:
            if number is None:
                self._told.tell(event)
            elif number in self._streams:
                self._streams[number][0].observers.tell(event)

    def _end(self, status: int) -> None:
        self._ended = (
            StreamClosedError("the client was closed")
            if self._stopping
            else EngineError(
                f"the engine's process {self._process.pid} ended {_manner(status)} while its streams ran; what it staged on disk "
                "is deleted by the next one that uses the folder"
            )
        )
        self._leave_unanswered(lambda _: True)
        for stream, _ in list(self._streams.values()):
            stream.end(self._ended)


def _manner(status: int) -> str:
    return f"by signal {-status}" if status < 0 else f"with exit status {status}"


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child's copies would keep the engine's process alive when ours is gone."""
    for channel in list(_channels):
        channel.forget()


os.register_at_fork(after_in_child=_after_fork)
