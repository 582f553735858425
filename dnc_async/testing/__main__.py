"""``python -m dnc_async.testing serve | chaos``.

``serve`` is a scripted gateway as a process, which :class:`GatewayProcess` runs. ``chaos`` simulates clients among faulty
gateways, disks and consumers, seed after seed (:mod:`dnc_async.testing.simulation.chaos`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from dnc_async.errors import DncError

from .faults import Faults
from .serving import serve_forever, stdin_closed


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted, or simulate until something fails. Gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dnc_async.testing")
    commands = parser.add_subparsers(required=True, dest="command")
    serve = commands.add_parser(
        "serve", help="serve a store with faults; prints the URL on a line of its own when it is ready"
    )
    serve.add_argument("--store", required=True, help="the folder of the store")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=0, help="0 for any free port")
    serve.add_argument("--fault", default="", help="a script, such as rate=4MB,latency=50ms,flip=20")
    serve.add_argument("--stop-on-eof", action="store_true", help="end when standard input does")
    add_chaos(commands.add_parser("chaos", help="simulate clients among faults, seed after seed"))
    options = parser.parse_args(arguments)
    if options.command == "chaos":
        return run_chaos(options)
    try:
        faults = Faults.parse(options.fault)
        asyncio.run(serve_command(options.store, options.host, options.port, faults, stop_on_eof=options.stop_on_eof))
    except DncError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def add_chaos(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``chaos``."""
    parser.add_argument("--faults", type=int, default=10_000, help="stop after so many faults (10,000)")
    parser.add_argument("--seeds", type=int, help="run so many seeds instead")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seed", type=int, help="run this seed alone, and print what happened")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many run at once")


def run_chaos(options: argparse.Namespace) -> int:
    """Run seeds; gives the exit status."""
    from .simulation import chaos  # noqa: PLC0415 - a gateway's process starts faster without it

    if options.seed is not None:
        return chaos.replay(options.seed)
    most = options.seeds if options.seeds is not None else 10**9
    faults = options.faults if options.seeds is None else None
    seeds = range(options.first, options.first + most)
    return chaos.chaos(faults=faults, seeds=seeds, processes=options.processes)


def _announce(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


async def serve_command(
    store: str | Path,
    host: str,
    port: int,
    faults: Faults | None,
    *,
    stop_on_eof: bool = False,
    allowed_hosts: Collection[str] = (),
    announce: Callable[[str], None] = _announce,
) -> None:
    """Serve until a signal, or the end of standard input; ``announce`` gets the URL when it is ready."""
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: there a process is simply killed
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    waiting = asyncio.create_task(stdin_closed() if stop_on_eof else stop.wait())
    ended = asyncio.create_task(stop.wait())
    both = asyncio.create_task(asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED))
    try:
        await serve_forever(
            store, host=host, port=port, faults=faults, allowed_hosts=allowed_hosts, ready=announce, stop=both
        )
        if waiting.done():
            waiting.result()
    finally:
        for task in (both, waiting, ended):
            task.cancel()
        await asyncio.gather(both, waiting, ended, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(main())
