"""The formats but CSV and numpy's: what is read of each, what is refused with its place, and folders of them."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.dataset import formats
from dnc_async.dataset.formats import json_lines, tar, text_files, tokens
from dnc_async.dataset.order.permutation import permuted

from .rounds import publish

NAN = float("nan")
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"


def lines(*values: Any) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def tensors(header: dict[str, Any], data: bytes) -> bytes:
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def tensor(kind: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


def tarred(*members: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def linked(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "elsewhere"
    return info


APART = tarred(("a.txt", b"x"), ("b.txt", b"y"), ("a.cls", b"1"), ("b.cls", b"2"))
B16 = np.array([1.5, -2.0], "<f4").view("<u4") >> 16

READ: dict[str, tuple[str, bytes, dict[str, Any], Any]] = {
    "objects": ("t.jsonl", lines({"b": 1, "a": "x"}, {"a": "y", "b": 2}), {}, {"b": [1, 2], "a": ["x", "y"]}),
    "a list of objects": ("t.json", json.dumps([{"a": 1}, {"a": 2}]).encode(), {}, {"a": [1, 2]}),
    "a list in lines": ("t.json", json.dumps([{"a": 1}, {"a": 2}], indent=1).encode(), {}, {"a": [1, 2]}),
    "keys that are missing": (
        "t.jsonl",
        lines({"a": 1}, {"a": 2, "t": "x"}, {"a": None, "t": "y"}),
        {},
        {"a": [1, 2, 0], "a__valid": [True, True, False], "t": ["", "x", "y"], "t__valid": [False, True, True]},
    ),
    "objects in objects": (
        "t.jsonl",
        lines({"m": {"a": 1, "b": "x"}}, {"m": None}, {"m": {"a": 2, "b": "y"}}),
        {},
        {"m.a": [1, 0, 2], "m.a__valid": [1, 0, 1], "m.b": ["x", "", "y"], "m.b__valid": [1, 0, 1]},
    ),
    "numbers": (
        "t.jsonl",
        lines(
            {"f": 1, "u": 2**64 - 1, "n": None, "b": True, "l": [1, 2]},
            {"f": 2.5, "u": 1, "n": None, "b": False, "l": [3, 4]},
        ),
        {},
        {"f": [1.0, 2.5], "u": [2**64 - 1, 1], "n": [NAN, NAN], "b": [True, False], "l": [[1, 2], [3, 4]]},
    ),
    "ISO dates in JSON": ("t.jsonl", lines({"t": "2024-01-05"}), {}, {"t": ["2024-01-05"]}),
    "a mark and CRLF": ("t.ndjson", b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n', {}, {"a": [1, 2]}),
    "compressed objects": ("t.jsonl.gz", gzip.compress(lines({"a": 1})), {}, {"a": [1]}),
    "objects without a suffix": ("data", lines({"a": 1}), {}, {"a": [1]}),
    "a fill": ("t.jsonl", lines({"a": "x", "n": 1}, {"n": 2}), {"missing": "fill"}, {"a": ["x", ""], "n": [1, 2]}),
    "text": ("t.txt", b"\xef\xbb\xbfone\r\n\ntwo\nthree", {}, {"text": ["one", "", "two", "three"]}),
    "CR alone": ("t.txt", b"a\rb\rc", {}, {"text": ["a", "b", "c"]}),
    "Latin-1": ("t.txt", "grün\n".encode("latin-1"), {"encoding": "latin-1"}, {"text": ["grün"]}),
    "UTF-16": ("t.txt", "grün\n".encode("utf-16"), {}, {"text": ["grün"]}),
    "compressed text": ("t.txt.bz2", __import__("bz2").compress(b"a\nb\n"), {}, {"text": ["a", "b"]}),
    "labels": ("t10k-labels-idx1-ubyte", idx(np.array([3, 1], "u1")), {}, [3, 1]),
    "compressed labels": ("labels-idx1-ubyte.gz", gzip.compress(idx(np.array([3, 1], "u1"))), {}, [3, 1]),
    "big-endian floats": ("t.idx", idx(np.array([[1.5], [2]], ">f4"), 0x0D), {}, [[1.5], [2.0]]),
    "tensors": (
        "t.safetensors",
        tensors(
            {
                "__metadata__": {"x": "y"},
                "z": tensor("I16", [2], 0, 4),
                "a": tensor("BF16", [2], 4, 8),
                "e": tensor("F32", [2, 0], 8, 8),
            },
            np.array([1, 2], "<i2").tobytes() + B16.astype("<u2").tobytes(),
        ),
        {},
        {"z": [1, 2], "a": [1.5, -2.0], "e": [[], []]},
    ),
    "tokens": ("t.bin", np.arange(3, dtype="<u2").tobytes(), {"dtype": "<u2"}, [0, 1, 2]),
    "records": (
        "t.bin",
        b"\1abc\2def",
        {"dtype": "u1, 3u1"},
        {"f0": [1, 2], "f1": [[97, 98, 99], [100, 101, 102]]},
    ),
    "windows": (
        "t.bin",
        np.arange(7, dtype="<u2").tobytes(),
        {"dtype": "<u2", "length": 3},
        {"tokens": [[0, 1, 2], [3, 4, 5]]},
    ),
    "windows that overlap": (
        "t.bin",
        np.arange(5, dtype="u1").tobytes(),
        {"dtype": "u1", "length": 3, "stride": 1},
        {"tokens": [[0, 1, 2], [1, 2, 3], [2, 3, 4]]},
    ),
    "windows with gaps": (
        "t.bin",
        np.arange(8, dtype="u1").tobytes(),
        {"dtype": "u1", "length": 2, "stride": 3},
        {"tokens": [[0, 1], [3, 4], [6, 7]]},
    ),
    "a tar": (
        "t.tar",
        tarred(("a/1.jpg", JPEG), ("a/1.cls", b"3"), ("./a/2.JPG", PNG), ("a/2.cls", b"-4\n"), ("a/._2.jpg", b"")),
        {},
        {"__key__": ["a/1", "a/2"], "jpg": [JPEG, PNG], "cls": [3, -4]},
    ),
    "a compressed tar": (
        "t.tgz",
        tarred(("1.left.png", b"l"), ("1.right.png", b"r"), mode="w:gz"),
        {},
        {"__key__": ["1"], "left.png": [b"l"], "right.png": [b"r"]},
    ),
    "members apart": ("t.tar", APART, {}, {"__key__": ["a", "b"], "txt": ["x", "y"], "cls": [1, 2]}),
    "a member that is missing": (
        "t.tar",
        tarred(("a.txt", b"x"), ("b.cls", b"1"), ("b.txt", b"y")),
        {},
        {"__key__": ["a", "b"], "txt": ["x", "y"], "cls": [0, 1], "cls__valid": [False, True]},
    ),
    "classes that are words": (
        "t.tar",
        tarred(("a.cls", b"1"), ("b.cls", b"dog"), ("c.cls", b"2")),
        {},
        {"__key__": ["a", "b", "c"], "cls": ["1", "dog", "2"]},
    ),
    "one image": ("t.png", PNG, {}, {"image": [PNG]}),
    "a sound": ("t.flac", b"fLaC", {}, {"audio": [b"fLaC"]}),
}

REFUSED: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    "a type that changes": (
        "t.jsonl",
        lines({"a": 1}, {"a": "x"}),
        {},
        "line 2, key 'a': text, and a whole number in line 1",
    ),
    "whole numbers among fractions": (
        "t.jsonl",
        lines({"a": 0.5}, {"a": 2**53 + 1}),
        {},
        "line 2, key 'a': 9007199254740993",
    ),
    "65 bits and a sign": ("t.jsonl", lines({"a": 2**63}, {"a": -1}), {}, "line 1, key 'a': 9223372036854775808"),
    "ragged lists": ("t.jsonl", lines({"a": [1]}, {"a": [1, 2]}), {}, "column 'a', row 1: a list of 2 values"),
    "empty lists": ("t.jsonl", lines({"a": []}), {}, "column 'a': lists without values"),
    "a scalar": ("t.jsonl", b"1\n", {}, "line 1: '1' is no object"),
    "a list a line": ("t.jsonl", b"[1]\n[2]\n", {}, "line 1: (a list|no JSON)"),
    "a list of numbers": ("t.json", b"[1]", {}, "line 1: a list; expected one JSON object a line"),
    "broken": ("t.jsonl", b'{"a": 1}\n\n{"a": \n', {}, "line 3: no JSON"),
    "half a character": ("t.jsonl", b'{"a": "x"}\n{"a": "\\ud800"}\n', {}, "line 2: half a character"),
    "a key twice": ("t.jsonl", b'{"a": 1, "a": 2}\n', {}, "line 1: .*the key 'a' stands twice"),
    "nested deeply": ("t.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", {}, "line 1: (nested|no JSON)"),
    "no objects": ("t.jsonl", b"\n", {}, "no records"),
    "no keys": ("t.jsonl", b"{}\n", {}, "none with a key"),
    "text that is none": ("t.txt", b"a\nb\xff\n", {}, "line 2: not UTF-8 text"),
    "a zero byte": ("t.txt", b"a\nb\0\n", {}, "line 2: a zero byte"),
    "a cut .gz": ("t.txt.gz", gzip.compress(b"a\n" * 5000)[:-9], {}, r"damaged or cut off, no valid \.gz data"),
    "a cut idx": ("t.idx", idx(np.zeros(5, "u1"))[:-1], {}, "ends before its last row"),
    "a long idx": ("t.idx", idx(np.zeros(5, "u1")) + b"x", {}, "bytes follow its array"),
    "no idx": ("t.idx", b"hello", {}, "no IDX file: it begins with 68656c6c"),
    "a huge idx": (
        "t.idx",
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 2**31, 2**19),
        {},
        "a sample has 1125899906842624 bytes",
    ),
    "no header": ("t.safetensors", b"x", {}, "no safetensors file, or cut off"),
    "no JSON": ("t.safetensors", tensors({}, b"").replace(b"{}", b"{x"), {}, "the header is no JSON object"),
    "a list": ("t.safetensors", struct.pack("<Q", 2) + b"[]", {}, "the header is no JSON object"),
    "no tensors": ("t.safetensors", tensors({}, b""), {}, "there are none"),
    "unlike tensors": (
        "t.safetensors",
        tensors({"z": tensor("U8", [2], 0, 2), "a": tensor("U8", [1], 2, 3)}, b"abc"),
        {},
        "'z' has 2, 'a' has 1",
    ),
    "a single value": ("t.safetensors", tensors({"a": tensor("U8", [], 0, 1)}, b"a"), {}, "'a': a single value"),
    "8-bit floats": (
        "t.safetensors",
        tensors({"a": tensor("F8_E5M2", [1], 0, 1)}, b"a"),
        {},
        "F8_E5M2 is no type of numpy's",
    ),
    "a damaged entry": (
        "t.safetensors",
        tensors({"a": {"dtype": "U8"}}, b"a"),
        {},
        "its entry in the header is damaged",
    ),
    "cut tensors": ("t.safetensors", tensors({"a": tensor("U8", [2], 0, 2)}, b"a"), {}, "damaged, or cut off"),
    "a huge tensor": (
        "t.safetensors",
        tensors({"a": tensor("U8", [0, 2**50], 0, 0)}, b""),
        {},
        "a sample has 1125899906842624 bytes",
    ),
    "no dtype": ("t.bin", b"ab", {}, "pass dtype="),
    "half a record": ("t.bin", b"abc", {"dtype": "<u2"}, "3 bytes are no whole number of records of 2 bytes"),
    "windows of rows": ("t.bin", b"abcd", {"dtype": "<f2", "length": 1}, "windows are cut from whole numbers"),
    "a link": ("t.tar", tarred(linked("b.txt")), {}, "'b.txt' is a link to 'elsewhere'"),
    "a device": ("t.tar", tarred(linked("b.txt", tarfile.CHRTYPE)), {}, "'b.txt' is no regular file"),
    "an absolute path": ("t.tar", tarred(("/etc/x.txt", b"x")), {}, "absolute path"),
    "a way out": ("t.tar", tarred(("../x.txt", b"x")), {}, "leads out of the archive"),
    "no extension": ("t.tar", tarred(("README", b"x")), {}, "'README' has no extension"),
    "a member twice": ("t.tar", tarred(("a.txt", b"x"), ("a.txt", b"x")), {}, "a.txt is there twice"),
    "a cut tar": ("t.tar", tarred(("a.txt", b"x" * 2000))[:1500], {}, "cut off|damaged"),
    "no tar": ("t.tar", b"x" * 2000, {}, "no tar file"),
    "an empty tar": ("t.tar", tarred(), {}, "there are no samples in it"),
    "joined tars": ("t.tar", tarred(("a.txt", b"x")) + tarred(("b.txt", b"x")), {}, "bytes follow the end"),
    "compressed members apart": ("t.tar.gz", gzip.compress(APART), {}, "the members of 'a' lie apart"),
    "text of a tar": ("t.tar", tarred(("a.txt", b"\xff")), {}, r"a\.txt is not UTF-8 text"),
    "a missing member": (
        "t.tar",
        tarred(("a.x", b""), ("b.y", b"")),
        {"missing": "error"},
        "'b' has no member 'x'|'a' has no member 'y'",
    ),
    "an empty image": ("t.png", b"", {}, "has 0 bytes"),
    "no parquet": ("t.parquet", b"<html>" * 9, {}, "no Parquet file that can be read"),
    "no arrow": ("t.arrow", b"<html>" * 9, {}, "no valid Arrow data"),
    "feather of old": ("t.feather", b"FEA1" + bytes(20), {}, "Feather version 1"),
}


@pytest.mark.parametrize("name", READ)
async def test_read(name: str, tmp_path: Path) -> None:
    file, content, options, expected = READ[name]
    if ".json" in file or ".ndjson" in file or name == "objects without a suffix":
        pytest.importorskip("pyarrow")
    (tmp_path / file).write_bytes(content)
    _, found = await publish(tmp_path / file, tmp_path, **options)
    assert repr(found) == repr(expected).replace("[1, 0, 1]", "[True, False, True]")


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str, tmp_path: Path) -> None:
    """With the file, and the place in it."""
    file, content, options, message = REFUSED[name]
    if file.endswith((".jsonl", ".json", ".parquet", ".arrow", ".feather")):
        pytest.importorskip("pyarrow")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(dnc.DatasetError, match=f"{file}.*(?:{message})"):
        await dnc.upload(tmp_path / file, store=tmp_path / "store", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "zz"}, "dtype: 'zz' is no dtype"),
        ({"dtype": "O"}, "dtype: 'O' is no record"),
        ({"format": "xyz"}, "format: 'xyz' is none of csv, jsonl, parquet"),
        ({"shuffle": True}, "shuffle: expected a seed"),
    ],
)
async def test_options_that_cannot_be(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "t.bin").write_bytes(b"ab")
    with pytest.raises(dnc.ArgumentError, match=message):
        await dnc.upload(tmp_path / "t.bin", store=tmp_path / "store", **options)


def folder(root: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = root / "data" / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / "data"


async def test_images_by_class(tmp_path: Path) -> None:
    """In a shuffled order, which is the same everywhere; or as they lie."""
    images = {f"{'ab'[i % 2]}__{i}_png": PNG + bytes([i]) for i in range(20)}
    source = folder(tmp_path, **images, README_md=b"hello", a__Thumbs_db=b"x", _DS_Store=b"x")
    done, found = await publish(source, tmp_path, shuffle=False)
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    expected = [PNG + bytes([i]) for i in sorted(order, key=lambda i: ("ab"[i % 2], f"{i}.png"))]
    assert found == {"image": expected, "label": [0] * 10 + [1] * 10}
    assert any("0 a, 1 b" in note for note in done.notes)
    assert any("README.md, Thumbs.db" in note for note in done.notes)
    done, shuffled = await publish(source, tmp_path)
    assert any("shuffled (seed 0)" in note for note in done.notes)
    assert shuffled["image"] == [expected[i] for i in permuted(20, 0)]
    assert sorted(shuffled["label"]) != shuffled["label"]
    assert (await publish(source, tmp_path, shuffle=1))[1] != shuffled
    folder(tmp_path, loose_png=PNG)
    with pytest.raises(dnc.DatasetError, match=r"loose\.png lies beside the folders of classes, such as a"):
        await dnc.upload(source, store=tmp_path / "store")


async def test_images_with_metadata(tmp_path: Path) -> None:
    """Their table has a row for each of them."""
    table = b"file_name,caption,n\n2.png,two,2\n1.png,one,1\n"
    source = folder(tmp_path, **{"1_png": PNG, "2_png": JPEG, "metadata_csv": table})
    _, found = await publish(source, tmp_path)
    assert found == {"image": [PNG, JPEG], "caption": ["one", "two"], "n": [1, 2]}
    for content, message in (
        (b"file_name,n\n1.png,1\n", r"metadata\.csv: does not name 2\.png"),
        (b"file_name,n\n1.png,1\n2.png,1\n3.png,1\n", r"names 3\.png, and there is no such file"),
        (b"file_name,n\n1.png,1\n2.png,1\n1.png,1\n", r"1\.png stands twice"),
        (b"name,n\n1.png,1\n", "has no column 'file_name'"),
    ):
        folder(tmp_path, metadata_csv=content)
        with pytest.raises(dnc.DatasetError, match=message):
            await dnc.upload(source, store=tmp_path / "store")


FOLDERS: dict[str, tuple[dict[str, bytes], str]] = {
    "two formats": ({"a_csv": b"a,b\n1,2\n", "b_txt": b"x"}, r"files of several formats \(csv: a\.csv; text: b\.txt\)"),
    "a stray file": ({"a__1_png": PNG, "a__notes_txt": b"x"}, r"text: notes\.txt"),
    "an unknown one": (
        {"a_xyz": b"x", "b_xyz": b"x"},
        r"\.xyz files are in no known format \(there are a\.xyz, b\.xyz\); known",
    ),
    "a format and an unknown one": ({"a_csv": b"x", "b_xyz": b"x"}, r"csv: a\.csv; unknown: b\.xyz"),
    "nothing": ({"_hidden": b"x"}, "the folder is empty"),
    "a note alone": ({"README_md": b"x"}, r"the folder is empty.*README\.md is left out"),
    "splits": (
        {"train_csv": b"a,b\n1,2\n", "test_csv": b"a,b\n1,2\n"},
        r"holds several splits: test \(test\.csv\), train \(train\.csv\)",
    ),
    "splits by folder": ({"train__1_txt": b"x", "valid__1_txt": b"x"}, "holds several splits: train .*, validation"),
    "MNIST": ({"train-images-idx3-ubyte": idx(np.zeros(1, "u1")), "t10k-images-idx3-ubyte": b"x"}, "several splits"),
    "many formats": ({**{f"{i}_csv": b"x" for i in range(5)}, "t_txt": b""}, r"0\.csv, 1\.csv, 2\.csv, … \(5 files\)"),
    "unlike idx": (
        {"x_idx": idx(np.zeros((2, 2), "u1")), "y_idx": idx(np.zeros(3, "u1"))},
        r"x\.idx has 2 samples, y\.idx 3",
    ),
    "unlike blocks": (
        {"x_idx": idx(np.zeros((2, 2), "u1")), "y_idx": idx(np.zeros((2, 3), "u1"))},
        r"y\.idx has an array|y\.idx has a",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
async def test_folders_refused(name: str, tmp_path: Path) -> None:
    files, message = FOLDERS[name]
    with pytest.raises(dnc.DatasetError, match=message):
        await dnc.upload(folder(tmp_path, **files), store=tmp_path / "store")


async def test_folders(tmp_path: Path) -> None:
    """Files of one format are one dataset, in the order of their paths."""
    source = folder(tmp_path, b_txt=b"3\n", a__1_txt=b"1\n2\n", latest_txt=b"4\n", __hidden__x_txt=b"x")
    _, found = await publish(source, tmp_path)
    assert found == {"text": ["1", "2", "3", "4"]}
    pair = folder(
        tmp_path / "mnist",
        **{"images-idx3-ubyte": idx(np.ones((2, 1, 1), "u1")), "labels-idx1-ubyte": idx(np.arange(2, dtype="u1"))},
    )
    _, found = await publish(pair, tmp_path)
    assert found == {"image": [[[1]], [[1]]], "label": [0, 1]}
    (source / "linked").symlink_to(pair)
    with pytest.raises(dnc.DatasetError, match="linked is a symlink to a folder"):
        await dnc.upload(source, store=tmp_path / "store")
    with pytest.raises(dnc.DatasetError, match=r"no file has such a name"):
        await dnc.upload(str(tmp_path / "*.nothing"), store=tmp_path / "store")
    if os.geteuid():
        pair.chmod(0)
        with pytest.raises(dnc.DatasetError, match="data: "):
            await dnc.upload(pair, store=tmp_path / "store")


async def test_folders_that_are_columns(tmp_path: Path) -> None:
    """As Hive and Spark write them."""
    table = b"n,t\n1,x\n2,y\n"
    source = folder(tmp_path, **{"year=2024__day=a%20b__1_csv": table, "year=2025__day=c__1_csv": table})
    _, found = await publish(source, tmp_path)
    assert found["year"] == [2024, 2024, 2025, 2025]
    assert found["day"] == ["a b", "a b", "c", "c"]
    assert list(found) == ["n", "t", "year", "day"]
    folder(tmp_path, **{"year=2025__day=c__1_csv": b"n,year\n1,2\n", "year=2024__day=a%20b__1_csv": b"n,year\n1,2\n"})
    with pytest.raises(dnc.DatasetError, match=r"1\.csv: has a column 'year', and is in a folder 'year=2024'"):
        await dnc.upload(source, store=tmp_path / "store")
    folder(tmp_path, loose_csv=table)
    with pytest.raises(dnc.DatasetError, match="folders have unlike keys, no such folder and year/day"):
        await dnc.upload(source, store=tmp_path / "store")


async def test_records(tmp_path: Path) -> None:
    """An array with fields is a table, also in a file."""
    records = np.array([(1, [0.5, 1.5], b"x")], dtype=[("a", ">i4"), ("b", "f8", 2), ("c", "S1")])
    np.save(tmp_path / "t.npy", records)
    for source in (records, tmp_path / "t.npy", records.view(np.recarray)):
        done, found = await publish(source, tmp_path)
        assert found == {"a": [1], "b": [[0.5, 1.5]], "c": [b"x"]}
        assert done.columns == (("a", "<i4", ()), ("b", "<f8", (2,)), ("c", "|S1", ()))


async def test_small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, pieces and first records do not show in the dataset; what breaks the first records is refused."""
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 5)
    monkeypatch.setattr(tar, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(tokens, "_BLOCK_TOKENS", 3)
    for name, value in (("_BLOCK_ROWS", 2), ("_LOOK_ROWS", 1 - 100), ("_LOOK_CHARACTERS", 1)):
        monkeypatch.setattr(json_lines, name, value)
    (tmp_path / "t.txt").write_text("one\ntwo hundred\nthree\n")
    assert (await publish(tmp_path / "t.txt", tmp_path))[1] == {"text": ["one", "two hundred", "three"]}
    for content in (APART, tarred(("a.txt", b"x"), ("a.cls", b"1"), ("b.txt", b"y"), ("b.cls", b"2"))):
        (tmp_path / "t.tar").write_bytes(content)
        _, found = await publish(tmp_path / "t.tar", tmp_path)
        assert found == {"__key__": ["a", "b"], "txt": ["x", "y"], "cls": [1, 2]}
    (tmp_path / "t.jsonl").write_bytes(lines(*({"a": i, "m": {"t": "x"}} for i in range(9))))
    assert (await publish(tmp_path / "t.jsonl", tmp_path))[1]["a"] == list(range(9))
    for odd, message in (
        ({"a": 1.5, "m": {"t": "x"}}, "key 'a': a type that the first records had not .float64, before int64"),
        ({"a": 1, "m": {"t": "x"}, "z": 1}, "key 'z': a type .*before no such key"),
        ({"a": 1, "m": {}}, r"line 3, key 'm\.t': the value is missing, and none was"),
        ({"a": "x", "m": {"t": "x"}}, "line 3, key 'a': text"),
    ):
        (tmp_path / "t.jsonl").write_bytes(lines(*({"a": i, "m": {"t": "x"}} for i in range(2)), odd))
        with pytest.raises(dnc.DatasetError, match=message):
            await dnc.upload(tmp_path / "t.jsonl", store=tmp_path / "store")
    (tmp_path / "t.jsonl").write_bytes(lines(*({"a": i, "t": "x"} for i in range(2)), {"a": 1}))
    assert (await publish(tmp_path / "t.jsonl", tmp_path, missing="fill"))[1]["t"] == ["x", "x", ""]


async def test_parquet(tmp_path: Path) -> None:
    """Row groups, gaps that come late, names with dots, old timestamps, and files beside each other."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    import datetime as dt  # noqa: PLC0415

    far, near = dt.datetime(1000, 1, 1), dt.datetime(2024, 1, 1)  # noqa: DTZ001 - numpy's have no zone
    table = pa.table(
        {"a.b": ["x"] * 5 + [None], "n": range(6), "l": [[i] for i in range(6)], "s": [{"x": i} for i in range(6)]}
    )
    pq.write_table(table, tmp_path / "1.parquet", row_group_size=2)
    _, found = await publish(tmp_path / "1.parquet", tmp_path)
    assert list(found) == ["a.b", "a.b__valid", "n", "l", "s.x"]
    assert found["a.b__valid"] == [True] * 5 + [False]
    pq.write_table(table, tmp_path / "1.parquet", write_statistics=False)
    assert (await publish(tmp_path / "1.parquet", tmp_path))[1] == found
    for times in ([far, None], [near, None]):
        pq.write_table(pa.table({"t": times}), tmp_path / "t.parquet", use_deprecated_int96_timestamps=True)
        done, times_found = await publish(tmp_path / "t.parquet", tmp_path)
        unit = "us" if far in times else "ns"
        assert done.columns[0][1] == f"<M8[{unit}]"
        assert np.array(times_found["t"], "M8[us]" if unit == "us" else "M8[ns]")[0] == np.datetime64(times[0])
    (tmp_path / "t.parquet").unlink()
    for other, message in (
        ({"n": [1]}, r"2\.parquet: has no column 'a\.b', unlike 1\.parquet"),
        ({**{name: table[name][:1] for name in table.column_names}, "z": [1]}, "has a column 'z'"),
        (
            {**{name: table[name][:1] for name in table.column_names}, "n": ["x"]},
            "column 'n' has the type string, and int64",
        ),
    ):
        pq.write_table(pa.table(other), tmp_path / "2.parquet")
        with pytest.raises(dnc.DatasetError, match=message):
            await dnc.upload([tmp_path / "1.parquet", tmp_path / "2.parquet"], store=tmp_path / "store")
    (tmp_path / "2.parquet").write_bytes((tmp_path / "1.parquet").read_bytes().replace(b"PAR1", b"PARX", 1))
    damaged = bytearray((tmp_path / "1.parquet").read_bytes())
    damaged[4:200] = bytes(196)
    (tmp_path / "2.parquet").write_bytes(damaged)
    with pytest.raises(dnc.DatasetError, match=r"2\.parquet: damaged, cut off, or encrypted"):
        await dnc.upload(tmp_path / "2.parquet", store=tmp_path / "store")
    files = pa.table({"image": [{"bytes": b"x", "path": None}, {"bytes": b"y", "path": "p"}]})
    pq.write_table(files, tmp_path / "2.parquet")
    assert (await publish(tmp_path / "2.parquet", tmp_path))[1] == {"image": [b"x", b"y"]}


async def test_arrow_files(tmp_path: Path) -> None:
    pa, ipc = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.ipc")
    pytest.importorskip("pyarrow.feather")
    table = pa.table({"b": [1, 2, 3], "a": pa.array(["x", None, "x"]).dictionary_encode()})
    expected = {"b": [1, 2, 3], "a": ["x", "", "x"], "a__valid": [True, False, True]}
    for opened, name in ((ipc.new_file, "t.arrow"), (ipc.new_stream, "t.arrows"), (ipc.new_file, "odd")):
        with opened(tmp_path / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        assert (await publish(tmp_path / name, tmp_path))[1] == expected
    swapped = table.select(["a", "b"])
    pa.feather.write_feather(swapped, tmp_path / "u.arrow")
    done, found = await publish([tmp_path / "t.arrow", tmp_path / "u.arrow"], tmp_path)
    assert found == {name: values * 2 for name, values in expected.items()}
    assert any("another order" in note for note in done.notes)
    (tmp_path / "t.arrows").write_bytes((tmp_path / "t.arrows").read_bytes()[:-60])
    with pytest.raises(dnc.DatasetError, match="no valid Arrow data, damaged or cut off"):
        await dnc.upload(tmp_path / "t.arrows", store=tmp_path / "store")
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pa.feather.write_feather(twice.rename_columns(["a", "b"]), tmp_path / "v.arrow")
    with ipc.new_file(tmp_path / "v.arrow", twice.schema) as writer:
        writer.write_table(twice)
    with pytest.raises(dnc.DatasetError, match="two columns are named 'a'"):
        await dnc.upload(tmp_path / "v.arrow", store=tmp_path / "store")


async def test_a_format_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an entry point; the caller's word goes before the suffix."""

    class Shout(text_files.TextLines):
        name = "shout"
        suffixes = (".shout",)

    class Entry:
        load: Callable[[], Any] = staticmethod(lambda: Shout)

    monkeypatch.setattr(formats, "entry_points", lambda group: [Entry()] if group == "dnc_async.formats" else [])
    (tmp_path / "t.shout").write_text("HEY\n")
    assert (await publish(tmp_path / "t.shout", tmp_path))[1] == {"text": ["HEY"]}
    (tmp_path / "t.csv").write_text("a,b\n")
    assert (await publish(tmp_path / "t.csv", tmp_path, format="shout"))[1] == {"text": ["a,b"]}


async def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would not fit into memory is refused."""
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(json_lines, "_LARGEST_ARRAY", 5)
    monkeypatch.setattr(text_files, "_LONGEST_LINE", 5)
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 4)
    monkeypatch.setattr(tar, "MAX_CHUNK_BYTES", 1)
    for name, content, message in (
        ("t.json", b'[{"a": 1},\n{"a": 2}]', "one JSON array of more than 5 characters"),
        ("t.txt", b"0123456789\n", "line 1: longer than 5 bytes"),
        ("t.tar", tarred(("a.cls", b"12")), r"a\.cls has 2 bytes, at most 1"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(dnc.DatasetError, match=message):
            await dnc.upload(tmp_path / name, store=tmp_path / "store")


async def test_structs_with_gaps_in_parquet(tmp_path: Path) -> None:
    """The masks of fields are there in every block, or in none."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"s": [{"x": 1, "y": "a"}, None, {"x": 2, "y": None}]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1)
    _, found = await publish(tmp_path / "t.parquet", tmp_path)
    expected = {
        "s.x": [1, 0, 2],
        "s.x__valid": [True, False, True],
        "s.y": ["a", "", ""],
        "s.y__valid": [True, False, False],
    }
    assert found == expected
    _, found = await publish(tmp_path / "t.parquet", tmp_path, missing="fill")
    assert found == {"s.x": [1, 0, 2], "s.y": ["a", "", ""]}


async def test_no_paths(tmp_path: Path) -> None:
    """Any kind of path will do; an empty list names no file."""
    with pytest.raises(dnc.DatasetError, match="no file was named"):
        formats.open_source([], formats.ReadOptions())
    (tmp_path / "t.txt").write_text("a\n")
    with os.scandir(tmp_path) as entries:
        _, found = await publish(next(iter(entries)), tmp_path)
    assert found == {"text": ["a"]}


async def test_a_file_that_is_replaced_while_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two passes, as files are when there are many."""
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.jsonl"
    path.write_bytes(lines({"a": 1}))
    rest = formats.SourceFile.rest

    def replaced(file: Any) -> None:
        rest(file)
        copy = tmp_path / "copy"
        copy.write_bytes(lines({"a": 2}))
        copy.replace(path)

    def removed(file: Any) -> None:
        rest(file)
        path.unlink(missing_ok=True)

    for change, message in ((replaced, "changed while it was read"), (removed, "no such file|was removed")):
        path.write_bytes(lines({"a": 1}))
        monkeypatch.setattr(formats.SourceFile, "rest", change)
        with pytest.raises(dnc.DatasetError, match=rf"t\.jsonl.*(?:{message})"):
            await dnc.upload(path, store=tmp_path / "store")
