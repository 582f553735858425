"""``python -m dnc_async.testing serve``: a scripted gateway in a process of its own. :class:`GatewayProcess` runs it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys

from dnc_async.errors import DncError

from .faults import Faults
from .serving import serve_forever, stdin_closed


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; print the URL on a line of its own when it is ready. Gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dnc_async.testing", description=__doc__)
    serve = parser.add_subparsers(required=True).add_parser("serve", help="serve a store with faults")
    serve.add_argument("--store", required=True, help="the folder of the store")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=0, help="0 takes a free one")
    serve.add_argument("--fault", default="", help="a script, such as rate=4MB,latency=50ms,flip=20")
    serve.add_argument("--stop-on-eof", action="store_true", help="end when standard input does")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_serve(options))
    except DncError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _serve(options: argparse.Namespace) -> None:
    faults = Faults.parse(options.fault)
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: there a process is simply killed
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    waiting = asyncio.create_task(stdin_closed() if options.stop_on_eof else stop.wait())
    ended = asyncio.create_task(stop.wait())
    try:
        both = asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
        await serve_forever(options.store, options.host, options.port, faults, _announce, both)
        if waiting.done():
            waiting.result()
    finally:
        for task in (waiting, ended):
            task.cancel()
        await asyncio.gather(waiting, ended, return_exceptions=True)


def _announce(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
