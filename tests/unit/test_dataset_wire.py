"""Manifests, pages and chunks come from strangers: what does not fit together is refused with a typed error."""

import contextlib
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnc_async.dataset import chunk as chunk_format
from dnc_async.dataset.batch import BatchBuffer
from dnc_async.dataset.manifest import CHUNKS_PER_PAGE, ChunkDirectory, Manifest, decode_page, halves
from dnc_async.dataset.plan import Plan
from dnc_async.dataset.schema import Column, Schema, columns_of, schema_of
from dnc_async.errors import DecodeError, ManifestError
from dnc_async.ipld.cid import Cid

COLUMNS, STRUCTURE = columns_of(
    {"b": np.arange(10), "a": np.ones((10, 3), "f4"), "t": [str(i) * i for i in range(10)]}, where=""
)
TEXT = schema_of(COLUMNS, STRUCTURE)
FIXED = Schema(columns=tuple(c for c in TEXT.columns if not c.is_text), structure="dict")


def manifest(samples: int = 10, batch_size: int = 4) -> Manifest:
    """A small dataset's, with CIDs of nothing."""
    sizes = []
    for start in range(0, samples, batch_size):
        sizes += [chunk_format.fixed_layout(FIXED, n).size_bytes for n in halves(min(batch_size, samples - start))]
    cid = Cid.of(b"")
    page = (ChunkDirectory(cid, tuple((cid, size) for size in sizes)),)
    return Manifest(
        schema=FIXED,
        samples=samples,
        batch_size=batch_size,
        size_bytes=sum(sizes),
        largest_chunk_bytes=max(sizes),
        first_page=page,
        pages=(),
    )


def test_round_trip() -> None:
    """What was written is read, and says how the batches are divided."""
    decoded = Manifest.decode(manifest().encode())
    assert decoded == manifest()
    assert (decoded.batches, decoded.chunks) == (3, 6)
    assert [decoded.chunk_samples(i) for i in range(6)] == [2, 2, 2, 2, 1, 1]
    assert [list(decoded.batch_chunks(i)) for i in range(3)] == [[0, 1], [2, 3], [4, 5]]


def test_plan() -> None:
    """Epochs, a short last batch that is left out, and a start in the middle."""
    plan = Plan(manifest=manifest(), epochs=2, drop_last=True)
    assert [(b.position, b.epoch, b.index, b.samples) for b in plan.batches()] == [
        (0, 0, 0, 4),
        (1, 0, 1, 4),
        (2, 1, 0, 4),
        (3, 1, 1, 4),
    ]
    assert [b.position for b in plan.batches(start=3)] == [3]
    assert len(Plan(manifest=manifest(samples=1), epochs=3)) == 3
    with pytest.raises(TypeError, match="epochs=None"):
        len(Plan(manifest=manifest(), epochs=None))


def change(**values: Any) -> bytes:
    wire = msgpack.unpackb(manifest().encode())
    return msgpack.packb({**wire, **values})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgpack.packb([1]),
        change(format="other"),
        change(version=2),
        change(samples=0),
        change(samples=-1),
        change(samples=2**60),
        change(samples=True),
        change(samples=13),
        change(batch_size=3),
        change(batch_size="4"),
        change(largest_chunk_bytes=1),
        change(largest_chunk_bytes=2**40),
        change(page=[]),
        change(page=[[b"x", []]]),
        change(page=[["x", 1]]),
        change(pages=[b"x"]),
        change(pages=[Cid.of(b"").encode()]),
        change(pages=None),
        change(schema=None),
        change(schema={"structure": "dict", "columns": []}),
        change(schema={"structure": "list", "columns": [["a", "<f4", []]]}),
        change(schema={"structure": "dict", "columns": [["a", "|O", []]]}),
        change(schema={"structure": "dict", "columns": [["a", "<f16", []]]}),
        change(schema={"structure": "dict", "columns": [["a", "<f4", [-1]]]}),
        change(schema={"structure": "dict", "columns": [["a", "<f4", [2**62]]]}),
        change(schema={"structure": "dict", "columns": [["b", "<f4", []], ["a", "<f4", []]]}),
        change(schema={"structure": "tuple", "columns": [["a", "<f4", []]]}),
        change(schema={"structure": "dict", "columns": [["t", "text", []]]}, samples=2**40, batch_size=2**40),
    ],
)
def test_hostile_manifest(data: bytes) -> None:
    """Nothing but a ManifestError, and nothing large is allocated."""
    with pytest.raises(ManifestError):
        Manifest.decode(data)


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    """Random bytes are no manifest and no page."""
    with pytest.raises(ManifestError):
        Manifest.decode(data)
    with contextlib.suppress(ManifestError):
        decode_page(data)


def test_page_with_too_many_chunks() -> None:
    """A page lists as many chunks as the manifest leaves for it."""
    cid = Cid.of(b"")
    with pytest.raises(ManifestError, match="too many or too few"):
        list(manifest().entries(0, (ChunkDirectory(cid, ((cid, 1),) * 64),)))
    assert CHUNKS_PER_PAGE % 64 == 0


def test_chunk_of_text_round_trip() -> None:
    """A whole chunk is decoded without knowing anything but schema and samples."""
    data = chunk_format.encode(TEXT, COLUMNS)
    decoded = chunk_format.decode(TEXT, 10, data)
    assert all((decoded[name] == COLUMNS[name]).all() for name in COLUMNS)
    assert decoded["t"].dtype == np.dtypes.StringDType()


@given(st.data())
def test_damaged_chunk(data: st.DataObject) -> None:
    """A chunk that is not laid out as promised is a DecodeError, never a crash or a wrong shape."""
    good = chunk_format.encode(TEXT, COLUMNS)
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    del bad[data.draw(st.integers(0, len(bad))) :]
    try:
        decoded = chunk_format.decode(TEXT, 10, bad)
    except DecodeError:
        return
    assert all(decoded[name].shape == COLUMNS[name].shape for name in COLUMNS)


def test_bytes_land_in_their_rows_however_they_are_cut() -> None:
    """A chunk written in pieces of any size and order fills its rows; a wrong header is told."""
    columns = {name: array for name, array in COLUMNS.items() if name != "t"}
    chunk = bytes(chunk_format.encode(FIXED, columns))
    for cut in (1, 7, 64, 1000):
        buffer = BatchBuffer(FIXED, [10])
        place = buffer.place(0, len(chunk))
        for start in reversed(range(0, len(chunk), cut)):
            place.write_at(start, chunk[start : start + cut])
        buffer.finish(0)
        assert all((buffer.batch()[name] == columns[name]).all() for name in columns)
    buffer = BatchBuffer(FIXED, [10])
    buffer.place(0, len(chunk)).write_at(0, b"x" * len(chunk))
    with pytest.raises(DecodeError, match="not laid out"):
        buffer.finish(0)


def test_columns_without_bytes() -> None:
    """A column whose samples have no bytes takes none, and comes back with its shape."""
    schema = Schema(columns=(Column(name="e", dtype="<f4", shape=(0, 3)),), structure="dict")
    chunk = bytes(chunk_format.encode(schema, {"e": np.empty((4, 0, 3), "f4")}))
    buffer = BatchBuffer(schema, [4])
    buffer.place(0, len(chunk)).write_at(0, chunk)
    buffer.finish(0)
    assert buffer.batch()["e"].shape == (4, 0, 3)
