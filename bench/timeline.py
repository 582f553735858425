"""``python -m bench timeline --plot FILE.png``: who fetched what, when, as a picture; one gateway turns slow and one dies.

Four gateways of 20 MB/s, 50 ms away. Each request for data is a bar from its sending to its end, pale until its first byte came.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dnc_async as dnc
from bench.fetch import dataset_of
from dnc_async.telemetry import Event, RequestEnded
from dnc_async.testing import GatewayProcess

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEADY = "rate=20MB,latency=50ms"
_FAULTS = (_STEADY, _STEADY, f"{_STEADY},slow=5s-", f"{_STEADY},down=8s-")
_SHOWN_BYTES = 2**16
_NAMES = ("steady", "steady", "a tenth of its rate from 5 s on", "dead from 8 s on")
_COLOURS = {"answered": "#2a7f9e", "cancelled": "#b9b9b9", "failed": "#c8452c", "hedge": "#e0a100"}
_MEANING = {"answered": "answered", "hedge": "hedge, answered", "cancelled": "cancelled", "failed": "failed"}


def main(arguments: Sequence[str]) -> int:
    """Stream, and draw it."""
    parser = argparse.ArgumentParser(prog="python -m bench timeline", description=__doc__)
    parser.add_argument("--plot", type=Path, default=Path("timeline.png"), metavar="FILE.png")
    parser.add_argument("--megabytes", type=int, default=640)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder, contextlib.ExitStack() as stack:
        store, cid = dataset_of(Path(folder) / "store", options.megabytes)
        processes = [GatewayProcess(store.path, faults) for faults in _FAULTS]
        starts: list[float] = []
        urls = []
        for process in processes:
            urls.append(stack.enter_context(process).url)
            starts.append(time.monotonic())
        events = asyncio.run(_stream(cid, urls))
    _draw(events, urls, starts, options.plot)
    counts = {kind: sum(_kind(event) == kind for event in events) for kind in _COLOURS}
    sys.stdout.write(f"{options.plot}: {', '.join(f'{count} {_MEANING[kind]}' for kind, count in counts.items())}\n")
    return 0


async def _stream(cid: str, urls: Sequence[str]) -> list[RequestEnded]:
    events: list[RequestEnded] = []

    def observe(event: Event) -> None:
        if isinstance(event, RequestEnded):
            events.append(event)

    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as spool:
        async for _ in dnc.stream(cid, gateways=urls, disk_budget="128 MB", spool_dir=spool, progress=observe):
            pass
    return events


def _kind(event: RequestEnded) -> str:
    return "hedge" if event.hedge and event.outcome == "answered" else event.outcome


def _is_shown(event: RequestEnded) -> bool:
    """Proofs of a few hundred bytes would be hairlines."""
    return event.outcome != "answered" or event.received_bytes >= _SHOWN_BYTES


def _draw(events: Sequence[RequestEnded], urls: Sequence[str], starts: Sequence[float], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above
    from matplotlib.patches import Patch  # noqa: PLC0415 - as above

    began, ended = min(event.sent_at for event in events), max(event.at for event in events)
    figure, rows = plt.subplots(len(urls), 1, sharex=True, figsize=(11, 6.5), layout="constrained")
    for axes, url, name, start, words in zip(rows, urls, _NAMES, starts, _FAULTS, strict=True):
        own = sorted(
            (event for event in events if event.gateway == url and _is_shown(event)), key=lambda event: event.sent_at
        )
        _lanes(axes, own, began)
        delivered = sum(event.received_bytes for event in own)
        axes.set_title(f"{name}: {delivered / 1e6:.0f} MB in {len(own)} requests", loc="left", fontsize=10)
        for word, at in (("slow", 5.0), ("down", 8.0)):
            if word in words:
                axes.axvline(start + at - began, color="black", linewidth=1, linestyle=":")
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    rows[-1].set_xlabel("seconds")
    rows[-1].set_xlim(0, ended - began)
    handles = [Patch(color=colour) for colour in _COLOURS.values()]
    labels = [_MEANING[kind] for kind in _COLOURS]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)


def _lanes(axes: Axes, events: Iterable[RequestEnded], began: float) -> None:
    """Requests that overlap lie above each other."""
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    lanes = 0
    bars: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in _COLOURS}
    for event in events:
        while busy and busy[0][0] <= event.sent_at:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else lanes
        lanes = max(lanes, lane + 1)
        heapq.heappush(busy, (event.at, lane))
        first = event.first_byte_at or event.at
        bars[_kind(event)].append((lane, event.sent_at - began, first - event.sent_at, event.at - first))
    for kind, found in bars.items():
        if found:
            lane_of, sent, waited, came = (list(column) for column in zip(*found, strict=True))
            axes.barh(lane_of, waited, left=sent, height=0.8, color=_COLOURS[kind], alpha=0.3, linewidth=0)
            begins = [a + b for a, b in zip(sent, waited, strict=True)]
            axes.barh(lane_of, came, left=begins, height=0.8, color=_COLOURS[kind], linewidth=0)
    axes.set_ylim(-0.6, max(lanes, 1) - 0.4)
