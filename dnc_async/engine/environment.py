"""What an engine uses of the machine: time, worker threads, a disk, gateways, random numbers.

The default is the real machine. A simulation (:class:`dnc_async.testing.Simulation`) provides its own, on a virtual clock.
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
    """Create worker threads, all started: if the process may have no more threads, this fails, and not some later call.

    They are our own, not the loop's, because asyncio cannot join its threads at interpreter exit any more, when these need no
    new thread.
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
    """The parts that an engine does not create itself. The event loop's own time must agree with ``clock``."""

    #: Monotonic time, in seconds.
    clock: Callable[[], float] = time.monotonic
    #: The processor time of the calling thread, in seconds.
    thread_clock: Callable[[], float] = time.thread_time
    #: A random number in [0, 1), which spreads retries.
    dice: Callable[[], float] = random.random
    #: Creates worker threads, by their number and a name, for blocking calls: hashing, the disk, a transform.
    workers: Callable[[int, str], Executor] = worker_threads
    #: Where chunks are staged.
    disk: Disk = field(default_factory=SystemDisk)
    #: How many more files may be opened; ``None`` if there is no limit.
    spare_files: Callable[[], int | None] = system.spare_files
    #: The transports of gateways; ``None`` is HTTP.
    transports: Callable[[Sequence[Gateway]], Sequence[Transport]] | None = None
