"""Runs a whole client on a virtual clock in one call, and checks afterwards whether all promises were kept.

Everything is determined by the arguments: the same seed gives the same log of events, on every machine and every Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import random
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from dnc_async.client import Client
from dnc_async.config import FetchSettings, Gateway
from dnc_async.engine.engine import Engine, EngineSetup
from dnc_async.engine.environment import Environment
from dnc_async.engine.stream import BatchStream
from dnc_async.engine.thread_engine import ThreadEngine
from dnc_async.spool.files import FOLDER_BYTES
from dnc_async.telemetry import Gap
from dnc_async.testing.faults import Faults

from .consumer import ConsumerScript, SimulatedConsumer, transform_of
from .dataset import DatasetScript, Published, published
from .disk import SimulatedDisk
from .disk_faults import DiskFaults
from .engine import SameLoop
from .gateway import SimulatedGateway
from .invariants import problems_of
from .virtual_loop import START_S, NothingWillHappenError, VirtualLoop
from .workers import VirtualWorkers

#: A run that takes longer, in virtual seconds, is stuck.
_LONGEST_S = 50_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """What happened. ``problems`` is empty if all promises were kept; ``log`` has a line for each event.

    ``faults`` counts what went wrong by the scripts, ``simulated_s`` are seconds of the virtual clock, ``cpu_s`` of a processor.
    """

    problems: tuple[str, ...]
    log: tuple[str, ...]
    faults: Counter[str]
    simulated_s: float
    cpu_s: float
    turns: int
    consumers: tuple[SimulatedConsumer, ...] = ()
    peak_disk_bytes: int = 0
    largest_block_bytes: int = 0
    gaps: tuple[Gap, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of the log: equal if exactly the same happened."""
        return hashlib.sha256("\n".join(self.log).encode()).hexdigest()

    def __repr__(self) -> str:
        state = "; ".join(self.problems) or "all promises kept"
        return f"<SimulatedRun {self.simulated_s:.3f} s in {self.cpu_s:.3f} s, {self.faults.total()} faults: {state}>"


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A client, its gateways, its disk and its consumers, all scripted. :meth:`run` runs it.

    ``gateways`` are scripts of :class:`~dnc_async.testing.Faults`, ``disk`` is one of
    :class:`~dnc_async.testing.simulation.disk_faults.DiskFaults`, ``consumers`` are scripts of
    :class:`~dnc_async.testing.simulation.consumer.ConsumerScript`, as text or as objects. ``budget_bytes`` is for staged
    chunks; what the spool's folder itself takes is added. At ``crash_s`` the machine loses its power: then a second client
    starts with the same disk. At the turn ``cancel_turn`` of the event loop all consumers are cancelled, wherever they and the
    engine are then. ``settings`` are the client's, by default with less patience.
    """

    seed: int = 0
    gateways: Sequence[Faults | str] = ("rate=4MB,latency=50ms",)
    disk: DiskFaults | str = ""
    consumers: Sequence[ConsumerScript | str] = ("",)
    data: DatasetScript = field(default_factory=DatasetScript)
    budget_bytes: int = 1_000_000
    unit_bytes: int = 512
    crash_s: float | None = None
    cancel_turn: int | None = None
    settings: FetchSettings = field(
        default_factory=lambda: FetchSettings(stall_timeout_s=5.0, busy_patience_s=60.0, disk_retry_s=0.5)
    )

    def run(self) -> SimulatedRun:
        """Run it to its end. Nothing that the client does is raised."""
        return _Run(self).result()

    def __str__(self) -> str:
        parts = []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in ("gateways", "consumers"):
                value = [str(script) for script in value]
            parts.append(f"{each.name}={str(value)!r}" if each.name == "disk" else f"{each.name}={value!r}")
        return f"Simulation({', '.join(parts)})"


#: The crashed client, kept so that not even the garbage collector cleans up.
_crashed: list[object] = []


class _Run:
    """One run."""

    def __init__(self, plan: Simulation) -> None:
        self.plan = plan
        self.loop = VirtualLoop()
        self.dice = random.Random(f"simulation {plan.seed}")  # noqa: S311 - replayable, not secret
        self.data: Published = published(plan.data)
        self.log: list[str] = []
        self.gaps: list[Gap] = []
        self.problems: list[str] = []
        self.engines: list[ThreadEngine] = []
        self.faults: Counter[str] = Counter()
        self._busy_s = 0.0
        script = DiskFaults.parse(plan.disk) if isinstance(plan.disk, str) else plan.disk
        self.disk = SimulatedDisk(script, unit_bytes=plan.unit_bytes, clock=self.now)
        self.gateways = [
            SimulatedGateway(
                f"http://gateway-{number}",
                Faults.parse(each) if isinstance(each, str) else each,
                self.data.blocks,
                seed=f"{plan.seed}/{number}",
                clock=self.time,
                stall_timeout_s=plan.settings.stall_timeout_s,
            )
            for number, each in enumerate(plan.gateways)
        ]
        self.consumers: list[SimulatedConsumer] = []

    def time(self) -> float:
        """The virtual clock."""
        return self.loop.time()

    def now(self) -> float:
        """Seconds since the start."""
        return self.loop.time() - START_S

    def note(self, what: object, *more: object) -> None:
        """Add a line to the log."""
        self.log.append(f"{self.now():.6f} {' '.join(map(str, (what, *more)))}")

    def observe(self, event: object) -> None:
        """Log an event of the client."""
        if isinstance(event, Gap):
            self.gaps.append(event)
        self.note(event)

    def busy(self, seconds: float) -> None:
        """The current call of a worker thread takes this long."""
        self._busy_s += seconds

    def _busy(self) -> float:
        busy, self._busy_s = self._busy_s + self.disk.busy_s(), 0.0
        return busy

    @property
    def budget_bytes(self) -> int:
        """The client's budget."""
        return self.plan.budget_bytes + FOLDER_BYTES if self.plan.budget_bytes else 0

    def make_engine(self, setup: EngineSetup) -> Engine:
        """Create an engine in this loop."""
        urls = {gateway.name: gateway for gateway in self.gateways}
        environment = Environment(
            clock=self.time,
            thread_clock=lambda: 0.0,
            dice=self.dice.random,
            workers=lambda workers, _: VirtualWorkers(self.loop, workers, dice=self.dice, busy_s=self._busy),
            disk=self.disk,
            spare_files=lambda: None,
            transports=lambda gateways: [urls[gateway.url] for gateway in gateways],
        )
        engine = ThreadEngine(
            setup, environment=environment, make_thread=partial(SameLoop, loop=self.loop, dice=self.dice)
        )
        self.engines.append(engine)
        return engine

    def client(self) -> Client:
        """Create a client with all gateways."""
        return Client(
            gateways=[Gateway(gateway.name) for gateway in self.gateways],
            disk_budget=self.budget_bytes,
            spool_dir=Path("/spool"),
            settings=self.plan.settings,
            observers=[self.observe],
            _make_engine=self.make_engine,
        )

    def _consumer(self, number: int, script: ConsumerScript | str, client: Client) -> SimulatedConsumer:
        script = ConsumerScript.parse(script) if isinstance(script, str) else script

        def open_stream(script: ConsumerScript) -> BatchStream:
            return client.stream(
                str(self.data.root),
                epochs=script.epochs,
                drop_last=script.drop_last,
                prefetch="auto" if script.prefetch is None else script.prefetch,
                transform=transform_of(script, self.busy),
                transform_workers=script.workers,
            )

        return SimulatedConsumer(
            number,
            script,
            self.data,
            batch_size=self.plan.data.batch_size,
            open_stream=open_stream,
            cat=lambda path, start, end: client.cat(f"{self.data.root}/{path}", start, end),
            clock=self.time,
            note=self.note,
        )

    async def live(self) -> None:
        """Run one client from its start to its end."""
        async with self.client() as client:
            consumers = [self._consumer(i, each, client) for i, each in enumerate(self.plan.consumers)]
            self.consumers += consumers
            if self.plan.cancel_turn is not None:
                self.loop.at_turn(self.plan.cancel_turn, partial(_cancel_all, consumers))
            await asyncio.gather(*(each.run() for each in consumers))
        await asyncio.sleep(0)

    def result(self) -> SimulatedRun:
        """Run, then check the invariants."""
        began, threads = time.process_time(), threading.active_count()
        with _quiet_gc():
            self._run_all()
            self.problems += problems_of(self, threads)
            self.loop.close()
        for gateway in self.gateways:
            self.faults.update(gateway.faults)
        self.faults.update({f"disk {fault}": count for fault, count in self.disk.faults.items()})
        for consumer in self.consumers:
            self.faults.update(consumer.faults)
        return SimulatedRun(
            problems=tuple(self.problems),
            log=tuple(self.log),
            faults=self.faults,
            simulated_s=self.now(),
            cpu_s=time.process_time() - began,
            turns=self.loop.turns,
            consumers=tuple(self.consumers),
            peak_disk_bytes=self.disk.peak_bytes,
            largest_block_bytes=max(map(len, self.data.blocks.values())),
            gaps=tuple(self.gaps),
        )

    def _run_all(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(self._unhandled)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                if self.plan.crash_s is not None and self._crashes(self.plan.crash_s):
                    self._start_over()
                self.loop.run_until_complete(self._bounded())
        except NothingWillHappenError:
            waiting = sorted(task.get_name() for task in asyncio.all_tasks(self.loop))
            self.problems.append(f"deadlock after {self.now():.3f} s; these wait for ever: {', '.join(waiting)}")
        except TimeoutError:
            self.problems.append(f"not at its end after {_LONGEST_S:.0f} s")
        finally:
            asyncio.set_event_loop(None)

    def _crashes(self, after_s: float) -> bool:
        """Whether the machine lost its power before the first client ended."""
        first = self.loop.create_task(self._bounded(), name="before the crash")
        power = self.loop.call_later(after_s, self.loop.stop)
        first.add_done_callback(lambda _: self.loop.stop())
        self.loop.run_forever()
        power.cancel()
        return not first.done()

    def _start_over(self) -> None:
        """Forget the first client, whose tasks will never run again, but not what it left on the disk."""
        _crashed.append((self.loop, asyncio.all_tasks(self.loop), self.engines, self.consumers))
        self.faults["crash"] += 1
        self.note("crash")
        self.problems += [problem for consumer in self.consumers for problem in consumer.problems]
        self.disk.crash()
        self.loop = VirtualLoop(self.loop.time())
        self.loop.set_exception_handler(self._unhandled)
        asyncio.set_event_loop(self.loop)
        self.engines, self.consumers = [], []
        self.gaps.clear()

    async def _bounded(self) -> None:
        async with asyncio.timeout(_LONGEST_S):
            await self.live()

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.problems.append(f"unhandled: {context.get('message')}: {context.get('exception')!r}")


def _cancel_all(consumers: Sequence[SimulatedConsumer]) -> None:
    for consumer in consumers:
        consumer.cancel()


@contextlib.contextmanager
def _quiet_gc() -> Iterator[None]:
    """Prevent garbage collections at times that depend on what else the process does."""
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()  # objects from before the run need not be examined at its end
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
