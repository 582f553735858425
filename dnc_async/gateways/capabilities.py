"""What one gateway has shown that it can do. PURE.

Raw blocks are the specification's only MUST. Everything else is hoped for until it was refused, and what was refused is
remembered: a gateway without CARs is asked for blocks from then on, and one that sends the whole file where a range was
asked for gets no more ranges.
"""

from __future__ import annotations

from collections import OrderedDict

from dnc_async.gateways.spans import CarAsk

_REMEMBERED = 4096
_REFUSALS = 2  # one may be an accident, such as a web page in place of every third answer


class Capabilities:
    """A gateway's, as far as they are known. ``can_car`` is whether it is worth asking for a CAR."""

    def __init__(self, *, can_car: bool) -> None:
        self.can_car = can_car
        self.has_sent_car = False
        self.keeps_ranges = True
        self._refusals = 0
        self._without_car: OrderedDict[str, None] = OrderedDict()
        self._cold: OrderedDict[str, None] = OrderedDict()

    def __repr__(self) -> str:
        car = (
            "CAR" if self.can_car and self.keeps_ranges else "CAR of whole files" if self.can_car else "raw blocks only"
        )
        return f"<Capabilities {car}>"

    def allows(self, ask: CarAsk) -> bool:
        """Whether this CAR may be asked for."""
        return self.can_car and ask.path not in self._without_car and (self.keeps_ranges or ask.is_whole)

    def is_cold(self, root: str) -> bool:
        """Whether it said that it would have to look for this root elsewhere, so that it should be named to it."""
        return root in self._cold

    def sent_car(self) -> None:
        """A CAR came, and blocks of it were right."""
        self.has_sent_car, self._refusals = True, 0

    def refused_car(self) -> None:
        """It does not understand such requests: none are sent after the second, or the first if no CAR ever came."""
        self._refusals += 1
        if self._refusals >= _REFUSALS or not self.has_sent_car:
            self.can_car = False

    def refused_path(self, path: str) -> None:
        """It sends no CAR of this DAG; blocks of it may be had one by one."""
        _remember(self._without_car, path)

    def ignored_range(self) -> None:
        """It sent what lies outside of the range that was asked for."""
        self.keeps_ranges = False

    def lacks_root(self, root: str) -> None:
        """It does not hold this root itself."""
        _remember(self._cold, root)


def _remember(among: OrderedDict[str, None], name: str) -> None:
    among[name] = None
    if len(among) > _REMEMBERED:
        among.popitem(last=False)
