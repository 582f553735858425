"""An engine that cannot start, or go on, says why: it is not told as a stream that was closed."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async import sync
from dnc_async.errors import EngineError

from ..conftest import PATIENCE_S
from .conftest import Published, left, needs_linux


def options(published: Published, **more: Any) -> dict[str, Any]:
    return {"store": published.store, "spool_dir": published.spool, "disk_budget": "1MB", **more}


@pytest.fixture(params=["thread", pytest.param("process", marks=[needs_linux, pytest.mark.border])])
def chosen(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"engine": request.param}


def no_threads_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    start, started = threading.Thread.start, []

    def limited(self: threading.Thread) -> None:
        started.append(self)
        if len(started) > count:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
async def test_no_threads(read_only: Published, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The process may have no more of them, from whatever moment on."""
    batches = dnc.stream(read_only.result, **options(read_only))
    with monkeypatch.context() as patched:
        no_threads_after(patched, count)
        with pytest.raises(EngineError, match="can't start new thread"):
            async for _ in batches:
                pass
    await batches.aclose()
    assert left(read_only.spool) == []


def test_no_thread_for_an_engine_in_a_process(
    read_only: Published, chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that was started for it ends, too."""
    batches = sync.stream(read_only.result, **options(read_only, **chosen))
    with monkeypatch.context() as patched:
        no_threads_after(patched, 0)
        with pytest.raises(EngineError, match="can't start new thread"):
            next(batches)
    batches.close()
    assert left(read_only.spool) == []


def test_threads_that_are_none(read_only: Published, chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Gevent has put its own in their place: it is named."""
    patched = SimpleNamespace(is_module_patched=lambda name: name == "threading")
    monkeypatch.setitem(sys.modules, "gevent.monkey", patched)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="gevent has replaced Python's threads"):
        next(sync.stream(read_only.result, **options(read_only, **chosen)))


async def test_a_call_that_fails_in_the_engine(read_only: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours in what is called from outside ends the engine and is told: nobody waits for ever."""
    client = dnc.Client(**options(read_only))

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(client._engine._thread, "_spawn", broken)
    with pytest.raises(EngineError, match="ZeroDivisionError: ours"):
        await asyncio.wait_for(client.inspect(read_only.result), PATIENCE_S)
    monkeypatch.undo()
    await client.aclose()
    assert left(read_only.spool) == []
