"""The budget is hard, and the spool leaves nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dnc_async.errors import BudgetTooSmallError, SpoolError
from dnc_async.spool.files import FOLDER_BYTES, SpoolFile, SpoolFolder
from dnc_async.spool.governor import Account, Governor, Lease

BUDGET, OVERHEAD = 10_000, 1_000


class GovernorModel(RuleBasedStateMachine):
    """Any order of opening, leasing, releasing and closing keeps to the budget and to every stream's floor."""

    def __init__(self) -> None:
        super().__init__()
        self.governor = Governor(budget_bytes=BUDGET, overhead_bytes=OVERHEAD)
        self.accounts: dict[Account, list[Lease]] = {}
        self.notified: set[int] = set()

    @rule(floor=st.integers(1, 4_000))
    def open(self, floor: int) -> None:
        floors = floor + sum(account.floor_bytes for account in self.accounts)
        if floors > BUDGET - OVERHEAD:
            with pytest.raises(BudgetTooSmallError) as caught:
                self.governor.open(floor_bytes=floor, notify=lambda: None)
            assert caught.value.smallest_bytes == floors + OVERHEAD
        else:
            self.accounts[self.governor.open(floor_bytes=floor, notify=lambda: None)] = []

    @precondition(lambda self: self.accounts)
    @rule(data=st.data(), size=st.integers(1, 4_000))
    def lease(self, data: st.DataObject, size: int) -> None:
        account = data.draw(st.sampled_from(list(self.accounts)))
        within_floor = account.held_bytes + size <= account.floor_bytes
        # A stream that was opened while others held loans gets its floor as those come back; else at once.
        claimed = sum(max(a.held_bytes, a.floor_bytes) for a in self.accounts) <= BUDGET - OVERHEAD
        lease = account.try_lease(size)
        if lease is not None:
            self.accounts[account].append(lease)
        assert not (within_floor and claimed and lease is None)

    @precondition(lambda self: any(self.accounts.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        account = data.draw(st.sampled_from([a for a, leases in self.accounts.items() if leases]))
        lease = self.accounts[account].pop()
        lease.release()
        lease.release()

    @precondition(lambda self: any(not leases for leases in self.accounts.values()))
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        account = data.draw(st.sampled_from([a for a, leases in self.accounts.items() if not leases]))
        del self.accounts[account]
        account.close()

    @invariant()
    def within_budget(self) -> None:
        held = sum(lease.size_bytes for leases in self.accounts.values() for lease in leases)
        assert held == self.governor.statistics().leased_bytes <= BUDGET - OVERHEAD


TestGovernor = GovernorModel.TestCase
TestGovernor.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_refused_account_is_told() -> None:
    """Whoever was refused is told when something comes back, and nobody overtakes it with a loan."""
    governor = Governor(budget_bytes=100, overhead_bytes=0)
    told = []
    first = governor.open(floor_bytes=10, notify=lambda: told.append("first"))
    second = governor.open(floor_bytes=10, notify=lambda: told.append("second"))
    loan = first.try_lease(90)
    assert loan is not None
    assert second.try_lease(50) is None
    loan.release()
    assert told == ["second"]
    assert first.try_lease(40) is None
    assert second.try_lease(50) is not None


def test_budget_of_zero_grants_nothing() -> None:
    """With a budget of 0 every stream opens, and none gets a byte on disk."""
    account = Governor(budget_bytes=0, overhead_bytes=0).open(floor_bytes=10**9, notify=lambda: None)
    assert account.try_lease(1) is None


def _file(folder: SpoolFolder, size: int) -> SpoolFile:
    account = Governor(budget_bytes=2**40, overhead_bytes=0).open(floor_bytes=1, notify=lambda: None)
    lease = account.try_lease(folder.cost(size))
    assert lease is not None
    return folder.create(lease)


def test_file_out_of_order_stays_within_its_lease(tmp_path: Path) -> None:
    """Leaves written last to first take no more disk than the lease holds, and read back as they were."""
    folder = SpoolFolder(tmp_path / "spool")
    size = 20 * 64 * 1024
    file = _file(folder, size)
    for offset in range(size - 64 * 1024, -1, -64 * 1024):
        file.write_at(offset, bytes([offset % 251]) * 64 * 1024)
    assert size <= file.disk_bytes() <= folder.cost(size)
    target = bytearray(size)
    file.read_into(((0, memoryview(target)),))
    assert all(target[offset] == offset % 251 for offset in range(0, size, 64 * 1024))
    file.discard()
    file.discard()
    assert folder.disk_bytes() == 0
    folder.close()
    folder.close()
    assert not (tmp_path / "spool").exists()


def test_slots_are_used_again(tmp_path: Path) -> None:
    """The folder does not grow with the number of chunks that went through it."""
    folder = SpoolFolder(tmp_path)
    for _ in range(50):
        file = _file(folder, 10)
        assert [path.name for path in folder.path.iterdir()] == ["0"]
        file.discard()
    assert folder.path.stat().st_blocks * 512 <= FOLDER_BYTES
    folder.close()


def test_dead_owner_is_swept_and_living_one_is_not(tmp_path: Path) -> None:
    """A killed process's folder is deleted by the next; a living one's is left alone."""
    code = (
        "import sys, os, signal; from pathlib import Path; from dnc_async.spool.files import SpoolFolder\n"
        "f = SpoolFolder(Path(sys.argv[1])); (f.path / '0').write_bytes(b'x' * 9999); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    living = SpoolFolder(tmp_path)
    other = SpoolFolder(tmp_path)
    assert sorted(tmp_path.glob("*.lock")) == sorted(f.path.with_suffix(".lock") for f in (living, other))
    other.close()
    assert living.path.exists()
    living.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A child that outlives its parent does not keep the parent's folder locked."""
    code = (
        "import sys, os, time; from pathlib import Path; from dnc_async.spool.files import SpoolFolder\n"
        "f = SpoolFolder(Path(sys.argv[1]))\n"
        "if os.fork(): os._exit(0)\n"
        "print('forked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"forked\n"
        parent.wait()
        folder = SpoolFolder(tmp_path)  # sweeps: the parent is dead, its child still lives
        assert len(list(tmp_path.glob("*.lock"))) == 1
        folder.close()


def test_unusable_folder(tmp_path: Path) -> None:
    """A file where the folder should be is named, with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"file.*name a folder"):
        SpoolFolder(tmp_path / "file")
