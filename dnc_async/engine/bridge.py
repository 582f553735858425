"""The bridge between the engine's event loop, which has its own background thread, and the caller's.

The engine has to run while a notebook's cell computes without a pause, so it does not share the caller's loop. It is plain
async code; only this module and :mod:`~dnc_async.engine.wakeup` know about other threads. Only these use what is forbidden
elsewhere in the library: daemon threads, which are joined at exit, and a finalizer per iterator, because nothing tells an
iterator that its loop was left by a bare ``break``. The finalizer only posts "close", and only in the process that created the
iterator.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from typing import Any, Generic, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from dnc_async.engine.call_queue import CallQueue
from dnc_async.engine.wakeup import Wakeup
from dnc_async.errors import DncError, EngineError, StreamClosedError
from dnc_async.telemetry import logger

T = TypeVar("T")
_JOIN_S = 10.0
#: Opens what an engine needs onto a stack that is closed when the engine ends.
Setup = Callable[[contextlib.AsyncExitStack], Awaitable[None]]


class RunningCall(Generic[T]):
    """A call that runs in the engine. ``result`` is done when it has ended, and has cleaned up."""

    def __init__(self, result: Future[T], scope: anyio.CancelScope, post: Callable[..., bool]) -> None:
        self.result = result
        self._scope = scope
        #: Calls a function in the engine's thread; returns ``False`` if the engine has ended.
        self.post = post

    def __repr__(self) -> str:
        return f"<RunningCall {'ended' if self.result.done() else 'running'}>"

    def cancel(self) -> bool:
        """Ask it to end; returns at once, and ``False`` if it has ended already."""
        return not self.result.done() and self.post(self._scope.cancel)

    async def aclose(self) -> None:
        """Cancel it, and return when it has cleaned up. May be called again."""
        if self.cancel():
            with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
                await wait_for_future(self.result)


class LoopThread:
    """An event loop in a daemon thread, with one task group that owns all its tasks."""

    def __init__(self, setup: Setup) -> None:
        """``setup`` opens what the engine needs onto a stack that is closed when the thread ends."""
        self._setup = setup
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: CallQueue | None = None
        self._tasks: TaskGroup | None = None
        self._stop = threading.Event()
        self._started: Future[None] = Future()
        self._unanswered: set[Future[Any]] = set()
        self._failure: EngineError | None = None
        #: Done when nothing is left of the engine.
        self.ended: Future[None] = Future()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="dnc_async engine", daemon=True)
        #: Passes on what the consumer does while its step goes on.
        self.wakeup = Wakeup(self.post)

    def __repr__(self) -> str:
        return f"<LoopThread {'running' if self._thread.is_alive() else 'ended'}>"

    @property
    def ours(self) -> bool:
        """Whether this process is the one in which the thread runs, and not a fork of it."""
        return os.getpid() == self._pid

    def start(self) -> None:
        """Start the thread, which is joined at interpreter exit at the latest. Raises :class:`EngineError` if it cannot start."""
        check_threads()
        end_at_exit(self)
        try:
            self._thread.start()
        except RuntimeError as error:  # Python's word for a limit of the system's
            self._failure = EngineError(f"the engine could not start its thread: {error}")
            self.ended.set_result(None)
            raise self._failure from error

    def check_process(self) -> None:
        """Raise :class:`~dnc_async.errors.StreamClosedError` in a forked child, where the thread does not exist."""
        check_not_forked(self._pid)

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Future[T]:  # noqa: ANN401
        """Run a coroutine function as a task of the engine; returns a future with its result or error."""
        self.check_process()
        result: Future[T] = Future()
        self._unanswered.add(result)
        result.add_done_callback(self._unanswered.discard)
        if not self.post(self._spawn, function, args, result):
            _refuse(result, self.reason())
        return result

    def reason(self) -> DncError:
        """Why the engine does not run any more."""
        return self._failure or StreamClosedError("the client was closed")

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function in the engine's thread after a delay, if it still runs then."""
        self.post(lambda: asyncio.get_running_loop().call_later(seconds, function))

    def begin(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> RunningCall[T]:  # noqa: ANN401
        """Start a coroutine function in the engine, which can be cancelled from here."""
        scope = anyio.CancelScope()

        async def scoped() -> T:
            with scope:
                return await function(*args)
            raise StreamClosedError("the call was cancelled")

        return RunningCall(self.call(scoped), scope, self.post)

    async def run(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:  # noqa: ANN401
        """Run a coroutine function in the engine and wait for it here; if cancelled, until it has cleaned up there."""
        running = self.begin(function, *args)
        try:
            return await wait_for_future(running.result)
        except BaseException:
            await running.aclose()
            raise

    def post(self, function: Callable[..., object], *args: Any) -> bool:  # noqa: ANN401
        """Call a function in the engine's thread; returns ``False`` if the engine has ended."""
        if self._thread.ident is None or os.getpid() != self._pid:  # never started, or the parent's
            return False
        try:
            self._started.result(_JOIN_S)
            assert self._loop is not None  # noqa: S101 - set before _started
            assert self._calls is not None  # noqa: S101 - as above
            self._loop.call_soon_threadsafe(self._calls.put, function, *args)
        except Exception:  # noqa: BLE001 - it never started, or its loop is closed: the engine does not run
            return False
        return True

    def stop(self) -> None:
        """Ask the engine to end; returns at once."""
        self._stop.set()
        self.post(self._tell_stop)

    def join(self) -> None:
        """Wait until the thread has ended (not from within it)."""
        if self._thread.ident is None or self._thread is threading.current_thread():
            return
        if os.getpid() == self._pid:
            self._thread.join(_JOIN_S)
            if not self._thread.is_alive():
                self.wakeup.join(_JOIN_S)

    def _tell_stop(self) -> None:
        if self._calls is not None:
            self._calls.end()

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...], result: Future[T]) -> None:
        async def run() -> None:
            try:
                value = await function(*args)
            except Exception as error:  # noqa: BLE001 - it is the future's
                result.set_exception(error)
            except BaseException:
                result.set_exception(self.reason())
                raise
            else:
                result.set_result(value)

        if self._tasks is None or self._stop.is_set():
            _refuse(result, self.reason())
        else:
            self._tasks.start_soon(run)

    def _run(self) -> None:
        try:
            self.wakeup.start()
            with asyncio.Runner() as runner:
                runner.run(self._main())
        except Exception as error:  # noqa: BLE001 - raised where the start is awaited
            if not self._started.done():
                self._fails("could not start", error)
                self._started.set_exception(error)
            elif (
                not _exiting and self._failure is None
            ):  # at exit the loop can no longer start the thread that joins its executor
                logger.exception("the engine's thread ended with an error")
        finally:
            for result in list(self._unanswered):  # posted after the loop's last iteration: they will not run
                _refuse(result, self.reason())
            self.wakeup.end()
            self.ended.set_result(None)

    async def _main(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            await self._setup(stack)
            async with anyio.create_task_group() as tasks:
                self._loop, self._tasks, self._calls = asyncio.get_running_loop(), tasks, CallQueue()
                self._started.set_result(None)
                try:
                    if not self._stop.is_set():
                        await self._calls.run()
                except Exception as error:
                    self._fails("failed", error)
                    raise
                finally:
                    self._stop.set()
                tasks.cancel_scope.cancel()

    def _fails(self, how: str, error: Exception) -> None:
        self._failure = EngineError(f"the engine {how}: {type(error).__name__}: {error}")
        self._failure.__cause__ = error


def check_not_forked(pid: int) -> None:
    """Raise :class:`~dnc_async.errors.StreamClosedError` if this process does not have that pid: it is a fork."""
    if os.getpid() != pid:
        raise StreamClosedError(
            f"this stream was opened in process {pid}, and process {os.getpid()} is a fork of it: "
            "open streams and clients after the fork, or start processes by 'spawn'"
        )


def check_threads() -> None:
    """Raise :class:`EngineError` if gevent or eventlet replaced threads: the engine would share the caller's event loop."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    name = (gevent is not None and gevent.is_module_patched("threading") and "gevent") or (
        eventlet is not None and eventlet.is_monkey_patched("thread") and "eventlet"
    )
    if name:
        raise EngineError(
            f"{name} has replaced Python's threads, and the engine needs one of its own: "
            "use dnc_async in a process that is not monkey-patched"
        )


def _refuse(result: Future[Any], reason: Exception) -> None:
    with contextlib.suppress(InvalidStateError):  # the thread's end and a late caller may both say so
        result.set_exception(reason)


class _Ending(Protocol):
    def stop(self) -> None: ...

    def join(self) -> None: ...


_engines: weakref.WeakSet[_Ending] = weakref.WeakSet()
_exiting = False


def end_at_exit(engine: _Ending) -> None:
    """Have an engine stopped and joined at interpreter exit at the latest."""
    _engines.add(engine)


def _at_exit() -> None:
    global _exiting  # noqa: PLW0603 - the interpreter exits once
    _exiting = True
    engines = list(_engines)
    for engine in engines:
        engine.stop()
    for engine in engines:
        engine.join()


atexit.register(_at_exit)


def finalize(owner: object, close: Callable[[], object]) -> Callable[[], object]:
    """Call ``close`` when ``owner`` is garbage-collected, in this process only, and not at exit, which has its own hook."""
    pid = os.getpid()

    def post() -> None:
        if os.getpid() == pid:
            close()

    finalizer = weakref.finalize(owner, post)
    finalizer.atexit = False
    return finalizer


def resolve(waiter: asyncio.Future[None]) -> None:
    """Wake the task that waits for this, if it still waits (in its own loop)."""
    if not waiter.done():
        waiter.set_result(None)


async def wait_for_future(future: Future[T]) -> T:
    """Wait in the caller's loop for a future of the engine. Being cancelled does not cancel what the engine does."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the caller's loop was closed meanwhile
            loop.call_soon_threadsafe(resolve, waiter)

    future.add_done_callback(wake)
    await waiter
    return future.result()
