"""The shell: ``dnc demo | upload | stream | report | inspect | get | add | import | export | verify | serve``.

Results go to stdout (``--json`` for machines), progress and errors to stderr. Exit status: 0 done, 1 failed, 2 wrong usage,
130 interrupted. Errors of the library are one message, never a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from dnc_async.cli import dags, datasets, reports, serving
from dnc_async.cli.shared import print_anything, say
from dnc_async.errors import ArgumentError, DncError

# Modules that import numpy or aiohttp are imported by the command that needs them: 'dnc --help' answers at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    print_anything()
    options = _parser().parse_args(arguments)
    try:
        status = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:  # the reader, such as 'head', has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ArgumentError as error:
        say(f"dnc: {error}")
        return 2
    except DncError as error:
        say(f"dnc: {error}")
        return 1
    return int(status or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dnc", description="Stream datasets larger than the disk from IPFS into a training loop."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        datasets.add_demo,
        datasets.add_upload,
        datasets.add_stream,
        reports.add_report,
        datasets.add_inspect,
        dags.add_get,
        dags.add_add,
        dags.add_import,
        dags.add_export,
        dags.add_verify,
        serving.add_serve,
    ):
        add(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from dnc_async.config import installed_version  # noqa: PLC0415 - see above

        sys.stdout.write(f"dnc-async {installed_version()}\n")
        parser.exit()
