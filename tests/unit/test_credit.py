"""What may be asked for before there is room: how much, and from when on."""

import pytest

from dnc_async.dataset.page import ChunkEntry, ChunkRow
from dnc_async.dataset.plan import PlannedBatch
from dnc_async.engine.chunks import Chunk
from dnc_async.engine.credit import BandwidthDelay, Credit, CreditLimit
from dnc_async.engine.pace import Pace
from dnc_async.engine.progress import Progress
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import GatewayStatistics

SIZE = 1000
CID = Cid.of(b"")
INF = float("inf")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def chunk(position: int, part: int = 0, *, proved: bool = True) -> Chunk:
    first = 2 * position
    batch = PlannedBatch(position=position, epoch=0, index=position, samples=8, chunks=range(first, first + 2))
    entry = ChunkEntry(
        index=first + part,
        row=ChunkRow(CID, SIZE),
        samples=4,
        directory=str(CID),
        directory_offset=0,
        directory_bytes=0,
    )
    return Chunk(batch, part, entry, proved=proved)


class Stream:
    """A consumer with a step of 10 s, which has just got its fourth batch; a window is 2,000 bytes, and takes 15 s."""

    def __init__(self, limit_bytes: int = 10**6) -> None:
        self.clock = Clock()
        self.pace = Pace(self.clock)
        self.progress = Progress(prefetch=None, places=0)
        self.limit = CreditLimit(limit_bytes)
        self.window = BandwidthDelay(2.0 * SIZE, 15.0)
        self.credit = self.another()
        for _ in range(4):
            self.clock.now += 10
            self.pace.handed_over(self.clock.now)
            self.progress.taken += 1

    def another(self) -> Credit:
        return Credit(self.limit, pace=self.pace, progress=self.progress, window=lambda: self.window, clock=self.clock)


def gateway(
    rate: float | None, latency_s: float | None, *, jitter_s: float = 0.0, blocks: int = 10, size: int = 1000
) -> GatewayStatistics:
    return GatewayStatistics(
        url="http://a",
        blocks=blocks,
        bytes=blocks * size,
        rejected=0,
        failures=0,
        in_flight=0,
        rate=rate,
        latency_s=latency_s,
        jitter_s=jitter_s,
    )


def test_the_window_of_gateways() -> None:
    """A round trip's bytes and a block of each that was measured, and how long those take at their rates together."""
    assert BandwidthDelay.of([]) == BandwidthDelay.of([gateway(None, None), gateway(5.0, None)]) == (0.0, 0.0, False)
    assert BandwidthDelay.of([gateway(5e4, 0.1), gateway(None, 0.1)]) == pytest.approx((6000.0, 0.12, False))
    assert BandwidthDelay.of([gateway(5e4, 0.1), gateway(1.5e5, 0.02, size=500)]) == pytest.approx(
        (9500.0, 0.0475, True)
    )
    assert BandwidthDelay.of([gateway(5e4, 0.1, blocks=0)]) == pytest.approx((5000.0, 0.1, True))


def test_the_window_is_longer_where_latencies_vary() -> None:
    """By so much that most answers have begun: else they would come late, each time, and the gateways stand idle."""
    assert BandwidthDelay.of([gateway(5e4, 0.1, jitter_s=0.02)]) == pytest.approx((8000.0, 0.16, True))


def test_the_next_batch_is_asked_for_a_window_before_its_rows_are_free() -> None:
    """The hand-over is due in 10 s: that is sooner than the window takes. The second one's comes later."""
    stream = Stream()
    assert stream.credit.grant(chunk(5, 0))
    assert stream.credit.grant(chunk(5, 1))
    assert stream.credit.opens_at(chunk(6)) == stream.credit.opens_at(None) == INF
    stream.window = BandwidthDelay(10.0 * SIZE, 15.0)
    refused = chunk(6)
    assert not stream.credit.grant(refused)
    assert stream.credit.opens_at(refused) == pytest.approx(stream.clock.now + 20 - 15)
    stream.clock.now += 5.1
    assert stream.credit.grant(refused)


def test_no_more_than_a_window_and_a_chunk() -> None:
    """And nothing where the gateways were not measured yet; what has got its rows counts no more."""
    stream = Stream()
    stream.window = BandwidthDelay()
    refused = chunk(5)
    assert not stream.credit.grant(refused)
    assert stream.credit.opens_at(refused) == INF
    stream.window = BandwidthDelay(1.5 * SIZE, 1000.0)
    chunks = [chunk(5, 0), chunk(5, 1)]
    assert [stream.credit.grant(each) for each in chunks] == [True, True]
    refused = chunk(6)
    assert not stream.credit.grant(refused)
    assert stream.credit.opens_at(refused) == INF
    assert repr(stream.credit) == "<Credit 2 chunks, 2000 bytes>"
    stream.credit.settle(chunks[0])
    stream.credit.settle(chunks[0])
    assert stream.limit.used_bytes == SIZE
    assert stream.credit.grant(chunk(6))
    stream.credit.close()
    assert stream.limit.used_bytes == 0
    assert stream.credit.peak_bytes == 2 * SIZE


def test_one_limit_for_several_streams() -> None:
    """What one has, the others have not."""
    stream = Stream(limit_bytes=2 * SIZE - 1)
    other = stream.another()
    assert stream.credit.grant(chunk(5))
    refused = chunk(5)
    assert not other.grant(refused)
    assert other.opens_at(refused) == INF
    assert repr(stream.limit) == "<CreditLimit 1000 of 1999 bytes>"
    stream.credit.close()
    assert other.grant(chunk(5))


def test_what_comes_in_time_anyway_gets_none() -> None:
    """It is needed in 50 s; with room in 10 s, it would be here long before."""
    stream = Stream()
    refused = chunk(8)
    assert not stream.credit.grant(refused)
    assert stream.credit.opens_at(refused) == INF
    assert stream.credit.grant(chunk(6)), "30 s is less than two windows after that"


def test_leaves_must_be_known() -> None:
    """Proofs are fetched before."""
    assert not Stream().credit.grant(chunk(5, proved=False))


def test_the_second_batch_is_asked_for_with_the_first() -> None:
    """Before anything was measured or proved, if all of it fits and somebody waits; nothing else is, and not again later."""
    stream = Stream(limit_bytes=2 * SIZE)
    stream.window = BandwidthDelay()
    stream.progress.taken = 0
    assert not stream.credit.may_begin_with(chunk(1).batch, 2 * SIZE), "nobody waits for a batch"
    stream.progress.wanted = 1
    assert stream.credit.may_begin_with(chunk(1).batch, 2 * SIZE)
    assert not stream.credit.may_begin_with(chunk(1).batch, 2 * SIZE + 1)
    assert not stream.credit.may_begin_with(chunk(2).batch, SIZE)
    assert stream.credit.grant(chunk(1, 0, proved=False))
    assert stream.credit.grant(chunk(1, 1, proved=False))
    assert not stream.credit.grant(chunk(2))
    stream.progress.taken = 1
    assert not stream.credit.may_begin_with(chunk(1).batch, 0)


def test_a_consumer_that_waits_moves_the_hand_over() -> None:
    """Its next batch is due now, the one behind it a step later, however long it waits."""
    stream = Stream()
    stream.window = BandwidthDelay(10.0 * SIZE, 6.0)
    stream.clock.now += 10
    stream.pace.asked()
    for seconds in (0, 7):
        stream.clock.now += seconds
        assert [stream.credit.grant(each) for each in (chunk(5, 0), chunk(5, 1))] == [True, True]
        refused = chunk(6)
        assert not stream.credit.grant(refused)
        assert stream.credit.opens_at(refused) == pytest.approx(stream.clock.now + 10 - 6)
        stream.credit.close()


def test_small_chunks_are_granted_many_at_a_time() -> None:
    """As many as a quarter of the limit holds, each with what its objects take; then none until a part of that is free."""
    each = SIZE + 4096
    stream = Stream(limit_bytes=4 * 20 * each)
    chunks = [chunk(position) for position in range(10, 40)]
    granted = [one for one in chunks if stream.credit.grant_small(one)]
    assert granted == chunks[:20]
    assert stream.limit.used_bytes == stream.credit.peak_bytes == 20 * each
    assert repr(stream.credit) == f"<Credit 20 chunks, {20 * each} bytes>"
    for one in granted[:2]:
        stream.credit.settle(one)
    assert not stream.credit.grant_small(chunks[20])
    stream.credit.settle(granted[2])
    assert [one for one in chunks[20:] if stream.credit.grant_small(one)] == chunks[20:23]
    stream.credit.close()
    assert stream.limit.used_bytes == 0


def test_small_chunks_share_the_limit() -> None:
    """What other streams have on credit is not theirs; and they take nothing from what large chunks of their stream may have."""
    stream = Stream(limit_bytes=20 * (SIZE + 4096))
    other = stream.another()
    assert all(other.grant_small(chunk(position)) for position in range(10, 15))
    assert not other.grant_small(chunk(15))
    assert stream.credit.grant_small(chunk(10))
    assert stream.credit.grant(chunk(5))
    stream.limit.used_bytes = stream.limit.limit_bytes
    assert not stream.credit.grant_small(chunk(11))
