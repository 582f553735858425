"""Errors in the shell's words: the library names Python's arguments, and a command has options."""

from __future__ import annotations

import argparse
import re

#: Arguments that are called otherwise in the shell. All others are options of the same name.
_RENAMED = {"disk_budget": "budget", "gateways": "gateway", "routers": "router"}
_WORD_BEGINS, _WORD_ENDS = r"(?<![\w/.'\"=-])", r"(?![\w/.'\"=-])"


def in_shell_words(message: str, options: argparse.Namespace) -> str:
    """Name a command's options where a message names arguments: ``disk_budget: …`` becomes ``--budget: …``.

    That is at the message's beginning, before a value (``disk_budget=0`` becomes ``--budget 0``), and where a name has an
    underscore and so is no plain word. What is quoted stays as it is, and so do paths.
    """
    names = {name: f"--{name.replace('_', '-')}" for name in vars(options)}
    names |= {name: f"--{option}" for name, option in _RENAMED.items() if option in names}
    either = "|".join(map(re.escape, names))
    long = "|".join(re.escape(name) for name in names if "_" in name) or "(?!)"
    message = re.sub(rf"^({either})(?=: )", lambda found: names[found[1]], message)
    message = re.sub(rf"{_WORD_BEGINS}({either})=(?=[\w'\"])", lambda found: f"{names[found[1]]} ", message)
    return re.sub(rf"{_WORD_BEGINS}({long}){_WORD_ENDS}", lambda found: names[found[1]], message)
