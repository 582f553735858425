"""Asks a delegated router over HTTP which gateways provide a CID (ipfs/specs ``http-routing-v1.md``).

The size of an answer, the size of a record and the number of records are limited. Each provider is reported as soon as its record
arrives, because a router may search the network for half a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import aiohttp

from dnc_async.gateways.http import HttpSource
from dnc_async.gateways.providers import (
    GATEWAY_PROTOCOL,
    MAX_ANSWER_BYTES,
    Provider,
    RecordLines,
    parse_answer,
    parse_record,
)
from dnc_async.ipld.cid import Cid

_LINES, _WHOLE = "application/x-ndjson", "application/json"
_ACCEPT = {"Accept": f"{_LINES}, {_WHOLE};q=0.9"}  # a JSON answer holds 20 or 100 records, NDJSON has no such limit

#: Called with a provider; returns whether more are wanted.
Found = Callable[[Provider], bool]


class Router:
    """One router, on a session that its owner closes."""

    def __init__(self, url: str, *, session: aiohttp.ClientSession, local: bool, max_records: int) -> None:
        """``local``: whether providers at loopback and private addresses are accepted from it, and plain HTTP for those."""
        self._source = HttpSource(url, session=session, headers={})
        self.local = local
        self._max_records = max_records
        self.name = self._source.name

    def __repr__(self) -> str:
        return f"<Router {self.name}>"

    async def providers(self, root: Cid, found: Found) -> None:
        """Call ``found`` for each gateway that the router names for a CID, until it returns ``False``.

        May raise :class:`~dnc_async.errors.GatewayError`, which names the router, after ``found`` was called for some.
        """
        source, asked = self._source, str(Cid(1, root.codec, root.multihash))
        # Plain HTTP is accepted only for local addresses; from other routers it need not be requested.
        addresses = "https,tls,http" if self.local else "https,tls"
        target = f"/routing/v1/providers/{asked}?filter-protocols={GATEWAY_PROTOCOL},unknown&filter-addrs={addresses}"
        async with source.get(target, _ACCEPT, asked, expected=(200, 404)) as response:
            try:
                if response.status == 404:  # by the specification, the same as an empty list
                    return
                if response.content_type == _LINES:
                    await self._read_lines(response, found)
                elif response.content_type == _WHOLE:
                    body = await source.body(response, MAX_ANSWER_BYTES, asked)
                    self._tell(parse_answer(body)[: self._max_records], found)
                else:
                    raise source.error(f"answered with {response.content_type}, expected {_LINES} or {_WHOLE}", asked)
            except ValueError as error:
                raise source.error(f"its answer cannot be read: {error}", asked) from error

    async def _read_lines(self, response: aiohttp.ClientResponse, found: Found) -> None:
        lines, size, records = RecordLines(), 0, 0

        def is_enough(parsed: Iterable[object]) -> bool:
            nonlocal records
            for record in parsed:
                records += 1
                if records > self._max_records or not self._tell([record], found):
                    return True
            return size > MAX_ANSWER_BYTES

        async for part in response.content.iter_any():
            size += len(part)
            if is_enough(lines.feed(part)):
                return
        is_enough(lines.close())

    def _tell(self, records: Iterable[object], found: Found) -> bool:
        """Call ``found`` for the providers in these records; returns whether more are wanted."""
        return all(found(provider) for record in records for provider in parse_record(record, local=self.local))
