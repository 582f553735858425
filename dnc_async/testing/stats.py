"""The statistics of a scripted gateway."""

from __future__ import annotations

from dataclasses import dataclass

STATS_PATH = "/_scripted/stats"


@dataclass(frozen=True, kw_only=True)
class GatewayStats:
    """What a scripted gateway has done so far. Bytes are body bytes of blocks and CARs, as written."""

    requests: int = 0
    bytes_served: int = 0
    blocks_served: int = 0
    blocks_flipped: int = 0
    blocks_swapped: int = 0
    answered_busy: int = 0
    answered_late: int = 0
    answered_html: int = 0
    answered_miss: int = 0
    bodies: int = 0
    peak_connections: int = 0
