"""Warns in the log when a gateway asks us to wait before the next request, or when none of those that are asked delivers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dnc_async.gateways.score import Score
from dnc_async.telemetry import logger

#: Shorter pauses than this are not logged.
_LOGGED_PAUSE_S = 5.0
#: How long a block may be overdue before that is logged.
_LOGGED_SILENCE_S = 5.0


class PauseWarnings:
    """The warnings, one for each pause of each gateway."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"<PauseWarnings for {len(self._until)} gateways>"

    def warn(self, gateway: int, name: str, pause_s: float, now: float, scores: Sequence[Score]) -> None:
        """Log that a gateway asked for a pause, and whether any other gateway can be asked meanwhile."""
        if pause_s < _LOGGED_PAUSE_S or now < self._until.get(gateway, now):
            return
        self._until[gateway] = now + pause_s
        others = any(score.paused_until <= now for i, score in enumerate(scores) if i != gateway)
        meanwhile = "others are asked meanwhile" if others else "nobody else can be asked meanwhile"
        logger.warning("%s asked us to come back in %.0f s; %s", name, pause_s, meanwhile)


class SilenceWarnings:
    """The warnings, one for each time that a gateway delivers nothing while no other can."""

    def __init__(self) -> None:
        self._told: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"<SilenceWarnings for {len(self._told)} gateways>"

    def look(self, now: float, names: Sequence[str], scores: Sequence[Score]) -> float:
        """Log which gateways are silent, if all are silent or paused; returns when to look again."""
        look_at = math.inf
        for gateway, score in enumerate(scores):
            since, due = score.waits_since, score.overdue_at() + _LOGGED_SILENCE_S
            if self._told.get(gateway) == since:
                continue
            if due > now:
                look_at = min(look_at, due)
            elif all(each.paused_until > now or each.overdue_at() <= now for each in scores):
                self._told[gateway] = since
                logger.warning("%s has delivered nothing for %.0f s; still waiting", names[gateway], now - since)
        return look_at
