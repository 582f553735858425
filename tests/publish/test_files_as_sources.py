"""Files: damaged ones, what is no file, and those that change while they are read."""

from __future__ import annotations

import io
import math
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc

from .rounds import nothing_published, publish

X = np.arange(24.0).reshape(6, 4)


def npy(array: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, **options)
    return out.getvalue()


def npz(save: Callable[..., None] = np.savez, **arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    save(out, **arrays)
    return out.getvalue()


def header(text: str, values: bytes = b"") -> bytes:
    line = text.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(line)) + line + values


def zipped(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_npy", ".npy"), content)
    return out.getvalue()


def encrypted(archive: bytes) -> bytes:
    changed = bytearray(archive)
    changed[changed.find(b"PK\x03\x04") + 6] |= 1
    changed[changed.find(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def shaped(shape: str) -> str:
    return f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"


def bomb(head: bytes, size_bytes: int) -> bytes:
    """An archive of one array that claims so many bytes, and has none of them."""
    archive, length = zipped(a_npy=head), struct.pack("<I", len(head))
    return archive.replace(length * 2, length + struct.pack("<I", len(head) + size_bytes))


DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "cut": (".npy", npy(X)[:-5], "ends before its last row: 187 bytes of values, expected 192"),
    "two arrays": (".npy", npy(X) * 2, "320 bytes follow its array"),
    "cut in the header": (".npy", npy(X)[:20], "damaged"),
    "empty": (".npy", b"", "damaged"),
    "text": (".npy", b"hello", "damaged"),
    "pickled": (".npy", npy(np.array([{}], dtype=object)), "pickled Python objects"),
    "a single value": (".npy", npy(np.array(5.0)), "a single value"),
    "half a character": (".npy", npy(np.array(["a", "\ud800"])), "row 1: the text holds half a character"),
    "no rows": (".npy", npy(np.zeros((0, 3))), "no samples"),
    "a negative shape": (".npy", header(shaped("(-1, 3)"), bytes(64)), r"its shape is \(-1, 3\)"),
    "a boolean shape": (".npy", header(shaped("(True,)"), bytes(8)), "its shape is"),
    "a shape beyond numpy's": (".npy", header(shaped(f"(0, {10**22})")), "damaged"),
    "10^14 rows of nothing": (".npy", header(shaped(f"({10**14}, 0)")), "samples or more that hold no values"),
    "a huge sample": (".npy", header(shaped(f"(1, {2**40})")), "a sample has 8796093022208 bytes"),
    "a bomb by columns": (
        ".npz",
        bomb(header(shaped(f"({2**17}, {2**11})").replace("False", "True")), 2**31),
        "array 'a': lies column by column, 2147483648 bytes",
    ),
    "a huge shape": (".npy", header(shaped(f"({10**22},)")), "ends before its last row"),
    "no dtype": (".npy", header("{'descr': 'zz', 'fortran_order': False, 'shape': (3,), }"), "damaged"),
    "brackets": (".npy", header("[" * 5000), "damaged"),
    "an open bracket": (".npy", header("{'descr': (((("), "damaged"),
    "a header of 4 GB": (".npy", b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(99), "damaged"),
    "an archive": (".npy", npz(x=X), "is an .npz archive"),
    "no archive": (".npz", npy(X), "not an .npz file"),
    "a cut archive": (".npz", npz(x=X)[:-40], "not an .npz file"),
    "an encrypted archive": (".npz", encrypted(npz(x=X)), "array 'x': is encrypted"),
    "pickled in an archive": (".npz", npz(x=np.array([{}], dtype=object)), "array 'x': holds pickled"),
    "unlike lengths": (".npz", npz(x=X, y=np.arange(5)), "'x' has 6, 'y' has 5"),
    "an empty archive": (".npz", npz(), "there are none"),
    "another member": (".npz", zipped(a_npy=npy(X), readme=b"hi"), "array 'readme': not an array"),
    "a name twice": (".npz", zipped(a_npy=npy(X), a=npy(X)), "two of its arrays have one name"),
    "a member that is cut": (".npz", zipped(a_npy=npy(X)[:-5]), "array 'a': the file ends before its last row"),
    "a wrong checksum": (".npz", npz(x=X).replace(X.tobytes(), (X + 1).tobytes()), "Bad CRC-32"),
}


@pytest.mark.parametrize("name", DAMAGED)
async def test_damaged_files(name: str, tmp_path: Path) -> None:
    """The file, and where there are several the array, is named."""
    suffix, content, message = DAMAGED[name]
    path = tmp_path / f"t{suffix}"
    path.write_bytes(content)
    with pytest.raises(dnc.DatasetError, match=f"t{suffix}.*{message}"):
        await dnc.upload(path, store=tmp_path / "store")
    assert nothing_published(tmp_path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", "compressed.npz"])
async def test_any_damage(suffix: str, tmp_path: Path) -> None:
    """A bit that is flipped, a file that is cut: it is read, or refused."""
    content = npy(X) if suffix == ".npy" else npz(np.savez_compressed if "c" in suffix else np.savez, x=X, y=X[:, 0])
    chance, path = random.Random(1), tmp_path / f"t{suffix}"
    for _ in range(100):
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged[: chance.randrange(len(damaged))] if chance.random() < 0.3 else damaged)
        try:
            await dnc.upload(path, store=tmp_path / "store")
        except dnc.DatasetError as error:
            assert str(path) in str(error)  # noqa: PT017 - most of them are, not all


@pytest.mark.parametrize(
    "array", [X, X.astype(">f4"), X > 3, X.astype("f2"), np.arange(24).reshape(2, 3, 4), np.zeros((3, 0))]
)
@pytest.mark.parametrize("order", ["C", "F"])
async def test_arrays(array: np.ndarray, order: Any, tmp_path: Path) -> None:
    """Row by row or column by column, alone and in archives of any compression, in the archive's order."""
    ordered = np.array(array, order=order)
    (tmp_path / "t.npy").write_bytes(npy(ordered))
    assert (await publish(tmp_path / "t.npy", tmp_path))[1] == array.tolist()
    for content in (
        npz(z=ordered, a=array),
        npz(np.savez_compressed, z=ordered, a=array),
        zipped(zipfile.ZIP_LZMA, z_npy=npy(ordered), a_npy=npy(array)),
    ):
        (tmp_path / "t.npz").write_bytes(content)
        _, found = await publish(tmp_path / "t.npz", tmp_path)
        assert list(found.items()) == [("z", array.tolist()), ("a", array.tolist())]


@pytest.mark.parametrize("shape", [(3000, 700), (5, 200_000), (100_000, 3)])
async def test_large_column_major_arrays(shape: tuple[int, int], tmp_path: Path) -> None:
    """Several blocks, wide rows and narrow ones."""
    array = np.asfortranarray(np.arange(math.prod(shape), dtype="f8").reshape(shape))
    np.save(tmp_path / "f.npy", array)
    results = [
        await dnc.upload(source, batch_size=1000, store=tmp_path / "s") for source in (tmp_path / "f.npy", array)
    ]
    assert results[0].cid == results[1].cid


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("images", "the folder is empty"),
        ("folder.csv", "the folder is empty"),
        ("pipe.csv", "is a pipe"),
        ("nowhere.csv", "a symlink that leads nowhere"),
        ("missing.csv", "no such file"),
        ("t.xyz", r"\.xyz files are in no known format; known are csv \(\.csv \.tsv .*dnc add"),
        ("t.csv.gz", r"damaged or cut off, no valid \.gz data"),
        ("t.npy.gz", r"a npy file is read by place, and cannot be compressed as a whole"),
        ("nosuffix", "a file without a suffix, with such a beginning, is in no known format"),
        ("/dev/null", "is a device"),
    ],
)
async def test_what_is_no_file(name: str, message: str, tmp_path: Path) -> None:
    """It is said what it is, what is read, and what to do."""
    (tmp_path / "images").mkdir()
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "nowhere.csv").symlink_to(tmp_path / "gone")
    for file in ("t.xyz", "t.csv.gz", "t.npy.gz", "nosuffix"):
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(dnc.DatasetError, match=message):
        await dnc.upload(tmp_path / name, store=tmp_path / "store")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_a_digit(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 3)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"1,2\n")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\n")


def replace(path: Path) -> None:
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def remove(path: Path) -> None:
    path.unlink()


def touch_back(path: Path) -> None:
    """Another inode with the same size and time."""
    status = path.stat()
    replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


ROWS = 20_000


def write(path: Path) -> None:
    values = np.arange(ROWS * 4, dtype="f8").reshape(ROWS, 4)
    if path.suffix == ".npy":
        np.save(path, values if path.stem == "rows" else np.asfortranarray(values))
    elif path.suffix == ".npz":
        np.savez_compressed(path, x=values)
    else:
        path.write_text("a,b\n" + "".join(f"{i},{i * 1000 + 7}\n" for i in range(ROWS)), encoding="utf-8")


@pytest.mark.parametrize("change", [truncate, cut_a_digit, append, overwrite, replace, remove, touch_back])
@pytest.mark.parametrize("name", ["rows.npy", "columns.npy", "t.npz", "t.csv"])
async def test_files_that_change(name: str, change: Callable[[Path], None], tmp_path: Path) -> None:
    """Whatever happens to it: no CID, no signal, nothing left, and the file is named."""
    path, done = tmp_path / name, []
    write(path)
    os.utime(path, (1, 1))  # else what follows at once may have the same time

    def progress(*_: int) -> None:
        if not done:
            change(path)
        done.append(1)

    with pytest.raises(dnc.DatasetError, match=f"{name} changed while it was read: it .* nothing was published"):
        await dnc.upload(path, batch_size=500, store=tmp_path / "store", progress=progress)
    assert nothing_published(tmp_path)


async def test_a_file_at_rest_is_published(tmp_path: Path) -> None:
    """Reading it, or another name for it, changes nothing."""
    path = tmp_path / "t.csv"
    write(path)
    done = await dnc.upload(path, store=tmp_path / "store", progress=lambda *_: path.read_bytes() and None)
    assert done.samples == ROWS
