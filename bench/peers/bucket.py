"""A folder as a bucket that can be listed: for loaders that speak S3 and nothing plainer.

Reading an object is the plain GET with a range that everybody uses; a listing is all that S3 adds to it for a reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

from aiohttp import web


def is_listing(request: web.Request) -> bool:
    """Whether it asks for what the objects' names are (``ListObjectsV2``)."""
    return request.method == "GET" and request.query.get("list-type") == "2"


def listing(bucket: Path, request: web.Request) -> web.Response:
    """Every object below a prefix in one answer; with a delimiter, the ones further down by their folders only."""
    prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
    objects, folders = [], set()
    for key, path in _objects(bucket, prefix):
        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        if found:
            folders.add(f"{prefix}{head}{delimiter}")
        else:
            objects.append(_object(key, path))
    folded = [f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)]
    count = f"<KeyCount>{len(objects) + len(folded)}</KeyCount><IsTruncated>false</IsTruncated>"
    body = f"<ListBucketResult><Name>{escape(bucket.name)}</Name>{count}{''.join(objects + folded)}</ListBucketResult>"
    return web.Response(text=body, content_type="application/xml")


def entity_tag(path: Path) -> str:
    """What stays the same for as long as a file does."""
    status = path.stat()
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'


def _objects(bucket: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(bucket.rglob("*")):
        key = path.relative_to(bucket).as_posix()
        if key.startswith(prefix) and path.is_file():
            yield key, path


def _object(key: str, path: Path) -> str:
    changed = (
        datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>{changed}</LastModified>"
        f"<ETag>{escape(entity_tag(path))}</ETag><Size>{path.stat().st_size}</Size></Contents>"
    )
