"""Tells whether the first line of a CSV file names its columns, or is a row of data. PURE."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from dnc_async.dataset.limits import MAX_COLUMNS

_DATE = r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}"
_MONTH = r"\d{4}[-/]\d{1,2}"
_YEAR = r"(?:19|20)\d\d"
_LONGEST = 400
_VALUE = re.compile(
    r"\s*(?:"
    r"[+-]?(?:\d[\d.,_]*|\.\d+)(?:[eE][+-]?\d+)?\s*%?|[+-]?inf(?:inity)?|nan|true|false|0x[\da-f]+|"
    rf"{_DATE}(?:[T ]\S*)?|{_MONTH}|\d{{1,2}}:\d\d(?::\d\d\S*)?(?:\s*[ap]m)?|"
    r"[a-z]+://\S+|[^\s@]+@[^\s@]+\.[a-z]+|[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}|"
    r'[{\[]\s*["{\[\d].*'  # JSON
    r")\s*",
    re.IGNORECASE | re.DOTALL,
)
_PERIODS = tuple(re.compile(period) for period in (_YEAR, _MONTH, _DATE))


def is_like_a_value(text: str) -> bool:
    """Whether a text looks like a value and not like a name. Long texts do not."""
    return len(text) <= _LONGEST and _VALUE.fullmatch(text) is not None


def names_problem(names: Sequence[str], rows: Sequence[Sequence[str]] | None) -> str | None:
    """Why the first line does not name the columns, and what to do; ``rows`` are some of the rows below it.

    Without ``rows``, names may look like data: the caller has said that they are names.
    """
    if not names:
        return "is empty; expected a first line with the names of the columns"
    if len(names) > MAX_COLUMNS:
        return f"{len(names)} columns, at most {MAX_COLUMNS} are allowed"
    counts = Counter(names)
    values = [place for place, name in enumerate(names) if is_like_a_value(name)]
    if values and rows is not None and not _are_periods(names, rows, values):
        return (
            f"there seems to be no header: {names[values[0]][:80]!r} in the first line looks like data; put a line with "
            "the names of the columns before it, or pass header=False (header=True if these are names)"
        )
    for place, name in enumerate(names, 1):
        if not name.strip():
            index = " (an index of pandas? to_csv(index=False) leaves it out)" if place == 1 else ""
            end = " (a separator ends the line)" if 1 < place == len(names) else ""
            return f"column {place} has no name in the first line; give it one{index}{end}"
        if counts[name] > 1:
            return f"the column name {name!r} stands twice in the first line; give each a name of its own"
    return None


def _are_periods(names: Sequence[str], rows: Sequence[Sequence[str]], places: Sequence[int]) -> bool:
    """Whether some columns are named by years, months or days and others by words, as in ``country,2019,2020``.

    A row of a file without names might look like that, too, but then the rows below it do as well.
    """
    period = next((each for each in _PERIODS if all(each.fullmatch(names[place]) for place in places)), None)
    if period is None or not 1 < len(places) < len(names):
        return False
    if period is _PERIODS[0]:
        years = [int(names[place]) for place in places]
        steps = {after - before for before, after in pairwise(years)}
        if len(steps) > 1 or not 0 < abs(next(iter(steps))) <= 10:
            return False
    below = [[row[place] for place in places] for row in rows if len(row) == len(names)]
    return bool(below) and not any(all(period.fullmatch(cell) for cell in cells) for cells in below)
