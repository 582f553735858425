"""An engine that does not end what it was asked to end."""

import math

import pytest

from dnc_async.engine.process.end_watch import EndWatch, Measure


@pytest.fixture
def watch() -> EndWatch:
    return EndWatch(answer_s=3, end_s=10, terminate_s=2)


def test_one_that_is_not_there(watch: EndWatch) -> None:
    """It says nothing: it is told by a signal after a moment, and killed after another; each once."""
    assert watch.due_at() == math.inf
    watch.asked("a stream", 100)
    assert watch.look(102.9) is Measure.NOTHING
    assert watch.look(103) is Measure.TERMINATE
    assert watch.look(104.9) is Measure.NOTHING
    assert watch.due_at() == 105
    assert watch.look(105) is Measure.KILL
    assert watch.due_at() == math.inf
    assert watch.look(1000) is Measure.NOTHING


def test_one_that_takes_its_time(watch: EndWatch) -> None:
    """It said that it is there: it has the longer time, from the first question on."""
    watch.asked(1, 100)
    watch.answered()
    watch.asked(2, 105)
    assert watch.look(109.9) is Measure.NOTHING
    assert watch.look(110) is Measure.TERMINATE


def test_what_has_ended_is_waited_for_no_more(watch: EndWatch) -> None:
    """And the next question is a new one."""
    watch.asked(1, 100)
    watch.answered()
    watch.ended(1)
    assert watch.due_at() == math.inf
    assert watch.look(1000) is Measure.NOTHING
    watch.asked(2, 1000)
    assert watch.due_at() == 1003
