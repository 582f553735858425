"""The top-level functions. Each opens a client of its own, and closes it at the end."""

from __future__ import annotations

from collections.abc import Callable

from dnc_async.client import Address, Client, ClientOptions, Gateways, Routers, StreamCall, StrPath
from dnc_async.config.signatures import chosen, takes
from dnc_async.dataset.info import DatasetInfo
from dnc_async.engine.files.paths import DirectoryEntry
from dnc_async.engine.files.remote_file import RemoteFile
from dnc_async.engine.files.saving import Saved
from dnc_async.engine.handle import StreamHandle
from dnc_async.engine.stream import BatchStream


@takes(StreamCall)
def stream(call: StreamCall) -> BatchStream:
    """Iterate over a dataset's batches: ``async for batch in dnc_async.stream(cid)``.

    Parameters
    ----------
    cid:
        A CID, ``ipfs://…``, ``/ipfs/<cid>/path`` or an ``UploadResult``.
    **options:
        Those of :class:`~dnc_async.engine.options.StreamOptions` and of :class:`~dnc_async.client.ClientOptions`.

    Returns
    -------
    BatchStream
        Yields what was uploaded: a dict of arrays, a tuple, or an array; the first axis is the samples. The arrays are
        writable and the consumer's own. Columns of ``bytes`` are :class:`~dnc_async.dataset.ragged.Ragged`. With a
        ``transform``, whatever that returns, ``None``, too.

    Raises
    ------
    ArgumentError, CidError
        At once, for an argument that cannot work.
    BudgetTooSmallError, ChunkUnavailableError, ManifestError, SpoolError, DecodeError, TransformError, EngineError
        From the iteration.

    """
    return BatchStream(stream_handle(call))


def stream_handle(call: StreamCall) -> StreamHandle:
    """The handle of a stream with its own client, for the async and the blocking interface."""
    return Client(**chosen(ClientOptions, vars(call))).handle(call.cid, call, owned=True)


async def inspect(
    cid: Address, *, gateways: Gateways = None, routers: Routers = None, store: StrPath | None = None
) -> DatasetInfo:
    """Describe a dataset from its manifest alone: schema, samples, batches, bytes.

    Raises :class:`~dnc_async.errors.ManifestError` if the CID is not a dataset.
    """
    async with Client(gateways=gateways, routers=routers, store=store, disk_budget=0) as client:
        return await client.inspect(cid)


async def get(
    path: Address,
    target: StrPath | None = None,
    *,
    gateways: Gateways = None,
    routers: Routers = None,
    store: StrPath | None = None,
    progress: Callable[[Saved], None] | None = None,
) -> Saved:
    """Write any UnixFS file or directory tree on IPFS to the disk, verified.

    It is written under a hidden name beside the target, and renamed when it is complete. If a call is interrupted, the next one
    continues it. Symlinks are kept as they are and never followed; modes (without set-uid) and times are kept if the DAG has
    them. Entries of a tree that are not files, or have an unsupported codec or hash function, are left out, and listed in
    ``left_out``.

    Parameters
    ----------
    path:
        A CID, ``CID/path``, ``ipfs://…`` or ``/ipfs/…``.
    target:
        The name of a file or folder that does not exist yet. A file may also be written into an existing folder, or one that
        is named with a slash at its end. By default the last name of ``path``, in the current folder.
    gateways, routers, store:
        See :func:`stream`.
    progress:
        Called in the engine's thread with what was written so far.

    Raises
    ------
    PathError, OutputError, ChunkUnavailableError, DncError
        The target was not created; what was received is kept for the next call.

    """
    async with Client(gateways=gateways, routers=routers, store=store, disk_budget=0) as client:
        return await client.get(path, target, progress=progress)


async def cat(
    path: Address,
    start: int = 0,
    end: int | None = None,
    *,
    gateways: Gateways = None,
    routers: Routers = None,
    store: StrPath | None = None,
) -> bytes:
    """Read a file, verified, from ``start`` to ``end`` (exclusive); negative numbers count from the file's end.

    Only the blocks of that range are fetched. Raises :class:`~dnc_async.errors.PathError` if this is not a file.
    """
    async with Client(gateways=gateways, routers=routers, store=store, disk_budget=0) as client:
        return await client.cat(path, start, end)


async def ls(
    path: Address, *, gateways: Gateways = None, routers: Routers = None, store: StrPath | None = None
) -> list[DirectoryEntry]:
    """List a directory, plain or sharded, in its order; for anything else, the one entry that it is.

    Raises :class:`~dnc_async.errors.PathError` if the path leads to nothing.
    """
    async with Client(gateways=gateways, routers=routers, store=store, disk_budget=0) as client:
        return await client.ls(path)


def open(  # noqa: A001 - as the builtin
    path: Address, *, gateways: Gateways = None, routers: Routers = None, store: StrPath | None = None
) -> RemoteFile:
    """Open a file on IPFS to read ranges of it, verified: ``async with dnc_async.open(path) as file: await file.read(100)``.

    Raises :class:`~dnc_async.errors.PathError` on first use if this is not a file.
    """
    return Client(gateways=gateways, routers=routers, store=store, disk_budget=0).open(path, owned=True)
