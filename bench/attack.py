"""``python -m bench attack``: how long an ordinary client of ``dnc serve`` waits while others attack it.

A real ``dnc serve`` process with 1,024 descriptors, attackers in a process of their own, and an ordinary client that asks for a
raw block and for a small CAR by turns, each over a connection of its own, until it is answered with 200. Shown are the worst
such answer, how many came, the server's largest resident memory, the lines that it wrote to standard error, and how long it took
to end after SIGTERM, while the attackers were still there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import multiprocessing
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON
from dnc_async.store import BlockStore
from dnc_async.testing.hostile_dags import empty_lists, levels, parent, wide_node

_DESCRIPTORS = 1024
_GIVE_UP_S = 20.0
_WORST_S, _MOST_MB, _GRACE_S = 1.0, 300.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one attack did."""

    attack: str
    answers: int
    worst_s: float
    memory_mb: float
    error_lines: int
    sigterm_s: float

    @property
    def met(self) -> bool:
        """Whether the server kept its promise: answers within a second, 300 MB, and its grace at the end."""
        return self.worst_s <= _WORST_S and self.memory_mb <= _MOST_MB and self.sigterm_s <= _GRACE_S


@dataclass(frozen=True, slots=True)
class Target:
    """Where the attackers connect to, and the roots that they know."""

    host: str
    port: int
    roots: Mapping[str, str]

    async def connect(self, *, receive_bytes: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection; with ``receive_bytes`` one that holds little of what was not read."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await asyncio.get_running_loop().sock_connect(sock, (self.host, self.port))
        return await asyncio.open_connection(sock=sock, limit=2**14)

    async def ask(
        self, path: str, *, method: str = "GET", receive_bytes: int | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection over which a request was sent."""
        reader, writer = await self.connect(receive_bytes=receive_bytes)
        writer.write(f"{method} /ipfs/{path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n\r\n".encode())
        return reader, writer


Attack = Callable[[Target], Awaitable[None]]


def _readers(name: str, query: str, count: int) -> Attack:
    """``count`` clients that ask for a CAR and read it as fast as it comes, again and again."""

    async def one(target: Target) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await target.ask(f"{target.roots[name]}?format=car{query}")
                while await reader.read(2**16):
                    pass
                writer.close()
            await asyncio.sleep(0.05)

    return lambda target: _all(one(target) for _ in range(count))


def _hangers_up(name: str, query: str, count: int) -> Attack:
    """``count`` clients that ask what a CAR holds and hang up at once."""

    async def attack(target: Target) -> None:
        for _ in range(count):
            _, writer = await target.ask(f"{target.roots[name]}?format=car{query}", method="HEAD")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.transport.abort()
        await asyncio.Event().wait()

    return attack


def _never_read(query: str, count: int, name: str = "large") -> Attack:
    """``count`` clients that ask and do not read; who is cut off asks again."""

    async def one(target: Target) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await target.ask(f"{target.roots[name]}?{query}", receive_bytes=4096)
                while not writer.transport.is_closing():  # noqa: ASYNC110 - nothing tells who does not read
                    await asyncio.sleep(0.2)
            await asyncio.sleep(0.2)

    return lambda target: _all(one(target) for _ in range(count))


def _crawlers(count: int) -> Attack:
    """``count`` clients that read a CAR at 2 kB a second."""

    async def one(target: Target) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, _ = await target.ask(f"{target.roots['large']}?format=car&car-dups=y", receive_bytes=4096)
                while await reader.read(400):  # noqa: ASYNC110 - it is slow on purpose
                    await asyncio.sleep(0.2)
            await asyncio.sleep(0.2)

    return lambda target: _all(one(target) for _ in range(count))


def _heads(first: bytes, drip: bytes, count: int, pause_s: float = 1.0) -> Attack:
    """``count`` connections on which a request's head is begun, and goes on with ``drip`` from time to time."""

    async def one(target: Target) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await target.connect()
                writer.write(first)
                while not writer.transport.is_closing():
                    await asyncio.sleep(pause_s)
                    writer.write(drip)
            await asyncio.sleep(0.2)

    return lambda target: _all(one(target) for _ in range(count))


def _idle(count: int) -> Attack:
    """``count`` connections that stay open after their answer."""

    async def one(target: Target) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, _ = await target.ask(f"{target.roots['ordinary_leaf']}?format=raw")
                while await reader.read(2**16):
                    pass
            await asyncio.sleep(0.2)

    return lambda target: _all(one(target) for _ in range(count))


def _pipelines(count: int) -> Attack:
    """``count`` clients that send requests without end, and read nothing."""

    async def one(target: Target) -> None:
        request = (
            f"GET /ipfs/{target.roots['ordinary_leaf']}?format=raw HTTP/1.1\r\nHost: {target.host}\r\n\r\n".encode()
        )
        while True:
            with contextlib.suppress(OSError):
                _, writer = await target.connect(receive_bytes=4096)
                while True:
                    writer.write(request * 100)
                    await writer.drain()
            await asyncio.sleep(0.2)

    return lambda target: _all(one(target) for _ in range(count))


async def _malformed(target: Target) -> None:
    """Requests that are none."""
    while True:
        with contextlib.suppress(OSError):
            for words in (b"\x16\x03\x01\x00", b"GET / HTTP/9\r\n\r\n", b"GET /ipfs/%zz\x00 HTTP/1.1\r\n: x\r\n\r\n"):
                reader, writer = await target.connect()
                writer.write(words)
                writer.write_eof()
                await reader.read(2**16)
                writer.close()
        await asyncio.sleep(0.05)


async def _all(attackers: Iterator[Awaitable[None]]) -> None:
    await asyncio.gather(*attackers)


async def _nobody(_: Target) -> None:
    await asyncio.Event().wait()


ATTACKS: dict[str, Attack] = {
    "nobody": _nobody,
    "4 HEAD of a range of 10^10 nodes, hung up": _hangers_up("deep", "&entity-bytes=1:*", 4),
    "64 GET of the same, reading": _readers("deep", "&entity-bytes=1:*", 64),
    "64 GET of a fan-out of 1-byte leaves": _readers("fan_out", "&car-dups=y", 64),
    "32 GET of a 2 MiB node of identity links": _readers("wide", "", 32),
    "32 GET of ten such nodes": _readers("ten_wide", "", 32),
    "32 GET of 2 MiB of DAG-CBOR lists": _readers("cbor", "", 32),
    "32 GET of 2 MiB of DAG-JSON lists": _readers("json", "", 32),
    "256 CARs that nobody reads": _never_read("format=car&car-dups=y", 256),
    "800 wide nodes that nobody reads": _never_read("format=raw", 800, "wide"),
    "256 CARs at 2 kB/s": _crawlers(256),
    "1,020 half-open heads": _heads(b"GET /ipfs/", b"", 1020),
    "1,020 heads that drip": _heads(b"GET /ipfs/x HTTP/1.1\r\n", b"a: b\r\n", 1020),
    "1,020 heads of 100 kB": _heads(
        b"GET /ipfs/x HTTP/1.1\r\n" + b"a: " + b"b" * 8000 + b"\r\n", b"a: " + b"b" * 8000 + b"\r\n", 1020, 0.2
    ),
    "1,020 idle connections": _idle(1020),
    "64 pipelines without end": _pipelines(64),
    "malformed requests": _malformed,
}


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench attack", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="how long the ordinary client asks under each attack"
    )
    parser.add_argument("--only", default="", metavar="WORDS", help="the attacks whose names contain this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows = []
    out = sys.stderr if options.json else sys.stdout
    out.write(f"{'attack':<44}{'answers':>8}{'worst':>10}{'memory':>11}{'stderr':>8}{'SIGTERM':>10}\n")
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder:
        roots = _make_store(Path(folder) / "store")
        for name in ATTACKS:
            if options.only in name:
                rows.append(measure(name, Path(folder) / "store", roots, options.seconds))
                out.write(_line(rows[-1]) + "\n")
                out.flush()
    if options.json:
        sys.stdout.write(json.dumps([{**asdict(row), "met": row.met} for row in rows]) + "\n")
    return 0 if all(row.met for row in rows) else 1


def measure(name: str, store: Path, roots: Mapping[str, str], seconds: float) -> Row:
    """Run one attack against a fresh server."""
    with tempfile.TemporaryFile() as errors, _server(store, errors) as (process, port):
        target = Target("127.0.0.1", port, roots)
        attackers = multiprocessing.get_context("spawn").Process(target=_attack, args=(name, target))
        attackers.start()
        try:
            answers, worst_s = _ask_as_usual(target, seconds)
            memory = _peak_bytes(process.pid)
            began = time.perf_counter()
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GIVE_UP_S)
            sigterm_s = time.perf_counter() - began
        finally:
            attackers.kill()
            attackers.join()
        errors.seek(0)
        lines = len(errors.read().splitlines())
    return Row(
        attack=name,
        answers=answers,
        worst_s=worst_s,
        memory_mb=memory / 1e6,
        error_lines=lines,
        sigterm_s=sigterm_s,
    )


def _make_store(folder: Path) -> dict[str, str]:
    """A store with all of them, and what an ordinary client asks for; gives the roots' CIDs by name."""
    store = BlockStore.open(folder, create=True)
    tens = [wide_node(mark) for mark in range(1, 11)]
    ordinary, root = build_file(b"".join(bytes([number]) * 100_000 for number in range(30)), UNIXFS_V1_2025)
    large, large_root = build_file(bytes(256 * 2**20), UNIXFS_V1_2025)
    dags: dict[str, list[Block]] = {
        "deep": levels(make(bytes(1000)), 3000, 3),
        "fan_out": levels(make(b"x"), 3000, 2),
        "wide": [wide_node(0)],
        "ten_wide": [*tens, parent(tens)],
        "cbor": [empty_lists(DAG_CBOR)],
        "json": [empty_lists(DAG_JSON)],
    }
    roots = {name: str(blocks[-1].cid) for name, blocks in dags.items()}
    roots |= {"large": str(large_root.cid), "ordinary": str(root.cid), "ordinary_leaf": str(ordinary[0].cid)}
    with store.begin() as transaction:
        for block in (*ordinary, *large, *(block for blocks in dags.values() for block in blocks)):
            transaction.put(block)
        transaction.commit()
    return roots


@contextlib.contextmanager
def _server(store: Path, errors: IO[bytes]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    serve = f'ulimit -n {_DESCRIPTORS}; exec "$0" -m dnc_async serve --port 0 --store "$1"'
    command = ["sh", "-c", serve, sys.executable, str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:  # noqa: S603 - our own command
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            yield process, int(process.stdout.readline().decode().rpartition(":")[2])
        finally:
            process.kill()


def _attack(name: str, target: Target) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_attacking(name, target))


async def _attacking(name: str, target: Target) -> None:
    await ATTACKS[name](target)


def _peak_bytes(pid: int) -> int:
    """The largest resident memory of a process so far (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def _ask_as_usual(target: Target, seconds: float) -> tuple[int, float]:
    """Ask until the time is over; the number of answers, and the worst one's time."""
    answers, worst_s = 0, 0.0
    paths = [f"{target.roots['ordinary_leaf']}?format=raw", f"{target.roots['ordinary']}?format=car"]
    time.sleep(1.5)  # until the attackers are at it
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        while (took_s := time.perf_counter() - began) < _GIVE_UP_S:
            if _answered(target, paths[answers % 2]):
                answers += 1
                took_s = time.perf_counter() - began
                break
            time.sleep(0.05)
        worst_s = max(worst_s, took_s)
        time.sleep(0.1)
    return answers, worst_s


def _answered(target: Target, path: str) -> bool:
    connection = http.client.HTTPConnection(target.host, target.port, timeout=_GIVE_UP_S)
    try:
        connection.request("GET", f"/ipfs/{path}")
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return response.status == 200
    finally:
        connection.close()


def _line(row: Row) -> str:
    return (
        f"{row.attack:<44}{row.answers:>8}{row.worst_s:>8.2f} s{row.memory_mb:>8.0f} MB{row.error_lines:>8}"
        f"{row.sigterm_s:>8.2f} s  {'' if row.met else 'MISSED'}"
    )
