"""The one condition that tasks wait on."""

import asyncio

from dnc_async.condition import Condition


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_who_wait_look_again() -> None:
    """At each change, and each goes on when what it waits for is so."""
    condition, count, passed = Condition(), 0, []

    async def wait(least: int) -> None:
        await condition.until(lambda: count >= least)
        passed.append(least)

    async with asyncio.TaskGroup() as tasks:
        for least in (0, 1, 2):
            tasks.create_task(wait(least))
        await turns()
        assert passed == [0]
        assert repr(condition) == "<Condition changed 0 times, 2 tasks wait>"
        for count in (1, 2):
            condition.notify_all()
            await turns()
            assert passed == list(range(count + 1))


async def test_what_is_so_is_not_waited_for() -> None:
    """No turn of the loop is taken, and nobody need tell."""
    condition = Condition()
    waiting = condition.until(lambda: True)
    try:
        waiting.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


async def test_a_change_while_nobody_waits() -> None:
    """It counts for who read the count before."""
    condition = Condition()
    seen = condition.changes
    condition.notify_all()
    await condition.past(seen)
    waiting = asyncio.create_task(condition.past(condition.changes))
    await turns()
    assert not waiting.done()
    condition.notify_all()
    await waiting


async def test_who_is_cancelled_leaves_the_others() -> None:
    """One that gives up takes nothing from those who wait on."""
    condition = Condition()
    first, second = (asyncio.create_task(condition.past(0)) for _ in range(2))
    await turns()
    first.cancel()
    condition.notify_all()
    await second
    await asyncio.wait([first])
    assert first.cancelled()
