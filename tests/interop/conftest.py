"""Real parts of others', built from their registries. Only ``nox -s interop`` runs these tests: it sets DNC_INTEROP."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import PATIENCE_S

if "DNC_INTEROP" not in os.environ:
    collect_ignore_glob = ["test_*.py"]

Boxo = Callable[..., AbstractContextManager[str]]


@contextmanager
def announced(command: list[str]) -> Iterator[str]:
    """A program that prints its URL when it is ready, and ends when its standard input does."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(timeout=PATIENCE_S)


@pytest.fixture(scope="session")
def boxo_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program beside this file, built."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go here: the reference gateway cannot be built")
    program = tmp_path_factory.mktemp("boxo") / "gateway"
    folder = Path(__file__).parent / "boxo"
    subprocess.run([go, "build", "-trimpath", "-o", program, "."], cwd=folder, check=True, timeout=600)
    return program


@pytest.fixture(scope="session")
def boxo(boxo_program: Path) -> Boxo:
    """Serve some CAR files by the reference gateway: enter what it returns for the URL."""
    return lambda *words: announced([str(boxo_program), *map(str, words)])


@dataclass(frozen=True)
class Node:
    """The programs beside this file, and those of ipfs-car, with what they need installed from its registry."""

    folder: Path

    def __call__(self, script: str, *words: object, say: str = "") -> str:
        """Run a program to its end; gives its standard output."""
        command = ["node", self.folder / script, *map(str, words)]
        done = subprocess.run(command, input=say, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def helia(self, *cars: Path) -> AbstractContextManager[str]:
        """Helia as a gateway over some CAR files: enter for the URL."""
        return announced(["node", str(self.folder / "gateway.mjs"), *map(str, cars)])


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Install what ``node/package-lock.json`` names."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no Node here: Helia and js-ipfs cannot be run")
    folder = tmp_path_factory.mktemp("node") / "node"
    shutil.copytree(Path(__file__).parent / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, timeout=600)
    return Node(folder)
