"""Small DAGs that ask much of whoever walks them; anyone can store them, and ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dnc_async.ipld import dagpb, protobuf, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB
from dnc_async.ipld.varint import encode as varint
from dnc_async.store import BlockStore

#: An identity link in eight bytes, the smallest that there is.
_IDENTITY_LINK = protobuf.bytes_field(2, protobuf.bytes_field(1, bytes.fromhex("01550000")))
_NODE_BYTES = 2 * 2**20 - 4096


def file_node(child: Block, links: int, size: int) -> Block:
    """A file's node that links ``links`` times to the same child of ``size`` bytes."""
    message = unixfs.encode(unixfs.Kind.FILE, filesize=links * size, blocksizes=[size] * links)
    return make(dagpb.encode(message, [dagpb.Link(child.cid, "", size)] * links), DAG_PB)


def levels(leaf: Block, links: int, depth: int) -> list[Block]:
    """A file of ``depth`` levels with ``links`` links each, all of which lead to one leaf; its root is the last block."""
    blocks, size = [leaf], len(leaf.data)
    for _ in range(depth):
        blocks.append(file_node(blocks[-1], links, size))
        size *= links
    return blocks


def wide_node(mark: int, size_bytes: int = _NODE_BYTES) -> Block:
    """A node that is full of identity links; ``mark`` makes it another one."""
    message = unixfs.encode(unixfs.Kind.FILE, filesize=mark)
    return make(_IDENTITY_LINK * (size_bytes // len(_IDENTITY_LINK)) + protobuf.bytes_field(1, message), DAG_PB)


def empty_lists(codec: int, size_bytes: int = _NODE_BYTES) -> Block:
    """A DAG-CBOR or DAG-JSON block that consists of empty lists."""
    if codec == DAG_JSON:
        return make(b"[" + b"[]," * (size_bytes // 3) + b"[]]", DAG_JSON)
    return make(b"\x9a" + size_bytes.to_bytes(4, "big") + b"\x80" * size_bytes, DAG_CBOR)


def parent(children: Sequence[Block]) -> Block:
    """A node that links to each of them once."""
    message = unixfs.encode(unixfs.Kind.FILE, filesize=len(children), blocksizes=[1] * len(children))
    return make(dagpb.encode(message, [dagpb.Link(child.cid, "", 1) for child in children]), DAG_PB)


def identity_run(count: int) -> bytes:
    """A raw identity CID's bytes with ``count`` zeros in it."""
    return b"\x01\x55\x00" + varint(count) + bytes(count)


def make_store(folder: Path) -> dict[str, str]:
    """A store with all of them, and what an ordinary client asks for; gives the roots' CIDs by name."""
    store = BlockStore.open(folder, create=True)
    tens = [wide_node(mark) for mark in range(1, 11)]
    ordinary, root = build_file(b"".join(bytes([number]) * 100_000 for number in range(30)), UNIXFS_V1_2025)
    large, large_root = build_file(bytes(256 * 2**20), UNIXFS_V1_2025)
    dags: dict[str, list[Block]] = {
        "deep": levels(make(bytes(1000)), 3000, 3),
        "fan_out": levels(make(b"x"), 3000, 2),
        "wide": [wide_node(0)],
        "ten_wide": [*tens, parent(tens)],
        "cbor": [empty_lists(DAG_CBOR)],
        "json": [empty_lists(DAG_JSON)],
    }
    roots = {name: str(blocks[-1].cid) for name, blocks in dags.items()}
    roots |= {"large": str(large_root.cid), "ordinary": str(root.cid), "ordinary_leaf": str(ordinary[0].cid)}
    _put(store, [*ordinary, *large, *(block for blocks in dags.values() for block in blocks)])
    return roots


def _put(store: BlockStore, blocks: Iterable[Block]) -> None:
    with store.begin() as transaction:
        for block in blocks:
            transaction.put(block)
        transaction.commit()
