"""``dnc serve``: the local store as a gateway."""

from __future__ import annotations

import argparse
import asyncio
import json

from dnc_async.cli.shared import Commands, command, print_line, say, store_option, whole_number
from dnc_async.errors import ArgumentError, OutputError

# Modules that import numpy or aiohttp are imported by the command that needs them: 'dnc --help' answers at once.


def add_serve(commands: Commands) -> None:
    """Declare ``dnc serve``."""
    serve = command(commands, "serve", _run_serve, "serve a local store as a trustless gateway")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that clients may call this server by in their Host header, as behind a reverse proxy; may be repeated. On a "
        "loopback address it answers to that, to loopback addresses and to localhost (a web page cannot read the store under a "
        "name of its own then), on another address to any name unless this is given",
    )
    serve.add_argument("--port", type=_port, default=8080, metavar="N", help="0 for any free port (default: 8080)")
    serve.add_argument(
        "--fault", default="", metavar="SCRIPT", help="misbehave for tests, such as rate=4MB,latency=50ms,flip=20"
    )
    serve.add_argument("--stop-on-eof", action="store_true", help="end when standard input does")
    serve.add_argument("--json", action="store_true", help="the URL and the store as JSON")
    store_option(serve)


def _run_serve(options: argparse.Namespace) -> None:
    from dnc_async.config import store_path  # noqa: PLC0415
    from dnc_async.testing import Faults  # noqa: PLC0415
    from dnc_async.testing.__main__ import serve_command  # noqa: PLC0415

    try:
        faults = Faults.parse(options.fault) if options.fault else None
    except ArgumentError as error:
        raise ArgumentError(f"--fault: {error}") from error
    store = store_path(options.store)

    def announce(url: str) -> None:
        try:
            print_line(json.dumps({"url": url, "store": str(store)}) if options.json else url)
        except (OutputError, BrokenPipeError):  # standard output is closed: serve all the same
            say(url)

    asyncio.run(
        serve_command(
            store,
            options.host,
            options.port,
            faults,
            stop_on_eof=options.stop_on_eof,
            allowed_hosts=options.allow_host,
            announce=announce,
        )
    )


def _port(text: str) -> int:
    try:
        port = whole_number(text)
    except argparse.ArgumentTypeError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {text[:40]!r}")
    return port
