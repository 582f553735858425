"""Tokens: windows of one length over a file of them, and documents packed to samples of one length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.schema import Array
from dnc_async.errors import DatasetError

_BLOCK_TOKENS = 2**20


def windows(
    blocks: Iterable[Array], options: ReadOptions, source: Source, file: SourceFile
) -> Iterator[dict[str, Array]]:
    """Yield windows of ``length`` tokens that begin ``stride`` tokens apart; what is left at the end is told."""
    length = options.length or 1
    stride = options.stride or length
    kept: Array | None = None
    covered = 0  # tokens at the beginning of what is kept that are in a window already
    skip = 0  # tokens between two windows that are further apart than they are long
    for block in blocks:
        if block.ndim != 1 or block.dtype.kind not in "iu":
            raise DatasetError(
                f"{file.path}: windows are cut from whole numbers on one axis, got {block.dtype}{block.shape[1:]}"
            )
        fresh, skip = block[skip:], max(0, skip - len(block))
        kept = fresh if kept is None else np.concatenate([kept, fresh])
        if len(kept) >= length:
            found = np.lib.stride_tricks.sliding_window_view(kept, length)[::stride]
            yield {"tokens": found}
            used = len(found) * stride
            skip += max(0, used - len(kept))
            kept, covered = kept[used:], max(0, length - stride)
    left = 0 if kept is None else len(kept) - covered
    if left:
        source.notes.append(f"{file.path.name}: the last {left} tokens fill no window of {length}, and are left out")


@dataclass(frozen=True, slots=True)
class TokenLists:
    """Lists of whole numbers of any length, end to end; list ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""

    values: Array
    offsets: Array

    def __iter__(self) -> Iterator[Array]:
        return (self.values[start:end] for start, end in pairwise(self.offsets.tolist()))


class Packer:
    """Packs documents, one after the other, to samples of one length; ``document`` says of each token which one it is of.

    The last sample is filled with tokens 0 of the document -1.
    """

    def __init__(self, length: int, where: str) -> None:
        self._length = length
        self._where = where
        self._tokens: list[Array] = []
        self._documents: list[Array] = []
        self._count = 0
        self._held = 0
        self._dtype: np.dtype[Any] | None = None

    def add(self, document: Any) -> dict[str, Array] | None:  # noqa: ANN401 - what the caller has
        """Add a document; returns samples when there are many."""
        tokens = np.asarray(document)
        if tokens.ndim != 1 or (tokens.dtype.kind not in "iu" and len(tokens)):
            raise DatasetError(
                f"{self._where}, document {self._count}: no whole numbers on one axis: {tokens.dtype}{list(tokens.shape)}"
            )
        if len(tokens):
            if self._dtype is not None and tokens.dtype != self._dtype:
                raise DatasetError(f"{self._where}, document {self._count}: {tokens.dtype}, and {self._dtype} before")
            self._dtype = tokens.dtype
            self._tokens.append(tokens.copy())
            self._documents.append(np.full(len(tokens), self._count, dtype=np.int64))
        self._count += 1
        self._held += len(tokens)
        return self._whole() if self._held >= max(_BLOCK_TOKENS, self._length) else None

    def _whole(self) -> dict[str, Array]:
        tokens, documents = np.concatenate(self._tokens), np.concatenate(self._documents)
        whole = len(tokens) - len(tokens) % self._length
        self._tokens, self._documents, self._held = [tokens[whole:]], [documents[whole:]], len(tokens) - whole
        return {
            "tokens": tokens[:whole].reshape(-1, self._length),
            "document": documents[:whole].reshape(-1, self._length),
        }

    def rest(self) -> dict[str, Array] | None:
        """The last samples; ``None`` if there are none."""
        if not self._held or self._dtype is None:
            return None
        missing = -self._held % self._length
        self._tokens.append(np.zeros(missing, dtype=self._dtype))
        self._documents.append(np.full(missing, -1, dtype=np.int64))
        return self._whole()
