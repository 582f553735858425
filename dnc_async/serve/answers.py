"""The headers of every answer, and the small answers that carry no data."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from dnc_async.ipld.cid import Cid

from .content_request import CAR, RAW, ContentRequest, RefusalError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOR_EVER = "public, max-age=29030400, immutable"


def etag(content: ContentRequest) -> str:
    """The ETag: strong for a block, weak for a CAR, because blocks of it may be missing here today."""
    if content.format == "raw":
        return f'"{content.root}.raw"'
    details = hashlib.sha256(f"{content.encoded_path}?{content.query}".encode()).hexdigest()[:16]
    return f'W/"{content.scope}-{content.root}.car.{details}"'


def headers(content: ContentRequest, roots: Sequence[Cid]) -> dict[str, str]:
    """The headers of an answer with data; ``roots`` are the CIDs at the segments of the path."""
    found = {
        "Content-Type": RAW
        if content.format == "raw"
        else f"{CAR}; version=1; order=dfs; dups={'y' if content.dups else 'n'}",
        "Content-Disposition": _disposition(content, roots[-1]),
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes" if content.format == "raw" else "none",
        "Etag": etag(content),
        "Cache-Control": _FOR_EVER,
        "Vary": "Accept",
        "X-Ipfs-Roots": ",".join(str(root) for root in roots),
        "Ipfs-Uri": f"ipfs://{Cid(1, content.root.codec, content.root.multihash)}{content.encoded_path}",
    }
    if content.content_path.isascii() and content.content_path.isprintable():
        found["X-Ipfs-Path"] = content.content_path
    if content.negotiated:
        found["Content-Location"] = f"/ipfs/{content.root}{content.encoded_path}?{content.query}"
    return found


def not_modified(content: ContentRequest) -> web.Response:
    """The answer to a client that has the data already."""
    return web.Response(status=304, headers={"Etag": etag(content), "Cache-Control": _FOR_EVER, "Vary": "Accept"})


def refused(refusal: RefusalError) -> web.Response:
    """The answer to a request that is refused: plain text, not to be cached."""
    if refusal.status == 412:  # the specification wants neither payload nor headers
        return web.Response(status=412)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **refusal.headers}
    return web.Response(status=refusal.status, text=f"{refusal}\n", headers=headers)


def _disposition(content: ContentRequest, last: Cid) -> str:
    extension = "bin" if content.format == "raw" else "car"
    name = content.filename or f"{last}.{extension}"
    plain = "".join(char if " " <= char <= "~" and char not in '"\\/' else "_" for char in name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
