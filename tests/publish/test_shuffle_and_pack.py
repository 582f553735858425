"""Samples in an order that follows from a seed, documents packed to one length, and the names of classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.dataset.formats import tokens
from dnc_async.dataset.order.permutation import permuted
from dnc_async.dataset.schema import Schema
from dnc_async.errors import ManifestError
from dnc_async.publish import shuffling

from .rounds import publish

N = 50
X, T = np.arange(N), [f"w{i}" for i in range(N)]


class Indexed:
    def __len__(self) -> int:
        return N

    def __getitem__(self, row: int) -> Any:
        return {"x": np.int64(row), "t": T[row]}


def csv(folder: Path) -> Path:
    (folder / "t.csv").write_text("x,t\n" + "".join(f"{i},w{i}\n" for i in range(N)))
    return folder / "t.csv"


def npz(folder: Path) -> Path:
    np.savez(folder / "t.npz", x=X, t=np.array(T))
    return folder / "t.npz"


SOURCES: dict[str, Callable[[Path], Any]] = {
    "a dict": lambda _: {"x": X, "t": T},
    "a dict of bytes": lambda _: {"x": X, "t": [text.encode() for text in T]},
    "samples": lambda _: [{"x": i, "t": T[i]} for i in range(N)],
    "a dataset": lambda _: Indexed(),
    "a CSV": csv,
    "arrays in a file": npz,
}


def test_the_permutation() -> None:
    """It is the same for ever: datasets that were published with it have the same CIDs."""
    assert permuted(10, 0).tolist() == [2, 5, 1, 7, 9, 3, 6, 0, 8, 4]
    assert sorted(permuted(1000, -1).tolist()) == list(range(1000))
    assert permuted(1000, 1).tolist() != permuted(1000, 2).tolist()


@pytest.mark.parametrize("name", SOURCES)
async def test_shuffled(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By index, however the rows arrive."""
    monkeypatch.setattr(shuffling, "_BLOCK_BYTES", 100)
    _, found = await publish(SOURCES[name](tmp_path), tmp_path, shuffle=7)
    order = permuted(N, 7).tolist()
    assert found["x"] == order
    assert [text if isinstance(text, str) else text.decode() for text in found["t"]] == [T[i] for i in order]


async def test_one_array_and_a_tuple(tmp_path: Path) -> None:
    order = permuted(N, 3).tolist()
    assert (await publish(X, tmp_path, shuffle=3))[1] == order
    assert (await publish((X, X.astype("f4")), tmp_path, shuffle=3))[1] == (order, [float(i) for i in order])
    assert (await publish(X, tmp_path, shuffle=False))[1] == X.tolist()


async def test_what_cannot_be_shuffled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read once, and a file that does not fit."""

    async def later() -> Any:
        yield {"x": X}

    for source in (iter([{"x": X}]), later(), (i for i in range(3))):
        with pytest.raises(dnc.ArgumentError, match=r"shuffle: a .* can be read once"):
            await dnc.upload(source, shuffle=1, store=tmp_path / "store")
    with pytest.raises(dnc.ArgumentError, match="shuffle: a generator can be read once"):
        await dnc.upload((d for d in [[1]]), shuffle=1, pack=2, store=tmp_path / "store")
    monkeypatch.setattr(shuffling, "_MOST_HELD_BYTES", 10)
    with pytest.raises(dnc.DatasetError, match=r"t\.csv: more than 10 bytes of rows"):
        await dnc.upload(csv(tmp_path), shuffle=1, store=tmp_path / "store")
    monkeypatch.undo()
    (tmp_path / "a.npy").unlink(missing_ok=True)
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", X.astype("f4"))
    with pytest.raises(dnc.DatasetError, match=r"has an? array"):
        await dnc.upload([tmp_path / "a.npy", tmp_path / "b.npy"], shuffle=1, store=tmp_path / "store")


DOCUMENTS = [[1, 2, 3], [4], [], [5, 6, 7, 8, 9], [10]]
PACKED = {
    "tokens": [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 0]],
    "document": [[0, 0, 0, 1], [3, 3, 3, 3], [3, 4, -1, -1]],
}


def documents() -> Iterator[Any]:
    yield from (np.array(each, dtype=np.int64) for each in DOCUMENTS)


def lines(folder: Path) -> Path:
    (folder / "t.jsonl").write_text("".join(json.dumps({"tokens": each, "n": 1}) + "\n" for each in DOCUMENTS))
    return folder / "t.jsonl"


@pytest.mark.parametrize("block", [1, 2**20])
@pytest.mark.parametrize(
    "source",
    [
        lambda _: documents(),
        lambda _: list(documents()),
        lambda _: [{"tokens": each} for each in documents()],
        lines,
    ],
)
async def test_packed(source: Any, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, each token with the number of its document; nothing is lost."""
    monkeypatch.setattr(tokens, "_BLOCK_TOKENS", block)
    if source is lines:
        pytest.importorskip("pyarrow")
    _, found = await publish(source(tmp_path), tmp_path, pack=4)
    assert found == PACKED


async def test_rows_are_documents(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.arange(6).reshape(3, 2))
    _, found = await publish(tmp_path / "t.npy", tmp_path, pack=3)
    assert found == {"tokens": [[0, 1, 2], [3, 4, 5]], "document": [[0, 0, 1], [1, 2, 2]]}
    np.savez(tmp_path / "t.npz", ids=np.arange(6).reshape(3, 2), n=np.arange(3))
    assert (await publish(tmp_path / "t.npz", tmp_path, pack=3))[1] == found


NO_DOCUMENTS: dict[str, tuple[Any, str]] = {
    "text": (["hello"], "a document is a list of tokens, not str"),
    "floats": ([[1, 2], [0.5]], "document 1: no whole numbers on one axis"),
    "unlike types": ([np.array([1], "i8"), np.array([1], "i4")], "document 1: int32, and int64 before"),
    "another key": ([{"ids": [1]}], "a document without 'tokens', with 'ids'"),
    "nothing": ([], "no samples"),
}


@pytest.mark.parametrize("name", NO_DOCUMENTS)
async def test_no_documents(name: str, tmp_path: Path) -> None:
    source, message = NO_DOCUMENTS[name]
    with pytest.raises(dnc.DatasetError, match=message):
        await dnc.upload(source, pack=4, store=tmp_path / "store")


async def test_no_source_of_documents(tmp_path: Path) -> None:
    for source in ({"tokens": [[1]]}, 5):
        with pytest.raises(dnc.ArgumentError, match="pack: expected documents, one after the other"):
            await dnc.upload(source, pack=4, store=tmp_path / "store")
    with pytest.raises(dnc.DatasetError, match="expected a column 'tokens' of lists of whole numbers, found x, t"):
        await dnc.upload(csv(tmp_path), pack=4, store=tmp_path / "store")


async def test_names_of_classes(tmp_path: Path) -> None:
    """Are with the dataset."""
    for name in ("b", "a"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(b"x")
    done = await dnc.upload(tmp_path / "data", store=tmp_path / "store")
    assert (await dnc.inspect(done, store=tmp_path / "store")).classes == {"label": ("a", "b")}
    wire = {"structure": "dict", "columns": [["label", "<i8", []]]}
    assert Schema.from_wire({**wire, "classes": [["label", ["a"]]]}).classes == (("label", ("a",)),)
    for classes in ({}, [["x", ["a"]]], [["label", [1]]], ["label"]):
        with pytest.raises(ManifestError, match="names of classes"):
            Schema.from_wire({**wire, "classes": classes})
