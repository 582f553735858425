"""Which blocks go together into which request."""

from __future__ import annotations

import pytest

from dnc_async.gateways.capabilities import Capabilities
from dnc_async.gateways.dag_range import CarQuery, DagRange, Scope
from dnc_async.gateways.scoreboard import Scoreboard
from dnc_async.gateways.spans import consecutive_wants, directory_query, file_query
from dnc_async.gateways.want import Want

KIB = 2**10
#: Where the file lies, from the root of its dataset.
VIA = "root/chunks/7"


def leaves(count: int, size: int, *, path: str = "file", first: int = 0) -> list[Want]:
    """Leaves that follow each other in one file."""
    total = 10**9
    starts = range(first, first + count * size, size)
    return [Want(size, within=(DagRange(path, start, start + size, total, via=VIA),)) for start in starts]


def measured(*, per_minute: float | None = None, can_car: bool = True, gateways: int = 1) -> Scoreboard:
    """Gateways of 16 MB/s, 50 ms away: a window of about 1 MB."""
    limits = (per_minute,) * gateways
    board = Scoreboard(
        gateways, max_requests=32, max_bytes=2**25, requests_per_minute=limits, can_car=(can_car,) * gateways
    )
    for score in board.scores:
        for i in range(8):
            score.sent(i, 160_000, float(i))
            score.first_byte(i, i + 0.05)
            score.delivered(i, 160_000, i + 0.06)
            score.verified(160_000)
    return board


def test_small_blocks_go_in_runs_and_large_ones_alone() -> None:
    """A run is 10 ms of the rate here, so that there are several requests to balance."""
    board, wants, now, small = measured(), leaves(400, 4 * KIB), 10.0, []
    while now < 10.05:  # before the first byte of the first one
        spans = board.assign(wants, now)
        for span in spans:
            board.sent(span, now)
        small += spans
        asked = {want for span in spans for want in span.wants}
        wants = [want for want in wants if want not in asked]
        now = min(board.next_change(now), 11.0)
    assert all(span.car is not None and 20 <= len(span.wants) <= 60 for span in small)
    assert 4 <= len(small) <= 7  # one each 10 ms: what is asked for later can still go to somebody else
    large = measured().assign(leaves(20, 512 * KIB), 10.0)
    assert large
    assert all(span.car is None and len(span.wants) == 1 for span in large)


def test_a_run_ends_where_its_file_does() -> None:
    """And where a block is missing in between, or somebody failed for one."""
    wants = [*leaves(3, KIB), *leaves(2, KIB, path="other"), *leaves(1, KIB, path="other", first=8 * KIB)]
    assert [len(consecutive_wants(wants, place, 10**6)) for place in (0, 3, 5)] == [3, 2, 1]
    assert len(consecutive_wants(wants, 0, 2 * KIB)) == 2
    assert len(consecutive_wants([Want(KIB), Want(KIB)], 0, 10**6)) == 1
    wants = leaves(40, 4 * KIB)
    wants[5].excluded.add(0)
    assert len(measured().assign(wants, 10.0)[0].wants) == 5


def test_a_car_is_asked_for_with_every_parameter() -> None:
    """Scope and range together, dups and order spelled out; the range is inclusive on the wire."""
    ask = file_query(leaves(3, 100, first=200))
    words = "?format=car&dag-scope=entity&entity-bytes=200:499&car-version=1&car-order=dfs&car-dups=y"
    assert ask.target(from_root=False) == f"/ipfs/file{words}"
    assert ask.target(from_root=True) == f"/ipfs/{VIA}{words}"
    whole = CarQuery("file", Scope.ENTITY, 0, 300, 300)
    assert "entity-bytes" not in whole.target(from_root=False)
    assert "dag-scope=all" in CarQuery("folder", Scope.ALL, 0, 300, 300).target(from_root=False)


def test_what_an_open_car_brings_is_not_asked_for_again() -> None:
    """It joins it, without a request, as long as it has not passed."""
    board = measured(per_minute=200.0)
    score, request = board.scores[0], object()
    score.opened_car(request, CarQuery("file", Scope.ENTITY, 0, 100 * KIB, 10**9))
    (span,) = board.assign(leaves(1, KIB, first=50 * KIB), 10.0)
    assert (span.joins, span.car) == (request, None)
    score.advanced_car(request, 60 * KIB)
    (span,) = board.assign(leaves(1, KIB, first=50 * KIB), 10.0)
    assert span.joins is None
    score.closed_car(request)
    (span,) = board.assign(leaves(1, KIB, first=70 * KIB), 10.0)
    assert span.joins is None


def test_scarce_requests_bring_files_and_directories() -> None:
    """A root brings its file, in a small directory everything; one near the directory's end only its own file."""

    def root(offset: int) -> Want:
        file = DagRange("file", 0, 200_000, 200_000)
        return Want(4096, within=(file, DagRange("folder", offset, offset + 200_000, 12_800_000, Scope.ALL)))

    board = measured(per_minute=200.0)
    (span,) = board.assign([root(0)], 10.0)
    assert span.car is not None
    assert (span.car.path, span.size_bytes) == ("folder", 12_800_000)
    (span,) = board.assign([root(12_000_000)], 10.0)
    assert span.car is not None
    assert (span.car.path, span.size_bytes) == ("file", 200_000)
    assert directory_query(root(0), 1_000_000) is None
    board.paused_groups = {None}
    assert board.assign([root(0)], 10.0) == []  # what came ahead is not yet wanted: no more of it
    assert len(board.assign(leaves(3, KIB), 10.0)) == 1  # but what is wanted is


def test_a_first_leaf_brings_its_directory_and_what_else_lies_there_waits_for_it() -> None:
    """Where a file's leaves are known without its root, the first of them stands for the file."""

    def leaf(start: int) -> Want:
        file = DagRange("file", start, start + 100_000, 200_000)
        return Want(100_000, within=(file, DagRange("folder", start, start + 100_000, 400_000, Scope.ALL)))

    wants = [leaf(0), leaf(100_000)]
    board = Scoreboard(1, max_requests=8, max_bytes=2**23, requests_per_minute=[200.0], can_car=[True])
    (span,) = board.assign(wants, 10.0)
    assert span.car is not None
    assert (span.car.path, span.wants) == ("folder", wants[:1])
    (span,) = board.assign(wants[1:], 10.0)
    assert span.car is None
    wants[0].sent_by = {"a CAR that has brought it, and is open"}
    (span,) = board.assign(wants[:1], 10.0)
    assert span.car is None


def test_a_files_root_brings_its_beginning_where_all_of_it_is_wanted() -> None:
    """Up to 1 MiB, so that the rest is spread; everything, where nobody is there to spread it over."""
    wants = [Want(4096, within=(DagRange("file", 0, 2**22, 2**22),), ahead=True)]
    (span,) = measured(gateways=2).assign(wants, 10.0)
    assert span.car is not None
    assert span.car.end == 2**20
    (span,) = measured().assign(wants, 10.0)
    assert span.car is not None
    assert span.car.is_whole
    (span,) = measured(can_car=False).assign(wants, 10.0)
    assert span.car is None


def test_what_was_refused_is_remembered() -> None:
    """No CAR of one file, no ranges, no CARs at all; one refusal of somebody who has sent CARs is an accident."""
    ask, whole = CarQuery("file", Scope.ENTITY, 100, 200, 300), CarQuery("other", Scope.ENTITY, 0, 300, 300)
    able = Capabilities(can_car=True)
    able.refused_path("file")
    assert not able.allows(ask)
    assert able.allows(whole)
    able.ignored_range()
    assert not able.allows(ask._replace(path="third"))
    assert able.allows(whole)
    able.sent_car()
    able.refused_car()
    assert able.can_car
    able.refused_car()
    assert not able.can_car
    fresh = Capabilities(can_car=True)
    fresh.refused_car()
    assert not fresh.can_car
    assert "raw blocks only" in repr(fresh)


@pytest.mark.parametrize("count", [1, 5])
def test_a_gateway_that_lacks_the_root_is_told_it(count: int) -> None:
    """Even a single leaf is asked for by a path from the root: many providers announce nothing else."""
    board = measured()
    wants = leaves(count, 512 * KIB)
    assert all(span.car is None for span in board.assign(wants, 10.0))
    board.capabilities[0].add_missing_root("root")
    spans = board.assign(wants, 10.0)
    assert spans
    assert all(span.car is not None and f"/ipfs/{VIA}?" in span.car.target(from_root=True) for span in spans)


def tiny(place: int, *, size: int = 500, files: int = 64, path: str = "folder") -> Want:
    """A file of one small block, with others like it in a directory."""
    file = DagRange(f"{path}/{place}", 0, size, size)
    return Want(size, within=(file, DagRange(path, place * size, (place + 1) * size, files * size, Scope.ALL)))


def test_tiny_blocks_come_with_their_directory() -> None:
    """All of it that is wanted is expected from one request, for each directory; what is not wanted yet comes along."""
    wants = [tiny(place) for place in range(20)] + [tiny(place, path="next") for place in range(3)]
    board, found = measured(), []
    for now in (10.0, 11.0):
        (span,) = board.assign(wants, now)
        board.sent(span, now)
        wants = [want for want in wants if want not in span.wants]
        found.append((span.car.path if span.car else "", len(span.wants)))
        assert span.size_bytes == 64 * 500
    assert found == [("folder", 20), ("next", 3)]


@pytest.mark.parametrize(
    "why",
    ["too large to be tiny", "a large directory", "its second half", "no CARs", "failed", "sent", "no space", "paused"],
)
def test_tiny_blocks_without_their_directory(why: str) -> None:
    """Where it would bring too much in vain, or not at all, a block is asked for alone."""
    board = measured(can_car=why != "no CARs")
    large = why == "too large to be tiny"
    want = tiny(40 if why == "its second half" else 0, size=20 * KIB if large else 500, files=4 if large else 64)
    if why == "a large directory":
        want = tiny(0, files=3000)
    if why == "failed":
        want.raw_only.add(0)
    if why == "sent":
        want.sent_by.add("a CAR that has brought it")
    board.may_read_ahead = why != "no space"
    board.paused_groups = {None} if why == "paused" else ()
    (span,) = board.assign([want], 10.0)
    assert (span.car, span.wants) == (None, [want])


def test_no_two_gateways_send_the_same_directory() -> None:
    """Tiny blocks wait for the gateway that is sending it, even if another one has nothing else to do."""
    board = measured(gateways=2)
    (span,) = board.assign([tiny(0)], 10.0)
    assert span.car is not None
    board.sent(span, 10.0)
    board.scores[span.gateway].opened_car("request", span.car)
    later = board.assign([tiny(place) for place in (1, 2)], 10.001)
    assert [(each.gateway, each.joins) for each in later] == [(span.gateway, "request")] * 2
    (other,) = board.assign([tiny(0, path="next")], 10.001)
    assert other.gateway != span.gateway
