"""``python -m bench download``: one file from the reference gateway, by us, by plain GETs, by ipfsspec and by Lassie.

The gateway is boxo's (what Kubo and Rainbow serve with), built by Go from ``tests/interop/boxo``; the file has 300 MB in
leaves of 1 MiB. Each arm is a process of its own, timed from its start to its end as its user waits for it, and CPU seconds
are the client's. Plain GETs of the same blocks verify and keep nothing; ``dnc get`` verifies and writes the file; ipfsspec's
``cat`` takes the gateway's word, one stream into memory; Lassie verifies and writes a CAR.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.fetch import leaves_of
from bench.table import Line, show
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.ipld.cid import RAW
from dnc_async.store import BlockStore
from dnc_async.store.cars import export_car

_SIZE = 300 * 10**6
_BOXO = Path(__file__).parent.parent / "tests" / "interop" / "boxo"
_CAT = "import sys, fsspec; fsspec.filesystem('ipfs', gateway_addr=sys.argv[1]).cat_file(sys.argv[2])"


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m bench download", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--ipfsspec", metavar="PYTHON", help="an interpreter that has ipfsspec; without it, no such arm"
    )
    parser.add_argument(
        "--lassie", metavar="PROGRAM", default=shutil.which("lassie"), help="by default the one on the PATH"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    go = shutil.which("go")
    if go is None:
        sys.stderr.write("bench download: Go is needed to build the reference gateway, and is not on the PATH\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as name:
        folder = Path(name)
        subprocess.run([go, "build", "-trimpath", "-o", folder / "boxo", "."], cwd=_BOXO, check=True)  # noqa: S603
        root = _publish(folder)
        with _boxo(folder) as url:
            return show(_compared(folder, url, root, options), as_json=options.json)


def _compared(folder: Path, url: str, root: str, options: argparse.Namespace) -> Iterator[Line]:
    us = [sys.executable, "-m", "dnc_async", "get", root, "--gateway", url, "-o", str(folder / "out")]
    plain = [sys.executable, "-m", "bench", "fetch", "--arm", "plain", "--cids", str(folder / "leaves"), "--url", url]
    arms: dict[str, Sequence[str]] = {"plain GETs": plain, "dnc get": us}
    if options.ipfsspec:
        arms["ipfsspec"] = [options.ipfsspec, "-c", _CAT, url, root]
    if options.lassie:
        arms["Lassie"] = [options.lassie, "fetch", "-o", str(folder / "out"), "--providers", url, root]
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(options.repeats):
        for name, command in arms.items():
            wall, cpu = _timed(command, folder)
            seconds[name].append(wall)
            sys.stderr.write(f"{name:<12}{_SIZE / wall / 1e6:8.0f} MB/s {cpu / _SIZE * 1e9:7.2f} CPU-s/GB\n")
    for name, target in (("plain GETs", 0.55), ("ipfsspec", 2.0), ("Lassie", 2.5)):
        if name in arms:
            yield Line.least(f"dnc get, in rates of {name}", _ratio(seconds, name), target)


def _ratio(seconds: Mapping[str, Sequence[float]], other: str) -> float:
    return statistics.median(theirs / ours for theirs, ours in zip(seconds[other], seconds["dnc get"], strict=True))


def _timed(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    with contextlib.suppress(FileNotFoundError):
        (folder / "out").unlink()
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **home})  # noqa: S603 - the user's programs
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _publish(folder: Path) -> str:
    """The file as a CAR for the gateway, and the list of its leaves."""
    data = os.urandom(_SIZE)
    blocks, root = build_file(data, UNIXFS_V1_2025)
    store = BlockStore.open(folder / "store", create=True)
    with store.begin() as transaction:
        for block in blocks:
            transaction.put(block)
        transaction.commit(root.cid)
    with (folder / "file.car").open("wb") as sink:
        export_car(store, root.cid, sink)
    leaves = [str(cid) for cid in leaves_of(store, str(root.cid)) if cid.codec == RAW]
    (folder / "leaves").write_text("\n".join(leaves))
    return str(root.cid)


@contextlib.contextmanager
def _boxo(folder: Path) -> Iterator[str]:
    command = [str(folder / "boxo"), "-deserialized", str(folder / "file.car")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdin is not None  # noqa: S101 - for the type checker
        assert process.stdout is not None  # noqa: S101
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
