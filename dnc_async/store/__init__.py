"""The local store: a folder of verified blocks, found by their multihash.

:class:`~dnc_async.store.blocks.BlockStore` reads; a :class:`~dnc_async.store.transaction.Transaction`, which its
``begin()`` gives, is the only way to write. All of it is synchronous: async callers put it in worker threads.
"""

from __future__ import annotations

from .blocks import BlockStore
from .transaction import Transaction

__all__ = ["BlockStore", "Transaction"]
