"""Everything that is checked. ``nox`` is what the README tells, ``nox -t rest`` is what CI runs besides.

``nox``: lint, types, layers, and the tests on the Python that nox runs on, all in one environment: a few minutes on two cores.
``nox -t rest``: the tests on every other Python, the branches counted, and with real parts of others. One of them by its name:
``nox -s types``, ``nox -s tests -- tests/unit -k spool``, ``nox -s other_pythons interop``.
``nox -s fuzz`` is the long form of ``tests/fuzz``: a minute for each parser of strangers' bytes, guided by coverage.
``nox -s peers`` is no check and not among them: it measures ours beside other loaders, and downloads several GB for it.

What is tested is the wheel: with ``PYTHONSAFEPATH`` the working copy is not importable by accident.
"""

from __future__ import annotations

import functools
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
OLDEST, THIS = (3, 11), sys.version_info[:2]
TOOLS = ("ruff>=0.9", "mypy>=1.14", "import-linter>=2.12", "nox")  # nox, for this file's types
PEERS_PYTHON = "3.12"  # the newest for which all of the peers have wheels
#: What is run on the Pythons between the oldest and the newest: where a new Python breaks things is loops and threads.
BETWEEN = ("-m", "not border", "tests/notebook", *(f"tests/stream/test_{name}.py" for name in (
    "engines", "engine_process", "interrupted", "leaving", "odd_answers", "resume", "sync", "transform",
)))  # fmt: skip
#: Three at once: a test waits about as long as it computes. Those of a file stay together, for what they share.
SIDE_BY_SIDE = ("-n", "3", "--dist", "loadfile")
SAFE = {"PYTHONSAFEPATH": "1"}
CODE = ("dnc_async", "tests", "bench", "examples", "noxfile.py")


def _other_pythons() -> dict[tuple[int, ...], str]:
    """Every Python from 3.11 on that runs here but this one, one of each minor version: on the PATH, or kept by pyenv."""
    kept = sorted(Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/3.*/bin/python3"))
    named = [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 20)]
    found: dict[tuple[int, ...], str] = {}
    for path in [*filter(None, named), *map(str, kept)]:
        version = _version(path)
        if version is not None and version >= OLDEST and version != THIS:
            found.setdefault(version, path)
    return found or {THIS: sys.executable}


def _version(python: str) -> tuple[int, ...] | None:
    try:
        done = subprocess.run([python, "-V"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):  # a shim without a Python behind it
        return None
    match = re.match(r"Python (\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else None


OTHERS = _other_pythons()
ENDS = min((THIS, *OTHERS)), max((THIS, *OTHERS))
#: Those of them that have all tests, in order: the oldest Python and the newest, whichever is not this one.
WHOLE = [OTHERS[version] for version in sorted(OTHERS) if version in ENDS]


@functools.cache
def _environment() -> Path:
    """One environment for all that runs on this Python, set up once a run."""
    folder = Path(".nox", f"python{THIS[0]}.{THIS[1]}").absolute()
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", folder], check=True)
    # Modules are compiled when they are imported: of what is installed, few are.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, ".", *TOOLS, *TEST_GROUP], check=True)
    return python.parent


def _run(session: nox.Session, program: str, *words: str, env: dict[str, str] | None = None) -> None:
    """Run a program of the environment that they share."""
    session.run(str(_environment() / program), *words, env=env)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style and common mistakes."""
    _run(session, "ruff", "check", *CODE)
    _run(session, "ruff", "format", "--check", *CODE)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Strict types, of the library and of the code that uses it."""
    _run(session, "mypy")


@nox.session(venv_backend="none")
def layers(session: nox.Session) -> None:
    """Imports point down."""
    _run(session, "lint-imports")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """The tests, against the wheel, on the Python that nox runs on, but for those that start hundreds of processes."""
    _run(session, "python", "-m", "pytest", *(session.posargs or (*SIDE_BY_SIDE, "-m", "not processes")), env=SAFE)


@nox.session(venv_backend="none", default=False, tags=["rest"])
def processes(session: nox.Session) -> None:
    """The tests that start hundreds of processes of the shell."""
    _run(session, "python", "-m", "pytest", "tests/cli", "-m", "processes", *SIDE_BY_SIDE, env=SAFE)


@nox.session(python=[OTHERS[version] for version in sorted(OTHERS)], default=False, tags=["rest"])
def other_pythons(session: nox.Session) -> None:
    """The tests on every other Python; on the newest of them that has all, with what is optional, and the branches counted.

    But for those of ``processes``, which has them once.
    """
    is_counted = session.python == WHOLE[-1] and not session.posargs
    optional = (".[demo]", *TABLES) if is_counted else (".",)
    session.install("--no-compile", *optional, *TEST_GROUP)
    chosen = session.posargs or (*SIDE_BY_SIDE, *(("-m", "not processes") if session.python in WHOLE else BETWEEN))
    counted = ("--cov", "--cov-report=term-missing:skip-covered") if is_counted else ()
    session.run("python", "-m", "pytest", *chosen, *counted, env=SAFE)


@nox.session(venv_backend="none", default=False, tags=["rest"])
def interop(session: nox.Session) -> None:
    """With real parts of others': boxo (Go), Helia and js-ipfs (Node). Where Go or Node is missing, its parts are skipped."""
    _run(session, "python", "-m", "pytest", "tests/interop", *session.posargs, env={**SAFE, "DNC_INTEROP": "1"})


@nox.session(venv_backend="none", default=False, tags=["rest"])
def chaos(session: nox.Session) -> None:
    """Whole clients, simulated, until 10,000 faults were injected; ``nox -s chaos -- --seeds 100000`` is the long form."""
    _run(session, "python", "-m", "dnc_async.testing", "chaos", *session.posargs, env=SAFE)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Atheris (Linux): ``nox -s fuzz -- --seconds 600 manifest page``; what makes one fail is left in a file of its name here."""
    session.install(".[blake3]", "atheris>=3")
    fuzzing = {**SAFE, "PYTHONPATH": str(Path("tests").absolute())}
    session.run("python", "-m", "fuzz", *session.posargs, env=fuzzing)


@nox.session(python=PEERS_PYTHON, default=False)
def peers(session: nox.Session) -> None:
    """``bench peers``, with the other loaders installed beside ours; ``nox -s peers -- --scenarios large`` passes its options."""
    session.install(".[plot]", *nox.project.dependency_groups(PYPROJECT, "peers"))
    python = Path(session.bin) / "python"
    session.run("python", "-m", "bench", "peers", "--python", str(python), *session.posargs)
