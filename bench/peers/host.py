"""A plain web server for all arms alike: files below a folder, with HEAD and ranges, through one token bucket.

The bucket, the latency and the counts are those of the scripted gateways (:class:`~dnc_async.testing.shaping.ScriptedHooks`):
the rate is of all connections together, so nobody gains by opening more. On top of it a file may stall once at an offset, on the
connection that comes there first, and one of its bytes may be wrong once, in the first answer that brings it. A folder can be
listed as a bucket, for whoever speaks S3.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from aiohttp import web

from bench.peers import bucket
from dnc_async.serve.hooks import Sink
from dnc_async.serve.server import Listener
from dnc_async.testing import Faults, stdin_closed
from dnc_async.testing.shaping import ScriptedHooks

_STATS = "/_bench/stats"
_PIECE_BYTES = 256 * 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How the server behaves. ``stalls`` and ``flips`` are places, each a file's name and an offset in it."""

    rate: float
    latency_s: float
    stall_s: float = 0.0
    stalls: tuple[tuple[str, int], ...] = ()
    flips: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the server did."""

    requests: int
    connections: int
    peak_connections: int
    bytes_served: int
    stalled: int
    flipped: int


class StaticHost:
    """The handler of one folder."""

    def __init__(self, root: Path, script: Script, hooks: ScriptedHooks) -> None:
        self._root = root.resolve()
        self._script = script
        self._hooks = hooks
        self._stalls, self._flips = set(script.stalls), set(script.flips)
        self._clients: set[object] = set()

    def counts(self) -> Counts:
        """What was done so far."""
        stats = self._hooks.stats
        return Counts(
            requests=stats.requests,
            connections=len(self._clients),
            peak_connections=stats.peak_connections,
            bytes_served=stats.bytes_served,
            stalled=len(self._script.stalls) - len(self._stalls),
            flipped=len(self._script.flips) - len(self._flips),
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a GET or HEAD, whole or a range."""
        if request.transport is not None:
            self._clients.add(request.transport.get_extra_info("peername"))
        await self._hooks.admit(request)
        path = (self._root / request.match_info["name"]).resolve()
        if not path.is_relative_to(self._root):
            raise web.HTTPNotFound
        if path.is_dir() and bucket.is_listing(request):
            return bucket.listing(path, request)
        if not path.is_file():
            raise web.HTTPNotFound
        response = web.StreamResponse(headers={"Accept-Ranges": "bytes", "ETag": bucket.entity_tag(path)})
        response.last_modified = path.stat().st_mtime
        start, stop = _wanted(request, response, path.stat().st_size)
        response.content_length = stop - start
        with contextlib.suppress(ConnectionError):  # the client has what it wanted, and went away
            await response.prepare(request)
            if request.method != "HEAD":
                await self._send(path, start, stop, self._hooks.sink(request, response))
            await response.write_eof()
        return response

    async def _send(self, path: Path, start: int, stop: int, sink: Sink) -> None:
        name = str(path.relative_to(self._root))
        fd = os.open(path, os.O_RDONLY)
        try:
            for begin in range(start, stop, _PIECE_BYTES):
                data = os.pread(fd, min(_PIECE_BYTES, stop - begin), begin)
                await self._piece(name, begin, data, sink)
        finally:
            os.close(fd)

    async def _piece(self, name: str, begin: int, data: bytes, sink: Sink) -> None:
        for place in _within(self._flips, name, begin, len(data)):
            self._flips.discard(place)
            at = place[1] - begin
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        sent = 0
        for place in _within(self._stalls, name, begin, len(data)):
            self._stalls.discard(place)
            at = place[1] - begin
            await sink(data[sent:at])
            sent = at
            await asyncio.sleep(self._script.stall_s)
        await sink(data[sent:])


def _within(places: set[tuple[str, int]], name: str, begin: int, size: int) -> list[tuple[str, int]]:
    return sorted(place for place in places if place[0] == name and begin <= place[1] < begin + size)


def _wanted(request: web.Request, response: web.StreamResponse, size: int) -> tuple[int, int]:
    """The bytes that were asked for; sets the status and the range of the answer."""
    if "Range" not in request.headers:
        return 0, size
    try:
        start, stop, _ = request.http_range.indices(size)
    except ValueError as error:
        raise web.HTTPRequestRangeNotSatisfiable from error
    if start >= stop:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    response.set_status(206)
    response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return start, stop


async def serve(root: Path, script: Script) -> None:
    """Print the URL, and serve until standard input ends."""
    clock = asyncio.get_running_loop().time
    faults = Faults(rate=script.rate, latency_s=script.latency_s)
    hooks = ScriptedHooks(faults, connections=lambda: listener.connections, clock=clock)
    host, app = StaticHost(root, script, hooks), web.Application()

    async def stats(_: web.Request) -> web.Response:
        return web.json_response(asdict(host.counts()))

    app.router.add_get(_STATS, stats)
    app.router.add_get("/{name:.+}", host.handle)
    listener = Listener(app, "127.0.0.1", 0)
    await listener.start()
    try:
        sys.stdout.write(f"{listener.url}\n")
        sys.stdout.flush()
        await stdin_closed()
    finally:
        await listener.close()


@dataclass(frozen=True, slots=True)
class Running:
    """A server in a process of its own."""

    url: str

    def counts(self) -> Counts:
        """What it has done so far."""
        with urllib.request.urlopen(f"{self.url}{_STATS}", timeout=10) as answer:  # noqa: S310 - our own server
            return Counts(**json.load(answer))


@contextlib.contextmanager
def running(root: Path, script: Script) -> Iterator[Running]:
    """Serve a folder from another process for as long as the block lasts; it ends when this process does."""
    command = [sys.executable, "-m", "bench.peers.host", str(root), json.dumps(asdict(script))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdin is not None  # noqa: S101 - for the type checker
        assert process.stdout is not None  # noqa: S101
        try:
            yield Running(process.stdout.readline().strip())
        finally:
            process.stdin.close()


def main(arguments: Sequence[str]) -> None:
    """``python -m bench.peers.host FOLDER SCRIPT``, which :func:`running` runs."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.host", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("script", type=json.loads)
    options = parser.parse_args(arguments)
    words = {each.name: options.script[each.name] for each in fields(Script)}
    for name in ("stalls", "flips"):
        words[name] = tuple((str(file), int(offset)) for file, offset in words[name])
    asyncio.run(serve(options.folder, Script(**words)))


if __name__ == "__main__":
    main(sys.argv[1:])
