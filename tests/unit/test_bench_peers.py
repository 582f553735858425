"""The bench that compares loaders: its clockwork, its web server, its tables; and ours through it, on a tiny dataset."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from ..conftest import PATIENCE_S


class Bench:
    """Modules of ``bench.peers``, which is no part of the wheel."""

    def __getattr__(self, name: str) -> ModuleType:
        return importlib.import_module(f"bench.peers.{name}")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    root = str(Path(__file__).parents[2])
    monkeypatch.setattr(sys, "path", [*sys.path, root])
    monkeypatch.setenv("PYTHONPATH", root)  # for its processes
    return Bench()


def shape_of(bench: Bench, **changes: int) -> Any:
    sizes = {"shards": 4, "shard_samples": 8, "sample_bytes": 1000, "batch_samples": 4, **changes}
    return bench.arm.Shape(**sizes)


def task_of(bench: Bench, shape: Any) -> Any:
    return bench.arm.Task(shape=shape, step_s=0.5, url="", files=(), folder="")


def batches_of(shape: Any, numbers: Iterator[int] | range) -> list[np.ndarray]:
    size = shape.batch_samples
    data = np.stack([np.frombuffer(shape.sample(number), np.uint8) for number in numbers])
    return [data[start : start + size] for start in range(0, len(data), size)]


class Clock:
    """Time passes only where it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_waits_and_steps_add_up(bench: Bench) -> None:
    """The first batch apart; the step lasts as long as it should; the wall is the sum."""
    shape, clock = shape_of(bench), Clock()

    def batches(_: Any) -> Iterator[np.ndarray]:
        for wait_s, batch in zip((2.0, *[0.25] * 7), batches_of(shape, range(32)), strict=True):
            clock.sleep(wait_s)
            yield batch

    told = bench.arm.consume(task_of(bench, shape), batches, clock=clock, sleep=clock.sleep)
    assert told.waits_s == [2.0, *[0.25] * 7]
    assert told.steps_s == [0.5] * 8
    assert told.wall_s == 2.0 + 7 * 0.25 + 8 * 0.5
    assert bench.measure.idle_share(told) == pytest.approx(7 * 0.25 / (7 * 0.25 + 8 * 0.5))
    assert bench.measure.verdict(told, shape) == ""


def test_order_does_not_matter_and_damage_does(bench: Bench) -> None:
    """Workers change the order; a turned bit, a missing batch and an error are each told."""
    shape, clock = shape_of(bench), Clock()

    def verdict(batches: list[np.ndarray]) -> str:
        told = bench.arm.consume(task_of(bench, shape), lambda _: batches, clock=clock, sleep=clock.sleep)
        said: str = bench.measure.verdict(told, shape)
        return said

    whole = batches_of(shape, range(32))
    assert verdict(whole[::-1]) == ""
    damaged = whole[3].copy()
    damaged[1, 77] ^= 1
    assert verdict([*whole[:3], damaged, *whole[4:]]) == "DAMAGED"
    assert verdict(whole[:-1]).startswith("28 of 32 samples")


def test_what_a_loader_dies_of_is_a_result(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """With the samples until then."""
    shape = shape_of(bench)

    def batches(_: Any) -> Iterator[np.ndarray]:
        yield batches_of(shape, range(4))[0]
        raise RuntimeError("the cache is gone")

    told = bench.arm.consume(task_of(bench, shape), batches, sleep=lambda _: None)
    assert bench.measure.verdict(told, shape) == "4 of 32 samples; RuntimeError: the cache is gone"
    assert "the cache is gone" in capsys.readouterr().err
    assert bench.measure.idle_share(told) == 1.0


def test_a_task_survives_the_command_line(bench: Bench) -> None:
    """Both ways."""
    task = bench.arm.Task(
        shape=shape_of(bench),
        step_s=0.03,
        url="http://h",
        files=("a", "b"),
        folder="f",
        ceiling_bytes=5,
        sources=("s",),
    )
    assert bench.arm.Task.parse(task.encode()) == task
    assert task.urls == ["http://h/a", "http://h/b"]


def fetch(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
        return answer.status, answer.read(), answer.headers


def test_the_web_server(bench: Bench, tmp_path: Path) -> None:
    """Whole files, ranges and HEAD; one byte wrong once, one stall once; counts; nothing outside of its folder."""
    (tmp_path / "secret").write_text("no")
    root = tmp_path / "www"
    root.mkdir()
    data = bytes(range(256)) * 4096
    (root / "file").write_bytes(data)
    script = bench.host.Script(
        rate=1e9, latency_s=0.0, stall_s=0.0, stalls=(("file", 600_000),), flips=(("file", 300_000),)
    )
    with bench.host.running(root, script) as server:
        url = f"{server.url}/file"
        status, body, headers = fetch(url, Range="bytes=100-199")
        assert (status, body, headers["Content-Range"]) == (206, data[100:200], f"bytes 100-199/{len(data)}")
        assert fetch(url, Range="bytes=-5")[1] == data[-5:]
        assert (server.counts().stalled, server.counts().flipped) == (0, 0)
        wrong = fetch(url)[1]
        assert [at for at in range(len(data)) if wrong[at] != data[at]] == [300_000]
        assert fetch(url)[1] == data
        status, body, headers = fetch(url, "HEAD")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(data)))
        for bad, code in (("bytes=2000000-", 416), ("bytes=x", 416)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                fetch(url, Range=bad)
            assert caught.value.code == code
            caught.value.close()
        with pytest.raises(urllib.error.HTTPError) as caught:
            fetch(f"{server.url}/%2e%2e/secret")
        assert caught.value.code == 404
        caught.value.close()
        counts = server.counts()
    assert (counts.stalled, counts.flipped) == (1, 1)
    assert counts.requests == 8
    assert counts.connections == 8  # urllib keeps none open
    assert counts.bytes_served == 100 + 5 + 2 * len(data)


def test_a_folder_is_listed_as_a_bucket(bench: Bench, tmp_path: Path) -> None:
    """By prefix, whole or folded at a delimiter; a folder that is asked for plainly is nothing, and the sizes are true."""
    for name in ("table/data/1 & 2", "table/data/3", "table/last", "other"):
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())

    def listed(query: str) -> tuple[list[tuple[str, int]], list[str]]:
        root = ET.fromstring(fetch(f"{server.url}/shop?list-type=2{query}")[1])  # noqa: S314 - our own server
        assert root.findtext("KeyCount") == str(len([*root.iter("Contents"), *root.iter("CommonPrefixes")]))
        sizes = [(each.findtext("Key", ""), int(each.findtext("Size", ""))) for each in root.iter("Contents")]
        return sizes, [each.findtext("Prefix", "") for each in root.iter("CommonPrefixes")]

    with bench.host.running(tmp_path, bench.host.Script(rate=1e9, latency_s=0.0)) as server:
        deep = [("table/data/1 & 2", 16), ("table/data/3", 12)]
        assert listed("") == ([("other", 5), *deep, ("table/last", 10)], [])
        assert listed("&prefix=table/data/") == (deep, [])
        assert listed("&prefix=table/&delimiter=/") == ([("table/last", 10)], ["table/data/"])
        headers = fetch(f"{server.url}/shop/other", "HEAD")[2]
        assert headers["ETag"].encode() in fetch(f"{server.url}/shop?list-type=2&prefix=other")[1]
        assert headers["Last-Modified"].endswith("GMT")
        with pytest.raises(urllib.error.HTTPError) as caught:
            fetch(f"{server.url}/shop")
        assert caught.value.code == 404
        caught.value.close()


_WRITER = """
import os, pathlib, sys
for age, name in enumerate(("9", "1", "5")):
    path = pathlib.Path(sys.argv[3], "table.lance", name + ".lance")
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (age, age))
"""


def test_shards_without_numbers_are_in_the_order_of_writing(bench: Bench, tmp_path: Path) -> None:
    """Wherever below the folder they lie; too few of them are an error."""
    writer = [sys.executable, "-c", _WRITER]
    made = bench.publish.made(tmp_path, "lance", shape_of(bench, shards=3), writer)
    assert made.files == ("table.lance/9.lance", "table.lance/1.lance", "table.lance/5.lance")
    with pytest.raises(RuntimeError, match="made 3 shards, expected 4"):
        bench.publish.made(tmp_path, "lance", shape_of(bench), writer)


def test_the_large_dataset_fits_its_description(bench: Bench) -> None:
    """2 GB in 16 MB shards, 5 % of it as the ceiling, a minute; and it is measured only where it is asked for."""
    (large,) = bench.plan.named(["large"])
    assert large.shape.samples * large.shape.sample_bytes == 2_000_000_000
    assert large.shape.shard_bytes == 16_000_000
    assert large.ceiling_bytes == 100_000_000
    assert large.step_s * large.shape.batches == 60
    assert large.name not in bench.run.DEFAULT_SCENARIOS


_PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, process_group=0)
while time.process_time() < 0.1: pass  # the system counts in hundredths
print("up", flush=True)
input()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_whoever_is_in_the_session_is_seen_and_ended(bench: Bench) -> None:
    """The child in a process group of its own, too, for which its parent does not wait."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with bench.session.watched(process.pid) as spent_s:
            found = bench.session.processes(process.pid)
            assert len(found) == 2
        assert spent_s() >= sum(found.values()) * 0.5 > 0
        bench.session.kill(process.pid)
        assert process.wait() == -signal.SIGKILL
    bench.session.kill(process.pid, patience_s=PATIENCE_S)
    assert not bench.session.processes(process.pid)


@pytest.mark.parametrize("kind", ["file", "mirrored file", "gateway"])
def test_ours_through_it(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Whole, undamaged and under its ceiling, over each of its servers, though a byte was wrong."""
    shape = shape_of(bench, sample_bytes=25_000)
    loader = bench.plan.Loader(
        name="ours",
        module="ours",
        form="car",
        stages=True,
        is_ours=True,
        mirrors=int(kind == "mirrored file"),
        over_gateway=kind == "gateway",
    )
    scenario = bench.plan.Scenario(
        name="tiny", shape=shape, step_s=0.005, ceiling_batches=4, flip=kind != "gateway", stalls=False
    )
    monkeypatch.setattr(bench.measure, "FLIPPED_SHARD", 2)
    made = bench.publish.made(tmp_path, "car", shape, [])
    assert bench.publish.made(tmp_path, "car", shape, []) == made
    row = bench.measure.measure(tmp_path, made, loader, 0, scenario, sys.executable)
    assert row.said == ""
    assert len(row.gaps_s) == shape.batches - 1
    assert (
        row.peak_disk_bytes <= scenario.ceiling_bytes
    )  # it was looked at from outside: so little may be gone between looks
    assert row.flipped == int(kind != "gateway")
    assert row.fetched_bytes > shape.samples * shape.sample_bytes
    assert row.cpu_s > 0
    assert not list(tmp_path.glob("run-*"))


def test_a_loader_that_tells_nothing(bench: Bench, tmp_path: Path) -> None:
    """Its last words are the result, and what it is compared by is the worst."""
    shape = shape_of(bench)
    loader = bench.plan.Loader(name="gone", module="no_such_module", form="car", is_ours=True)
    made = bench.publish.made(tmp_path, "car", shape, [])
    row = bench.measure.measure(tmp_path, made, loader, 0, bench.plan.Scenario(name="t", shape=shape), sys.executable)
    assert "told nothing" in row.said
    assert "no_such_module" in row.said
    assert bench.tables.Group(loader, 0, (row,)).idle == 1.0


def test_targets_are_told_missed_and_met(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the best workers of each peer, by medians; a disk over the ceiling is missed by one repeat."""

    def row(loader: str, idle: float, peak: int = 1, workers: int = 0, said: str = "") -> Any:
        return bench.measure.Row(
            scenario="tight",
            loader=loader,
            workers=workers,
            ceiling_bytes=100,
            idle=idle,
            peak_disk_bytes=peak,
            gaps_s=(0.1, 0.2),
            said=said,
        )

    rows = [row("dnc_async", idle) for idle in (0.01, 0.02, 0.9)]
    rows += [row("LitData", 0.5), row("LitData", 0.3, workers=4), row("WebDataset", 0.1)]
    assert not bench.tables.show(rows)
    out = capsys.readouterr().out
    assert "less idle than LitData (4), times" in out
    assert [line.split()[-1] for line in out.splitlines() if "times" in line] == ["ok", "MISSED"]
    rows += [row("LitData", 0.01, peak=300, workers=2), row("MosaicML Streaming", 1.0, said="refused")]
    bench.tables.show(rows)
    told = [line for line in capsys.readouterr().out.splitlines() if "times" in line]
    assert ["LitData (2, at 300% of the ceiling)" in told[0], "LitData (4)" in told[1]] == [True, True]
    assert not any("MosaicML" in line for line in told)  # who did not run is no rival
    over = [row("dnc_async", 0.01), row("dnc_async", 0.01, peak=101)]
    assert not bench.tables.show(over)
    assert bench.tables.show([row("dnc_async", 0.01, peak=100), row("LitData", 0.3)])
    assert not bench.tables.show([row("dnc_async", 0.01, said="DAMAGED")])


def test_the_picture(bench: Bench, tmp_path: Path) -> None:
    """It is drawn from whatever rows there are."""
    rows = [
        bench.measure.Row(scenario=name, loader=loader, workers=0, ceiling_bytes=ceiling, idle=0.1)
        for loader in ("dnc_async", "WebDataset", "LitData")
        for name, ceiling in (("tight", 10), ("none", None))
    ]
    bench.picture.save(rows, str(tmp_path / "picture.png"))
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
