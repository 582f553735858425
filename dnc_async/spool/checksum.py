"""A checksum for what is staged on a disk: detects faults of the disk, not manipulation. PURE.

Disks fail by bits and by sectors: bits flip, a sector is lost, torn, or written elsewhere. So the 64-bit words of each sector are
added up, and a CRC-32 is computed over the sums, which takes far less time than a CRC-32 over the bytes. Two words that change
places within a sector are not noticed.
"""

from __future__ import annotations

import zlib

import numpy as np

_SECTOR_BYTES = 512
_WORDS = _SECTOR_BYTES // 8


def checksum(data: bytes | memoryview) -> int:
    """The checksum of some bytes."""
    view = memoryview(data).cast("B")
    whole = view.nbytes - view.nbytes % _SECTOR_BYTES
    sums = np.frombuffer(view[:whole], np.uint64).reshape(-1, _WORDS).sum(axis=1, dtype=np.uint64)
    return zlib.crc32(view[whole:], zlib.crc32(sums.view(np.uint8).data))
