"""``Client``, and the top-level functions that open one: what ``import dnc_async`` gives.

A ``Client`` is one engine thread, one session, one scoreboard and one budget for any number of streams. ``stream()`` alone
makes a client of its own and closes it with the stream.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypedDict, TypeVar, Unpack
from urllib.parse import unquote

from dnc_async.config import (
    FetchSettings,
    Gateway,
    default_budget,
    environ_gateways,
    parse_size,
    sources_of,
    spool_path,
    store_path,
)
from dnc_async.dataset.info import DatasetInfo
from dnc_async.engine.bridge import EngineThread, finalize, wait_for_future
from dnc_async.engine.files.paths import DirectoryEntry, listing
from dnc_async.engine.files.reader import cat_range
from dnc_async.engine.files.remote_file import RemoteFile
from dnc_async.engine.files.saving import Saved, save
from dnc_async.engine.runtime import Origin, Runtime, StreamRequest, StreamTask
from dnc_async.engine.stream import BatchStream, StreamHandle
from dnc_async.engine.transform import Transform, TransformFunction, Workers
from dnc_async.errors import ArgumentError, CidError, StreamClosedError
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.cid import Cid
from dnc_async.publish.target import UploadResult
from dnc_async.store import BlockStore
from dnc_async.telemetry import Observer

StrPath = str | os.PathLike[str]
Address = str | Cid | UploadResult
T = TypeVar("T")
Gateways = Iterable[str | Gateway] | str | Gateway | None
Routers = Iterable[str] | str | None
Size = int | float | str


class StreamOptions(TypedDict, total=False):
    """The options of :func:`stream`, for the faces that pass them on."""

    gateways: Gateways
    routers: Routers
    disk_budget: Size | None
    epochs: int | None
    drop_last: bool
    prefetch: int | Literal["auto"]
    transform: TransformFunction | None
    transform_workers: Workers
    store: StrPath | None
    spool_dir: StrPath | None
    progress: Observer | None


class Client:
    """Streams that share one engine, one set of gateways and one disk budget.

    Use it with ``async with``. Leaving closes all its streams and returns when nothing is left of them.
    """

    def __init__(
        self,
        *,
        gateways: Gateways = None,
        routers: Routers = None,
        disk_budget: Size | None = None,
        store: StrPath | None = None,
        spool_dir: StrPath | None = None,
        settings: FetchSettings | None = None,
        observers: Iterable[Observer] = (),
    ) -> None:
        """Check the arguments; nothing is started yet.

        ``gateways``: URLs or :class:`Gateway`; without them the local store where it holds a dataset's root, else
        ``IPFS_GATEWAY``, ``$IPFS_PATH/gateway`` or public ones. ``routers``: URLs of delegated routers, whose gateways for a
        root join these; ``gateways="discover"`` takes those alone (without ``routers``, a local Kubo is asked). ``disk_budget``:
        bytes on disk, ``"64 MB"``, or 0 to stage in memory alone. ``store``, ``spool_dir``: folders, else the user's own.
        ``observers``: callables that get the events of all its streams and calls (:mod:`dnc_async.telemetry`), in the engine's
        thread. Raises
        :class:`~dnc_async.errors.ArgumentError`.
        """
        self._gateways, self._routers = sources_of(gateways, routers)
        self._store = store_path(store)
        self._store_is_named = store is not None
        spool = spool_path(spool_dir)
        budget = default_budget(spool) if disk_budget is None else parse_size(disk_budget, name="disk_budget")
        self._runtime = Runtime(
            settings=settings or FetchSettings(),
            budget_bytes=budget,
            spool_parent=spool,
            observers=[_observer(each, "observers") for each in observers],
        )
        self._engine = EngineThread(self._runtime.setup)
        self._started = self._closed = False
        self._finalizer = finalize(self, self._engine.stop)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._started else "not started"
        return f"<Client {state}, disk budget {self._runtime.governor.budget_bytes} bytes>"

    @property
    def disk_budget_bytes(self) -> int:
        """The budget of all its streams together, in bytes."""
        return self._runtime.governor.budget_bytes

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def stream(
        self,
        cid: Address,
        *,
        epochs: int | None = 1,
        drop_last: bool = False,
        prefetch: int | Literal["auto"] = "auto",
        transform: TransformFunction | None = None,
        transform_workers: Workers = 0,
        progress: Observer | None = None,
    ) -> BatchStream:
        """The batches of a dataset; see :func:`stream`. Shares this client's engine, gateways and budget."""
        return BatchStream(
            self.handle(
                cid,
                epochs=epochs,
                drop_last=drop_last,
                prefetch=prefetch,
                transform=transform,
                transform_workers=transform_workers,
                progress=progress,
                owned=False,
            )
        )

    async def inspect(self, cid: Address) -> DatasetInfo:
        """What the dataset is; see :func:`inspect`."""
        root, path = parse_address(cid)
        request = StreamRequest(
            root=root, path=path, origin=self._origin(root), epochs=1, drop_last=False, prefetch=None
        )
        manifest = await wait_for_future(self._start().call(self._runtime.manifest, request))
        return DatasetInfo.of("/".join([str(root), *path]), manifest)

    async def get(
        self,
        path: Address,
        target: StrPath | None = None,
        *,
        progress: Callable[[Saved], None] | None = None,
    ) -> Saved:
        """Write a file or directory tree to the disk; see :func:`get`."""
        where = None if target is None else os.fspath(target)
        return await self._fetch(path, save, target=where, limit_bytes=self._runtime.in_flight_bytes, progress=progress)

    async def cat(self, path: Address, start: int = 0, end: int | None = None) -> bytes:
        """A file's bytes, or a range of them; see :func:`cat`."""
        return await self._fetch(path, cat_range, start=start, end=end, limit_bytes=self._runtime.in_flight_bytes)

    async def ls(self, path: Address) -> list[DirectoryEntry]:
        """What is in a directory; see :func:`ls`."""
        return await self._fetch(path, listing)

    def open(self, path: Address, *, owned: bool = False) -> RemoteFile:
        """A file to read by ranges; see :func:`open`. An ``owned`` one closes this client."""
        root, names = parse_address(path)

        async def call(function: Callable[[FetchGroup], Awaitable[T]]) -> T:
            return await self._start().run(self._runtime.with_group, self._origin(root), root, function)

        return RemoteFile(
            root, names, call=call, close=self.aclose if owned else None, limit_bytes=self._runtime.in_flight_bytes
        )

    async def _fetch(self, path: Address, function: Callable[..., Awaitable[T]], **options: object) -> T:
        """Run ``function(group, root, names, **options)`` in the engine."""
        root, names = parse_address(path)

        async def fetch(group: FetchGroup) -> T:
            return await function(group, root, names, **options)

        return await self._start().run(self._runtime.with_group, self._origin(root), root, fetch)

    async def aclose(self) -> None:
        """Close all streams; returns when the engine's thread has ended. May be called again."""
        self._closed = True
        if self._started:
            self._engine.stop()
            self._engine.join()

    def handle(
        self,
        cid: Address,
        *,
        epochs: int | None,
        drop_last: bool,
        prefetch: int | Literal["auto"],
        transform: TransformFunction | None = None,
        transform_workers: Workers = 0,
        progress: Observer | None = None,
        owned: bool,
    ) -> StreamHandle:
        """A stream as both faces, the async and the blocking one, hold it; ``owned`` streams close this client."""
        root, path = parse_address(cid)
        if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1):
            raise ArgumentError(f"epochs: expected a number of at least 1, or None for no end, got {epochs!r}")
        if prefetch != "auto" and (isinstance(prefetch, bool) or not isinstance(prefetch, int) or prefetch < 0):
            raise ArgumentError(f"prefetch: expected 'auto' or how many batches ahead to fetch, got {prefetch!r}")
        ahead = prefetch if isinstance(prefetch, int) else None
        observers = () if progress is None else (_observer(progress, "progress"),)
        checked = Transform.of(transform, transform_workers)

        def start() -> tuple[EngineThread, StreamTask]:
            request = StreamRequest(
                root=root,
                path=path,
                origin=self._origin(root),
                epochs=epochs,
                drop_last=drop_last,
                prefetch=ahead,
                transform=checked,
            )
            engine = self._start()
            task = StreamTask(self._runtime, request, post=engine.post, observers=observers)
            running = engine.call(partial(self._run_owned, task) if owned else task.run)
            # Where the engine was stopped before the task began, nobody else would tell those who wait for it.
            running.add_done_callback(lambda _: task.end(StreamClosedError("the stream was closed")))
            return engine, task

        return StreamHandle(start, owns_engine=owned, about="/".join([str(root), *path]))

    async def _run_owned(self, task: StreamTask) -> None:
        try:
            await task.run()
        finally:
            self._engine.stop()

    def _start(self) -> EngineThread:
        if self._closed:
            raise StreamClosedError("this client was closed; make a new one")
        self._engine.check_process()
        if not self._started:
            self._started = True
            self._engine.start()
        return self._engine

    def _origin(self, root: Cid) -> Origin:
        if self._gateways is not None:
            return Origin(gateways=self._gateways, routers=self._routers, root=root)
        if self._store_is_named or self._store.exists():
            store = BlockStore.open(self._store)
            if store.has(root):
                return Origin(store_name=f"local store {self._store}", read=store.read)
        return Origin(gateways=environ_gateways(), routers=self._routers, root=root)


def stream(
    cid: Address,
    *,
    gateways: Gateways = None,
    routers: Routers = None,
    disk_budget: Size | None = None,
    epochs: int | None = 1,
    drop_last: bool = False,
    prefetch: int | Literal["auto"] = "auto",
    transform: TransformFunction | None = None,
    transform_workers: Workers = 0,
    store: StrPath | None = None,
    spool_dir: StrPath | None = None,
    progress: Observer | None = None,
) -> BatchStream:
    """Iterate over a dataset's batches: ``async for batch in dnc_async.stream(cid)``.

    Parameters
    ----------
    cid:
        A CID, ``ipfs://…``, ``/ipfs/<cid>/path`` or an ``UploadResult``.
    gateways, routers, disk_budget, store, spool_dir:
        As for :class:`Client`. ``disk_budget=0`` stages in memory alone.
    epochs:
        How often to go through the dataset; ``None`` goes on for ever.
    drop_last:
        Leave out a last batch that is short.
    prefetch:
        How many batches ahead of the consumer to fetch, within the budget; 0 fetches a batch when it is asked for.
    transform:
        A function that takes a batch and returns what you get in its place: decode, augment, copy to a device. It runs beside
        your step, never in an event loop, and the order stays. Its waits are the cause ``transform`` in the report.
    transform_workers:
        0 calls it for one batch at a time, in one thread, and takes no memory beyond what a stream takes anyway. N calls it for
        up to N batches at once, in N threads, with up to N more batches in memory; for functions that hold the GIL, give a
        ``ProcessPoolExecutor`` of your own, with ``mp_context`` "spawn" or "forkserver". The module
        :mod:`dnc_async.engine.transform` says what holds for threads, contexts, memory and leaving.
    progress:
        Called with frozen events: ``Gap`` for each batch that was handed over, ``BlockReceived`` and ``RequestFailed`` for the
        gateways (:mod:`dnc_async.telemetry`). It is called in the engine's thread and must be quick; what it raises is
        logged, and harms nothing.

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
    BudgetTooSmallError, ChunkUnavailableError, ManifestError, SpoolError, DecodeError, TransformError
        From the iteration.

    """
    return BatchStream(
        stream_handle(
            cid,
            gateways=gateways,
            routers=routers,
            disk_budget=disk_budget,
            epochs=epochs,
            drop_last=drop_last,
            prefetch=prefetch,
            transform=transform,
            transform_workers=transform_workers,
            store=store,
            spool_dir=spool_dir,
            progress=progress,
        )
    )


def stream_handle(cid: Address, **options: Unpack[StreamOptions]) -> StreamHandle:
    """A stream with a client of its own, as both faces hold it."""
    client = Client(
        gateways=options.get("gateways"),
        routers=options.get("routers"),
        disk_budget=options.get("disk_budget"),
        store=options.get("store"),
        spool_dir=options.get("spool_dir"),
    )
    return client.handle(
        cid,
        epochs=options.get("epochs", 1),
        drop_last=options.get("drop_last", False),
        prefetch=options.get("prefetch", "auto"),
        transform=options.get("transform"),
        transform_workers=options.get("transform_workers", 0),
        progress=options.get("progress"),
        owned=True,
    )


async def inspect(
    cid: Address, *, gateways: Gateways = None, routers: Routers = None, store: StrPath | None = None
) -> DatasetInfo:
    """What a dataset is, from its manifest alone: schema, samples, batches, bytes.

    Raises :class:`~dnc_async.errors.ManifestError` where the CID is not a dataset.
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

    It is written under a hidden name beside the target, which it becomes when it is whole; a call that was cut off is gone on
    with by the next one. Symlinks are kept as they are and never followed; modes (without set-uid) and times are kept where
    the DAG has them.

    Parameters
    ----------
    path:
        A CID, ``CID/path``, ``ipfs://…`` or ``/ipfs/…``.
    target:
        A file's or folder's name that is free; a file also goes into a folder that is there, or is named with a slash at its
        end. By default the last name of ``path``, in the current folder.
    gateways, routers, store:
        As of :func:`stream`.
    progress:
        Called in the engine's thread with what was written so far.

    Raises
    ------
    PathError, OutputError, ChunkUnavailableError, DncError
        Nothing stands at the target; what came is kept for the next call.

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
    """A file's bytes, verified, from ``start`` to before ``end``; negative numbers count from the file's end.

    Only the blocks that hold the range are fetched. Raises :class:`~dnc_async.errors.PathError` where this is no file.
    """
    async with Client(gateways=gateways, routers=routers, store=store, disk_budget=0) as client:
        return await client.cat(path, start, end)


async def ls(
    path: Address, *, gateways: Gateways = None, routers: Routers = None, store: StrPath | None = None
) -> list[DirectoryEntry]:
    """What is in a directory, plain or sharded, in its order; the one entry of anything else.

    Raises :class:`~dnc_async.errors.PathError` where the path leads to nothing.
    """
    async with Client(gateways=gateways, routers=routers, store=store, disk_budget=0) as client:
        return await client.ls(path)


def open(  # noqa: A001 - as the builtin
    path: Address, *, gateways: Gateways = None, routers: Routers = None, store: StrPath | None = None
) -> RemoteFile:
    """A file on IPFS to read by ranges, verified: ``async with dnc_async.open(path) as file: await file.read(100)``.

    Raises :class:`~dnc_async.errors.PathError` on first use where this is no file.
    """
    return Client(gateways=gateways, routers=routers, store=store, disk_budget=0).open(path, owned=True)


def _observer(observer: object, name: str) -> Observer:
    if not callable(observer):
        raise ArgumentError(f"{name}: expected a callable that takes an event, got {observer!r}")
    return observer


def parse_address(cid: object) -> tuple[Cid, tuple[str, ...]]:
    """A root and a path beneath it from any of the forms in which people write them."""
    if isinstance(cid, Cid):
        return cid, ()
    text = str(cid) if isinstance(cid, (str, UploadResult)) else None
    if text is None:
        raise ArgumentError(f"cid: expected a CID, 'ipfs://…', '/ipfs/…' or an UploadResult, got {type(cid).__name__}")
    text = text.strip()
    if text.startswith("ipfs://"):
        path_of_url = re.split("[?#]", text.removeprefix("ipfs://"))[0]
        text = unquote(path_of_url, errors="surrogateescape")  # where a path is what it is
    root, *path = text.removeprefix("/ipfs/").split("/")
    try:
        return Cid.parse(root), tuple(name for name in path if name)
    except CidError as error:
        raise CidError(f"cid: {error}") from error
