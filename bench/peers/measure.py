"""One run of one loader: its process, its server, its disk looked at from outside, and the row that comes of it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bench.peers import host, session
from bench.peers.arm import Shape, Task, Told
from bench.peers.plan import FLIPPED_SHARD, LATENCY_S, STALL_S, STALLED_SHARDS, Loader, Scenario
from bench.peers.publish import MIRROR, STORE, Made
from dnc_async.testing import Faults, GatewayProcess
from dnc_async.testing.watching import watched_disk

_REPOSITORY = Path(__file__).parents[2]
_START_S, _PATIENCE = 90.0, 2.5  # a run may take so long, and so many times the consumer's own time


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one run was. Shares are of the time after the first batch."""

    scenario: str
    loader: str
    workers: int
    ceiling_bytes: int | None
    wall_s: float = 0.0
    first_batch_s: float = 0.0
    gaps_s: tuple[float, ...] = ()
    idle: float = 1.0
    step_s: float = 0.0
    peak_disk_bytes: int = 0
    cpu_s: float = 0.0
    requests: int = 0
    connections: int = 0
    peak_connections: int = 0
    fetched_bytes: int = 0
    stalled: int = 0
    flipped: int = 0
    said: str = ""
    load_average: float = 0.0
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def later_idle(self) -> float:
        """The idle share once the start is over, whose waits weigh much in so short a run: after the eighth batch."""
        waited = sum(self.gaps_s[8:])
        return waited / max(1e-9, waited + len(self.gaps_s[8:]) * self.step_s)

    @property
    def is_whole(self) -> bool:
        """Whether the run ended with every sample handed over, undamaged or not."""
        return self.said in ("", "DAMAGED")


def command(loader: Loader, python: str) -> list[str]:
    """How a loader's process is started."""
    return [python, "-m", f"bench.peers.{loader.module}"]


def environment(folder: str | os.PathLike[str]) -> dict[str, str]:
    """What a loader's process is given: whatever it keeps by default, it keeps below ``folder``."""
    kept = {name: str(folder) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME")}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "NO_PROXY": "127.0.0.1"}
    return {**os.environ, **kept, **quiet, "PYTHONPATH": str(_REPOSITORY)}


def measure(folder: Path, made: Made, loader: Loader, workers: int, scenario: Scenario, python: str) -> Row:
    """Run a loader once through a scenario, with a server of its own, and a folder of its own that is gone afterwards."""
    own = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
    load_average = os.getloadavg()[0]
    try:
        with _serving(folder, made, loader, scenario) as server, watched_disk(own, 0.005) as peak:
            url = f"{server.url}/{made.form}"
            named = [f"{url}/{name}" for name in (made.files[0], *[MIRROR + made.files[0]] * loader.mirrors)]
            task = Task(
                shape=scenario.shape,
                step_s=scenario.step_s,
                url=url,
                files=made.files,
                folder=str(own),
                ceiling_bytes=scenario.ceiling_bytes,
                workers=workers,
                verify=scenario.flip,
                root=made.root,
                sources=(server.url,) if loader.over_gateway else tuple(named),
            )
            limit_s = _START_S + _PATIENCE * scenario.step_s * scenario.shape.batches
            told, cpu_s, failed = _run([*command(loader, python), "read", task.encode()], own, limit_s)
            counts, peak_disk_bytes = server.counts(), peak()
    finally:
        shutil.rmtree(own, ignore_errors=True)
    return Row(
        scenario=scenario.name,
        loader=loader.name,
        workers=workers,
        ceiling_bytes=scenario.ceiling_bytes,
        wall_s=told.wall_s,
        first_batch_s=told.waits_s[0] if told.waits_s else 0.0,
        gaps_s=tuple(round(wait, 6) for wait in told.waits_s[1:]),
        idle=idle_share(told),
        step_s=statistics.mean(told.steps_s) if told.steps_s else 0.0,
        peak_disk_bytes=peak_disk_bytes,
        cpu_s=cpu_s - told.start_cpu_s - told.more.get("hashing_s", 0.0),
        requests=counts.requests,
        connections=counts.connections,
        peak_connections=counts.peak_connections,
        fetched_bytes=counts.bytes_served,
        stalled=counts.stalled,
        flipped=counts.flipped,
        said=failed or verdict(told, scenario.shape),
        load_average=load_average,
        more=told.more,
    )


class _Gateway(GatewayProcess):
    """A shaped gateway, with its counts as the web server tells them; of connections it knows the most at once."""

    def counts(self) -> host.Counts:
        stats = self.stats()
        return host.Counts(
            requests=stats.requests,
            connections=stats.peak_connections,
            peak_connections=stats.peak_connections,
            bytes_served=stats.bytes_served,
            stalled=0,
            flipped=0,
        )


@contextlib.contextmanager
def _serving(folder: Path, made: Made, loader: Loader, scenario: Scenario) -> Iterator[host.Running | _Gateway]:
    if loader.over_gateway:
        with _Gateway(folder / STORE, Faults(rate=scenario.rate, latency_s=LATENCY_S)) as gateway:
            yield gateway
    else:
        with host.running(folder / "www", script(folder / "www", made, scenario)) as server:
            yield server


def script(www: Path, made: Made, scenario: Scenario) -> host.Script:
    """How the server behaves: what stalls or is damaged lies in the middle of a shard, or where it would be in one file."""

    def middle(shard: int) -> tuple[str, int]:
        if len(made.files) == scenario.shape.shards:
            name = f"{made.form}/{made.files[shard]}"
            return name, (www / name).stat().st_size // 2
        name = f"{made.form}/{made.files[0]}"
        return name, round((www / name).stat().st_size * (shard + 0.5) / scenario.shape.shards)

    return host.Script(
        rate=scenario.rate,
        latency_s=LATENCY_S,
        stall_s=STALL_S,
        stalls=tuple(map(middle, STALLED_SHARDS)) if scenario.stalls else (),
        flips=(middle(FLIPPED_SHARD),) if scenario.flip else (),
    )


def idle_share(told: Told) -> float:
    """The share of the time after the first batch that was spent waiting; all of it where no second batch came."""
    steady = told.wall_s - told.waits_s[0] if told.waits_s else 0.0
    return sum(told.waits_s[1:]) / steady if len(told.waits_s) > 1 else 1.0


def verdict(told: Told, shape: Shape) -> str:
    """What is wrong with what was handed over; nothing, if nothing is."""
    if told.error or told.samples != shape.samples:
        return f"{told.samples} of {shape.samples} samples; {told.error or 'without an error'}"
    return "" if told.checksum == _checksum(shape) else "DAMAGED"


@cache
def _checksum(shape: Shape) -> int:
    return shape.checksum()


def _run(words: Sequence[str], folder: Path, limit_s: float) -> tuple[Told, float, str]:
    """What a loader's process told, the CPU seconds of its session, and what went wrong where it told nothing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    failed = ""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - a module of this package, under an interpreter that the user named
            words, stdout=subprocess.PIPE, stderr=errors, env=environment(folder), start_new_session=True
        ) as process,
        session.watched(process.pid) as seen_s,
    ):
        try:
            out, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            failed = f"did not end within {limit_s:.0f} s"
            os.killpg(process.pid, signal.SIGKILL)
            session.kill(process.pid)
            out, _ = process.communicate()
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").strip()
        session.kill(process.pid, patience_s=2.0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = max(seen_s(), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    try:
        return Told(**json.loads(out.splitlines()[-1])), cpu_s, failed
    except (LookupError, ValueError):
        return Told(), cpu_s, failed or f"told nothing; its last words: {said[-200:]!r}"
