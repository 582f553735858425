"""``python -m bench files``: one file from four shaped gateways: by ``get`` to a disk and to memory, and by ``open`` in pieces.

Each gateway is a process of its own that sends 20 MB/s over all its connections; the file has 320 MB in leaves of 1 MiB. Each
arm is a process, too, timed without its start and imports; the arms of a round run one after the other. ``get`` flushes the file
to the disk before it returns. What ``open`` reads, from gateways that are 50 ms away, is compared with ``get`` from the same ones
in the same round, into a memory file system where there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dnc_async as dnc
from bench.table import Line, show
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.store import BlockStore
from dnc_async.testing import GatewayProcess

_SIZE = 320 * 10**6
_GATEWAYS, _RATE = 4, 20 * 10**6
_NEAR, _FAR = f"rate={_RATE}", f"rate={_RATE},latency=50ms"
_MEMORY = Path("/dev/shm")  # noqa: S108 - a temporary folder is made in it
_PIECES = {"4 MiB": 4 * 2**20, "64 KiB": 64 * 2**10}


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m bench files", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--disk", type=Path, help="a folder on the disk to write to; by default one for temporary files"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--arm", nargs=3, metavar=("PIECE", "OUT", "ROOT"), help=argparse.SUPPRESS)
    parser.add_argument("--urls", nargs="+", default=(), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.arm:
        piece, out, root = options.arm
        sys.stdout.write(json.dumps(asyncio.run(_arm(piece, out, root, options.urls))) + "\n")
        return 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dnc-bench-", dir=options.disk)))
        outs = {"disk": folder}
        if _MEMORY.is_dir():
            outs["memory"] = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dnc-bench-", dir=_MEMORY)))
        root = _publish(folder / "store")
        near, far = (
            [stack.enter_context(GatewayProcess(folder / "store", faults)).url for _ in range(_GATEWAYS)]
            for faults in (_NEAR, _FAR)
        )
        return show(_compared(outs, root, near, far, options.repeats), as_json=options.json)


async def _arm(piece: str, out: str, root: str, urls: Sequence[str]) -> float:
    """Seconds that one arm takes: to ``get`` the file, or to read it in pieces."""
    import dnc_async.gateways.http  # noqa: F401, PLC0415 - before the clock runs

    began = time.perf_counter()
    if piece == "get":
        await dnc.get(root, out, gateways=urls)
    else:
        async with dnc.open(root, gateways=urls) as file:
            while await file.read(_PIECES[piece]):
                pass
    return time.perf_counter() - began


def _compared(
    outs: Mapping[str, Path], root: str, near: Sequence[str], far: Sequence[str], repeats: int
) -> Iterator[Line]:
    arms = {f"get to the {name}": ("get", str(folder / "out"), near) for name, folder in outs.items()}
    arms["get, 50 ms away"] = "get", str(list(outs.values())[-1] / "out"), far
    arms |= {f"open(), read in pieces of {piece}": (piece, "-", far) for piece in _PIECES}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, (piece, out, urls) in arms.items():
            command = [sys.executable, "-m", "bench", "files", "--arm", piece, out, root, "--urls", *urls]
            os.sync()  # what the arm before left to be written
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - ourselves
            seconds[name].append(json.loads(done.stdout))
            sys.stderr.write(f"{name:<32}{_SIZE / seconds[name][-1] / 1e6:7.1f} MB/s\n")
            Path(out).unlink(missing_ok=True)
    for where in outs:
        name = f"get to the {where}"
        share = _SIZE / statistics.median(seconds[name]) / (_GATEWAYS * _RATE)
        yield Line.least(f"{name}, of the sum of {_GATEWAYS} gateways", share, 0.93)
    for piece, target in zip(_PIECES, (0.9, 0.8), strict=True):
        name = f"open(), read in pieces of {piece}"
        pairs = zip(seconds["get, 50 ms away"], seconds[name], strict=True)
        yield Line.least(f"{name}, in rates of get", statistics.median(a / b for a, b in pairs), target)


def _publish(path: Path) -> str:
    blocks, root = build_file(os.urandom(_SIZE), UNIXFS_V1_2025)
    store = BlockStore.open(path, create=True)
    with store.begin() as transaction:
        for block in blocks:
            transaction.put(block)
        transaction.commit(root.cid)
    return str(root.cid)
