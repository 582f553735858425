"""The spool's files keep to their leases, and nothing is left behind."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dnc_async import system
from dnc_async.errors import SpoolError
from dnc_async.spool.files import FOLDER_BYTES, MAX_FILES, SpoolFile, SpoolFolder
from dnc_async.spool.governor import Governor, Lease, Place
from dnc_async.system import tree_disk_bytes

from ..conftest import PATIENCE_S

KIB = 1024


class Anybody:
    """A borrower who notes what was revoked."""

    def __init__(self) -> None:
        self.lost: list[Lease] = []

    def changed(self) -> None: ...

    def revoked(self, lease: Lease) -> None:
        self.lost.append(lease)

    def due(self, place: Place) -> float:
        return float(place[0])


def lease_for(size: int, budget: int = 2**40) -> Lease:
    account = Governor(budget_bytes=budget, overhead_bytes=0, max_leases=9).open(floor_bytes=1, borrower=Anybody())
    lease = account.try_lease(size, (0,))
    assert lease is not None
    return lease


def made(folder: SpoolFolder, lease: Lease, size: int) -> SpoolFile:
    """A file that is on the disk already, as after its first write."""
    file = folder.reserve(lease, size)
    file.open()
    return file


def _file(folder: SpoolFolder, size: int) -> SpoolFile:
    return made(folder, lease_for(folder.cost(size)), size)


class Written:
    """A file of the model: what it should hold, and which pieces are not written yet."""

    def __init__(self, file: SpoolFile, lease: Lease, size: int, seed: int) -> None:
        rng = random.Random(seed)
        self.file, self.lease = file, lease
        self.content = rng.randbytes(size)
        piece = rng.choice([size, 4 * KIB, 5_000, 64 * KIB])
        self.missing = list(range(0, size, piece))
        self.piece = piece
        rng.shuffle(self.missing)
        self.there: list[int] = []


class SpoolModel(RuleBasedStateMachine):
    """Files made, written in any order, read, discarded; folders closed, and left by the dead for the next to delete."""

    BUDGET = 600 * KIB

    def __init__(self) -> None:
        super().__init__()
        self.parent = Path(tempfile.mkdtemp()) / "spool"
        self.place = 0
        self.most = 0
        self.begin()

    def begin(self) -> None:
        self.governor = Governor(budget_bytes=self.BUDGET, overhead_bytes=FOLDER_BYTES, max_leases=5)
        self.account = self.governor.open(floor_bytes=0, borrower=Anybody())
        self.folder = SpoolFolder(self.parent)
        self.files: list[Written] = []
        self.most = 0
        assert sorted(path.name for path in self.parent.iterdir()) == sorted(
            [self.folder.path.name, f"{self.folder.path.name}.lock"]
        )

    @rule(size=st.one_of(st.integers(1, 20_000), st.integers(1, 200 * KIB)), seed=st.integers(0, 2**32))
    def create(self, size: int, seed: int) -> None:
        self.place += 1
        lease = self.account.try_lease(self.folder.cost(size, size // (4 * KIB)), (self.place,))
        if lease is None:
            self.account.withdraw()
        else:
            self.files.append(Written(made(self.folder, lease, size), lease, size, seed))
            self.most = max(self.most, len(self.files))

    @precondition(lambda self: any(each.missing for each in self.files))
    @rule(data=st.data(), pieces=st.integers(1, 20))
    def write(self, data: st.DataObject, pieces: int) -> None:
        each = data.draw(st.sampled_from([each for each in self.files if each.missing]))
        for _ in range(min(pieces, len(each.missing))):
            start = each.missing.pop()
            each.file.write_at(start, each.content[start : start + each.piece])
            each.file.settle()
            each.there.append(start)

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        each = data.draw(st.sampled_from(self.files))
        for start in each.there:
            expected = each.content[start : start + each.piece]
            found = bytearray(len(expected))
            each.file.read_at(start, memoryview(found))
            assert found == expected

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        each = data.draw(st.sampled_from(self.files))
        self.files.remove(each)
        each.file.discard()
        each.file.discard()

    @rule()
    def close_and_begin_again(self) -> None:
        self.folder.close()
        assert not self.parent.exists()
        self.begin()

    @rule()
    def die_and_begin_again(self) -> None:
        """As a killed process does: its files stay, its lock is gone."""
        assert self.folder._owned is not None
        self.folder._owned.abandon()
        for each in self.files:
            each.file.close()
        self.begin()

    @invariant()
    def disk_within_leases(self) -> None:
        for each in self.files:
            assert each.file.disk_bytes() <= each.lease.size_bytes
        leased = self.governor.statistics().leased_bytes
        assert tree_disk_bytes(self.folder.path) <= leased <= self.BUDGET - FOLDER_BYTES
        assert leased == sum(each.lease.size_bytes for each in self.files)

    @invariant()
    def slots_are_used_again(self) -> None:
        names = [int(path.name) for path in self.folder.path.iterdir()]
        assert len(names) == len(self.files)
        assert all(name < self.most for name in names)

    def teardown(self) -> None:
        self.folder.close()
        assert self.governor.statistics().leased_bytes == 0
        assert not self.parent.exists()
        shutil.rmtree(self.parent.parent)


TestSpool = SpoolModel.TestCase
TestSpool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_file_out_of_order_stays_within_its_lease(tmp_path: Path) -> None:
    """Leaves written last to first take no more disk than the lease holds, and read back as they were."""
    folder = SpoolFolder(tmp_path / "spool")
    size = 20 * 64 * KIB
    file = _file(folder, size)
    for offset in range(size - 64 * KIB, -1, -64 * KIB):
        file.write_at(offset, bytes([offset % 251]) * 64 * KIB)
    assert size <= file.disk_bytes() <= folder.cost(size)
    target = bytearray(size)
    file.read_at(0, memoryview(target))
    assert all(target[offset] == offset % 251 for offset in range(0, size, 64 * KIB))
    file.discard()
    file.discard()
    assert folder.disk_bytes() == 0
    folder.close()
    folder.close()
    assert not (tmp_path / "spool").exists()


def test_the_lease_outlives_the_file(tmp_path: Path) -> None:
    """Whoever waits for the bytes is told when they are free on the disk, not before."""
    folder = SpoolFolder(tmp_path)

    class Waiting(Anybody):
        told = 0

        def changed(self) -> None:
            self.told += 1
            assert not (folder.path / "0").exists()

    waiting = Waiting()
    account = Governor(budget_bytes=20_000, overhead_bytes=0, max_leases=9).open(floor_bytes=0, borrower=waiting)
    lease = account.try_lease(20_000, (0,))
    assert lease is not None
    file = made(folder, lease, 9)
    assert account.try_lease(20_000, (1,)) is None
    file.discard()
    assert waiting.told
    assert account.try_lease(20_000, (1,)) is not None
    folder.close()


@pytest.mark.parametrize(("size", "leaf"), [(2**20, 4096), (2**23, 4096), (2**25, 2**16)])
@pytest.mark.parametrize("every", [50, 10**9])
def test_file_in_the_worst_order_stays_within_its_lease(tmp_path: Path, size: int, leaf: int, every: int) -> None:
    """Every other leaf first, and sent to the disk now and then: so many pieces the file system never notes again."""
    folder = SpoolFolder(tmp_path / "spool")
    starts = range(0, size, leaf)
    cost = folder.cost(size, len(starts))
    file = made(folder, lease_for(cost), size)
    for count, start in enumerate([*starts[::2], *starts[1::2]]):
        file.write_at(start, bytes(leaf))
        if count % every == 0 or count == len(starts) // 2:
            os.fsync(file._fd)
        assert file.disk_bytes() <= cost
    os.fsync(file._fd)
    assert size <= file.disk_bytes() <= cost
    folder.close()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate, to make a file take more")
def test_a_file_system_that_takes_more(tmp_path: Path) -> None:
    """A lease grows to what its file takes and will take, and the next ones hold as much more from the start."""
    folder = SpoolFolder(tmp_path / "spool")
    size, more = 256 * KIB, 128 * KIB
    before = folder.cost(size)
    lease = lease_for(before)
    file = made(folder, lease, size)
    os.posix_fallocate(file._fd, 10 * size, before + more)  # as preallocation by a file system would
    file.write_at(0, bytes(size // 2))
    assert lease.size_bytes == before
    file.settle()
    assert lease.size_bytes == file.disk_bytes() + size // 2
    assert folder.cost(size) >= before + more
    file.write_at(size // 2, bytes(size // 2))
    file.settle()
    assert lease.size_bytes >= file.disk_bytes()
    folder.close()


def test_the_fullest_folder_stays_within_what_it_is_charged(tmp_path: Path) -> None:
    """As many files as may be, twice over; after that the names are used again, and the folder does not grow."""
    folder = SpoolFolder(tmp_path)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            for path in [folder.path / str(slot) for slot in range(MAX_FILES)]:
                path.touch()
                stack.callback(path.unlink, missing_ok=True)
        assert folder.path.stat().st_blocks * 512 <= FOLDER_BYTES
    folder.close()


def test_slots_are_used_again(tmp_path: Path) -> None:
    """The folder does not grow with the number of chunks that went through it."""
    folder = SpoolFolder(tmp_path)
    for _ in range(50):
        file = _file(folder, 10)
        assert [path.name for path in folder.path.iterdir()] == ["0"]
        file.discard()
    folder.close()


def test_unusable_folder(tmp_path: Path) -> None:
    """A file where the folder should be is named, with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"file.*name a folder"):
        SpoolFolder(tmp_path / "file")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system in which nothing can be made")
def test_folder_that_cannot_be_made() -> None:
    """It is said, not tried for ever."""
    with pytest.raises(SpoolError, match="name a folder"):
        SpoolFolder(Path("/proc/dnc_async"))


# Several processes in one spool folder.


def python(code: str, folder: Path) -> list[str]:
    head = "import os, signal, sys\nfrom pathlib import Path\nfrom dnc_async.spool.files import SpoolFolder\n"
    return [sys.executable, "-c", head + code, str(folder)]


def test_dead_owner_is_swept_and_living_one_is_not(tmp_path: Path) -> None:
    """A killed process's folder is deleted by the next; a living one's is left alone."""
    code = "f = SpoolFolder(Path(sys.argv[1])); (f.path / '0').write_bytes(b'x' * 9999); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run(python(code, tmp_path), check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    living = SpoolFolder(tmp_path)
    other = SpoolFolder(tmp_path)
    assert sorted(tmp_path.glob("*.lock")) == sorted(f.path.with_suffix(".lock") for f in (living, other))
    other.close()
    assert living.path.exists()
    living.close()


def test_processes_that_come_and_go(tmp_path: Path) -> None:
    """Opened and closed by four processes at once, as fast as they can: nobody fails, and nothing is left."""
    code = (
        "for _ in range(200):\n"
        "    f = SpoolFolder(Path(sys.argv[1]) / 'spool'); (f.path / '0').touch(); assert (f.path / '0').exists(); f.close()"
    )
    processes = [subprocess.Popen(python(code, tmp_path), stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=PATIENCE_S)[1] for process in processes]
    assert said == [""] * 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A child that outlives its parent does not keep the parent's folder locked."""
    code = (
        "f = SpoolFolder(Path(sys.argv[1]))\nif os.fork(): os._exit(0)\nprint('forked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(python(code, tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"forked\n"
        parent.wait()
        folder = SpoolFolder(tmp_path)  # sweeps: the parent is dead, its child still lives
        assert len(list(tmp_path.glob("*.lock"))) == 1
        folder.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc which files a process holds open")
def test_forked_child_does_not_keep_the_space(tmp_path: Path) -> None:
    """A file that the parent deletes is gone, although a child was forked while it was open."""
    code = (
        "from dnc_async.spool.governor import Governor\n"
        "class Anybody: due = lambda self, place: 0.0\n"
        "f = SpoolFolder(Path(sys.argv[1]))\n"
        "account = Governor(budget_bytes=2**20, overhead_bytes=0, max_leases=1).open(floor_bytes=0, borrower=Anybody())\n"
        "file = f.reserve(account.try_lease(9999, (0,)), 99)\n"
        "file.open()\n"
        "held = lambda: any(sys.argv[1] in os.readlink(p) for p in Path('/proc/self/fd').iterdir() if p.is_symlink())\n"
        "assert held()\n"
        "child = os.fork()\n"
        "if not child: os._exit(7 if held() else 0)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "assert (f.path / '0').exists(); f.close()\n"
        "sys.exit(os.waitstatus_to_exitcode(status))"
    )
    done = subprocess.run(python(code, tmp_path), capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_cannot_be_deleted_takes_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's permissions changed meanwhile, say: the lease is released, so the file is emptied."""
    folder = SpoolFolder(tmp_path / "spool")
    governor = Governor(budget_bytes=2**20, overhead_bytes=FOLDER_BYTES, max_leases=9)
    account = governor.open(floor_bytes=0, borrower=Anybody())
    lease = account.try_lease(folder.cost(8192), (0,))
    assert lease is not None
    file = folder.reserve(lease, 8192)
    file.write_at(0, bytes(8192))

    def refuses(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(system, "unlink_quietly", refuses)
        file.discard()
    assert governor.statistics().leased_bytes == 0
    assert [path.stat().st_blocks for path in folder.path.iterdir()] == [0]
    again = account.try_lease(folder.cost(8192), (1,))
    assert again is not None
    folder.reserve(again, 8192).write_at(0, bytes(8192))
    folder.close()
    assert not folder.path.exists()
