"""How a source is read: the options that ``upload`` has for it, the same for every format."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

import numpy as np

from dnc_async.errors import ArgumentError

#: What becomes of missing values that are not floats or times.
MASK, ERROR, FILL = "mask", "error", "fill"
#: The name of a column's mask: False where the value is missing.
VALID_SUFFIX = "__valid"


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a source is read. Raises :class:`~dnc_async.errors.ArgumentError` for invalid options.

    format:
        The name of a file's format, where its name and content do not say it: ``"csv"``, ``"jsonl"``, ``"parquet"``, …
    header:
        Whether a CSV file's first line names its columns; without it, a first line that looks like data is refused.
    encoding:
        The encoding of a CSV or text file that is not UTF-8, such as ``"latin-1"``. UTF-16 with its mark needs none.
    missing:
        Missing floats are NaN, missing times NaT. For others ``"mask"`` adds a column ``NAME__valid``, False where the value of
        column ``NAME`` is missing (there it is 0, False or empty); ``"fill"`` only fills in, and ``"error"`` refuses.
    decimals:
        ``"text"`` keeps decimals as text with all their digits, ``"float"`` converts them.
    length, stride:
        Cut a file of tokens (``.npy`` of one axis, ``.bin`` with ``dtype``) into windows of ``length`` tokens, column
        ``tokens``, that begin ``stride`` tokens apart, by default ``length``.
    pack:
        Pack documents (samples of tokens of any length, or lines of JSON with ``tokens``) to samples of this many tokens,
        columns ``tokens`` and ``document`` (which document each token is of).
    dtype:
        The numpy dtype of the records of a file without a header, such as ``"<u2"`` for tokens, or ``"u1, (3, 32, 32)u1"``.
    shuffle:
        A seed: the samples are published in an order that follows from it, so that data sorted by label trains well in any
        order. Folders of images by class are shuffled by default (seed 0); ``False`` keeps their order. What can be read once,
        such as a generator, cannot be shuffled.
    """

    format: str | None = None
    header: bool | None = None
    encoding: str | None = None
    missing: str = MASK
    decimals: str = "text"
    length: int | None = None
    stride: int | None = None
    pack: int | None = None
    dtype: str | None = None
    shuffle: int | bool | None = None

    def __post_init__(self) -> None:
        """Raise :class:`~dnc_async.errors.ArgumentError`, which names the option."""
        _check_words("missing", self.missing, (MASK, ERROR, FILL))
        _check_words("decimals", self.decimals, ("text", "float"))
        if self.header not in (None, True, False):
            raise ArgumentError(f"header: expected True, False or None, got {self.header!r}")
        if self.shuffle is True or not (self.shuffle is None or isinstance(self.shuffle, (int, np.integer))):
            raise ArgumentError(f"shuffle: expected a seed (a whole number), False or None, got {self.shuffle!r}")
        for name in ("length", "stride", "pack"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ArgumentError(f"{name}: expected a whole number of at least 1, got {value!r}")
        if self.stride is not None and self.length is None:
            raise ArgumentError("stride: says how far apart windows begin, so length= has to be given, too")
        if self.length is not None and self.pack is not None:
            raise ArgumentError("length: cuts a file into windows, and pack= packs documents; give one of them")
        if self.encoding is not None:
            _check_encoding(self.encoding)


def _check_words(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        *most, last = map(repr, words)
        raise ArgumentError(f"{name}: expected {', '.join(most)} or {last}, got {value!r}")


def _check_encoding(encoding: object) -> None:
    try:
        known = isinstance(encoding, str) and bool(codecs.lookup(encoding)._is_text_encoding)  # noqa: SLF001 - there is no public name
    except LookupError:
        known = False
    if not known:
        raise ArgumentError(
            f"encoding: {encoding!r} is no text encoding that Python knows; for example 'latin-1', 'cp1252'"
        )
