"""Parses what a client requests: a URL and an Accept header give a :class:`ContentRequest`, or a :class:`RefusalError`. PURE.

The rules are those of the trustless gateway specification. The URL has precedence over the Accept header. Only raw blocks and
CARs are served: a request that names no format is refused (400), and one that names another format, too (406).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote_to_bytes

from dnc_async.errors import CidError
from dnc_async.ipld.cid import Cid

from .accept import media_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

RAW = "application/vnd.ipld.raw"
CAR = "application/vnd.ipld.car"
IPNS_RECORD = "application/vnd.ipfs.ipns-record"

Format = Literal["raw", "car"]
Scope = Literal["block", "entity", "all"]

_OTHER_FORMATS = frozenset({"tar", "dag-json", "dag-cbor", "json", "cbor", "html"})
_HINT = "ask for ?format=raw or ?format=car"
_ENTITY_BYTES = re.compile(r"(-?[0-9]{1,19}):(\*|-?[0-9]{1,19})")
_LONGEST_PATH = 1024  # segments: a path is walked block by block before the answer begins


class RefusalError(Exception):
    """A refusal: the HTTP status, and a sentence for the client. Not raised outside ``serve``."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class EntityBytes:
    """``entity-bytes=first:last``, inclusive. Negative numbers count from the end; ``last`` is ``None`` for ``*``."""

    first: int
    last: int | None

    @classmethod
    def parse(cls, text: str) -> EntityBytes:
        """Read ``from:to``; raises :class:`RefusalError` (400) for anything else."""
        match = _ENTITY_BYTES.fullmatch(text)
        if match is None:
            raise RefusalError(400, f"entity-bytes={text!r} is not FROM:TO; numbers may be negative, TO may be *")
        return cls(int(match[1]), None if match[2] == "*" else int(match[2]))

    def resolve(self, size_bytes: int) -> tuple[int, int]:
        """The half-open range of an entity of ``size_bytes``; empty if nothing is between the two ends.

        Raises :class:`RefusalError` (400) if the range is outside of an entity that is not empty.
        """
        start = self.first if self.first >= 0 else max(0, size_bytes + self.first)
        last = size_bytes - 1 if self.last is None else self.last
        stop = min(size_bytes, (last if last >= 0 else size_bytes + last) + 1)
        if size_bytes and (start >= size_bytes or stop <= 0):
            raise RefusalError(400, f"entity-bytes={self} lies outside of the entity's {size_bytes} bytes")
        return start, max(start, stop)

    def __str__(self) -> str:
        return f"{self.first}:{'*' if self.last is None else self.last}"


@dataclass(frozen=True)
class ContentRequest:
    """A request that can be answered: which content, and in which form."""

    root: Cid
    segments: tuple[str, ...]
    trailing_slash: bool
    format: Format
    scope: Scope = "all"
    entity_bytes: EntityBytes | None = None
    dups: bool = False
    filename: str | None = None
    negotiated: bool = False
    """Whether the Accept header decided something that the URL leaves open; caches then want a Content-Location."""

    @property
    def content_path(self) -> str:
        """The decoded path, as X-Ipfs-Path has it."""
        slash = "/" if self.trailing_slash else ""
        return "/".join(["/ipfs", str(self.root), *self.segments]) + slash

    @property
    def encoded_path(self) -> str:
        """The path below the root, with all bytes except unreserved ones percent-encoded."""
        slash = "/" if self.trailing_slash else ""
        return "".join(f"/{quote(segment, safe='', errors='surrogateescape')}" for segment in self.segments) + slash

    @property
    def query(self) -> str:
        """The query string of the same request without an Accept header."""
        words = [f"format={self.format}"]
        if self.format == "car":
            words.append(f"dag-scope={self.scope}")
            if self.entity_bytes:
                words.append(f"entity-bytes={self.entity_bytes}")
            words += ["car-version=1", "car-order=dfs", f"car-dups={'y' if self.dups else 'n'}"]
        return "&".join(words)


def parse_request(raw_path: str, query: Mapping[str, str], accept: str | None) -> ContentRequest:
    """Parse a request; ``raw_path`` is still percent-encoded. Raises :class:`RefusalError`."""
    root, segments, trailing_slash = parse_path(raw_path)
    form, parameters = _choose_format(query, accept)
    if form == "raw":
        if segments:
            raise RefusalError(400, "a raw block has no path after its CID; ask for ?format=car to follow a path")
        return ContentRequest(
            root, segments, trailing_slash, form, filename=query.get("filename"), negotiated="format" not in query
        )
    dups = _choose_variant(query, parameters)
    return ContentRequest(
        root=root,
        segments=segments,
        trailing_slash=trailing_slash,
        format=form,
        scope=_parse_scope(query),
        entity_bytes=EntityBytes.parse(query["entity-bytes"]) if "entity-bytes" in query else None,
        dups=dups,
        filename=query.get("filename"),
        negotiated="format" not in query or bool(parameters.keys() - _named_in_url(query)),
    )


def parse_path(raw_path: str) -> tuple[Cid, tuple[str, ...], bool]:
    """Split ``/ipfs/{cid}[/path]``. It is decoded once: an encoded slash separates segments, and dot segments are resolved."""
    path = unquote_to_bytes(raw_path.partition("?")[0]).decode("utf-8", "surrogateescape")  # names may be any bytes
    _, _, rest = path.partition("/ipfs/")
    text, _, below = rest.partition("/")
    try:
        root = Cid.parse(text, foreign=True)
    except CidError as error:
        raise RefusalError(400, f"{text[:120]!r} is not a CID that this gateway reads: {error}") from error
    if root.inline is not None and root.problem is not None:  # by the specification
        raise RefusalError(400, f"{text[:120]!r} is {root.problem}")
    segments: list[str] = []
    for segment in below.split("/"):
        if segment == "..":
            if not segments:
                raise RefusalError(400, "the path leads above its root")
            segments.pop()
        elif segment not in {"", "."}:
            segments.append(segment)
    if len(segments) > _LONGEST_PATH:
        raise RefusalError(400, f"the path has more than {_LONGEST_PATH} segments")
    return root, tuple(segments), path.endswith("/") and "/" in rest


def _choose_format(query: Mapping[str, str], accept: str | None) -> tuple[Format, dict[str, str]]:
    """Choose the format, and the CAR parameters that the Accept header gives for it."""
    ranges = media_ranges(accept or "")
    cars = [parameters for media, parameters in ranges if media == CAR]
    if "format" in query:
        return _format_of_url(query["format"]), next(iter(cars), {})
    for media, parameters in ranges:
        if media == RAW:
            return "raw", {}
        if media == CAR and _variant_problem(parameters) is None:
            return "car", parameters
    if cars:
        raise RefusalError(406, f"no such CAR: {_variant_problem(cars[0])}")
    if any(media == IPNS_RECORD for media, _ in ranges):
        raise _no_ipns_record()
    if all("*" in media for media, _ in ranges):
        raise RefusalError(400, f"this gateway serves verifiable responses only: {_HINT}")
    raise RefusalError(406, f"this gateway does not serve {accept!r}: {_HINT}")


def _format_of_url(word: str) -> Format:
    if word == "raw":
        return "raw"
    if word == "car":
        return "car"
    if word == "ipns-record":
        raise _no_ipns_record()
    status = 406 if word in _OTHER_FORMATS else 400
    raise RefusalError(status, f"this gateway does not serve format={word!r}: {_HINT}")


def _no_ipns_record() -> RefusalError:
    return RefusalError(400, "an IPNS record belongs to an /ipns/ name, and this gateway keeps none")


def _named_in_url(query: Mapping[str, str]) -> set[str]:
    return {name.removeprefix("car-") for name in query if name.startswith("car-")}


def _choose_variant(query: Mapping[str, str], parameters: Mapping[str, str]) -> bool:
    """Choose ``dups``, and check version and order, of which there is one each. The URL has precedence."""
    asked = {name: query.get(f"car-{name}", parameters.get(name, "")) for name in ("version", "order", "dups")}
    problem = _variant_problem(asked)
    if problem:
        raise RefusalError(400, f"no such CAR: {problem}")
    return asked["dups"] == "y"


def _variant_problem(asked: Mapping[str, str]) -> str | None:
    for name, known in (("version", ("", "1")), ("order", ("", "dfs", "unk")), ("dups", ("", "y", "n"))):
        if asked.get(name, "") not in known:
            return f"{name}={asked[name]} is not served, {name}={known[1]} is"
    return None


def _parse_scope(query: Mapping[str, str]) -> Scope:
    word = query.get("dag-scope", "all")
    if word not in {"block", "entity", "all"}:
        raise RefusalError(400, f"dag-scope={word!r} is not one of block, entity, all")
    if "entity-bytes" in query or word == "entity":
        return "entity"
    return "block" if word == "block" else "all"
