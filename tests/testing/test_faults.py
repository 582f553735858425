"""The script of a gateway, as text and as data; and the arithmetic of its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnc_async.errors import ArgumentError
from dnc_async.testing import Faults, Window
from dnc_async.testing.bucket import PIECE_BYTES, Bucket

EVERYTHING = (
    "rate=4000000,latency=0.05s,jitter=0.01s,flip=20,other=7,stall=300000,cut=400000,trickle=1000,slow=3s-9s,silent=4s-6s,straggle=200,busy=2s-5s,"
    "retry-after=2s,down=1.5s-,html=3,ignore-entity-bytes,no-car,seed=7"
)


def test_a_script_says_what_it_means() -> None:
    faults = Faults.parse("rate=4MB, latency=50ms,jitter=10ms,flip=20,stall=64KiB,busy=3s,down=2-5,html,no-car,seed=7")
    assert faults == Faults(
        rate=4e6,
        latency_s=0.05,
        jitter_s=0.01,
        flip=20,
        stall=65536,
        busy=Window(start_s=0, stop_s=3),
        down=Window(start_s=2, stop_s=5),
        html=1,
        no_car=True,
        seed=7,
    )


def test_a_script_of_everything_round_trips() -> None:
    assert str(Faults.parse(EVERYTHING)) == EVERYTHING


def test_no_faults_is_the_empty_text() -> None:
    assert str(Faults()) == ""
    assert Faults.parse("") == Faults.parse(" , ") == Faults()


@pytest.mark.parametrize(
    ("text", "rate"),
    [("4MB", 4e6), ("4MB/s", 4e6), ("4 mb", 4e6), ("1.5MiB", 1.5 * 2**20), ("100kB", 1e5), ("7", 7), ("2e6", 2e6)],
)
def test_sizes_are_read_with_their_units(text: str, rate: float) -> None:
    assert Faults.parse(f"rate={text}").rate == rate


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("3s", Window(start_s=0, stop_s=3)),
        ("2s-5s", Window(start_s=2, stop_s=5)),
        ("500ms-1s", Window(start_s=0.5, stop_s=1)),
        ("2s-", Window(start_s=2)),
    ],
)
def test_windows_are_read(text: str, window: Window) -> None:
    assert Faults.parse(f"busy={text}").busy == window


def test_dying_needs_no_end() -> None:
    assert Faults.parse("down=2s").down == Window(start_s=2)


def test_a_window_holds_its_start_and_not_its_end() -> None:
    window = Window(start_s=2, stop_s=5)
    assert [now in window for now in (1.9, 2, 4.9, 5)] == [False, True, True, False]
    assert 1e9 in Window(start_s=2)


def test_an_unknown_word_lists_the_known_ones() -> None:
    with pytest.raises(ArgumentError) as caught:
        Faults.parse("rate=1MB,speed=3")
    assert "unknown fault 'speed' in 'rate=1MB,speed=3'" in str(caught.value)
    for word in ("rate=4MB", "ignore-entity-bytes", "no-car", "down=2s-5s"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["rate", "rate=", "rate=fast", "rate=4XB", "latency=4MB", "flip=2.5", "busy=5s-2s", "busy=-", "no-car=perhaps"],
)
def test_a_value_that_cannot_be_read_shows_one_that_can(text: str) -> None:
    with pytest.raises(ArgumentError, match="cannot be read; write it as"):
        Faults.parse(text)


@pytest.mark.parametrize("text", ["rate=0", "flip=0", "html=-1", "trickle=0", "other=-3"])
def test_a_value_that_cannot_work_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="cannot work"):
        Faults.parse(text)
    with pytest.raises(ArgumentError, match="latency=-1 cannot work; it is negative"):
        Faults(latency_s=-1)


def test_a_word_may_come_only_once() -> None:
    with pytest.raises(ArgumentError, match="'rate' comes twice"):
        Faults.parse("rate=1,rate=2")


seconds = st.floats(0, 1e6, allow_nan=False)
counts = st.none() | st.integers(1, 10**6)
sizes = st.none() | st.integers(0, 10**12)
rates = st.none() | st.floats(1e-3, 1e12)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    start = draw(seconds)
    return Window(start_s=start, stop_s=draw(st.none() | st.floats(start, 2e6, exclude_min=True)))


@given(
    st.builds(
        Faults,
        rate=rates,
        latency_s=seconds,
        jitter_s=seconds,
        flip=counts,
        other=counts,
        stall=sizes,
        cut=sizes,
        trickle=rates,
        busy=st.none() | windows(),
        retry_after_s=seconds,
        down=st.none() | windows(),
        html=counts,
        ignore_entity_bytes=st.booleans(),
        no_car=st.booleans(),
        seed=st.integers(),
    )
)
def test_every_script_round_trips(faults: Faults) -> None:
    assert Faults.parse(str(faults)) == faults


def test_a_busy_line_keeps_its_rate_however_late_its_senders_wake() -> None:
    bucket = Bucket(1e6, burst_bytes=2 * PIECE_BYTES)
    now = 10.0
    ready = None
    for number in range(1000):
        due = bucket.reserve(PIECE_BYTES, now, ready_s=ready)
        now = max(now, due) + (0.004 if number % 3 else 0.03)  # it always wakes late
        ready = due
    assert due - 10 == pytest.approx(998 * PIECE_BYTES / 1e6)


def test_a_pause_earns_two_pieces_and_no_more() -> None:
    bucket = Bucket(1e6, burst_bytes=2 * PIECE_BYTES)
    due = [bucket.reserve(PIECE_BYTES, 5.0) for _ in range(4)]
    piece_s = PIECE_BYTES / 1e6
    assert due == pytest.approx([5 - piece_s, 5, 5 + piece_s, 5 + 2 * piece_s])
    assert bucket.reserve(PIECE_BYTES, 100.0) == pytest.approx(100 - piece_s)


def test_a_sender_that_slept_too_long_catches_up_for_a_moment_only() -> None:
    bucket = Bucket(1e6, burst_bytes=0)
    due = bucket.reserve(1000, 0.0)
    assert bucket.reserve(1000, 60.0, ready_s=due) == pytest.approx(59.9 + 0.001)
