"""Publishes to a Kubo node over its RPC: sends the dataset in CARs with ``dag/import``, and pins it when it is complete.

The status of an RPC answer is not reliable (docs.ipfs.tech/reference/kubo/rpc): an import may fail inside a 200, and an online
node waits for ever for a block that no node has. So the sequence is: import parts unpinned and compare the number of blocks;
keep each part in a folder in MFS, so that garbage collection spares it; have the node walk the whole DAG *offline*, which
reports a missing block at once; only then pin, with a time limit, and check that it is pinned; then remove the folder. Folders
of uploads that were killed are removed by the next upload (:mod:`dnc_async.publish.kubo_folders`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import unquote

import aiohttp
import anyio
import anyio.from_thread
import anyio.to_thread

from dnc_async.config import PublishSettings, user_agent
from dnc_async.errors import UploadError
from dnc_async.ipld.builder import Root
from dnc_async.ipld.cid import Cid
from dnc_async.publish.kubo_folders import UploadFolder
from dnc_async.publish.parts import CarPart, PartCutter
from dnc_async.quoting import quoted
from dnc_async.telemetry import logger

_MAX_LINE_BYTES = 2**16
_MAX_ANSWER_BYTES = 2**24
#: The time limit, in seconds, for removing folders at a node before and after an upload.
_TIDY_S = 10.0


class KuboTarget:
    """One upload to a Kubo node's RPC at ``url``, such as ``http://127.0.0.1:5001``."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        settings: PublishSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``headers`` contain the authorization. Neither they nor a password in the URL are ever shown."""
        self._rpc = _Rpc(url, headers=headers, settings=settings)
        self._settings = settings
        self.name = f"kubo {self._rpc.name}"
        self._clock = clock
        self._folder: UploadFolder | None = None
        self._parts = 0
        self._cutter = PartCutter(lambda part: anyio.from_thread.run(self._send, part))

    def __repr__(self) -> str:
        return f"<KuboTarget {self._rpc.name}, {self._parts} parts sent>"

    async def begin(self) -> PartCutter:
        """Check that a Kubo node answers and accepts us, and create the folder for the parts."""
        await self._rpc.ask("version")
        await self._remove_leftovers()
        self._folder = UploadFolder.new(self._clock())  # before it is made: we may be stopped while it is
        await self._rpc.ask("files/mkdir", arg=self._folder.path)
        return self._cutter

    async def _remove_leftovers(self) -> None:
        """Remove the folders of uploads that were killed. A failure only costs space."""
        with contextlib.suppress(UploadError), anyio.move_on_after(_TIDY_S):
            for folder in filter(None, map(UploadFolder.parse, await self._listed("/"))):
                is_left = folder.is_left()
                if is_left is None and folder.is_old((), self._clock()):
                    is_left = folder.is_old(await self._listed(folder.path), self._clock())
                if is_left:
                    await self._rpc.ask("files/rm", arg=folder.path, recursive="true", force="true")

    async def _listed(self, path: str) -> list[str]:
        """The names in a folder of the MFS."""
        answer = await self._rpc.ask("files/ls", arg=path, max_line_bytes=_MAX_ANSWER_BYTES)
        entries = [entry for line in answer for entry in line.get("Entries") or () if isinstance(entry, dict)]
        return [str(entry.get("Name")) for entry in entries]

    async def finish(self, root: Root) -> None:
        """Send the last part, have the node check the DAG, and pin it."""
        await anyio.to_thread.run_sync(self._cutter.flush)
        cid, limit = str(root.cid), f"{self._settings.pin_timeout_s:.0f}s"
        stat = await self._rpc.ask("dag/stat", arg=cid, offline="true", progress="false", timeout=limit, slow=True)
        _expect(any(cid in line for line in _text(stat)), self._rpc.name, f"did not find {cid} after taking it")
        pinned = await self._rpc.ask("pin/add", arg=cid, progress="true", timeout=limit, slow=True)
        pins = [pin for line in pinned for pin in line.get("Pins") or ()]
        _expect(_has(pins, root.cid), self._rpc.name, f"did not pin {cid} within {limit}; its last word: {pinned[-1:]}")
        listed = await self._rpc.ask("pin/ls", arg=cid, type="recursive")
        keys = [key for line in listed for key in line.get("Keys") or ()]
        _expect(_has(keys, root.cid), self._rpc.name, f"does not list the pin of {cid}, although it said so")

    async def aclose(self) -> None:
        """Remove the folder of parts: pinned blocks stay, and the node's garbage collection removes the others."""
        try:
            if self._folder is not None:
                await self._remove(self._folder)
        finally:
            with anyio.CancelScope(shield=True):
                await self._rpc.aclose()

    async def _remove(self, folder: UploadFolder) -> None:
        """Remove the folder. If the node does not respond, it is not waited for."""
        folder.let_go()
        removed = False
        with anyio.move_on_after(min(_TIDY_S, self._settings.answer_timeout_s), shield=True):
            with contextlib.suppress(UploadError):  # this error ended the upload, or the next call will report it
                await self._rpc.ask("files/rm", arg=folder.path, recursive="true", force="true")
                removed = True
        if not removed:
            logger.warning(
                "%s: the folder %s could not be removed; the next upload from here will", self.name, folder.path
            )

    async def _send(self, part: CarPart) -> None:
        """Import one part and keep it."""
        answer = await self._rpc.ask("dag/import", car=part, pin_roots="false", stats="true")
        counts = [line["Stats"].get("BlockCount") for line in answer if isinstance(line.get("Stats"), dict)]
        _expect(
            counts == [part.block_count],
            self._rpc.name,
            f"took {counts[0] if counts else 'an unknown number'} of the {part.block_count} blocks of part {self._parts}",
        )
        assert self._folder is not None  # noqa: S101 - begin() came first
        place = self._folder.part(self._parts, self._clock())
        await self._rpc.ask("files/cp", arg=(f"/ipfs/{part.cid}", place), offline="true")
        self._parts += 1


class _Rpc:
    """Calls the RPC of one node. Every answer is read to its end, line by line, up to a limit."""

    def __init__(self, url: str, *, headers: Mapping[str, str], settings: PublishSettings) -> None:
        base, _, _ = url.rstrip("/").partition("/api/v0")
        scheme, _, rest = base.partition("://")
        userinfo, at, host = rest.rpartition("@")
        user, _, password = userinfo.partition(":")
        self.name = f"{scheme}://{host}"
        self._headers = {**headers, "User-Agent": user_agent()}
        if at:
            secret = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
            self._headers["Authorization"] = f"Basic {secret}"
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self,
        command: str,
        *,
        car: CarPart | None = None,
        slow: bool = False,
        max_line_bytes: int = _MAX_LINE_BYTES,
        **parameters: str | tuple[str, ...],
    ) -> list[Any]:
        """Call a command; returns the JSON objects of its answer. ``slow`` commands walk the whole DAG before they answer.

        Raises :class:`~dnc_async.errors.UploadError`.
        """
        settings = self._settings
        limit_s = settings.answer_timeout_s + (settings.pin_timeout_s if slow else 0.0)
        query = [
            (k.replace("_", "-"), each) for k, v in parameters.items() for each in ((v,) if isinstance(v, str) else v)
        ]
        try:
            return await self._ask(command, query, car, limit_s, max_line_bytes)
        except TimeoutError as error:
            raise self._error(command, f"no answer within {limit_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._error(command, f"the connection failed: {str(error) or type(error).__name__}") from error

    async def _ask(
        self, command: str, query: list[tuple[str, str]], car: CarPart | None, limit_s: float, max_line_bytes: int
    ) -> list[Any]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout_s, sock_read=limit_s)
        url = f"{self.name}/api/v0/{command}"
        body = None if car is None else _form(car)
        async with self._open().post(url, params=query, data=body, allow_redirects=False, timeout=timeout) as response:
            if response.status in (401, 403):
                raise self._error(command, f"answered {response.status}: name a user and password, or a token, for it")
            if response.status == 404 or response.status in range(300, 400):
                raise self._error(
                    command, f"answered {response.status}: is this the RPC port (5001), not the gateway's?"
                )
            lines = [line async for line in self._lines(response, command, max_line_bytes)]
        failed = next((line for line in lines if line.get("Type") == "error"), None)
        if failed is not None or response.status != 200:
            said = failed.get("Message") if failed else f"answered {response.status} {response.reason}"
            raise self._error(command, str(said)[:500])
        return lines

    async def _lines(
        self, response: aiohttp.ClientResponse, command: str, max_line_bytes: int
    ) -> AsyncIterator[dict[str, Any]]:
        rest, size = b"", 0
        async for piece in response.content.iter_any():
            size += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > max_line_bytes or size > _MAX_ANSWER_BYTES:
                raise self._error(command, f"answered more than a call can: {size} bytes")
            for line in lines:
                if line.strip():
                    yield self._parse(line, command, response)
        if rest.strip():
            yield self._parse(rest, command, response)

    def _parse(self, line: bytes, command: str, response: aiohttp.ClientResponse) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except ValueError as error:
            shown = line[:80].decode("utf-8", "replace")
            raise self._error(command, f"answered {response.status} with {shown!r}: this is no Kubo RPC") from error
        return found if isinstance(found, dict) else {}

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _error(self, command: str, message: str) -> UploadError:
        return UploadError(f"kubo {self.name}, {command}: {quoted(message)}")


def _form(part: CarPart) -> aiohttp.FormData:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in part.car():
            yield piece

    form = aiohttp.FormData()
    form.add_field("path", pieces(), filename="part.car", content_type="application/vnd.ipld.car")
    return form


def _text(lines: list[Any]) -> list[str]:
    return [json.dumps(line) for line in lines]


def _has(texts: Any, cid: Cid) -> bool:  # noqa: ANN401 - it is what a server sent
    return isinstance(texts, list) and str(cid) in texts


def _expect(condition: bool, name: str, otherwise: str) -> None:
    if not condition:
        raise UploadError(f"kubo {name} {otherwise}")
