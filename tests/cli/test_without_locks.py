"""On a file system that cannot lock files (NFS without lockd, Lustre, some containers) everything works, and a line says so."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ..conftest import Shell, interrupt
from .conftest import BATCH, SAMPLES, Dataset

_SHIM = """
#include <errno.h>
#include <stdlib.h>
int flock(int fd, int how) { errno = atoi(getenv("SHIM_ERRNO")); return -1; }
"""
NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the system's ``flock`` is replaced by in the process."""
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs gcc, on Linux")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "flock.c").write_text(_SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "flock.so", folder / "flock.c"], check=True)
    return folder / "flock.so"


def without_locks(shell: Shell, shim: Path, number: int) -> Shell:
    return Shell(shell.home, {"LD_PRELOAD": str(shim), "SHIM_ERRNO": str(number)})


@pytest.mark.parametrize("number", NO_LOCKS, ids=errno.errorcode.get)
def test_everything_works(shell: Shell, shim: Path, dataset: Dataset, tmp_path: Path, number: int) -> None:
    """Upload, stream, add, get: each ends well, names the folder once, and leaves nothing."""
    there = without_locks(shell, shim, number)
    np.savez(tmp_path / "t.npz", **dataset.rows)
    store = tmp_path / "store"
    done = there("upload", tmp_path / "t.npz", "--batch-size", BATCH, "--store", store)
    assert done.stdout.split()[-1] == dataset.cid
    assert done.stderr.count("files cannot be locked here") == 1
    assert str(store / "staging") in done.stderr
    assert not any((store / "staging").iterdir())
    done = there("stream", *dataset.here, "--budget", "1MB", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["report"]["samples"] == SAMPLES
    assert done.stderr.count("files cannot be locked here") == 1
    (tmp_path / "f").write_bytes(bytes(3_000_000))
    cid = there("add", tmp_path / "f", "--store", store).stdout.split()[-1]
    done = there("get", cid, "-o", tmp_path / "g", "--store", store)
    assert done.stderr.count("would not notice each other") == 1
    assert (tmp_path / "g").read_bytes() == bytes(3_000_000)
    assert shell.files() == []


def test_what_may_be_alive_is_never_deleted(shell: Shell, shim: Path, dataset: Dataset) -> None:
    """Two streams share a spool folder, one with locks and one that has none: neither takes the other's files."""
    for one, other in (
        (shell, without_locks(shell, shim, errno.ENOLCK)),
        (without_locks(shell, shim, errno.ENOLCK), shell),
    ):
        with one.start("stream", *dataset.here, "--budget", "1MB", "--epochs", 10_000, "--json") as process:
            assert process.stdout is not None
            process.stdout.readline()
            for _ in range(2):
                other("stream", *dataset.here, "--budget", "1MB")
                assert process.poll() is None
            assert interrupt(process)[0] == 130
        assert shell.files() == []


def test_a_lock_that_is_always_held(shell: Shell, shim: Path, tmp_path: Path) -> None:
    """An end with an error, and not a million lock files."""
    np.save(tmp_path / "t.npy", np.zeros((8, 2)))
    there = without_locks(shell, shim, errno.EWOULDBLOCK)
    assert "locked by somebody else" in there.refuses("upload", tmp_path / "t.npy", "--store", tmp_path / "store")
    assert not any((tmp_path / "store/staging").iterdir())


def test_lock_files_of_others_are_left_alone(shell: Shell, dataset: Dataset) -> None:
    """A spool folder that is a project's: uv.lock is not ours, and neither is the folder beside it."""
    project = shell.home / "project"
    (project / "uv").mkdir(parents=True)
    for name in ("uv.lock", "uv/x", "poetry.lock", "0123456789abcdef0.lock"):
        (project / name).write_text("mine", encoding="utf-8")
    before = shell.files()
    shell("stream", *dataset.here, "--budget", "1MB", "--spool-dir", project)
    assert shell.files() == before
