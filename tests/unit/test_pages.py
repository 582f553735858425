"""The pages of a manifest: the next one is fetched once, ahead; where that fails, it is tried again when it is needed."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from dnc_async.dataset import chunk_format
from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.page import ChunkDirectory, ChunkRow, encode_page
from dnc_async.dataset.schema import Column, Schema
from dnc_async.engine.pages import PageReader
from dnc_async.errors import ChunkUnavailableError
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.cid import Cid

SCHEMA = Schema(columns=(Column(name="a", dtype="<f4", shape=()),), structure="dict")
SIZE = chunk_format.fixed_layout(SCHEMA, 1).size_bytes
FIRST, CHUNKS = 64, 64 + 1024 + 64


def page(start: int, end: int) -> tuple[ChunkDirectory, ...]:
    rows = [ChunkRow(Cid.of(b"%d" % i), SIZE) for i in range(start, end)]
    return tuple(ChunkDirectory(Cid.of(b""), tuple(rows[i : i + 64])) for i in range(0, len(rows), 64))


class Group:
    """Gives pages, but for so many failures first."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.pages = [make(encode_page(page(*ends))) for ends in ((FIRST, FIRST + 1024), (FIRST + 1024, CHUNKS))]
        self.asked: list[tuple[int, Any]] = []

    async def blocks(self, cids: Sequence[Cid], *, priority: Any, **_: Any) -> list[Block]:
        found = [block for block in self.pages if block.cid in cids]
        self.asked += [(self.pages.index(block) + 1, priority) for block in found]
        await anyio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise ChunkUnavailableError("nobody has it", [TimeoutError()])
        return found

    def reader(self) -> PageReader:
        manifest = Manifest(
            schema=SCHEMA,
            samples=CHUNKS,
            batch_size=2,
            size_bytes=CHUNKS * SIZE,
            largest_chunk_bytes=SIZE,
            first_page=page(0, FIRST),
            pages=tuple(block.cid for block in self.pages),
        )
        return PageReader(manifest, cast("FetchGroup", self))


def plan(epochs: int) -> Iterator[int]:
    for _ in range(epochs):
        yield from range(CHUNKS)


@pytest.mark.parametrize("failures", [0, 1])
async def test_each_page_is_fetched_ahead(failures: int) -> None:
    """With the priority of the chunk that is half a page before; only one that failed then is urgent."""
    group = Group(failures)
    reader = group.reader()
    async with anyio.create_task_group() as tasks:
        for index in plan(epochs=2):
            entry = await reader.entry(index, tasks, (1, index))
            assert (entry.index, entry.cid) == (index, Cid.of(b"%d" % index))
            await anyio.lowlevel.checkpoint()
    ahead = [(1, (1, 32)), (2, (1, 64 + 512))]
    again = [(1, (0,))] * failures
    assert group.asked == [ahead[0], *again, ahead[1], *ahead]
    assert "pages [1, 2] of 3" in repr(reader)


async def test_a_page_that_nobody_has() -> None:
    """It is asked for twice, and says so when it is needed."""
    group = Group(failures=2)
    reader = group.reader()
    async with anyio.create_task_group() as tasks:
        for index in range(FIRST):
            await reader.entry(index, tasks, (1, index))
            await anyio.lowlevel.checkpoint()
        with pytest.raises(ChunkUnavailableError):
            await reader.entry(FIRST, tasks, (1, FIRST))
    assert len(group.asked) == 2
