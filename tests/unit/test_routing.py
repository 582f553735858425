"""What a router can answer, from a real server; and that names lead nowhere that strangers may not send us."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer

from dnc_async.errors import GatewayBusyError, GatewayError, GatewayMissError, GatewayOversizeError, GatewayTimeoutError
from dnc_async.gateways.http import HttpTransport
from dnc_async.gateways.providers import GATEWAY_PROTOCOL, MAX_ANSWER_BYTES, MAX_RECORD_BYTES, Provider
from dnc_async.gateways.routing import Router
from dnc_async.gateways.session import GuardedResolver, Sessions
from dnc_async.gateways.transport import Arrivals
from dnc_async.ipld.block import make
from dnc_async.ipld.cid import DAG_PB, Cid

from ..conftest import until

ROOT = Cid.of(b"a root", DAG_PB, version=0)
ROOT_V1 = str(Cid(1, DAG_PB, ROOT.multihash))
LINES, WHOLE = {"Content-Type": "application/x-ndjson"}, {"Content-Type": "application/json; charset=utf-8"}

#: A host's silence is an error after so long.
SILENCE_S = 600.0


def record(number: int, **fields: object) -> dict[str, object]:
    address = f"/dns/gw{number}.example/tcp/443/https"
    return {"Schema": "peer", "ID": "x", "Addrs": [address], "Protocols": [GATEWAY_PROTOCOL]} | fields


def lines(count: int) -> bytes:
    return b"".join(json.dumps(record(i)).encode() + b"\n" for i in range(count))


def whole(count: int) -> bytes:
    return json.dumps({"Providers": [record(i) for i in range(count)]}).encode()


def sessions(**options: object) -> Sessions:
    settings = {"requests_per_host": 8, "connect_timeout_s": SILENCE_S, "stall_timeout_s": SILENCE_S, "user_agent": "t"}
    return Sessions(**(settings | {"trust_env": False} | options))


@dataclass
class Server:
    """A server that answers as it is told, and a router client of it."""

    answer: web.StreamResponse | None = None
    parts: list[bytes] = field(default_factory=list)
    end: str = ""
    asked: list[web.Request] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    sessions: Sessions = field(default_factory=sessions)
    found: list[Provider] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        return self.answer if self.answer is not None else await self._stream(request)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """A chunked answer of some parts, that then ends, stalls, breaks or never ends."""
        response = web.StreamResponse(headers=LINES)
        response.enable_chunked_encoding()
        await response.prepare(request)
        for part in self.parts:
            await response.write(part)
        while self.end == "endless":
            await response.write(b" " * 1000 + b"\n")
        if self.end == "stall":
            await self.released.wait()
        elif self.end == "cut":
            assert request.transport is not None
            request.transport.close()
        return response

    async def ask(self, *, local: bool = False, max_records: int = 100, wanted: int = 1000) -> list[Provider]:
        self.found = []

        def found(provider: Provider) -> bool:
            self.found.append(provider)
            return len(self.found) < wanted

        router = Router(self.url, session=self.sessions.named(), local=local, max_records=max_records)
        await router.providers(ROOT, found)
        return self.found


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    scripted, app = Server(), web.Application()
    app.router.add_get("/{path:.*}", scripted.handle)
    async with TestServer(app) as real:
        scripted.url = str(real.make_url("")).rstrip("/")
        yield scripted
        scripted.released.set()
        await scripted.sessions.aclose()


async def test_what_is_asked(server: Server) -> None:
    """The path and filters of the specification, the CID as version 1, lines rather than a whole; no compression."""
    server.answer = web.Response(body=whole(0), headers=WHOLE)
    assert await server.ask() == []
    request = server.asked[0]
    query = f"filter-protocols={GATEWAY_PROTOCOL},unknown&filter-addrs="
    assert request.path_qs == f"/routing/v1/providers/{ROOT_V1}?{query}https,tls"
    assert request.headers["Accept"] == "application/x-ndjson, application/json;q=0.9"
    assert request.headers["Accept-Encoding"] == "identity"
    server.answer = web.Response(body=whole(0), headers=WHOLE)
    await server.ask(local=True)
    assert server.asked[1].path_qs.endswith("&filter-addrs=https,tls,http")


@pytest.mark.parametrize(("body", "headers"), [(lines(3), LINES), (lines(3)[:-1], LINES), (whole(3), WHOLE)])
async def test_answers(server: Server, body: bytes, headers: dict[str, str]) -> None:
    """The content type decides; the last line may lack its end."""
    server.answer = web.Response(body=body, headers=headers)
    assert [provider.url for provider in await server.ask()] == [f"https://gw{i}.example" for i in range(3)]


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 404, "text": "not found"},
        {"body": b"", "headers": LINES},
        {"body": b"\n", "headers": LINES},
        {"body": b'{"Providers": null}', "headers": WHOLE},
        {"body": json.dumps({"Providers": [record(0, Schema="new"), 7]}).encode(), "headers": WHOLE},
    ],
)
async def test_empty_answers(server: Server, answer: dict[str, object]) -> None:
    """All of them are an empty list, and no error."""
    server.answer = web.Response(**answer)
    assert await server.ask() == []


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"Content-Security-Policy": "x" * 65_000}, True),
        ({f"X-{i}": "y" * 8_000 for i in range(20)}, True),
        ({f"X-{i}": "y" for i in range(400)}, True),
        ({"Content-Security-Policy": "x" * 70_000}, False),
        ({f"X-{i}": "y" for i in range(600)}, False),
    ],
    ids=["long", "several long", "many", "too long", "too many"],
)
async def test_heads_as_of_a_cdn(server: Server, fields: dict[str, str], *, taken: bool) -> None:
    """Of routers as of gateways, of named hosts as of found ones; beyond a bound it is the host's error."""
    host = server.sessions.guarded(local=True)
    for session in (server.sessions.named(), host):
        server.answer = web.Response(body=b"hello", headers=fields | {"Content-Type": "application/vnd.ipld.raw"})
        transport = HttpTransport(server.url, session=session, headers={})
        if taken:
            assert await transport.raw(Cid.of(b"hello"), limit_bytes=5, arrivals=Arrivals()) == (b"hello",)
        else:
            with pytest.raises(GatewayError, match="the connection failed"):
                await transport.raw(Cid.of(b"hello"), limit_bytes=5, arrivals=Arrivals())
    server.answer = web.Response(body=whole(1), headers=fields | WHOLE)
    if taken:
        assert len(await server.ask()) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        ({"status": 500, "text": "no"}, GatewayError, "answered 500"),
        ({"status": 429}, GatewayBusyError, "answered 429"),
        ({"status": 302, "headers": {"Location": "/routing/v1/providers/x"}}, GatewayMissError, "answered 302"),
        ({"text": "<html>"}, GatewayError, "answered with text/plain, expected application/x-ndjson or"),
        ({"body": b"oops", "headers": LINES}, GatewayError, "its answer cannot be read: it is not JSON"),
        ({"body": b"[]", "headers": WHOLE}, GatewayError, "not an object with a list of Providers"),
        ({"body": b"[" * 10**5, "headers": WHOLE}, GatewayError, "it is not JSON"),
        ({"body": whole(1), "headers": {**WHOLE, "Content-Encoding": "gzip"}}, GatewayError, "Content-Encoding"),
        ({"body": b" " * (MAX_ANSWER_BYTES + 1), "headers": WHOLE}, GatewayOversizeError, "over the limit"),
        ({"body": b"1" * (MAX_RECORD_BYTES + 1), "headers": LINES}, GatewayError, "a record has over"),
    ],
)
async def test_answers_that_are_errors(
    server: Server, answer: dict[str, object], kind: type[GatewayError], why: str
) -> None:
    """Each names the router, and what was asked of it; a redirect is not followed."""
    server.answer = web.Response(**answer)
    with pytest.raises(GatewayError, match=why) as caught:
        await server.ask()
    assert type(caught.value) is kind
    assert f"{server.url}, asked for {ROOT_V1}" in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize("end", ["cut", "nonsense"])
async def test_what_came_before_stands(server: Server, end: str) -> None:
    """Records are told as they come, whatever becomes of the answer."""
    server.parts, server.end = [lines(2), b'{"Schema"' if end != "nonsense" else b"nonsense\n"], end
    with pytest.raises(GatewayError):
        await server.ask()
    assert len(server.found) == 2


async def test_what_came_before_a_stall_stands(server: Server, leap: Callable[[float], None]) -> None:
    """The rest is an error after the time that it was given."""
    server.parts, server.end = [lines(2), b'{"Schema"'], "stall"
    asking = asyncio.create_task(server.ask())
    await until(lambda: len(server.found) == 2)
    await until(lambda: asking.done() or leap(SILENCE_S))
    with pytest.raises(GatewayTimeoutError):
        await asking
    assert len(server.found) == 2


async def test_a_router_that_never_ends(server: Server) -> None:
    """No more is read than the limit, of bytes or of records."""
    server.parts, server.end = [lines(2)], "endless"
    assert len(await server.ask()) == 2
    server.parts = [b"0\n" * 200, lines(1)]
    assert await server.ask(max_records=100) == []


@pytest.mark.parametrize(("body", "headers"), [(lines(9), LINES), (whole(9), WHOLE)])
async def test_enough(server: Server, body: bytes, headers: dict[str, str]) -> None:
    """It stops where no more are wanted, or allowed."""
    server.answer = web.Response(body=body, headers=headers)
    assert len(await server.ask(wanted=2)) == 2
    server.answer = web.Response(body=body, headers=headers)
    assert len(await server.ask(max_records=4)) == 4


async def test_a_router_that_is_down() -> None:
    """An error like any other; its URL is shown without the password in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"
    down = Server(url=url)
    with pytest.raises(GatewayError, match="the connection failed") as caught:
        await down.ask()
    assert "secret" not in str(caught.value)
    await down.sessions.aclose()


class Names(AbstractResolver):
    """Says what a test wants it to."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.is_closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        self.is_closed = True


BLOCK = make(b"a block")


async def raw(guarded: aiohttp.ClientSession, url: str, server_name: str | None = None) -> bytes:
    transport = HttpTransport(url, session=guarded, headers={}, server_name=server_name)
    return b"".join(await transport.raw(BLOCK.cid, limit_bytes=100, arrivals=Arrivals()))


async def test_a_name_that_leads_here(server: Server) -> None:
    """Refused before anything is sent, unless local gateways may be named."""
    server.answer = web.Response(body=BLOCK.data, headers={"Content-Type": "application/vnd.ipld.raw"})
    names = Names(["127.0.0.1"])
    url, found = server.url.replace("127.0.0.1", "gw.example"), sessions(resolver=lambda: names)
    with pytest.raises(GatewayError, match=r"gw\.example leads to 127\.0\.0\.1: not where a router may send us"):
        await raw(found.guarded(local=False), url)
    assert server.asked == []
    assert await raw(found.guarded(local=True), url) == BLOCK.data
    names.answers = [["169.254.169.254"]]
    with pytest.raises(GatewayError, match=r"leads to 169\.254\.169\.254"):
        await raw(found.guarded(local=True), url.replace("gw", "cloud"))
    await found.aclose()
    assert names.is_closed


async def test_a_name_that_leads_here_later() -> None:
    """DNS rebinding: each answer is judged, and of each only what is permitted is left to be connected to."""
    resolver = GuardedResolver(Names(["1.1.1.1", "127.0.0.1", "::1"], ["127.0.0.1"], []), lambda it: it == "1.1.1.1")
    assert [found["host"] for found in await resolver.resolve("gw.example", 443)] == ["1.1.1.1"]
    with pytest.raises(OSError, match=r"leads to 127\.0\.0\.1: not where"):
        await resolver.resolve("gw.example", 443)
    with pytest.raises(OSError, match="leads to nothing"):
        await resolver.resolve("gw.example", 443)


async def test_sessions_are_opened_once() -> None:
    """One for each kind of host; nothing of the user's goes to strangers."""
    opened = sessions(trust_env=True)
    assert opened.named() is opened.named() is not opened.guarded(local=True)
    assert opened.guarded(local=True) is opened.guarded(local=True) is not opened.guarded(local=False)
    assert [opened.named().trust_env, opened.guarded(local=False).trust_env] == [True, False]
    kept = [opened.named(), opened.guarded(local=True), opened.guarded(local=False)]
    await opened.aclose()
    assert all(session.closed for session in kept)


async def test_the_name_of_the_certificate_is_asked_for() -> None:
    """By SNI, on a real TLS socket; it has no certificate, so that the handshake ends there."""
    named: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    serving = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    port, found = serving.sockets[0].getsockname()[1], sessions()
    async with serving:
        with pytest.raises(GatewayError, match="the connection failed"):
            await raw(found.guarded(local=True), f"https://127.0.0.1:{port}", "gw.example")
    assert named == ["gw.example"]
    await found.aclose()


async def test_the_name_of_the_certificate_is_the_host(server: Server) -> None:
    """As far as the server is told."""
    server.answer = web.Response(body=BLOCK.data, headers={"Content-Type": "application/vnd.ipld.raw"})
    assert await raw(server.sessions.named(), server.url, "gw.example") == BLOCK.data
    assert server.asked[0].host == server.url.replace("http://127.0.0.1", "gw.example")
