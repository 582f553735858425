"""``dnc`` as a real process, in a home of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import dnc_async

#: Nothing listens on the discard port, so no test reaches a public gateway by accident.
NOBODY = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Shell:
    """Runs commands as a user would; the home, the caches and the temporary files all lie below ``home``."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with the folders moved, nothing of IPFS set up, and the package that is being tested."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DNC_", "IPFS_", "XDG_"))}
        folders = {
            "HOME": self.home,
            "TMPDIR": self.home / "tmp",
            "XDG_CACHE_HOME": self.home / "cache",
            "XDG_DATA_HOME": self.home / "data",
        }
        (self.home / "tmp").mkdir(exist_ok=True)
        return {
            **kept,
            **{name: str(folder) for name, folder in folders.items()},
            "IPFS_GATEWAY": NOBODY,
            "PYTHONPATH": str(Path(dnc_async.__file__).parent.parent),
        }

    def __call__(self, *words: object, status: int = 0, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run ``dnc`` to its end, which must have this exit status."""
        done = self.python("-m", "dnc_async", *words, timeout_s=timeout_s)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def python(self, *words: object, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run Python to its end."""
        command = [sys.executable, *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, env=self.environment, cwd=self.home
        )

    def refuses(self, *words: object, status: int = 1) -> str:
        """Run ``dnc`` with bad input: no result, and one line on stderr, which is given without ``dnc:``."""
        done = self(*words, status=status)
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("dnc: ")
        return lines[0].removeprefix("dnc: ")

    @contextlib.contextmanager
    def start(self, *words: object) -> Iterator[subprocess.Popen[str]]:
        """Start ``dnc``; it is killed if the block leaves it running."""
        command = [sys.executable, "-m", "dnc_async", *map(str, words)]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=self.environment, cwd=self.home
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def files(self) -> list[str]:
        """All files and folders below the home, but for the empty folders that hold caches and temporary files."""
        found = {path.relative_to(self.home).as_posix() for path in self.home.rglob("*")}
        return sorted(found - {"tmp", "cache", "data", "cache/dnc_async", "data/dnc_async"})


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "home").mkdir()
    return Shell(tmp_path / "home")


def interrupt(process: subprocess.Popen[str], timeout_s: float = 30) -> tuple[int, str]:
    """Press Ctrl-C; gives the exit status and stderr. What it still wrote to stdout is read, so that it cannot block."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=timeout_s)
    return process.returncode, said


def eventually(check: Callable[[], bool], timeout_s: float = 30) -> bool:
    """Poll until it is true, or time is up."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
