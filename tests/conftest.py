"""``dnc`` as a real process, in a home of its own; and a store with every fixture CAR that Kubo made."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from hypothesis import HealthCheck, settings

import dnc_async
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.transport import Transport
from dnc_async.ipld.block import Block
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.cid import Cid
from dnc_async.serve import NoHooks
from dnc_async.store import BlockStore

# A shell starts its background jobs with Ctrl-C ignored, nohup ignores a hang-up, and both pass that on to what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

#: A wait of a test ends when what it waits for has happened. So long it lasts only where the test fails.
PATIENCE_S = 120.0

#: Nothing listens on the discard port, so no test reaches a public gateway by accident.
NOBODY = "http://127.0.0.1:9"

FIXTURES = Path(__file__).parent / "fixtures"

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@dataclass(frozen=True)
class Shell:
    """Runs commands as a user would; the home, the caches and the temporary files all lie below ``home``."""

    home: Path
    #: More of the environment.
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with the folders moved, nothing of IPFS set up, and the package that is being tested."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DNC_", "IPFS_", "XDG_"))}
        folders = {
            "HOME": self.home,
            "TMPDIR": self.home / "tmp",
            "XDG_CACHE_HOME": self.home / "cache",
            "XDG_DATA_HOME": self.home / "data",
        }
        (self.home / "tmp").mkdir(exist_ok=True)
        return {
            **kept,
            **{name: str(folder) for name, folder in folders.items()},
            "IPFS_GATEWAY": NOBODY,
            "PYTHONPATH": str(Path(dnc_async.__file__).parent.parent),
            **self.extra,
        }

    def __call__(
        self, *words: object, status: int = 0, timeout_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run ``dnc`` to its end, which must have this exit status."""
        done = self.python("-m", "dnc_async", *words, timeout_s=timeout_s)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def python(self, *words: object, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run Python to its end."""
        command = [sys.executable, *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, env=self.environment, cwd=self.home
        )

    def refuses(self, *words: object, status: int = 1) -> str:
        """Run ``dnc`` with bad input: no result, and one line on stderr, which is given without ``dnc:``."""
        done = self(*words, status=status)
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("dnc: ")
        return lines[0].removeprefix("dnc: ")

    @contextlib.contextmanager
    def start(self, *words: object) -> Iterator[subprocess.Popen[str]]:
        """Start ``dnc``; it is killed if the block leaves it running."""
        command = [sys.executable, "-m", "dnc_async", *map(str, words)]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=self.environment, cwd=self.home
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def files(self) -> list[str]:
        """All files and folders below the home, but for the empty folders that hold caches and temporary files."""
        found = {path.relative_to(self.home).as_posix() for path in self.home.rglob("*")}
        return sorted(found - {"tmp", "cache", "data", "cache/dnc_async", "data/dnc_async"})


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "home").mkdir()
    return Shell(tmp_path / "home")


def interrupt(process: subprocess.Popen[str], timeout_s: float = PATIENCE_S) -> tuple[int, str]:
    """Press Ctrl-C; gives the exit status and stderr. What it still wrote to stdout is read, so that it cannot block."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=timeout_s)
    return process.returncode, said


def eventually(check: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
    """Poll until it is true; ``False`` where it never was."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


async def until(check: Callable[[], object]) -> None:
    """Let this event loop run until it is true. Raises ``TimeoutError`` where it never is."""
    deadline = time.monotonic() + PATIENCE_S  # not the loop's time, which a test may set forward
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.002)


class Held(NoHooks):
    """A gateway's hooks that answer requests only when the test lets it: all of them, or those that ``holds`` chooses."""

    def __init__(self, holds: Callable[[web.Request], bool] = lambda _: True) -> None:
        self.released = asyncio.Event()
        self._holds = holds

    async def admit(self, request: web.Request) -> web.StreamResponse | None:
        if self._holds(request):
            await self.released.wait()
        return None


@pytest.fixture
async def leap() -> Callable[[float], None]:
    """Set the clock of the test's event loop forward: its timers are due at once, and nobody waits for them."""
    loop = asyncio.get_running_loop()
    real_time, ahead_s = loop.time, 0.0

    def forward(seconds: float) -> None:
        nonlocal ahead_s
        ahead_s += seconds

    loop.time = lambda: real_time() + ahead_s  # type: ignore[method-assign]  # as the loop itself asks for it, to its end
    return forward


def read_car(data: bytes) -> list[Block]:
    reader = CarReader()
    blocks = reader.feed(data)
    reader.close()
    return blocks


@pytest.fixture(scope="session")
def roots() -> dict[str, Cid]:
    """Give the root CID of each fixture, by its name."""
    index = json.loads((FIXTURES / "index.json").read_text())
    return {entry["name"]: Cid.parse(entry["root"]) for entry in index["fixtures"]}


@pytest.fixture(scope="session")
def fixture_files() -> dict[str, dict[str, Any]]:
    """Give the files of each fixture: path to size and digest."""
    index = json.loads((FIXTURES / "index.json").read_text())
    return {entry["name"]: entry["files"] for entry in index["fixtures"]}


@pytest.fixture(scope="session")
def fixture_blocks(roots: dict[str, Cid]) -> dict[str, list[Block]]:
    """Give the blocks of each fixture, in the CAR's order."""
    return {name: read_car((FIXTURES / f"{name}.car").read_bytes()) for name in roots}


@pytest.fixture(scope="session")
def fill() -> Callable[[BlockStore, Iterable[Block]], None]:
    """Put blocks into a store; the last one is committed as the root."""

    def put(store: BlockStore, blocks: Iterable[Block]) -> None:
        with store.begin() as transaction:
            for block in blocks:
                transaction.put(block)
            transaction.commit(block.cid)

    return put


@pytest.fixture(scope="session")
def kubo_store(
    tmp_path_factory: pytest.TempPathFactory,
    fixture_blocks: dict[str, list[Block]],
    fill: Callable[[BlockStore, Iterable[Block]], None],
) -> BlockStore:
    """All fixtures in one store; nobody writes to it."""
    store = BlockStore.open(tmp_path_factory.mktemp("kubo") / "store", create=True)
    for blocks in fixture_blocks.values():
        fill(store, blocks)
    return store


def fetcher_over(transports: Sequence[Transport], executor: Executor, **limits: Any) -> Fetcher:
    """A fetcher with little of everything, but for some ``limits``; the test runs it."""
    small: dict[str, Any] = {
        "clock": anyio.current_time,
        "attempts": 1,
        "patience_s": 1,
        "busy_patience_s": 10,
        "requests_per_gateway": 4,
        "in_flight_bytes": 2**20,
        "hedge_share": 0.05,
        "early_bytes": 2**20,
        "hold_s": 1,
    }
    return Fetcher(transports, executor=executor, **{**small, **limits})
