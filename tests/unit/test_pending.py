"""The line of wanted blocks: how far it is looked into, and who leaves it."""

from dnc_async.gateways.pending import Pending
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import make


def want(number: int, size_bytes: int) -> BlockWant:
    cid = make(number.to_bytes(4, "big")).cid
    return BlockWant(cid=cid, size_bytes=size_bytes, priority=(number,), accept=lambda _: None, done=lambda *_: None)


def line_of(count: int, size_bytes: int) -> tuple[Pending, list[BlockWant]]:
    pending, wants = Pending(), [want(i, size_bytes) for i in range(count)]
    for each in wants:
        pending.enter(each)
        pending.enqueue(each)
    return pending, wants


def test_as_far_as_a_choice_needs() -> None:
    """Many blocks where they are small, for runs of them; fewer where a few are a second's work."""
    for size_bytes, expected in ((2**20, 128), (2**16, 256), (1000, 4096)):
        pending, wants = line_of(5000, size_bytes)
        assert list(pending.head(())) == wants[:expected]
        assert len(pending.waiting()) == 5000


def test_who_is_settled_or_comes_leaves() -> None:
    """And nobody else, also behind what was looked at."""
    pending, wants = line_of(1000, 2**20)
    for each in (wants[1], wants[700]):
        each.settle(None)
    comes = {wants[2].cid.multihash}
    assert list(pending.head(comes)) == [wants[0], *wants[3:128]]
    assert pending.waiting() == [wants[0], *wants[3:700], *wants[701:]]


def test_found_as_they_are_looked_at() -> None:
    """Nobody is looked at before they are asked for, in whatever way."""
    pending, wants = line_of(1000, 2**20)
    for each in wants[:10]:
        each.settle(None)
    head = pending.head(())
    assert len(pending) == len(pending.waiting()) + 10
    assert head[0] is wants[10]
    places = iter(head)
    assert next(places) is wants[10]
    assert head[1:4] == wants[11:14]
    assert [next(places), next(places)] == wants[11:13]
    assert (head[-1], head[117:], len(head)) == (wants[127], [wants[127]], 118)
    assert list(places) == wants[13:128]


def test_who_comes_back_stays() -> None:
    """Its block was to be handed over, and was not."""
    pending, wants = line_of(3, 2**20)
    assert list(pending.head({wants[1].cid.multihash})) == [wants[0], wants[2]]
    pending.enqueue(wants[1])
    assert list(pending.head(())) == [wants[0], wants[1], wants[2]]


def test_who_was_asked_for_leaves() -> None:
    """Wherever in the line they stood, with those of the same urgency beside them."""
    pending, wants = line_of(300, 2**20)
    pending.asked({wants[0], wants[5]})
    pending.asked(set())
    assert pending.waiting() == [*wants[1:5], *wants[6:]]
    twin = want(7, 2**20)
    pending.enter(twin)
    pending.enqueue(twin)
    pending.asked({wants[7]})
    assert pending.waiting() == [*wants[1:5], wants[6], twin, *wants[8:]]
