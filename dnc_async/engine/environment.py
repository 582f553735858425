"""What an engine has of the machine that it runs on: time, worker threads, a disk, gateways, dice.

The default is the real machine. A simulation (:class:`dnc_async.testing.Simulation`) brings its own, on a virtual clock.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from dnc_async import system
from dnc_async.config import Gateway
from dnc_async.gateways.transport import Transport
from dnc_async.spool.disk import Disk, SystemDisk


def worker_threads(workers: int, name: str) -> Executor:
    """Worker threads that are all started: where the process may have no more, this fails, and no work is lost half-way later.

    Our own, not the loop's: at interpreter exit asyncio cannot join its own any more, and these need no new thread then.
    """
    executor = ThreadPoolExecutor(workers, thread_name_prefix=name)
    barrier = threading.Barrier(workers + 1)
    try:
        for _ in range(workers):
            executor.submit(barrier.wait)
        barrier.wait()
    except BaseException:
        barrier.abort()
        executor.shutdown(wait=False)
        raise
    return executor


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The parts that an engine does not make itself. The event loop's own time must go with ``clock``."""

    #: Seconds, monotonic.
    clock: Callable[[], float] = time.monotonic
    #: Seconds of processor time that the calling thread has used.
    thread_clock: Callable[[], float] = time.thread_time
    #: A random number in [0, 1), to spread retries.
    dice: Callable[[], float] = random.random
    #: Worker threads by their number and a name, for what blocks: hashing, the disk, a transform.
    workers: Callable[[int, str], Executor] = worker_threads
    #: Where chunks are staged.
    disk: Disk = field(default_factory=SystemDisk)
    #: How many files more may be opened; ``None`` where there is no limit.
    spare_files: Callable[[], int | None] = system.spare_files
    #: The transports of gateways; ``None`` is HTTP.
    transports: Callable[[Sequence[Gateway]], Sequence[Transport]] | None = None
