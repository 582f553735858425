"""A server that keeps to the contract of Kubo's RPC as far as an upload needs it, and that can be told to break it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from dnc_async.ipld import dagpb
from dnc_async.ipld.block import Block
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.cid import DAG_PB, Cid


@dataclass
class Node:
    """An online node: it keeps blocks by multihash, and waits for ever for what it does not have."""

    url: str = ""
    auth: str | None = None
    blocks: dict[bytes, Block] = field(default_factory=dict)
    pins: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    part_came: asyncio.Event = field(default_factory=asyncio.Event)
    other_files: int = 0  # that somebody else has in the MFS's root
    calls: list[str] = field(default_factory=list)
    largest_part: int = 0
    drop: int | None = None  # every so many-th block is lost
    answers: dict[str, web.Response] = field(default_factory=dict)  # what to say instead

    def missing(self, cid: Cid) -> Cid | None:
        """The first block that is not there."""
        block = self.blocks.get(cid.multihash)
        if block is None:
            return cid
        if cid.codec != DAG_PB:
            return None
        return next((lost for link in dagpb.decode(block.data).links if (lost := self.missing(link.cid))), None)

    def collect_garbage(self) -> None:
        """Drop what neither a pin nor a file holds."""
        kept: set[bytes] = set()
        todo = [Cid.parse(text) for text in (*self.pins, *self.files.values())]
        while todo:
            cid = todo.pop()
            block = self.blocks.get(cid.multihash)
            if block is not None and cid.multihash not in kept:
                kept.add(cid.multihash)
                if cid.codec == DAG_PB:
                    todo += [link.cid for link in dagpb.decode(block.data).links]
        self.blocks = {key: block for key, block in self.blocks.items() if key in kept}

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Answer one command."""
        command = request.match_info["command"]
        self.calls.append(command)
        if self.auth is not None and request.headers.get("Authorization") != self.auth:
            return web.Response(status=403, text="403 - Forbidden\n")
        if command in self.answers:
            return self.answers.pop(command)
        arguments = request.query.getall("arg", [])
        if command == "dag/import":
            return await self._import(request)
        if command in ("version", "files/mkdir", "files/cp", "files/rm", "files/ls"):
            return self._files(command, arguments)
        return await self._about(command, arguments[0], request)

    def _files(self, command: str, arguments: list[str]) -> web.Response:
        if command == "files/ls":
            return _lines({"Entries": self._entries(arguments[0].rstrip("/")) or None})
        if command == "files/mkdir":
            self.folders.add(arguments[0])
        if command == "files/cp":
            if arguments[1].rpartition("/")[0] not in self.folders:
                return web.json_response({"Message": "no such folder", "Code": 0, "Type": "error"}, status=500)
            self.files[arguments[1]] = arguments[0].removeprefix("/ipfs/")
            self.part_came.set()
        if command == "files/rm":
            self.folders.discard(arguments[0])
            self.files = {path: cid for path, cid in self.files.items() if not path.startswith(arguments[0] + "/")}
        return _lines({"Version": "0.44.0"} if command == "version" else {})

    def _entries(self, folder: str) -> list[dict[str, object]]:
        others = [f"/a-file-of-somebody-{number}" for number in range(self.other_files)] if not folder else []
        paths = [path for path in (*self.folders, *self.files, *others) if path.rpartition("/")[0] == folder]
        return [{"Name": path.rpartition("/")[2], "Type": 0, "Size": 0, "Hash": ""} for path in paths]

    async def _about(self, command: str, text: str, request: web.Request) -> web.Response:
        missing = self.missing(Cid.parse(text))
        if command == "dag/stat" and missing is not None:
            assert request.query["offline"] == "true"
            message = f"block was not found locally (offline): ipld: could not find {missing}"
            return web.json_response({"Message": message, "Code": 0, "Type": "error"}, status=500)
        if command == "dag/stat":
            return _lines({"UniqueBlocks": 1, "DagStats": [{"Cid": {"/": text}}]})
        if command == "pin/add":
            if missing is not None:
                await asyncio.Event().wait()
            self.pins.add(text)
            return _lines({"Progress": 3}, {"Pins": [text]})
        assert command == "pin/ls"
        return _lines({"Keys": {pin: {"Type": "recursive"} for pin in self.pins if pin == text}})

    async def _import(self, request: web.Request) -> web.Response:
        assert request.query["pin-roots"] == "false"
        part = await (await request.multipart()).next()
        assert part is not None
        reader, count, size = CarReader(), 0, 0
        while data := await part.read_chunk(2**16):
            size += len(data)
            for block in reader.feed(data):
                count += 1
                if self.drop is None or count % self.drop:
                    self.blocks[block.cid.multihash] = block
        reader.close()
        self.largest_part = max(self.largest_part, size)
        return _lines({"Stats": {"BlockCount": count, "BlockBytesCount": size}})


def _lines(*objects: object) -> web.Response:
    return web.Response(text="".join(json.dumps(each) + "\n" for each in objects), content_type="application/json")


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    kept = Node()
    app = web.Application(client_max_size=2**30)
    app.router.add_post("/api/v0/{command:.*}", kept.call)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    kept.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield kept
    await runner.cleanup()
