"""A gateway's URL as people write it, and the secrets in it."""

from __future__ import annotations

import base64

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import dnc_async as dnc
from dnc_async.config import gateway_url
from dnc_async.errors import ArgumentError
from dnc_async.gateways.http import HttpTransport
from dnc_async.gateways.transport import Arrivals
from dnc_async.gateways.urls import take_credentials, without_secrets
from dnc_async.ipld.cid import Cid


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://localhost:8080/", "http://127.0.0.1:8080"),
        ("http://LOCALHOST", "http://127.0.0.1"),
        ("http://user:p%40ss@localhost:8080/ipfs", "http://user:p%40ss@127.0.0.1:8080"),
        ("http://user@localhost", "http://user@127.0.0.1"),
        ("http://a@b:c@localhost:1/x", "http://a@b:c@127.0.0.1:1/x"),
        ("https://localhost:8443", "https://localhost:8443"),
        ("https://user:x@gw.example/", "https://user:x@gw.example"),
        ("http://[::1]:8080/ipfs/", "http://[::1]:8080"),
        ("https://host.example/data.car?sig=a/", "https://host.example/data.car?sig=a/"),
        ("http://me:x@localhost:1/data.car", "http://me:x@127.0.0.1:1/data.car"),
    ],
)
def test_gateway_urls(written: str, url: str) -> None:
    """The number for localhost, where no certificate is for the name; all else stays as it is."""
    assert gateway_url(written) == url


@pytest.mark.parametrize(
    "url", ["ftp://me:hush@x", "http://", "http://me:hush@x:port", "http://x:0", "http://\ud800", 7]
)
def test_what_is_no_gateway(url: object) -> None:
    """Told without what is secret in it."""
    with pytest.raises(ArgumentError, match="expected URLs") as caught:
        gateway_url(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X Y": "a"}, {"": "a"}, {"X": "\ud800"}, {"X": b"a"}])
def test_headers_that_cannot_be_sent(headers: dict[str, str]) -> None:
    """Told at once, without the value."""
    with pytest.raises(ArgumentError, match="headers: "):
        dnc.Gateway("http://gw.example", headers=headers)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:hush@gw.example/a@b", "http://***@gw.example/a@b"),
        ("http://me:hu@sh@gw.example", "http://***@gw.example"),
        ("http://gw.example/a@b", "http://gw.example/a@b"),
        ("https://gw.example/x.car?sig=hush@x", "https://gw.example/x.car?***"),
    ],
)
def test_secrets_are_hidden(url: str, shown: str) -> None:
    """Wherever they stand."""
    assert without_secrets(url) == shown


def test_credentials_are_decoded() -> None:
    """Percent-encoded bytes, of any character."""
    url, headers = take_credentials("http://us%40er:p%3A%C3%A4%ff@gw.example:1/x")
    assert url == "http://gw.example:1/x"
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"us@er:p:\xc3\xa4\xff"
    assert take_credentials("http://gw.example/a@b") == ("http://gw.example/a@b", {})


async def test_credentials_reach_localhost() -> None:
    """By the number to which the name becomes; a header that is given goes before."""
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.headers["Authorization"])
        return web.Response(body=b"x", content_type="application/vnd.ipld.raw")

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    async with TestServer(app) as server, aiohttp.ClientSession(auto_decompress=False) as session:
        for headers in ({}, {"authorization": "Bearer x"}):
            gateway = dnc.Gateway(f"http://us%40er:p%C3%A4@localhost:{server.port}", headers=headers)
            transport = HttpTransport(gateway.url, session=session, headers=gateway.headers)
            assert await transport.raw(Cid.of(b"x"), limit_bytes=9, arrivals=Arrivals()) == (b"x",)
    assert asked == ["Basic " + base64.b64encode("us@er:pä".encode()).decode(), "Bearer x"]
