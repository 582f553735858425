"""The local store: a folder of verified blocks, found by their multihash.

:class:`~dnc_async.store.blocks.BlockStore` reads. A :class:`~dnc_async.store.transaction.Transaction`, which its ``begin()``
returns, is the only way to write. All calls block: async callers make them in worker threads.
"""

from __future__ import annotations

from .blocks import BlockStore
from .transaction import Transaction

__all__ = ["BlockStore", "Transaction"]
