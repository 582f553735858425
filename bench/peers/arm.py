"""What all arms do alike, each in a process of its own: take every batch, step, and print one line of JSON.

Standard library only: it runs under the peers' interpreter as well as under ours. The samples are a function of their
number, so that every format holds the same bytes and each arm's checksum can be compared; the sum of CRCs does not depend
on the order, which workers change.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Anything with the buffer protocol, which Python 3.11's typing has no name for.
Buffer = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A dataset: so many shards, of so many samples, of so many random bytes each; and samples in a batch."""

    shards: int
    shard_samples: int
    sample_bytes: int
    batch_samples: int

    @property
    def samples(self) -> int:
        """All of them."""
        return self.shards * self.shard_samples

    @property
    def batches(self) -> int:
        """All of them."""
        return self.samples // self.batch_samples

    @property
    def batch_bytes(self) -> int:
        """The samples' bytes of one batch."""
        return self.batch_samples * self.sample_bytes

    @property
    def shard_bytes(self) -> int:
        """The samples' bytes of one shard."""
        return self.shard_samples * self.sample_bytes

    def sample(self, number: int) -> bytes:
        """The bytes of one sample, which do not compress."""
        return random.Random(number).randbytes(self.sample_bytes)

    def shard(self, number: int) -> Iterator[bytes]:
        """The samples of one shard."""
        first = number * self.shard_samples
        return (self.sample(each) for each in range(first, first + self.shard_samples))

    def checksum(self) -> int:
        """What an arm finds that was handed every sample, undamaged."""
        return sum(zlib.crc32(self.sample(number)) for number in range(self.samples))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one arm is to do. ``files`` are its data files in order, below ``url``; ``folder`` is its own, and empty.

    ``ceiling_bytes`` is ``None`` where the disk is no limit. ``verify`` asks for what the loader has for it, if it is off by
    default. ``root`` is the dataset's CID, and ``sources`` the gateways that have it, for ours.
    """

    shape: Shape
    step_s: float
    url: str
    files: tuple[str, ...]
    folder: str
    ceiling_bytes: int | None = None
    workers: int = 0
    verify: bool = False
    root: str = ""
    sources: tuple[str, ...] = ()

    @property
    def urls(self) -> list[str]:
        """The data files' URLs."""
        return [f"{self.url}/{name}" for name in self.files]

    @classmethod
    def parse(cls, text: str) -> Task:
        """The inverse of :meth:`encode`."""
        words = json.loads(text)
        shape = Shape(**words.pop("shape"))
        return cls(shape=shape, files=tuple(words.pop("files")), sources=tuple(words.pop("sources")), **words)

    def encode(self) -> str:
        """As it is put on a command line."""
        return json.dumps(asdict(self))


@dataclass(slots=True, kw_only=True)
class Told:
    """What an arm tells. ``waits_s`` are the seconds before each batch, ``wall_s`` ends with the last step."""

    waits_s: list[float] = field(default_factory=list)
    steps_s: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    samples: int = 0
    checksum: int = 0
    start_cpu_s: float = 0.0
    error: str = ""
    more: dict[str, float] = field(default_factory=dict)


Batches = Callable[[Task], Iterable[Buffer]]


def main(
    batches: Batches,
    write: Callable[[Shape, str], None] | None = None,
    more: Callable[[Task], Mapping[str, float]] | None = None,
) -> None:
    """The arm's command line: ``write SHAPE FOLDER`` makes its dataset, ``read TASK`` consumes it and tells."""
    verb, text = sys.argv[1:3]
    if verb == "write" and write is not None:
        write(Shape(**json.loads(text)), sys.argv[3])
        return
    task = Task.parse(text)
    told = consume(task, batches, cpu_s=_cpu_s())
    if more is not None and not told.error:
        told.more = dict(more(task))
    sys.stdout.write(json.dumps(asdict(told)) + "\n")
    sys.stdout.flush()


def consume(
    task: Task,
    batches: Batches,
    *,
    cpu_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Told:
    """Take every batch and step; an error ends it and is told. ``cpu_s`` is what starting up has cost.

    The step touches every byte and then sleeps for the rest of its time, as a thread that waits for an accelerator does.
    """
    told = Told(start_cpu_s=cpu_s)
    began = asked = clock()
    try:
        for batch in batches(task):
            ready = clock()
            told.waits_s.append(ready - asked)
            _take(told, batch, task.shape.sample_bytes)
            sleep(max(0.0, task.step_s - (clock() - ready)))
            asked = clock()
            told.steps_s.append(asked - ready)
            told.wall_s = asked - began
    except Exception as error:  # noqa: BLE001 - whatever a loader dies of is a result
        traceback.print_exc()
        told.error = f"{type(error).__name__}: {error}"
    return told


def _take(told: Told, batch: Buffer, sample_bytes: int) -> None:
    data = memoryview(batch).cast("B")
    for start in range(0, len(data), sample_bytes):
        told.checksum += zlib.crc32(data[start : start + sample_bytes])
        told.samples += 1


def _cpu_s() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
