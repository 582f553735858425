"""Manifests, pages and chunks come from strangers: what does not fit together is refused with a typed error."""

import contextlib
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnc_async.dataset import chunk_format
from dnc_async.dataset.batch import BatchBuffer
from dnc_async.dataset.manifest import CHUNKS_PER_PAGE, Manifest, halves
from dnc_async.dataset.page import ChunkDirectory, ChunkEntry, ChunkRow, decode_page, encode_page
from dnc_async.dataset.plan import Plan
from dnc_async.dataset.schema import Column, Schema, schema_of
from dnc_async.errors import DecodeError, ManifestError
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.ipld.cid import DAG_PB, Cid
from dnc_async.ipld.plan import FilePlanner
from dnc_async.publish.columns import columns_of

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
    page = (ChunkDirectory(cid, tuple(ChunkRow(cid, size) for size in sizes)),)
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


def test_the_order_of_columns() -> None:
    """It is kept beside the sorted columns, and is none where they are as published; older manifests have none."""
    schema = schema_of({"b": COLUMNS["b"], "a": COLUMNS["a"]}, "dict")
    assert schema.to_wire()["order"] == [1, 0]
    assert Schema.from_wire(schema.to_wire()) == schema
    assert [column.name for column in schema.columns] == ["a", "b"]
    assert list(schema.restore(COLUMNS)) == ["b", "a"] == [column.name for column in schema.ordered]
    assert "order" not in schema_of({"a": COLUMNS["a"], "b": COLUMNS["b"]}, "dict").to_wire()
    assert list(Schema.from_wire({**schema.to_wire(), "order": []}).restore(COLUMNS)) == ["a", "b"]
    columns = [["0", "<f4", []], ["1", "<f4", []]]
    with pytest.raises(ManifestError, match="order"):
        Schema.from_wire({"structure": "tuple", "columns": columns, "order": [1, 0]})


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
    rest = Plan(manifest=manifest(), epochs=2, drop_last=True, first=3)
    assert [(b.position, b.skipped, b.epoch, b.index) for b in rest.batches()] == [(0, 3, 1, 1)]
    assert len(rest) == 1
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
        change(version=3),
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
        change(schema={"structure": "dict", "columns": [["a", "<f4", [True]]]}),
        change(schema={"structure": "dict", "columns": [["a", "<f4", [1] * 33]]}),
        change(schema={"structure": "dict", "columns": [["a" * 4097, "<f4", []]]}),
        change(schema={"structure": "dict", "columns": [["a", "<M8[\u0663s]", []]]}),
        change(schema={"structure": "dict", "columns": [["a", "text", [2]]]}),
        *(
            change(schema={**FIXED.to_wire(), "order": order})
            for order in ([0], [0, 0], [0, 2], [1, True], "01", None, [1, 0, 2])
        ),
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
        list(manifest().entries(0, (ChunkDirectory(cid, (ChunkRow(cid, 1),) * 64),)))
    assert CHUNKS_PER_PAGE % 64 == 0


def row_of(data: bytes, leaf_size: int) -> ChunkRow:
    """A chunk's file of several leaves, as a page lists it."""
    blocks, root = build_file(data, replace(UNIXFS_V1_2025, leaf_bytes=leaf_size))
    return ChunkRow(root.cid, len(data), leaf_size, b"".join(block.cid.multihash[2:] for block in blocks[:-1]))


@pytest.mark.parametrize("size", [5000, 8192, 8193, 32768])
def test_leaves_from_a_page(size: int) -> None:
    """They are those that the file's root names."""
    data = bytes(range(256)) * 128
    row = row_of(data[:size], 4096)
    (directory,) = decode_page(encode_page((ChunkDirectory(row.cid, (row,)),)))
    assert directory.chunks == (row,)
    entry = ChunkEntry(0, row, 1, row.cid, 0, size)
    blocks, root = build_file(data[:size], replace(UNIXFS_V1_2025, leaf_bytes=4096))
    planner = FilePlanner(root.cid)
    planner.receive(blocks[-1])
    assert entry.names_leaves
    assert list(entry.leaves()) == planner.leaves


@pytest.mark.parametrize("wrong", [{"digests": bytes(32) * 3}, {"leaf_bytes": 4100}, {"size_bytes": 12_000}])
def test_leaves_of_another_file(wrong: dict[str, Any]) -> None:
    """What a page lists as leaves must make the file's CID: nobody reads something else than who walks the DAG."""
    row = row_of(bytes(12_100), 4096)
    cid = str(row.cid)
    with pytest.raises(ManifestError, match=f"chunk 7 are not those of its file {cid}"):
        ChunkEntry(7, row._replace(**wrong), 1, row.cid, 0, row.size_bytes).leaves()


RAW_CID, NODE = Cid.of(b"").encode(), Cid.of(b"", DAG_PB).encode()


@pytest.mark.parametrize(
    "row",
    [
        [],
        [NODE],
        [NODE, "1"],
        [NODE, 100, 50],
        [RAW_CID, 100, 50, bytes(64)],
        [NODE, 100, 0, bytes(64)],
        [NODE, 100, -50, bytes(64)],
        [NODE, -100, 50, bytes(64)],
        [NODE, 0, 50, b""],
        [NODE, 100, 50, bytes(32)],
        [NODE, 100, 50, bytes(65)],
        [NODE, 100, 50, "text" * 16],
        [NODE, 900, 100, bytes(9 * 32)],
        [NODE, 2**22 + 2, 2**21 + 1, bytes(64)],
        [NODE, 100, 50, bytes(64), 1],
    ],
)
def test_hostile_row(row: list[object]) -> None:
    """As many digests as the size has leaves, 8 at most, of blocks that may be had."""
    with pytest.raises(ManifestError, match=r"lists a chunk neither as \[cid, size\] nor"):
        decode_page(msgpack.packb([[NODE, [row]]]))


def numbered(chunks: range) -> tuple[ChunkDirectory, ...]:
    """Full directories of chunks of one sample, but for the last one."""
    size = chunk_format.fixed_layout(FIXED, 1).size_bytes
    rows = [ChunkRow(Cid.of(b"%d" % i), size) for i in chunks]
    return tuple(ChunkDirectory(Cid.of(b""), tuple(rows[i : i + 64])) for i in range(0, len(rows), 64))


@pytest.mark.parametrize("first", [64, 1024, 64 * 5])
def test_pages(first: int) -> None:
    """The first page may be of any length, as in version 1, where it was as long as the others."""
    chunks = 3000
    starts = [0, *range(first, chunks, CHUNKS_PER_PAGE), chunks]
    pages = [numbered(range(start, end)) for start, end in pairwise(starts)]
    size = chunk_format.fixed_layout(FIXED, 1).size_bytes
    made = Manifest(
        schema=FIXED,
        samples=chunks,
        batch_size=2,
        size_bytes=chunks * size,
        largest_chunk_bytes=size,
        first_page=pages[0],
        pages=tuple(Cid.of(encode_page(page)) for page in pages[1:]),
    )
    for version in (1, 2):
        wire = msgpack.unpackb(made.encode())
        assert Manifest.decode(msgpack.packb({**wire, "version": version})) == made
    entries = [entry for number, page in enumerate(pages) for entry in made.entries(number, page)]
    assert [entry.index for entry in entries] == list(range(chunks))
    for number, start in enumerate(starts[:-1]):
        assert made.page_of(start) == (number, 0)
        assert made.page_of(starts[number + 1] - 1) == (number, starts[number + 1] - start - 1)
    for page in (pages[1][1:], (*pages[1], pages[1][0]), (*pages[1][:-1], numbered(range(63))[0])):
        with pytest.raises(ManifestError, match="page 1 of the manifest"):
            list(made.entries(1, page))
    for page in ((), (*numbered(range(32)), *numbered(range(32)), *pages[0][1:])):
        with pytest.raises(ManifestError):
            Manifest.decode(replace(made, first_page=page).encode())


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


def headed(rows: object) -> bytearray:
    """A chunk with nothing but a header, which lists these rows."""
    body = msgpack.packb([chunk_format.VERSION, 10, rows])
    return bytearray(chunk_format.MAGIC + len(body).to_bytes(4, "little") + body)


@pytest.mark.parametrize(
    "rows",
    [
        [{}, {}, {}],
        [{"3": [1]}] * 3,
        {"a": 1},
        7,
        [[0, 0, 0, [2**63]]] * 3,
        [[0, 0, 0, [True]]] * 3,
        [[]] * 10_000,
        [[0, 0, 0, [-1]]] * 3,
    ],
)
def test_hostile_header(rows: object) -> None:
    """Whatever its rows are; one that is longer than any of this schema is not even parsed."""
    with pytest.raises(DecodeError, match="not laid out"):
        chunk_format.decode(TEXT, 10, headed(rows))


VARYING = Schema(
    columns=tuple(
        Column(name=name, dtype=dtype, shape=()) for name, dtype in [("b", "bytes"), ("t", "text"), ("x", "<i8")]
    ),
    structure="dict",
)
ONE = [(0).to_bytes(8, "little") + (2).to_bytes(8, "little"), b"ab"]


@pytest.mark.parametrize(
    ("segments", "culprit"),
    [
        ([ONE, ONE, [bytes(7)]], "column 'x' of the chunk has 7 bytes for 1 samples"),
        ([ONE, [bytes(8), b"ab"], [bytes(8)]], "text column 't' of the chunk is damaged"),
        ([ONE, [ONE[0][::-1], b"ab"], [bytes(8)]], "text column 't' of the chunk is damaged"),
        ([ONE, [ONE[0], b"a"], [bytes(8)]], "text column 't' of the chunk is damaged"),
        ([ONE, [ONE[0], b"\xff\xff"], [bytes(8)]], "text column 't' of the chunk is damaged"),
        ([[bytes(24), b"ab"], ONE, [bytes(8)]], "column 'b' of the chunk is damaged"),
        ([[ONE[0], b"abc"], ONE, [bytes(8)]], "column 'b' of the chunk is damaged"),
        ([ONE, ONE, [bytes(8), b""]], "not laid out"),
        ([ONE, ONE[:1], [bytes(8)]], "not laid out"),
    ],
)
def test_segments_that_lie(segments: list[list[bytes]], culprit: str) -> None:
    """The header is that of the schema, and what it describes is not what the columns need."""
    good = chunk_format.decode(VARYING, 1, laid_out([ONE, ONE, [bytes(8)]]))
    assert (good["b"].tolist(), good["t"].tolist(), good["x"].tolist()) == ([b"ab"], ["ab"], [0])
    with pytest.raises(DecodeError, match=culprit):
        chunk_format.decode(VARYING, 1, laid_out(segments))


def laid_out(segments: list[list[bytes]]) -> bytearray:
    """A chunk of one sample with these segments of its columns."""
    layout = chunk_format._layout(VARYING, 1, [[len(each) for each in column] for column in segments])
    chunk = bytearray(layout.header.ljust(layout.size_bytes, b"\0"))
    for placed, column in zip(layout.segments, segments, strict=True):
        for (offset, size), data in zip(placed, column, strict=True):
            chunk[offset : offset + size] = data
    return chunk


@pytest.mark.parametrize("beside", [{}, {"t": ["a", "b", "c"]}])
@pytest.mark.parametrize("wrong", [2, 7, 255])
def test_a_boolean_is_0_or_1(beside: dict[str, Any], wrong: int) -> None:
    """Whether the chunk is decoded or placed: no other byte is handed over."""
    columns, structure = columns_of({"flag": np.array([True, False, True]), **beside}, where="")
    schema = schema_of(columns, structure)
    good = chunk_format.encode(schema, columns)
    bad = bytearray(good)
    bad[bad.index(b"\1\0\1" + bytes(61)) + 1] = wrong
    for chunk in (good, bad):
        buffer = BatchBuffer(chunk_format.Layouts(schema), [3])
        assert buffer.decodes
        buffer.place(0, len(chunk)).write_at(0, chunk)
        if chunk is bad:
            with pytest.raises(DecodeError, match="'flag' of the chunk has a boolean that is neither 0 nor 1"):
                buffer.finish(0)
        else:
            buffer.finish(0)
            assert buffer.batch()["flag"].tolist() == [True, False, True]


def test_many_texts() -> None:
    """They are decoded some at a time."""
    columns, structure = columns_of({"t": [str(i) for i in range(40_000)]}, where="")
    schema = schema_of(columns, structure)
    decoded = chunk_format.decode(schema, 40_000, chunk_format.encode(schema, columns))
    assert (decoded["t"] == columns["t"]).all()


def test_bytes_land_in_their_rows_however_they_are_cut() -> None:
    """A chunk written in pieces of any size and order fills its rows; a wrong header is told."""
    columns = {name: array for name, array in COLUMNS.items() if name != "t"}
    chunk = bytes(chunk_format.encode(FIXED, columns))
    for cut in (1, 7, 64, 1000):
        buffer = BatchBuffer(chunk_format.Layouts(FIXED), [10])
        place = buffer.place(0, len(chunk))
        for start in reversed(range(0, len(chunk), cut)):
            place.write_at(start, chunk[start : start + cut])
        buffer.finish(0)
        assert all((buffer.batch()[name] == columns[name]).all() for name in columns)
    buffer = BatchBuffer(chunk_format.Layouts(FIXED), [10])
    buffer.place(0, len(chunk)).write_at(0, b"x" * len(chunk))
    with pytest.raises(DecodeError, match="not laid out"):
        buffer.finish(0)


def test_columns_without_bytes() -> None:
    """A column whose samples have no bytes takes none, and comes back with its shape."""
    schema = Schema(columns=(Column(name="e", dtype="<f4", shape=(0, 3)),), structure="dict")
    chunk = bytes(chunk_format.encode(schema, {"e": np.empty((4, 0, 3), "f4")}))
    buffer = BatchBuffer(chunk_format.Layouts(schema), [4])
    buffer.place(0, len(chunk)).write_at(0, chunk)
    buffer.finish(0)
    assert buffer.batch()["e"].shape == (4, 0, 3)
