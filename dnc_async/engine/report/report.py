"""The report: a frozen record of a run that can be saved, compared and rendered."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dnc_async.config.numbers import parse_size, whole_number
from dnc_async.engine.report.page import tables
from dnc_async.engine.report.record import RunRecord
from dnc_async.engine.report.saving import replace_file
from dnc_async.engine.report.text import render
from dnc_async.engine.report.what_if import Scenario, idle_share, scenarios
from dnc_async.engine.report.wire import decode
from dnc_async.errors import ReportError
from dnc_async.system.encoding import encodable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(RunRecord):
    """Where a run's time went, up to the batch that was handed over last.

    The first batch is separate (``first_batch_s``): ``waited_s``, ``causes``, ``gaps`` and ``timeline`` are about the later
    ones, and the causes add up to ``waited_s``. Whatever the consumer did with a batch counts as computing. ``timeline`` has a
    bin per batch, in long runs one for several; its memory is bounded.

    ``fetched_bytes``, ``hedged_bytes`` and the gateways' statistics are those of all streams that share a client's gateways. Of
    the fetched bytes, ``verified_bytes`` are those of verified blocks; the rest was cut off, wrong, or abandoned when another
    gateway was faster. ``useful_bytes`` are the chunks that this stream handed over, without proofs, chunks that were fetched
    and not consumed, and blocks that were received twice. ``peak_leased_bytes`` of the budget is exact; ``peak_disk_bytes`` is
    what the file system reported when it was sampled; ``peak_memory_bytes`` is the peak resident memory of the whole process,
    your model included, and ``None`` if it is not known. ``peak_ahead_bytes`` is the most that was requested before there was
    space for it, which is held in memory if it arrives too early. ``order`` is a checksum of the chunks in the order of
    delivery: equal for runs that delivered the same. ``transform`` is ``None`` if no call of one has ended.
    """

    def __str__(self) -> str:
        """The report as text that standard output can show: in some encodings, as ASCII."""
        return encodable(render(self), getattr(sys.stdout, "encoding", None))

    def _repr_html_(self) -> str:
        return tables(self)

    def what_if(self, *, disk_budget: float | str | None = None, more_gateways: int = 0) -> float | None:
        """The idle share of a perfectly planned run with another budget, or with more gateways like the average of these.

        It is a model with assumptions (:mod:`~dnc_async.engine.report.what_if`): compare it with ``what_if()``, which models
        the run as it was. ``None`` if too little was measured, or nothing was fetched ahead (``prefetch=0``).
        """
        budget = None if disk_budget is None else parse_size(disk_budget, name="disk_budget")
        more = whole_number(more_gateways, name="more_gateways", least=0)
        return idle_share(self, budget_bytes=budget, more_gateways=more)

    def scenarios(self) -> tuple[Scenario, ...]:
        """The model's idle share for the run as it was, and for some variations. Empty if :meth:`what_if` is ``None``."""
        return scenarios(self)

    def plot(self) -> Figure:
        """A picture of the gaps: each by cause over time, and their sum. Needs matplotlib (the extra ``plot``)."""
        from dnc_async.engine.report.picture import draw  # noqa: PLC0415 - an extra

        return draw(self)

    def to_dict(self) -> dict[str, Any]:
        """All values, as JSON types."""
        wire = asdict(self)
        return {
            "report_version": _VERSION,
            **wire,
            "idle_share": self.idle_share,
            "computing_share": self.computing_share,
        }

    @classmethod
    def from_dict(cls, wire: object, *, name: str = "report") -> Self:
        """The report from :meth:`to_dict`. Raises :class:`~dnc_async.errors.ReportError`, in which ``name`` names it."""
        version = wire.get("report_version") if isinstance(wire, dict) else None
        if version != _VERSION:
            raise ReportError(f"{name}: expected a gap report with report_version {_VERSION}, got {version!r}")
        return decode(cls, json.loads(json.dumps(wire)), name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON. An existing file is replaced when the new one is complete.

        Raises :class:`~dnc_async.errors.ReportError`.
        """
        replace_file(path, (json.dumps(self.to_dict()) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote. Raises :class:`~dnc_async.errors.ReportError`."""
        name = os.fspath(path)
        try:
            wire = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ReportError(f"{name}: cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise ReportError(f"{name}: is not JSON; expected what 'dnc stream --report FILE' writes") from error
        return cls.from_dict(wire, name=name)
