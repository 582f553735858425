"""Where a stream left off: states, checkpoints, further passes; after a kill at any moment, too."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async import sync
from dnc_async.engine.checkpoint import Checkpoint
from dnc_async.errors import ArgumentError, OutputError, StreamClosedError

from .conftest import BATCH, BATCHES, SAMPLES, Published, needs_linux, number

ALL = list(range(BATCHES))


def options(data: Published, **more: Any) -> dict[str, Any]:
    return {"store": data.store, "spool_dir": data.spool, "disk_budget": "1MB", **more}


async def taken(batches: dnc.engine.stream.BatchStream, count: int | None = None) -> list[int]:  # type: ignore[name-defined]
    found = list[int]()
    async for batch in batches:
        found.append(number(batch))
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize("engine", ["thread", pytest.param("process", marks=needs_linux)])
@pytest.mark.parametrize("count", [0, 1, 7, BATCHES - 1, BATCHES])
async def test_a_state_goes_on(read_only: Published, count: int, engine: str) -> None:
    """After any number of batches, through JSON, in a new stream with another budget."""
    first = dnc.stream(read_only.result, **options(read_only, engine=engine))
    if count:
        assert await taken(first, count) == ALL[:count]
    state = json.loads(json.dumps(first.state_dict()))
    await first.aclose()
    again = dnc.stream(read_only.result, **options(read_only, engine=engine, resume=state, disk_budget=0))
    assert again.state_dict() == state
    async with again:
        assert len(again) == BATCHES
        assert await taken(again) == ALL[count:]
        assert again.state_dict()["epoch"] == 1


async def test_epochs_within_one_stream(read_only: Published) -> None:
    """A state in the second of three epochs leaves the rest of it, and the third."""
    first = dnc.stream(read_only.result, **options(read_only, epochs=3))
    await taken(first, BATCHES + 5)
    state = first.state_dict()
    assert (state["epoch"], state["position"], state["first_epoch"]) == (1, 5 * BATCH, 0)
    await first.aclose()
    again = dnc.stream(read_only.result, **options(read_only, epochs=3, resume=state))
    assert await taken(again) == [*ALL[5:], *ALL]


async def test_a_further_loop_is_a_further_pass(read_only: Published) -> None:
    """Their numbers are counted, or set; a state between two passes, or within one, goes on there."""
    batches = dnc.stream(read_only.result, **options(read_only))
    for epoch in range(2):
        assert batches.state_dict()["epoch"] == epoch
        assert await taken(batches) == ALL
    batches.set_epoch(9)
    assert await taken(batches, 3) == ALL[:3]
    state = batches.state_dict()
    assert (state["epoch"], state["first_epoch"]) == (9, 9)
    assert await taken(batches) == ALL[3:]
    batches.load_state_dict(state)
    assert await taken(batches) == ALL[3:]
    await batches.aclose()
    with pytest.raises(StreamClosedError, match="make a new one"):
        await taken(batches)


async def test_a_state_is_loaded_before_the_first_batch(read_only: Published) -> None:
    """Later it would be too late; and an epoch's number may be set before, too."""
    batches = dnc.stream(read_only.result, **options(read_only))
    batches.set_epoch(4)
    state = batches.state_dict()
    assert state["epoch"] == 4
    batches.load_state_dict({**state, "position": 2 * BATCH})
    assert await taken(batches, 1) == [2]
    with pytest.raises(RuntimeError, match="before the first batch"):
        batches.load_state_dict(state)
    await batches.aclose()


def test_the_blocking_face(read_only: Published) -> None:
    """As the other one."""
    with sync.stream(read_only.result, **options(read_only)) as batches:
        assert [number(batch) for batch in itertools.islice(batches, 4)] == ALL[:4]
        state = batches.state_dict()
    with sync.stream(read_only.result, **options(read_only)) as batches:
        batches.load_state_dict(state)
        assert [number(batch) for batch in batches] == ALL[4:]
        batches.set_epoch(7)
        assert [number(batch) for batch in batches] == ALL
        assert batches.state_dict()["epoch"] == 8
    with pytest.raises(StreamClosedError):
        list(batches)


async def test_what_drop_last_omits(read_only: Published) -> None:
    """A state behind the last whole batch is at the epoch's end."""
    state = dnc.stream(read_only.result, **options(read_only)).state_dict() | {"position": SAMPLES}
    assert await taken(dnc.stream(read_only.result, **options(read_only, resume=state, drop_last=True))) == []


async def test_a_checkpoint(read_only: Published, tmp_path: Path) -> None:
    """The batch in hand is given again; a run that ended is complete, and one with more epochs goes on."""
    path = tmp_path / "run.json"
    first = dnc.stream(read_only.result, **options(read_only, checkpoint=path))
    assert await taken(first, 6) == ALL[:6]
    await first.aclose()
    assert json.loads(path.read_bytes())["position"] == 5 * BATCH
    assert await taken(dnc.stream(read_only.result, **options(read_only, checkpoint=path))) == ALL[5:]
    assert await taken(dnc.stream(read_only.result, **options(read_only, checkpoint=path))) == []
    assert await taken(dnc.stream(read_only.result, **options(read_only, checkpoint=path, epochs=2))) == ALL
    assert sorted(each.name for each in tmp_path.iterdir()) == [".run.json.lock", "run.json"]


async def test_one_checkpoint_for_one_stream(read_only: Published, tmp_path: Path) -> None:
    """Another one is refused while it is used, and may go on afterwards."""
    path = tmp_path / "run.json"
    first = dnc.stream(read_only.result, **options(read_only, checkpoint=path))
    await taken(first, 2)
    second = dnc.stream(read_only.result, **options(read_only, checkpoint=path))
    with pytest.raises(ArgumentError, match="another stream uses it"):
        await anext(second)
    await first.aclose()
    third = dnc.stream(read_only.result, **options(read_only, checkpoint=path))
    assert await taken(third, 1) == [1]
    await third.aclose()


GOOD: dict[str, Any] = {"first_epoch": 0, "epoch": 0, "position": 0}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"format": "other"}, "not the state of a stream"),
        ({"version": 9}, "has version 9, this library reads 1"),
        ({"dataset": "bafyother"}, "is of the dataset bafyother, and this is"),
        ({"order": {"shuffle": True}}, "of another order"),
        ({"epoch": -1}, "its 'epoch' is -1"),
        ({"epoch": True}, "its 'epoch' is True"),
        ({"position": "7"}, "its 'position' is 7"),
        ({"first_epoch": 3}, "before its first, 3"),
    ],
)
async def test_wrong_states(read_only: Published, tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    """Refused at once, in a checkpoint, too, with what is wrong."""
    good = dnc.stream(read_only.result, **options(read_only)).state_dict()
    with pytest.raises(ArgumentError, match=f"resume: .*{said}"):
        dnc.stream(read_only.result, **options(read_only, resume=good | wrong))
    path = tmp_path / "run.json"
    path.write_text(json.dumps(good | wrong))
    with pytest.raises(ArgumentError, match=f"checkpoint .*run.json: .*{said}"):
        dnc.stream(read_only.result, **options(read_only, checkpoint=path))


async def test_other_mistakes(read_only: Published, tmp_path: Path) -> None:
    """Each says which file, and what to do."""
    good = dnc.stream(read_only.result, **options(read_only)).state_dict()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"{")
    for more, said in (
        ({"resume": [1]}, "not the state of a stream"),
        ({"resume": good, "checkpoint": damaged}, "goes on from one of them"),
        ({"checkpoint": damaged}, "damaged, or no checkpoint; delete it"),
        ({"checkpoint": tmp_path / "no" / "run"}, "there is no folder"),
        ({"checkpoint": tmp_path}, "cannot be read"),
    ):
        with pytest.raises(ArgumentError, match=said):
            dnc.stream(read_only.result, **options(read_only, **more))
    within = dnc.stream(read_only.result, **options(read_only, resume=good | {"position": BATCH + 1}))
    with pytest.raises(ArgumentError, match="within a batch of 100"):
        await anext(within)


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at once, and not after the first batch."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ArgumentError, match="may not be written to"):
        Checkpoint(tmp_path / "run").read()


def test_a_disk_that_fails(tmp_path: Path) -> None:
    """The file is as it was, and no draft is left; what is written already is not written again."""
    now = 0.0
    checkpoint = Checkpoint(tmp_path / "folder" / "run", clock=lambda: now)
    with pytest.raises(OutputError, match="cannot be locked"):
        checkpoint.acquire()
    with pytest.raises(OutputError, match="cannot be written"):
        checkpoint.write({"position": 1})
    checkpoint.path.parent.mkdir()
    checkpoint.write({"position": 1})
    checkpoint.path.unlink()
    checkpoint.write({"position": 1})
    assert not checkpoint.path.exists()
    checkpoint.write({"position": 2})
    checkpoint.acquire()
    checkpoint.acquire()
    assert repr(checkpoint) == f"<Checkpoint {checkpoint.path}, in use>"
    child = os.fork()
    if not child:
        os._exit(0 if checkpoint._lock < 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    checkpoint.release()
    checkpoint.release()
    assert checkpoint.read() == {"position": 2}


#: Each after one to eleven batches of sixty.
KILLS = 5
CONSUMER = """
import sys
import dnc_async.sync as sync

cid, store, spool, checkpoint, log = sys.argv[1:]
with open(log, "a") as file:
    for batch in sync.stream(cid, store=store, spool_dir=spool, disk_budget="1MB", checkpoint=checkpoint, epochs=3):
        file.write(f"{int(batch['y'][0]) // len(batch['y'])}\\n")
        file.flush()
        print(flush=True)
"""


def test_killed_at_any_moment(read_only: Published, tmp_path: Path) -> None:
    """The joined order is the whole one, but for the batch in hand, which is given again; nothing else is left over."""
    log, checkpoint, dice = tmp_path / "log", tmp_path / "run.json", random.Random(0)
    command = [
        sys.executable,
        "-c",
        CONSUMER,
        read_only.result.cid,
        read_only.store,
        tmp_path / "spool",
        checkpoint,
        log,
    ]
    for _ in range(KILLS):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(dice.randrange(1, 12)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        with log.open("a") as file:
            file.write("killed\n")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    joined, parts = list[str](), log.read_text().split("killed\n")
    for part in parts:
        given = part.split()
        again = bool(joined and given and given[0] == joined[-1])
        joined += given[again:]
    assert [int(each) for each in joined] == ALL * 3
    left = [path for path in (tmp_path / "spool").rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []
