"""Names of any bytes, as a user types and reads them: UTF-8 or not, on a stdout that can write them or not."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, build_directory, build_file
from dnc_async.ipld.cid import Cid
from dnc_async.store import BlockStore
from dnc_async.testing import GatewayProcess

from ..conftest import PATIENCE_S, Shell

pytestmark = pytest.mark.processes

NAMES = [b"gr\xf6.bin", "grün.bin".encode(), b"\xff\xe6\x97\xa5", b"a?b#c%41"]


@dataclass(frozen=True)
class Served:
    """A directory with such names, and a dataset under one of them."""

    root: str
    url: str
    shell: Shell

    def run(self, *words: str | bytes, **environment: str) -> tuple[bytes, bytes]:
        """Run ``dnc`` to its end, which must be a good one."""
        command = [sys.executable, "-m", "dnc_async", *words, "--gateway", self.url]
        env = {**self.shell.environment, **environment}
        done = subprocess.run(
            command, capture_output=True, timeout=PATIENCE_S, check=False, env=env, cwd=self.shell.home
        )
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        return done.stdout, done.stderr

    def path(self, name: bytes) -> bytes:
        return self.root.encode() + b"/" + name


@pytest.fixture(params=["plain", "sharded"])
def served(request: pytest.FixtureRequest, shell: Shell) -> Iterator[Served]:
    store = BlockStore.open(shell.home / "store", create=True)
    dataset = asyncio.run(dnc.upload({"x": np.arange(100)}, batch_size=50, store=store.path))
    made = {os.fsdecode(name): build_file(name * 3, UNIXFS_V1_2025) for name in NAMES}
    profile = UNIXFS_V1_2025
    if request.param == "sharded":
        profile = replace(profile, hamt_threshold_bytes=10, hamt_fanout=8)
    entries = [(name, root) for name, (_, root) in made.items()]
    entries.append((os.fsdecode(b"daten\xe4"), Root(Cid.parse(dataset.cid), None, 1)))
    blocks, root = build_directory(entries, profile)
    with store.begin() as transaction:
        for block in [*blocks, *(block for each in made.values() for block in each[0])]:
            transaction.put(block)
        transaction.commit(root.cid)
    with GatewayProcess(store.path) as gateway:
        yield Served(str(root.cid), gateway.url, shell)


def test_get(served: Served) -> None:
    """One by one, by a URL, and as a tree; stdout is the path as the system has it."""
    home = os.fsencode(served.shell.home)
    for name in NAMES:
        assert served.run("get", served.path(name))[0] == home + b"/" + name + b"\n"
        assert Path(os.fsdecode(home + b"/" + name)).read_bytes() == name * 3
    said, _ = served.run("get", f"ipfs://{served.root}/gr%F6.bin", "-o", "by-url", "--json")
    assert json.loads(said)["size_bytes"] == len(NAMES[0]) * 3
    served.run("get", served.root, "-o", "tree")
    assert sorted(os.listdir(home + b"/tree")) == sorted([*NAMES, b"daten\xe4"])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252:strict", "utf-8:strict"])
def test_a_stdout_that_cannot_write_them(served: Served, encoding: str) -> None:
    """What its encoding lacks is escaped; nothing fails that was done."""
    name = encoding.partition(":")[0]
    for out in (b"gr\xfc\xf6n", "日ü\udcff".encode("utf-8", "surrogateescape")):
        printed, _ = served.run("get", served.path(NAMES[0]), "-o", out, PYTHONIOENCODING=encoding)
        assert (served.shell.home / os.fsdecode(out)).read_bytes() == NAMES[0] * 3
        expected = b"\\u65e5" if name != "utf-8" else "日".encode()
        assert printed.endswith(b"/gr\xfc\xf6n\n" if out.startswith(b"gr") else b"\xff\n")
        assert out.startswith(b"gr") or expected in printed


def test_datasets(served: Served) -> None:
    """Inspected and streamed by a path and by a URL; the report is saved and shown."""
    assert b"100 samples" in served.run("inspect", served.path(b"daten\xe4"), PYTHONIOENCODING="ascii")[0]
    said, _ = served.run("stream", f"ipfs://{served.root}/daten%e4", "--report", "run.json", PYTHONIOENCODING="ascii")
    assert said.count(b"50 samples") == 2
    done = served.shell("report", "run.json", "--html", "run.html")
    assert done.stdout == "run.html\n"


async def test_in_python(served: Served) -> None:
    """``cat`` and ``ls``, by the name as ``os.listdir`` gives it."""
    for name in NAMES:
        path = f"{served.root}/{os.fsdecode(name)}"
        assert await dnc.cat(path, 1, gateways=served.url) == (name * 3)[1:]
        assert [entry.name for entry in await dnc.ls(path, gateways=served.url)] == [os.fsdecode(name)]
