"""What all streams of a client share in the engine's thread: sessions, fetchers, governor, spool."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.abc import TaskGroup

from dnc_async.config import FetchSettings, Gateway, user_agent
from dnc_async.dataset.cursor import Cursor
from dnc_async.engine.credit import CreditLimit
from dnc_async.engine.environment import Environment
from dnc_async.engine.options import StreamOptions
from dnc_async.engine.proofs import Manifests
from dnc_async.engine.transform import Transform, Transforms
from dnc_async.errors import DncError, GatewayMissError
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.transport import StoreTransport, Transport
from dnc_async.ipld.cid import Cid
from dnc_async.spool.disk_backoff import DiskBackoff
from dnc_async.spool.files import FOLDER_BYTES, MAX_FILES, SpoolFolder
from dnc_async.spool.governor import Governor
from dnc_async.telemetry import Observer, Observers

if TYPE_CHECKING:
    from dnc_async.gateways.discovery import Discovery
    from dnc_async.gateways.session import Sessions

T = TypeVar("T")
#: How many files an engine has open besides connections and staged chunks: its event loop, a lock, the local store's block.
_OWN_FILES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a root's blocks come from: gateways and routers, or the local store's reader and its name.

    ``passed_over`` says why the local store is not used, if it would have had precedence.
    """

    gateways: tuple[Gateway, ...] = ()
    routers: tuple[str, ...] = ()
    root: Cid | None = None
    store_name: str = ""
    read: Callable[[Cid], bytes | None] | None = None
    passed_over: GatewayMissError | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """A consumer's checked options for a stream."""

    root: Cid
    path: tuple[str, ...]
    origin: Origin
    options: StreamOptions
    #: The transform of the options, checked, with the context in which the stream was created.
    transform: Transform | None = None
    #: Where to begin: ``first`` batches after the cursor.
    cursor: Cursor = field(default_factory=Cursor)
    first: int = 0

    @property
    def dataset(self) -> str:
        """The dataset's address."""
        return "/".join([str(self.root), *self.path])


class Runtime:
    """The shared parts. Used in the engine's thread from :meth:`setup` until its stack is closed."""

    def __init__(
        self,
        *,
        settings: FetchSettings,
        budget_bytes: int,
        spool_parent: Path,
        observers: Iterable[Observer] = (),
        environment: Environment | None = None,
    ) -> None:
        """``observers`` receive the events of all streams and calls; the default ``environment`` is the real machine."""
        self.environment = environment or Environment()
        self.observers = Observers(observers)
        self.manifests = Manifests()
        self.credit = CreditLimit(settings.in_flight_bytes // 2)
        self._settings = settings
        self._spool_parent = spool_parent
        self._spool: SpoolFolder | None = None
        self._fetchers: dict[Origin | str | tuple[Gateway, ...], Fetcher] = {}
        self._discoveries: dict[tuple[Fetcher, tuple[str, ...]], Discovery] = {}
        overhead = FOLDER_BYTES if budget_bytes else 0
        spare, files = self.environment.spare_files(), MAX_FILES
        if spare is not None:
            at_once = min(settings.requests_per_gateway, max(1, (spare - _OWN_FILES) // 8))
            self._settings = replace(settings, requests_per_gateway=at_once)
            files = min(
                MAX_FILES, max(1, (spare - _OWN_FILES) // 3)
            )  # the rest is for connections, and for the consumer
        self.governor = Governor(budget_bytes=budget_bytes, overhead_bytes=overhead, max_leases=files)
        self.disk = DiskBackoff(
            clock=self.environment.clock, retry_s=settings.disk_retry_s, longest_retry_s=settings.disk_longest_retry_s
        )
        self._stack: contextlib.AsyncExitStack
        self._tasks: TaskGroup
        self._spool_lock: anyio.Lock
        self._executor: Executor
        self._http: Sessions | None = None

    async def setup(self, stack: contextlib.AsyncExitStack) -> None:
        """Open what has to be closed onto the engine's stack."""
        self._stack = stack
        self._spool_lock = anyio.Lock()
        self._executor = self.environment.workers(self._settings.workers, "dnc_async worker")
        stack.callback(self._executor.shutdown)
        stack.callback(self._close_spool)
        self._tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(self._tasks.cancel_scope.cancel)

    def _close_spool(self) -> None:
        if self._spool is not None:
            self._spool.close()

    async def spool(self) -> SpoolFolder | None:
        """The spool's folder, created when it is first needed; ``None`` if the budget is 0."""
        if not self.governor.budget_bytes:
            return None
        async with self._spool_lock:
            if self._spool is None:
                loop = asyncio.get_running_loop()
                making = loop.run_in_executor(self._executor, SpoolFolder, self._spool_parent, self.environment.disk)
                with anyio.CancelScope(shield=True):  # else a folder would be created and never removed
                    self._spool = await making
            return self._spool

    def lease_bytes(self, size_bytes: int) -> int:
        """How many bytes of the budget a chunk of this size takes; its size if nothing is staged on disk."""
        return self._spool.cost(size_bytes) if self._spool is not None else size_bytes

    def fetcher(self, origin: Origin) -> Fetcher:
        """The fetcher of an origin: one scoreboard for all streams that share its gateways. Asks the origin's routers, once."""
        key = origin.gateways or origin.store_name or origin
        fetcher = self._fetchers.get(key)
        if fetcher is None:
            settings = self._settings
            fetcher = self._fetchers[key] = Fetcher(
                self._transports(origin),
                executor=self._executor,
                clock=self.environment.clock,
                thread_clock=self.environment.thread_clock,
                dice=self.environment.dice,
                attempts=settings.attempts,
                patience_s=settings.patience_s,
                busy_patience_s=settings.busy_patience_s,
                requests_per_gateway=settings.requests_per_gateway,
                in_flight_bytes=settings.in_flight_bytes,
                hedge_share=settings.hedge_share,
                early_bytes=settings.early_bytes,
                hold_s=settings.hold_s,
                requests_per_minute=tuple(gateway.requests_per_minute for gateway in origin.gateways),
            )
            fetcher.observers.add(self.observers)
            if origin.passed_over is not None:
                fetcher.add_search_cause(origin.passed_over)
            self._tasks.start_soon(fetcher.run)
        if origin.routers and origin.root is not None:
            discovery = self._discovery(fetcher, origin)
            if discovery.begin(origin.root):
                self._tasks.start_soon(discovery.search, origin.root)
        return fetcher

    def _discovery(self, fetcher: Fetcher, origin: Origin) -> Discovery:
        discovery = self._discoveries.get((fetcher, origin.routers))
        if discovery is None:
            from dnc_async.gateways.discovery import Discovery  # noqa: PLC0415 - aiohttp takes 0.3 s to import

            settings = self._settings
            discovery = self._discoveries[fetcher, origin.routers] = Discovery(
                fetcher,
                origin.routers,
                sessions=self._sessions(),
                known=[gateway.url for gateway in origin.gateways],
                private_providers=settings.private_providers,
                max_found=settings.found_gateways,
                max_records=settings.router_records,
                timeout_s=settings.router_timeout_s,
                clock=self.environment.clock,
            )
        return discovery

    def _transports(self, origin: Origin) -> Sequence[Transport]:
        if origin.read is not None:
            return [StoreTransport(origin.store_name, origin.read)]
        if self.environment.transports is not None:
            return self.environment.transports(origin.gateways)
        from dnc_async.gateways.car_file import CarFileTransport  # noqa: PLC0415 - aiohttp takes 0.3 s to import
        from dnc_async.gateways.http import HttpTransport  # noqa: PLC0415 - as above

        sessions = self._sessions()
        named = sessions.named()
        return [
            CarFileTransport(
                gateway.url,
                session=named,
                headers=gateway.headers,
                redirect_sessions=sessions.guarded,
                executor=self._executor,
            )
            if gateway.is_car_file
            else HttpTransport(gateway.url, session=named, headers=gateway.headers)
            for gateway in origin.gateways
        ]

    def _sessions(self) -> Sessions:
        from dnc_async.gateways.session import Sessions  # noqa: PLC0415 - as above

        if self._http is None:
            settings = self._settings
            self._http = Sessions(
                requests_per_host=settings.requests_per_gateway,
                connect_timeout_s=settings.connect_timeout_s,
                stall_timeout_s=settings.stall_timeout_s,
                user_agent=user_agent(),
                trust_env=settings.trust_env,
            )
            self._stack.push_async_callback(self._close_sessions, self._http)
        return self._http

    async def _close_sessions(self, sessions: Sessions) -> None:
        # First, so that a router's answer that we cut off is not reported as the router's error.
        self._tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await sessions.aclose()

    async def with_group(self, origin: Origin, root: Cid, function: Callable[[FetchGroup], Awaitable[T]]) -> T:
        """Run a function that fetches blocks below a root. Blocks that it requested and did not wait for are withdrawn."""
        group = self.fetcher(origin).open(root)
        try:
            return await function(group)
        except ExceptionGroup as error:
            found = culprit(error)
            raise found from found.__cause__
        finally:
            with anyio.CancelScope(shield=True):
                await group.aclose()

    def transforms(self, transform: Transform | None, group: FetchGroup) -> Transforms | None:
        """The runner of a stream's transform, if it has one; the stream closes it."""
        if transform is None:
            return None
        return Transforms(
            transform,
            in_worker=group.in_worker,
            threads=self.environment.workers,
            clock=self.environment.clock,
            patience_s=self._settings.transform_patience_s,
            executor_batches=self._settings.executor_batches,
        )


def culprit(error: Exception) -> Exception:
    """The error to report of a task group's errors: ours if there is one, else the first."""
    if isinstance(error, DncError) or not isinstance(error, ExceptionGroup):
        return error
    inner = [culprit(each) for each in error.exceptions]
    return next((each for each in inner if isinstance(each, DncError)), inner[0])
