"""A client has one engine for its streams, and makes no other one that it does not need."""

import threading
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async.engine.engine import EngineSetup
from dnc_async.engine.environment import Environment
from dnc_async.engine.thread_engine import ThreadEngine

from .conftest import BATCHES, Published, left, needs_linux


def options(published: Published, **more: Any) -> dict[str, Any]:
    return {"store": published.store, "spool_dir": published.spool, "disk_budget": "1MB", **more}


def engine_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "dnc_async engine"]


@needs_linux
@pytest.mark.border
async def test_no_thread_beside_a_process(read_only: Published) -> None:
    """Streams in a process need none here; the first call that fetches starts it, and it ends with the client."""
    async with dnc.Client(**options(read_only, engine="process")) as client:
        batches = client.stream(read_only.result)
        read_only.check(await anext(batches), 0)
        assert engine_threads() == []
        assert client.disk_budget_bytes == batches.statistics().budget_bytes == 10**6
        assert (await client.inspect(read_only.result)).batches == BATCHES
        assert next(entry.name for entry in await client.ls(read_only.result)) == "chunks"
        assert engine_threads() == ["dnc_async engine"]
    assert engine_threads() == []
    assert left(read_only.spool) == []


@needs_linux
@pytest.mark.border
async def test_only_calls_of_a_client_with_a_process(read_only: Published) -> None:
    """They start no process."""
    client = dnc.Client(**options(read_only, engine="process"))
    assert (await client.inspect(read_only.result)).batches == BATCHES
    assert repr(client) == "<Client open, disk budget 1000000 bytes>"
    await client.aclose()
    assert engine_threads() == []


async def test_an_engine_that_is_given(read_only: Published) -> None:
    """It serves all streams and calls of its client, with the time of its own clock."""
    made: list[ThreadEngine] = []

    def make(setup: EngineSetup) -> ThreadEngine:
        made.append(ThreadEngine(setup, environment=Environment(clock=lambda: 0.0)))
        return made[-1]

    async with dnc.Client(**options(read_only), _make_engine=make) as client:
        batches = client.stream(read_only.result)
        read_only.check(await anext(batches), 0)
        assert (await client.inspect(read_only.result)).batches == BATCHES
        assert batches.statistics().first_batch_s == batches.statistics().waited_s == 0.0
    assert len(made) == 1
    assert left(read_only.spool) == []
