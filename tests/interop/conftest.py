"""Real parts of others', built from their registries. Only ``nox -s interop`` runs these tests: it sets DNC_INTEROP."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

if "DNC_INTEROP" not in os.environ:
    collect_ignore_glob = ["test_*.py"]

Boxo = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def boxo(tmp_path_factory: pytest.TempPathFactory) -> Boxo:
    """Serve some CAR files by the reference gateway: enter what it returns for the URL."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go here: the reference gateway cannot be built")
    program = tmp_path_factory.mktemp("boxo") / "gateway"
    folder = Path(__file__).parent / "boxo"
    subprocess.run([go, "build", "-trimpath", "-o", program, "."], cwd=folder, check=True, timeout=600)

    @contextmanager
    def serve(*cars: Path) -> Iterator[str]:
        command = [str(program), *map(str, cars)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            try:
                yield process.stdout.readline().strip()
            finally:
                process.stdin.close()
                process.wait(timeout=10)

    return serve
