"""Uploading to a Kubo node: what arrives, what is kept when something goes wrong, and that it never hangs."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

import dnc_async as dnc
from dnc_async.config import PublishSettings, kubo_rpc
from dnc_async.errors import ArgumentError, DatasetError, UploadError
from dnc_async.ipld.cid import Cid
from dnc_async.publish import parts
from dnc_async.publish.kubo import KuboTarget
from dnc_async.publish.target import publish
from dnc_async.system.owner import Owner

from ..conftest import PATIENCE_S, Shell
from .conftest import Node

ROWS = {"x": np.arange(60_000, dtype="f4").reshape(2_000, 30), "y": np.arange(2_000)}


async def test_the_whole_dag_arrives_and_is_pinned(node: Node, tmp_path: Path) -> None:
    """The same CID as locally, every block there, pinned, and nothing else left."""
    local = await dnc.upload(ROWS, batch_size=100, store=tmp_path)
    done = await dnc.upload(ROWS, f"kubo={node.url}", batch_size=100)
    assert done.cid == local.cid
    assert done.target == f"kubo {node.url}"
    assert node.pins == {done.cid}
    assert node.files == {}
    node.collect_garbage()
    assert node.missing(Cid.parse(done.cid)) is None


async def test_parts_are_bounded_and_survive_a_collection(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts, and the node collects its garbage after each: what was sent is held until it is pinned."""
    monkeypatch.setattr(parts, "PART_BYTES", 50_000)

    async def rows() -> object:
        for start in range(0, 2_000, 250):
            yield {name: column[start : start + 250] for name, column in ROWS.items()}
            node.collect_garbage()

    done = await dnc.upload(rows(), f"kubo={node.url}", batch_size=500)
    assert node.calls.count("dag/import") > 4
    assert node.largest_part < 2 * 50_000
    assert node.missing(Cid.parse(done.cid)) is None


async def test_missing_block_is_named_instead_of_waited_for(node: Node) -> None:
    """A node that lost a block would pin for ever; it is asked offline first."""
    node.drop = 7
    with pytest.raises(UploadError, match=r"dag/stat: .*could not find baf"):
        await asyncio.wait_for(dnc.upload(ROWS, f"kubo={node.url}", batch_size=100), PATIENCE_S)
    assert node.pins == set()
    assert node.files == {}
    assert "pin/add" not in node.calls


ANSWERS = {
    "an error inside a 200": (
        "dag/import",
        '{"Message": "import failed after block 3", "Type": "error"}',
        200,
        "after block 3",
    ),
    "too few blocks": ("dag/import", '{"Stats": {"BlockCount": 3}}', 200, "took 3 of the"),
    "no statistics": ("dag/import", "", 200, "took an unknown number of the"),
    "no pins line": ("pin/add", '{"Progress": 4}', 200, "did not pin baf.*Progress"),
    "another pin": ("pin/add", '{"Pins": ["bafkqaaa"]}', 200, "did not pin"),
    "pin not listed": ("pin/ls", '{"Keys": {}}', 200, "does not list the pin"),
    "html": ("version", "<html>welcome</html>", 200, "no Kubo RPC"),
    "a gateway": ("version", "404 page not found", 404, "RPC port"),
    "another status": ("files/mkdir", "[]", 500, "answered 500"),
    "endless line": ("version", "x" * 2**17, 200, "more than a call can"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_strange_answers(node: Node, name: str) -> None:
    """Each ends in one error that names the node and the command or what was missing."""
    command, text, status, expected = ANSWERS[name]
    node.answers[command] = web.Response(text=text, status=status)
    with pytest.raises(UploadError, match=expected) as raised:
        await asyncio.wait_for(dnc.upload(ROWS, f"kubo={node.url}", batch_size=1000), PATIENCE_S)
    assert node.url in str(raised.value)
    assert node.files == {}


async def test_secrets_are_sent_and_never_shown(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Basic from the URL, bearer from the environment; neither in a result, a repr or an error."""
    host = node.url.removeprefix("http://")
    node.auth = "Basic bWU6aHVzaA=="
    done = await dnc.upload(ROWS, f"kubo=http://me:hush@{host}", batch_size=1000)
    assert "hush" not in repr(done)
    target = KuboTarget(f"http://me:hush@{host}", headers={}, settings=PublishSettings())
    assert "hush" not in repr(target)
    with pytest.raises(UploadError, match="403") as raised:
        await dnc.upload(ROWS, f"kubo=http://me:loud@{host}", batch_size=1000)
    assert "loud" not in str(raised.value)
    node.auth = "Bearer hush"
    monkeypatch.setenv("IPFS_API_AUTH", "bearer:hush")
    assert (await dnc.upload(ROWS, f"kubo={node.url}", batch_size=1000)).cid == done.cid


async def test_silence_ends(node: Node) -> None:
    """A node that says nothing is given up after the time that it was given."""

    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_post("/api/v0/{command:.*}", silent)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        settings = PublishSettings(answer_timeout_s=0.2)
        target = KuboTarget(f"http://127.0.0.1:{runner.addresses[0][1]}", headers={}, settings=settings)
        with pytest.raises(UploadError, match=r"no answer within 0\.2 s"):
            await publish(ROWS, target, batch_size=10, chunk_bytes=None, progress=None)
    finally:
        await runner.cleanup()


async def test_nothing_is_sent_of_a_source_that_breaks(node: Node) -> None:
    """The parts that were sent are let go, and nothing is pinned."""

    def rows() -> Iterator[dict[str, np.ndarray]]:
        yield {"x": np.zeros((100, 3))}
        yield {"x": np.zeros((100, 4))}

    with pytest.raises(DatasetError):
        await dnc.upload(rows(), f"kubo={node.url}", batch_size=10)
    assert node.pins == set()
    assert node.files == {}
    with pytest.raises(DatasetError):
        await dnc.upload({"x": np.zeros((0, 3))}, "kubo=http://127.0.0.1:1")


@contextlib.asynccontextmanager
async def uploading(shell: Shell, node: Node) -> AsyncIterator[asyncio.subprocess.Process]:
    """``dnc upload`` to the node as a process, which has sent a part."""
    np.save(shell.home / "big.npy", np.arange(8 * 2**20))
    node.part_came.clear()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dnc_async", "upload", str(shell.home / "big.npy"), "--to", f"kubo={node.url}"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=shell.environment,
    )
    try:
        await asyncio.wait_for(node.part_came.wait(), PATIENCE_S)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_leaves_nothing_at_the_node(node: Node, shell: Shell, number: signal.Signals) -> None:
    """The folder is removed before the process ends."""
    async with uploading(shell, node) as process:
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 128 + number
    assert (node.files, node.folders, node.pins) == ({}, set(), set())


async def test_the_next_upload_removes_what_a_killed_one_left(node: Node, shell: Shell) -> None:
    """But not what another one is using, in another process or in this one."""
    node.other_files = 5_000  # the line that lists them is long
    async with uploading(shell, node) as killed:
        killed.kill()
        await killed.wait()
        (left,) = node.folders
        async with uploading(shell, node) as stopped:
            stopped.send_signal(signal.SIGSTOP)  # it lives, and does not get to its end meanwhile
            (living,) = node.folders
            assert living != left

            async def rows() -> AsyncIterator[object]:
                yield ROWS
                await dnc.upload({"z": np.arange(10)}, f"kubo={node.url}")
                yield ROWS

            for _ in range(3):  # the node may do what the killed one asked for after it has tidied up
                done = await dnc.upload(rows(), f"kubo={node.url}", batch_size=100)
                assert node.missing(Cid.parse(done.cid)) is None
                if node.folders == {living}:
                    break
            assert node.folders == {living}


async def test_leftovers_of_other_machines_are_removed_when_they_are_old(node: Node) -> None:
    """A week after the last part; a folder that somebody else made is never touched."""
    now, day = 1_800_000_000, 86_400
    settings = PublishSettings()
    name = "/dnc-upload-0123456789ab-7-1-{}-0123456789abcdef"
    young, old, active = name.format(now - 6 * day), name.format(now - 8 * day), name.format(now - 9 * day)
    node.folders = {young, old, active, "/dnc-upload-mine", "/mine"}
    node.files = {f"{active}/17-{now - day}": "bafkqaaa", f"{old}/17-{now - 8 * day}": "bafkqaaa"}
    for later, left in ((0, {young, active}), (2 * day, {active}), (7 * day, set())):
        target = KuboTarget(node.url, headers={}, settings=settings, clock=lambda later=later: now + later)
        await publish(ROWS, target, batch_size=100, chunk_bytes=None, progress=None)
        assert node.folders == {*left, "/dnc-upload-mine", "/mine"}


async def test_a_folder_that_could_not_be_removed(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """It is named, and the next upload of the same process removes it."""
    node.answers["files/rm"] = web.Response(status=500, text="no")
    await dnc.upload(ROWS, f"kubo={node.url}", batch_size=1000)
    (left,) = node.folders
    assert f"{left} could not be removed" in caplog.text
    await dnc.upload(ROWS, f"kubo={node.url}", batch_size=1000)
    assert node.folders == set()


def test_owners() -> None:
    """A process that ended is dead, also before anybody asked how; one that has another's pid is another."""
    ours = Owner.this_process()
    assert Owner.parse(str(ours)) == ours
    assert ours.is_dead() is False
    with subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE) as child:
        assert replace(ours, pid=os.getppid(), started=0).is_dead() is False
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        if sys.platform == "linux":
            assert replace(ours, pid=child.pid).is_dead() is True
    assert replace(ours, pid=child.pid).is_dead() is True
    if sys.platform == "linux":
        assert replace(ours, started=ours.started + 1).is_dead() is True
    assert replace(ours, host="0" * 12).is_dead() is None
    assert Owner.parse("x-1-2") is None


def test_address(tmp_path: Path) -> None:
    """A URL, or what a running node wrote into its repository."""
    (tmp_path / "api").write_text("/ip4/127.0.0.1/tcp/5001")
    assert kubo_rpc("", {"IPFS_PATH": str(tmp_path)}) == ("http://127.0.0.1:5001", {})
    assert kubo_rpc("https://x", {"IPFS_API_AUTH": "basic:me:hush"}) == (
        "https://x",
        {"Authorization": "Basic bWU6aHVzaA=="},
    )
    with pytest.raises(ArgumentError, match="no node is running"):
        kubo_rpc("", {"IPFS_PATH": str(tmp_path / "none")})
    with pytest.raises(ArgumentError, match="IPFS_API_AUTH"):
        kubo_rpc("https://x", {"IPFS_API_AUTH": "hush"})
    with pytest.raises(ArgumentError, match="kubo=URL") as raised:
        kubo_rpc("ftp://me:hush@x", {})
    assert "hush" not in str(raised.value)


NOWHERE = {"IPFS_PATH": "/nonexistent"}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("/ip4/127.0.0.1/tcp/5001", "http://127.0.0.1:5001"),
        ("/ip4/127.0.0.1/tcp/5001/http", "http://127.0.0.1:5001"),
        ("/ip4/0.0.0.0/tcp/5001/", "http://127.0.0.1:5001"),
        ("/ip6/::/tcp/5001", "http://[::1]:5001"),
        ("/ip6/2001:db8::1/tcp/5001/https", "https://[2001:db8::1]:5001"),
        ("/ip4/192.0.2.1/tcp/443/tls", "https://192.0.2.1:443"),
        ("/ip4/192.0.2.1/tcp/443/tls/http", "https://192.0.2.1:443"),
        ("/ip4/192.0.2.1/tcp/443/tls/https//", "https://192.0.2.1:443"),
        ("/dns/kubo.example/tcp/443/https/", "https://kubo.example:443"),
        ("/dns4/kubo.example/https", "https://kubo.example"),
        ("/dns6/kubo.example/tcp/5001/tls/sni/kubo.example/http", "https://kubo.example:5001"),
        ("/dns/kubo.example/tcp/5001/tls/sni/KUBO.example/", "https://kubo.example:5001"),
        ("/dns/kubo.example/tcp/5001/https/p2p/12D3KooWA", "https://kubo.example:5001"),
        ("https://kubo.example", "https://kubo.example"),
        ("HTTPS://[2001:db8::1]:5001/", "HTTPS://[2001:db8::1]:5001/"),
    ],
)
def test_addresses_of_a_node(address: str, url: str) -> None:
    """With a token, too: whatever names TLS is https, and what is not TLS stays on this machine."""
    assert kubo_rpc(address, NOWHERE)[0] == url
    assert kubo_rpc(address, {**NOWHERE, "IPFS_API_AUTH": "bearer:hush"}) == (url, {"Authorization": "Bearer hush"})


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/192.0.2.1/tcp/5001/tls/ws",
        "/ip4/192.0.2.1/tcp/5001/wss",
        "/ip4/192.0.2.1/tcp/5001/tls/sni/other.example/http",
        "/ip4/192.0.2.1/tcp/5001/http/tls",
        "/ip4/192.0.2.1/tcp/5001/https/http-path/x",
        "/ip4/192.0.2.1/udp/5001/quic-v1",
        "/ip4/192.0.2.1/tcp/70000/https",
        "/ip4/192.0.2.1/tcp/0",
        "/ip4/192.0.2.1",
        "/ip4/kubo.example/tcp/5001",
        "/dns/user:hush@kubo.example/tcp/5001",
        "/dns4/127.1/tcp/5001",
        "/unix/run/kubo.sock",
        "/",
        "http://",
        "http://host:port",
        "http://host:5001?x=1",
        "127.0.0.1:5001",
        "http://\ud800",
    ],
)
def test_addresses_that_are_refused(address: str) -> None:
    """None is taken for something else."""
    with pytest.raises(ArgumentError, match=r"^to: "):
        kubo_rpc(address, NOWHERE)


def test_a_token_does_not_go_out_in_clear_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody wrote http://, it is refused; where somebody did, it is said."""
    secret = {"IPFS_API_AUTH": "bearer:hush"}
    for address in ("/ip4/192.0.2.1/tcp/5001", "/dns/kubo.example/tcp/5001/http", "/ip6/2001:db8::1/tcp/1"):
        with pytest.raises(ArgumentError, match="in clear") as caught:
            kubo_rpc(address, NOWHERE | secret)
        assert "hush" not in str(caught.value)
        assert kubo_rpc(address, NOWHERE)[0].startswith("http://")
    (tmp_path / "api").write_text("/ip4/192.0.2.1/tcp/5001\n")
    with pytest.raises(ArgumentError, match="in clear"):
        kubo_rpc("", {"IPFS_PATH": str(tmp_path)} | secret)
    (tmp_path / "api").write_text("/unix/run/kubo.sock")
    with pytest.raises(ArgumentError, match=f"^{tmp_path}/api: "):
        kubo_rpc("", {"IPFS_PATH": str(tmp_path)} | secret)
    assert not caplog.records
    kubo_rpc("http://127.0.0.1:5001", secret)
    kubo_rpc("http://me:hush@localhost:5001", {})
    kubo_rpc("https://me:hush@kubo.example", secret)
    kubo_rpc("http://kubo.example", {})
    assert not caplog.records
    kubo_rpc("http://kubo.example:5001", secret)
    kubo_rpc("http://me:hush@kubo.example:5001", {})
    assert [record.getMessage().count("kubo.example") for record in caplog.records] == [1, 1]
    assert "hush" not in caplog.text
    for wrong in ("bearer:a\nb", "bearer:ä", "basic:\ud800", "digest:x"):
        with pytest.raises(ArgumentError, match="IPFS_API_AUTH"):
            kubo_rpc("https://x", {"IPFS_API_AUTH": wrong})


@pytest.mark.skipif("DNC_TEST_KUBO" not in os.environ, reason="DNC_TEST_KUBO=http://host:port names no Kubo node's RPC")
async def test_a_real_node(tmp_path: Path) -> None:
    """The same against a node that somebody runs."""
    local = await dnc.upload(ROWS, batch_size=100, store=tmp_path)
    done = await dnc.upload(ROWS, f"kubo={os.environ['DNC_TEST_KUBO']}", batch_size=100)
    assert done.cid == local.cid
