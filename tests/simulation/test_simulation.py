"""The simulation itself: the same on every machine, and it finds what is wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dnc_async.config import FetchSettings
from dnc_async.errors import ArgumentError, ChunkUnavailableError
from dnc_async.testing import ConsumerScript, DatasetScript, DiskFaults, Simulation

SMALL = DatasetScript(samples=60, batch_size=6, row_bytes=1000)
#: Two gateways with faults, a disk that is slow and lies, and consumers that leave and come back.
BUSY = Simulation(
    seed=1,
    gateways=[
        "rate=1MB,latency=50ms,flip=5,straggle=7",
        "rate=200kB,latency=5ms,cut=3000,down=0.3s-0.6s",
        "latency=100ms",
    ],
    disk="rate=5MB,flip=3,full=0.2s-0.4s",
    consumers=[
        "step=20ms,break=2,back=1s",
        "step=4ms,cancel=3,moment=10ms,back=500ms",
        "transform=30ms,workers=2,epochs=2",
    ],
    data=SMALL,
    budget_bytes=30_000,
)
#: What happens in it, on every Python and every machine.
BUSY_DIGEST = "3bcb4c0c6e1cbe38aa7fabc37bf184c0b094e8827df10630dab36c932ae17a74"


def test_the_same_everywhere() -> None:
    """Twice in one process, in another, and on every Python: one log."""
    run = BUSY.run()
    assert run.problems == ()
    assert BUSY.run().log == run.log
    code = (
        "from dnc_async.config import FetchSettings\n"
        "from dnc_async.testing import DatasetScript, Simulation\n"
        f"print({BUSY}.run().digest)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.digest == other.stdout.strip() == BUSY_DIGEST


def test_what_it_tells() -> None:
    """A run says how much time it stood for, what went wrong by its scripts, and that nothing else did."""
    run = BUSY.run()
    assert run.simulated_s > 1
    assert run.faults["flip"]
    assert run.faults["cancelled"] == 1
    assert [consumer.is_complete for consumer in run.consumers] == [True, True, True]
    assert repr(run).endswith("faults: all promises kept>")
    names = {"Simulation": Simulation, "DatasetScript": DatasetScript, "FetchSettings": FetchSettings}
    assert eval(str(BUSY), names) == BUSY  # noqa: S307 - what it prints is what makes it again


def test_reads_beside_a_stream() -> None:
    """Ranges of a file come right, over the same gateways as the batches."""
    run = Simulation(gateways=["flip=3", "latency=20ms"], consumers=["", "reads=3"], data=SMALL).run()
    assert run.problems == ()
    assert sum(line.split()[1] == "read" for line in run.log) == 3


def test_nobody_serves_it() -> None:
    """The stream ends with an error that names each gateway, and that is no broken promise."""
    run = Simulation(gateways=["flip=1", "html=1"], data=SMALL).run()
    assert run.problems == ()
    (consumer,) = run.consumers
    assert isinstance(consumer.error, ChunkUnavailableError)


def test_scripts_read_back() -> None:
    """Text and data are the same."""
    for kind, text in (
        (DiskFaults, "capacity=8000000,full=2s-5s,rate=4000000,write-error=20,read-error=3,flip=2,tidy=1s,files=4"),
        (ConsumerScript, "step=0.1s,starts=1s,break=3,cancel=2,moment=0.5s,back=5s,epochs=2,drop-last,workers=2"),
    ):
        assert str(kind.parse(text)) == text
        with pytest.raises(ArgumentError, match="nonsense"):
            kind.parse("nonsense=1")


def test_an_outage_costs_little_more_than_itself() -> None:
    """The only gateway is away for 20 s: the stream goes on within seconds of its return."""
    run = Simulation(gateways=["rate=20kB,down=1s-21s"], data=SMALL, budget_bytes=30_000).run()
    assert run.problems == ()
    assert run.consumers[0].is_complete
    calm = Simulation(gateways=["rate=20kB"], data=SMALL, budget_bytes=30_000).run()
    assert run.simulated_s < calm.simulated_s + 20.0 + 5.0


@pytest.mark.parametrize("script", ["drip=3", "drip=3,no-car", "trickle=1kB", "miss=3", "miss=1", "stall=300"])
def test_beside_an_honest_gateway_others_cost_little(script: str) -> None:
    """Blocks that drip, are not found or do not end: 1.5 times the honest gateway's own time, and 3 s."""
    data = DatasetScript(samples=400, batch_size=40, row_bytes=1000)
    honest = "rate=200kB,latency=20ms"
    alone = Simulation(gateways=[honest], data=data, budget_bytes=200_000).run()
    run = Simulation(gateways=[f"rate=200kB,{script}", honest], data=data, budget_bytes=200_000).run()
    assert run.problems == ()
    assert run.simulated_s <= 1.5 * alone.simulated_s + 3.0
