"""``python -m bench download``: one file from the reference gateway, by us, by plain GETs, by ipfsspec and by Lassie.

The gateway is boxo's (what Kubo and Rainbow serve with), built by Go from ``tests/interop/boxo``; the file has 300 MB in
leaves of 1 MiB. Each arm is a process of its own; the Python ones are timed without their start and imports, Lassie as a
whole. Plain GETs of the same blocks verify and keep nothing; ``cat`` verifies into memory, ``get`` verifies, writes the file
and flushes it to the disk; ipfsspec's ``cat`` takes the gateway's word, one stream into memory; Lassie verifies and writes a CAR.
"""

from __future__ import annotations

import argparse
import contextlib
import json
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
# Run by another interpreter, too, which has no dnc_async.
_TIMED = """
import json, resource, sys, time
{imports}
used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
cpu, began = used(), time.perf_counter()
{call}
print(json.dumps(dict(seconds=time.perf_counter() - began, cpu_s=used() - cpu)))
"""
_CAT = _TIMED.format(
    imports="import asyncio, dnc_async as dnc; dnc.cat; import dnc_async.gateways.http",
    call="async def main(): await dnc.cat(sys.argv[2], gateways=sys.argv[1])\nasyncio.run(main())",
)
_GET = _TIMED.format(
    imports="import asyncio, dnc_async as dnc; dnc.get; import dnc_async.gateways.http",
    call="asyncio.run(dnc.get(sys.argv[2], sys.argv[3], gateways=sys.argv[1]))",
)
_IPFSSPEC = _TIMED.format(
    imports="import fsspec; files = fsspec.filesystem('ipfs', gateway_addr=sys.argv[1])",
    call="files.cat_file(sys.argv[2])",
)


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
    out = str(folder / "out")
    plain = [sys.executable, "-m", "bench", "fetch", "--arm", "plain", "--cids", str(folder / "leaves"), "--url", url]
    arms: dict[str, Sequence[str]] = {
        "plain GETs": plain,
        "cat": [sys.executable, "-c", _CAT, url, root],
        "get": [sys.executable, "-c", _GET, url, root, out],
    }
    if options.ipfsspec:
        arms["ipfsspec"] = [options.ipfsspec, "-c", _IPFSSPEC, url, root]
    if options.lassie:
        arms["Lassie"] = [options.lassie, "fetch", "-o", out, "--providers", url, root]
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(options.repeats):
        for name, command in arms.items():
            wall, cpu = _timed(command, folder)
            seconds[name].append(wall)
            sys.stderr.write(f"{name:<12}{_SIZE / wall / 1e6:8.0f} MB/s {cpu / _SIZE * 1e9:7.2f} CPU-s/GB\n")
    for name, target in (("plain GETs", 0.7), ("ipfsspec", 2.0), ("Lassie", 2.5)):
        if name in arms:
            yield Line.least(f"cat, verified into memory, in rates of {name}", _ratio(seconds, "cat", name), target)
    if "Lassie" in arms:
        yield Line.least("get, verified onto the disk, in rates of Lassie", _ratio(seconds, "get", "Lassie"), 2.5)


def _ratio(seconds: Mapping[str, Sequence[float]], ours: str, other: str) -> float:
    return statistics.median(theirs / mine for theirs, mine in zip(seconds[other], seconds[ours], strict=True))


def _timed(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a process, as it tells them if it does."""
    with contextlib.suppress(FileNotFoundError):
        (folder / "out").unlink()
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, env={**os.environ, **home})  # noqa: S603 - the user's
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    with contextlib.suppress(ValueError, LookupError):
        told = json.loads(done.stdout.splitlines()[-1])
        return told["seconds"], told["cpu_s"]
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
