"""A file with a line of JSON for each run: a long measurement can be made in parts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def kept(path: Path | None) -> list[dict[str, Any]]:
    """The fields of every row so far."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def keep(path: Path | None, row: DataclassInstance) -> None:
    """Append a row, where there is a file."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
