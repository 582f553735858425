"""The line of wanted blocks: how far it is looked into, and who leaves it."""

from dnc_async.gateways.order import Order
from dnc_async.gateways.wanted import WantedBlock
from dnc_async.ipld.block import make


def want(number: int, size_bytes: int) -> WantedBlock:
    cid = make(number.to_bytes(4, "big")).cid
    return WantedBlock(cid=cid, size_bytes=size_bytes, priority=(number,), accept=lambda _: None, done=lambda *_: None)


def line_of(count: int, size_bytes: int) -> tuple[Order, list[WantedBlock]]:
    order, wants = Order(), [want(i, size_bytes) for i in range(count)]
    for each in wants:
        order.enter(each)
        order.line_up(each)
    return order, wants


def test_as_far_as_a_choice_needs() -> None:
    """Many blocks where they are small, for runs of them; fewer where a few are a second's work."""
    for size_bytes, expected in ((2**20, 128), (2**16, 256), (1000, 4096)):
        order, wants = line_of(5000, size_bytes)
        assert list(order.head(())) == wants[:expected]
        assert len(order.waiting()) == 5000


def test_who_is_settled_or_comes_leaves() -> None:
    """And nobody else, also behind what was looked at."""
    order, wants = line_of(1000, 2**20)
    for each in (wants[1], wants[700]):
        each.settle(None)
    comes = {wants[2].cid.multihash}
    assert list(order.head(comes)) == [wants[0], *wants[3:128]]
    assert order.waiting() == [wants[0], *wants[3:700], *wants[701:]]


def test_found_as_they_are_looked_at() -> None:
    """Nobody is looked at before they are asked for, in whatever way."""
    order, wants = line_of(1000, 2**20)
    for each in wants[:10]:
        each.settle(None)
    head = order.head(())
    assert len(order) == len(order.waiting()) + 10
    assert head[0] is wants[10]
    places = iter(head)
    assert next(places) is wants[10]
    assert head[1:4] == wants[11:14]
    assert [next(places), next(places)] == wants[11:13]
    assert (head[-1], head[117:], len(head)) == (wants[127], [wants[127]], 118)
    assert list(places) == wants[13:128]


def test_who_comes_back_stays() -> None:
    """Its block was to be handed over, and was not."""
    order, wants = line_of(3, 2**20)
    assert list(order.head({wants[1].cid.multihash})) == [wants[0], wants[2]]
    order.line_up(wants[1])
    assert list(order.head(())) == [wants[0], wants[1], wants[2]]


def test_who_was_asked_for_leaves() -> None:
    """Wherever in the line they stood, with those of the same urgency beside them."""
    order, wants = line_of(300, 2**20)
    order.asked({wants[0], wants[5]})
    order.asked(set())
    assert order.waiting() == [*wants[1:5], *wants[6:]]
    twin = want(7, 2**20)
    order.enter(twin)
    order.line_up(twin)
    order.asked({wants[7]})
    assert order.waiting() == [*wants[1:5], wants[6], twin, *wants[8:]]
