"""The bench that attacks ``dnc serve``: one short attack, and what its table says."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, which is no part of the wheel."""
    root = str(Path(__file__).parents[2])
    monkeypatch.setattr(sys, "path", [*sys.path, root])
    monkeypatch.setenv("PYTHONPATH", root)  # for its processes
    return importlib.import_module("bench.attack")


@pytest.mark.skipif(sys.platform != "linux", reason="it reads the server's memory from /proc")
def test_an_attack_is_measured(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--seconds", "0.2", "--only", "malformed", "--json"])
    said = capsys.readouterr()
    (row,) = json.loads(said.out)
    assert row["attack"] == "malformed requests"
    assert row["answers"] > 0
    assert row["memory_mb"] > 1
    assert row["error_lines"] == 0
    assert "malformed requests" in said.err


def test_a_row_keeps_the_promise_or_not(bench: ModuleType) -> None:
    kept = {"attack": "a", "answers": 1, "worst_s": 0.5, "memory_mb": 100.0, "error_lines": 0, "sigterm_s": 0.1}
    assert bench.Row(**kept).met
    for name, value in (("worst_s", 2.0), ("memory_mb", 301.0), ("sigterm_s", 6.0)):
        assert not bench.Row(**{**kept, name: value}).met
