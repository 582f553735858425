"""The report as a value: saved and read, rendered, drawn, and what it says would have been."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from dnc_async import Report, ReportError
from dnc_async.engine.ideal import Calls, GatewayLink, ideal_stream, window_bytes
from dnc_async.engine.report.page import page
from dnc_async.engine.report.picture import draw, encode
from dnc_async.engine.report.record import Gaps, RunSettings, TransformRun
from dnc_async.engine.timeline import Bin
from dnc_async.errors import ArgumentError, DncError
from dnc_async.telemetry import GatewayStatistics

BLOCK, BLOCKS, LEASE, FOLDER = 100_000, 5, 520_000, 65_536
LINKS = (GatewayLink(latency_s=0.05, rate=10e6), GatewayLink(latency_s=0.2, rate=4e6))


def gateway(url: str, link: GatewayLink, *, rejected: int = 0, jitter_s: float = 0.0) -> GatewayStatistics:
    return GatewayStatistics(
        url=url,
        blocks=100 - rejected,
        bytes=10_000_000,
        rejected=rejected,
        failures=0,
        in_flight=0,
        rate=link.rate,
        latency_s=link.latency_s,
        jitter_s=jitter_s,
    )


def report(
    steps: Sequence[float] = (0.03,) * 40, *, chunks_on_disk: int = 4, links: Sequence[GatewayLink] = LINKS
) -> Report:
    """A run of two chunks a batch, whose times are made up."""
    waited = 0.004
    bins, at = [], 0.5
    for number, step in enumerate(steps):
        at += step + waited
        cause = ("bandwidth", "fault of http://<b>")[number % 2]
        bins.append(Bin(batches=1, at_s=at, step_s=step, waited_s=waited, longest_s=waited, causes={cause: waited}))
    batches, total = len(steps) + 1, waited * len(steps)
    return Report(
        dataset="bafy/<script>",
        settings=RunSettings(
            epochs=1, drop_last=False, prefetch=None, folder_bytes=FOLDER, lease_bytes=LEASE, library_version="1.0"
        ),
        batches=batches,
        samples=batches * 64,
        chunks=batches * 2,
        blocks=batches * 2 * BLOCKS,
        first_batch_s=0.5,
        waited_s=total,
        elapsed_s=at,
        causes={"bandwidth": total / 2, "fault of http://<b>": total / 2},
        gaps=Gaps(p50_s=waited, p95_s=waited, p99_s=waited, max_s=waited),
        timeline=tuple(bins),
        order="ab" * 32,
        budget_bytes=FOLDER + chunks_on_disk * LEASE,
        peak_leased_bytes=LEASE,
        peak_disk_bytes=LEASE,
        peak_memory_bytes=None,
        fetched_bytes=batches * 2 * BLOCKS * BLOCK + 999,
        useful_bytes=batches * 2 * BLOCKS * BLOCK,
        hedged_bytes=0,
        blocks_verified=1,
        blocks_rejected=0,
        requests_failed=0,
        gateways=tuple(gateway(f"http://{number}/<i>", link) for number, link in enumerate(links)),
    )


def model(
    steps: Sequence[float], chunks_on_disk: int, links: Sequence[GatewayLink], calls: Calls | None = None
) -> float:
    """The ideal stream of the same run, straight from the model."""
    return ideal_stream(
        [[[BLOCK] * BLOCKS] * 2] * (len(steps) + 1),
        links=links,
        budget_bytes=chunks_on_disk * BLOCKS * BLOCK,
        steps_s=[*steps, 0.0],
        moves_early=True,
        window_bytes=window_bytes(links, BLOCK),
        calls=calls,
    ).idle_share


def test_saved_and_read(tmp_path: Path) -> None:
    """Nothing is lost, and what stood there is replaced; no other file stays."""
    run, path = report(), tmp_path / "run.json"
    path.write_text("old", encoding="utf-8")
    run.save(path)
    assert Report.load(path) == run == Report.from_dict(run.to_dict())
    assert json.loads(path.read_text())["idle_share"] == run.idle_share
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]
    with pytest.raises(ReportError, match="cannot be written"):
        run.save(tmp_path / "nowhere" / "run.json")
    with pytest.raises(ReportError, match="cannot be written"):
        run.save(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


def test_newer_files_are_read() -> None:
    """A name that this version does not know is left out."""
    run = report()
    assert Report.from_dict({**run.to_dict(), "news": 1}) == run


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"report_version": 2}, "report_version 1, got 2"),
        ({"batches": "many"}, "batches: expected a whole number of at least 0, got 'many'"),
        ({"batches": True}, "batches: expected a whole number"),
        ({"samples": -1}, "samples: expected a whole number of at least 0, got -1"),
        ({"waited_s": float("nan")}, "waited_s: expected a number of at least 0, got nan"),
        ({"dataset": None}, "dataset: expected str"),
        ({"causes": []}, "causes: expected an object"),
        ({"causes": {"x": "y"}}, "causes['x']"),
        ({"waited_s": 10**400}, "waited_s: expected at most 1e+18, got 1000"),
        ({"batches": 10**19}, "batches: expected at most 1e+18, got 1000"),
        ({"timeline": {}}, "timeline: expected a list"),
        ({"timeline": [{"batches": 1}]}, "timeline[0]: 'at_s' is missing"),
        ({"gateways": [7]}, "gateways[0]: expected an object, got 7"),
        ({"settings": "x" * 1000}, "x…"),
    ],
)
def test_bad_files(change: dict[str, object], culprit: str) -> None:
    """The place is named, and what was expected there."""
    with pytest.raises(ReportError, match=re.escape(culprit)):
        Report.from_dict({**report().to_dict(), **change})


@pytest.mark.parametrize("wire", [None, [], "text", {}])
def test_not_a_report(wire: object) -> None:
    with pytest.raises(ReportError, match="expected a gap report"):
        Report.from_dict(wire)


def test_text() -> None:
    """What matters is there, in a terminal's width but for long names."""
    text = str(report())
    for words in ("41 batches", "idle 11.8%", "p95 4.0 ms", "fault of http://<b>", "not known", "modelled, as it was"):
        assert words in text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_a_hint_where_the_threads_had_no_turn() -> None:
    """A fiftieth of the time is worth one; less, or a run that hardly waited, is not."""
    starved = replace(
        report(), first_batch_s=0.0, elapsed_s=100.0, waited_s=10.0, causes={"contention": 9.0, "bandwidth": 1.0}
    )
    assert "engine='process'" in str(starved)
    assert "engine=&#x27;process&#x27;" in starved._repr_html_()
    assert "engine=" not in str(replace(starved, causes={"contention": 1.0, "bandwidth": 9.0}))
    assert "engine=" not in str(replace(starved, waited_s=1.0, causes={"contention": 1.0}))
    short = replace(starved, elapsed_s=0.01, waited_s=0.009, causes={"contention": 0.005, "engine": 0.004})
    assert "hint" not in str(short)  # what was measured in so short a time is chance


def test_text_of_a_run_without_a_batch() -> None:
    """Nothing is divided by nothing."""
    empty = replace(
        report(),
        batches=0,
        chunks=0,
        blocks=0,
        first_batch_s=None,
        waited_s=0.0,
        elapsed_s=0.0,
        causes={},
        timeline=(),
        gateways=(),
    )
    assert "no batch yet" in str(empty)
    assert empty.scenarios() == ()
    assert encode(empty, "x.png").startswith(b"\x89PNG")
    assert "<table>" in empty._repr_html_()


def test_html_is_escaped() -> None:
    """Addresses and URLs are text."""
    whole = page(report())
    for tag in ("<script>", "<i>", "<b>http", "of http://<b>"):
        assert tag not in whole
    assert "bafy/&lt;script&gt;" in whole


def test_picture() -> None:
    """Both panels, in their units, with each cause in the legend; by the file's name as PNG or SVG."""
    gaps, total = draw(report()).axes
    assert (gaps.get_ylabel(), total.get_ylabel()) == ("gap [ms]", "waited, summed [s]")
    legend = total.get_legend()
    assert legend is not None
    assert {text.get_text().split("  ")[0] for text in legend.get_texts()} == {"bandwidth", "fault of http://<b>"}
    assert stack_tops(gaps) == pytest.approx([4.0] * 40)
    assert encode(report(), "a.PNG").startswith(b"\x89PNG")
    assert b"<svg" in encode(report(), "a.svg")
    with pytest.raises(ArgumentError, match=r"a\.txt: expected a name that ends in \.png"):
        encode(report(), "a.txt")


def stack_tops(axes: Axes) -> list[float]:
    """How high the bars of each batch are together."""
    *_, last = axes.containers
    return [bar.get_y() + bar.get_height() for bar in last]


def test_many_causes_are_drawn_as_few() -> None:
    """The legend names the longest ones and sums up the rest, so that all that was waited is drawn."""
    causes = {f"fault of http://{number}": 0.001 * (number + 1) for number in range(20)}
    one = Bin(batches=1, at_s=1.0, step_s=0.5, waited_s=sum(causes.values()), longest_s=0.21, causes=causes)
    run = replace(report(), causes=causes, timeline=(one,), waited_s=one.waited_s)
    gaps, total = draw(run).axes
    legend = total.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == 6
    assert labels[-1].startswith("15 others")
    assert stack_tops(gaps) == pytest.approx([210.0])


def test_picture_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DncError, match=r"pip install 'dnc-async\[plot\]'"):
        report().plot()


@pytest.mark.parametrize("chunks_on_disk", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("step", [0.02, 0.06, 0.15])
def test_what_if_is_the_model(chunks_on_disk: int, step: float) -> None:
    """Of the run as it was, with twice the budget, and with one more gateway like the mean of them."""
    steps = [step * (1 + 0.3 * (number % 3)) for number in range(60)]
    run = report(steps, chunks_on_disk=chunks_on_disk)
    assert run.what_if() == pytest.approx(model(steps, chunks_on_disk, LINKS))
    twice = FOLDER + 2 * chunks_on_disk * LEASE
    assert run.what_if(disk_budget=twice) == pytest.approx(model(steps, 2 * chunks_on_disk, LINKS))
    more = [*LINKS, GatewayLink(latency_s=0.125, rate=7e6)]
    assert run.what_if(more_gateways=1) == pytest.approx(model(steps, chunks_on_disk, more))
    named = {scenario.name: scenario.idle_share for scenario in run.scenarios()}
    assert named["as it was"] == run.what_if()
    assert named["with one more such gateway"] == run.what_if(more_gateways=1)
    assert named["with twice the budget"] <= named["as it was"] <= named["with half the budget"]


@pytest.mark.parametrize("places", [0, 1, 3])
def test_what_if_with_a_transform(places: int) -> None:
    """Its calls are part of the model: what it holds back, neither a budget nor a gateway brings."""
    calls = Calls(seconds=0.09, workers=max(1, places), places=places)
    run = replace(report(), transform=TransformRun(calls=41, mean_s=0.09, places=places))
    steps = [0.03] * 40
    assert run.what_if() == pytest.approx(model(steps, 4, LINKS, calls))
    more = [*LINKS, GatewayLink(latency_s=0.125, rate=7e6)]
    assert run.what_if(more_gateways=1) == pytest.approx(model(steps, 4, more, calls))
    if places < 3:
        shares = [each.idle_share for each in run.scenarios() if each.name != "with half the budget"]
        assert shares == pytest.approx([2 / 3] * 3, abs=0.04)
    tight = replace(run, settings=replace(run.settings, prefetch=2))
    narrow = replace(calls, places=min(1, places))
    assert tight.what_if() == pytest.approx(model(steps, 2 * (1 - narrow.places), LINKS, narrow))


def test_a_transform_is_told() -> None:
    """In the text, and in files; those that were written before it was are read."""
    run = replace(report(), transform=TransformRun(calls=41, mean_s=0.09, places=3))
    assert "calls   41 of the transform, 90.0 ms each on average, 3 at once" in str(run)
    assert "of the transform" not in str(report())
    wire = run.to_dict()
    assert Report.from_dict(json.loads(json.dumps(wire))) == run
    del wire["transform"]
    assert Report.from_dict(wire) == report()


def test_what_if_of_a_gateway_that_lies() -> None:
    """Only the share of its blocks that were good counts for its rate."""
    run = report(links=LINKS[:1])
    liar = replace(run, gateways=(gateway("http://liar", GatewayLink(latency_s=0.05, rate=20e6), rejected=50),))
    assert liar.what_if() == pytest.approx(run.what_if())


def test_what_if_where_latencies_vary() -> None:
    """The model's links are as late as answers were in the mean; the text tells the least and the mean, where they differ."""
    links = [replace(link, latency_s=link.latency_s + 0.04) for link in LINKS]
    varied = tuple(gateway("http://a", link, jitter_s=0.04) for link in LINKS)
    run = replace(report(chunks_on_disk=0), gateways=varied)
    assert run.what_if() == pytest.approx(report(chunks_on_disk=0, links=links).what_if())
    assert "50 ms, mean 90" in str(run)
    assert "50 ms" in str(report())
    assert ", mean" not in str(report())
    wire = run.to_dict()
    assert Report.from_dict(json.loads(json.dumps(wire))) == run
    for each in wire["gateways"]:
        del each["jitter_s"]
    assert [each.jitter_s for each in Report.from_dict(wire).gateways] == [0.0, 0.0]


def test_what_if_knows_when_it_does_not_know() -> None:
    """Nothing fetched ahead, or no gateway measured: no figure instead of a wrong one."""
    run = report()
    assert replace(run, settings=replace(run.settings, prefetch=0)).what_if() is None
    assert replace(run, gateways=()).what_if() is None
    assert "a model of" not in str(replace(run, gateways=()))
    tight = replace(run, settings=replace(run.settings, prefetch=1))
    assert tight.what_if() == pytest.approx(model([0.03] * 40, 0, LINKS))
    memory = replace(run, budget_bytes=0)
    assert memory.scenarios()[1].name == "with a disk budget of four batches"
    assert memory.scenarios()[1].idle_share == pytest.approx(model([0.03] * 40, 8, LINKS))
