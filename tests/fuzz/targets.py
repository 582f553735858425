"""What is fuzzed: functions of bytes, each of which returns, or raises an error of the library, whatever the bytes are."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from dnc_async.dataset import chunk_format
from dnc_async.dataset.batch import BatchBuffer
from dnc_async.dataset.chunk_format import Layouts
from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.page import ChunkEntry, decode_page, encode_page, listed
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Column, Schema
from dnc_async.engine.report.report import Report
from dnc_async.errors import DncError
from dnc_async.gateways.providers import RecordLines, parse_answer, parse_record
from dnc_async.ipld import codecs, dagpb, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.car_index import PRAGMA, CarV2Header, Index
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB, RAW, Cid
from dnc_async.ipld.dagpb import Link
from dnc_async.ipld.directory import DirectoryReader, node_kind, symlink_target
from dnc_async.ipld.plan import FilePlanner, payload

from .published import published

#: A DAG of a fuzzer is walked so far: each step needs a block, which a gateway would have to send.
_STEPS = 2000


def _tolerant(function: Callable[[], object]) -> None:
    """The functions that follow are called in any case."""
    with contextlib.suppress(DncError):
        function()


def car(data: bytes) -> None:
    """A CAR stream: whole, and in pieces, with the same blocks, or the same error."""
    size = 1 + (data[-1] if data else 0)

    def read(piece_bytes: int) -> tuple[list[Cid], str]:
        reader, found = CarReader(), list[Cid]()
        try:
            for start in range(0, len(data), piece_bytes):
                found += [block.cid for block in reader.feed(data[start : start + piece_bytes])]
            reader.close()
        except DncError as error:
            return found, type(error).__name__
        return found, ""

    whole, pieces = read(len(data) or 1), read(size)
    assert whole == pieces, (size, whole, pieces)


def dag_pb(data: bytes) -> None:
    """A dag-pb node: what was decoded is encoded to a node that is decoded to the same."""
    node = dagpb.decode(data)
    if all(link.cid.problem is None for link in node.links):
        assert dagpb.decode(dagpb.encode(node.data, node.links)) == node


def unix_fs(data: bytes) -> None:
    """The message in a node."""
    body = unixfs.decode(data)
    assert body.mtime is None or body.mtime[1] < 10**9


def node(data: bytes) -> None:
    """A node as the root of a file, of a directory and of a HAMT."""
    block = make(data, DAG_PB)
    _tolerant(lambda: node_kind(block))
    _tolerant(lambda: symlink_target(block))
    for start, end, presume in ((0, None, 0), (5, 700_000, 2**20)):
        _tolerant(lambda a=start, b=end, c=presume: FilePlanner(block.cid, a, b, presume_bytes=c).receive(block))
    for name in (None, "a"):
        _tolerant(lambda name=name: DirectoryReader(block.cid, name=name).receive(block))
    for cid in codecs.links(block.cid, data):
        assert Cid.decode(cid.encode(), foreign=True) == cid


class _Choices:
    """Numbers from bytes, as a fuzzer needs them to build something; zeros when they have run out."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def next(self, below: int) -> int:
        self._at += 1
        return self._data[self._at - 1] % below if self._at <= len(self._data) else 0

    @property
    def are_left(self) -> bool:
        return self._at < len(self._data)


def dag(data: bytes) -> None:
    """A DAG of nodes that link to each other as the bytes say, read as a file, a directory and a HAMT, to their ends."""
    blocks, choices = [make(b"leaf"), make(b"", RAW, "identity")], _Choices(data)
    while choices.are_left and len(blocks) < 40:
        kind, names = unixfs.Kind(choices.next(6)), choices.next(4)
        below = [blocks[choices.next(len(blocks))] for _ in range(choices.next(9))]
        links = [Link(each.cid, f"{i:0{names}X}", choices.next(7)) for i, each in enumerate(below)]
        sizes = [choices.next(256) ** choices.next(4) for _ in range(max(0, len(below) - choices.next(2)))]
        size = choices.next(3)
        message = unixfs.encode(
            kind,
            data=bytes(choices.next(4)),
            filesize=sum(sizes) if size else None,
            blocksizes=sizes,
            hash_type=0x22 if size != 1 else None,
            fanout=(8, 16, 256, 9)[choices.next(4)],
        )
        data = dagpb.encode(message, links)
        is_inline = len(data) <= 128 and choices.next(3) == 1
        blocks.append(make(data, DAG_PB, "identity" if is_inline else "sha2-256"))
    _read_all(blocks[-1], {block.cid.multihash: block for block in blocks})


def _read_all(root: Block, known: dict[bytes, Block]) -> None:
    def follow(reader: FilePlanner | DirectoryReader) -> None:
        steps = 0
        while wanted := reader.wanted():
            for cid in wanted:
                steps += 1
                assert steps <= _STEPS, f"{reader} wants more and more nodes"
                reader.receive(known[cid.multihash])

    def plan() -> None:
        planner = FilePlanner(root.cid)
        follow(planner)
        leaves = planner.leaves
        assert all(before.offset + (before.size or 0) <= after.offset for before, after in pairwise(leaves))
        for leaf in leaves:
            _tolerant(lambda leaf=leaf: payload(leaf, known[leaf.cid.multihash]))

    _tolerant(plan)
    for name in (None, "0", "a"):
        _tolerant(lambda name=name: follow(DirectoryReader(root.cid, name=name)))


def car_index(data: bytes) -> None:
    """The index of a CARv2 file, and the file's header before it."""
    _tolerant(lambda: CarV2Header.decode(PRAGMA + bytes(16) + data).most_index_bytes)
    index = Index.decode(data)
    for cid in (Cid.of(b""), Cid.of(b"x", RAW, "sha2-512"), Cid.of(b"x", RAW, "identity")):
        offset = index.offset(cid)
        if offset is not None:
            assert index.end(offset, 2**64) > offset
    for offset in (0, 2**63, 2**64 - 1, 2**64):
        index.end(offset, 2**64)
    assert len(index) * 9 <= len(data)


def manifest(data: bytes) -> None:
    """The file ``manifest``: what was decoded is encoded to what is decoded to the same."""
    found = Manifest.decode(data)
    assert Manifest.decode(found.encode()) == found
    assert len(list(found.entries(0, found.first_page))) == found.chunks_on_first_page
    if found.largest_batch_bytes < 2**20:
        BatchBuffer(Layouts(found.schema), [found.chunk_samples(i) for i in found.batch_chunks(0)])


def page(data: bytes) -> None:
    """A page of a manifest, and the leaves that it lists."""
    directories = decode_page(data)
    assert decode_page(encode_page(directories)) == directories
    for index, (row, directory, offset, total) in enumerate(listed(directories)):
        entry = ChunkEntry(index, row, 1, directory, offset, total)
        if entry.names_leaves:
            _tolerant(entry.leaves)


def _schema(*columns: tuple[str, str, tuple[int, ...]]) -> Schema:
    named = (Column(name=name, dtype=dtype, shape=shape) for name, dtype, shape in columns)
    return Schema(columns=tuple(named), structure="dict")


SCHEMAS = (
    _schema(("b", "|b1", (2,)), ("x", "<f4", (3,))),
    _schema(("b", "|b1", ()), ("t", "text", ())),
    _schema(("s", "|S5", ()), ("v", "bytes", ())),
)
SAMPLES = 5


def chunk(data: bytes) -> None:
    """A chunk of each kind, decoded as a whole and placed into a batch."""
    for schema in SCHEMAS:
        with contextlib.suppress(DncError):
            columns = chunk_format.decode(schema, SAMPLES, bytearray(data))
            assert [len(values) for values in columns.values()] == [SAMPLES] * len(schema.columns)
            for values in columns.values():
                if isinstance(values, Ragged):
                    assert sum(map(len, values)) == len(values.values)
                elif values.dtype == np.bool_:
                    assert values.view(np.uint8).max() <= 1
        buffer = BatchBuffer(Layouts(schema), [SAMPLES])
        buffer.place(0, len(data)).write_at(0, data)
        _tolerant(lambda buffer=buffer: buffer.finish(0))


def report(data: bytes) -> None:
    """A saved report: read, shown as text and as a page, modelled, and saved again."""
    try:
        wire = json.loads(data)
    except (ValueError, RecursionError):  # Report.load() makes them an error of ours
        return
    _show(Report.from_dict(wire))


#: Numbers that a program may write, and that break sums, powers and conversions; and what is no number.
VALUES = (0, 1, -1, 2, 10**9, 2**53, 2**63, 10**400, 0.0, 5e-324, 1e-9, 1e308, 1e15, "", "\x1b[0m", None, [], {}, True)


def report_values(data: bytes) -> None:
    """A report of a real run in which some values were replaced."""
    wire, choices = json.loads(published()[1]), _Choices(data)
    while choices.are_left:
        place = wire
        for _ in range(8):
            names = list(range(len(place))) if isinstance(place, list) else list(place)
            name = names[choices.next(len(names))] if names else None
            if name is None or not isinstance(place[name], (dict, list)) or not place[name]:
                break
            place = place[name]
        if name is not None:
            place[name] = VALUES[choices.next(len(VALUES))]
    _show(Report.from_dict(wire))


def _show(found: Report) -> None:
    assert all(line.isprintable() for line in str(found).split("\n"))
    found._repr_html_()
    found.what_if(more_gateways=2)
    found.what_if(disk_budget=10**6)
    assert Report.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def cid(data: bytes) -> None:
    """A CID in bytes and as text."""
    for foreign in (False, True):
        _tolerant(lambda foreign=foreign: _same(Cid.decode(data, foreign=foreign)))
    text = data.decode("utf-8", "surrogateescape")
    _tolerant(lambda: _same(Cid.parse(text)))


def _same(found: Cid) -> None:
    assert Cid.decode(found.encode(), foreign=True) == found
    assert found.problem is not None or Cid.parse(str(found)) == found


def other_codecs(data: bytes) -> None:
    """DAG-CBOR, in which a CAR's header is written, and DAG-JSON."""
    for codec in (DAG_CBOR, DAG_JSON):
        _tolerant(lambda codec=codec: codecs.links(make(data, codec).cid, data))


def router(data: bytes) -> None:
    """A delegated router's answer, whole and line by line."""
    lines = RecordLines()

    def parsed() -> Iterator[object]:
        with contextlib.suppress(ValueError):  # Router makes it an error of ours
            yield from parse_answer(data)
        with contextlib.suppress(ValueError):
            for start in range(0, len(data), 100):
                yield from lines.feed(data[start : start + 100])
            yield from lines.close()

    for record in parsed():
        for local in (False, True):
            for provider in parse_record(record, local=local):
                assert provider.url.isprintable()


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        car, dag_pb, unix_fs, node, dag, car_index, manifest, page, chunk, report, report_values, cid, other_codecs, router
    )
}  # fmt: skip


def call(name: str, data: bytes) -> None:
    """Call a target; raises what it must not raise."""
    with contextlib.suppress(DncError):
        TARGETS[name](data)
