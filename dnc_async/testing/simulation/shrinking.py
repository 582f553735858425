"""Shrinks a failing simulation: fewer gateways, consumers and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .simulation import Simulation

#: The most simulations that are tried.
_TRIES = 150


def shrink(
    failing: Simulation, problems_of: Callable[[Simulation], tuple[str, ...]]
) -> tuple[Simulation, tuple[str, ...]]:
    """A smaller simulation that still fails, perhaps otherwise; and its problems."""
    smallest, problems, left = failing, problems_of(failing), _TRIES
    while True:
        for smaller in _smaller(smallest):
            left -= 1
            if left < 0:
                return smallest, problems
            found = problems_of(smaller)
            if found:
                smallest, problems = smaller, found
                break
        else:
            return smallest, problems


def _smaller(plan: Simulation) -> Iterator[Simulation]:
    """Yield each simulation that has a little less in it."""
    for fewer in _fewer([str(script) for script in plan.consumers]):
        yield replace(plan, consumers=fewer)
    for fewer in _fewer([str(script) for script in plan.gateways]):
        yield replace(plan, gateways=fewer)
    for less in _less(str(plan.disk)):
        yield replace(plan, disk=less)
    if plan.crash_s is not None:
        yield replace(plan, crash_s=None)
    if plan.data.samples > 1:
        yield replace(plan, data=replace(plan.data, samples=max(1, plan.data.samples // 2)))


def _fewer(scripts: list[str]) -> Iterator[list[str]]:
    """Yield scripts without one of them, and with one word less in one of them."""
    if len(scripts) > 1:
        for place in range(len(scripts)):
            yield scripts[:place] + scripts[place + 1 :]
    for place, script in enumerate(scripts):
        for less in _less(script):
            yield [*scripts[:place], less, *scripts[place + 1 :]]


def _less(script: str) -> Iterator[str]:
    words = script.split(",") if script else []
    for place in range(len(words)):
        yield ",".join(words[:place] + words[place + 1 :])
