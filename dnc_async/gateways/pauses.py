"""Warns in the log when a gateway asks us to wait before the next request."""

from __future__ import annotations

from collections.abc import Sequence

from dnc_async.gateways.score import Score
from dnc_async.telemetry import logger

#: Shorter pauses than this are not logged.
_LOGGED_PAUSE_S = 5.0


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
