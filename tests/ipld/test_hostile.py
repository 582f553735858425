"""Whatever the bytes are, the readers answer with their own errors, in bounded time and memory."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnc_async.errors import BlockMismatchError, CarError, CidError, DagError, DncError, IpldError
from dnc_async.ipld import dagpb, protobuf, unixfs, varint
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.car import CarReader, encode_header, encode_section
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.ipld.dagpb import Link
from dnc_async.ipld.directory import DirectoryReader
from dnc_async.ipld.plan import FilePlanner, payload
from dnc_async.ipld.unixfs import Kind

FOLDER = Path(__file__).parent.parent / "fixtures"
CARS = [path.read_bytes() for path in sorted(FOLDER.glob("*.car"))]
NODES = [block.data for car in CARS for block in CarReader().feed(car) if block.cid.codec == DAG_PB]
FUZZ = settings(max_examples=300, derandomize=True)


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A few bytes of a real one changed, removed or put in."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(data)


def tolerant(function: Callable[[], object]) -> None:
    """Run it; errors of the library are what is expected, any other is a failure of the test."""
    with contextlib.suppress(DncError):
        function()


def read_car(data: bytes) -> None:
    reader = CarReader()
    for start in range(0, len(data), 1000):
        reader.feed(data[start : start + 1000])
    reader.close()


def read_node(data: bytes) -> None:
    block = make(data, DAG_PB)
    tolerant(lambda: unixfs.decode(dagpb.decode(data).data))
    tolerant(lambda: FilePlanner(block.cid).receive(block))
    tolerant(lambda: DirectoryReader(block.cid).receive(block))
    tolerant(lambda: DirectoryReader(block.cid, name="a").receive(block))


@FUZZ
@given(st.binary(max_size=300) | mutated(CARS))
def test_cars(data: bytes) -> None:
    tolerant(lambda: read_car(data))


@FUZZ
@given(st.binary(max_size=200) | mutated(NODES))
def test_nodes(data: bytes) -> None:
    if len(data) < 2**20:
        read_node(data)


@FUZZ
@given(st.binary(max_size=60), st.text(max_size=80))
def test_cids(data: bytes, text: str) -> None:
    tolerant(lambda: Cid.decode(data))
    tolerant(lambda: Cid.read(data, 3 if len(data) > 3 else 0))
    tolerant(lambda: Cid.parse(text))
    tolerant(lambda: Cid.parse("b" + text))


@FUZZ
@given(mutated(NODES))
def test_fast_and_general_links_agree(data: bytes) -> None:
    """The short way through a usual link reads or refuses exactly what the general one does, or leaves it to that."""
    for number, _, value in _fields(data):
        if number == 2 and isinstance(value, bytes):
            usual = _link(dagpb._usual_link, value)
            if usual is not None:
                assert usual == _link(dagpb._any_link, value)


def _link(read: Callable[[bytes], object], value: bytes) -> object:
    try:
        return read(value)
    except DagError:
        return "refused"


def _fields(data: bytes) -> list[tuple[int, int, int | bytes]]:
    try:
        return list(protobuf.fields(data))
    except DagError:
        return []


BOMBS = {
    "a header of 2^62 bytes": varint.encode(2**62),
    "an endless length": b"\xff" * 30,
    "an empty header": b"\0",
    "a header over the limit": varint.encode(2**18 + 1) + bytes(100),
}


@pytest.mark.parametrize("name", BOMBS)
def test_length_bombs_in_a_header(name: str) -> None:
    with pytest.raises(CarError) as raised:
        CarReader().feed(BOMBS[name])
    assert raised.value.offset == 0


@pytest.mark.parametrize(
    "section",
    [varint.encode(2**62), b"\xff" * 30, b"\0", varint.encode(2**21 + 161), b"\xa4\x80\x00" + bytes(200), b"\xa4\x00"],
    ids=["2^62", "endless", "zero", "oversized", "three bytes for one", "two bytes for one"],
)
@pytest.mark.parametrize("padding", [0, 400])
def test_length_bombs_in_a_section(section: bytes, padding: int) -> None:
    """Refused at its offset, whether more bytes follow or not; the block before stays."""
    good = make(b"good")
    begin = encode_header([good.cid]) + encode_section(good)
    reader = CarReader()
    assert reader.feed(begin + section + bytes(padding)) == [good]
    with pytest.raises(CarError) as raised:
        reader.feed(bytes(200))
    assert raised.value.offset == len(begin)


@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_nested_header(depth: int) -> None:
    """A header of lists in lists is no CAR, and nothing worse."""
    with pytest.raises(CarError, match="not a CAR"):
        CarReader().feed(varint.encode(depth) + b"\x81" * depth)


def test_largest_block() -> None:
    """2 MiB pass, a byte more does not; in one piece and in many."""
    block = make(bytes(2**21))
    car = encode_header([block.cid]) + encode_section(block)
    for size in (len(car), 4096):
        reader, found = CarReader(), []
        for start in range(0, len(car), size):
            found += reader.feed(car[start : start + size])
        reader.close()
        assert found == [block]
    with pytest.raises(DagError):
        make(bytes(2**21 + 1))


def node(kind: Kind, links: list[Link], **fields: object) -> Block:
    return make(dagpb.encode(unixfs.encode(kind, **fields), links), DAG_PB)  # type: ignore[arg-type]


def plan(root: Block, *more: Block) -> FilePlanner:
    blocks = {block.cid.multihash: block for block in (root, *more)}
    planner = FilePlanner(root.cid)
    while wanted := planner.wanted():
        for cid in wanted:
            planner.receive(blocks[cid.multihash])
    return planner


def test_data_on_inner_nodes_comes_before_the_children() -> None:
    """No writer makes such files any more, and readers must read them."""
    leaves = [make(b"B" * 5), make(b"D" * 7)]
    inner = node(Kind.FILE, [Link(leaves[1].cid, "", 7)], data=b"C" * 3, filesize=10, blocksizes=[7])
    links = [Link(leaves[0].cid, "", 5), Link(inner.cid, "", 10)]
    root = node(Kind.FILE, links, data=b"A" * 2, filesize=17, blocksizes=[5, 10])
    planner = plan(root, inner)
    blocks = {leaf.cid.multihash: leaf for leaf in leaves}
    parts = [x.inline if x.inline is not None else payload(x, blocks[x.cid.multihash]) for x in planner.leaves]
    assert b"".join(parts) == b"AABBBBBCCCDDDDDDD"
    assert [leaf.offset for leaf in planner.leaves] == [0, 2, 7, 10]
    assert planner.size == 17


LEAF = make(b"12345")
LINK = Link(LEAF.cid, "", 5)
REFUSED = {
    "fewer sizes than links": node(Kind.FILE, [LINK], filesize=5),
    "more sizes than links": node(Kind.FILE, [LINK], filesize=10, blocksizes=[5, 5]),
    "another file size": node(Kind.FILE, [LINK], filesize=6, blocksizes=[5]),
    "a directory": node(Kind.DIRECTORY, [LINK]),
    "a symlink": node(Kind.SYMLINK, [], data=b"/etc/passwd"),
    "no data": make(dagpb.encode(None, [LINK]), DAG_PB),
    "an odd child": node(Kind.FILE, [Link(Cid.of(b"{}", 0x71), "", 5)], filesize=5, blocksizes=[5]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_the_specification_refuses(name: str) -> None:
    with pytest.raises(DagError):
        plan(REFUSED[name])


def test_leaf_of_another_size() -> None:
    root = node(Kind.FILE, [LINK], filesize=6, blocksizes=[6])
    with pytest.raises(DagError, match="has 5 bytes, its parent says 6"):
        payload(plan(root).leaves[0], LEAF)


def test_depth_bomb() -> None:
    """A chain of a hundred nodes ends at the limit."""
    block, chain = node(Kind.FILE, [LINK], filesize=5, blocksizes=[5]), []
    for _ in range(100):
        chain.append(block)
        block = node(Kind.FILE, [Link(block.cid, "", 5)], filesize=5, blocksizes=[5])
    with pytest.raises(DagError, match="nested more than"):
        plan(block, *chain)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_names_that_leave_a_folder(name: str) -> None:
    block = node(Kind.DIRECTORY, [Link(LEAF.cid, name, 5)])
    with pytest.raises(DagError, match="may not be named"):
        DirectoryReader(block.cid).receive(block)
    with pytest.raises(DagError):
        DirectoryReader(block.cid, name=name)


def test_first_of_duplicate_names() -> None:
    other = make(b"other")
    block = node(Kind.DIRECTORY, [Link(LEAF.cid, "a", 5), Link(other.cid, "a", 5)])
    reader = DirectoryReader(block.cid)
    reader.receive(block)
    assert [(entry.name, entry.cid) for entry in reader.entries] == [("a", LEAF.cid)]


@pytest.mark.parametrize("fanout", [0, 4, 7, 12, 2048, 2**40])
def test_fanouts_that_nobody_makes(fanout: int) -> None:
    block = node(Kind.HAMT_SHARD, [Link(LEAF.cid, "00a", 5)], fanout=fanout, hash_type=0x22)
    with pytest.raises(DagError, match="fanout"):
        DirectoryReader(block.cid).receive(block)


def test_both_orders_of_a_node_are_read_and_no_third() -> None:
    """IPIP-550: data before the links, or after them."""
    data = bytes.fromhex(
        "0a020801122b0a24015512202cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b98241201611805"
    )
    block = make(data, DAG_PB)
    assert str(block.cid) == "bafybeigw6ighk6rqx67yzxuufxkscogf3bxrhikml4yvvhe6tly63kwdmy"
    reader = DirectoryReader(block.cid)
    reader.receive(block)
    assert [entry.name for entry in reader.entries] == ["a"]
    link = data[4:]
    assert len(dagpb.decode(link + link + data[:4]).links) == 2
    with pytest.raises(DagError, match="between its links"):
        dagpb.decode(link + data[:4] + link)


@pytest.mark.parametrize("name", ["sha2-256", "sha2-512", "blake2b-256", "blake2b-160", "blake3"])
def test_hashes(name: str) -> None:
    """Each function, as text and bytes and back; a changed byte is found."""
    block = make(b"some bytes", RAW, name)
    assert Cid.parse(str(block.cid)) == block.cid == Cid.decode(block.cid.encode())
    reader = CarReader()
    found = reader.feed(encode_header([block.cid]) + encode_section(block))
    assert found == [block]
    section = bytearray(encode_section(block))
    section[-1] ^= 1
    with pytest.raises(BlockMismatchError):
        CarReader().feed(encode_header([block.cid]) + section)


def test_identity() -> None:
    """Up to 128 bytes live in the CID; more are refused."""
    cid = Cid.of(b"x" * 128, RAW, "identity")
    assert Cid.parse(str(cid)).inline == b"x" * 128
    with pytest.raises(CidError, match="at most 128"):
        Cid.of(b"x" * 129, RAW, "identity")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x01\x55\x11\x14" + bytes(20), "sha1"),
        (b"\x01\x55\xd5\x01\x10" + bytes(16), "md5"),
        (b"\x01\x78\x12\x20" + bytes(32), "git-raw"),
        (b"\x02\x55\x12\x20" + bytes(32), "version 2"),
        (b"\x01\x55\x12\x1f" + bytes(31), "expected 32"),
        (b"\x01\x55\x12\x20" + bytes(31), "31 are there"),
        (b"\x01\x55\x12\x20" + bytes(33), "follow the end"),
    ],
)
def test_refused_by_name(data: bytes, said: str) -> None:
    with pytest.raises(CidError, match=said):
        Cid.decode(data)


def test_every_error_is_ours() -> None:
    """What the tests above accept is one family."""
    for kind in (CarError, CidError, DagError, BlockMismatchError):
        assert issubclass(kind, IpldError)
    assert json.loads((FOLDER / "index.json").read_text())["fixtures"]
