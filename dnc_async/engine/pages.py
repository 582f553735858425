"""Fetches the pages of a manifest as the plan reaches them, each while the plan is on the one before it."""

from __future__ import annotations

from collections import OrderedDict

from anyio.abc import TaskGroup

from dnc_async.condition import Condition
from dnc_async.dataset.limits import MAX_MANIFEST_BYTES
from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.page import ChunkEntry, decode_page
from dnc_async.engine.files.paths import URGENT
from dnc_async.engine.proofs import read_file
from dnc_async.errors import DagError, DncError, ManifestError
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.want import Priority

#: How many pages are kept: the current one and the next.
_PAGES_KEPT = 2


class PageReader:
    """The chunks of a manifest by index."""

    def __init__(self, manifest: Manifest, group: FetchGroup) -> None:
        self._manifest = manifest
        self._group = group
        self._pages: OrderedDict[int, list[ChunkEntry]] = OrderedDict()
        #: The page that was used last, and the index of its first chunk.
        self._current: tuple[list[ChunkEntry], int] = [], 0
        #: The page that was fetched ahead last, or is being fetched.
        self._ahead, self._is_loading = -1, False
        self._loaded = Condition()

    def __repr__(self) -> str:
        return f"<PageReader with pages {list(self._pages)} of {len(self._manifest.pages) + 1}>"

    async def entry(self, index: int, tasks: TaskGroup, priority: Priority) -> ChunkEntry:
        """The entry of a chunk. In the middle of a page, the next one is fetched in ``tasks``, with this priority."""
        page, first = self._current
        place = index - first
        if 0 <= 2 * place < len(page):  # in the first half of the page that was used last
            return page[place]
        number, place = self._manifest.page_of(index)
        if number not in self._pages and number == self._ahead:
            await self._loaded.until(lambda: not self._is_loading)
        if number not in self._pages:  # it was not fetched ahead, or that failed: fetch it now, and raise the error
            await self._load(number, URGENT)
        page, following = self._pages[number], number + 1
        self._current = page, index - place
        is_new = following not in self._pages and self._ahead != following <= len(self._manifest.pages)
        if 2 * place >= len(page) and is_new:
            self._ahead, self._is_loading = following, True
            tasks.start_soon(self._load_ahead, following, priority)
        return page[place]

    async def _load_ahead(self, number: int, priority: Priority) -> None:
        try:
            await self._load(number, priority)
        except DncError:
            pass  # ignored, because the plan may never get there
        finally:
            self._is_loading = False
            self._loaded.notify_all()

    async def _load(self, number: int, priority: Priority) -> None:
        directories = self._manifest.first_page
        if number:
            cid = self._manifest.pages[number - 1]
            try:
                data = await read_file(self._group, cid, limit_bytes=MAX_MANIFEST_BYTES, priority=priority)
            except DagError as error:
                raise ManifestError(f"page {number} of the manifest ({cid}) cannot be read: {error}") from error
            directories = decode_page(data)
        self._pages[number] = list(self._manifest.entries(number, directories))
        if len(self._pages) > _PAGES_KEPT:
            self._pages.popitem(last=False)
