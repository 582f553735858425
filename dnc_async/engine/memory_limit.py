"""Refuses datasets whose batches cannot fit into memory, before anything is allocated for one."""

from __future__ import annotations

from dnc_async import system
from dnc_async.dataset.manifest import Manifest
from dnc_async.errors import ManifestError

#: A text takes so many bytes in an array besides its characters; in a chunk it may take 8.
_TEXT_BYTES = 16


def check_memory(manifest: Manifest, dataset: str) -> None:
    """Raise :class:`~dnc_async.errors.ManifestError` if a batch may need more memory than this machine has."""
    memory, needed = system.memory_bytes(), _batch_memory(manifest)
    if memory is not None and needed > memory:
        raise ManifestError(
            f"{dataset}: a batch may need {needed} bytes of memory, by its manifest, and this machine, or its container, has "
            f"{memory}; stream it where there is more, or have it published with a smaller batch_size"
        )


def _batch_memory(manifest: Manifest) -> int:
    columns = manifest.schema.columns
    # Bytes are in memory twice for a moment, when the chunks of a batch are joined.
    times = 2 if any(column.is_bytes for column in columns) else 1
    texts = sum(column.is_text for column in columns) * manifest.batch_samples(0)
    return times * manifest.largest_batch_bytes + _TEXT_BYTES * texts
