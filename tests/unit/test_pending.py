"""The queue of wanted blocks: how far it is looked into, and which wants are removed from it."""

from dnc_async.gateways.pending import Pending
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import make


def want(number: int, size_bytes: int) -> BlockWant:
    cid = make(number.to_bytes(4, "big")).cid
    return BlockWant(cid=cid, size_bytes=size_bytes, priority=(number,), accept=lambda _: None, done=lambda *_: None)


def queue_of(count: int, size_bytes: int) -> tuple[Pending, list[BlockWant]]:
    pending, wants = Pending(), [want(i, size_bytes) for i in range(count)]
    for each in wants:
        pending.add(each)
        pending.enqueue(each)
    return pending, wants


def test_as_far_as_a_choice_needs() -> None:
    """Many blocks where they are small, for runs of them; fewer where a few are a second's work."""
    for size_bytes, expected in ((2**20, 128), (2**16, 256), (1000, 4096)):
        pending, wants = queue_of(5000, size_bytes)
        assert list(pending.candidates(())) == wants[:expected]
        assert len(pending.queued()) == 5000


def test_settled_and_delivered_wants_are_removed() -> None:
    """And no others, also behind those that were looked at."""
    pending, wants = queue_of(1000, 2**20)
    for each in (wants[1], wants[700]):
        each.settle(None)
    being_delivered = {wants[2].cid.multihash}
    assert list(pending.candidates(being_delivered)) == [wants[0], *wants[3:128]]
    assert pending.queued() == [wants[0], *wants[3:700], *wants[701:]]


def test_candidates_are_found_lazily() -> None:
    """No want is looked at before it is asked for, in whatever way."""
    pending, wants = queue_of(1000, 2**20)
    for each in wants[:10]:
        each.settle(None)
    candidates = pending.candidates(())
    assert len(pending) == len(pending.queued()) + 10
    assert candidates[0] is wants[10]
    places = iter(candidates)
    assert next(places) is wants[10]
    assert candidates[1:4] == wants[11:14]
    assert [next(places), next(places)] == wants[11:13]
    assert (candidates[-1], candidates[117:], len(candidates)) == (wants[127], [wants[127]], 118)
    assert list(places) == wants[13:128]


def test_a_want_that_is_queued_again_stays() -> None:
    """Its block was to be delivered, and was not."""
    pending, wants = queue_of(3, 2**20)
    assert list(pending.candidates({wants[1].cid.multihash})) == [wants[0], wants[2]]
    pending.enqueue(wants[1])
    assert list(pending.candidates(())) == [wants[0], wants[1], wants[2]]


def test_requested_wants_are_removed() -> None:
    """Wherever in the queue they were, beside others of the same priority."""
    pending, wants = queue_of(300, 2**20)
    pending.dequeue({wants[0], wants[5]})
    pending.dequeue(set())
    assert pending.queued() == [*wants[1:5], *wants[6:]]
    twin = want(7, 2**20)
    pending.add(twin)
    pending.enqueue(twin)
    pending.dequeue({wants[7]})
    assert pending.queued() == [*wants[1:5], wants[6], twin, *wants[8:]]
