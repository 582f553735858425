"""The engine in a thread of the consumer's process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from dnc_async.dataset.manifest import Manifest
from dnc_async.engine.bridge import LoopThread, RunningCall, Setup, wait_for_future
from dnc_async.engine.engine import EngineSetup
from dnc_async.engine.environment import Environment
from dnc_async.engine.mailbox import Mailbox, Receiver
from dnc_async.engine.runtime import Origin, Runtime, StreamRequest
from dnc_async.engine.stream_task import StreamTask
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import Observer

T = TypeVar("T")


class ThreadEngine:
    """Runs streams and calls in its own event loop, in one background thread."""

    def __init__(
        self,
        setup: EngineSetup,
        *,
        environment: Environment | None = None,
        make_thread: Callable[[Setup], LoopThread] = LoopThread,
    ) -> None:
        """Create it; the thread is started by the first stream or call.

        A simulation provides its own ``environment``, and runs the engine in the current loop.
        """
        environment = environment or Environment()
        self._clock = environment.clock
        #: The parts that its streams and calls share.
        self.runtime = Runtime(
            settings=setup.settings,
            budget_bytes=setup.budget_bytes,
            spool_parent=setup.spool_parent,
            observers=setup.observers,
            environment=environment,
        )
        self._thread = make_thread(self.runtime.setup)
        self.is_started = False

    def __repr__(self) -> str:
        return f"<ThreadEngine {self._thread!r}>"

    @property
    def ours(self) -> bool:
        """Whether this process is the one in which the thread runs, and not a fork of it."""
        return self._thread.ours

    def check_process(self) -> None:
        """Raise :class:`~dnc_async.errors.StreamClosedError` in a forked child, where the thread does not exist."""
        self._thread.check_process()

    def start(self) -> None:
        """Start the thread, once. Raises :class:`~dnc_async.errors.EngineError` if it cannot start."""
        self.check_process()
        if not self.is_started:
            self.is_started = True
            self._thread.start()

    def open_stream(
        self, request: StreamRequest, *, observers: Iterable[Observer], owned: bool
    ) -> tuple[StreamTask, Receiver]:
        """Start a stream; the thread ends with one that is ``owned``."""
        self.start()
        thread, mailbox = self._thread, Mailbox(clock=self._clock)
        task = StreamTask(
            self.runtime,
            request,
            call_soon=thread.wakeup.call_soon,
            mailbox=mailbox,
            started=self._clock(),
            observers=observers,
        )
        running: Future[None] = thread.call(partial(self._run_owned, task) if owned else task.run)
        # If the engine was stopped before the task began, nothing else would tell those who wait for it.
        running.add_done_callback(lambda _: task.end(thread.reason()))
        return task, Receiver(mailbox, on_taken=task.taken, on_wait=task.awaited)

    async def _run_owned(self, task: StreamTask) -> None:
        try:
            await task.run()
        finally:
            self.stop()

    async def manifest(self, origin: Origin, root: Cid, path: tuple[str, ...]) -> Manifest:
        """Load the manifest of the dataset at a path below a root, and cache it for streams and the next call."""
        return await self.with_group(origin, root, lambda group: self.runtime.manifests.load(group, root, path))

    async def with_group(self, origin: Origin, root: Cid, function: Callable[[FetchGroup], Awaitable[T]]) -> T:
        """Run a function that fetches in the engine's thread. A cancelled call returns when it has cleaned up."""
        self.start()
        return await self._thread.run(self.runtime.with_group, origin, root, function)

    def begin_with_group(
        self, origin: Origin, root: Cid, function: Callable[[FetchGroup], Awaitable[T]]
    ) -> RunningCall[T]:
        """Start a function that fetches in the engine's thread; returns at once."""
        self.start()
        return self._thread.begin(self.runtime.with_group, origin, root, function)

    def post(self, function: Callable[..., object], *args: Any) -> bool:  # noqa: ANN401
        """Call a function in the engine's thread; returns ``False`` if the engine has ended."""
        return self._thread.post(function, *args)

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function in the engine's thread after a delay, if it still runs then."""
        self._thread.call_later(seconds, function)

    def stop(self) -> None:
        """Ask the thread to end; returns at once."""
        self._thread.stop()

    def join(self) -> None:
        """Wait until the thread has ended (not from within it)."""
        self._thread.join()

    async def aclose(self) -> None:
        """Stop the thread if it was started, and return when it has ended. May be called again."""
        if not self.is_started:
            return
        self.stop()
        if self.ours:
            await wait_for_future(self._thread.ended)
        self.join()
