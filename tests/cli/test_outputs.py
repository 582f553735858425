"""Where a command writes: devices, pipes and symlinks stay what they are, files are not replaced unseen, and full is an error."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import FIXTURES, PATIENCE_S, Shell, eventually
from .conftest import Dataset

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="devices and FIFOs of POSIX"),
    pytest.mark.processes,
]

Write = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["export", "get", "--report", "--html"])
def write(request: pytest.FixtureRequest, shell: Shell, dataset: Dataset) -> Write:
    """Run a command that writes to a name."""
    if request.param == "export":
        return lambda name, **ends: shell("export", dataset.cid, "--store", dataset.store, "-o", name, **ends)
    if request.param == "get":
        cid = shell("add", FIXTURES / "directory.car", "--store", "files").stdout.strip()
        return lambda name, **ends: shell("get", cid, "--store", "files", "-o", name, **ends)
    if request.param == "--report":
        return lambda name, **ends: shell("stream", *dataset.here, "--report", name, **ends)
    shell("stream", *dataset.here, "--report", "run.json")
    return lambda name, **ends: shell("report", "run.json", "--html", name, **ends)


def test_devices(write: Write) -> None:
    """/dev/full is full, /dev/null takes all, and both are still devices."""
    said = write("/dev/full", status=1).stderr.splitlines()[-1]
    assert said.startswith("dnc: /dev/full: ")
    assert "No space left on device" in said
    write("/dev/null")
    for name in ("/dev/full", "/dev/null"):
        assert stat.S_ISCHR(Path(name).stat().st_mode)


def test_a_fifo(write: Write, shell: Shell) -> None:
    """Its reader gets everything, and it is still a FIFO."""
    path = shell.home / "fifo"
    os.mkfifo(path)
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reading.start()
    write(path)
    reading.join(PATIENCE_S)
    assert len(got[0]) > 1000
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_dangling_symlink_and_a_loop(write: Write, shell: Shell, request: pytest.FixtureRequest) -> None:
    """Written through; ``get`` alone follows none."""
    (shell.home / "link").symlink_to("there")
    (shell.home / "loop").symlink_to("loop")
    is_get = request.node.callspec.params["write"] == "get"
    write("link", status=1 if is_get else 0)
    assert (shell.home / "link").is_symlink()
    assert (shell.home / "there").exists() is not is_get
    write("loop", status=1)
    assert (shell.home / "loop").is_symlink()
    assert [name for name in shell.files() if name.endswith(".part")] == []


def test_a_folder(write: Write, shell: Shell, request: pytest.FixtureRequest) -> None:
    """Is named, and stays."""
    (shell.home / "folder").mkdir()
    if request.node.callspec.params["write"] == "get":
        write("folder")  # a file goes into it
        return
    done = write("folder", status=2 if request.node.callspec.params["write"] == "--report" else 1)
    assert "folder: " in done.stderr
    assert list((shell.home / "folder").iterdir()) == []


def test_names_that_are_no_files(write: Write, shell: Shell, request: pytest.FixtureRequest) -> None:
    """A number that no stream can have, and a folder that is not there."""
    assert "/dev/fd/99999999999999: " in write("/dev/fd/99999999999999", status=1).stderr
    if request.node.callspec.params["write"] != "get":  # which makes the folder
        assert "new/: " in write("new/", status=2 if request.node.callspec.params["write"] == "--report" else 1).stderr
        assert not (shell.home / "new").exists()


def test_export_replaces_nothing_unasked(shell: Shell, dataset: Dataset) -> None:
    """A file that is there is refused, through a symlink too, and replaced with --force, which keeps its mode."""
    export = ("export", dataset.cid, "--store", dataset.store)
    (shell.home / "mine").write_text("mine", encoding="utf-8")
    (shell.home / "mine").chmod(0o600)
    (shell.home / "link").symlink_to("mine")
    for name in ("mine", "link"):
        assert f"{name} is there already" in shell.refuses(*export, "-o", name)
    assert (shell.home / "mine").read_text(encoding="utf-8") == "mine"
    shell(*export, "-o", "link", "--force")
    assert (shell.home / "link").is_symlink()
    assert (shell.home / "mine").stat().st_size > 1000
    assert stat.S_IMODE((shell.home / "mine").stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to any file")
def test_a_file_that_may_not_be_written(shell: Shell, dataset: Dataset) -> None:
    """Renaming over it would not ask."""
    (shell.home / "mine").write_text("mine", encoding="utf-8")
    (shell.home / "mine").chmod(0o400)
    assert "Permission denied" in shell("stream", *dataset.here, "--report", "mine", status=1).stderr


def test_reports_say_what_they_replace(shell: Shell, dataset: Dataset) -> None:
    """The report of a run is written again by the next one: a line says so."""
    assert "replaced" not in shell("stream", *dataset.here, "--report", "run.json").stderr
    assert (
        "run.json: was there already, and is replaced" in shell("stream", *dataset.here, "--report", "run.json").stderr
    )
    done = shell("report", "run.json", "--html", "run.html")
    assert (done.stdout, done.stderr) == ("run.html\n", "")
    assert "run.html: was there already" in shell("report", "run.json", "--html", "run.html").stderr


def test_a_pipe_that_nobody_reads(shell: Shell, dataset: Dataset) -> None:
    """A report does not wait for ever, at the end of a run."""
    os.mkfifo(shell.home / "fifo")
    assert "nobody reads" in shell("stream", *dataset.here, "--report", "fifo", status=1).stderr


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_its_names(shell: Shell, dataset: Dataset, name: str) -> None:
    """The same bytes, whatever is behind it: a pipe, or a file, which is not replaced; nothing else is mixed in."""
    shell("export", dataset.cid, "--store", dataset.store, "-o", "whole.car")
    whole = (shell.home / "whole.car").read_bytes()
    command = [sys.executable, "-m", "dnc_async", "export", dataset.cid, "--store", str(dataset.store), "-o", name]
    piped = subprocess.run(command, capture_output=True, check=True, env=shell.environment, timeout=PATIENCE_S)
    assert piped.stdout == whole
    with (shell.home / "out").open("wb") as out:
        inode = os.fstat(out.fileno()).st_ino
        subprocess.run(
            [*command, "--json"],
            stdout=out,
            stderr=subprocess.PIPE,
            check=True,
            env=shell.environment,
            timeout=PATIENCE_S,
        )
    assert (shell.home / "out").stat().st_ino == inode
    assert (shell.home / "out").read_bytes() == whole
    shell.refuses("export", dataset.cid, "--store", dataset.store, "-o", name, "--indexed", status=2)


def test_get_to_standard_output(shell: Shell) -> None:
    """A file's bytes; a folder is refused."""
    cid = shell("add", FIXTURES / "directory.car", "--store", "s").stdout.strip()
    command = [sys.executable, "-m", "dnc_async", "get", cid, "--store", str(shell.home / "s"), "-o", "-"]
    done = subprocess.run(command, capture_output=True, check=True, env=shell.environment, timeout=PATIENCE_S)
    assert done.stdout == (FIXTURES / "directory.car").read_bytes()
    root = shell("import", FIXTURES / "directory.car", "--store", "s").stdout.strip()
    assert "is a directory" in shell.refuses("get", root, "--store", "s", "-o", "/dev/null")


def through_sh(shell: Shell, script: str) -> subprocess.CompletedProcess[str]:
    dnc = f"'{sys.executable}' -m dnc_async"
    return subprocess.run(
        ["/bin/sh", "-c", script.replace("dnc ", f"{dnc} ")],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE_S,
        check=False,
        env=shell.environment,
        cwd=shell.home,
    )


COMMANDS = ["stream {}", "verify {}", "export {} -o -", "--help"]


@pytest.mark.parametrize("command", COMMANDS)
def test_full_and_closed(shell: Shell, dataset: Dataset, command: str) -> None:
    """A full standard output is one line and exit status 1; a closed one, and one whose reader has left, is no word at all."""
    words = "dnc " + command.format(f"{dataset.cid} --store {dataset.store}" if "{}" in command else "")
    done = through_sh(shell, f"{words} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("dnc: standard output: No space left on device")
    assert "Traceback" not in done.stderr
    for script in (
        f"{words} >&-",
        f"{words} | true",
        f"{words} 2>&-",
        f"{words} <&- >&- 2>&-",
        f"{words} 2> /dev/full",
    ):
        done = through_sh(shell, script)
        assert done.returncode == 0, script
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert "dnc:" not in done.stderr


def test_a_full_stderr(shell: Shell, dataset: Dataset) -> None:
    """What is said there is lost, and changes nothing: neither of what was done nor of the exit status."""
    (shell.home / "f").write_text("hello", encoding="utf-8")
    for words, status in (
        ("add f --store s", 0),
        (f"stream {dataset.cid} --store {dataset.store} > /dev/full", 1),
        ("x", 2),
    ):
        done = through_sh(shell, f"dnc {words} 2> /dev/full")
        assert done.returncode == status, words


@pytest.mark.parametrize("end", [">&-", "> /dev/full", "| true"])
def test_serve_goes_on(shell: Shell, dataset: Dataset, end: str) -> None:
    """Whoever does not read its URL is served all the same."""
    with shell.start("serve", "--store", dataset.store, "--port", 0) as first:  # a port that is free
        assert first.stdout is not None
        port = first.stdout.readline().strip().rpartition(":")[2]
    script = f"'{sys.executable}' -m dnc_async serve --store '{dataset.store}' --port {port} {end}"
    with subprocess.Popen(
        ["/bin/sh", "-c", script], stderr=subprocess.DEVNULL, env=shell.environment, start_new_session=True
    ) as process:
        try:
            assert eventually(lambda: answers(f"http://127.0.0.1:{port}/ipfs/{dataset.cid}?format=raw"))
            assert answers(f"http://127.0.0.1:{port}/ipfs/{dataset.cid}?format=raw")
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310 - our own URL
            return bool(answer.status == 200)
    except OSError:
        return False


HELPS = """
import contextlib
from dnc_async.cli import main
for command in ("upload", "stream", "report", "inspect", "get", "add", "import", "export", "verify", "serve"):
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_encodings(shell: Shell, dataset: Dataset, encoding: str) -> None:
    """Reports have bars of '#' where there are no blocks, in the shell and in Python; everything else works, too."""
    there = Shell(shell.home, {"PYTHONIOENCODING": encoding})
    said = there("stream", *dataset.here, "--report", "run.json").stdout
    assert "  #" in said
    assert there("report", "run.json").stdout.isascii()
    for words in (["inspect", *dataset.here], ["verify", "--store", dataset.store], ["--help"]):
        assert there(*words).stdout.isascii()
    if encoding != "cp1252":  # which has an ellipsis
        helps = there.python("-c", HELPS).stdout
        assert helps.isascii()
        assert helps.count("usage: dnc ") == 10
    program = "from dnc_async.engine.report.report import Report; print(Report.load('run.json'))"
    done = there.python("-c", program)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  #" in done.stdout
    assert json.loads((shell.home / "run.json").read_text())["batches"]
