"""Blocks that are read one link at a time: as the whole decoders read them, and without holding them in between."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from dnc_async.errors import DagError
from dnc_async.ipld import dagpb, protobuf, stepwise, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB, Cid
from dnc_async.ipld.codecs import decode_dag_cbor, links
from dnc_async.ipld.stepwise import Outline, Source
from dnc_async.testing.hostile_dags import empty_lists, wide_node

LEAF = make(b"leaf").cid
OTHER = make(b"other").cid
LINK = b"\xd8\x2a\x58\x25\x00" + LEAF.encode()


class Reading:
    """A source that is emptied after every step."""

    def __init__(self, data: bytes) -> None:
        self.reads = 0
        self._data = data
        self.source = Source(self._read)

    def _read(self) -> bytes:
        self.reads += 1
        return self._data

    def all(self, items: Iterable[Any]) -> list[Any]:
        found = []
        for item in items:
            assert self.source.held_bytes in {0, len(self._data)}
            self.source.empty()
            if item is not None:
                found.append(item)
        return found


def result(work: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def outline(data: bytes) -> Outline:
    return result(stepwise.outline(Source(lambda: data)))


def test_the_links_of_every_fixture_are_those_of_the_whole_decoder(fixture_blocks: dict[str, list[Block]]) -> None:
    for blocks in fixture_blocks.values():
        for block in blocks:
            if block.cid.codec != DAG_PB:
                continue
            node = dagpb.decode(block.data)
            reading = Reading(block.data)
            assert reading.all(stepwise.dag_pb_links(reading.source)) == list(node.links)
            found = outline(block.data)
            body = unixfs.decode(node.data)
            assert (found.links, found.kind, found.fanout) == (len(node.links), body.kind, body.fanout)
            assert (found.data_bytes, found.sizes, found.sizes_sum) == (
                len(body.data),
                len(body.blocksizes),
                sum(body.blocksizes),
            )
            assert found.is_file is body.is_file
            reading = Reading(block.data)
            assert reading.all(stepwise.blocksizes(reading.source, found.message)) == list(body.blocksizes)


def test_a_node_is_read_in_steps_and_held_in_none_of_them() -> None:
    block = wide_node(0, 800)
    reading = Reading(block.data)
    assert len(reading.all(stepwise.dag_pb_links(reading.source))) == 100
    assert reading.reads >= 100


def test_sizes_may_be_packed() -> None:
    message = unixfs.encode(unixfs.Kind.FILE) + protobuf.bytes_field(4, b"\x05\x80\x01\x07")
    data = dagpb.encode(message, [dagpb.Link(LEAF, "", 1)] * 3)
    found = outline(data)
    assert (found.sizes, found.sizes_sum, found.is_sized) == (3, 140, True)
    assert list(stepwise.blocksizes(Source(lambda: data), found.message)) == [5, 128, 7]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x08\x09",
        b"\x08",
        protobuf.varint_field(1, 2) + protobuf.bytes_field(4, b"\x80"),
        protobuf.varint_field(1, 2) + b"\x22\x05\x01",
        protobuf.varint_field(1, 2) + b"\x22\x01\x80\x18\x01",
    ],
)
def test_a_node_with_other_data_is_no_unixfs(message: bytes) -> None:
    found = outline(dagpb.encode(message, [dagpb.Link(LEAF, "", 1)]))
    assert (found.links, found.kind, found.is_sized, found.is_file) == (1, None, False, False)


def test_a_node_without_data_is_no_unixfs() -> None:
    assert outline(dagpb.encode(None, [dagpb.Link(LEAF, "", 1)] * 2)) == Outline(links=2)


def test_numbers_of_a_fixed_width_are_passed_over() -> None:
    message = unixfs.encode(unixfs.Kind.FILE) + bytes.fromhex("3d00000000 410000000000000000".replace(" ", ""))
    assert outline(dagpb.encode(message, [])).kind is unixfs.Kind.FILE


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x01",  # a number
        b"\x1a\x00",  # another field
        b"\x0a\x00\x0a\x00",  # data twice
        b"\x12\x00\x0a\x00\x12\x00",  # data between links
        b"\x0a\x05a",  # longer than its message
        b"\x0b",  # a wire type that is not used
        b"\x80",  # ends inside a number
    ],
)
def test_a_broken_node_is_refused_as_by_the_whole_decoder(data: bytes) -> None:
    with pytest.raises(DagError):
        outline(data)
    with pytest.raises(DagError):
        dagpb.decode(data)


def cbor() -> bytes:
    # {"a": [1, -1, leaf], "b": {"c": leaf, "d": null, "g": h'00'}}
    return b"\xa2\x61a\x83\x01\x20" + LINK + b"\x61b\xa3\x61c" + LINK + b"\x61d\xf6\x61g\x41\x00"


def test_links_and_paths_of_dag_cbor() -> None:
    reading = Reading(cbor())
    assert reading.all(stepwise.dag_cbor_links(reading.source)) == links(make(cbor(), DAG_CBOR).cid, cbor())
    source = Source(cbor)

    def at(*segments: str) -> Cid | None:
        position = 0
        for segment in segments:
            position = result(stepwise.dag_cbor_step(source, position, segment))
        return stepwise.dag_cbor_link(source, position)

    assert at("a", "2") == at("b", "c") == LEAF
    assert at("a", "1") is at("b", "d") is at("b") is None
    for path in (("z",), ("a", "3"), ("a", "x"), ("a", "-1"), ("b", "d", "e")):
        with pytest.raises(KeyError):
            at(*path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xa1", b"\xa1\x01\x01", b"\x5f\xff", b"\x82\x01", b"\xd8\x2b\x01", b"\xf8\x20", b"\x42a", b"\x62a",
     b"\x9b" + b"\xff" * 8, b"\x81" * 300, b"\x61\xff", b"\xd8\x2a\x42\x00\x01", b"\x19\x01", b"\x1c",
     b"\xd8\x2a\x40", b"\xd8\x2a\x61a"],
)  # fmt: skip
def test_broken_dag_cbor_is_refused_as_by_the_whole_decoder(data: bytes) -> None:
    with pytest.raises(DagError):
        list(stepwise.dag_cbor_links(Source(lambda: data)))
    with pytest.raises(DagError):
        decode_dag_cbor(data)


def test_links_and_paths_of_dag_json() -> None:
    value = {
        "a": [1, ']\\"{', {"/": str(LEAF)}],
        "b": {"/": {"bytes": "AA"}, "c": {"/": str(OTHER)}},
        "é/": [],
        "n": None,
    }
    text = json.dumps(value, indent=1).encode() + b"\n"
    reading = Reading(text)
    assert reading.all(stepwise.dag_json_links(reading.source)) == [LEAF, OTHER]
    assert links(make(text, DAG_JSON).cid, text) == [LEAF, OTHER]
    source = Source(lambda: text)
    assert stepwise.dag_json_end(source, result(stepwise.dag_json_links(source))) == len(text)

    def at(*segments: str) -> Cid | None:
        position = 0
        for segment in segments:
            position = result(stepwise.dag_json_step(source, position, segment))
        return stepwise.dag_json_link(source, position)

    assert at("a", "2") == LEAF
    assert at("b", "c") == OTHER
    assert at("a", "1") is at("é/") is at("b", "/", "bytes") is None
    for path in (("z",), ("a", "3"), ("a", "x"), ("é/", "0"), ("n", "a")):
        with pytest.raises(KeyError):
            at(*path)


def test_a_dag_json_link_may_be_written_with_escapes() -> None:
    for name in ("/", "\\/", "\\u002f"):
        text = f'{{"{name}" : "{LEAF}"}}'.encode()
        assert [found for found in stepwise.dag_json_links(Source(lambda text=text: text)) if found] == [LEAF]


@pytest.mark.parametrize("text", ["", "[", '["a', '{"/": "no cid"}', '["\\'])
def test_broken_dag_json_is_refused(text: str) -> None:
    with pytest.raises(DagError):
        list(stepwise.dag_json_links(Source(text.encode)))


@pytest.mark.parametrize("text", ["{a: 1}", "{1: 1}", "{"])
def test_a_key_that_is_not_text_cannot_be_followed(text: str) -> None:
    with pytest.raises(DagError):
        result(stepwise.dag_json_step(Source(text.encode), 0, "b"))


@pytest.mark.parametrize("codec", [DAG_CBOR, DAG_JSON])
def test_many_values_are_many_steps(codec: int) -> None:
    data = empty_lists(codec, 3000).data
    found = stepwise.dag_cbor_links if codec == DAG_CBOR else stepwise.dag_json_links
    assert len(list(found(Source(lambda: data)))) >= 1000
