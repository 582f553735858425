"""Everything that is checked, run as CI runs it: ``nox``, or one of ``nox -s lint types layers tests interop``.

``nox -s peers`` is no check and not among them: it measures ours beside other loaders, and downloads several GB for it.

What is tested is the wheel: with ``PYTHONSAFEPATH`` the working copy is not importable by accident.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
TEST_GROUP = nox.project.dependency_groups(PYPROJECT, "test")
TABLES = nox.project.dependency_groups(PYPROJECT, "tables")
OLDEST = (3, 11)
PEERS_PYTHON = "3.12"  # the newest for which all of the peers have wheels
#: What is run on the Pythons between the oldest and the newest: where a new Python breaks things is loops and threads.
BETWEEN = ("-m", "not border", "tests/stream", "tests/notebook")
#: Three at once: a test waits about as long as it computes. Those of a file stay together, for what they share.
SIDE_BY_SIDE = ("-n", "3", "--dist", "loadfile")
CODE = ("dnc_async", "tests", "bench", "examples", "noxfile.py")


def _pythons() -> list[str]:
    """Every Python from 3.11 on that runs here, one of each minor version: on the PATH, or kept by pyenv."""
    kept = sorted(Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/3.*/bin/python3"))
    named = [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 20)]
    found: dict[tuple[int, int], str] = {}
    for path in [sys.executable, *filter(None, named), *map(str, kept)]:
        version = _version(path)
        if version is not None and version >= OLDEST:
            found.setdefault(version, path)
    return [found[version] for version in sorted(found)]


def _version(python: str) -> tuple[int, int] | None:
    try:
        done = subprocess.run([python, "-V"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):  # a shim without a Python behind it
        return None
    match = re.match(r"Python (\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else None


PYTHONS = _pythons()


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes."""
    session.install("ruff>=0.9")
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)


@nox.session
def types(session: nox.Session) -> None:
    """Strict types, of the library and of the code that uses it."""
    session.install("mypy>=1.14", ".", "nox", *TEST_GROUP)
    session.run("mypy")


@nox.session
def layers(session: nox.Session) -> None:
    """Imports point down."""
    session.install("import-linter>=2.12", ".")
    session.run("lint-imports")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests, against the wheel, on every Python found; on the newest with the demo's packages, and the branches counted."""
    environment = {"PYTHONSAFEPATH": "1"}
    if session.python != PYTHONS[-1] or session.posargs:
        session.install(".", *TEST_GROUP)
        chosen = session.posargs or (*SIDE_BY_SIDE, *(() if session.python == PYTHONS[0] else BETWEEN))
        session.run("python", "-m", "pytest", *chosen, env=environment)
        return
    session.install(".[demo]", *TEST_GROUP, *TABLES)
    counted = ("--cov", "--cov-report=term-missing:skip-covered")
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, *counted, env=environment)


@nox.session
def interop(session: nox.Session) -> None:
    """With real parts of others': boxo (Go), Helia and js-ipfs (Node). Where Go or Node is missing, its parts are skipped."""
    session.install(".", *TEST_GROUP)
    environment = {"PYTHONSAFEPATH": "1", "DNC_INTEROP": "1"}
    session.run("python", "-m", "pytest", "tests/interop", *session.posargs, env=environment)


@nox.session(python=PEERS_PYTHON, default=False)
def peers(session: nox.Session) -> None:
    """``bench peers``, with the other loaders installed beside ours; ``nox -s peers -- --scenarios large`` passes its options."""
    session.install(".[plot]", *nox.project.dependency_groups(PYPROJECT, "peers"))
    python = Path(session.bin) / "python"
    session.run("python", "-m", "bench", "peers", "--python", str(python), *session.posargs)
