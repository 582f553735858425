"""Links in blocks of any codec, and paths in DAG-CBOR and DAG-JSON blocks.

Datasets are UnixFS; these two codecs are supported because a gateway has to follow whatever its store contains. A block is
decoded to plain values, in which each link is a :class:`Cid`.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from dnc_async.errors import CidError, DagError
from dnc_async.ipld import dagpb
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB, RAW, Cid

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 256
_WITHOUT_LINKS = (0x51, 0x72, 0x0200)  # cbor, libp2p-key, json
_LINK_TAG = 42
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}


def links(cid: Cid, data: bytes) -> list[Cid]:
    """The links of a block, in its order; none for a foreign codec. Raises :class:`DagError` if it cannot be decoded."""
    if cid.codec == DAG_PB:
        return [link.cid for link in dagpb.decode(data).links]
    if cid.codec == DAG_CBOR:
        return list(links_in(decode_dag_cbor(data)))
    if cid.codec == DAG_JSON:
        return list(links_in(decode_dag_json(data)))
    return []


def follows_links(cid: Cid) -> bool:
    """Whether :func:`links` finds all links of a block with this CID: its codec is supported, or has no links."""
    return cid.codec in (RAW, DAG_PB, DAG_CBOR, DAG_JSON, *_WITHOUT_LINKS)


def decode_dag_cbor(data: bytes) -> Any:  # noqa: ANN401 - the data model is what it is
    """Decode a DAG-CBOR block; raises :class:`DagError`."""
    try:
        value, end = _item(data, 0, 0)
    except (IndexError, struct.error, UnicodeDecodeError, CidError) as error:
        raise DagError(f"not a DAG-CBOR block: {error}") from error
    if end != len(data):
        raise DagError(f"not a DAG-CBOR block: {len(data) - end} bytes follow its end")
    return value


def decode_dag_json(data: bytes) -> Any:  # noqa: ANN401 - the data model is what it is
    """Decode a DAG-JSON block; raises :class:`DagError`."""
    try:
        return json.loads(data, object_hook=_json_object)
    except (ValueError, RecursionError) as error:
        raise DagError(f"not a DAG-JSON block: {error}") from error


def links_in(value: object) -> Iterator[Cid]:
    """Yield the links in a decoded value, in the block's order."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Cid):
            yield found
        elif isinstance(found, dict):
            waiting.extend(reversed(found.values()))
        elif isinstance(found, list):
            waiting.extend(reversed(found))


def step(value: object, segment: str) -> object:
    """Follow one path segment inside a decoded value; raises :class:`KeyError` if it leads to nothing."""
    if isinstance(value, dict):
        return value[segment]
    if isinstance(value, list) and segment.isascii() and segment.isdigit() and int(segment[:9]) < len(value):
        return value[int(segment[:9])]
    raise KeyError(segment)


def _json_object(found: dict[str, Any]) -> Any:  # noqa: ANN401 - the data model is what it is
    if list(found) == ["/"] and isinstance(found["/"], str):
        return Cid.parse(found["/"], foreign=True)
    return found


def cbor_head(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Read the head of an item; returns its major type, its low five bits, its argument, and its end."""
    major, low = data[at] >> 5, data[at] & 31
    at += 1
    if low < 24:
        return major, low, low, at
    if low > 27:
        raise DagError("not a DAG-CBOR block: an indefinite length")
    width = 1 << (low - 24)
    if at + width > len(data):
        raise DagError("not a DAG-CBOR block: it ends inside a number")
    return major, low, int.from_bytes(data[at : at + width], "big"), at + width


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Decode the item at ``at``; returns it and its end."""
    if depth > _DEEPEST:
        raise DagError(f"a DAG-CBOR block nests deeper than {_DEEPEST}")
    major, low, argument, end = cbor_head(data, at)
    if major in {0, 1}:
        return (argument if major == 0 else -1 - argument), end
    if major in {2, 3}:
        if end + argument > len(data):
            raise DagError("not a DAG-CBOR block: it ends inside a string")
        taken = bytes(data[end : end + argument])
        return (taken if major == 2 else taken.decode("utf-8")), end + argument
    if major in {4, 5}:
        return _collection(data, end, argument, depth, is_map=major == 5)
    if major == 6:
        return _tagged(data, end, argument, depth)
    return cbor_simple(low, data[at + 1 : end], end)


def _collection(data: bytes, at: int, count: int, depth: int, *, is_map: bool) -> tuple[Any, int]:
    if count > len(data):
        raise DagError("not a DAG-CBOR block: a collection with more entries than bytes")
    entries: list[Any] = []
    for _ in range(2 * count if is_map else count):
        entry, at = _item(data, at, depth + 1)
        entries.append(entry)
    if not is_map:
        return entries, at
    if not all(isinstance(key, str) for key in entries[::2]):
        raise DagError("not a DAG-CBOR block: a map key that is not text")
    return dict(zip(entries[::2], entries[1::2], strict=True)), at


def _tagged(data: bytes, at: int, tag: int, depth: int) -> tuple[Any, int]:
    value, end = _item(data, at, depth + 1)
    if tag != _LINK_TAG or not isinstance(value, bytes) or not value.startswith(b"\0"):
        raise DagError(f"not a DAG-CBOR block: tag {tag} is not a link")
    return Cid.decode(value[1:], foreign=True), end


def cbor_simple(low: int, payload: bytes, end: int) -> tuple[Any, int]:
    """Decode a simple value or a float; returns it and its end. Raises :class:`DagError`."""
    if low in {20, 21, 22}:
        return {20: False, 21: True, 22: None}[low], end
    if low in _FLOATS:
        return struct.unpack(_FLOATS[low], payload)[0], end
    raise DagError(f"not a DAG-CBOR block: simple value {low}")
