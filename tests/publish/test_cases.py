"""Files of other people's troubles, from public reports, whose right values were compared with what other libraries read.

``tests/fixtures/formats/cases.json`` says of each which files it has, and what comes back, or which words the error has.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import dnc_async as dnc

from .rounds import publish

pytest.importorskip("pyarrow")
FOLDER = Path(__file__).parents[1] / "fixtures" / "formats"
CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "cases.json").read_text(encoding="utf-8"))


def staged(case: dict[str, Any], base: Path) -> Path:
    """The one file or folder of a case, laid out in a folder of its own."""
    root = case.get("root")
    for name in case.get("files", ()):
        target = base / (Path(name).relative_to(Path(root).parent) if root else Path(name).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FOLDER / name, target)
    for name, parts in case.get("make", {}).items():
        (base / name).write_text("".join(map(made, parts)), encoding="utf-8", newline="")
    for name in case.get("dirs", ()):
        (base / name).mkdir()
    (path,) = base.iterdir()
    return path


def made(part: list[Any]) -> str:
    kind, *arguments = part
    if kind == "rows":
        first, end, row = arguments
        return "".join(row.replace("{i}", str(i)) for i in range(first, end))
    return arguments[0] * (arguments[1] if kind == "repeat" else 1)


def digest(found: Any) -> str:
    """What came back, as text; its hash if it is long."""
    text = json.dumps(found, default=lambda value: value.hex() if isinstance(value, bytes) else str(value))
    return text if len(text) < 400 else hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", CASES)
async def test_case(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    (tmp_path / "in").mkdir()
    path = staged(case, tmp_path / "in")
    if "refused" in case:
        with pytest.raises(dnc.DatasetError) as error:
            await dnc.upload(path, store=tmp_path / "store")
        assert all(word in str(error.value) for word in case["refused"])
        return
    done, found = await publish(path, tmp_path, shuffle=False, batch_size=4096)
    assert [f"{column}: {dtype}{list(shape) or ''}" for column, dtype, shape in done.columns] == case["columns"]
    assert digest(found) == case["found"]
