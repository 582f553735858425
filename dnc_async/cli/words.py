"""Translates errors for the shell: the library names Python's arguments, and a command has options."""

from __future__ import annotations

import argparse
import re

from dnc_async.errors import ArgumentError, DncError

#: Arguments whose option has another name. All others have the same name, except for a command's own words.
_RENAMED = {"disk_budget": "budget", "gateways": "gateway", "routers": "router"}
_NO_OPTIONS = frozenset({"cid", "file", "path", "run"})
#: Arguments that exist in Python only.
_PYTHON_ALONE = (
    ", or None for no end",
    ", or open it with create=True if it is empty",
    ", or open it with create=True",
    "routers=, or ",
)
_WORD_BEGINS, _WORD_ENDS = r"(?<![\w/.'\"=-])", r"(?![\w/.'\"=-])"


def in_shell_words(error: DncError, options: argparse.Namespace) -> str:
    """An error's text with a command's options instead of arguments: ``disk_budget: …`` becomes ``--budget: …``.

    Names are replaced at the beginning of a message, before a value (``disk_budget=0`` becomes ``--budget 0``), and wherever
    they contain an underscore, so that they are no ordinary words. Quoted text and paths stay as they are.
    """
    message = str(error)
    names = {name: f"--{name.replace('_', '-')}" for name in vars(options) if name not in _NO_OPTIONS}
    renamed = [pair for pair in _RENAMED.items() if not names.keys().isdisjoint(pair)]
    names |= {name: f"--{option}" for argument, option in renamed for name in (argument, option)}
    either = "|".join(map(re.escape, names)) or "(?!)"
    long = "|".join(re.escape(name) for name in names if "_" in name) or "(?!)"
    for words in _PYTHON_ALONE:
        message = message.replace(words, "")
    if isinstance(error, ArgumentError):
        message = re.sub(rf"^({either})(?=: )", lambda found: names[found[1]], message)
    message = re.sub(rf"{_WORD_BEGINS}({either})=(?!=)", lambda found: f"{names[found[1]]} ", message).rstrip()
    return re.sub(rf"{_WORD_BEGINS}({long}){_WORD_ENDS}", lambda found: names[found[1]], message)
