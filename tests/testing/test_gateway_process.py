"""A gateway in a process of its own: it starts, answers, and never outlives us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import dnc_async.testing
from dnc_async.errors import ArgumentError, DncError, StoreError
from dnc_async.testing import Faults, GatewayProcess, serve_forever

from ..conftest import PATIENCE_S, eventually


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:  # noqa: S310 - a URL of ours
        return response.read()


def test_a_process_serves_and_tells_what_it_did(published: Any) -> None:
    leaf = published.leaves[0]
    with GatewayProcess(published.store.path, "flip=2") as gateway:
        first, second = (get(f"{gateway.url}/ipfs/{leaf.cid}?format=raw") for _ in range(2))
        assert first == leaf.data != second
        stats = gateway.stats()
        assert (stats.requests, stats.blocks_served, stats.blocks_flipped) == (2, 2, 1)
        assert stats.bytes_served == 2 * len(leaf.data)
        assert "flip=2" in repr(gateway)
        assert gateway.faults == Faults(flip=2)
        url = gateway.url
    with pytest.raises(OSError, match="refused"):
        get(f"{url}/ipfs/{leaf.cid}?format=raw")


def is_answered(url: str) -> bool:
    try:
        return get(f"{url}/ipfs/bafkqaaa?format=raw") == b""
    except OSError:
        return False


async def test_async_with_works_too_and_kill_is_a_crash(published: Any) -> None:
    async with GatewayProcess(published.store.path) as gateway:
        assert await asyncio.to_thread(get, f"{gateway.url}/ipfs/bafkqaaa?format=raw") == b""
        gateway.kill()
        gateway.kill()
        with pytest.raises(DncError, match="gives no statistics"):
            gateway.stats()


def test_what_went_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(DncError, match=r"did not start: .*there is no store here"):
        GatewayProcess(tmp_path / "missing").start()
    with pytest.raises(ArgumentError, match="was not started"):
        _ = GatewayProcess(tmp_path).url
    with pytest.raises(ArgumentError, match="unknown fault"):
        GatewayProcess(tmp_path, "speed=3")


def test_a_start_that_takes_too_long_is_an_error(published: Any) -> None:
    with pytest.raises(DncError, match=r"not ready within 0\.001 s"):
        GatewayProcess(published.store.path, start_timeout_s=0.001).start()


def test_the_process_ends_when_its_parent_does(published: Any) -> None:
    script = (
        "import os, sys\n"
        "from dnc_async.testing import GatewayProcess\n"
        "print(GatewayProcess(sys.argv[1]).start().url, flush=True)\n"
        "os._exit(9)\n"
    )
    command = [sys.executable, "-c", script, str(published.store.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 9
    url = done.stdout.strip()
    assert eventually(lambda: not is_answered(url))


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_in_order(number: signal.Signals, expected: int, published: Any) -> None:
    command = [sys.executable, "-m", "dnc_async.testing", "serve", "--store", str(published.store.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"http://127.0.0.1:")
        process.send_signal(number)
        assert process.wait(timeout=PATIENCE_S) == expected
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "said"), [(["missing"], "there is no store here"), (["missing", "--fault", "rate=fast"], "rate=4MB")]
)
def test_the_command_says_what_cannot_work(arguments: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dnc_async.testing", "serve", "--store", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(dnc_async.__file__).parent.parent)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=tmp_path, env=environment
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_end_of_input_needs_a_pipe(published: Any) -> None:
    command = [sys.executable, "-m", "dnc_async.testing", "serve", "--stop-on-eof", "--store"]
    done = subprocess.run(
        [*command, str(published.store.path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert "needs a pipe" in done.stderr


@pytest.mark.parametrize("faults", [None, Faults()])
async def test_serving_ends_when_it_is_told(faults: Faults | None, published: Any) -> None:
    urls: list[str] = []
    stop = asyncio.Event()

    def ready(url: str) -> None:
        urls.append(url)
        stop.set()

    await serve_forever(published.store.path, host="127.0.0.1", port=0, faults=faults, ready=ready, stop=stop.wait())
    assert urls[0].startswith("http://127.0.0.1:")


async def test_serving_needs_a_store(tmp_path: Path) -> None:
    stop = asyncio.Event()
    stopped = asyncio.ensure_future(stop.wait())
    with pytest.raises(StoreError):
        await serve_forever(tmp_path / "none", host="127.0.0.1", port=0, faults=None, ready=print, stop=stopped)
    stopped.cancel()


def test_the_public_names_are_pinned() -> None:
    names = dnc_async.testing.__all__
    assert names == sorted(names)
    assert all(getattr(dnc_async.testing, name).__name__ == name for name in names)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dnc_async.testing.nothing
