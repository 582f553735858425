"""The same rows give the same CID, whatever they came in; and no change of CIDs goes unnoticed."""

import csv
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc

from ..conftest import PATIENCE_S

ROWS, BATCH = 1000, 128
X = np.arange(ROWS * 6, dtype="<f8").reshape(ROWS, 6) / 7
Y = np.arange(ROWS, dtype="<i8") % 3
TEXT = [f"sample {i} ü 数" for i in range(ROWS)]

#: A release that changes one of them gives new links to rows that were published before, which then lie twice on every pin.
PINNED = {
    "dict": "bafybeibsnh2fza3cq7b3afve6ruodqoqvngbo3vjtnnwcsh6jjoz74dqze",
    "other order": "bafybeihjzmbaqzhmz7zjywruq6fqgc2jxfzmpnxqm3sxnwx34b2j6uzy2i",
    "tuple": "bafybeihejgnjymonpovqa6vsdwynuae5zz3cuykod5co4h6s6laofkwo2q",
    "array": "bafybeidh2wzvv544ih2n5mvd6nbihz426e7hjbdjlc2gqf3k7vewgdniwa",
    "text": "bafybeiheyrpiwwoyrusgu3lhafydjczofaynctwyeq2asmh63ybm23vjee",
    "many": "bafybeiey22jfl32v7h72nh7rnf4dubsn34ylkkdmvj37k4htzke75erioy",
    "leaves": "bafybeieger4rpawjnvej6oy44zte5erchbxcl5fm3ahfnelrlpx24kfjci",
}


async def cid(source: Any, store: Path, **options: Any) -> str:
    return (await dnc.upload(source, **{"batch_size": BATCH, "store": store / "store", **options})).cid


def table() -> dict[str, Any]:
    return {"x": X, "y": Y}


def pieces(*sizes: int) -> Iterator[dict[str, Any]]:
    at = 0
    for size in (*sizes, ROWS):
        yield {"x": X[at : at + size], "y": Y[at : at + size]}
        at += size


async def later(*sizes: int) -> AsyncIterator[dict[str, Any]]:
    for piece in pieces(*sizes):
        yield piece


def npz(folder: Path) -> Path:
    np.savez(folder / "t.npz", x=X, y=Y)
    return folder / "t.npz"


def compressed(folder: Path) -> Path:
    np.savez_compressed(folder / "t.npz", x=np.asfortranarray(X), y=Y)
    return folder / "t.npz"


SOURCES: dict[str, Callable[[Path], Any]] = {
    "lists": lambda _: {"x": X.tolist(), "y": Y.tolist()},
    "Fortran order": lambda _: {"x": np.asfortranarray(X), "y": Y},
    "big endian": lambda _: {"x": X.astype(">f8"), "y": Y.astype(">i8")},
    "strides": lambda _: {"x": np.repeat(X, 2, axis=0)[::2], "y": np.repeat(Y, 3)[::3]},
    "npz": npz,
    "compressed npz": compressed,
    "an iterable": lambda _: pieces(1, 500, 3),
    "a list of samples": lambda _: [{"x": x, "y": y} for x, y in zip(X, Y.tolist(), strict=True)],
    "samples with other orders of keys": lambda _: [
        {"x": X[0], "y": 0},
        *({"y": Y[i], "x": X[i]} for i in range(1, ROWS)),
    ],
    "an async iterable": lambda _: later(127, 1, 129),
    "a path as text": lambda folder: str(npz(folder)),
}


@pytest.mark.parametrize("name", SOURCES)
async def test_any_source(name: str, tmp_path: Path) -> None:
    """However the rows came."""
    assert await cid(SOURCES[name](tmp_path), tmp_path) == PINNED["dict"]


async def test_pinned(tmp_path: Path) -> None:
    """Each structure, text, enough chunks for a second page of the manifest, and chunks of several leaves."""
    assert await cid(table(), tmp_path) == PINNED["dict"]
    assert await cid((X, Y), tmp_path) == PINNED["tuple"]
    assert await cid(X, tmp_path) == PINNED["array"]
    assert await cid({"t": TEXT, "y": Y}, tmp_path) == PINNED["text"]
    assert await cid(np.arange(12_000, dtype="<i2"), tmp_path, batch_size=2) == PINNED["many"]
    assert await cid(np.arange(200_000, dtype="<i8"), tmp_path, batch_size=100_000) == PINNED["leaves"]


async def test_npy_is_the_array(tmp_path: Path) -> None:
    """Also in Fortran order, and in another version of the format."""
    np.save(tmp_path / "c.npy", X)
    np.save(tmp_path / "f.npy", np.asfortranarray(X))
    with (tmp_path / "v2.npy").open("wb") as file:
        np.lib.format.write_array(file, X, version=(2, 0))
    for name in ("c", "f", "v2"):
        assert await cid(tmp_path / f"{name}.npy", tmp_path) == PINNED["array"]


async def test_csv_is_the_dict(tmp_path: Path) -> None:
    """Numbers are numbers, text is text; the same as the columns in a dict."""
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["t", "y"])
        writer.writerows(zip(TEXT, Y.tolist(), strict=True))
    assert await cid(tmp_path / "t.csv", tmp_path) == PINNED["text"]


async def test_the_order_of_columns(tmp_path: Path) -> None:
    """Another order is another manifest over the same chunks, and batches keep it; a manifest without one is sorted."""
    published = [
        await dnc.upload(source, batch_size=BATCH, store=tmp_path / "s") for source in (table(), {"y": Y, "x": X})
    ]
    assert published[0].cid == PINNED["dict"]
    assert published[1].cid == PINNED["other order"]
    chunks = [await dnc.ls(f"{each}/chunks", store=tmp_path / "s") for each in published]
    assert chunks[0] == chunks[1]
    for each, names in zip(published, (["x", "y"], ["y", "x"]), strict=True):
        assert [column[0] for column in each.columns] == names
        assert [column[0] for column in (await dnc.inspect(each, store=tmp_path / "s")).columns] == names
        async for batch in dnc.stream(each, store=tmp_path / "s", disk_budget=0):
            assert list(batch) == names
            assert batch["x"].shape[1:] == (6,)


async def test_batch_size_by_bytes_is_a_function_of_the_rows(tmp_path: Path) -> None:
    """Also where the rows come in pieces, or the first one is tiny."""
    whole = await cid(table(), tmp_path, batch_size=None, chunk_bytes="8 kB")
    assert await cid(pieces(1, 1, 30), tmp_path, batch_size=None, chunk_bytes=8000) == whole


async def test_other_rows_other_cid(tmp_path: Path) -> None:
    """One bit, one dtype, one name."""
    flipped = X.copy()
    flipped[-1, -1] = np.nextafter(flipped[-1, -1], np.inf)
    others = [{"x": flipped, "y": Y}, {"x": X, "y": Y.astype("<i4")}, {"x": X, "z": Y}]
    found = {await cid(other, tmp_path) for other in others}
    assert len(found) == 3
    assert PINNED["dict"] not in found


async def test_nothing_is_written_twice(tmp_path: Path) -> None:
    """The same upload again adds no block, and the store holds what it held."""
    await cid(table(), tmp_path)

    def digest() -> str:
        files = sorted(path for path in (tmp_path / "store").rglob("*") if path.is_file())
        names = "\n".join(f"{path} {path.stat().st_ino}" for path in files if ".lock" not in path.name)
        return hashlib.sha256(names.encode()).hexdigest()

    before = digest()
    await cid(table(), tmp_path)
    assert digest() == before


MEMORY = """
import asyncio, resource, sys
import numpy as np
import dnc_async as dnc

def rows(blocks):
    for i in range(blocks):
        yield {"x": np.full((4096, 128), i, dtype="f4")}

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

asyncio.run(dnc.upload(rows(8), batch_size=4096, store=sys.argv[1] + "/a"))
before = peak()
asyncio.run(dnc.upload(rows(120), batch_size=4096, store=sys.argv[1] + "/b"))
print(peak() - before)
"""


def test_memory_is_bounded_by_the_batch(tmp_path: Path) -> None:
    """A dataset 15 times as large, 250 MB, takes hardly more memory: less than ten batches of 2 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert int(done.stdout) < 20 * 2**20


LARGE_ROWS = """
import asyncio, resource, sys
import numpy as np
import dnc_async as dnc

ROW = 64 * 2**20

def rows(count):
    for i in range(count):
        yield {"x": np.full((1, ROW), i, dtype="u1")}

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

asyncio.run(dnc.upload({"x": np.zeros((10, 10))}, store=sys.argv[1] + "/a"))
before = peak()
asyncio.run(dnc.upload(rows(3), batch_size=eval(sys.argv[2]), store=sys.argv[1] + "/b"))
print((peak() - before) / ROW)
"""


@pytest.mark.parametrize(("batch_size", "rows"), [(1, 1), (2, 2), (None, 2)])
def test_large_rows_are_held_once(batch_size: int | None, rows: int, tmp_path: Path) -> None:
    """A batch's rows, of which the last one is its maker's, and little beside them: what is encoded goes on as it is made."""
    words = [sys.executable, "-c", LARGE_ROWS, str(tmp_path), str(batch_size)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert float(done.stdout) < rows + 0.7
