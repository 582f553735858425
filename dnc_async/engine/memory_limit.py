"""Refuses datasets whose batches cannot fit into memory, before anything is allocated for one."""

from __future__ import annotations

from dnc_async import system
from dnc_async.errors import ManifestError


def check_memory(batch_bytes: int, dataset: str) -> None:
    """Raise :class:`~dnc_async.errors.ManifestError` if a batch of this size is larger than the memory of this machine."""
    memory = system.memory_bytes()
    if memory is not None and batch_bytes > memory:
        raise ManifestError(
            f"{dataset}: a batch may have {batch_bytes} bytes, by its manifest, and this machine, or its container, has "
            f"{memory} bytes of memory; stream it where there is more, or have it published with a smaller batch_size"
        )
