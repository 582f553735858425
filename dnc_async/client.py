"""``Client``, and the top-level functions that open one: what ``import dnc_async`` gives.

A ``Client`` is one engine thread, one session, one scoreboard and one budget for any number of streams. ``stream()`` alone
makes a client of its own and closes it with the stream.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypedDict, Unpack

from dnc_async.config import (
    FetchSettings,
    Gateway,
    PublishSettings,
    default_budget,
    environ_gateways,
    gateways_of,
    kubo_rpc,
    parse_size,
    spool_path,
    store_path,
)
from dnc_async.dataset.manifest import Manifest
from dnc_async.engine.bridge import EngineThread, finalize, wait_for_future
from dnc_async.engine.runtime import Origin, Runtime, StreamRequest, StreamTask
from dnc_async.engine.stream import BatchStream, StreamHandle
from dnc_async.errors import ArgumentError, CidError, StreamClosedError
from dnc_async.ipld.cid import Cid
from dnc_async.publish.target import Target, UploadResult, publish
from dnc_async.store import BlockStore

StrPath = str | os.PathLike[str]
Gateways = Iterable[str | Gateway] | str | Gateway | None
Size = int | float | str


class StreamOptions(TypedDict, total=False):
    """The options of :func:`stream`, for the faces that pass them on."""

    gateways: Gateways
    disk_budget: Size | None
    epochs: int | None
    drop_last: bool
    prefetch: int | Literal["auto"]
    store: StrPath | None
    spool_dir: StrPath | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """What a dataset is, from its manifest alone. ``columns`` are (name, dtype, shape of one sample)."""

    cid: str
    structure: str
    columns: tuple[tuple[str, str, tuple[int, ...]], ...]
    samples: int
    batch_size: int
    batches: int
    chunks: int
    size_bytes: int
    largest_chunk_bytes: int


class Client:
    """Streams that share one engine, one set of gateways and one disk budget.

    Use it with ``async with``. Leaving closes all its streams and returns when nothing is left of them.
    """

    def __init__(
        self,
        *,
        gateways: Gateways = None,
        disk_budget: Size | None = None,
        store: StrPath | None = None,
        spool_dir: StrPath | None = None,
        settings: FetchSettings | None = None,
    ) -> None:
        """Check the arguments; nothing is started yet.

        ``gateways``: URLs or :class:`Gateway`; without them the local store where it holds a dataset's root, else
        ``IPFS_GATEWAY``, ``$IPFS_PATH/gateway`` or public ones. ``disk_budget``: bytes on disk, ``"64 MB"``, or 0 to
        stage in memory alone. ``store``, ``spool_dir``: folders, else the user's own. Raises
        :class:`~dnc_async.errors.ArgumentError`.
        """
        self._gateways = None if gateways is None else gateways_of(gateways)
        self._store = store_path(store)
        self._store_is_named = store is not None
        spool = spool_path(spool_dir)
        budget = default_budget(spool) if disk_budget is None else parse_size(disk_budget, name="disk_budget")
        self._runtime = Runtime(settings=settings or FetchSettings(), budget_bytes=budget, spool_parent=spool)
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
        cid: str | Cid | UploadResult,
        *,
        epochs: int | None = 1,
        drop_last: bool = False,
        prefetch: int | Literal["auto"] = "auto",
    ) -> BatchStream:
        """The batches of a dataset; see :func:`stream`. Shares this client's engine, gateways and budget."""
        return BatchStream(self.handle(cid, epochs=epochs, drop_last=drop_last, prefetch=prefetch, owned=False))

    async def inspect(self, cid: str | Cid | UploadResult) -> DatasetInfo:
        """What the dataset is; see :func:`inspect`."""
        root, path = parse_address(cid)
        request = StreamRequest(
            root=root, path=path, origin=self._origin(root), epochs=1, drop_last=False, prefetch=None
        )
        manifest = await wait_for_future(self._start().call(self._runtime.manifest, request))
        return _info("/".join([str(root), *path]), manifest)

    async def aclose(self) -> None:
        """Close all streams; returns when the engine's thread has ended. May be called again."""
        self._closed = True
        if self._started:
            self._engine.stop()
            self._engine.join()

    def handle(
        self,
        cid: str | Cid | UploadResult,
        *,
        epochs: int | None,
        drop_last: bool,
        prefetch: int | Literal["auto"],
        owned: bool,
    ) -> StreamHandle:
        """A stream as both faces, the async and the blocking one, hold it; ``owned`` streams close this client."""
        root, path = parse_address(cid)
        if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1):
            raise ArgumentError(f"epochs: expected a number of at least 1, or None for no end, got {epochs!r}")
        if prefetch != "auto" and (isinstance(prefetch, bool) or not isinstance(prefetch, int) or prefetch < 0):
            raise ArgumentError(f"prefetch: expected 'auto' or how many batches ahead to fetch, got {prefetch!r}")
        ahead = prefetch if isinstance(prefetch, int) else None

        def start() -> tuple[EngineThread, StreamTask]:
            request = StreamRequest(
                root=root, path=path, origin=self._origin(root), epochs=epochs, drop_last=drop_last, prefetch=ahead
            )
            engine = self._start()
            task = StreamTask(self._runtime, request, post=engine.post)
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
            return Origin(gateways=self._gateways)
        if self._store_is_named or self._store.exists():
            store = BlockStore.open(self._store)
            if store.has(root):
                return Origin(store_name=f"local store {self._store}", read=store.read)
        return Origin(gateways=environ_gateways())


def stream(
    cid: str | Cid | UploadResult,
    *,
    gateways: Gateways = None,
    disk_budget: Size | None = None,
    epochs: int | None = 1,
    drop_last: bool = False,
    prefetch: int | Literal["auto"] = "auto",
    store: StrPath | None = None,
    spool_dir: StrPath | None = None,
) -> BatchStream:
    """Iterate over a dataset's batches: ``async for batch in dnc_async.stream(cid)``.

    Parameters
    ----------
    cid:
        A CID, ``ipfs://…``, ``/ipfs/<cid>/path`` or an ``UploadResult``.
    gateways, disk_budget, store, spool_dir:
        As for :class:`Client`. ``disk_budget=0`` stages in memory alone.
    epochs:
        How often to go through the dataset; ``None`` goes on for ever.
    drop_last:
        Leave out a last batch that is short.
    prefetch:
        How many batches ahead of the consumer to fetch, within the budget; 0 fetches a batch when it is asked for.

    Returns
    -------
    BatchStream
        Yields what was uploaded: a dict of arrays, a tuple, or an array; the first axis is the samples. The arrays are
        writable and the consumer's own.

    Raises
    ------
    ArgumentError, CidError
        At once, for an argument that cannot work.
    BudgetTooSmallError, ChunkUnavailableError, ManifestError, SpoolError, DecodeError
        From the iteration.

    """
    return BatchStream(
        stream_handle(
            cid,
            gateways=gateways,
            disk_budget=disk_budget,
            epochs=epochs,
            drop_last=drop_last,
            prefetch=prefetch,
            store=store,
            spool_dir=spool_dir,
        )
    )


def stream_handle(cid: str | Cid | UploadResult, **options: Unpack[StreamOptions]) -> StreamHandle:
    """A stream with a client of its own, as both faces hold it."""
    client = Client(
        gateways=options.get("gateways"),
        disk_budget=options.get("disk_budget"),
        store=options.get("store"),
        spool_dir=options.get("spool_dir"),
    )
    return client.handle(
        cid,
        epochs=options.get("epochs", 1),
        drop_last=options.get("drop_last", False),
        prefetch=options.get("prefetch", "auto"),
        owned=True,
    )


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


async def inspect(
    cid: str | Cid | UploadResult, *, gateways: Gateways = None, store: StrPath | None = None
) -> DatasetInfo:
    """What a dataset is, from its manifest alone: schema, samples, batches, bytes.

    Raises :class:`~dnc_async.errors.ManifestError` where the CID is not a dataset.
    """
    async with Client(gateways=gateways, store=store, disk_budget=0) as client:
        return await client.inspect(cid)


def parse_address(cid: object) -> tuple[Cid, tuple[str, ...]]:
    """A root and a path beneath it from any of the forms in which people write them."""
    if isinstance(cid, Cid):
        return cid, ()
    text = str(cid) if isinstance(cid, (str, UploadResult)) else None
    if text is None:
        raise ArgumentError(f"cid: expected a CID, 'ipfs://…', '/ipfs/…' or an UploadResult, got {type(cid).__name__}")
    for prefix in ("ipfs://", "/ipfs/"):
        text = text.strip().removeprefix(prefix)
    root, *path = text.split("/")
    try:
        return Cid.parse(root), tuple(name for name in path if name)
    except CidError as error:
        raise CidError(f"cid: {error}") from error


def _info(cid: str, manifest: Manifest) -> DatasetInfo:
    return DatasetInfo(
        cid=cid,
        structure=manifest.schema.structure,
        columns=tuple((c.name, c.dtype, c.shape) for c in manifest.schema.columns),
        samples=manifest.samples,
        batch_size=manifest.batch_size,
        batches=manifest.batches,
        chunks=manifest.chunks,
        size_bytes=manifest.size_bytes,
        largest_chunk_bytes=manifest.largest_chunk_bytes,
    )
