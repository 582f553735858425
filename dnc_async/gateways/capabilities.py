"""What one gateway has shown that it can do. PURE.

The specification obliges a gateway to serve raw blocks and nothing else. Everything else is tried until it was refused, and
refusals are remembered: a gateway without CARs is asked for raw blocks from then on, and one that answers a range with the
whole file is asked for no more ranges.
"""

from __future__ import annotations

from collections import OrderedDict

from dnc_async.gateways.dag_range import CarQuery

_REMEMBERED = 4096
_REFUSALS = 2  # one may be an accident, such as a web page in place of every third answer


class Capabilities:
    """What is known of one gateway's capabilities. ``can_car``: whether requesting a CAR from it is worth a try."""

    def __init__(self, *, can_car: bool) -> None:
        self.can_car = can_car
        self.has_sent_car = False
        self.honours_ranges = True
        self._refusals = 0
        self._paths_without_car: OrderedDict[str, None] = OrderedDict()
        self._missing_roots: OrderedDict[str, None] = OrderedDict()

    def __repr__(self) -> str:
        car = (
            "CAR"
            if self.can_car and self.honours_ranges
            else "CAR of whole files"
            if self.can_car
            else "raw blocks only"
        )
        return f"<Capabilities {car}>"

    def allows(self, query: CarQuery) -> bool:
        """Whether this CAR may be requested."""
        return self.can_car and query.path not in self._paths_without_car and (self.honours_ranges or query.is_whole)

    def lacks_root(self, root: str) -> bool:
        """Whether the gateway said that it does not hold this root itself.

        It has to look for the root's blocks elsewhere, and finds them by the root only: requests have to name it.
        """
        return root in self._missing_roots

    def sent_car(self) -> None:
        """Record that the gateway sent a CAR with correct blocks."""
        self.has_sent_car, self._refusals = True, 0

    def refused_car(self) -> None:
        """Record that the gateway refused a CAR request: none are sent after the second, or the first if it never sent a CAR."""
        self._refusals += 1
        if self._refusals >= _REFUSALS or not self.has_sent_car:
            self.can_car = False

    def refused_path(self, path: str) -> None:
        """Record that the gateway sends no CAR of this path; its blocks may be requested one by one."""
        _remember(self._paths_without_car, path)

    def ignored_range(self) -> None:
        """Record that the gateway sent blocks outside the requested range."""
        self.honours_ranges = False

    def add_missing_root(self, root: str) -> None:
        """Record that the gateway does not hold this root itself."""
        _remember(self._missing_roots, root)


def _remember(among: OrderedDict[str, None], name: str) -> None:
    among[name] = None
    if len(among) > _REMEMBERED:
        among.popitem(last=False)
