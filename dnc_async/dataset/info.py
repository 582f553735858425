"""What a dataset is, for people and programs that look before they leap."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from dnc_async.dataset.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """What a dataset is, from its manifest alone. ``columns`` are (name, dtype, shape of one sample).

    ``classes`` names the classes of columns whose values are their numbers, such as ``classes["label"][0]``.
    """

    cid: str
    structure: str
    columns: tuple[tuple[str, str, tuple[int, ...]], ...]
    samples: int
    batch_size: int
    batches: int
    chunks: int
    size_bytes: int
    largest_chunk_bytes: int
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, cid: str, manifest: Manifest) -> Self:
        """What a manifest says; ``cid`` is the dataset's address."""
        return cls(
            cid=cid,
            structure=manifest.schema.structure,
            columns=tuple((c.name, c.dtype, c.shape) for c in manifest.schema.ordered),
            samples=manifest.samples,
            batch_size=manifest.batch_size,
            batches=manifest.batches,
            chunks=manifest.chunks,
            size_bytes=manifest.size_bytes,
            largest_chunk_bytes=manifest.largest_chunk_bytes,
            classes=dict(manifest.schema.classes),
        )
