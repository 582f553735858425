"""A real Jupyter kernel, as a notebook's front end drives it."""

from __future__ import annotations

import ast
import asyncio
import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

import dnc_async
from dnc_async.testing import GatewayProcess

from ..conftest import PATIENCE_S


@dataclass(frozen=True)
class Cell:
    """What came of a cell: its status, what it printed, and the name of the error that ended it."""

    status: str
    printed: str
    error: str


@dataclass(frozen=True)
class Notebook:
    """A kernel, and the ways in which people use it."""

    manager: KernelManager
    client: BlockingKernelClient

    def run(self, code: str, *, interrupt_after: str = "") -> Cell:
        """Run a cell to its end; it is interrupted (the stop button) when it has printed a certain text."""
        asked = self.client.execute(code)
        printed, error, until = "", "", time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                printed += content["text"]
                if interrupt_after and interrupt_after in printed:
                    interrupt_after = ""
                    self.manager.interrupt_kernel()
            elif message["msg_type"] == "error":
                error = content["ename"]
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return Cell("error" if error else "ok", printed, error)
        raise TimeoutError(f"the cell did not end: {code!r} printed {printed!r}")

    def value(self, expression: str) -> Any:
        """What an expression is in the kernel, if that can be written down."""
        asked = self.client.execute("", user_expressions={"value": expression})
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            reply = self.client.get_shell_msg(timeout=PATIENCE_S)
            if reply["parent_header"].get("msg_id") == asked:
                told = reply["content"]["user_expressions"]["value"]
                assert told["status"] == "ok", told
                return ast.literal_eval(told["data"]["text/plain"])
        raise TimeoutError(expression)

    def is_clean(self) -> bool:
        """Whether it runs, and nothing of ours is in it."""
        return self.manager.is_alive() and self.run(LEFT).status == "ok" and not self.value("left()")

    def left(self) -> list[str]:
        """The kernel's threads and files of ours, after a while in which they may go."""
        self.run(LEFT)
        until = time.monotonic() + PATIENCE_S
        while (found := self.value("left()")) and time.monotonic() < until:
            time.sleep(0.1)
        return list(found)


LEFT = """
def left():
    import contextlib, os, threading
    threads = [t.name for t in threading.enumerate() if t.name.startswith('dnc_async')]
    files = [f'{place}/{name}' for place, _, names in os.walk(SPOOL) for name in names]
    children = []
    for task in os.listdir('/proc/self/task'):
        with contextlib.suppress(OSError):  # it ends meanwhile
            children.append(open(f'/proc/self/task/{task}/children').read().split())
    return threads + files + [f'process {pid}' for pids in children for pid in pids]
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A slow gateway, and the CID of a dataset that takes it minutes: no cell gets to its end."""
    store = tmp_path_factory.mktemp("published") / "store"
    x = np.arange(4_000_000, dtype=np.int64).reshape(-1, 1000)
    done = asyncio.run(dnc_async.upload({"x": x}, batch_size=20, store=store))
    with GatewayProcess(store, "rate=1MB,latency=20ms") as running:
        yield running.url, str(done)


@contextmanager
def running(home: Path, url: str, cid: str) -> Iterator[Notebook]:
    """A kernel in a home of its own, in which the library is imported."""
    environment = {
        **os.environ,
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "PYTHONPATH": str(Path(dnc_async.__file__).parent.parent),
    }
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=environment)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE_S)
        notebook = Notebook(manager, client)
        notebook.run(
            "import dnc_async as dnc\nfrom dnc_async import sync\nimport time\n"
            f"SPOOL = {str(home / 'spool')!r}\nCID = {cid!r}\n"
            f"options = dict(gateways={url!r}, spool_dir=SPOOL, disk_budget='4MB')"
        )
        yield notebook
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@dataclass
class Kernels:
    """One kernel for all tests, as of a notebook that is used all day; another where a test has left something in it."""

    new: Callable[[], AbstractContextManager[Notebook]]
    opened: ExitStack
    notebook: Notebook | None = None

    def clean(self) -> Notebook:
        if self.notebook is None or not self.notebook.is_clean():
            self.opened.close()
            self.notebook = self.opened.enter_context(self.new())
        return self.notebook


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory, gateway: tuple[str, str]) -> Iterator[Kernels]:
    with ExitStack() as opened:
        yield Kernels(lambda: running(tmp_path_factory.mktemp("home"), *gateway), opened)


@pytest.fixture
def notebook(kernels: Kernels) -> Notebook:
    """A kernel in which the library is imported, and nothing of it runs."""
    return kernels.clean()
