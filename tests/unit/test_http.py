"""One gateway's answers, from a real server: what each of them means, by the specification."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dnc_async import errors
from dnc_async.gateways.http import HttpTransport, retry_after
from dnc_async.gateways.transport import Arrivals
from dnc_async.ipld.cid import Cid

from ..conftest import until

CID = Cid.of(b"hello")
RAW = {"Content-Type": "application/vnd.ipld.raw"}


#: The gateway's silence is an error after so long.
SILENCE_S = 600.0


class Gateway:
    """A server that gives one answer, set by the test, and the transport that asks it."""

    def __init__(self) -> None:
        self.answer: web.StreamResponse = web.Response()
        self.transport: HttpTransport
        self.url = ""
        self.end = ""
        self.stalls, self.released = asyncio.Event(), asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.path_qs == f"/ipfs/{CID}?format=raw"
        assert request.headers["Accept"] == "application/vnd.ipld.raw"
        assert request.headers["Accept-Encoding"] == "identity"
        return await self._go_wrong(request) if self.end else self.answer

    async def _go_wrong(self, request: web.Request) -> web.StreamResponse:
        """A chunked body without a Content-Length, that is too long, stops, or breaks."""
        response = web.StreamResponse(headers=RAW)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"longer" if self.end == "endless" else b"long")
        if self.end == "stall":
            self.stalls.set()
            await self.released.wait()
        elif self.end == "cut":
            assert request.transport is not None
            request.transport.close()
        return response

    async def ask(self, limit: int = 5) -> bytes:
        return b"".join(await self.transport.raw(CID, limit_bytes=limit, arrivals=Arrivals()))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    app = web.Application()
    app.router.add_get("/{path:.*}", gateway.handle)
    timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_S)
    async with TestServer(app) as server, aiohttp.ClientSession(auto_decompress=False, timeout=timeout) as session:
        gateway.url = str(server.make_url("")).rstrip("/")
        gateway.transport = HttpTransport(gateway.url, session=session, headers={})
        yield gateway
        gateway.released.set()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, errors.GatewayMissError),
        (403, errors.GatewayMissError),
        (302, errors.GatewayMissError),
        (410, errors.GatewayRefusedError),
        (451, errors.GatewayRefusedError),
        (429, errors.GatewayBusyError),
        (502, errors.GatewayBusyError),
        (503, errors.GatewayBusyError),
        (504, errors.GatewayBusyError),
        (500, errors.GatewayError),
        (206, errors.GatewayError),
    ],
)
async def test_status(gateway: Gateway, status: int, kind: type[errors.GatewayError]) -> None:
    """Each status has one meaning, and the error names the gateway and the CID."""
    gateway.answer = web.Response(status=status, headers={"Location": "http://elsewhere.example/"})
    with pytest.raises(errors.GatewayError) as caught:
        await gateway.ask()
    assert type(caught.value) is kind
    assert gateway.url in str(caught.value)
    assert str(CID) in str(caught.value)


async def test_boxo_says_500_for_not_found(gateway: Gateway) -> None:
    """A 500 that begins as boxo's does is a miss."""
    gateway.answer = web.Response(status=500, text="ipld: could not find node bafy")
    with pytest.raises(errors.GatewayMissError):
        await gateway.ask()


async def test_good_answer(gateway: Gateway) -> None:
    """The bytes, as they came."""
    gateway.answer = web.Response(body=b"hello", headers=RAW)
    assert await gateway.ask() == b"hello"


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Content-Type": "text/html"}, "text/html"),
        ({**RAW, "Content-Encoding": "gzip"}, "Content-Encoding"),
        (RAW, "announced 6 bytes, over the limit of 5"),
    ],
)
async def test_refused_answers(gateway: Gateway, headers: dict[str, str], text: str) -> None:
    """A wrong type, a compressed body and one that is too long are the gateway's errors."""
    gateway.answer = web.Response(body=b"longer", headers=headers)
    with pytest.raises(errors.GatewayError, match=text):
        await gateway.ask()


@pytest.mark.parametrize(
    ("end", "kind", "text"),
    [
        ("endless", errors.GatewayOversizeError, "over the limit of 5"),
        ("cut", errors.GatewayError, "connection failed"),
    ],
)
async def test_bodies_that_go_wrong(gateway: Gateway, end: str, kind: type[errors.GatewayError], text: str) -> None:
    """A body that is too long or that is cut is told for what it is."""
    gateway.end = end
    with pytest.raises(kind, match=text):
        await gateway.ask()


async def test_a_body_that_stalls(gateway: Gateway, leap: Callable[[float], None]) -> None:
    """It is told as such after the time that it was given."""
    gateway.end = "stall"
    asking = asyncio.create_task(gateway.ask())
    await gateway.stalls.wait()
    await until(lambda: asking.done() or leap(SILENCE_S))
    with pytest.raises(errors.GatewayTimeoutError, match="within the limit"):
        await asking


async def test_secrets_are_not_shown() -> None:
    """Credentials in a URL do not reach an error or a repr."""
    async with aiohttp.ClientSession() as session:
        transport = HttpTransport(
            "http://user:secret@127.0.0.1:1", session=session, headers={"Authorization": "hidden"}
        )
        with pytest.raises(errors.GatewayError) as caught:
            await transport.raw(CID, limit_bytes=5, arrivals=Arrivals())
    assert "secret" not in f"{caught.value} {transport!r}"
    assert "hidden" not in repr(transport)


def test_retry_after() -> None:
    """Both forms of the header, and nonsense."""
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert retry_after("60", now.timestamp()) == 60
    assert retry_after("Thu, 01 Jan 2026 00:00:30 GMT", now.timestamp()) == 30
    assert retry_after("Wed, 31 Dec 2025 00:00:30 GMT", now.timestamp()) == 0
    assert retry_after(" 1.5 ", now.timestamp()) == 1.5
    assert retry_after("9" * 400, now.timestamp()) == 1e9
    for text in ("-5", "1e9", "inf", "nan", "", "1, 2", "\u0663"):  # the last is a three, in other digits
        assert retry_after(text, now.timestamp()) is None
    assert retry_after("soon", now.timestamp()) is None
    assert retry_after("Thu, 01 Jan 2026 00:00:30 +99999999999999999999", now.timestamp()) is None
    assert retry_after("Thu, 01 Jan 99999999999999999999 00:00:30 GMT", now.timestamp()) is None
    assert retry_after(None, now.timestamp()) is None
