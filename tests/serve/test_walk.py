"""Which blocks a CAR holds: compared with Kubo's own exports, and with what a reader needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from dnc_async.errors import DagError, StoreError
from dnc_async.ipld import dagpb, hamt, unixfs
from dnc_async.ipld.block import Block, make, verify
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB, RAW, Cid
from dnc_async.ipld.plan import FilePlanner, payload
from dnc_async.serve.content_request import ContentRequest, EntityBytes, RefusalError, Scope
from dnc_async.serve.lookup import find
from dnc_async.serve.open_blocks import OpenBlocks
from dnc_async.serve.resolving import Resolved, resolve
from dnc_async.serve.sent_blocks import SharedMemory
from dnc_async.serve.steps import NotHereError, finish, take_turn
from dnc_async.serve.walk import CarWalk
from dnc_async.store import BlockStore

FILES = [
    "empty-file",
    "one-raw-block",
    "deep-balanced-raw",
    "deep-balanced-dagpb",
    "v0-profile",
    "trickle-raw",
    "trickle-dagpb",
    "repeated-blocks",
    "rabin",
    "inline-leaves",
    "blake3",
    "sha2-512",
    "blake2b-256",
    "mode-mtime-file",
]
DIRECTORIES = ["directory", "directory-v0", "symlink", "hamt-8", "hamt-256", "flat-dir-wide"]

Read = Callable[[Cid], bytes | None]


def car(
    read: Read,
    root: Cid,
    *segments: str,
    scope: Scope = "all",
    entity_bytes: str | None = None,
    dups: bool = False,
) -> list[tuple[Cid, bytes]]:
    """All blocks of an answer, in order."""
    ask = ContentRequest(
        root=root,
        segments=segments,
        trailing_slash=False,
        format="car",
        scope="entity" if entity_bytes else scope,
        entity_bytes=EntityBytes.parse(entity_bytes) if entity_bytes else None,
        dups=dups,
    )
    return list(blocks_of(read, ask))


def blocks_of(read: Read, ask: ContentRequest) -> Iterator[tuple[Cid, bytes]]:
    opened = OpenBlocks(read)
    walk = CarWalk(opened, finish(resolve(opened, ask.root, ask.segments)), ask, SharedMemory())
    finish(walk.begin())
    yield from (block for block in walk.blocks() if block is not None)
    walk.close()


def where(read: Read, root: Cid, segments: Sequence[str]) -> Resolved:
    return finish(resolve(OpenBlocks(read), root, segments))


def reader_of(blocks: Iterable[tuple[Cid, bytes]]) -> Read:
    """Read from the answer alone."""
    held = {cid.multihash: data for cid, data in blocks}
    return lambda cid: cid.inline if cid.inline is not None else held.get(cid.multihash)


def file_bytes(read: Read, root: Cid, start: int = 0, end: int | None = None) -> tuple[bytes, set[bytes]]:
    """Read a file, or what a range of it touches; give the bytes and the multihashes that were needed."""
    needed: set[bytes] = {root.multihash}
    planner = FilePlanner(root, start, end)
    while wanted := planner.wanted():
        for cid in wanted:
            needed.add(cid.multihash)
            planner.receive(verify(cid, read(cid) or b""))
    parts = []
    for leaf in planner.leaves:
        data = leaf.inline
        if data is None:
            needed.add(leaf.cid.multihash)
            data = payload(leaf, verify(leaf.cid, read(leaf.cid) or b""))
        parts.append((leaf.offset, data))
    return b"".join(data for _, data in parts), needed


@pytest.mark.parametrize("name", FILES + DIRECTORIES)
def test_the_whole_dag_comes_as_kubo_exports_it(
    name: str, kubo_store: BlockStore, roots: dict[str, Cid], fixture_blocks: dict[str, list[Block]]
) -> None:
    found = [cid for cid, _ in car(kubo_store.read, roots[name])]
    assert found == [block.cid for block in fixture_blocks[name] if block.cid.inline is None]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_an_entity(name: str, kubo_store: BlockStore, roots: dict[str, Cid]) -> None:
    root = roots[name]
    assert car(kubo_store.read, root, scope="entity") == car(kubo_store.read, root)
    assert car(kubo_store.read, root, entity_bytes="0:*") == car(kubo_store.read, root)
    assert car(kubo_store.read, root, scope="block") == [(root, kubo_store.read(root))]


@pytest.mark.parametrize("dups", [False, True])
@pytest.mark.parametrize("name", FILES[1:])
def test_a_range_brings_what_it_needs_and_nothing_else(
    name: str, kubo_store: BlockStore, roots: dict[str, Cid], *, dups: bool
) -> None:
    root = roots[name]
    whole, _ = file_bytes(kubo_store.read, root)
    size = len(whole)
    for first, last in ((0, 0), (0, size - 1), (size // 2, size // 2), (size // 3, size // 2), (size - 1, size + 99)):
        blocks = car(kubo_store.read, root, entity_bytes=f"{first}:{last}", dups=dups)
        found, needed = file_bytes(reader_of(blocks), root, first, last + 1)
        assert whole[first : last + 1] in found
        assert {cid.multihash for cid, _ in blocks} == needed


def test_a_range_of_a_file_that_does_not_say_its_sizes() -> None:
    """All of it comes, or of the part that does not say: where the range lies, nobody knows."""
    leaves = [make(bytes([i]) * 10) for i in range(6)]
    links = [dagpb.Link(leaf.cid, "", 10) for leaf in leaves]
    inner = make(dagpb.encode(unixfs.encode(unixfs.Kind.FILE), links[2:4]), DAG_PB)
    around = [*links[:2], dagpb.Link(inner.cid, "", 20), *links[4:]]
    sized = make(dagpb.encode(unixfs.encode(unixfs.Kind.FILE, blocksizes=[10, 10, 20, 10, 10]), around), DAG_PB)
    unsized = make(dagpb.encode(unixfs.encode(unixfs.Kind.FILE, filesize=60), around), DAG_PB)
    read = reader_of((block.cid, block.data) for block in [*leaves, inner, sized, unsized])
    for dups in (True, False):
        found = [cid for cid, _ in car(read, sized.cid, entity_bytes="25:25", dups=dups)]
        assert found == [sized.cid, inner.cid, leaves[2].cid, leaves[3].cid]
        whole = [unsized.cid, *(block.cid for block in [*leaves[:2], inner, *leaves[2:]])]
        assert [cid for cid, _ in car(read, unsized.cid, entity_bytes="1000:2000", dups=dups)] == whole


@pytest.mark.parametrize("name", DIRECTORIES)
def test_an_entity_of_a_directory_lists_it(
    name: str, kubo_store: BlockStore, roots: dict[str, Cid], fixture_files: dict[str, dict[str, Any]]
) -> None:
    blocks = car(kubo_store.read, roots[name], scope="entity")
    assert car(kubo_store.read, roots[name], entity_bytes="5:9") == blocks
    digits = {"hamt-8": 1, "hamt-256": 2}.get(name, 0)
    links = [link for _, data in blocks for link in dagpb.decode(data).links]
    listed = {link.name[digits:] for link in links} - {""}
    assert listed >= {path.partition("/")[0] for path in fixture_files[name]}
    shards = {link.cid for link in links if len(link.name) == digits}
    assert blocks[0][0] == roots[name]
    assert {cid for cid, _ in blocks[1:]} == shards


@pytest.mark.parametrize("name", ["directory", "directory-v0", "hamt-8", "hamt-256", "flat-dir-wide"])
def test_a_path_comes_with_the_blocks_that_prove_it(
    name: str, kubo_store: BlockStore, roots: dict[str, Cid], fixture_files: dict[str, dict[str, Any]]
) -> None:
    files = fixture_files[name]
    for path, expected in list(files.items())[::13] + list(files.items())[-2:]:
        segments = path.split("/")
        blocks = car(kubo_store.read, roots[name], *segments)
        read = reader_of(blocks)
        at = where(read, roots[name], segments)
        assert at.roots[0] == roots[name]
        assert len(at.roots) == len(segments) + 1
        content, needed = file_bytes(read, at.terminus)
        assert hashlib.sha256(content).hexdigest() == expected["sha256"]
        assert {cid.multihash for cid, _ in blocks} == needed | {cid.multihash for cid in at.proof}
        assert [cid for cid, _ in blocks][: len(at.proof)] == list(at.proof)


def test_duplicates_come_only_when_asked_for(kubo_store: BlockStore, roots: dict[str, Cid]) -> None:
    root = roots["repeated-blocks"]
    once = car(kubo_store.read, root)
    often = car(kubo_store.read, root, dups=True)
    assert len(once) == len({cid for cid, _ in once}) < len(often)
    assert {cid for cid, _ in once} == {cid for cid, _ in often}
    content, _ = file_bytes(kubo_store.read, root)
    assert sum(len(data) for cid, data in often if cid.codec == RAW) == len(content)


@pytest.mark.parametrize("path", ["nothing", "plain.txt/below", "plain.txt/../"])
def test_a_missing_name_is_not_found(path: str, kubo_store: BlockStore, roots: dict[str, Cid]) -> None:
    with pytest.raises(RefusalError) as caught:
        where(kubo_store.read, roots["directory"], path.split("/"))
    assert caught.value.status == 404


def test_a_missing_block_is_named_wherever_it_is_missing(kubo_store: BlockStore, roots: dict[str, Cid]) -> None:
    root = roots["deep-balanced-raw"]
    whole = car(kubo_store.read, root)
    gone = whole[-1][0]

    def read(cid: Cid) -> bytes | None:
        return None if cid == gone else kubo_store.read(cid)

    opened = OpenBlocks(read)
    ask = ContentRequest(root, (), trailing_slash=False, format="car")
    walk = CarWalk(opened, where(read, root, ()), ask, SharedMemory())
    turn = take_turn(walk.blocks())
    assert [(block.cid, block.data) for block in turn.blocks] == whole[:-1]
    assert turn.done
    assert str(gone) in str(turn.error)
    assert car(read, root, entity_bytes="0:100")
    with pytest.raises(NotHereError):
        where(lambda _: None, root, ())


def test_a_damaged_directory_is_the_stores_fault(kubo_store: BlockStore, roots: dict[str, Cid]) -> None:
    with pytest.raises(StoreError, match="damaged"):
        where(lambda _: b"\x0a\x02\x08\x01 ", roots["directory"], ("plain.txt",))


def test_turns_are_about_a_megabyte(
    tmp_path_factory: pytest.TempPathFactory, fill: Callable[[BlockStore, Iterable[Block]], None]
) -> None:
    store = BlockStore.open(tmp_path_factory.mktemp("runs") / "store", create=True)
    blocks, root = build_file(bytes(3 * 2**20), UNIXFS_V1_2025)
    fill(store, blocks)
    ask = ContentRequest(root.cid, (), trailing_slash=False, format="car", dups=True)
    walk = CarWalk(OpenBlocks(store.read), where(store.read, root.cid, ()), ask, SharedMemory())
    work = walk.blocks()
    turns = [take_turn(work) for _ in range(4)]
    assert [len(turn.blocks) for turn in turns] == [2, 1, 1, 0]
    assert [turn.done for turn in turns] == [False, False, False, True]


def test_other_codecs_are_followed_too() -> None:
    leaf = make(b"leaf")
    file = make(bytes.fromhex("0a080802120269661802"), DAG_PB)  # a file of two bytes, in its node
    link = b"\xd8\x2a\x58\x25\x00"
    # {"a": [1, -1, leaf], "b": {"c": file, "d": null, "e": true, "f": 1.5, "g": h'00'}}
    cbor = make(
        b"\xa2\x61a\x83\x01\x20" + link + leaf.cid.encode() + b"\x61b\xa5\x61c" + link + file.cid.encode()
        + b"\x61d\xf6\x61e\xf5\x61f\xfb\x3f\xf8" + bytes(6) + b"\x61g\x41\x00",
        DAG_CBOR,
    )  # fmt: skip
    text = json.dumps({"x": [{"/": str(cbor.cid)}], "y": {"/": {"bytes": "AA"}}}).encode()
    root = make(text, DAG_JSON)
    read = reader_of((block.cid, block.data) for block in (leaf, file, cbor, root))

    def cids(*segments: str, scope: Scope = "all") -> list[Cid]:
        return [cid for cid, _ in car(read, root.cid, *segments, scope=scope)]

    assert cids() == [root.cid, cbor.cid, leaf.cid, file.cid]
    assert cids(scope="entity") == [root.cid]
    assert cids("x", "0") == [root.cid, cbor.cid, leaf.cid, file.cid]
    assert cids("x", "0", "b", "c") == [root.cid, cbor.cid, file.cid]
    assert cids("x", "0", "a") == [root.cid, cbor.cid, leaf.cid]
    assert cids("x", "0", "a", scope="block") == [root.cid, cbor.cid]
    assert cids("y") == [root.cid]
    assert where(read, root.cid, ("x", "0", "a", "2")).roots == (root.cid, cbor.cid, leaf.cid)
    for path in (("z",), ("x", "1"), ("x", "0", "a", "3"), ("x", "0", "a", "-1"), ("x", "0", "b", "d", "e")):
        with pytest.raises(RefusalError):
            where(read, root.cid, path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xa1", b"\xa1\x01\x01", b"\x5f\xff", b"\x82\x01", b"\x01\x01", b"\xd8\x2b\x01", b"\xf8\x20", b"\x42a",
     b"\x9b" + b"\xff" * 8, b"\x81" * 300, b"\x61\xff", b"\xd8\x2a\x42\x00\x01", b"\x19\x01", b"\x1c"],
)  # fmt: skip
def test_broken_dag_cbor_cannot_be_followed(data: bytes) -> None:
    block = make(data, DAG_CBOR)
    with pytest.raises(RefusalError, match="cannot be followed"):
        where(reader_of([(block.cid, block.data)]), block.cid, ("a",))


def test_other_codecs_are_parts_of_no_range() -> None:
    """A range comes with the part that it touches, and with nothing that this links to, if it is no file."""
    leaf = make(b"leaf")
    cbor = make(b"\x81\xd8\x2a\x58\x25\x00" + leaf.cid.encode(), DAG_CBOR)
    message = unixfs.encode(unixfs.Kind.FILE, filesize=20, blocksizes=[10, 10])
    root = make(dagpb.encode(message, [dagpb.Link(cbor.cid, "", 10), dagpb.Link(leaf.cid, "", 10)]), DAG_PB)
    read = reader_of((block.cid, block.data) for block in (leaf, cbor, root))
    assert [cid for cid, _ in car(read, root.cid, entity_bytes="3:5")] == [root.cid, cbor.cid]
    assert [cid for cid, _ in car(read, cbor.cid, entity_bytes="3:5")] == [cbor.cid]


def test_a_part_of_a_file_that_is_none_breaks_the_range_off() -> None:
    folder = make(dagpb.encode(unixfs.encode(unixfs.Kind.DIRECTORY), []), DAG_PB)
    message = unixfs.encode(unixfs.Kind.FILE, filesize=20, blocksizes=[20])
    root = make(dagpb.encode(message, [dagpb.Link(folder.cid, "", 20)]), DAG_PB)
    with pytest.raises(DagError, match="well-formed"):
        car(reader_of((block.cid, block.data) for block in (folder, root)), root.cid, entity_bytes="3:5")


def test_a_range_of_a_node_that_cannot_be_read() -> None:
    broken = make(b"\xff", DAG_PB)
    with pytest.raises(DagError):
        car(reader_of([(broken.cid, broken.data)]), broken.cid, entity_bytes="3:5")


def test_a_directory_in_its_own_cid_proves_itself() -> None:
    leaf = make(b"leaf")
    data = dagpb.encode(unixfs.encode(unixfs.Kind.DIRECTORY), [dagpb.Link(leaf.cid, "a", 4)])
    inline = Cid(1, DAG_PB, bytes([0, len(data)]) + data)
    assert car(reader_of([(leaf.cid, leaf.data)]), inline, "a") == [(leaf.cid, leaf.data)]


def test_a_node_that_is_missing_ends_the_measuring_and_then_the_answer(
    kubo_store: BlockStore, roots: dict[str, Cid]
) -> None:
    root = roots["deep-balanced-raw"]
    whole = car(kubo_store.read, root)
    gone = next(cid for cid, _ in whole[2:] if cid.codec == DAG_PB)

    def read(cid: Cid) -> bytes | None:
        return None if cid == gone else kubo_store.read(cid)

    def size_of(cid: Cid) -> int | None:
        return kubo_store.size_bytes(cid)

    ask = ContentRequest(root, (), trailing_slash=False, format="car")
    walk = CarWalk(OpenBlocks(read), where(read, root, ()), ask, SharedMemory())
    assert finish(walk.measure(size_of, most_blocks=1024, most_steps=10**6)) is None
    turn = take_turn(walk.blocks())
    expected = [cid for cid, _ in whole]
    assert [block.cid for block in turn.blocks] == expected[: expected.index(gone)]
    assert str(gone) in str(turn.error)


def test_a_measuring_that_takes_many_steps_is_given_up(kubo_store: BlockStore, roots: dict[str, Cid]) -> None:
    root = roots["hamt-256"]
    ask = ContentRequest(root, (), trailing_slash=False, format="car")
    walk = CarWalk(OpenBlocks(kubo_store.read), where(kubo_store.read, root, ()), ask, SharedMemory())
    assert finish(walk.measure(kubo_store.size_bytes, most_blocks=1024, most_steps=10)) is None
    found = [block for block in walk.blocks() if block is not None]
    assert found == car(kubo_store.read, root)


def test_a_node_without_its_block_ends_a_measuring() -> None:
    """The node is announced, and then not there: the fault comes after what was measured."""
    leaf = make(b"leaf")
    message = unixfs.encode(unixfs.Kind.FILE, filesize=8, blocksizes=[4, 4])
    inner = make(dagpb.encode(message, [dagpb.Link(leaf.cid, "", 4)] * 2), DAG_PB)
    root = make(dagpb.encode(message, [dagpb.Link(inner.cid, "", 8)]), DAG_PB)
    read = reader_of([(root.cid, root.data)])
    ask = ContentRequest(root.cid, (), trailing_slash=False, format="car")
    walk = CarWalk(OpenBlocks(read), where(read, root.cid, ()), ask, SharedMemory())
    assert finish(walk.measure(lambda _: 1, most_blocks=10, most_steps=100)) is None
    turn = take_turn(walk.blocks())
    assert [block.cid for block in turn.blocks] == [root.cid]
    assert str(inner.cid) in str(turn.error)


def test_a_node_that_cannot_be_read_ends_a_measuring_and_then_the_answer() -> None:
    broken = make(b"\xff", DAG_PB)
    root = make(dagpb.encode(None, [dagpb.Link(broken.cid, "", 1)]), DAG_PB)
    read = reader_of((block.cid, block.data) for block in (broken, root))
    ask = ContentRequest(root.cid, (), trailing_slash=False, format="car")
    walk = CarWalk(OpenBlocks(read), where(read, root.cid, ()), ask, SharedMemory())
    assert finish(walk.measure(lambda _: 1, most_blocks=10, most_steps=100)) is None
    turn = take_turn(walk.blocks())
    assert [block.cid for block in turn.blocks] == [root.cid, broken.cid]
    assert isinstance(turn.error, DagError)


def test_a_walk_that_a_thread_is_at_is_closed_without_it(kubo_store: BlockStore, roots: dict[str, Cid]) -> None:
    root = roots["directory"]
    ask = ContentRequest(root, (), trailing_slash=False, format="car")

    def read(cid: Cid) -> bytes | None:
        walk.close()
        return kubo_store.read(cid)

    walk = CarWalk(OpenBlocks(read), where(kubo_store.read, root, ()), ask, SharedMemory())
    work = walk.blocks()
    assert next(block for block in work if block is not None)[0] == root


def shard(links: list[dagpb.Link], fanout: int = 256) -> Block:
    message = unixfs.encode(unixfs.Kind.HAMT_SHARD, hash_type=hamt.HASH_TYPE, fanout=fanout)
    return make(dagpb.encode(message, links), DAG_PB)


def test_a_sharded_directory_that_is_broken_has_no_names() -> None:
    name = "name"
    slot = f"{hamt.step(hamt.digest(name), 0, 8):02X}"
    leaf = make(b"leaf")
    file = make(dagpb.encode(unixfs.encode(unixfs.Kind.FILE), []), DAG_PB)
    bare = make(dagpb.encode(None, []), DAG_PB)
    other = shard([], fanout=16)
    foreign = Cid(1, 0x0202, leaf.cid.multihash)
    cases = [
        shard([]),
        shard([dagpb.Link(leaf.cid, "xx", 1)]),
        shard([dagpb.Link(leaf.cid, slot, 1)]),
        shard([dagpb.Link(foreign, slot, 1)]),
        *(shard([dagpb.Link(below.cid, slot, 1)]) for below in (file, bare, other)),
    ]
    read = reader_of((block.cid, block.data) for block in (leaf, file, bare, other, *cases))
    for case in cases:
        with pytest.raises(RefusalError, match="has no 'name' in it") as caught:
            where(read, case.cid, (name,))
        assert caught.value.status == 404
    found = shard([dagpb.Link(leaf.cid, slot + name, 1)])
    assert where(reader_of([(found.cid, found.data), (leaf.cid, leaf.data)]), found.cid, (name,)).terminus == leaf.cid


def test_only_a_directory_is_looked_into() -> None:
    with pytest.raises(DagError, match="is not a directory"):
        finish(find(lambda _: pytest.fail("nothing is read"), make(b"leaf").cid, "a"))


def test_broken_dag_json_cannot_be_followed() -> None:
    for text in (b"{", b'{"a": 1} x', b'{"a": {"/": "no cid"}}'):
        block = make(text, DAG_JSON)
        with pytest.raises(RefusalError, match="cannot be followed"):
            where(reader_of([(block.cid, block.data)]), block.cid, ("a",))
