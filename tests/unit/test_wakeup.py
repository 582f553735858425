"""The bell by which the engine hears of its consumer: who sends the byte, and in which order it is heard."""

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from dnc_async.engine.wakeup import Wakeup

from ..conftest import PATIENCE_S

HERE, BELL = "the consumer", "the bell"


class Engine:
    """Notes who wakes it, and does what it was told only when it is asked to."""

    def __init__(self) -> None:
        self.woken: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.waking: list[Callable[[], None]] = []
        self.now = 0.0
        self.delay_s = 0.0
        self.wakeup = Wakeup(self.post, self.clock)
        self.heard: list[int] = []
        self._others = set(threading.enumerate())

    def threads(self) -> set[threading.Thread]:
        """The living ones that were not there before."""
        return set(threading.enumerate()) - self._others

    def clock(self) -> float:
        if threading.current_thread() is not threading.main_thread():
            self.now += self.delay_s  # until that thread got the lock
        return self.now

    def post(self, call: Callable[[], None]) -> None:
        self.waking.append(call)
        self.woken.put(HERE if threading.current_thread() is threading.main_thread() else BELL)

    def call_soon(self, number: int = 0, *, at_once: bool = False, answers: bool = True) -> str:
        """Returns who woke the engine, which then does what it was told."""
        self.wakeup.call_soon(lambda: self.heard.append(number), at_once=at_once)
        woken = self.woken.get(timeout=PATIENCE_S)
        if answers:
            self.waking.pop()()
        return woken


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    made.wakeup.start()
    yield made
    assert any(thread.name == "dnc_async bell" for thread in made.threads())
    made.wakeup.end()
    made.wakeup.join(PATIENCE_S)
    assert not made.threads()


def test_the_consumer_goes_on(engine: Engine) -> None:
    """Another thread wakes the engine; a consumer that waits does it itself."""
    assert [engine.call_soon(), engine.call_soon(), engine.call_soon(at_once=True)] == [BELL, BELL, HERE]
    assert repr(engine.wakeup) == "<Wakeup rung 2 times>"


def test_in_order(engine: Engine) -> None:
    """Whichever wake comes first."""
    assert engine.call_soon(0, answers=False) == BELL
    assert engine.call_soon(1, at_once=True, answers=False) == HERE
    engine.waking[1]()
    assert engine.heard == [0, 1]
    engine.waking[0]()
    assert engine.heard == [0, 1]


def test_rung_once(engine: Engine) -> None:
    """What is told before the engine answers needs no second ring, and what is told afterwards does."""
    assert engine.call_soon(0, answers=False) == BELL
    for number in (1, 2):
        engine.wakeup.call_soon(lambda number=number: engine.heard.append(number))  # type: ignore[misc]
    assert engine.woken.empty()
    engine.waking.pop()()
    assert engine.heard == [0, 1, 2]
    assert engine.call_soon(3) == BELL
    assert engine.heard == [0, 1, 2, 3]


def test_a_consumer_that_holds_the_lock(engine: Engine) -> None:
    """It wakes the engine itself, and now and then it is tried whether that is still better."""
    engine.delay_s = 0.005
    assert engine.call_soon() == BELL
    assert "late" in repr(engine.wakeup)
    assert [engine.call_soon() for _ in range(15)] == [HERE] * 14 + [BELL]
    assert [engine.call_soon() for _ in range(16)] == [HERE] * 15 + [BELL]
    engine.delay_s = 0.0
    assert [engine.call_soon() for _ in range(16)] == [HERE] * 15 + [BELL]
    assert [engine.call_soon() for _ in range(4)] == [BELL] * 4


def test_a_consumer_that_waits_for_each_batch(engine: Engine) -> None:
    """The bell is tried again all the same."""
    engine.delay_s = 0.005
    assert engine.call_soon() == BELL
    engine.delay_s = 0.0
    rung = [(engine.call_soon(), engine.call_soon(at_once=True)) for _ in range(16)]
    assert rung == [(HERE, HERE)] * 14 + [(BELL, HERE)] * 2


def test_it_never_began() -> None:
    """As where no thread could be started: nobody waits for it."""
    Engine().wakeup.join(PATIENCE_S)
