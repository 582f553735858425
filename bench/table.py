"""A table of measured figures beside their targets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table."""

    what: str
    measured: float
    unit: str
    target: str
    met: bool

    @classmethod
    def least(cls, what: str, measured: float, target: float) -> Line:
        """A ratio that is to be at least so large."""
        return cls(what=what, measured=measured, unit="", target=f">= {target:g}", met=measured >= target)

    @classmethod
    def most(cls, what: str, measured: float, target: float, unit: str) -> Line:
        """A figure that is to be at most so large."""
        return cls(what=what, measured=measured, unit=unit, target=f"<= {target:g}", met=measured <= target)

    @classmethod
    def plain(cls, what: str, measured: float, unit: str) -> Line:
        """A figure without a target, for comparison."""
        return cls(what=what, measured=measured, unit=unit, target="", met=True)


def show(lines: Iterable[Line], *, as_json: bool) -> int:
    """Print lines as they are measured; the exit status says whether every target was met."""
    shown: list[Line] = []
    out = sys.stderr if as_json else sys.stdout
    for line in lines:
        shown.append(line)
        mark = "" if not line.target else "ok" if line.met else "MISSED"
        out.write(f"{line.what:<68}{line.measured:>9.3f} {line.unit:<6} {line.target:<9} {mark}\n")
        out.flush()
    if as_json:
        sys.stdout.write(json.dumps([asdict(line) for line in shown]) + "\n")
    return 0 if all(line.met for line in shown) else 1
