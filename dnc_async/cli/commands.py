"""The commands of the shell, and how one is run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dnc_async.cli import dags, datasets, reports, serving
from dnc_async.cli.process import stdout_errors, warnings_shown
from dnc_async.cli.shared import print_anything, print_line, say
from dnc_async.cli.words import in_shell_words
from dnc_async.errors import ArgumentError, DncError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

# Modules that import numpy or aiohttp are imported by the command that needs them: 'dnc --help' answers at once.


def run(arguments: Sequence[str] | None) -> int:
    """Run one command; returns the exit status. ``KeyboardInterrupt`` is raised to the caller."""
    print_anything()
    options = argparse.Namespace()
    with warnings_shown(say):
        try:
            return _run(arguments, options)
        except BrokenPipeError:  # the reader, such as 'head', has closed the pipe
            return 1
        except DncError as error:
            say(f"dnc: {in_shell_words(error, options)}")
            return 2 if isinstance(error, ArgumentError) else 1


def _run(arguments: Sequence[str] | None, options: argparse.Namespace) -> int:
    try:
        _parser().parse_args(arguments, options)
        status = options.run(options)
    finally:
        with stdout_errors():
            sys.stdout.flush()
    return int(status or 0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dnc", description="Stream datasets larger than the disk from IPFS into a training loop.")
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


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if file is sys.stdout:
            print_line(message.rstrip("\n"))
        elif message:
            say(message.rstrip("\n"))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from dnc_async.config import installed_version  # noqa: PLC0415 - see above

        print_line(f"dnc-async {installed_version()}")
        parser.exit()
