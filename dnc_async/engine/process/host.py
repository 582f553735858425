"""The engine's process, from its first message to its exit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from dnc_async.engine.call_queue import CallQueue
from dnc_async.engine.process.channel import Channel
from dnc_async.engine.process.messages import (
    Answer,
    Ask,
    Awaits,
    Cancel,
    End,
    Failure,
    Finished,
    Open,
    Opened,
    Ping,
    Pong,
    Setup,
    Stop,
    Took,
)
from dnc_async.engine.process.outbox import Outbox
from dnc_async.engine.process.outgoing import LogForwarder, Outgoing
from dnc_async.engine.runtime import Runtime
from dnc_async.engine.stream_task import StreamTask
from dnc_async.errors import ArgumentError, EngineError
from dnc_async.telemetry import logger


class Host:
    """Runs a client's streams for another process, until that process says so or is gone."""

    def __init__(self, control: Channel, setup: Setup) -> None:
        self._control = control
        self._setup = setup
        self._streams: dict[int, tuple[StreamTask, Outbox]] = {}
        self._calls = CallQueue()
        self._outgoing: Outgoing
        self._runtime: Runtime
        self._tasks: TaskGroup

    def __repr__(self) -> str:
        return f"<Host of {len(self._streams)} streams>"

    async def run(self) -> None:
        """Serve; returns when nothing of any stream is left."""
        setup, loop = self._setup, asyncio.get_running_loop()
        self._outgoing = outgoing = Outgoing(self._control)
        LogForwarder(outgoing).install(setup.log_level)
        self._runtime = Runtime(
            settings=setup.settings,
            budget_bytes=setup.budget_bytes,
            spool_parent=setup.spool_parent,
            observers=[outgoing.observer(None)] if setup.has_observers else [],
        )
        async with contextlib.AsyncExitStack() as stack:
            await self._runtime.setup(stack)
            async with anyio.create_task_group() as self._tasks:
                loop.add_reader(self._control.fileno(), self._read)
                loop.add_signal_handler(signal.SIGTERM, self._terminated)
                try:
                    await self._calls.run()
                finally:
                    loop.remove_reader(self._control.fileno())
                self._tasks.cancel_scope.cancel()
        outgoing.close()

    def _terminated(self) -> None:
        error = EngineError(f"the engine's process {os.getpid()} was ended by SIGTERM")
        for _, outbox in self._streams.values():
            outbox.finish(error)  # ignored, because the consumer's process sent it
        self._calls.end()

    def _read(self) -> None:
        try:
            while True:
                message, descriptors = self._control.receive(wait=False)
                self._calls.put(self._handle, message, descriptors)
        except BlockingIOError:
            pass
        except EOFError:  # the consumer's process is gone, or closed the channel
            self._calls.end()
        except Exception:  # noqa: BLE001 - else the consumer would wait for the lost message for ever
            logger.exception("the engine's process ends: a message could not be received")
            self._calls.end()

    def _handle(self, message: object, descriptors: list[int]) -> None:
        match message:
            case Open():
                self._open(message, Channel(socket.socket(fileno=descriptors.pop())))
            case Took():
                self._told(message.stream, lambda task, outbox: task.taken(outbox.taken(message.at, message.waits)))
            case Awaits():
                self._told(message.stream, _awaits)
            case Cancel():
                self._told(message.stream, lambda task, _: task.cancel())
            case Ask():
                self._told(message.stream, lambda task, _: self._answer(message, task))
            case Ping():
                self._outgoing.post(Pong())
            case Stop():
                self._calls.end()

    def _told(self, stream: int, act: Callable[[StreamTask, Outbox], object]) -> None:
        if stream in self._streams:  # else it has ended meanwhile, and has said so
            act(*self._streams[stream])

    def _answer(self, ask: Ask, task: StreamTask) -> None:
        report = task.report() if ask.report else None
        self._outgoing.post(Answer(ask.question, task.statistics(), report))

    def _open(self, asked: Open, channel: Channel) -> None:
        try:
            request = pickle.loads(asked.request)  # noqa: S301 - from our parent
        except (Exception, SystemExit) as error:  # noqa: BLE001 - importing a consumer's module may raise anything
            self._refuse(asked.stream, channel, error)
            return
        outbox = Outbox(channel, clock=time.monotonic, fail=lambda: task.cancel())  # noqa: PLW0108 - there is none yet
        task = StreamTask(
            self._runtime,
            request,
            call_soon=_call,
            mailbox=outbox,
            started=asked.started,
            observers=[self._outgoing.observer(asked.stream)] if asked.has_observers else [],
        )
        task.opened.add_done_callback(lambda _: self._opened(asked.stream, task))
        self._streams[asked.stream] = task, outbox
        self._tasks.start_soon(self._run, asked.stream, task, outbox)

    def _refuse(self, stream: int, channel: Channel, cause: BaseException) -> None:
        error = ArgumentError(
            "transform: the engine's process cannot import it; define it at the top level of a module that is on sys.path "
            f"({type(cause).__name__}: {cause})"
        )
        channel.send(End(Failure.of(error)))
        channel.close()
        self._outgoing.post(Opened(stream, None, Failure.of(error)))
        self._outgoing.post(Finished(stream))

    async def _run(self, stream: int, task: StreamTask, outbox: Outbox) -> None:
        try:
            await task.run()
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.wrap_future(outbox.ended)
            del self._streams[stream]
            self._outgoing.post(Finished(stream, task.statistics(), task.report()))

    def _opened(self, stream: int, task: StreamTask) -> None:
        error = task.opened.exception()
        if error is None:
            self._outgoing.post(Opened(stream, task.opened.result()))
        else:
            assert isinstance(error, Exception)  # noqa: S101 - it is not cancelled
            self._outgoing.post(Opened(stream, None, Failure.of(error)))


def _awaits(task: StreamTask, outbox: Outbox) -> None:
    outbox.awaits()
    task.awaited()


def _call(call: Callable[[], None], *, at_once: bool = False) -> None:
    call()


def main(descriptor: int) -> None:
    """Serve the client at the other end of a socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the consumer, which tells us
    with contextlib.suppress(EOFError):
        control = Channel(socket.socket(fileno=descriptor))
        setup, _ = control.receive(wait=True)
        asyncio.run(Host(control, setup).run())
        control.close()
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        os._exit(0)  # an abandoned transform still runs: do not wait for its result
