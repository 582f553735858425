"""Stream datasets larger than the disk from IPFS into a training loop: verified, within a disk budget, without idle time.

>>> import dnc_async as dnc
>>> cid = await dnc.upload({"x": X, "y": y}, batch_size=4096)
>>> async for batch in dnc.stream(cid, disk_budget="64 MB"):
...     model.partial_fit(batch["x"], batch["y"])

Names are loaded when they are first used: numpy and aiohttp take a third of a second each to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnc_async.client import Client
    from dnc_async.config import Gateway
    from dnc_async.dataset.info import DatasetInfo
    from dnc_async.dataset.ragged import Ragged
    from dnc_async.engine.files.paths import DirectoryEntry
    from dnc_async.engine.files.remote_file import RemoteFile
    from dnc_async.engine.files.saving import Saved
    from dnc_async.engine.report.report import Report
    from dnc_async.engine.stream import BatchStream
    from dnc_async.errors import (
        ArgumentError,
        BudgetTooSmallError,
        ChunkUnavailableError,
        CidError,
        DatasetError,
        DecodeError,
        DiskFullError,
        DncError,
        EngineError,
        GatewayError,
        IpldError,
        ManifestError,
        OutputError,
        PathError,
        ReportError,
        SpoolError,
        StoreError,
        StreamClosedError,
        TransformError,
        UploadError,
    )
    from dnc_async.publish.target import UploadResult
    from dnc_async.publish.uploading import upload
    from dnc_async.shortcuts import cat, get, inspect, ls, open, stream  # noqa: A004 - as builtins do

__all__ = [  # noqa: RUF022 - sorted without regard to case, as people look things up
    "ArgumentError",
    "BatchStream",
    "BudgetTooSmallError",
    "cat",
    "ChunkUnavailableError",
    "CidError",
    "Client",
    "DatasetError",
    "DatasetInfo",
    "DecodeError",
    "DirectoryEntry",
    "DiskFullError",
    "DncError",
    "EngineError",
    "Gateway",
    "GatewayError",
    "get",
    "inspect",
    "IpldError",
    "ls",
    "ManifestError",
    "open",
    "OutputError",
    "PathError",
    "Ragged",
    "RemoteFile",
    "Report",
    "ReportError",
    "Saved",
    "SpoolError",
    "StoreError",
    "stream",
    "StreamClosedError",
    "TransformError",
    "upload",
    "UploadError",
    "UploadResult",
]

_HOMES = {
    "BatchStream": "engine.stream",
    "Client": "client",
    "DirectoryEntry": "engine.files.paths",
    "RemoteFile": "engine.files.remote_file",
    "Report": "engine.report.report",
    "Saved": "engine.files.saving",
    "cat": "shortcuts",
    "get": "shortcuts",
    "ls": "shortcuts",
    "open": "shortcuts",
    "DatasetInfo": "dataset.info",
    "Ragged": "dataset.ragged",
    "Gateway": "config",
    "UploadResult": "publish.target",
    "inspect": "shortcuts",
    "stream": "shortcuts",
    "upload": "publish.uploading",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
