"""Limits of a dataset's description, used by writer and reader alike, so that everything that is published can be read. PURE.

A reader cannot trust a description: each limit bounds how much memory is allocated for one before its data has arrived.
"""

from __future__ import annotations

MAX_COLUMNS = 4096
#: Axes of one sample; numpy allows 64, of which a batch takes one more.
MAX_DIMENSIONS = 32
#: A column's name in UTF-8; it stands in every chunk's header.
MAX_NAME_BYTES = 4096
MAX_SAMPLE_BYTES = 2**40
#: Samples, samples in a batch, and bytes of all chunks.
MAX_COUNT = 2**48
#: A column of a batch: numpy computes its extent in a signed number of 64 bits, also where an axis of length 0 leaves nothing.
MAX_EXTENT_BYTES = 2**63 - 1
#: No chunk may be larger: its size is reserved in memory and on disk before a byte of it was seen.
MAX_CHUNK_BYTES = 2**32
#: Of the file ``manifest``, and of a page's.
MAX_MANIFEST_BYTES = 2**26
