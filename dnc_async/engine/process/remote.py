"""The consumer's side of the engine's process.

One thread reads the engine's messages. It sleeps while a batch is ready when it is wanted, so it does not disturb a consumer
that holds Python's lock.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import pickle
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from dnc_async.dataset.manifest import Manifest
from dnc_async.engine.bridge import RunningCall, check_not_forked, check_threads, end_at_exit, wait_for_future
from dnc_async.engine.engine import EngineSetup
from dnc_async.engine.process.channel import Channel
from dnc_async.engine.process.child import EXIT_S, Child
from dnc_async.engine.process.end_watch import EndWatch, Measure
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
    Ping,
    Pong,
    Setup,
    Stop,
)
from dnc_async.engine.process.remote_stream import RemoteStream
from dnc_async.engine.process.spawn import check_supported
from dnc_async.engine.runtime import Origin, StreamRequest
from dnc_async.engine.thread_engine import ThreadEngine
from dnc_async.errors import ArgumentError, EngineError, StreamClosedError
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.cid import Cid
from dnc_async.system.folders import sweep
from dnc_async.telemetry import Observer, Observers, logger

T = TypeVar("T")
#: How long a question waits for its answer. If there is none, no further question waits until the engine sends something.
_ANSWER_S = 5.0
#: An engine that was asked to end something has this long to answer, then this long in addition to its transforms' patience…
_THERE_S, _END_S = 3.0, 10.0
#: …and this long after SIGTERM.
_TERMINATE_S = 2.0


class RemoteEngine:
    """The process in which a client's streams run. Started by the first stream, or earlier by :meth:`start`."""

    def __init__(self, setup: EngineSetup) -> None:
        """Create it, and start nothing. Raises :class:`~dnc_async.errors.ArgumentError` if processes are not supported here."""
        check_supported()
        self._setup = setup
        self._beside: ThreadEngine | None = None
        end_s = _END_S + setup.settings.transform_patience_s
        self._watch = EndWatch(answer_s=_THERE_S, end_s=end_s, terminate_s=_TERMINATE_S)
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._silent = False
        #: Done when nothing is left of the engine.
        self.ended: Future[None] = Future()
        self._pid = os.getpid()
        self._told = Observers(setup.observers)
        self._child: Child | None = None
        self._thread = threading.Thread(target=self._run, name="dnc_async engine's process", daemon=True)
        self._numbers = itertools.count()
        self._streams: dict[int, tuple[RemoteStream, bool]] = {}
        self._by_descriptor: weakref.WeakValueDictionary[int, Inbox] = weakref.WeakValueDictionary()
        self._questions: dict[int, tuple[int, Future[Answer]]] = {}
        #: Held while it is started, while a stream is added, and when all streams end.
        self._lock = threading.RLock()
        self._later: deque[Events] = deque()
        self._stopping = False
        self._ended: Exception | None = None

    def __repr__(self) -> str:
        if self._child is None:
            return "<RemoteEngine, not started>"
        return f"<RemoteEngine {self._child.process.pid}, {'ended' if self._ended else 'running'}>"

    @property
    def is_started(self) -> bool:
        """Whether the process, or the thread for calls, was started."""
        return self._child is not None or self._beside is not None

    @property
    def ours(self) -> bool:
        """Whether this process started it, and is not a fork."""
        return os.getpid() == self._pid

    def check_process(self) -> None:
        """Raise :class:`~dnc_async.errors.StreamClosedError` in a forked child."""
        check_not_forked(self._pid)

    def start(self) -> None:
        """Start the process, which takes half a second; does not wait for it. Raises :class:`EngineError`."""
        with self._lock:
            if self._child is None:
                self._start()

    def _start(self) -> None:
        check_threads()
        self._child = child = Child(Setup.of(self._setup, log_level=logger.getEffectiveLevel()))
        try:
            self._thread.start()
        except BaseException as error:
            if self._thread.is_alive():  # interrupted, but it runs
                end_at_exit(self)
                raise
            self._child = None
            child.abandon()
            if isinstance(error, RuntimeError):  # Python's word for a limit of the system's
                raise EngineError(f"engine='process': no thread could be started: {error}") from error
            raise
        end_at_exit(self)

    def open_stream(
        self, request: StreamRequest, *, observers: Iterable[Observer], owned: bool
    ) -> tuple[RemoteStream, Inbox]:
        """Start a stream; the process ends with one that is ``owned``."""
        started = time.monotonic()
        self.start()
        observers = list(observers)
        try:
            pickled = pickle.dumps(request, protocol=5)
        except Exception as error:
            raise ArgumentError(f"engine='process': what was asked for can no longer be pickled: {error}") from error
        with self._lock:
            if self._ended is not None:
                raise self._ended
            stream = self._entered(pickled, started, observers, owned=owned)
        return stream, stream.inbox

    def _entered(self, pickled: bytes, started: float, observers: list[Observer], *, owned: bool) -> RemoteStream:
        child = self._child
        assert child is not None  # noqa: S101 - it was started
        channel, theirs = Channel.pair()
        number = next(self._numbers)
        inbox = Inbox(
            channel,
            number,
            clock=time.monotonic,
            tell=self.tell,
            arm=lambda: child.arm(channel),
        )
        self._by_descriptor[channel.fileno()] = inbox
        child.watch(channel)
        stream = RemoteStream(self, number, inbox, observers)
        self._streams[number] = stream, owned
        try:
            with theirs:
                self.tell(Open(number, pickled, started, bool(observers)), descriptors=[theirs.fileno()])
        except BaseException:  # the engine did not get the message, and would send nothing
            del self._streams[number]
            channel.close()
            if owned:
                self.stop()
            raise
        return stream

    async def manifest(self, origin: Origin, root: Cid, path: tuple[str, ...]) -> Manifest:
        """Load the manifest of the dataset at a path below a root, in the consumer's process."""
        return await self._engine_beside().manifest(origin, root, path)

    async def with_group(self, origin: Origin, root: Cid, function: Callable[[FetchGroup], Awaitable[T]]) -> T:
        """Run a function that fetches, in the consumer's process, because it cannot be sent to another."""
        return await self._engine_beside().with_group(origin, root, function)

    def begin_with_group(
        self, origin: Origin, root: Cid, function: Callable[[FetchGroup], Awaitable[T]]
    ) -> RunningCall[T]:
        """Start a function that fetches, in the consumer's process, because it cannot be sent to another."""
        return self._engine_beside().begin_with_group(origin, root, function)

    def _engine_beside(self) -> ThreadEngine:
        """The engine for the client's calls, created with the first of them; streams do not need it."""
        with self._lock:
            if self._beside is None:
                self._beside = ThreadEngine(self._setup)
            return self._beside

    def tell(self, message: object, *, descriptors: Iterable[int] = (), wait: bool = True) -> None:
        """Send a message to the engine if it is alive, and does not hang where we may not ``wait``. From any thread."""
        if self._child is not None and self.ours:
            with contextlib.suppress(OSError):  # it has ended, or hangs, which the thread reports
                self._child.control.send(message, descriptors=list(descriptors), wait=wait)

    def ask(self, stream: int, *, report: bool) -> Answer:
        """Ask the engine about a stream. Raises :class:`~dnc_async.errors.EngineError` if it does not answer."""
        self.check_process()
        question, answer = next(self._numbers), Future[Answer]()
        self._questions[question] = stream, answer
        try:
            self.tell(Ask(question, stream, report))
            if self._ended is not None or stream not in self._streams:
                raise EngineError("the engine's process has ended, and left no statistics of this stream")
            if self._silent:
                raise EngineError("the engine's process does not answer: it is stopped, or hangs")
            if threading.current_thread() is self._thread:  # an observer asks
                self._read_until(answer)
            return answer.result(_ANSWER_S)
        except TimeoutError as error:
            self._silent = True
            raise EngineError(f"the engine's process did not answer within {_ANSWER_S:g} s") from error
        finally:
            self._questions.pop(question, None)

    def post(self, function: Callable[..., object], *args: Any) -> bool:  # noqa: ANN401
        """Call a function that sends to the engine, which any thread may do."""
        if self._ended is not None or not self.ours:
            return False
        function(*args)
        return True

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function in the reading thread after a delay, if it still runs then."""
        with self._lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), function))
        self._wake()

    def cancel(self, stream: int) -> None:
        """Ask for the end of a stream; returns at once."""
        self._end_soon(stream, Cancel(stream))

    def stop(self) -> None:
        """Ask the process to end; returns at once."""
        if self._beside is not None:
            self._beside.stop()
        self._stopping = True
        self._end_soon("the process", Stop())

    def _end_soon(self, what: int | str, message: object) -> None:
        if self._child is None or not self.ours:
            return
        with self._lock:
            if self._ended is not None or (isinstance(what, int) and what not in self._streams):
                return
            self._watch.asked(what, time.monotonic())
        self.tell(Ping(), wait=False)
        self.tell(message, wait=False)
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._child is not None and self._ended is None and self.ours:
                self._child.wake()

    def join(self) -> None:
        """Wait until the process has ended, and nothing of it is left."""
        if self._thread is not threading.current_thread() and self.ours and self._thread.ident is not None:
            self._thread.join(2 * EXIT_S)

    async def aclose(self) -> None:
        """End the process if it was started, and return when nothing of it is left. May be called again."""
        self.stop()
        if self._child is not None and self.ours:
            await wait_for_future(self.ended)
        self.join()
        if self._beside is not None:
            await self._beside.aclose()

    # The thread.

    def _run(self) -> None:
        child = self._child
        assert child is not None  # noqa: S101 - set before the thread starts
        try:
            while True:
                self._look(child)
        except EOFError:
            pass
        except Exception:  # noqa: BLE001 - the consumer is told that the process has ended
            logger.exception("what the engine's process said was not understood")
        finally:
            status = child.reap()
            with self._lock:
                self._end(child, status)
                child.close()
            self.ended.set_result(None)

    def _look(self, child: Child) -> None:
        while self._later:
            self._handle(self._later.popleft())
        self._keep_time(child)
        for descriptor in child.wait(self._wait_s()):
            if descriptor == child.control.fileno() or child.is_exit(descriptor):
                with contextlib.suppress(BlockingIOError):
                    while True:
                        self._handle(child.control.receive(wait=False)[0])
                if child.is_exit(descriptor):  # and all its messages were read
                    raise EOFError
            else:
                inbox = self._by_descriptor.get(descriptor)
                if inbox is not None:
                    inbox.wake()

    def _wait_s(self) -> float | None:
        """How long the thread may sleep if no message arrives."""
        with self._lock:
            due = min(self._watch.due_at(), self._timers[0][0] if self._timers else math.inf)
        return None if due == math.inf else max(0.0, due - time.monotonic())

    def _keep_time(self, child: Child) -> None:
        """Do what is due: make delayed calls, and take measures against an engine that does not end."""
        now, due = time.monotonic(), []
        with self._lock:
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
            measure = self._watch.look(now)
        for function in due:
            function()
        if measure is Measure.TERMINATE:
            child.process.terminate()
        elif measure is Measure.KILL:
            child.process.kill()

    def _read_until(self, answer: Future[Answer]) -> None:
        """Read messages while an observer waits in this thread; events for observers are kept for later."""
        assert self._child is not None  # noqa: S101 - the thread runs
        until = time.monotonic() + _ANSWER_S
        try:
            while not answer.done() and self._child.wait_for_message(max(0.0, until - time.monotonic())):
                message, _ = self._child.control.receive(wait=False)
                if isinstance(message, Events):
                    self._later.append(message)
                else:
                    self._handle(message)
        except (EOFError, BlockingIOError) as error:
            raise EngineError("the engine's process has ended") from error
        if not answer.done():
            raise TimeoutError

    def _handle(self, message: object) -> None:
        self._silent = False
        match message:
            case Pong():
                self._watch.answered()
            case Opened():
                self._streams[message.stream][0].told_opened(message)
            case Finished():
                self._finished(message)
            case Answer():
                asked = self._questions.get(message.question)
                if asked is not None:  # else the question was abandoned
                    asked[1].set_result(message)
            case Events():
                self._tell_observers(message)
            case Log():
                try:
                    logger.handle(message.record)
                except Exception:  # noqa: BLE001 - a handler of the consumer's; in an engine's thread it is asyncio that shows it
                    traceback.print_exc()

    def _finished(self, message: Finished) -> None:
        stream, owned = self._streams[message.stream]
        with self._lock:
            self._watch.ended(message.stream)
        stream.told_finished(message)
        if not owned:
            del self._streams[message.stream]  # first, so that later questions do not wait
        self._leave_unanswered(lambda asked: asked == message.stream)
        if owned:  # it is finished when the process has ended
            stream.inbox.close(StreamClosedError("the stream was closed"))
            self.stop()
        else:
            stream.end(StreamClosedError("the stream was closed"))

    def _leave_unanswered(self, choose: Callable[[int], bool]) -> None:
        for stream, answer in list(self._questions.values()):
            if choose(stream) and not answer.done():
                answer.set_exception(EngineError("the stream ended before it was asked"))

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

    def _end(self, child: Child, status: int) -> None:
        self._ended = (
            StreamClosedError("the client was closed")
            if self._stopping
            else EngineError(f"the engine's process {child.process.pid} ended {_manner(status)} while its streams ran")
        )
        if status:  # it had no time to clean up
            with contextlib.suppress(OSError):
                sweep(self._setup.spool_parent)
        self._leave_unanswered(lambda _: True)
        for stream, _ in list(self._streams.values()):
            stream.end(self._ended)


def _manner(status: int) -> str:
    return f"by signal {-status}" if status < 0 else f"with exit status {status}"
