"""Columns that are in the names of folders, as Hive and Spark write them: ``year=2024/month=05/part-0.parquet``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.ragged import Text
from dnc_async.errors import DatasetError

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


class Partitions:
    """The values of each file's folders. Keys whose values all are whole numbers are columns of them, others of text."""

    def __init__(self, source: Source) -> None:
        root = source.root
        self._values = {} if root is None else {id(file): _pairs(file.path, root) for file in source.files}
        keys = {tuple(pairs) for pairs in self._values.values()}
        if len(keys) > 1:
            shown = " and ".join(sorted("/".join(names) or "no such folder" for names in keys)[:2])
            raise DatasetError(f"{source.where}: folders have unlike keys, {shown}; all files need the same ones")
        self._keys = next(iter(keys), ())
        self._wholes = {
            key for key in self._keys if all(_WHOLE.fullmatch(pairs[key]) for pairs in self._values.values())
        }

    def added(self, blocks: Iterator[Any], source: Source) -> Iterator[Any]:
        """Yield blocks with these columns at their end."""
        for block in blocks:
            if block is None or not self._keys or not isinstance(block, dict):
                yield block
                continue
            values = self._values[id(source.current)]
            twice = next((key for key in self._keys if key in block), None)
            if twice is not None:
                raise DatasetError(
                    f"{source.place}: has a column {twice!r}, and is in a folder '{twice}={values[twice]}'"
                )
            rows = len(next(iter(block.values())))
            yield {**block, **{key: self._column(key, values[key], rows) for key in self._keys}}

    def _column(self, key: str, value: str, rows: int) -> Any:  # noqa: ANN401 - an array, or Text
        return np.full(rows, int(value), dtype=np.int64) if key in self._wholes else Text.of([value.encode()] * rows)


def _pairs(path: Path, root: Path) -> dict[str, str]:
    parts = [part.partition("=") for part in path.relative_to(root).parent.parts]
    return {key: unquote(value) for key, is_pair, value in parts if key and is_pair}
