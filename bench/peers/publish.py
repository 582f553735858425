"""The datasets, one for each format, made once below a folder and kept: the same samples in all of them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import dnc_async as dnc
from bench.peers.arm import Shape
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.ipld.cid import Cid
from dnc_async.store import BlockStore
from dnc_async.store.cars import export_car

MIRROR = "mirror/"
STORE = "store"
_SUFFIXES = (".bin", ".lance", ".mds", ".parquet", ".tar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One dataset in one format: its data files in order, below the web server's folder ``form``; its root, if it has one."""

    form: str
    files: tuple[str, ...]
    root: str = ""


def made(folder: Path, form: str, shape: Shape, command: Sequence[str]) -> Made:
    """The dataset in a format, from before or made now; ``command`` writes the peers' own formats."""
    note = folder / f"{form}.json"
    if note.exists():
        told = json.loads(note.read_text())
        if told.pop("shape") == asdict(shape):
            return Made(form=form, files=tuple(told["files"]), root=told["root"])
    sys.stderr.write(f"making the dataset as {form} …\n")
    target = folder / "www" / form
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    files, root = _write(target, form, shape, command)
    note.write_text(json.dumps({"shape": asdict(shape), "files": files, "root": root}))
    return Made(form=form, files=tuple(files), root=root)


def _write(target: Path, form: str, shape: Shape, command: Sequence[str]) -> tuple[list[str], str]:
    if form == "car":
        return ["data.car"], asyncio.run(_car(target, shape))
    if form == "ipfs":
        return _ipfs(target, shape), ""
    subprocess.run([*command, "write", json.dumps(asdict(shape)), str(target)], check=True, stdout=sys.stderr)  # noqa: S603
    paths = [path for path in target.rglob("*") if path.suffix in _SUFFIXES and path.is_file()]
    files = [path.relative_to(target).as_posix() for path in sorted(paths, key=_place)]
    if len(files) != shape.shards:
        raise RuntimeError(
            f"{form}: its writer made {len(files)} shards, expected {shape.shards}: the arms are not alike"
        )
    return files, ""


def _place(path: Path) -> list[int]:
    """Where a shard belongs: by the numbers in its name; LanceDB's names are random, but it writes one after the other."""
    if path.suffix == ".lance":
        return [path.stat().st_mtime_ns]
    return [int(number) for number in re.findall(r"\d+", path.name)]


async def _car(target: Path, shape: Shape) -> str:
    """What ``dnc upload`` and ``dnc export --indexed`` make, both kept; and the file under a second name."""

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for first in range(0, shape.samples, shape.batch_samples):
            data = b"".join(map(shape.sample, range(first, first + shape.batch_samples)))
            yield {"x": np.frombuffer(data, np.uint8).reshape(shape.batch_samples, shape.sample_bytes)}

    store = target.parent.parent / STORE
    shutil.rmtree(store, ignore_errors=True)
    done = await dnc.upload(rows(), batch_size=shape.batch_samples, store=store)
    with (target / "data.car").open("wb") as sink:
        export_car(BlockStore.open(store), Cid.parse(done.cid), sink, indexed=True)
    (target / MIRROR).mkdir()
    (target / MIRROR / "data.car").symlink_to("../data.car")
    return done.cid


def _ipfs(target: Path, shape: Shape) -> list[str]:
    """Each shard's bytes as a file, named as a gateway that is trusted names it."""
    (target / "ipfs").mkdir()
    files = []
    for shard in range(shape.shards):
        data = b"".join(shape.shard(shard))
        blocks = build_file(data, UNIXFS_V1_2025)[1]
        files.append(f"ipfs/{blocks.cid}")
        (target / files[-1]).write_bytes(data)
    return files
