"""What was published, read back from the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dnc_async as dnc


async def publish(source: Any, folder: Path, **options: Any) -> tuple[dnc.UploadResult, Any]:
    """Upload a source into a store below ``folder``; returns the result, and all its rows as lists."""
    store = folder / "store"
    done = await dnc.upload(source, store=store, **{"batch_size": 3, **options})
    found: Any = None
    async for batch in dnc.stream(done, store=store, spool_dir=folder / "spool", disk_budget=0):
        found = _with(found, batch)
    return done, found


def _with(found: Any, batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: [*(found or {}).get(name, []), *values.tolist()] for name, values in batch.items()}
    if isinstance(batch, tuple):
        return tuple([*(found[i] if found else []), *values.tolist()] for i, values in enumerate(batch))
    return [*(found or []), *batch.tolist()]


def nothing_published(folder: Path) -> bool:
    """Whether a store holds neither a root nor anything of a block."""
    store = folder / "store"
    files = [path for path in store.rglob("*") if path.is_file() and path.stat().st_size > 1000]
    return not files and not (store.exists() and any((store / "roots").iterdir()))
