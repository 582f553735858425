"""Parses the HTTP headers that contain lists: Accept, If-None-Match, Range, Cache-Control. PURE.

None of them can make a request fail: a header that cannot be parsed is ignored, as RFC 9110 demands.
"""

from __future__ import annotations

import re

_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,19})\s*-\s*([0-9]{0,19})\s*", re.IGNORECASE)


class UnsatisfiableError(Exception):
    """A byte range that contains no byte of the data: the answer is 416."""


def media_ranges(accept: str) -> list[tuple[str, dict[str, str]]]:
    """The media types of an Accept header with their parameters, the preferred ones first, without refused ones."""
    found: list[tuple[float, str, dict[str, str]]] = []
    for word in accept.split(","):
        media, *pairs = (part.strip() for part in word.split(";"))
        if not media:
            continue
        parameters = {}
        for pair in pairs:
            name, _, value = pair.partition("=")
            parameters[name.strip().lower()] = value.strip().strip('"')
        weight = _weight(parameters.pop("q", "1"))
        if weight > 0:
            found.append((weight, media.lower(), parameters))
    found.sort(key=lambda entry: -entry[0])
    return [(media, parameters) for _, media, parameters in found]


def etag_matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has this representation already. Weak comparison, as If-None-Match demands."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    opaque = etag.removeprefix("W/")
    return opaque in re.findall(r'"[^"]*"', if_none_match)


def only_if_cached(cache_control: str | None) -> bool:
    """Whether the client wants an answer only if the gateway has the data itself."""
    words = (cache_control or "").lower().split(",")
    return any(word.strip() == "only-if-cached" for word in words)


def byte_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """The half-open range of ``size_bytes`` that a Range header requests; ``None`` for all of it.

    Several ranges, other units and malformed headers mean all of it. Raises :class:`UnsatisfiableError`.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:
        length = int(match[2])
        start, stop = max(0, size_bytes - length), size_bytes
    else:
        start = int(match[1])
        stop = min(size_bytes, int(match[2]) + 1) if match[2] else size_bytes
        if match[2] and int(match[2]) < start:
            return None
    if start >= stop:
        raise UnsatisfiableError
    return start, stop


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0
