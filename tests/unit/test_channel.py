"""Messages between two processes of ours: whole, in order, and the receiver's own."""

import contextlib
import os
import resource
import sys

import numpy as np
import pytest

from dnc_async.errors import BudgetTooSmallError, CarError, ChunkUnavailableError, GatewayBusyError, TransformError

if sys.platform != "linux":
    pytest.skip("the channel passes anonymous memory, on Linux alone", allow_module_level=True)

import socket

from dnc_async.engine.process.channel import Channel, Packed
from dnc_async.engine.process.messages import Failure
from dnc_async.errors import EngineError


@pytest.fixture
def ends():
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    yield ours, other
    ours.close()
    other.close()


def test_messages_come_whole_and_in_order(ends):
    """Whatever their size is, and only when they are there."""
    ours, other = ends
    with pytest.raises(BlockingIOError):
        other.receive(wait=False)
    sent = [
        None,
        "x" * 100,
        b"y" * 10**6,
        {"a": np.arange(10)},
        [np.arange(10**5), np.zeros((0, 3)), np.ones((3, 4), order="F")],
    ]
    for message in sent:
        ours.send(message)
    for message in sent:
        received, descriptors = other.receive(wait=True)
        assert descriptors == []
        np.testing.assert_equal(received, message)


@pytest.mark.parametrize("size", [10, 10**6])
def test_arrays_are_the_receivers_own(ends, size):
    """They can be written to, aligned, and what is written is not the sender's to see."""
    ours, other = ends
    array = np.zeros(size, "f8")
    ours.send([b"shifts", array])
    (_, received), _ = other.receive(wait=True)
    received += 1
    assert received.flags.aligned
    assert not array.any()


def test_a_fork_has_its_own(ends):
    """What a forked child writes into a batch is not its parent's, as with any other memory."""
    ours, other = ends
    ours.send(np.zeros(10**6))
    array, _ = other.receive(wait=True)
    child = os.fork()
    if not child:
        array += 1
        os._exit(0)
    os.waitpid(child, 0)
    assert not array.any()


def test_no_descriptor_is_left(ends):
    """Neither by messages that were sent, nor by those that were given up, nor by many that are kept."""
    ours, other = ends
    before = len(os.listdir("/proc/self/fd"))
    kept = []
    for _ in range(300):
        Packed(np.zeros(10**5)).close()
        ours.send(np.zeros(10**5))
        kept.append(other.receive(wait=True)[0])
    assert len(os.listdir("/proc/self/fd")) <= before + 64
    assert sum(each.nbytes for each in kept) == 300 * 8 * 10**5


def test_descriptors_travel(ends):
    """As copies that are the receiver's, behind the memory of a large message."""
    ours, other = ends
    left, right = socket.socketpair()
    with left, right:
        ours.send(b"x" * 10**6, descriptors=[left.fileno()])
        message, (descriptor,) = other.receive(wait=True)
        assert len(message) == 10**6
        with socket.socket(fileno=descriptor) as copy:
            copy.sendall(b"hello")
        assert right.recv(10) == b"hello"


def test_the_other_end_is_gone(ends):
    """What it had sent still comes; then it is said."""
    ours, other = ends
    ours.send("last words")
    ours.close()
    assert other.receive(wait=True)[0] == "last words"
    with pytest.raises(EOFError):
        other.receive(wait=True)
    with pytest.raises(OSError, match="Broken pipe"):
        other.send("anybody?")


def test_a_full_channel_is_tried_again(ends):
    """What would have to wait says so, and is not lost."""
    ours, other = ends
    sent = 0
    packed = Packed(0)
    with pytest.raises(BlockingIOError):  # noqa: PT012 - which of them it is, the system decides
        while True:
            packed = Packed(sent)
            ours.send_packed(packed, wait=False)
            sent += 1
    assert [other.receive(wait=True)[0] for _ in range(sent)] == list(range(sent))
    ours.send_packed(packed, wait=False)
    assert other.receive(wait=True)[0] == sent


class AwkwardError(Exception):
    """Can be pickled, and not be made again."""

    def __init__(self, message, *, more):
        super().__init__(message + more)


@pytest.mark.parametrize(
    "error",
    [
        GatewayBusyError("busy", gateway="http://one", cid="bafy", retry_after_s=3.0),
        ChunkUnavailableError("nobody", [GatewayBusyError("busy", gateway="http://one"), ValueError("2")]),
        TransformError("failed", position=3, index=1),
        BudgetTooSmallError("small", smallest_bytes=7),
        CarError("bad", offset=9),
    ],
)
def test_errors_come_over(ends, error):
    """With their type, text, parts and cause."""
    ours, other = ends
    error.__cause__ = KeyError("why")
    ours.send(Failure.of(error))
    came = other.receive(wait=True)[0].revived()
    assert (type(came), str(came)) == (type(error), str(error))
    assert repr(vars(came)) == repr(vars(error))
    assert isinstance(came.__cause__, KeyError)
    assert "why" in came.__cause__.__notes__[0]


def test_errors_that_cannot(ends):
    """Go as text."""
    ours, other = ends
    error = AwkwardError("this", more=" and that")
    error.__cause__ = AwkwardError("because", more=" of this")
    ours.send(Failure.of(error))
    came = other.receive(wait=True)[0].revived()
    assert str(came) == "AwkwardError: this and that"
    assert str(came.__cause__) == "AwkwardError: because of this"


@pytest.mark.parametrize("words", [b"", b"shifts", b"shifts by more"])
def test_small_arrays_are_aligned_and_no_larger_than_they_are(ends, words):
    """Many may be kept, and each is as good as if it were alone."""
    ours, other = ends
    kept = []
    for _ in range(100):
        ours.send([words, np.arange(9.0), np.arange(3, dtype="u1"), np.arange(5)])
        kept.append(other.receive(wait=True)[0])
    assert all(array.flags.aligned for message in kept for array in message[1:])
    assert all((message[1] == np.arange(9.0)).all() for message in kept)
    memory = kept[0][1]
    while isinstance(memory, np.ndarray) and memory.base is not None:
        memory = memory.base
    assert memoryview(memory).nbytes < 2000


def at_the_limit() -> contextlib.AbstractContextManager[object]:
    """Nothing more may be opened meanwhile."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    stack = contextlib.ExitStack()
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
    return stack


def test_a_message_comes_where_nothing_may_be_opened(ends):
    """One descriptor is kept for it, and then for the next; where nothing came in between, too."""
    ours, other = ends
    for _ in range(3):
        ours.send(b"x" * 10**6)
        with at_the_limit():
            assert other.receive(wait=True) == (b"x" * 10**6, [])
            with pytest.raises(BlockingIOError):
                other.receive(wait=False)


def test_a_message_that_is_lost_is_told(ends):
    """Where the receiver may open no more files than one, and two came: what came with it is gone, and it knows."""
    ours, other = ends
    ours.send(b"x" * 10**6, descriptors=[0])
    with at_the_limit(), pytest.raises(EngineError, match="ulimit"):
        other.receive(wait=True)
