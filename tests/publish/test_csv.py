"""CSV: plain numbers are numbers, all else is text as it is written, and a file that does not say one thing is refused."""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dnc_async as dnc
from dnc_async.dataset.formats.csv_columns import FLOAT, INTEGER, TEXT, UNSIGNED, CsvColumn, convert

from .rounds import nothing_published, publish


def table(folder: Path, content: str | bytes) -> Path:
    path = folder / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def numbers(count: int) -> str:
    return "".join(f"{i}\n" for i in range(count))


NAN = float("nan")
TYPES: dict[str, tuple[list[str], str, list[Any]]] = {
    "whole": (["1", "-2", "0"], "<i8", [1, -2, 0]),
    "largest": (["9223372036854775807", "-9223372036854775808"], "<i8", [2**63 - 1, -(2**63)]),
    "unsigned": (["18446744073709551615", "0"], "<u8", [2**64 - 1, 0]),
    "beyond 2^53": (["9007199254740993", "1"], "<i8", [2**53 + 1, 1]),
    "with a gap": (["9007199254740992", ""], "<f8", [2.0**53, NAN]),
    "fractions": (["0.1", ".5", "5.", "-0.0", "1e-320"], "<f8", [0.1, 0.5, 5.0, -0.0, 1e-320]),
    "trailing zeros": (["1.10", "2"], "<f8", [1.1, 2.0]),
    "exponents": (["1e5", "2E-3", "1e+2"], "<f8", [1e5, 2e-3, 100.0]),
    "nan and inf": (
        ["nan", "NaN", "inf", "-inf", "Infinity", "1"],
        "<f8",
        [NAN, NAN, math.inf, -math.inf, math.inf, 1.0],
    ),
    "minus zero": (["-0", "1"], "<f8", [-0.0, 1.0]),
    "gaps alone": (["", ""], "<f8", [NAN, NAN]),
    "nan alone": (["nan", "nan"], "text", ["nan", "nan"]),
    "signed and too large": (["18446744073709551615", "-1"], "text", ["18446744073709551615", "-1"]),
    "30 digits": (["1" * 30, "1"], "text", ["1" * 30, "1"]),
    "5000 digits": (["9" * 5000], "text", ["9" * 5000]),
    "leading zeros": (["007", "123"], "text", ["007", "123"]),
    "minus and leading zeros": (["-07", "1"], "text", ["-07", "1"]),
    "underscores": (["2024_01", "2024_02"], "text", ["2024_01", "2024_02"]),
    "one underscore": (["1_1"], "text", ["1_1"]),
    "spaces": ([" 1", "2 "], "text", [" 1", "2 "]),
    "no-break spaces": (["\u00a01"], "text", ["\u00a01"]),
    "a tab": (["1\t"], "text", ["1\t"]),
    "plus": (["+1", "-1"], "text", ["+1", "-1"]),
    "hexadecimal": (["0x10"], "text", ["0x10"]),
    "other scripts": (["\u0661", "\uff12"], "text", ["\u0661", "\uff12"]),
    "decimal commas": (["1,5", "2,5"], "text", ["1,5", "2,5"]),
    "percent": (["5%"], "text", ["5%"]),
    "booleans": (["True", "False"], "|b1", [True, False]),
    "dates": (["2024-01-05", ""], "<M8[D]", [dt.date(2024, 1, 5), None]),
    "a dash": (["1.5", "-", "2.5"], "text", ["1.5", "-", "2.5"]),
    "a point": (["1", "."], "text", ["1", "."]),
    "e alone": (["1", "e5", "1e"], "text", ["1", "e5", "1e"]),
    "numbers in two lines": (["1\n2", "3"], "text", ["1\n2", "3"]),
    "words": (["a", ""], "text", ["a", ""]),
}


@pytest.mark.parametrize("name", TYPES)
async def test_types(name: str, tmp_path: Path) -> None:
    """What a column's cells say, all of them; and what is kept as text though it looks like a number is told."""
    cells, dtype, expected = TYPES[name]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["place", "x"])
    writer.writerows(enumerate(cells))
    done, found = await publish(table(tmp_path, out.getvalue()), tmp_path)
    assert done.columns[1] == ("x", dtype, ())
    assert repr(found["x"]) == repr(expected)
    is_told = name not in ("words", "dates", "booleans") and dtype == "text"
    assert len(done.notes) == is_told
    assert all("column 'x' is text" in note and ("line " in note or "nan" in note) for note in done.notes)


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "a gap beyond 2^53": (
        "a,b\n9007199254740993,1\n,2\n",
        "'a': line 2 has '9007199254740993', but line 3 is empty",
    ),
    "a gap among unsigned": (
        "a,b\n,1\n18446744073709551615,2\n",
        "'a': line 3 has '18446744073709551615', but line 2 is",
    ),
    "30 digits and a gap": (f"a,b\n{'1' * 30},1\n,2\n", "column 'a': line 2 has '1{30}'"),
    "fractions beyond 2^53": (
        "a\n1.5\n9007199254740993\n",
        "'a': line 3 has '9007199254740993', but other cells",
    ),
    "a fraction of zeros": ("a\n1.5\n9007199254740993.0\n", "line 3 has '9007199254740993.0'"),
    "too large": ("a\n1.5\n1e400\n", "line 3 has '1e400', which is beyond the range of float64"),
    "too small": ("a\n1.5\n1e-400\n", "line 3 has '1e-400', which is beyond"),
    "a word after 11,500 numbers": (
        "i,weight\n" + "".join(f"{i},{i}\n" for i in range(11_500)) + "1,oops\n",
        "column 'weight': line 11502 has 'oops', which is no plain number",
    ),
    "a word before 5,000 numbers": ("w\noops\n" + numbers(5000), "column 'w': line 2 has 'oops'"),
    "a unit below the names": ("t,v\ns,V\n" + "".join(f"{i},1\n" for i in range(2000)), "column 't': line 2 has 's'"),
    "an open quote": ('a,b\n1,x\n2,"y\n3,z\n', "line 3: the quote that opens in this line is never closed"),
    "an open quote after others": (
        'a,b\n1,"x\ny"\n2,"y\n3,z\n',
        "line 4: the quote that opens in this line is never closed",
    ),
    "an open quote that meets another": (
        'a,b\n1,"x\n2,"y"\n',
        r"line 3: text follows a .*\(one that opened in line 2\)",
    ),
    "an open quote in the names": ('a,"b\n1,2\n', "line 1: the quote that opens"),
    "backslashes": ('a\n"say \\"hi\\""\n', "line 2: text follows a closing quote"),
    "no header": ("1,2.5\n3,4.5\n", "no header: '1' in the first line looks like data"),
    "no header, words too": ("5.1,setosa\n4.9,setosa\n", "no header: '5.1'"),
    "no header, dates": ("a,2024-01-01\nb,2024-01-02\n", "no header: '2024-01-01'"),
    "no header, times": ("a,12:30:00\nb,13:00:00\n", "no header: '12:30:00'"),
    "no header, other dates": ("a,31/12/2024\nb,1/1/2025\n", "no header: '31/12/2024'"),
    "no header, negative": ("a,-1.5e3\nb,2\n", "no header: '-1.5e3'"),
    "no header, booleans": ("true,x\nfalse,y\n", "no header: 'true'"),
    "no header, addresses": ("bob@x.org,1\nann@x.org,2\n", "no header: 'bob@x.org'"),
    "no header, URLs": ("http://a/1,cat\nhttp://a/2,dog\n", "no header: 'http://a/1'"),
    "no header, months": ("a,2024-01\nb,2024-02\n", "no header: '2024-01'"),
    "no header, infinity": ("a,+INF\nb,1\n", r"no header: '\+INF'"),
    "no header, years": ("Spain,2019,2020\nItaly,2018,2021\n", "no header: '2019'"),
    "no header, one year": ("Spain,2019\nItaly,5\n", "no header: '2019'"),
    "no header, sizes": ("a.jpg,1920,2000\nb.jpg,640,480\n", "no header: '1920'"),
    "no header, days": ("a,2024-01-01,2024-01-05\nb,2024-02-01,2024-02-07\n", "no header: '2024-01-01'"),
    "no header, years and numbers": ("a,2019,2020,0.5\nb,3,4,5\n", "no header: '2019'"),
    "lines of JSON": ('{"a": 1, "b": 2}\n{"a": 2, "b": 3}\n', "no header"),
    "Excel's first line": ("sep=;\na;b\n1;2\n", "line 1: 'sep=;' is a word to Excel"),
    "a comment": ("# made by x\na,b\n1,2\n", "line 2: .*begins with '#'"),
    "a separator at the end of rows": ("a,b\n1,2,\n", "line 2: .*a separator ends this line"),
    "a separator at the end of names": ("a,b,\n1,2,\n", r"column 3 has no name .*\(a separator ends the line\)"),
    "5000 digits and a fraction": (f"a\n1.5\n{'1' * 5000}.0\n", "line 3 has '1{60}', which is beyond the range"),
    "a long value": (f"a,b\n1,2\n{'x' * (2**24 + 10)},1\n", "line 3: a value is longer than"),
    "nan beside 2^53 + 1": ("a\n9007199254740993\nnan\n", "but other cells are nan or inf"),
    "no name": ("a,,b\n1,2,3\n", "column 2 has no name"),
    "pandas' index": (",a\n0,1\n", "column 1 has no name .*index=False"),
    "a name twice": ("a,b,a\n1,2,3\n", "the column name 'a' stands twice"),
    "names again": ("a,b\n1,2\na,b\n3,4\n", "line 3: the line of names stands here again"),
    "too few fields": ("a,b\n1,2\n3\n", "line 3: 1 fields, expected 2"),
    "too many fields": ("a,b\n1,2\n3,4,5\n", "line 3: 3 fields, expected 2"),
    "too few after a cell of two lines": ('a,b\n"1\n2",3\n4\n', "line 4: 1 fields, expected 2"),
    "a zero byte": (b"a,b\n1,x\0\n", "line 2: a zero byte"),
    "UTF-16 without a mark": ("a,b\n1,2\n".encode("utf-16-le"), "line 1: a zero byte.*UTF-16"),
    "Latin-1": ("a,b\n1,x\n2,grün\n".encode("latin-1"), r"line 3: not UTF-8 text \(byte 12\)"),
    "a lone surrogate": (b"\xef\xbb\xbfa\n\xed\xa0\x80\n", r"line 2: not UTF-8 text \(byte 5\)"),
    "two separators": ("a,b;c,d\n1,2;3,4\n", "separated by ',' or ';'"),
    "spaces": ("a b\n1 2\n3 4\n", "separated by spaces"),
    "one name for several fields": ("data\n1;2\n3;4\n", "2 fields separated by ';'"),
    "an empty line in one column": ("x\n1\n\n2\n", "line 3: an empty line in a table of one column"),
    "no rows": ("a,b\n", "no samples"),
    "nothing": ("", "is empty; expected a first line"),
    "empty lines": ("\n\n", "is empty"),
    "4,097 columns": (",".join(f"c{i}" for i in range(4097)) + "\n", "4097 columns, at most 4096"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str, tmp_path: Path) -> None:
    """File, line and column are named; nothing is published."""
    content, message = REFUSED[name]
    with pytest.raises(dnc.DatasetError, match=f"t.csv.*{message}"):
        await dnc.upload(table(tmp_path, content), store=tmp_path / "store")
    assert nothing_published(tmp_path)


READ: dict[str, tuple[str | bytes, dict[str, list[Any]]]] = {
    "a mark": (b"\xef\xbb\xbfa,b\n1,2\n", {"a": [1], "b": [2]}),
    "CRLF": ("a,b\r\n1,x\r\n2,y\r\n", {"a": [1, 2], "b": ["x", "y"]}),
    "CR": ("a,b\r1,x\r2,y\r", {"a": [1, 2], "b": ["x", "y"]}),
    "no line end": ("a,b\n1,x", {"a": [1], "b": ["x"]}),
    "semicolons": ("a;b\n1;2,5\n", {"a": [1], "b": ["2,5"]}),
    "tabs": ("a\tb\n1\t2\n", {"a": [1], "b": [2]}),
    "pipes": ("a|b\n1|x,y\n", {"a": [1], "b": ["x,y"]}),
    "quotes": ('"a,b",c\n"1","say ""hi""\r\nthere"\n', {"a,b": [1], "c": ['say "hi"\r\nthere']}),
    "a quote within": ('a,b\n1,5" pipe\n', {"a": [1], "b": ['5" pipe']}),
    "semicolons in a text": ("text\nhi; there\nyo\n", {"text": ["hi; there", "yo"]}),
    "two words": ("full name\nJohn Smith\nAnna May\n", {"full name": ["John Smith", "Anna May"]}),
    "empty lines": ("\na,b\n1,2\n\n3,4\n\n", {"a": [1, 3], "b": [2, 4]}),
    "empty lines at the end of one column": ("x\n1\n\n\n", {"x": [1]}),
    "an empty value in quotes": ('x\n1.5\n""\n', {"x": [1.5, NAN]}),
    "years": ("country,2019,2020\nSpain,1.5,2\n", {"country": ["Spain"], "2019": [1.5], "2020": [2]}),
    "years backwards": ("a,2020,2015,2010\nx,1,2,3\n", {"a": ["x"], "2020": [1], "2015": [2], "2010": [3]}),
    "months": ("a,2024-01,2024-02\nx,1,2\n", {"a": ["x"], "2024-01": [1], "2024-02": [2]}),
    "days": ("a,Lat,1/22/20,1/23/20\nx,5,1,2\n", {"a": ["x"], "Lat": [5], "1/22/20": [1], "1/23/20": [2]}),
    "other line ends of Unicode": ("a,b\n1,x\u2028y\n2,z\x0b\n", {"a": [1, 2], "b": ["x\u2028y", "z\x0b"]}),
    "the order of columns": ("z,a,m\n1,2,3\n", {"z": [1], "a": [2], "m": [3]}),
    "a late fraction": ("i\n" + numbers(9000) + "0.5\n", {"i": [*map(float, range(9000)), 0.5]}),
    "a late zero": ("i\n" + numbers(9000) + "007\n", {"i": [*map(str, range(9000)), "007"]}),
    "many late words": (
        "i\n" + numbers(5000) + "".join(f"w{i}\n" for i in range(200)),
        {"i": [*map(str, range(5000)), *(f"w{i}" for i in range(200))]},
    ),
    "a long cell": (f"a,b\n{'x' * 300_000},1\n", {"a": ["x" * 300_000], "b": [1]}),
    "a cell of many lines": (f'a,b\n"{"x;" * 200_000}{"y" * 9}",1\n', {"a": ["x;" * 200_000 + "y" * 9], "b": [1]}),
    "a long line of names": (
        ",".join(f"name_{i:04}_{'z' * 90}" for i in range(4000)) + "\n" + ",".join("1" * 4000) + "\n",
        {f"name_{i:04}_{'z' * 90}": [1] for i in range(4000)},
    ),
}


@pytest.mark.parametrize("text", [" " * 300_000, "a@" + ".a" * 100_000, "1," * 100_000])
@pytest.mark.parametrize("row", [0, 1])
async def test_long_texts_are_not_searched(text: str, row: int, tmp_path: Path) -> None:
    """For what they look like, which would take hours; a name of that length is refused."""
    path = table(tmp_path, "\n".join(f'"{text if i == row else "a"}x",{"b" if not i else 1}' for i in range(2)))
    if row:
        assert (await publish(path, tmp_path))[1] == {"ax": [f"{text}x"], "b": [1]}
        return
    with pytest.raises(dnc.DatasetError, match=r"its name has \d+ bytes, at most 4096"):
        await dnc.upload(path, store=tmp_path / "store")


@pytest.mark.parametrize("name", READ)
async def test_read(name: str, tmp_path: Path) -> None:
    """As it is written, in the order of the columns."""
    content, expected = READ[name]
    _, found = await publish(table(tmp_path, content), tmp_path, batch_size=1000)
    assert repr(found) == repr(expected)


async def test_notes_name_the_line(tmp_path: Path) -> None:
    """Of a column that is text for the sake of some cells."""
    done, _ = await publish(table(tmp_path, "id,x\n1,1.5\n2,NA\n3,\n"), tmp_path)
    assert done.notes == ("column 'x' is text: line 3 has 'NA', which is no plain number; 1 of its cells are numbers",)


CELLS = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(repr),
    st.sampled_from(
        [
            "",
            "007",
            "1_0",
            "+1",
            " 1",
            "nan",
            "inf",
            "-0",
            ".5",
            "5.",
            "1e5",
            "9007199254740993",
            "0.1000000000000000055",
        ]
    ),
    st.text(alphabet="0123456789.-+eE_ ", max_size=6),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=12), st.integers(1, 12))
def test_no_value_is_lost(cells: list[str], size: int) -> None:
    """However the cells are cut into blocks, the type is the same, and whole numbers and text are exactly what was written."""
    kinds = []
    for step in (size, len(cells)):
        column = CsvColumn()
        for start in range(0, len(cells), step):
            part = cells[start : start + step]
            column.look(part, range(start, start + len(part)))
        try:
            kinds.append(column.decide("x"))
        except ValueError as error:
            kinds.append(str(error))
    assert kinds[0] == kinds[1]
    if kinds[0] in (INTEGER, UNSIGNED, TEXT):
        assert [str(value) for value in convert(cells, kinds[0]).tolist()] == cells
    elif kinds[0] == FLOAT:
        for cell, value in zip(cells, convert(cells, FLOAT).tolist(), strict=True):
            assert math.isnan(value) if cell in ("", "nan") else value == float(cell)
            if cell.removeprefix("-").isdigit():
                assert value == int(cell)
