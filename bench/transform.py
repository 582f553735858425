"""``python -m bench transform``: JPEGs decoded and resized to 224 x 224 as they are streamed, beside SPDL's pipeline.

The same images, function, threads and cores in every arm, one after the other in one process, repeated in turn. Ours streams
a column of bytes from the local store, verified and staged on disk; the others have all images in memory beforehand. SPDL
(package ``spdl-core``, by its ``PipelineBuilder``) runs the function for whole batches, as we do, and for single images that
it gathers into batches; plain threads are a ``ThreadPoolExecutor`` over the batches, and all there is where SPDL is missing.
The decoder is Pillow's, because SPDL's own needs FFmpeg's libraries. Needs the dependency group ``bench``.

Where the difference goes, in CPU time of all threads for an image of 82 kB (two cores of a virtual machine that others used at
the same time, so within 15 % or so): the function itself takes about 3.2 ms in each arm; around it are 0.01 ms in plain
threads, 0.05 in SPDL and 0.35 to 0.4 in ours, so that 0.9 is about what a long run can reach beside them. Of ours the engine's
thread has 0.18 (planning, and its hops to worker threads: 90 us each on that machine), its worker threads 0.2 (writing to the
spool 0.06 to 0.1, hashing 0.05, reading the store 0.02, moving out of the spool 0.03, decoding and joining the column 0.02).
The others have no such work, as their images lie in memory; with ``disk_budget=0`` ours is 0.1 less. What a short run adds is
its start: 60 to 110 ms until the first call, where SPDL needs 5 and then 105 until its end is noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import io
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import dnc_async as dnc
from bench.table import Line, show

_SIZE, _TARGET = 224, 0.9
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every arm does: these JPEGs, ``epochs`` times, in batches, by so many threads."""

    cid: str
    store: Path
    jpegs: Sequence[bytes]
    batch_size: int
    epochs: int
    threads: int

    def batches(self) -> Iterator[Sequence[bytes]]:
        """From memory."""
        for _ in range(self.epochs):
            for start in range(0, len(self.jpegs), self.batch_size):
                yield self.jpegs[start : start + self.batch_size]


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m bench transform", description=__doc__)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=2, help="how often an arm goes through them")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2, help="that decode, and cores for all of an arm")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("PIL") is None:
        sys.stderr.write("bench transform: Pillow is needed; install the dependency group 'bench'\n")
        return 2
    if hasattr(os, "sched_setaffinity"):  # Linux; elsewhere the arms share all cores alike
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder:
        return show(_compared(_publish(Path(folder), options), options.repeats), as_json=options.json)


def _compared(work: Work, repeats: int) -> Iterator[Line]:
    arms: dict[str, Callable[[Work], int]] = {"ours": _ours, "plain threads": _plain_threads}
    if importlib.util.find_spec("spdl") is not None:
        arms |= {"SPDL by batch": _spdl_by_batch, "SPDL by image": _spdl_by_image}
    else:
        sys.stderr.write("SPDL is not installed: no such arms\n")
    rates: dict[str, list[float]] = {name: [] for name in arms}
    expected = _plain_threads(work)  # and everything is warm
    for repeat in range(repeats):
        names = list(arms)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            began = time.perf_counter()
            found = arms[name](work)
            rates[name].append(len(work.jpegs) * work.epochs / (time.perf_counter() - began))
            if found != expected:
                raise RuntimeError(f"{name}: the images are not those of the other arms")
            sys.stderr.write(f"{name:<16}{rates[name][-1]:8.0f} images/s\n")
    for name in arms:
        if name != "ours":
            ratio = statistics.median(mine / theirs for mine, theirs in zip(rates["ours"], rates[name], strict=True))
            yield Line.least(f"images per second, in rates of {name}", ratio, _TARGET)


def decode(jpeg: bytes | Images) -> Images:
    """One image, decoded and resized."""
    from PIL import Image  # noqa: PLC0415 - only this benchmark needs it

    with Image.open(io.BytesIO(bytes(jpeg))) as image:
        return np.asarray(image.convert("RGB").resize((_SIZE, _SIZE), Image.Resampling.BILINEAR))


def decode_batch(jpegs: Iterable[bytes | Images]) -> Images:
    """All images of a batch."""
    return np.stack([decode(jpeg) for jpeg in jpegs])


def _checksum(batches: Iterable[Images]) -> int:
    """Of some pixels of each batch, weighted by its place: so the order counts, and it costs next to nothing."""
    return sum(place * int(batch[:, ::56, ::56].sum()) for place, batch in enumerate(batches, 1))


def _ours(work: Work) -> int:
    async def run() -> int:
        batches = dnc.stream(
            work.cid,
            store=work.store,
            spool_dir=work.store.parent / "spool",
            disk_budget="64 MB",
            epochs=work.epochs,
            transform=lambda batch: decode_batch(batch["jpeg"]),
            transform_workers=work.threads,
        )
        checksum = place = 0
        async for images in batches:
            place += 1
            checksum += place * _checksum([images])
        return checksum

    return asyncio.run(run())


def _plain_threads(work: Work) -> int:
    def results() -> Iterator[Images]:
        with ThreadPoolExecutor(work.threads) as executor:
            waiting: deque[Future[Images]] = deque()
            for batch in work.batches():
                waiting.append(executor.submit(decode_batch, batch))
                if len(waiting) > work.threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    return _checksum(results())


def _spdl_by_batch(work: Work) -> int:
    from spdl.pipeline import PipelineBuilder  # noqa: PLC0415 - only this benchmark needs it

    builder: Any = PipelineBuilder()
    builder = builder.add_source(work.batches())
    return _consumed(builder.pipe(decode_batch, concurrency=work.threads, output_order="input"), work)


def _spdl_by_image(work: Work) -> int:
    from spdl.pipeline import PipelineBuilder  # noqa: PLC0415 - as above

    builder: Any = PipelineBuilder()
    builder = builder.add_source(jpeg for batch in work.batches() for jpeg in batch)
    builder = builder.pipe(decode, concurrency=work.threads, output_order="input")
    return _consumed(builder.aggregate(work.batch_size).pipe(np.stack), work)


def _consumed(builder: Any, work: Work) -> int:  # noqa: ANN401 - SPDL is not there when types are checked
    pipeline = builder.add_sink(work.threads).build(num_threads=work.threads)
    with pipeline.auto_stop():
        return _checksum(pipeline.get_iterator())


def _publish(folder: Path, options: argparse.Namespace) -> Work:
    from PIL import Image  # noqa: PLC0415 - as above

    rng = np.random.default_rng(0)

    def jpeg() -> bytes:
        """As large in pixels and bytes as a photograph of ImageNet is in the mean."""
        body = io.BytesIO()
        rough = Image.fromarray(rng.integers(0, 256, (47, 62, 3), dtype=np.uint8))
        rough.resize((500, 375), Image.Resampling.BICUBIC).save(body, "JPEG", quality=95)
        return body.getvalue()

    jpegs = [jpeg() for _ in range(options.images)]
    done = asyncio.run(dnc.upload({"jpeg": jpegs}, batch_size=options.batch_size, store=folder / "store"))
    mean = sum(map(len, jpegs)) / len(jpegs)
    sys.stderr.write(f"{len(jpegs)} JPEGs of {mean / 1e3:.0f} kB, {options.threads} threads and cores\n")
    return Work(
        cid=done.cid,
        store=folder / "store",
        jpegs=jpegs,
        batch_size=options.batch_size,
        epochs=options.epochs,
        threads=options.threads,
    )
