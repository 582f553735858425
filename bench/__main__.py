"""``python -m bench idle`` and so on."""

from __future__ import annotations

import sys

from bench import (
    attack,
    budget,
    cost,
    download,
    fetch,
    files,
    hostile,
    idle,
    ipld,
    policy,
    scale,
    timeline,
    transform,
    wire,
)
from bench.peers import run as peers

BENCHES = {
    "attack": attack.main,
    "budget": budget.main,
    "cost": cost.main,
    "download": download.main,
    "fetch": fetch.main,
    "files": files.main,
    "hostile": hostile.main,
    "idle": idle.main,
    "ipld": ipld.main,
    "peers": peers.main,
    "policy": policy.main,
    "scale": scale.main,
    "timeline": timeline.main,
    "transform": transform.main,
    "wire": wire.main,
}


def main(arguments: list[str]) -> int:
    """Run one benchmark."""
    if not arguments or arguments[0] not in BENCHES:
        sys.stderr.write(f"usage: python -m bench {{{','.join(BENCHES)}}} [options]\n")
        return 2
    return BENCHES[arguments[0]](arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
