"""One stream in the engine's thread, from its opening until its last file is deleted."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Protocol

import anyio

from dnc_async.dataset.cursor import PlanFacts
from dnc_async.dataset.plan import Plan
from dnc_async.engine.credit import BandwidthDelay
from dnc_async.engine.ledger import Handover, Ledger
from dnc_async.engine.mailbox import BatchSender
from dnc_async.engine.memory_limit import check_memory
from dnc_async.engine.pipeline import Pipeline, Surroundings
from dnc_async.engine.report.build import build
from dnc_async.engine.report.report import Report
from dnc_async.engine.runtime import Runtime, StreamRequest, culprit
from dnc_async.engine.transform import Transforms
from dnc_async.errors import DncError, EngineError, StreamClosedError
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.group import FetchGroup
from dnc_async.spool.files import FOLDER_BYTES, SpoolFolder
from dnc_async.telemetry import Event, Gap, Observer, Observers, RequestFailed, StreamStatistics


class CallSoon(Protocol):
    """Tells the engine's thread what a consumer did."""

    def __call__(self, call: Callable[[], None], *, at_once: bool = False) -> None:
        """Call it in the engine's thread: soon, or ``at_once``; in order."""


def _told(error: Exception) -> Exception:
    """The error as the consumer gets it: exhausted threads, files or memory mappings become an error of ours."""
    if isinstance(error, DncError) or not isinstance(error, (OSError, RuntimeError)):
        return error
    told = EngineError(f"the engine could not go on: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told


class StreamTask:
    """One stream, from its opening until its last file is deleted. Created in the caller's thread, runs in the engine's."""

    def __init__(
        self,
        runtime: Runtime,
        request: StreamRequest,
        *,
        call_soon: CallSoon,
        mailbox: BatchSender,
        started: float,
        observers: Iterable[Observer] = (),
    ) -> None:
        """Prepare the stream of a request.

        ``call_soon`` tells the engine's thread what the consumer did; batches are put into ``mailbox``; ``started`` is when the
        stream was requested; ``observers`` are this stream's only.
        """
        self._runtime = runtime
        self._request = request
        self._call_soon = call_soon
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._fetcher: Fetcher | None = None
        self._pipeline: Pipeline | None = None
        self._rejected = self._failed = 0
        self._mailbox = mailbox
        self.observers = Observers(observers)
        self.observers.add(self._count, RequestFailed)
        self._ledger = Ledger(started=started, stream=request.dataset, first=request.first)
        self._entering = threading.Lock()
        self._taken: deque[Handover] = deque()
        self._gaps: deque[Gap] = deque()
        self.opened: Future[PlanFacts] = Future()
        self.finished: Future[None] = Future()

    def cancel(self) -> None:
        """Stop the stream (in the engine's thread)."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> None:
        """Stream until the plan is delivered, something fails, or the stream is closed. Raises nothing but cancellation."""
        error: Exception | None = StreamClosedError("the stream was closed")
        try:
            with anyio.CancelScope() as self._scope:
                try:
                    if self._cancelled:
                        self._scope.cancel()
                    await self._stream()
                    error = None
                except Exception as failure:  # noqa: BLE001 - the consumer is told
                    error = _told(culprit(failure))
        finally:
            self._tell_gaps()  # before the end, although the consumer may have left before this thread learned of its last batch
            self.end(error)

    def end(self, error: Exception | None) -> None:
        """Tell all who wait that nothing more follows. Also called if the engine stopped before :meth:`run` began."""
        if not self.opened.done():
            self.opened.set_exception(error or StreamClosedError("the stream was closed"))
        self._mailbox.finish(error)
        if not self.finished.done():
            self.finished.set_result(None)

    async def _stream(self) -> None:
        request, runtime = self._request, self._runtime
        spool = await runtime.spool()
        self._fetcher = fetcher = runtime.fetcher(request.origin)
        fetcher.observers.add(self.observers)
        group = fetcher.open(request.root)
        transforms = runtime.transforms(request.transform, group)
        try:
            manifest = await runtime.manifests.load(group, request.root, request.path)
            check_memory(manifest, request.dataset)
            options = request.options
            plan = Plan(manifest=manifest, epochs=options.epochs, drop_last=options.drop_last)
            before = request.cursor.batches_before(
                batch_size=manifest.batch_size, batches_per_epoch=plan.batches_per_epoch
            )
            plan = replace(plan, first=before + request.first)
            await self._deliver(plan, fetcher, group, spool, transforms)
        finally:
            fetcher.observers.remove(self.observers)
            with anyio.CancelScope(shield=True):
                await group.aclose()
                if transforms is not None:  # last, because it may take long
                    await transforms.aclose()

    async def _deliver(
        self, plan: Plan, fetcher: Fetcher, group: FetchGroup, spool: SpoolFolder | None, transforms: Transforms | None
    ) -> None:
        """Run the plan. Afterwards no file and no lease is left, however it ended."""
        runtime, pipeline = self._runtime, None
        floor = spool.cost(plan.manifest.largest_chunk_bytes) if spool else 0
        try:
            async with anyio.create_task_group() as tasks:
                self._pipeline = pipeline = Pipeline(
                    root=self._request.dataset,
                    plan=plan,
                    tasks=tasks,
                    around=self._surroundings(fetcher, group, spool),
                    open_account=lambda borrower: runtime.governor.open(floor_bytes=floor, borrower=borrower),
                    prefetch=self._request.options.batches_ahead,
                    transforms=transforms,
                )
                if self._mailbox.is_awaited:  # since before there was a pipeline
                    pipeline.wanted()
                self.opened.set_result(plan.facts)
                await pipeline.run()
                tasks.cancel_scope.cancel()
        finally:
            if pipeline is not None:
                with anyio.CancelScope(shield=True):
                    await group.aclose()
                pipeline.close()

    def _surroundings(self, fetcher: Fetcher, group: FetchGroup, spool: SpoolFolder | None) -> Surroundings:
        runtime = self._runtime
        return Surroundings(
            group=group,
            spool=spool,
            disk=runtime.disk,
            mailbox=self._mailbox,
            clock=runtime.environment.clock,
            thread_clock=runtime.environment.thread_clock,
            window=lambda: BandwidthDelay.of(fetcher.scores),
            measured=fetcher.measured,
            credit=runtime.credit,
        )

    # What the consumer does, told in any thread, which is kept from its next batch as shortly as can be.

    def taken(self, handover: Handover) -> None:
        """The consumer took a batch."""
        self._taken.append(handover)
        self._call_soon(partial(self._told_taken, handover.at))

    def awaited(self) -> None:
        """The consumer waits for the next batch."""
        self._call_soon(self._told_awaited, at_once=True)

    def _told_taken(self, at: float) -> None:
        self._tell_gaps()
        if self._pipeline is not None:
            self._pipeline.taken(at)

    def _told_awaited(self) -> None:
        if self._pipeline is not None:  # else it is asked of the mailbox when there is one
            self._pipeline.wanted()

    def _tell_gaps(self) -> None:
        self._books()
        while self._gaps:
            gap = self._gaps.popleft()
            self.observers.tell(gap)
            self._runtime.observers.tell(gap)

    def _count(self, event: Event) -> None:
        if isinstance(event, RequestFailed):
            self._failed += 1
            self._rejected += event.mismatch

    def _books(self) -> Ledger:
        """The ledger, with all batches taken so far: they are entered when it is first looked at."""
        with self._entering:
            while self._taken:
                self._gaps.append(self._ledger.enter(self._taken.popleft()))
        return self._ledger

    def statistics(self) -> StreamStatistics:
        """A snapshot, from any thread. In the consumer's own it includes all taken batches; the rest may be a moment old."""
        gateways = self._fetcher.statistics() if self._fetcher else ()
        governor, ledger, pipeline = self._runtime.governor.statistics(), self._books(), self._pipeline
        return StreamStatistics(
            batches=ledger.batches,
            samples=ledger.samples,
            budget_bytes=governor.budget_bytes,
            peak_leased_bytes=governor.peak_leased_bytes,
            peak_disk_bytes=pipeline.peak_disk_bytes if pipeline else 0,
            fetched_bytes=sum(gateway.received_bytes for gateway in gateways),
            verified_bytes=sum(gateway.bytes for gateway in gateways),
            useful_bytes=ledger.useful_bytes,
            blocks_rejected=self._rejected,
            requests_failed=self._failed,
            first_batch_s=ledger.first_batch_s,
            waited_s=ledger.waited_s,
            elapsed_s=ledger.elapsed_s,
            causes=dict(ledger.causes),
            gateways=gateways,
            disk_is_full=self._runtime.disk.is_full,
            disk_full_s=self._runtime.disk.seconds,
            peak_ahead_bytes=pipeline.peak_ahead_bytes if pipeline else 0,
        )

    def report(self) -> Report:
        """The gap report so far, from any thread, as :meth:`statistics`."""
        ledger, request, runtime = self._books(), self._request, self._runtime
        chunk_bytes = -(-ledger.useful_bytes // max(1, ledger.chunks))
        return build(
            self.statistics(),
            ledger,
            dataset=request.dataset,
            options=request.options,
            folder_bytes=FOLDER_BYTES,
            lease_bytes=runtime.lease_bytes(chunk_bytes),
            hedged_bytes=self._fetcher.hedged_bytes if self._fetcher else 0,
            calls=self._pipeline.calls if self._pipeline else None,
        )
