"""What strangers write reaches the terminal as escapes: no control code, no forged line, no reversed text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.cli import main
from dnc_async.config import FetchSettings
from dnc_async.errors import GatewayError
from dnc_async.gateways.urls import without_secrets
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file, build_symlink
from dnc_async.ipld.cid import DAG_CBOR, DAG_PB, Cid
from dnc_async.ipld.dagpb import Link
from dnc_async.ipld.unixfs import Kind
from dnc_async.quoting import quoted
from dnc_async.store import BlockStore

from ..conftest import PATIENCE_S

#: A title for the window, a colour in C1, a right-to-left override, a line break with a line of ours behind it, a line separator.
EVIL = "a\x1b]0;owned\x07\x9b31m\u202etxt.exe\r\ndnc: all is well\u2028\x7f"

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def dnc_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command here; returns its status and all that it wrote, which no terminal obeys."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as ended:
            status = int(ended.code or 0)
        printed = capsys.readouterr()
        said = printed.out + printed.err
        lines = said.split("\n")
        assert all(line.isprintable() for line in lines), ascii(said)
        assert not any(line.startswith("dnc: all is well") for line in lines)
        return int(status or 0), said

    return run


def kept(folder: Path, blocks: list[Block], root: Cid) -> Path:
    with BlockStore.open(folder, create=True).begin() as transaction:
        for block in blocks:
            transaction.put(block)
        transaction.commit(root)
    return folder


def test_a_quoted_text() -> None:
    """Printable text of any language stays as it is."""
    assert quoted("grün 日本.txt \\n") == "grün 日本.txt \\n"
    assert quoted("\x1b[0m\u202e\n\udcff") == r"\x1b[0m\u202e\n\udcff"
    assert str(GatewayError(EVIL, gateway="http://x", cid=EVIL)).isprintable()


@contextlib.contextmanager
def answering(head: bytes) -> Iterator[str]:
    """A server that sends these bytes to whoever connects, from a thread of its own; gives its URL."""
    loop, ready, port = asyncio.new_event_loop(), threading.Event(), 0

    async def serve() -> None:
        nonlocal port

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await ended.wait()

    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


WORDS = b"\x1b]0;owned\x07 \xc2\x9b31m \xe2\x80\xaetxt \x9b"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 410 " + WORDS + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: a/" + WORDS + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.ipld.raw\r\nContent-Encoding: " + WORDS + b"\r\n\r\n",
        b"HTTP/1.1 " + WORDS + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + WORDS + b"\r\n\r\n",
        WORDS + b"\r\n\r\n",
    ],
)
def test_a_gateway(dnc_command: Command, head: bytes) -> None:
    """Its status line, its headers, and what is no HTTP at all."""
    with answering(head) as url:
        status, said = dnc_command("get", Cid.of(b"x"), "-o", "out", "--gateway", url)
    assert status == 1
    assert url in said


def test_columns(dnc_command: Command, tmp_path: Path) -> None:
    """``inspect`` and ``upload`` name them."""
    done = asyncio.run(dnc.upload({EVIL: np.arange(4)}, batch_size=2, store=tmp_path / "store"))
    status, said = dnc_command("inspect", done, "--store", tmp_path / "store")
    assert status == 0
    assert r"a\x1b]0;owned\x07\x9b31m\u202etxt.exe\r\ndnc: all is well\u2028\x7f: <i8" in said
    (tmp_path / "evil.csv").write_text('"b\x1b[31m",c\n1,2\n3,4\n')
    assert r"b\x1b[31m: " in dnc_command("upload", "evil.csv", "--store", tmp_path / "store")[1]


def manifests() -> Iterator[dict[str, object]]:
    good = {"format": "dnc-dataset", "version": 2, "pages": [], "page": [], "samples": 1, "batch_size": 1}
    good |= {"size_bytes": 1, "largest_chunk_bytes": 1, "schema": {"structure": "array", "columns": [["0", "<f4", []]]}}
    yield {**good, "version": EVIL}
    yield {**good, "samples": EVIL}
    yield {**good, "pages": [EVIL]}
    yield {**good, "schema": {"structure": "array", "columns": [EVIL]}}
    yield {**good, "schema": {"structure": "array", "columns": [[EVIL, EVIL, []]]}}


def test_manifests(dnc_command: Command, tmp_path: Path) -> None:
    """What is wrong in one is shown."""
    for number, manifest in enumerate(manifests()):
        blocks, file = build_file(msgpack.packb(manifest), UNIXFS_V1_2025)
        node = make(dagpb.encode(unixfs.encode(Kind.DIRECTORY), [Link(file.cid, "manifest", 1)]), DAG_PB)
        store = kept(tmp_path / f"store{number}", [node, *blocks], node.cid)
        status, said = dnc_command("inspect", node.cid, "--store", store)
        assert status == 1
        assert "manifest" in said


def test_names_in_a_tree(dnc_command: Command, tmp_path: Path) -> None:
    """Symlinks that lead out, entries that are left out, and a name that the disk does not take."""
    name = EVIL.replace("/", "")
    (leaf,), _ = build_file(b"data", UNIXFS_V1_2025)
    (link,), _ = build_symlink("/etc/passwd", UNIXFS_V1_2025)
    (null,), _ = build_symlink("a\0b", UNIXFS_V1_2025)
    foreign = make(b"\xa0", DAG_CBOR)

    def tree(*links: Link) -> tuple[Path, Cid]:
        node = make(dagpb.encode(unixfs.encode(Kind.DIRECTORY), links), DAG_PB)
        blocks = [leaf, link, null, foreign, node]
        return kept(tmp_path / f"store-{str(node.cid)[-6:]}", blocks, node.cid), node.cid

    store, root = tree(Link(link.cid, name, 1), Link(null.cid, "0" + name, 1), Link(foreign.cid, "1" + name, 1))
    status, said = dnc_command("get", root, "-o", "tree", "--store", store)
    assert status == 0
    assert r"1 symlink out of the tree, kept as they are: a\x1b]0;owned" in said
    assert r"left out 2 entries of the tree: " in said
    assert "holds a zero byte" in said
    assert os.listdir(tmp_path / "tree") == [name]
    store, root = tree(Link(leaf.cid, name + "x" * 300, 1))
    status, said = dnc_command("get", root, "-o", "long", "--store", store)
    assert status == 1
    assert r"\u202etxt.exe\r\n" in said
    status, said = dnc_command("get", null.cid, "-o", "null", "--store", store)
    assert status == 1
    assert "holds a zero byte" in said


def test_reports(dnc_command: Command, tmp_path: Path) -> None:
    """A report that somebody sent: the dataset, the causes, the gateways, the version, or what is wrong in it."""
    rows = {"x": np.arange(40)}
    done = asyncio.run(dnc.upload(rows, batch_size=10, store=tmp_path / "store"))
    assert dnc_command("stream", done, "--store", tmp_path / "store", "--report", "run.json")[0] == 0
    wire = json.loads((tmp_path / "run.json").read_text())
    wire["dataset"] = wire["settings"]["library_version"] = wire["order"] = EVIL
    wire["causes"][EVIL] = 1.0
    wire["gateways"][0]["url"] = EVIL
    (tmp_path / "evil.json").write_text(json.dumps(wire))
    status, said = dnc_command("report", "evil.json")
    assert status == 0
    assert said.count(r"a\x1b]0;owned") >= 4
    for wrong in ({**wire, "batches": EVIL}, {**wire, "causes": {EVIL: EVIL}}, {**wire, "report_version": EVIL}):
        (tmp_path / "evil.json").write_text(json.dumps(wrong))
        assert dnc_command("report", "evil.json")[0] == 1


@pytest.mark.parametrize("name", ["grün 日本", "a\x1bb\tc"])
def test_paths_that_a_user_typed(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    """They are printed as they are, so that they can be used."""
    (leaf,), _ = build_file(b"data", UNIXFS_V1_2025)
    store = kept(tmp_path / "store", [leaf], leaf.cid)
    assert not main(["get", str(leaf.cid), "-o", str(tmp_path / name), "--store", str(store)])
    assert capsys.readouterr().out == f"{tmp_path / name}\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("user:hush@host", "***@host"),
        ("http:/user:hush@host", "***@host"),
        ("http://user:hu/sh@host", "http://***@host"),
        ("http://user:hu?sh@host", "http://***@host"),
        ("http://user:hu#sh@host", "http://***@host"),
        ("http://[user:hush@host", "http://***@host"),
        ("hush@b://c@d", "***@d"),
        ("http://host?hush", "http://host?***"),
        ("http://host#hush", "http://host#***"),
        ("nonsense", "nonsense"),
        ("nonsense?hush", "nonsense?***"),
    ],
)
def test_passwords_of_wrong_urls(dnc_command: Command, url: str, shown: str) -> None:
    """Neither in the error nor in the ``repr``."""
    assert without_secrets(url) == shown
    status, said = dnc_command("get", Cid.of(b"x"), "--gateway", url)
    assert status in (1, 2)
    assert "hu" not in said.replace(str(Cid.of(b"x")), "")
    assert shown in said


def test_a_gateway_shows_no_password() -> None:
    """Nor its token."""
    gateway = dnc.Gateway("https://me:hush@gw.example/", headers={"Authorization": "Bearer hush"})
    assert repr(gateway) == "Gateway(url='https://***@gw.example', requests_per_minute=None)"
    assert "hush" not in repr([gateway]) + str(gateway)


async def test_a_password_in_events_and_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A gateway that fails is named without it, wherever."""
    events: list[object] = []
    with answering(b"HTTP/1.1 503 no\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n") as url:
        gateway = url.replace("//", "//me:hush@")
        settings = FetchSettings(busy_patience_s=0.1, patience_s=0.1)
        options = {"gateways": gateway, "disk_budget": 0, "settings": settings, "observers": [events.append]}
        async with dnc.Client(**options) as client:
            assert "hush" not in repr(client)
            with caplog.at_level("DEBUG", logger="dnc_async"), pytest.raises(dnc.DncError) as caught:
                await client.cat(Cid.of(b"x"))
    assert events
    assert "hush" not in repr(events) + caplog.text + str(caught.value) + repr(caught.value)
    assert url.replace("//", "//***@") in str(caught.value)


def test_a_signed_url_in_a_broken_answer(dnc_command: Command) -> None:
    """What cannot be parsed is told without the URL that was asked for."""
    with answering(b"HTTP/1.1 junk junk\r\n\r\n") as url:
        status, said = dnc_command("get", Cid.of(b"x"), "-o", "out", "--gateway", f"{url}/data.car?sig=hush")
    assert status == 1
    assert f"{url}/data.car?***" in said
    assert "hush" not in said
