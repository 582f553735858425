"""Shared by the commands: declaring options, and printing."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from dnc_async.cli.process import interruptible, stdout_errors
from dnc_async.system.encoding import encodable
from dnc_async.system.writing import is_special

_ANYTHING = "dnc_async.anything"

Commands = Any  # argparse does not name the type of its subparsers


def command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> Any:  # noqa: ANN401
    """Declare a command; returns its parser."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def store_option(parser: argparse.ArgumentParser) -> None:
    """``--store DIR``."""
    parser.add_argument(
        "--store", metavar="DIR", help="the local store (default: DNC_STORE, or in the user's data folder)"
    )


def gateway_option(parser: argparse.ArgumentParser) -> None:
    """``--gateway URL`` and ``--router URL``, repeatable."""
    gateway = "ask this gateway (repeatable), or with 'discover' those that routers name"
    parser.add_argument("--gateway", action="append", metavar="URL", dest="gateways", help=gateway)
    router = "ask this delegated router for more gateways (repeatable; by default none, for 'discover' a local Kubo)"
    parser.add_argument("--router", action="append", metavar="URL", dest="routers", help=router)


def whole_number(text: str) -> int:
    """Parse an option's whole number in plain digits: other spellings that ``int()`` accepts (1_000, ٣) are refused."""
    if re.fullmatch("-?[0-9]{1,19}", text) is None:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text[:40]!r}")
    return int(text)


def print_anything() -> None:
    """Have stdout accept any text: names as their bytes, and characters that its encoding lacks as escapes."""
    codecs.register_error(_ANYTHING, _bytes_or_escape)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ANYTHING)


def _bytes_or_escape(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    one = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    try:
        return codecs.lookup_error("surrogateescape")(one)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(one)


def print_line(text: str) -> None:
    """Print a line of the result to stdout. Raises :class:`~dnc_async.errors.OutputError` if that fails."""
    with stdout_errors(), interruptible():
        sys.stdout.write(encodable(text, sys.stdout.encoding) + "\n")
        sys.stdout.flush()


def say(text: str) -> None:
    """Print a line for the user to stderr, if it is open."""
    _tell(text + "\n")


def _tell(text: str) -> None:
    with contextlib.suppress(OSError), interruptible():
        sys.stderr.write(encodable(text, sys.stderr.encoding))
        sys.stderr.flush()


def say_if_replaced(name: str) -> None:
    """Tell the user that an existing file is about to be replaced."""
    if os.path.isfile(name) and not is_special(name):  # noqa: PTH113 - a Path raises where the name is too long
        say(f"{name}: was there already, and is replaced")


class Progress:
    """A progress line on stderr, which is overwritten a few times a second at most; only on a terminal."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._next = 0.0

    def show(self, text: Callable[[], str]) -> None:
        """Show the progress."""
        if self._watched and time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            _tell(f"\r\x1b[K{text()}")

    def end(self) -> None:
        """Remove the line."""
        if self._watched:
            _tell("\r\x1b[K")
