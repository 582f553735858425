"""Documents of tokens, packed to samples of one length: ``upload(pack=LENGTH)``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from dnc_async.dataset.formats.tokens import Packer, TokenLists
from dnc_async.dataset.ragged import Ragged
from dnc_async.errors import DatasetError

_TOKENS = "tokens"
_TURN_DOCUMENTS = 1000


def packed(documents: Iterable[object], length: int, where: str) -> Iterator[object | None]:
    """Yield blocks of samples; ``None`` now and then."""
    packer = Packer(length, where)
    for number, document in enumerate(documents):
        block = packer.add(_tokens(document, where))
        if block is not None or number % _TURN_DOCUMENTS == 0:
            yield block
    yield packer.rest()


def documents_of(blocks: Iterable[Any], where: str) -> Iterator[object]:
    """The documents of a file's blocks: one column of lists, or that which is named ``tokens``."""
    for block in blocks:
        if block is None:
            continue
        if not isinstance(block, dict):
            yield from block  # an array, whose rows are documents
            continue
        lists = [
            name for name, column in block.items() if isinstance(column, TokenLists) or getattr(column, "ndim", 1) == 2
        ]
        name = _TOKENS if _TOKENS in block else lists[0] if len(lists) == 1 else None
        if name is None or name not in lists:
            raise DatasetError(
                f"{where}: expected a column {_TOKENS!r} of lists of whole numbers, found {', '.join(block)}"
            )
        yield from block[name]


def _tokens(document: Any, where: str) -> Any:  # noqa: ANN401 - what the caller has
    if isinstance(document, Mapping):
        if _TOKENS not in document:
            raise DatasetError(f"{where}: a document without {_TOKENS!r}, with {', '.join(map(repr, document))}")
        return document[_TOKENS]
    if isinstance(document, (str, bytes, Ragged)):
        raise DatasetError(f"{where}: a document is a list of tokens, not {type(document).__name__}; tokenize it first")
    return np.asarray(document)
