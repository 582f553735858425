"""``Client``: one engine thread, one session, one scoreboard and one budget for any number of streams and calls."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeVar
from urllib.parse import unquote

from dnc_async.config import (
    FetchSettings,
    Gateway,
    environ_gateways,
    own_store,
    sources_of,
    spool_of,
    store_path,
)
from dnc_async.config.signatures import method_takes
from dnc_async.dataset.cursor import Cursor
from dnc_async.dataset.info import DatasetInfo
from dnc_async.engine.bridge import RunningCall, finalize
from dnc_async.engine.checkpoint import Checkpoint
from dnc_async.engine.engine import Engine, EngineSetup, RunningStream
from dnc_async.engine.files.paths import DirectoryEntry, listing
from dnc_async.engine.files.read_window import AheadLimit
from dnc_async.engine.files.reader import cat_range
from dnc_async.engine.files.remote_file import RemoteFile
from dnc_async.engine.files.saving import Saved, in_working_directory, save
from dnc_async.engine.handle import StreamHandle
from dnc_async.engine.mailbox import BatchReceiver
from dnc_async.engine.options import StreamOptions, check_observer
from dnc_async.engine.runtime import Origin, StreamRequest
from dnc_async.engine.stream import BatchStream
from dnc_async.engine.thread_engine import ThreadEngine
from dnc_async.engine.transform import Transform
from dnc_async.errors import ArgumentError, CidError, GatewayMissError, PathError, StreamClosedError
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
EngineKind = Literal["thread", "process"]


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """The options of a stream's own client.

    gateways, routers, disk_budget, store, spool_dir:
        As for :class:`Client`. ``disk_budget=0`` stages in memory alone.
    engine:
        ``"thread"``: a thread of this process. ``"process"``: a process of its own, for steps that hold Python's lock (the GIL),
        such as loops in pure Python. It takes half a second longer to start and some 80 MB of memory. ``transform`` runs there,
        too, so it must be defined in a module. On Linux.
    """

    gateways: Gateways = None
    routers: Routers = None
    disk_budget: Size | None = None
    store: StrPath | None = None
    spool_dir: StrPath | None = None
    engine: EngineKind = "thread"


@dataclass(frozen=True)
class ClientStreamCall(StreamOptions):
    """The arguments of a stream of a client: the dataset, and the stream's options."""

    cid: Address


@dataclass(frozen=True)
class StreamCall(StreamOptions, ClientOptions):
    """The arguments of a stream with its own client: the dataset, and the options of both."""

    cid: Address


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
        engine: EngineKind = "thread",
        _make_engine: Callable[[EngineSetup], Engine] | None = None,
    ) -> None:
        """Check the arguments; nothing is started yet.

        ``gateways``: URLs or :class:`Gateway`; by default the local store if it contains a dataset's root, else
        ``IPFS_GATEWAY``, ``$IPFS_PATH/gateway`` or public ones. ``routers``: URLs of delegated routers, whose gateways for a
        root are used, too; ``gateways="discover"`` uses only those (without ``routers``, a local Kubo is asked).
        ``disk_budget``: bytes on disk, ``"64 MB"``, or 0 to stage in memory only. ``store``, ``spool_dir``: folders, by default
        the user's own. ``observers``: callables that get the events of all streams and calls (:mod:`dnc_async.telemetry`), in
        the engine's thread. ``engine="process"`` runs the streams in their own process (:mod:`dnc_async.engine.process`), for
        steps in pure Python, which let an engine in the same process run too rarely; on Linux. Raises
        :class:`~dnc_async.errors.ArgumentError`.
        """
        if engine not in ("thread", "process"):
            raise ArgumentError(f"engine: expected 'thread' or 'process', got {engine!r}")
        self._gateways, self._routers = sources_of(gateways, routers)
        self._store = None if store is None else store_path(store)
        spool, budget = spool_of(spool_dir, disk_budget)
        self._setup = EngineSetup(
            settings=settings or FetchSettings(),
            budget_bytes=budget,
            spool_parent=spool,
            observers=tuple(check_observer(each, "observers") for each in observers),
        )
        self._limit_bytes = self._setup.settings.in_flight_bytes
        self._ahead_limit = AheadLimit(self._limit_bytes)
        self._kind = engine
        self._make_engine = _make_engine or (ThreadEngine if engine == "thread" else _process_engine)
        self._closed = False
        self._renew()

    def _renew(self) -> None:
        """Replace the engine by one that was not started yet."""
        self._engine = self._make_engine(self._setup)
        self._finalizer = finalize(self, self._engine.stop)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._engine.is_started else "not started"
        return f"<Client {state}, disk budget {self.disk_budget_bytes} bytes>"

    @property
    def disk_budget_bytes(self) -> int:
        """The budget of all its streams together, in bytes."""
        return self._setup.budget_bytes

    async def __aenter__(self) -> Self:
        self._open_engine().start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @method_takes(ClientStreamCall)
    def stream(self, call: ClientStreamCall) -> BatchStream:
        """Stream a dataset's batches, as :func:`dnc_async.stream` does. Uses this client's engine, gateways and budget.

        Parameters
        ----------
        cid:
            A CID, ``ipfs://…``, ``/ipfs/<cid>/path`` or an ``UploadResult``.
        **options:
            Those of :class:`~dnc_async.engine.options.StreamOptions`.

        """
        return BatchStream(self.handle(call.cid, call, owned=False))

    async def inspect(self, cid: Address) -> DatasetInfo:
        """Describe a dataset; see :func:`dnc_async.inspect`."""
        root, path = parse_address(cid)
        manifest = await self._open_engine().manifest(self._origin(root), root, path)
        return DatasetInfo.of("/".join([str(root), *path]), manifest)

    async def get(
        self,
        path: Address,
        target: StrPath | None = None,
        *,
        progress: Callable[[Saved], None] | None = None,
    ) -> Saved:
        """Write a file or directory tree to the disk; see :func:`dnc_async.get`."""
        where = None if target is None else os.fspath(target)
        if where not in (None, ".", ".."):  # these two are not names
            # The working directory may change meanwhile. A slash at the end is kept, because it means a folder.
            where = in_working_directory(where)
        return await self._fetch(path, save, target=where, limit_bytes=self._limit_bytes, progress=progress)

    async def cat(self, path: Address, start: int = 0, end: int | None = None) -> bytes:
        """Read a file, or a range of it; see :func:`dnc_async.cat`."""
        return await self._fetch(path, cat_range, start=start, end=end, limit_bytes=self._limit_bytes)

    async def ls(self, path: Address) -> list[DirectoryEntry]:
        """List a directory; see :func:`dnc_async.ls`."""
        return await self._fetch(path, listing)

    def open(self, path: Address, *, owned: bool = False) -> RemoteFile:
        """Open a file to read ranges of it; see :func:`dnc_async.open`. Closing an ``owned`` one closes this client."""
        root, names = parse_address(path)

        async def call(function: Callable[[FetchGroup], Awaitable[T]]) -> T:
            return await self._open_engine().with_group(self._origin(root), root, function)

        def begin(function: Callable[[FetchGroup], Awaitable[T]]) -> RunningCall[T]:
            return self._open_engine().begin_with_group(self._origin(root), root, function)

        close = self.aclose if owned else None
        return RemoteFile(root, names, call=call, begin=begin, close=close, limit=self._ahead_limit)

    async def _fetch(self, path: Address, function: Callable[..., Awaitable[T]], **options: object) -> T:
        """Run ``function(group, root, names, **options)`` in the engine."""
        root, names = parse_address(path)

        async def fetch(group: FetchGroup) -> T:
            return await function(group, root, names, **options)

        return await self._open_engine().with_group(self._origin(root), root, fetch)

    async def aclose(self) -> None:
        """Close all streams; returns when the engine's thread has ended. May be called again."""
        self._closed = True
        await self._engine.aclose()

    def handle(self, cid: Address, options: StreamOptions, *, owned: bool) -> StreamHandle:
        """The handle of a stream, for the async and the blocking interface; an ``owned`` one closes this client."""
        root, path = parse_address(cid)
        observers = () if options.progress is None else (options.progress,)
        transform = Transform.of(options.transform, options.transform_workers)
        if transform is not None and self._kind == "process":
            transform.check_portable()

        about = "/".join([str(root), *path])
        checkpoint = None if options.checkpoint is None else Checkpoint(options.checkpoint)
        kept = options.resume if checkpoint is None else checkpoint.read()
        where = "resume" if checkpoint is None else checkpoint.name
        cursor = None if kept is None else Cursor.from_state(kept, about, where)

        def start(cursor: Cursor, first: int) -> tuple[Engine, RunningStream, BatchReceiver]:
            request = StreamRequest(
                root=root,
                path=path,
                origin=self._origin(root),
                options=options,
                transform=transform,
                cursor=cursor,
                first=first,
            )
            return self._begin(request, observers, owned=owned)

        return StreamHandle(
            start, owns_engine=owned, about=about, epochs=options.epochs, cursor=cursor, checkpoint=checkpoint
        )

    def _begin(
        self, request: StreamRequest, observers: Iterable[Observer], *, owned: bool
    ) -> tuple[Engine, RunningStream, BatchReceiver]:
        """Start a stream. A stream that owns this client gets a new engine after a suspension, or a failed start."""
        if owned and self._engine.is_started:
            self._renew()
        engine = self._open_engine()
        try:
            return engine, *engine.open_stream(request, observers=observers, owned=owned)
        except BaseException:  # Ctrl-C, too
            if owned and engine.is_started:  # else it is still to be started
                engine.stop()
            raise

    def _open_engine(self) -> Engine:
        """The engine, which is started by its first stream or call. Raises if this client was closed, or forked."""
        if self._closed:
            raise StreamClosedError("this client was closed; make a new one")
        self._engine.check_process()
        return self._engine

    def _origin(self, root: Cid) -> Origin:
        if self._gateways is not None:
            return Origin(gateways=self._gateways, routers=self._routers, root=root)
        path = self._store or own_store()
        without = "there is no store in this folder"
        if path is not None:
            store = BlockStore.open(path)
            if store.has(root):
                return Origin(store_name=f"local store {path}", read=store.read)
            without = "does not hold the root that was asked for"
        if path is None:
            with contextlib.suppress(ArgumentError):  # without a home there is no such folder
                path = store_path(None)
        passed_over = GatewayMissError(without, gateway=f"local store {path}" if path else "local store")
        return Origin(gateways=environ_gateways(), routers=self._routers, root=root, passed_over=passed_over)


def _process_engine(setup: EngineSetup) -> Engine:
    """An engine in its own process. Raises :class:`~dnc_async.errors.ArgumentError` if that is not supported."""
    from dnc_async.engine.process.remote import RemoteEngine  # noqa: PLC0415 - rarely needed, and not importable everywhere

    return RemoteEngine(setup)


def parse_address(cid: object, *, foreign: bool = False) -> tuple[Cid, tuple[str, ...]]:
    """Parse an address in any of its usual forms; returns the root and the path below it.

    A ``foreign`` root, whose codec or hash function is not supported, is accepted only with ``foreign=True``.
    """
    if isinstance(cid, Cid):
        cid = str(cid)
    text = str(cid) if isinstance(cid, (str, UploadResult)) else None
    if text is None:
        raise ArgumentError(f"cid: expected a CID, 'ipfs://…', '/ipfs/…' or an UploadResult, got {type(cid).__name__}")
    if text.lstrip().lower().startswith(("/ipns/", "ipns://")):
        raise CidError(
            f"cid: {text[:80]!r} is a name that leads to changing CIDs (IPNS), which is not looked up; give a CID"
        )
    url = text.lstrip()[:7].lower() == "ipfs://"
    text = text.lstrip()[7:] if url else text.lstrip().removeprefix("/ipfs/")
    if url:  # in a URL, "?" and "#" end the path; in a plain path they are part of it
        text = unquote(re.split("[?#]", text, maxsplit=1)[0], errors="surrogateescape")
    root, slash, below = text.partition("/")
    try:
        # Only a name may end in white space; after a CID it was pasted by accident.
        return Cid.parse(root if slash else root.rstrip(), foreign=foreign), _names(below)
    except CidError as error:
        raise CidError(f"cid: {error}") from error


def _names(path: str) -> tuple[str, ...]:
    """The names in a path. Dot segments, which no directory can contain, are resolved."""
    try:  # and back, so that a character of which some bytes were percent-encoded is whole again
        path = path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"cid: the path {path!r} holds the lone surrogate {path[error.start]!r}, which no name can hold"
        ) from error
    names: list[str] = []
    for name in path.split("/"):
        if name == ".." and not names:
            raise PathError(f"the path {path!r} leads above its root, and an entry may not be named '..'")
        if name == "..":
            names.pop()
        elif name not in ("", "."):
            names.append(name)
    return tuple(names)
