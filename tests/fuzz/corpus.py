"""What fuzzing starts from: the CARs that Kubo made, what is in them, and what the library itself writes."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

from dnc_async.dataset import chunk_format
from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.page import encode_page
from dnc_async.ipld import dagpb
from dnc_async.ipld.block import Block
from dnc_async.ipld.car import CarReader, encode_header
from dnc_async.ipld.car_index import encode_index
from dnc_async.ipld.cid import DAG_PB
from dnc_async.publish.columns import columns_of

from .published import published
from .targets import SAMPLES, SCHEMAS

FIXTURES = Path(__file__).parent.parent / "fixtures"
#: Longer ones are only slower.
_MOST_BYTES = 2**16

_RECORD = {
    "Schema": "peer",
    "ID": "12D3KooWA",
    "Addrs": ["/dns4/gw.example/tcp/443/tls/http", "/ip4/8.8.8.8/tcp/80/http", "/ip6/::1/tcp/443/https"],
    "Protocols": ["transport-ipfs-gateway-http"],
}


@functools.cache
def corpus() -> dict[str, tuple[bytes, ...]]:
    """Some inputs for each target."""
    cars = tuple(path.read_bytes() for path in sorted(FIXTURES.glob("*.car")))
    blocks = [block for car in cars for block in _blocks(car)]
    nodes = [block.data for block in blocks if block.cid.codec == DAG_PB]
    manifest, report = published()
    found = {
        "car": [_shortened(car) for car in cars],
        "dag_pb": nodes,
        "unix_fs": [message for message in (dagpb.decode(each).data for each in nodes) if message],
        "node": nodes,
        "dag": [bytes(range(seed, seed + 200, 3)) for seed in (0, 7, 19, 50)],
        "car_index": [_index(blocks[i : i + 20]) for i in range(0, 100, 20)],
        "manifest": [manifest],
        "page": [encode_page(Manifest.decode(manifest).first_page)],
        "chunk": [bytes(each) for each in _chunks()],
        "report": [report],
        "report_values": [bytes([seed, 3, seed % 7, 90, 1, 200, seed % 5]) for seed in range(0, 250, 9)],
        "cid": [block.cid.encode() for block in blocks[:200:7]] + [str(block.cid).encode() for block in blocks[:200:9]],
        "other_codecs": [encode_header([blocks[0].cid])[1:], b'{"a": {"/": "' + str(blocks[0].cid).encode() + b'"}}'],
        "router": [json.dumps({"Providers": [_RECORD]}).encode(), json.dumps(_RECORD).encode() + b"\n"],
    }
    return {
        name: tuple(dict.fromkeys(each for each in inputs if len(each) <= _MOST_BYTES))
        for name, inputs in found.items()
    }


def _blocks(car: bytes) -> list[Block]:
    return CarReader().feed(car)


def _shortened(car: bytes) -> bytes:
    """A CAR's beginning, of which a fuzzer can change a part that matters."""
    return car if len(car) <= 4096 else car[:4096]


def _index(blocks: list[Block]) -> bytes:
    entries = {block.cid.multihash: (block.cid, 100 * i) for i, block in enumerate(blocks)}
    return b"".join(encode_index(entries.values()))


def _chunks() -> list[bytearray]:
    rows = {
        "b": np.array([True, False, True, True, False]),
        "x": np.arange(15, dtype="<f4").reshape(5, 3),
        "t": ["", "a", "grün", "日本", "x" * 70],
        "s": np.array([b"a", b"bc", b"", b"def", b"12345"], dtype="S5"),
        "v": [b"", b"1", b"22", b"\xff" * 90, b"4"],
    }
    found = []
    for schema in SCHEMAS:
        columns, _ = columns_of({column.name: rows[column.name] for column in schema.columns}, where="")
        if schema.columns[0].shape:
            columns["b"] = np.array([[True, False]] * SAMPLES)
        found.append(chunk_format.encode(schema, columns))
    return found
