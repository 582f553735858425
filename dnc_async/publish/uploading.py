"""``upload()``: publishes a dataset to any target."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from dnc_async.config import PublishSettings, kubo_rpc, store_path
from dnc_async.config.numbers import parse_size
from dnc_async.config.signatures import takes
from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.errors import ArgumentError
from dnc_async.publish.rows import Reading
from dnc_async.publish.target import Target, UploadResult, publish

StrPath = str | os.PathLike[str]
Size = int | float | str


@dataclass(frozen=True)
class UploadCall(ReadOptions):
    """The arguments of an upload.

    batch_size:
        Samples in a batch; without it half a batch has about ``chunk_bytes``.
    chunk_bytes:
        The size of half a batch where ``batch_size`` does not say it; 4 MiB by default.
    samples:
        Whether an iterable yields samples, not blocks of them.
    store:
        The folder of the local store, else ``DNC_STORE``, else in the user's data folder.
    progress:
        Called with the samples and bytes so far after each chunk.
    """

    source: object
    to: str = "local"
    _: KW_ONLY
    batch_size: int | None = None
    chunk_bytes: Size | None = None
    samples: bool = False
    store: StrPath | None = None
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Check the options of reading, too."""
        super().__post_init__()
        if not isinstance(self.samples, bool):
            raise ArgumentError(f"samples: expected True or False, got {self.samples!r}")

    @property
    def chunk_size(self) -> int | None:
        """``chunk_bytes`` in bytes."""
        size = None if self.chunk_bytes is None else parse_size(self.chunk_bytes, name="chunk_bytes")
        if size == 0:
            raise ArgumentError("chunk_bytes: expected at least 1 byte")
        return size


@takes(UploadCall)
async def upload(call: UploadCall) -> UploadResult:
    """Divide a dataset into half-batch chunks and publish it; the same rows give the same CID anywhere.

    What is taken for columns and what for samples does not depend on the values, and the result says it: its ``columns`` have
    name, dtype and shape.

    Parameters
    ----------
    source:
        *Columns*, whose first axis is the samples: a dict of them, a tuple such as ``(X, y)``, an array, a table of pandas,
        polars or Arrow. A column is an array, a series, or a list of values, one a sample.

        *Samples*, stacked, one element a sample: a list, a tuple of dicts or of tuples, and anything else with ``__len__`` and
        ``__getitem__``. Dicts with the same keys become columns of these names, tuples columns without names, arrays and lists
        of one shape one array: ``[[1, 2], [3, 4]]`` are two samples of two numbers, ``([1, 2], [3, 4])`` two columns,
        ``((1, 2), (3, 4))`` and ``[(1, 2), (3, 4)]`` two samples of two fields, ``(["a", "b"], [0, 1])`` a column of text and one
        of numbers. Text, and bytes, are one a sample: ``[["a", "b"], ["c", "d"]]`` is refused. Arrays of unlike shapes are
        refused, but for ``uint8`` of one axis, which is bytes.

        An iterable, or async iterable, of *blocks*: dicts, tuples or arrays of columns, for a dataset larger than memory. It may
        fill the same arrays again. With ``samples=True`` it yields one sample after the other.

        The path of a file or folder, a pattern such as ``"data/*.csv"``, a list of paths (``pathlib.Path``), or ``"-"`` for
        stdin: CSV, JSON Lines, Parquet, Arrow, numpy's files, safetensors, images in folders by class, tar in the WebDataset
        convention, text, MNIST's idx, records. They must not change meanwhile.

        Columns keep their order. Values that would not come back as they are, such as whole numbers beyond 2^53 among floats,
        are refused with their row; ``missing`` says what becomes of missing ones.
    to:
        Where to: ``"local"`` keeps the blocks in the local store, from where ``dnc serve`` serves them;
        ``"kubo=http://127.0.0.1:5001"`` sends them to a Kubo node's RPC and pins them there, ``"kubo"`` to the node of
        ``$IPFS_PATH/api``. A user and password stand in the URL, a token in ``IPFS_API_AUTH`` (``bearer:…``).
    **options:
        Those of :class:`UploadCall` and of :class:`~dnc_async.dataset.formats.options.ReadOptions`.

    Raises
    ------
    ArgumentError, DatasetError, StoreError, UploadError
        Nothing was published.

    """
    return await upload_call(call)


async def upload_call(call: UploadCall, reading: Reading | None = None) -> UploadResult:
    """As :func:`upload`; ``reading`` is called with the bytes that were read of a file, and its size."""
    return await publish(
        call.source,
        _target(call.to, call.store),
        batch_size=call.batch_size,
        chunk_bytes=call.chunk_size,
        samples=call.samples,
        options=call,
        progress=call.progress,
        reading=reading,
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
