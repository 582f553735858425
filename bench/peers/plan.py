"""What is measured: the loaders, the scenarios, and the two datasets. Data only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.peers.arm import Shape

LATENCY_S = 0.050
#: Demand over supply: the step and the batch say what is demanded, and the server's rate follows.
LOAD = 0.9

#: 64 batches of 1 MB in 32 shards; a sample has the size of a small picture.
SMALL = Shape(shards=32, shard_samples=128, sample_bytes=15_625, batch_samples=64)
#: 2 GB in shards of 16 MB and batches of 4 MB. The step makes an arm last a minute, which asks 37 MB/s of the server: a quarter
#: of a core. 100 MB/s would take nearly half of one, which on a machine of two the loader misses, and be over in 20 s.
LARGE = Shape(shards=125, shard_samples=256, sample_bytes=62_500, batch_samples=64)
STALLED_SHARDS, STALL_S, FLIPPED_SHARD = (10, 21), 2.0, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """One of those compared. ``stages``: whether it stages on disk, so that a ceiling means something to it.

    ``mirrors``: how often its file is named once more. ``over_gateway``: its server is a trustless gateway, shaped alike.
    """

    name: str
    module: str
    form: str
    workers: tuple[int, ...] = (0,)
    stages: bool = False
    is_ours: bool = False
    mirrors: int = 0
    over_gateway: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One comparison: a ceiling in batches, or none, and what goes wrong at the server."""

    name: str
    ceiling_batches: float | None = None
    shape: Shape = SMALL
    step_s: float = 0.030
    stalls: bool = False
    flip: bool = False
    sweep: bool = False
    target: float | None = None

    @property
    def rate(self) -> float:
        """Bytes per second of the server."""
        return self.shape.batch_bytes / self.step_s / LOAD

    @property
    def ceiling_bytes(self) -> int | None:
        """The ceiling."""
        return None if self.ceiling_batches is None else round(self.ceiling_batches * self.shape.batch_bytes)

    def concerns(self, loader: Loader) -> bool:
        """Whether it would tell anything new of a loader; a peer that stages cannot do with less than two shards."""
        if not self.sweep:
            faulty = self.stalls or self.flip
            return not (loader.over_gateway and faulty) and (loader.mirrors == 0 or faulty)
        fits = loader.is_ours or (self.ceiling_bytes or 0) >= 2 * self.shape.shard_bytes
        return loader.stages and fits and not loader.mirrors


OURS = "dnc_async"
LOADERS = (
    Loader(name=OURS, module="ours", form="car", stages=True, is_ours=True),
    Loader(name="dnc_async, 2 mirrors", module="ours", form="car", stages=True, is_ours=True, mirrors=1),
    Loader(name="dnc_async, gateway", module="ours", form="car", stages=True, is_ours=True, over_gateway=True),
    Loader(name="LitData", module="litdata", form="litdata", workers=(0, 2, 4), stages=True),
    Loader(name="MosaicML Streaming", module="mosaicml", form="mds", workers=(0, 2, 4), stages=True),
    Loader(name="WebDataset", module="webdataset", form="tar", workers=(0, 2, 4)),
    Loader(name="HF datasets", module="hf_datasets", form="parquet", workers=(0, 2, 4)),
    Loader(name="Ray Data", module="ray_data", form="parquet"),
    Loader(name="LanceDB", module="lancedb", form="lance", workers=(0, 2, 4)),
    Loader(name="ipfsspec, window of 4", module="ipfsspec", form="ipfs"),
)
SCENARIOS = (
    Scenario(name="tight", ceiling_batches=4, target=10),
    Scenario(name="none", target=4),
    Scenario(name="stalls", stalls=True),
    Scenario(name="flip", flip=True),
    Scenario(name="large", shape=LARGE, step_s=0.120, ceiling_batches=0.05 * LARGE.batches),
)
SWEEP = tuple(Scenario(name=f"{n} batches", ceiling_batches=n, sweep=True) for n in (0, 1, 2, 8, 16))


def named(names: Iterable[str]) -> list[Scenario]:
    """The scenarios of these names; ``sweep`` is all budgets of the picture."""
    wanted = set(names)
    return [each for each in (*SCENARIOS, *SWEEP) if each.name in wanted or (each.sweep and "sweep" in wanted)]
