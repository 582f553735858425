"""Small DAGs that ask much of whoever walks them; anyone can store them, and ask for them."""

from __future__ import annotations

from collections.abc import Sequence

from dnc_async.ipld import dagpb, protobuf, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB

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
