"""A chunk moves from disk to memory while it is still arriving, and no byte of it is lost or doubled."""

import threading
from pathlib import Path

import numpy as np
import pytest

from dnc_async.dataset.batch import ChunkPlace
from dnc_async.engine.sink import Sink
from dnc_async.spool.files import FOLDER_BYTES, SpoolFolder
from dnc_async.spool.governor import Governor, Lease, Place

LEAF = 4096


class Anybody:
    """A borrower to whom nothing happens."""

    def changed(self) -> None: ...

    def revoked(self, lease: Lease) -> None: ...

    def due(self, place: Place) -> float:
        return 0.0


def place_for(size: int) -> tuple[ChunkPlace, list[bytearray]]:
    """Two columns with padding between them, as a chunk has."""
    rows = [bytearray(size // 3), bytearray(size - size // 3 - 100)]
    return ChunkPlace([(0, memoryview(rows[0])), (size // 3 + 100, memoryview(rows[1]))], size), rows


@pytest.fixture
def spool(tmp_path: Path):
    folder = SpoolFolder(tmp_path / "spool")
    yield folder
    folder.close()


@pytest.mark.parametrize("before", [0, 1, 3, 7, 8])
def test_a_move_loses_nothing_and_frees_the_lease(spool: SpoolFolder, before: int) -> None:
    """Whatever part had arrived, in whatever order, the rows hold the chunk at the end."""
    content = np.random.default_rng(before).integers(0, 256, 8 * LEAF, dtype=np.uint8).tobytes()
    governor = Governor(budget_bytes=2**20, overhead_bytes=FOLDER_BYTES, max_leases=1)
    account = governor.open(floor_bytes=0, borrower=Anybody())
    lease = account.try_lease(spool.cost(len(content)), (0,))
    assert lease is not None
    sink = Sink(file=spool.reserve(lease, len(content)))
    order = [5, 0, 7, 2, 1, 6, 3, 4]
    place, rows = place_for(len(content))
    for leaf in order[:before]:
        sink.write_at(leaf * LEAF, content[leaf * LEAF : (leaf + 1) * LEAF])
    sink.move_to(place)
    sink.discard()
    assert not sink.is_on_disk
    assert governor.statistics().leased_bytes == 0
    for leaf in order[before:]:
        sink.write_at(leaf * LEAF, content[leaf * LEAF : (leaf + 1) * LEAF])
    third = len(content) // 3
    assert bytes(rows[0]) == content[:third]
    assert bytes(rows[1]) == content[third + 100 :]
    sink.discard()


def test_writers_and_the_move_may_race(spool: SpoolFolder) -> None:
    """Four workers write while a fifth moves."""
    content = np.random.default_rng(0).integers(0, 256, 256 * LEAF, dtype=np.uint8).tobytes()
    governor = Governor(budget_bytes=2**22, overhead_bytes=FOLDER_BYTES, max_leases=1)
    lease = governor.open(floor_bytes=0, borrower=Anybody()).try_lease(spool.cost(len(content)), (0,))
    assert lease is not None
    sink = Sink(file=spool.reserve(lease, len(content)))
    place, rows = place_for(len(content))
    started = threading.Barrier(5)

    def write(part: int) -> None:
        started.wait()
        for leaf in range(part, 256, 4):
            sink.write_at(leaf * LEAF, content[leaf * LEAF : (leaf + 1) * LEAF])

    def move() -> None:
        started.wait()
        sink.move_to(place)

    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)] + [threading.Thread(target=move)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.discard()
    assert bytes(rows[0]) == content[: len(content) // 3]
    assert bytes(rows[1]) == content[len(content) // 3 + 100 :]
