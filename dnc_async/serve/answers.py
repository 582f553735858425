"""The headers of every answer, and the small answers that carry no data."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from dnc_async.ipld.cid import Cid

from .ask import CAR, RAW, Ask, RefusalError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOR_EVER = "public, max-age=29030400, immutable"


def etag(ask: Ask) -> str:
    """Name the representation: strong for a block, weak for a CAR, whose blocks may be missing here today."""
    if ask.format == "raw":
        return f'"{ask.root}.raw"'
    details = hashlib.sha256(f"{ask.encoded_path}?{ask.query}".encode()).hexdigest()[:16]
    return f'W/"{ask.scope}-{ask.root}.car.{details}"'


def headers(ask: Ask, roots: Sequence[Cid]) -> dict[str, str]:
    """Give the headers of an answer with data; ``roots`` are the CIDs at each segment of the path."""
    found = {
        "Content-Type": RAW if ask.format == "raw" else f"{CAR}; version=1; order=dfs; dups={'y' if ask.dups else 'n'}",
        "Content-Disposition": _disposition(ask, roots[-1]),
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes" if ask.format == "raw" else "none",
        "Etag": etag(ask),
        "Cache-Control": _FOR_EVER,
        "Vary": "Accept",
        "X-Ipfs-Roots": ",".join(str(root) for root in roots),
        "Ipfs-Uri": f"ipfs://{Cid(1, ask.root.codec, ask.root.multihash)}{ask.encoded_path}",
    }
    if ask.content_path.isascii() and ask.content_path.isprintable():
        found["X-Ipfs-Path"] = ask.content_path
    if ask.negotiated:
        found["Content-Location"] = f"/ipfs/{ask.root}{ask.encoded_path}?{ask.query}"
    return found


def not_modified(ask: Ask) -> web.Response:
    """Say that the client has this already."""
    return web.Response(status=304, headers={"Etag": etag(ask), "Cache-Control": _FOR_EVER, "Vary": "Accept"})


def refused(refusal: RefusalError) -> web.Response:
    """Say why not, in plain text that no cache keeps."""
    if refusal.status == 412:  # the specification wants neither payload nor headers
        return web.Response(status=412)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **refusal.headers}
    return web.Response(status=refusal.status, text=f"{refusal}\n", headers=headers)


def _disposition(ask: Ask, last: Cid) -> str:
    extension = "bin" if ask.format == "raw" else "car"
    name = ask.filename or f"{last}.{extension}"
    plain = "".join(char if " " <= char <= "~" and char not in '"\\/' else "_" for char in name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
