"""The commands about datasets: ``dnc demo | upload | stream | inspect``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dnc_async.cli.shared import (
    Commands,
    Progress,
    command,
    gateway_option,
    print_line,
    say,
    say_if_replaced,
    store_option,
    whole_number,
)
from dnc_async.errors import ArgumentError
from dnc_async.quoting import quoted

if TYPE_CHECKING:
    from dnc_async.engine.report.report import Report
    from dnc_async.engine.stream import BatchStream

# Modules that import numpy or aiohttp are imported by the command that needs them: 'dnc --help' answers at once.


def add_demo(commands: Commands) -> None:
    """Declare ``dnc demo``."""
    demo = command(commands, "demo", _run_demo, "train on real data from three unreliable gateways, in under a minute")
    demo.add_argument("--budget", metavar="SIZE", help="disk budget, such as 2MB (default: a tenth of the data)")
    demo.add_argument(
        "--batch-size", type=whole_number, default=4096, metavar="N", help="samples in a batch (default: 4096)"
    )
    demo.add_argument("--no-faults", action="store_true", help="only honest gateways, none of them killed")
    demo.add_argument("--keep", action="store_true", help="keep the temporary folder with the store")
    demo.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help="for the order of the rows and the model"
    )
    demo.add_argument("--json", action="store_true", help="the summary as JSON")


def add_upload(commands: Commands) -> None:
    """Declare ``dnc upload``."""
    upload = command(commands, "upload", _run_upload, "divide a dataset into half-batch chunks and publish it")
    upload.add_argument(
        "path", nargs="+", help="a file, several, a folder, or - for stdin: a table, arrays, images, text, …"
    )
    upload.add_argument(
        "--to", default="local", metavar="TARGET", help="where to: local (default), or kubo=URL of a node's RPC"
    )
    upload.add_argument(
        "--batch-size", type=whole_number, metavar="N", help="samples in a batch (default: half a batch is about 4 MiB)"
    )
    upload.add_argument(
        "--chunk-bytes", metavar="SIZE", help="the size of half a batch, where --batch-size is not given"
    )
    _reading_options(upload)
    upload.add_argument("--json", action="store_true", help="the result as JSON, instead of the CID")
    store_option(upload)


def _reading_options(upload: argparse.ArgumentParser) -> None:
    """Declare how a source is read, as in Python."""
    upload.add_argument(
        "--format", metavar="NAME", help="the files' format, where it cannot be told: csv, jsonl, parquet, …"
    )
    upload.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of a CSV names its columns (default: found out, or asked)",
    )
    upload.add_argument("--encoding", metavar="NAME", help="of a CSV or text file that is not UTF-8, such as latin-1")
    upload.add_argument(
        "--missing",
        default="mask",
        metavar="HOW",
        help="missing values: mask (a column NAME__valid; default), fill (with 0 or nothing), or error",
    )
    upload.add_argument(
        "--decimals", default="text", metavar="HOW", help="decimals as text (all digits; default) or float"
    )
    for name, what in (
        ("length", "cut a file of tokens into windows of N"),
        ("stride", "windows begin N tokens apart (default: --length)"),
        ("pack", "pack documents of tokens to samples of N"),
    ):
        upload.add_argument(f"--{name}", type=whole_number, metavar="N", help=what)
    upload.add_argument(
        "--shuffle", type=whole_number, metavar="SEED", help="publish the samples in an order by this seed"
    )
    upload.add_argument(
        "--no-shuffle",
        action="store_const",
        const=False,
        dest="shuffle",
        help="keep the order of folders of images by class",
    )
    upload.add_argument("--dtype", metavar="DTYPE", help="of the records of a file without a header, such as <u2")


def add_stream(commands: Commands) -> None:
    """Declare ``dnc stream``."""
    stream = command(commands, "stream", _run_stream, "stream a dataset: a line per batch, then where the time went")
    stream.add_argument("cid", help="a CID, ipfs://… or /ipfs/…/path")
    gateway_option(stream)
    budget = "disk budget, such as 64MB, or 0 for memory alone"
    stream.add_argument("--budget", metavar="SIZE", dest="disk_budget", help=budget)
    stream.add_argument(
        "--epochs", type=whole_number, default=1, metavar="N", help="the number of passes over the dataset"
    )
    stream.add_argument(
        "--checkpoint", metavar="FILE", help="keep the position there, and go on from it if it is there already"
    )
    stream.add_argument("--spool-dir", metavar="DIR", help="where to stage chunks (default: the user's cache folder)")
    stream.add_argument("--json", action="store_true", help="a JSON object per line")
    stream.add_argument("--report", metavar="FILE", help="save the gap report, also after an interruption")
    store_option(stream)


def add_inspect(commands: Commands) -> None:
    """Declare ``dnc inspect``."""
    inspect = command(commands, "inspect", _run_inspect, "describe a dataset: schema, samples, batches, bytes")
    inspect.add_argument("cid", help="a CID, ipfs://… or /ipfs/…/path")
    gateway_option(inspect)
    inspect.add_argument("--json", action="store_true", help="as JSON")
    store_option(inspect)


def _run_demo(options: argparse.Namespace) -> int:
    from dnc_async.demo.run import DemoOptions, progress_line, run_demo  # noqa: PLC0415
    from dnc_async.demo.summary import render  # noqa: PLC0415

    def tell(text: str) -> None:
        progress_line("")
        (say if options.json else print_line)(text)

    chosen = DemoOptions(
        budget=options.budget,
        batch_size=options.batch_size,
        faults=not options.no_faults,
        keep=options.keep,
        seed=options.seed,
    )
    summary = asyncio.run(run_demo(chosen, tell, progress_line))
    progress_line("")
    print_line(json.dumps(summary.to_json()) if options.json else render(summary))
    return 0 if summary.same_early and not summary.left_behind else 1


def _run_upload(options: argparse.Namespace) -> None:
    from dnc_async.config.signatures import chosen  # noqa: PLC0415
    from dnc_async.publish.uploading import UploadCall, upload_call  # noqa: PLC0415

    paths, line, divided = options.path, Progress(), ""
    shown = Path(paths[0]).name if len(paths) == 1 else f"{len(paths)} files"

    def progress(samples: int, size_bytes: int) -> None:
        nonlocal divided
        divided = f", {samples:,} samples, {size_bytes / 1e6:,.1f} MB divided"

    def reading(read_bytes: int, size_bytes: int) -> None:
        line.show(lambda: f"{shown}: {read_bytes / 1e6:,.1f} of {size_bytes / 1e6:,.1f} MB read{divided}")

    given = chosen(UploadCall, vars(options))
    source = Path(paths[0]) if len(paths) == 1 else [Path(path) for path in paths]
    try:
        done = asyncio.run(upload_call(UploadCall(source, progress=progress, **given), reading))
    finally:
        line.end()
    for column in done.columns:
        say(column_line(*column, name_of_array=shown if done.structure == "array" else ""))
    say(f"{done.samples:,} samples in {done.batches:,} batches, {done.size_bytes:,} bytes, at {done.target}")
    print_line(json.dumps(asdict(done)) if options.json else done.cid)


def column_line(name: str, dtype: str, shape: tuple[int, ...], *, name_of_array: str = "") -> str:
    """A column for the user: its name, its dtype, and the shape of a sample."""
    return f"  {quoted(name_of_array or name)}: {dtype}{list(shape) if shape else ''}"


def _run_stream(options: argparse.Namespace) -> None:
    if options.report and not os.path.isdir(os.path.dirname(options.report) or "."):  # noqa: PTH112, PTH120 - a Path raises
        raise ArgumentError(f"--report {options.report}: there is no such folder; make it first")
    if options.report and os.path.isdir(options.report):  # noqa: PTH112
        raise ArgumentError(f"--report {options.report}: is a folder; name a file")
    found: list[Report] = []
    try:
        asyncio.run(_consume(options, found.append))
    finally:
        if options.report and found and found[0].batches:
            say_if_replaced(options.report)
            found[0].save(options.report)
    print_line(json.dumps({"report": found[0].to_dict()}) if options.json else str(found[0]))


async def _consume(options: argparse.Namespace, reported: Callable[[Report], None]) -> None:
    from dnc_async.client import StreamCall  # noqa: PLC0415
    from dnc_async.config.signatures import chosen  # noqa: PLC0415
    from dnc_async.shortcuts import stream  # noqa: PLC0415

    batches = stream(**chosen(StreamCall, vars(options)))
    async with batches:
        try:
            await _print_batches(batches, as_json=options.json)
        finally:
            reported(batches.report())


async def _print_batches(batches: BatchStream, *, as_json: bool) -> None:
    from dnc_async.engine.report.text import gap_line, samples_of  # noqa: PLC0415

    total, waited, before = len(batches), 0.0, batches.batches_before
    async for batch in batches:
        statistics = batches.statistics()
        row = {
            "batch": before + statistics.batches - 1,
            "samples": samples_of(batch),
            "waited_s": statistics.waited_s - waited,
        }
        waited = statistics.waited_s
        print_line(json.dumps(row) if as_json else gap_line(row, total))


def _run_inspect(options: argparse.Namespace) -> None:
    from dnc_async.shortcuts import inspect  # noqa: PLC0415

    info = asyncio.run(inspect(options.cid, gateways=options.gateways, routers=options.routers, store=options.store))
    if options.json:
        print_line(json.dumps(asdict(info)))
        return
    print_line(f"{info.cid}\n{info.samples:,} samples in {info.batches:,} batches of {info.batch_size:,}")
    print_line(f"{info.size_bytes:,} bytes in {info.chunks:,} chunks, the largest {info.largest_chunk_bytes:,}")
    for name, dtype, shape in info.columns:
        print_line(column_line(name, dtype, shape))
