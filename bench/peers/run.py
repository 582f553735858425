"""``python -m bench peers``: idle time, disk, connections and CPU of the loaders that our users know, and of ours.

32 shards of 2 MB, 64 batches, a step of 30 ms, a web server 50 ms away with one token bucket over all its connections, whose
rate makes demand 0.9 of supply. Every arm reads the same samples from the same server program, ours from one indexed CAR
file. Scenarios: ``tight`` (a ceiling of 4 batches on disk), ``none``, ``stalls`` (two shards stop for 2 s on the connection
that comes there first), ``flip`` (one byte is wrong, once), ``large`` (2 GB in shards of 16 MB, a ceiling of 5 %, a step of
120 ms; a minute and more for each arm, and 18 GB of disk for all formats), and ``sweep`` (budgets for the picture). Each module
of ``bench/peers`` says how its loader is configured, and why.

With ``--results FILE`` rows are appended, and tables and picture are of all rows that it holds: a long measurement can be
made in parts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.peers import picture, tables
from bench.peers.measure import Row, command, measure
from bench.peers.plan import LOADERS, SCENARIOS, SWEEP, Loader, Scenario, named
from bench.peers.publish import made
from bench.rows import keep, kept

DEFAULT_SCENARIOS = ("tight", "none", "stalls", "flip")


def main(arguments: Sequence[str]) -> int:
    """Measure, and print the tables; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m bench peers", description=__doc__)
    parser.add_argument("--python", default="", help="an interpreter that has the peers; without it, ours alone runs")
    scenarios = [*(each.name for each in (*SCENARIOS, *SWEEP)), "sweep"]
    parser.add_argument(
        "--scenarios",
        nargs="*",
        choices=scenarios,
        default=DEFAULT_SCENARIOS,
        metavar="NAME",
        help=f"else {' '.join(DEFAULT_SCENARIOS)}; with no name only show",
    )
    modules = list(dict.fromkeys(each.module for each in LOADERS))
    loaders_help = f"of {', '.join(modules)}; else all of them"
    parser.add_argument("--loaders", nargs="+", choices=modules, metavar="NAME", help=loaders_help)
    parser.add_argument("--workers", type=int, nargs="+", help="else 0, 2 and 4 for those that have workers")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved")
    parser.add_argument("--data", type=Path, help="a folder that keeps the datasets; else a temporary one")
    parser.add_argument("--results", type=Path, help="a file of rows, to append to")
    parser.add_argument("--plot", metavar="FILE.png", help="idle share against budget, from the rows that there are")
    options = parser.parse_args(arguments)
    rows = [Row(**each) for each in kept(options.results)]
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder:
        try:
            for row in _measured(options.data or Path(folder), options):
                rows.append(row)
                keep(options.results, row)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; these are the rows so far\n")
    met = tables.show(rows)
    if options.plot:
        picture.save(rows, options.plot)
    return 0 if met else 1


def _measured(data: Path, options: argparse.Namespace) -> Iterable[Row]:
    loaders = [each for each in LOADERS if not options.loaders or each.module in options.loaders]
    if not options.python:
        loaders = [each for each in loaders if each.is_ours]
        sys.stderr.write("bench peers: without --python PYTHON, an interpreter that has the peers, ours alone runs\n")
    for scenario in named(options.scenarios):
        folder = data / f"{scenario.shape.shards}-{scenario.shape.shard_bytes}"
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(options.repeats):
            for loader in filter(scenario.concerns, loaders):
                python = sys.executable if loader.is_ours else options.python
                yield from _runs(folder, loader, scenario, python, options.workers)


def _runs(
    folder: Path, loader: Loader, scenario: Scenario, python: str, only_workers: Sequence[int] | None
) -> Iterable[Row]:
    dataset = made(folder, loader.form, scenario.shape, command(loader, python))
    for workers in loader.workers:
        if len(loader.workers) > 1 and only_workers and workers not in only_workers:
            continue
        row = measure(folder, dataset, loader, workers, scenario, python)
        sys.stderr.write(
            f"{row.scenario:<11}{row.loader:<22}{row.workers:>2}{row.idle:>8.1%} idle  load average {row.load_average:.1f}  "
            f"{row.said[:70]}\n"
        )
        yield row
