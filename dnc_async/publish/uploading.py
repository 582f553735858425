"""``upload()``: the one way in for a dataset, whatever the target."""

from __future__ import annotations

import os
from collections.abc import Callable

from dnc_async.config import PublishSettings, kubo_rpc, parse_size, store_path
from dnc_async.errors import ArgumentError
from dnc_async.publish.target import Target, UploadResult, publish

StrPath = str | os.PathLike[str]
Size = int | float | str


async def upload(
    source: object,
    to: str = "local",
    *,
    batch_size: int | None = None,
    chunk_bytes: Size | None = None,
    store: StrPath | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> UploadResult:
    """Divide a dataset into half-batch chunks and publish it; the same rows give the same CID anywhere.

    Parameters
    ----------
    source:
        A dict of arrays, a tuple ``(X, y)``, an array, the path of an ``.npy``, ``.npz`` or ``.csv`` file, or a sync or
        async iterable of any of these but paths, for a dataset larger than memory. The first axis is the samples.
    to:
        Where to: ``"local"`` keeps the blocks in the local store, from where ``dnc serve`` serves them;
        ``"kubo=http://127.0.0.1:5001"`` sends them to a Kubo node's RPC and pins them there, ``"kubo"`` to the node of
        ``$IPFS_PATH/api``. A user and password stand in the URL, a token in ``IPFS_API_AUTH`` (``bearer:…``).
    batch_size:
        Samples in a batch; without it half a batch has about ``chunk_bytes``.
    chunk_bytes:
        The size of half a batch where ``batch_size`` does not say it; 4 MiB by default.
    store:
        The folder of the local store, else ``DNC_STORE``, else in the user's data folder.
    progress:
        Called with the samples and bytes so far after each chunk.

    Raises
    ------
    ArgumentError, DatasetError, StoreError, UploadError
        Nothing was published.

    """
    if chunk_bytes is not None and parse_size(chunk_bytes, name="chunk_bytes") < 1:
        raise ArgumentError("chunk_bytes: expected at least 1 byte")
    return await publish(
        source,
        _target(to, store),
        batch_size=batch_size,
        chunk_bytes=None if chunk_bytes is None else parse_size(chunk_bytes, name="chunk_bytes"),
        progress=progress,
    )


def _target(to: str, store: StrPath | None) -> Target:
    name, _, address = to.partition("=") if isinstance(to, str) else ("", "", "")
    if to == "local":
        from dnc_async.publish.local import LocalTarget  # noqa: PLC0415 - each target imports only what it needs

        return LocalTarget(store_path(store))
    if name == "kubo":
        from dnc_async.publish.kubo import KuboTarget  # noqa: PLC0415 - aiohttp takes 0.3 s to import

        url, headers = kubo_rpc(address)
        return KuboTarget(url, headers=headers, settings=PublishSettings())
    raise ArgumentError(f"to: expected 'local', 'kubo' or 'kubo=URL', got {to!r}")
