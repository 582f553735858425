"""The scenario of a seed: random gateways, faults, budgets and consumers."""

from __future__ import annotations

import random
from collections.abc import Callable

from dnc_async.config import FetchSettings

from .dataset import DatasetScript, published
from .simulation import Simulation


def scenario(seed: int) -> Simulation:
    """The simulation of a seed."""
    dice = random.Random(f"chaos {seed}")  # noqa: S311 - replayable, not secret
    data = _data(dice)
    consumers = [_consumer(dice) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
    gateways = [_gateway(dice) for _ in range(dice.choice((1, 2, 2, 3)))]
    if dice.random() < 0.6:
        gateways[dice.randrange(len(gateways))] = ",".join(_line(dice))
    unit = dice.choice((512, 512, 4096))
    return Simulation(
        seed=seed,
        gateways=gateways,
        disk=_disk(dice),
        consumers=consumers,
        data=data,
        budget_bytes=_budget(dice, data, unit, len(consumers)),
        unit_bytes=unit,
        crash_s=dice.choice((0.2, 1.0, 3.0)) if dice.random() < 0.06 else None,
        settings=FetchSettings(
            stall_timeout_s=dice.choice((1.0, 5.0)),
            patience_s=dice.choice((2.0, 20.0)),
            busy_patience_s=dice.choice((10.0, 60.0)),
            disk_retry_s=0.5,
            requests_per_gateway=dice.choice((2, 8, 32)),
            in_flight_bytes=dice.choice((2**18, 2**22, 2**25)),
            early_bytes=dice.choice((2**14, 2**23)),
            hold_s=dice.choice((0.1, 20.0)),
            hedge_share=dice.choice((0.05, 0.5)),
            workers=dice.choice((1, 4)),
        ),
    )


def _data(dice: random.Random) -> DatasetScript:
    row_bytes = dice.choice((20, 1000, 1000, 20_000))
    batch_size = dice.choice((1, 2, 7, 16, 50))
    most = max(1, min(40 * batch_size, 3_000_000 // row_bytes))
    return DatasetScript(
        samples=dice.choice((1, most // 3 + 1, most)),
        batch_size=batch_size,
        row_bytes=row_bytes,
        kind=dice.choice(("fixed", "fixed", "ragged")),
    )


def _line(dice: random.Random) -> list[str]:
    words = [f"latency={dice.choice(('0ms', '5ms', '50ms', '300ms'))}"]
    rate = dice.choice(("", "200kB", "1MB", "1MB", "4MB", "20MB"))
    if rate:
        words.append(f"rate={rate}")
    if dice.random() < 0.3:
        words.append("jitter=20ms")
    if dice.random() < 0.15:
        words.append("no-car")
    if dice.random() < 0.15:
        words.append("ignore-entity-bytes")
    return words


def _window(dice: random.Random) -> str:
    start = dice.choice((0, 0.3, 1, 2))
    return f"{start}s-{start + dice.choice((0.3, 1, 3, 10))}s"


def _gateway(dice: random.Random) -> str:
    faults: list[Callable[[], str]] = [
        lambda: f"flip={dice.choice((1, 2, 3, 10))}",
        lambda: f"other={dice.choice((2, 5))}",
        lambda: f"stall={dice.choice((0, 300, 3000, 60000))}",
        lambda: f"cut={dice.choice((0, 300, 3000, 60000))}",
        lambda: f"trickle={dice.choice(('1kB', '20kB'))}",
        lambda: f"slow={_window(dice)}",
        lambda: f"silent={_window(dice)}",
        lambda: f"straggle={dice.choice((2, 7))}",
        lambda: f"busy={_window(dice)},retry-after={dice.choice((1, 2, 30))}s",
        lambda: f"down={_window(dice)}",
        lambda: f"html={dice.choice((1, 3, 5))}",
        lambda: "cold",
        lambda: f"drip={dice.choice((2, 3, 7))}",
        lambda: f"miss={dice.choice((3, 7))}",
    ]
    chosen = dice.sample(faults, dice.choice((1, 1, 2, 3)))
    return ",".join([*_line(dice), *(fault() for fault in chosen)])


def _disk(dice: random.Random) -> str:
    faults: list[Callable[[], str]] = [
        lambda: f"full={_window(dice)}",
        lambda: f"rate={dice.choice(('300kB', '5MB'))}",
        lambda: f"read-error={dice.choice((2, 5))}",
        lambda: f"flip={dice.choice((2, 5))}",
        lambda: f"tidy={dice.choice((0.3, 1))}s",
        lambda: f"files={dice.choice((1, 3))}",
        lambda: f"capacity={dice.choice((80_000, 160_000))}",
    ]
    chosen = [] if dice.random() < 0.4 else dice.sample(faults, dice.choice((1, 2)))
    if dice.random() < 0.03:
        chosen.append(lambda: "write-error=7")
    return ",".join(fault() for fault in chosen)


def _consumer(dice: random.Random) -> str:
    if dice.random() < 0.08:
        return f"reads={dice.choice((1, 3))}"
    words = [f"step={dice.choice(('0ms', '0ms', '5ms', '60ms', '700ms'))}"]
    count = dice.choice((1, 2, 5))
    ways: list[list[str]] = [
        [],
        [],
        [f"break={count}"],
        [f"raise={count}"],
        [f"cancel={count}", f"moment={dice.choice((0, 1, 40, 400))}ms"],
        [f"close={count}"],
        [f"patience={dice.choice((1, 20, 300))}ms"],
    ]
    way = dice.choice(ways)
    words += way
    if way and dice.random() < 0.5:
        words.append(f"back={dice.choice((0, 0.5, 4))}s")
    for chance, word in (
        (0.2, f"starts={dice.choice((0.1, 1))}s"),
        (0.2, f"epochs={dice.choice((2, 3))}"),
        (0.15, f"prefetch={dice.choice((0, 1, 3))}"),
        (0.1, "drop-last"),
        (0.15, f"transform={dice.choice((1, 50))}ms,workers={dice.choice((0, 2))}"),
    ):
        if dice.random() < chance:
            words.append(word)
    return ",".join(words)


def _budget(dice: random.Random, data: DatasetScript, unit: int, streams: int) -> int:
    """A random budget: zero, what one chunk of each stream needs, or more."""
    blocks = -(-published(data).largest_chunk_bytes // unit) + 2
    floor = streams * blocks * unit
    return dice.choice((0, floor, floor, floor + unit, 2 * floor, 5 * floor, 1_000_000 + floor))
