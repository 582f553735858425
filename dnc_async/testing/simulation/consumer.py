"""Scripted consumers: they have any pace, break off, fail, are cancelled, lose patience, close, or come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from dnc_async.engine.stream import BatchStream
from dnc_async.testing.script import count_word, parse_script, switch_word, time_word, write_script

from .dataset import Published


class ConsumerError(Exception):
    """A step that failed by its script."""


@dataclass(frozen=True, kw_only=True)
class ConsumerScript:
    """What a consumer does. The default takes every batch, one after the other, and does nothing with it."""

    step_s: float = 0.0
    """``step=100ms``: how long each batch is worked on."""
    starts_s: float = 0.0
    """``starts=1s``: when it opens its stream."""
    leaves: int | None = None
    """``break=3``: after so many batches it leaves the loop."""
    fails: int | None = None
    """``raise=3``: the step of that batch fails."""
    cancelled: int | None = None
    """``cancel=3``: its task is cancelled a moment after it has got so many batches, in a step or in a wait."""
    cancel_s: float = 0.05
    """``moment=50ms``: how long that moment is."""
    closes: int | None = None
    """``close=3``: after so many batches it closes the stream."""
    patience_s: float | None = None
    """``patience=20ms``: each wait for a batch is given up after so long, and begun again."""
    back_s: float | None = None
    """``back=5s``: after it has left, or was cancelled, it comes back to the same stream, so much later."""
    epochs: int = 1
    """``epochs=2``: passes over the dataset."""
    prefetch: int | None = None
    """``prefetch=1``: batches that are fetched ahead at most."""
    drop_last: bool = False
    """``drop-last``: without a short last batch."""
    transform_s: float | None = None
    """``transform=30ms``: how long the consumer's own function takes for each batch, in a worker thread."""
    workers: int = 0
    """``workers=2``: how many such threads there are."""
    reads: int | None = None
    """``reads=3``: it has no stream, but reads so many ranges of a file of the dataset (``cat``)."""

    @classmethod
    def parse(cls, text: str) -> ConsumerScript:
        """Parse a script such as ``"step=100ms,break=3,back=2s"``. The error names the wrong word."""
        return cls(**parse_script(text, _WORDS, "word"))

    def __str__(self) -> str:
        return write_script(self, _WORDS)


_WORDS = {
    "step": time_word("step_s", "100ms"),
    "starts": time_word("starts_s", "1s"),
    "break": count_word("leaves", "3"),
    "raise": count_word("fails", "3"),
    "cancel": count_word("cancelled", "3"),
    "moment": time_word("cancel_s", "50ms"),
    "close": count_word("closes", "3"),
    "patience": time_word("patience_s", "20ms"),
    "back": time_word("back_s", "5s"),
    "epochs": count_word("epochs", "2"),
    "prefetch": count_word("prefetch", "1"),
    "drop-last": switch_word("drop_last"),
    "transform": time_word("transform_s", "30ms"),
    "workers": count_word("workers", "2"),
    "reads": count_word("reads", "3"),
}


_WAYS_TO_LEAVE = {"left", "cancelled", "failed", "closed"}


class SimulatedConsumer:
    """One consumer of one stream. ``error`` is what the stream raised; ``problems`` are broken promises."""

    def __init__(
        self,
        number: int,
        script: ConsumerScript,
        data: Published,
        *,
        batch_size: int,
        open_stream: Callable[[ConsumerScript], BatchStream],
        cat: Callable[[str, int, int], Awaitable[bytes]],
        clock: Callable[[], float],
        note: Callable[..., None],
    ) -> None:
        self.number = number
        self.script = script
        self._data = data
        self._batch_size = batch_size
        self._open = open_stream
        self._cat = cat
        self._clock = clock
        self._note = note
        self.batches = 0
        self.waited_s = 0.0
        self.error: Exception | None = None
        self.is_complete = False
        self.problems: list[str] = []
        #: How often it left its stream before the end, by the way in which it did.
        self.faults: Counter[str] = Counter()
        self._task: asyncio.Task[str] | None = None

    def __repr__(self) -> str:
        return f"<SimulatedConsumer {self.number} {str(self.script) or 'patient'}, {self.batches} batches>"

    @property
    def expected_batches(self) -> int:
        """The number of batches in all epochs."""
        samples, size = len(self._data.numbers), self._batch_size
        return self.script.epochs * (samples // size if self.script.drop_last else -(-samples // size))

    async def run(self) -> None:
        """Follow the script. What the stream raises is stored, and nothing is raised."""
        await asyncio.sleep(self.script.starts_s)
        if self.script.reads is not None:
            await self._read(self.script.reads)
        else:
            await self._stream()

    async def _stream(self) -> None:
        stream = self._open(self.script)
        left = ""
        for attempt in range(2):
            self._task = asyncio.get_running_loop().create_task(self._consume(stream), name=f"consumer {self.number}")
            try:
                left = await self._task
            except asyncio.CancelledError:
                left = "cancelled"
            except ConsumerError:
                left = "failed"
            except Exception as error:  # noqa: BLE001 - whatever the stream raises is judged at the end
                left, self.error = "error", error
            self._task = None
            self._note("left", self.number, left, self.batches)
            self.faults.update({left} & _WAYS_TO_LEAVE)
            if left == "cancelled" and self.batches == self.expected_batches:
                left = "complete"  # cancelled when only the end was left
            if attempt or self.script.back_s is None or left not in ("left", "cancelled", "failed"):
                break
            await asyncio.sleep(self.script.back_s)
        if left == "closed":
            await stream.aclose()
        if left == "complete":
            self.is_complete = True
            if self.batches != self.expected_batches:
                self.problems.append(f"the stream ended after {self.batches} of {self.expected_batches} batches")

    async def _read(self, ranges: int) -> None:
        path, whole = self._data.first_chunk()
        try:
            for number in range(ranges):
                start = number * len(whole) // (ranges + 1)
                end = start + len(whole) // 2
                if await self._cat(path, start, end) != whole[start:end]:
                    self.problems.append(f"the bytes {start} to {end} of {path} are not what was published")
                self._note("read", self.number, start, end)
        except Exception as error:  # noqa: BLE001 - judged at the end
            self.error = error
        self._note("left", self.number, "read", ranges)

    async def _consume(self, stream: BatchStream) -> str:
        iterator = aiter(stream)
        del stream
        while True:
            began = self._clock()
            try:
                batch = await self._next(iterator)
            except StopAsyncIteration:
                return "complete"
            self.waited_s += self._clock() - began
            self._take(batch)
            del batch
            if self.batches == self.script.cancelled and self._task is not None:
                self._cancel_soon(self._task)
            if self.batches == self.script.fails:
                raise ConsumerError
            if self.script.step_s:
                await asyncio.sleep(self.script.step_s)
            if self.batches == self.script.leaves:
                return "left"
            if self.batches == self.script.closes:
                return "closed"

    def cancel(self) -> None:
        """Cancel it, if it is using its stream now."""
        if self._task is not None:
            self._cancel(self._task)

    def _cancel_soon(self, task: asyncio.Task[str]) -> None:
        later = asyncio.get_running_loop().call_later(self.script.cancel_s, self._cancel, task)
        task.add_done_callback(lambda _: later.cancel())

    def _cancel(self, task: asyncio.Task[str]) -> None:
        if not task.done():
            self._note("cancel", self.number)
            task.cancel()

    async def _next(self, iterator: Any) -> Any:  # noqa: ANN401 - a stream, and its batch
        while True:
            if self.script.patience_s is None:
                return await anext(iterator)
            try:
                return await asyncio.wait_for(anext(iterator), self.script.patience_s)
            except TimeoutError:
                continue

    def _take(self, batch: dict[str, Any]) -> None:
        per_epoch = self.expected_batches // self.script.epochs
        first = self.batches % per_epoch * self._batch_size if per_epoch else 0
        problem = self._data.check(batch, first)
        if problem or self.batches >= self.expected_batches:
            self.problems.append(f"batch {self.batches}: {problem or 'more than the dataset has'}")
        self._note("batch", self.number, self.batches, len(batch["y"]))
        self.batches += 1


def same(batch: Any, loop_sleeps: Callable[[], None]) -> Any:  # noqa: ANN401 - a batch
    """A transform that changes nothing, and takes its time."""
    loop_sleeps()
    return batch


def transform_of(script: ConsumerScript, busy: Callable[[float], None]) -> Callable[[Any], Any] | None:
    """The transform of a consumer's stream, if it has one; ``busy`` is told how long a call takes."""
    if script.transform_s is None:
        return None
    return partial(same, loop_sleeps=partial(busy, script.transform_s))
