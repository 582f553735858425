"""Large CSV files: what pyarrow converts in blocks is what is read row by row, and mistakes are named by their line."""

from __future__ import annotations

import gzip
import io
import random
import sys
from pathlib import Path
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async.dataset.formats import delimited

from .rounds import publish

pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types from 150 rows, and blocks of a few of them."""
    monkeypatch.setattr(delimited, "_LOOK_ROWS", 50)
    monkeypatch.setattr(delimited, "_LOOK_CHARACTERS", 100)
    monkeypatch.setattr(delimited, "_BLOCK_ROWS", 50)
    monkeypatch.setattr(delimited, "_FAST_BYTES", 700)


HEAD = "n,x,t,d,z,b\n"


def row(number: int) -> str:
    chooser = random.Random(number)
    text = chooser.choice(["plain", '"quo, ted"', '"two\nlines"', '"say ""hi"""', "", '"CR\r\nLF"', "ü😀"])
    text = {20: "007", 70: "0x1"}.get(number % 100, text)
    x = chooser.choice(["1.5", "", "nan", "-1e5", ".5", "1e-320", "12345678901234567"[: chooser.randint(1, 15)]])
    return f"{number - 100},{x},{text},2024-01-{number % 28 + 1:02},2024-01-05T10:00:00+0{number % 10}:00,{number % 2 == 0}\n"


def table(folder: Path, *odd: str, head: str = HEAD, rows: int = 400) -> Path:
    """Rows of all sorts, some odd ones after the 300th."""
    lines = [row(number) for number in range(rows)]
    lines[300:300] = odd
    path = folder / "t.csv"
    path.write_bytes((head + "".join(lines)).encode())
    return path


ODD = {
    "nothing": "",
    "infinity": "1,inf,t,2024-01-01,2024-01-05T10:00:00Z,True\n",
    "a large float": "1,1e300,t,2024-01-01,2024-01-05T10:00:00Z,True\n",
    "empty lines": "\n\n",
    "a stray quote": '1,2,5" pipe,2024-01-01,2024-01-05T10:00:00Z,True\n',
    "two stray quotes": '1,2,5" by 6" pipe,2024-01-01,2024-01-05T10:00:00Z,True\n',
    "a missing date": "1,2,t,,,True\n",
    "a zero": "0,00.5,t,2024-01-01,2024-01-05T10:00:00Z,False\n".replace("00.5", "0.5"),
    "a line as the names": '1,2,"n,x,t,d,z,b",2024-01-01,2024-01-05T10:00:00Z,True\n',
    "an end in a quote": '1,2,"a""",2024-01-01,2024-01-05T10:00:00Z,True\n',
    "CR alone": '1,2,"a\rb",2024-01-01,2024-01-05T10:00:00Z,True\n',
}


@pytest.mark.parametrize("name", ODD)
async def test_the_same_with_pyarrow_and_without(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, ODD[name])
    found, fast = await publish(path, tmp_path)
    monkeypatch.setattr(delimited.importlib.util, "find_spec", lambda _: None)
    expected, slow = await publish(path, tmp_path)
    assert found.cid == expected.cid
    assert repr(fast) == repr(slow)
    assert [dtype for _, dtype, _ in found.columns] == ["<i8", "<f8", "text", "<M8[D]", "<M8[s]", "|b1"]
    assert found.samples == 400 + (len(ODD[name]) > 5)


REFUSED = {
    "a word": (
        "oops,1,t,2024-01-01,2024-01-05T10:00:00Z,True",
        "column 'n': line {line} has 'oops', which is no whole number",
    ),
    "leading zeros": ("007,1,t,2024-01-01,2024-01-05T10:00:00Z,True", "line {line} has '007', which is no whole"),
    "hexadecimal": ("0x7,1,t,2024-01-01,2024-01-05T10:00:00Z,True", "line {line} has '0x7'"),
    "a fraction": ("1.5,1,t,2024-01-01,2024-01-05T10:00:00Z,True", "line {line} has '1.5', which is no whole"),
    "65 bits": (f"{2**63},1,t,2024-01-01,2024-01-05T10:00:00Z,True", "line {line} has '9223372036854775808'"),
    "an empty number": (",1,t,2024-01-01,2024-01-05T10:00:00Z,True", "'n': line {line} is empty"),
    "a word among floats": (
        "1,-,t,2024-01-01,2024-01-05T10:00:00Z,True",
        "'x': line {line} has '-', which is no plain",
    ),
    "beyond 2^53": (
        "1,9007199254740993,t,2024-01-01,2024-01-05T10:00:00Z,True",
        "'x': line {line} has '9007199254740993'",
    ),
    "beyond floats": ("1,1e999,t,2024-01-01,2024-01-05T10:00:00Z,True", "'x': line {line} has '1e999'"),
    "no date": (
        "1,1,t,2024-02-30,2024-01-05T10:00:00Z,True",
        "'d': line {line} has '2024-02-30', which is no ISO time",
    ),
    "no zone": ("1,1,t,2024-01-01,2024-01-05T10:00:00,True", "'z': line {line} has '2024-01-05T10:00:00'"),
    "parts of a second": ("1,1,t,2024-01-01,2024-01-05T10:00:00.5Z,True", "'z': line {line} has"),
    "no boolean": ("1,1,t,2024-01-01,2024-01-05T10:00:00Z,yes", "'b': line {line} has 'yes', which is no boolean"),
    "too many": ("1,1,t,2024-01-01,2024-01-05T10:00:00Z,True,1", "line {line}: 7 fields, expected 6"),
    "too few": ("1,1,t", "line {line}: 3 fields, expected 6"),
    "names again": (HEAD.strip(), "line {line}: the line of names stands here again"),
    "a zero byte": ("1,1,\0,2024-01-01,2024-01-05T10:00:00Z,True", "line {line}: a zero byte"),
    "an open quote": (
        '1,1,"open,2024-01-01,2024-01-05T10:00:00Z,True',
        "line {line}: the quote that opens|line {line}",
    ),
    "half a quote": ('1,1,"a"b,2024-01-01,2024-01-05T10:00:00Z,True', "text follows a closing quote"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_mistakes(name: str, tmp_path: Path) -> None:
    """By file, line and column."""
    odd, message = REFUSED[name]
    path = table(tmp_path, odd + "\n")
    line = path.read_bytes()[: path.read_bytes().index(odd.encode(), 20)].count(b"\n") + 1
    with pytest.raises(dnc.DatasetError, match=f"t.csv.*{message.format(line=line)}"):
        await dnc.upload(path, store=tmp_path / "store")


@pytest.mark.parametrize("size", [7, 64, 333, 5000])
async def test_any_cut(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the file is cut into blocks."""
    path = table(tmp_path)
    expected, _ = await publish(path, tmp_path)
    monkeypatch.setattr(delimited, "_FAST_BYTES", size)
    found, _ = await publish(path, tmp_path)
    assert found.cid == expected.cid


async def test_several_files(tmp_path: Path) -> None:
    """They are one table, whose columns have the first file's order; compressed, and without a line of names."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.csv").write_text("n,t\n" + "".join(f"{i},w{i}\n" for i in range(300)))
    with gzip.open(tmp_path / "d" / "b.csv.gz", "wt") as file:
        file.write("t;n\n" + "".join(f"w{i};{i}\n" for i in range(300, 500)))
    expected = {"n": list(range(500)), "t": [f"w{i}" for i in range(500)]}
    for source in (
        tmp_path / "d",
        [tmp_path / "d" / "a.csv", tmp_path / "d" / "b.csv.gz"],
        str(tmp_path / "d" / "*.csv*"),
    ):
        _, found = await publish(source, tmp_path)
        assert list(found) == ["n", "t"]
        assert found == expected
    (tmp_path / "d" / "c.csv").write_text("n,u\n1,2\n")
    with pytest.raises(dnc.DatasetError, match=r"c\.csv: has no column 't', unlike the files before it"):
        await dnc.upload(tmp_path / "d", store=tmp_path / "store")
    (tmp_path / "d" / "c.csv").write_text("n,t,u\n1,2,3\n")
    with pytest.raises(dnc.DatasetError, match=r"c\.csv: has a column 'u', unlike"):
        await dnc.upload(tmp_path / "d", store=tmp_path / "store")


async def test_without_names(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("".join(f"{i},{i}.5\n" for i in range(400)))
    _, found = await publish(path, tmp_path, header=False)
    assert found == {"column_0": list(range(400)), "column_1": [i + 0.5 for i in range(400)]}
    _, found = await publish(path, tmp_path, header=True)
    assert list(found) == ["0", "0.5"]
    path.write_text("")
    with pytest.raises(dnc.DatasetError, match="is empty"):
        await dnc.upload(path, header=False, store=tmp_path / "store")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1", "utf-8-sig"])
async def test_encodings(encoding: str, tmp_path: Path) -> None:
    """UTF-16 and UTF-32 by their marks; others are asked for."""
    path = tmp_path / "t.csv"
    path.write_bytes(("n,t\n" + "".join(f"{i},grün {i}\n" for i in range(400))).encode(encoding))
    options: dict[str, Any] = {"encoding": encoding} if encoding == "latin-1" else {}
    _, found = await publish(path, tmp_path, **options)
    assert found == {"n": list(range(400)), "t": [f"grün {i}" for i in range(400)]}
    path.write_bytes(path.read_bytes()[:-1] + (b"\xff" if encoding == "utf-8-sig" else b""))
    if encoding in ("utf-16", "utf-8-sig"):
        with pytest.raises(dnc.DatasetError, match=r"not utf-16 text|not UTF-8 text"):
            await dnc.upload(path, store=tmp_path / "store")


async def test_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, compressed or not; the format is said, or seen."""
    path = table(tmp_path)
    expected, _ = await publish(path, tmp_path)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for file in (path, packed):
        with file.open("rb") as opened:
            monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": opened}))
            found, _ = await publish("-", tmp_path)
            assert found.cid == expected.cid
            opened.seek(0)
            found, _ = await publish("-", tmp_path, format="csv")
            assert found.cid == expected.cid
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": io.BytesIO(b"hello\n")}))
    with pytest.raises(dnc.DatasetError, match=r"stdin: .* in no known format"):
        await dnc.upload("-", store=tmp_path / "store")
    for content, name in ((b"PAR1" + bytes(20), "parquet"), (bytes(257) + b"ustar", "tar")):
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": io.BytesIO(content)}))
        with pytest.raises(dnc.DatasetError, match="stdin"):
            await dnc.upload("-", format=name, store=tmp_path / "store")


async def test_empty_files_beside_others(tmp_path: Path) -> None:
    """Some writers leave them."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.csv").write_text("n,t\n1,x\n")
    (tmp_path / "d" / "b.csv").write_text("")
    done, found = await publish(tmp_path / "d", tmp_path)
    assert found == {"n": [1], "t": ["x"]}
    assert done.notes == ("1 empty files are left out",)
    (tmp_path / "d" / "a.csv").write_text("")
    with pytest.raises(dnc.DatasetError, match="is empty"):
        await dnc.upload(tmp_path / "d", store=tmp_path / "store")


async def test_a_cell_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for; a quote that never closes is found at the longest cell."""
    monkeypatch.setattr(delimited, "_LONGEST_CELL", 5000)
    path = table(tmp_path, f'1,1,"{"x" * 3000}",2024-01-01,2024-01-05T10:00:00Z,True\n')
    assert (await publish(path, tmp_path))[0].samples == 401
    path = table(tmp_path, '1,1,"x\n', rows=2000)
    with pytest.raises(dnc.DatasetError, match=r"t\.csv, line "):
        await dnc.upload(path, store=tmp_path / "store")


async def test_a_file_that_changes_between_the_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, rows=100)
    decided = delimited.Csv._decided

    def changed(*arguments: Any) -> list[str]:
        path.write_text(path.read_text().replace("-99,", "oops,"))
        return decided(*arguments)

    monkeypatch.setattr(delimited.Csv, "_decided", staticmethod(changed))
    with pytest.raises(dnc.DatasetError, match="changed while it was read"):
        await dnc.upload(path, store=tmp_path / "store")
