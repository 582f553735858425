"""The shell: ``dnc demo | upload | stream | inspect | serve``.

Results go to stdout (``--json`` for machines), progress and errors to stderr. Exit status: 0 done, 1 failed, 2 wrong usage,
130 interrupted. Errors of the library are one message, never a traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dnc_async.errors import ArgumentError, DncError

# Modules that import numpy or aiohttp are imported by the command that needs them: 'dnc --help' answers at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:  # the reader, such as 'head', has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ArgumentError as error:
        _say(f"dnc: {error}")
        return 2
    except DncError as error:
        _say(f"dnc: {error}")
        return 1
    return int(status or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dnc", description="Stream datasets larger than the disk from IPFS into a training loop."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_demo, _upload, _stream, _inspect, _serve):
        add(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from dnc_async.config import installed_version  # noqa: PLC0415 - see above

        sys.stdout.write(f"dnc-async {installed_version()}\n")
        parser.exit()


Commands = Any  # argparse does not name the type of its subparsers


def _command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> Any:  # noqa: ANN401
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _demo(commands: Commands) -> None:
    demo = _command(commands, "demo", _run_demo, "train on real data from three unreliable gateways, in under a minute")
    demo.add_argument("--budget", metavar="SIZE", help="disk budget, such as 2MB (default: a tenth of the data)")
    demo.add_argument("--batch-size", type=int, default=4096, metavar="N", help="samples in a batch (default: 4096)")
    demo.add_argument("--no-faults", action="store_true", help="only honest gateways, none of them killed")
    demo.add_argument("--keep", action="store_true", help="keep the temporary folder with the store")
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="for the order of the rows and the model")
    demo.add_argument("--json", action="store_true", help="the summary as JSON")


def _upload(commands: Commands) -> None:
    upload = _command(commands, "upload", _run_upload, "divide a dataset into half-batch chunks and publish it")
    upload.add_argument("path", help="an .npy, .npz or .csv file")
    upload.add_argument(
        "--to", default="local", metavar="TARGET", help="where to: local (default), or kubo=URL of a node's RPC"
    )
    upload.add_argument(
        "--batch-size", type=int, metavar="N", help="samples in a batch (default: half a batch is about 4 MiB)"
    )
    upload.add_argument(
        "--chunk-bytes", metavar="SIZE", help="the size of half a batch, where --batch-size is not given"
    )
    upload.add_argument("--json", action="store_true", help="the result as JSON, instead of the CID")
    _store(upload)


def _stream(commands: Commands) -> None:
    stream = _command(commands, "stream", _run_stream, "consume a dataset: a line per batch, then where the time went")
    stream.add_argument("cid", help="a CID, ipfs://… or /ipfs/…/path")
    stream.add_argument("--gateway", action="append", metavar="URL", help="ask this gateway (repeatable)")
    stream.add_argument("--budget", metavar="SIZE", help="disk budget, such as 64MB, or 0 for memory alone")
    stream.add_argument("--epochs", type=int, default=1, metavar="N", help="how often to go through the dataset")
    stream.add_argument("--spool-dir", metavar="DIR", help="where to stage chunks (default: the user's cache folder)")
    stream.add_argument("--json", action="store_true", help="a JSON object per line")
    _store(stream)


def _inspect(commands: Commands) -> None:
    inspect = _command(commands, "inspect", _run_inspect, "what a dataset is: schema, samples, batches, bytes")
    inspect.add_argument("cid", help="a CID, ipfs://… or /ipfs/…/path")
    inspect.add_argument("--gateway", action="append", metavar="URL", help="ask this gateway (repeatable)")
    inspect.add_argument("--json", action="store_true", help="as JSON")
    _store(inspect)


def _serve(commands: Commands) -> None:
    serve = _command(commands, "serve", _run_serve, "serve a local store as a trustless gateway")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    serve.add_argument("--port", type=_port, default=8080, metavar="N", help="0 takes a free one (default: 8080)")
    serve.add_argument(
        "--fault", default="", metavar="SCRIPT", help="misbehave for tests, such as rate=4MB,latency=50ms,flip=20"
    )
    serve.add_argument("--stop-on-eof", action="store_true", help="end when standard input does")
    serve.add_argument("--json", action="store_true", help="the URL and the store as JSON")
    _store(serve)


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", metavar="DIR", help="the local store (default: DNC_STORE, or in the user's data folder)"
    )


def _run_demo(options: argparse.Namespace) -> int:
    from dnc_async.demo.run import DemoOptions, progress_line, run_demo  # noqa: PLC0415
    from dnc_async.demo.summary import render  # noqa: PLC0415

    def say(text: str) -> None:
        progress_line("")
        (_say if options.json else _print)(text)

    chosen = DemoOptions(
        budget=options.budget,
        batch_size=options.batch_size,
        faults=not options.no_faults,
        keep=options.keep,
        seed=options.seed,
    )
    summary = asyncio.run(run_demo(chosen, say, progress_line))
    progress_line("")
    _print(json.dumps(summary.to_json()) if options.json else render(summary))
    return 0 if summary.same_early and not summary.left_behind else 1


def _run_upload(options: argparse.Namespace) -> None:
    from dnc_async.client import upload  # noqa: PLC0415

    size = Path(options.path).stat().st_size if Path(options.path).is_file() else 0

    def progress(samples: int, size_bytes: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(
                f"\r\x1b[K{samples:,} samples, {size_bytes / 1e6:,.1f} MB divided (the file: {size / 1e6:,.1f} MB)"
            )
            sys.stderr.flush()

    done = asyncio.run(
        upload(
            options.path,
            options.to,
            batch_size=options.batch_size,
            chunk_bytes=options.chunk_bytes,
            store=options.store,
            progress=progress,
        )
    )
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    _say(f"{done.samples:,} samples in {done.batches:,} batches, {done.size_bytes:,} bytes, at {done.target}")
    _print(json.dumps(asdict(done)) if options.json else done.cid)


def _run_stream(options: argparse.Namespace) -> None:
    asyncio.run(_consume(options))


async def _consume(options: argparse.Namespace) -> None:
    from dnc_async.client import stream  # noqa: PLC0415
    from dnc_async.engine.report import gap_line, render, samples_of  # noqa: PLC0415

    batches = stream(
        options.cid,
        gateways=options.gateway,
        disk_budget=options.budget,
        epochs=options.epochs,
        store=options.store,
        spool_dir=options.spool_dir,
    )
    async with batches:
        total, waited = len(batches), 0.0
        async for batch in batches:
            statistics = batches.statistics()
            row = {
                "batch": statistics.batches - 1,
                "samples": samples_of(batch),
                "waited_s": statistics.waited_s - waited,
            }
            waited = statistics.waited_s
            _print(json.dumps(row) if options.json else gap_line(row, total))
        statistics = batches.statistics()
    _print(json.dumps({"report": asdict(statistics)}) if options.json else render(statistics))


def _run_inspect(options: argparse.Namespace) -> None:
    from dnc_async.client import inspect  # noqa: PLC0415

    info = asyncio.run(inspect(options.cid, gateways=options.gateway, store=options.store))
    if options.json:
        _print(json.dumps(asdict(info)))
        return
    _print(f"{info.cid}\n{info.samples:,} samples in {info.batches:,} batches of {info.batch_size:,}")
    _print(f"{info.size_bytes:,} bytes in {info.chunks:,} chunks, the largest {info.largest_chunk_bytes:,}")
    for name, dtype, shape in info.columns:
        _print(f"  {name}: {dtype}{list(shape) if shape else ''}")


def _run_serve(options: argparse.Namespace) -> None:
    from dnc_async.config import store_path  # noqa: PLC0415
    from dnc_async.testing import Faults  # noqa: PLC0415
    from dnc_async.testing.__main__ import serve_command  # noqa: PLC0415

    faults = Faults.parse(options.fault) if options.fault else None
    store = store_path(options.store)

    def announce(url: str) -> None:
        _print(json.dumps({"url": url, "store": str(store)}) if options.json else url)

    asyncio.run(
        serve_command(store, options.host, options.port, faults, stop_on_eof=options.stop_on_eof, announce=announce)
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {port}")
    return port


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
