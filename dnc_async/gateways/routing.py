"""A delegated router: asks it over HTTP who provides a CID (ipfs/specs ``http-routing-v1.md``).

Everything about an answer is bounded: its bytes, a record's bytes, how many records are read. Whoever is found is told at once,
while the answer still comes: a router may search the network for half a minute.
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
_ACCEPT = {"Accept": f"{_LINES}, {_WHOLE};q=0.9"}  # a whole answer holds 20 records or 100, lines have no such limit

#: Is told of a provider; says whether more are wanted.
Found = Callable[[Provider], bool]


class Router:
    """One router, on a session that its owner closes."""

    def __init__(self, url: str, *, session: aiohttp.ClientSession, local: bool, max_records: int) -> None:
        """``local``: whether it may name loopback and private addresses, and plain HTTP there."""
        self._source = HttpSource(url, session=session, headers={})
        self.local = local
        self._max_records = max_records
        self.name = self._source.name

    def __repr__(self) -> str:
        return f"<Router {self.name}>"

    async def providers(self, root: Cid, found: Found) -> None:
        """Tell ``found`` of each gateway that the router names for a CID, until it wants no more.

        What was told stands, whatever comes after. Raises :class:`~dnc_async.errors.GatewayError`, which names the router.
        """
        source, asked = self._source, str(Cid(1, root.codec, root.multihash))
        # Plain HTTP is of use only where local addresses are; elsewhere the router need not send it.
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

        def is_enough(come: Iterable[object]) -> bool:
            nonlocal records
            for record in come:
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
        """Whether more are wanted."""
        return all(found(provider) for record in records for provider in parse_record(record, local=self.local))
