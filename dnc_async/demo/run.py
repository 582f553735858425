"""Runs the demo in a temporary folder, which is deleted afterwards, also after Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dnc_async.config.numbers import parse_size
from dnc_async.demo.arms import FIRST_IDEA_BATCHES, Arm, Setting, run_arm
from dnc_async.demo.flights import LATE_MINUTES, Flights, load
from dnc_async.demo.summary import Summary, describe_data
from dnc_async.errors import ArgumentError
from dnc_async.publish.uploading import upload
from dnc_async.testing import Faults, GatewayProcess
from dnc_async.testing.watching import watched_disk

_HELD_OUT_SHARE = 0.1
#: 4, 1 and 4 MB/s, 50 ms away; the third lies.
_GATEWAYS = ("rate=4MB,latency=50ms", "rate=1MB,latency=50ms", "rate=4MB,latency=50ms,flip=20")
_HONEST = ("rate=4MB,latency=50ms", "rate=1MB,latency=50ms", "rate=4MB,latency=50ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The flags of ``dnc demo``. ``budget`` is a size; without it a tenth of the data."""

    budget: str | None = None
    batch_size: int = 4096
    faults: bool = True
    keep: bool = False
    seed: int = 0


async def run_demo(options: DemoOptions, say: Callable[[str], None], progress: Callable[[str], None]) -> Summary:
    """Run all arms. ``say`` prints lines that stay, ``progress`` lines that are overwritten."""
    budget = None if options.budget is None else parse_size(options.budget, name="--budget")
    if options.batch_size < 1:
        raise ArgumentError(f"--batch-size: expected a whole number of rows, at least 1, got {options.batch_size}")
    if not 0 <= options.seed < 2**32:
        raise ArgumentError(f"--seed: expected 0 to {2**32 - 1}, got {options.seed}")
    progress("reading the flights …")
    flights = load(options.seed)
    say(describe_data(flights, LATE_MINUTES))
    budget = flights.size_bytes // 10 if budget is None else budget
    folder = Path(tempfile.mkdtemp(prefix="dnc-demo-"))
    try:
        arms, cid, polled = await _arms(options, flights, budget, folder, say, progress)
    finally:
        if options.keep:
            say(f"kept: {folder} (try: dnc stream CID --store {folder / 'store'})")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return Summary(
        cid=cid,
        batch_size=options.batch_size,
        data_bytes=flights.size_bytes,
        budget_bytes=budget,
        left_out=flights.left_out,
        samples=len(flights.y),
        arms=arms,
        polled_peak_bytes=polled,
        left_behind=_left_behind(folder, keep=options.keep),
        faults=options.faults,
    )


async def _arms(
    options: DemoOptions,
    flights: Flights,
    budget: int,
    folder: Path,
    say: Callable[[str], None],
    progress: Callable[[str], None],
) -> tuple[tuple[Arm, ...], str, int]:
    store, spool = folder / "store", folder / "spool"
    spool.mkdir()
    published = await upload((flights.x, flights.y), batch_size=options.batch_size, store=store)
    held_out = max(1, round(published.batches * _HELD_OUT_SHARE))
    if published.batches - held_out < FIRST_IDEA_BATCHES:
        raise ArgumentError(
            f"--batch-size {options.batch_size}: gives {published.batches} batches, "
            f"the demo needs {FIRST_IDEA_BATCHES + held_out}"
        )
    say(f"published as {published}: {published.batches} batches of {options.batch_size}, {held_out} held out")

    def tell(name: str, done: int, of: int) -> None:
        progress(f"{name:<32} batch {done:>3} of {of}")

    arms = []
    with watched_disk(spool, 0.02) as peak:
        for name, first_idea, kill in _plan(options):
            with _gateways(store, _GATEWAYS if options.faults else _HONEST) as gateways:
                setting = Setting(
                    cid=published.cid,
                    flights=flights,
                    batches=published.batches,
                    held_out=held_out,
                    gateways=gateways,
                    budget_bytes=budget,
                    spool_dir=spool,
                    seed=options.seed,
                )
                kill_at = published.batches // 2 if kill else None
                arms.append(await run_arm(setting, name, first_idea=first_idea, kill_at=kill_at, tell=tell))
    return tuple(arms), published.cid, peak()


def _plan(options: DemoOptions) -> Sequence[tuple[str, bool, bool]]:
    plan = [("download, train, delete, next", True, False), ("dnc_async", False, False)]
    return [*plan, ("dnc_async, one gateway killed", False, True)] if options.faults else plan


@contextlib.contextmanager
def _gateways(store: Path, scripts: Sequence[str]) -> Iterator[list[GatewayProcess]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(GatewayProcess(store, Faults.parse(script))) for script in scripts]


def _left_behind(folder: Path, *, keep: bool) -> tuple[str, ...]:
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline and _threads():
        time.sleep(0.01)
    files = [str(folder)] if folder.exists() and not keep else []
    return (*files, *(f"thread {name}" for name in _threads()))


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dnc")]


def progress_line(text: str) -> None:
    """Overwrite the progress line on a terminal; do nothing elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
