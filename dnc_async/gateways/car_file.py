"""A CAR file on a static web host, used as a gateway: blocks are fetched by HTTP range requests.

The host only has to support ranges: S3, a CDN, ordinary web space. The file is a CARv2 with an index (``dnc export --indexed``
writes it). The index is fetched once, with a size limit, before the first block. A block then is one range. So are blocks that
follow each other in the file, as they do in an export: that part of the file, behind a CAR header, is a CAR. All blocks are
verified like any gateway's. A few redirects are followed, as object stores and release pages send them.

A changed file is noticed by its blocks, not by its ETag, which some hosts alternate: if a block is not where the index says, the
index is read again. This is not repeated until a block was found where the index says.

The index is a stranger's: it may be no longer than the file has room for it, and than its payload can need, and it is decoded in
a worker thread. If it cannot be read, or breaks off several times, that is remembered, and the host is not asked for it again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from dnc_async.errors import (
    CarError,
    CidError,
    GatewayError,
    GatewayMissError,
    GatewayOversizeError,
    GatewayRefusedError,
)
from dnc_async.gateways.http import HttpSource
from dnc_async.gateways.redirects import RedirectSessions
from dnc_async.gateways.transport import Arrivals, CarRequest
from dnc_async.gateways.workers import run_in_worker
from dnc_async.ipld import varint
from dnc_async.ipld.car import MAX_SECTION_BYTES, encode_header
from dnc_async.ipld.car_index import HEADER_BYTES, CarV2Header, Index
from dnc_async.ipld.cid import Cid

if TYPE_CHECKING:
    import aiohttp

_ANSWERS = (200, 206, 416)
#: A Content-Range: the unit may be in any case (RFC 9110), and some servers write "=" after it, as in a request.
_RANGE = re.compile(r"bytes(?:[ \t]+|=)0*([0-9]{1,19})-(?:[0-9]{1,19}/0*([0-9]{1,19})$)?", re.IGNORECASE)
#: An index that breaks off is read again until so many times its bytes were received in vain.
_INDEX_READ_IN_VAIN = 2


class CarFileTransport:
    """One indexed CARv2 file at a URL."""

    has_cars = True
    is_complete = True

    def __init__(
        self,
        url: str,
        *,
        session: aiohttp.ClientSession,
        headers: Mapping[str, str],
        redirect_sessions: RedirectSessions | None = None,
        executor: Executor | None = None,
    ) -> None:
        """``redirect_sessions`` returns the sessions for redirects; without it, a redirect means that the file is not there.

        ``executor`` decodes the index; without it, that is done in the event loop.
        """
        self._source = HttpSource(url, session=session, headers=headers, redirect_sessions=redirect_sessions)
        self.name = self._source.name
        self._executor = executor
        self._opening = anyio.Lock()
        self._refused = ""
        self._in_vain_bytes = 0
        self._layout: CarV2Header | None = None
        self._index: Index | None = None
        self._is_trusted = True

    def __repr__(self) -> str:
        state = "not opened" if self._index is None else f"{len(self._index)} blocks"
        return f"<CarFileTransport {self.name}, {state}>"

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> bytes:
        """Fetch one block, unverified, of at most ``limit_bytes``."""
        asked = str(cid)
        layout, index = await self._open(asked)
        offset = index.offset(cid)
        if offset is None:
            raise GatewayMissError("the file's index does not list this block", gateway=self.name, cid=asked)
        end = index.end(offset, layout.data_bytes)
        # Sections that the index does not list may follow: they are cut off below.
        size = min(end - offset, MAX_SECTION_BYTES)
        if size <= 0:
            raise self._source.error(f"the file's index places the block at byte {offset}, behind the end", asked)
        section = await self._read_range(layout.data_offset + offset, size, asked, arrivals)
        return self._block(section, index, cid, limit_bytes, asked)

    def _block(self, section: bytes, index: Index, cid: Cid, limit_bytes: int, asked: str) -> bytes:
        try:
            size, start = varint.read(section, 0)
            found, begin = Cid.read(section, start)
        except (CidError, ValueError) as error:
            self._distrust(index)
            raise self._source.error(f"the file has no section where its index says: {error}", asked) from error
        if found.multihash != cid.multihash or start + size > len(section):
            self._distrust(index)
            raise self._source.error("the file has another section where its index says", asked)
        self._is_trusted = True
        if start + size - begin > limit_bytes:
            held = f"holds {start + size - begin} bytes, over the limit of {limit_bytes}"
            raise GatewayOversizeError(held, gateway=self.name, cid=asked)
        return section[begin : start + size]

    def _distrust(self, index: Index | None) -> None:
        """Forget the index, unless it was just read: the file may have changed."""
        if self._is_trusted and index is self._index:
            self._layout = self._index = None
            self._is_trusted = False
            self._source.forget_redirects()

    async def car(
        self,
        request: CarRequest,
        *,
        limit_bytes: int,
        arrivals: Arrivals,
        feed: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        """Fetch the part of the file that contains some blocks and what follows them, unverified, as a CAR."""
        asked = request.asked
        layout, index = await self._open(asked)
        start, end = self._byte_range(layout, index, request)
        if end - start > limit_bytes:
            raise self._source.oversize(f"holds {end - start} bytes there", limit_bytes, asked)
        async with self._get_range(layout.data_offset + start, end - start, asked) as response:
            arrivals.begin()
            if await feed(encode_header([])):
                await self._source.stream(response, end - start, asked, arrivals, feed)

    def _byte_range(self, layout: CarV2Header, index: Index, request: CarRequest) -> tuple[int, int]:
        """The byte range of the requested consecutive blocks and of what follows them, up to the end of a section."""
        places = [index.offset(cid) for cid in request.cids]
        known = [place for place in places if place is not None]
        if not known or len(known) < len(places):
            raise GatewayMissError("the file's index does not list all of these", gateway=self.name, cid=request.asked)
        ends = [index.end(place, layout.data_bytes) for place in known]
        if known[1:] != ends[:-1]:
            raise GatewayRefusedError("the file holds these in several places", gateway=self.name, cid=request.asked)
        following = index.end(known[0] + request.expected_bytes, layout.data_bytes)
        return known[0], max(ends[-1], following)

    async def holds(self, root: Cid) -> bool | None:
        """Not known before the index was read."""
        return None

    async def sends_cars(self, root: Cid) -> bool:
        """Always: the file is a CAR."""
        return True

    async def _open(self, asked: str) -> tuple[CarV2Header, Index]:
        async with self._opening:
            if self._layout is None or self._index is None:
                if self._refused:
                    raise GatewayRefusedError(self._refused, gateway=self.name, cid=asked)
                try:
                    layout, most_bytes = await self._read_header(asked)
                    index = await self._decode(await self._read_index(layout, most_bytes, asked))
                except CarError as error:
                    self._refused = f"{error}; write it with 'dnc export --indexed'"
                    raise GatewayRefusedError(self._refused, gateway=self.name, cid=asked) from error
                self._layout, self._index = layout, index
            return self._layout, self._index

    async def _decode(self, data: bytes) -> Index:
        return Index.decode(data) if self._executor is None else await run_in_worker(self._executor, Index.decode, data)

    async def _read_header(self, asked: str) -> tuple[CarV2Header, int]:
        """The header, and the most bytes that the index may have."""
        async with self._get_range(0, HEADER_BYTES, asked) as response:
            layout = CarV2Header.decode(await self._source.body(response, HEADER_BYTES, asked))
            found = _RANGE.match(response.headers.get("Content-Range", ""))
        if not layout.index_offset:
            raise CarError("a CARv2 file without an index", offset=0)
        most_bytes = layout.most_index_bytes
        if found is not None and found[2]:  # the host tells how long the file is
            left = int(found[2]) - layout.index_offset
            if not 0 < left <= most_bytes:
                raise CarError(
                    f"a CARv2 file of {found[2]} bytes whose index begins at byte {layout.index_offset}, expected it to have "
                    f"1 to {most_bytes} bytes",
                    offset=0,
                )
            most_bytes = left
        return layout, most_bytes

    async def _read_index(self, layout: CarV2Header, most_bytes: int, asked: str) -> bytes:
        headers, received = {"Range": f"bytes={layout.index_offset}-"}, 0

        def count(size_bytes: int) -> None:
            nonlocal received
            received += size_bytes

        try:
            async with self._source.get("", headers, asked, expected=_ANSWERS) as response:
                self._check(response, layout.index_offset, asked)
                return await self._source.body(response, most_bytes, asked, Arrivals(count))
        except GatewayOversizeError as error:
            raise CarError(f"a CARv2 file with an index of more than {most_bytes} bytes", offset=0) from error
        except GatewayError as error:
            self._in_vain_bytes += received
            if self._in_vain_bytes > _INDEX_READ_IN_VAIN * most_bytes:
                raise CarError("the index of a CARv2 file was never sent whole", offset=0) from error
            raise

    async def _read_range(self, start: int, size: int, asked: str, arrivals: Arrivals | None = None) -> bytes:
        arrivals = arrivals or Arrivals()
        async with self._get_range(start, size, asked) as response:
            arrivals.begin()
            return await self._source.body(response, size, asked, arrivals)

    @asynccontextmanager
    async def _get_range(self, start: int, size: int, asked: str) -> AsyncGenerator[aiohttp.ClientResponse]:
        headers = {"Range": f"bytes={start}-{start + size - 1}"}
        async with self._source.get("", headers, asked, expected=_ANSWERS) as response:
            self._check(response, start, asked)
            yield response

    def _check(self, response: aiohttp.ClientResponse, start: int, asked: str) -> None:
        """Raise an error unless the answer is the requested range."""
        if response.status == 200:
            refused = "answered a range with the whole file: this host cannot serve it"
            raise GatewayRefusedError(refused, gateway=self.name, cid=asked)
        if response.status == 416:
            self._distrust(self._index)
            raise self._source.error(f"the file has no byte {start}, where its index says that there is a block", asked)
        said = response.headers.get("Content-Range", "")
        found = _RANGE.match(said)
        if found is None or found[1] != str(start):
            raise self._source.error(f"answered with the range {said!r}, asked for byte {start} on", asked)
