"""SIGTERM and SIGHUP end a command as Ctrl-C does: 128 and the signal's number, one line, nothing left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dnc_async.cli.process import ended_by_signals

from ..conftest import PATIENCE_S, Shell, eventually
from .conftest import Dataset

ENDINGS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129)]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


@pytest.mark.parametrize(("number", "status"), ENDINGS)
def test_stream(shell: Shell, dataset: Dataset, number: signal.Signals, status: int) -> None:
    """The spool is gone."""
    with shell.start("stream", *dataset.here, "--budget", "1MB", "--epochs", 100_000) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert ended(process, number) == (status, f"ended by {number.name}\n")
    assert shell.files() == []


@pytest.mark.parametrize(("number", "status"), ENDINGS)
def test_upload(shell: Shell, tmp_path: Path, number: signal.Signals, status: int) -> None:
    """The staging is gone, and the store holds nothing of it."""
    np.save(tmp_path / "t.npy", np.arange(16 * 2**20))
    store = tmp_path / "store"
    with shell.start("upload", tmp_path / "t.npy", "--batch-size", 1000, "--store", store) as process:
        assert eventually(lambda: any(store.glob("staging/*/*/*")))
        assert ended(process, number) == (status, f"ended by {number.name}\n")
    assert [path for path in store.rglob("*") if path.is_file()] == [store / "format"]


@pytest.mark.parametrize(("number", "status"), ENDINGS)
def test_add(shell: Shell, tmp_path: Path, number: signal.Signals, status: int) -> None:
    """A command without an event loop."""
    folder = tmp_path / "many"
    folder.mkdir()
    for each in range(8):
        with (folder / str(each)).open("wb") as file:
            file.truncate(2**30)
    store = tmp_path / "store"
    with shell.start("add", folder, "--store", store) as process:
        assert eventually(lambda: any(store.glob("staging/*/*/*")))
        assert ended(process, number) == (status, f"ended by {number.name}\n")
    assert [path for path in store.rglob("*") if path.is_file()] == [store / "format"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_nobody_reads(shell: Shell, dataset: Dataset, number: signal.Signals) -> None:
    """The pipe behind standard output is full, so that the command waits in a write."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "dnc_async", "stream", *dataset.here, "--epochs", "1000000", "--json"]
    with subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True, env=shell.environment) as process:
        state = Path(f"/proc/{process.pid}/wchan")
        if not state.exists():
            process.kill()
            pytest.skip("needs to see what a process waits in")
        os.close(write)
        assert eventually(lambda: "pipe" in state.read_text())
        assert ended(process, number)[0] == 128 + number
    os.close(read)
    assert shell.files() == []


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_what_was_ignored_before(shell: Shell, dataset: Dataset, ignored: signal.Signals) -> None:
    """``nohup`` and a shell's background have a signal ignored: it stays so, and SIGTERM works as ever."""
    ignore = f"signal.signal({int(ignored)}, signal.SIG_IGN)"
    program = f"import signal, sys; {ignore}; from dnc_async.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "stream", *dataset.here, "--epochs", "100000", "--budget", "1MB"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=shell.environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(ignored)
        for _ in range(20):
            assert process.stdout.readline()
        assert ended(process, signal.SIGTERM) == (143, "ended by SIGTERM\n")
    assert shell.files() == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), *ENDINGS])
def test_before_the_command_is_imported(shell: Shell, number: signal.Signals, status: int) -> None:
    """That takes longer than some commands do, and is interrupted as they are."""
    program = f"""if True:
        import os, sys
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "dnc_async.cli.commands":
                    os.kill(os.getpid(), {int(number)})
        sys.meta_path.insert(0, Finder())
        from dnc_async.cli import main
        assert not {{"argparse", "asyncio"}} & set(sys.modules)
        sys.exit(main())
    """
    done = shell.python("-c", program, "verify")
    said = "interrupted" if number is signal.SIGINT else f"ended by {number.name}"
    assert (done.returncode, done.stderr) == (status, f"{said}\n")


def test_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal at once is the same one; a later one is heeded again, lest a lost one leave us deaf."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with ended_by_signals() as status:
        for number in (signal.SIGTERM, signal.SIGHUP):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            signal.raise_signal(signal.SIGTERM)
            now += 10
        assert status() == 143


def test_serve(shell: Shell, dataset: Dataset) -> None:
    """SIGTERM is how a service is told to stop: that is no failure."""
    with shell.start("serve", "--store", dataset.store, "--port", 0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert ended(process, signal.SIGTERM) == (0, "")
