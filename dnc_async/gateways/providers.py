"""Parses what a delegated router answers about the providers of a CID (ipfs/specs ``http-routing-v1.md``). PURE.

Routers are not trusted, and anybody can announce a provider to them. So only these addresses become URLs: HTTPS ones, and, where
they are permitted, plain HTTP ones at loopback and private addresses. An address is a multiaddr (``/dns/x/tcp/443/https``) or,
in the schema ``generic``, possibly a URL. Addresses that are not understood are skipped silently, because most of what a router
knows is for other transports than HTTP.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

#: The name of the trustless gateway protocol in records.
GATEWAY_PROTOCOL = "transport-ipfs-gateway-http"
MAX_RECORD_BYTES = 2**16
MAX_ANSWER_BYTES = 2**22
_MAX_ADDRESSES = 64
#: One record is one provider: further addresses lead to the same machine.
_MAX_PER_RECORD = 2

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Reach = Literal["public", "local", "refused"]

# Loopback and private networks (RFC 1918, 4193, 6598).
_LOCAL = tuple(
    ipaddress.ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7")
)
_UNICAST6, _6TO4 = ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("2002::/16")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# The provider's peer ID may follow; anything else, such as '/ws' or '/http-path', is another transport.
_MULTIADDR = re.compile(
    r"/(dns[46]?|ip[46])/([^/%]+)(?:/tcp/([0-9]{1,5}))?(?:/(https|tls(?:/sni/([^/]+))?/http)|/http)(?:/p2p/[^/]+)?/?"
)


@dataclass(frozen=True, slots=True)
class Provider:
    """A trustless gateway that a router named. ``server_name`` is the name in its certificate, if that is not the host."""

    url: str
    server_name: str | None = None


def reach(address: str) -> Reach:
    """Whether an IP address is ``public``, ``local`` (loopback or private), or ``refused`` in any case.

    Link-local addresses are refused, because clouds serve secrets there, and everything that is not a host's unicast address.
    """
    try:
        ip = _inner(ipaddress.ip_address(address))
    except ValueError:
        return "refused"
    if any(ip in network for network in _LOCAL):
        return "local"
    is_host = not ip.is_multicast and (ip.version == 4 or (ip in _UNICAST6 and ip not in _6TO4))
    return "public" if ip.is_global and is_host and "%" not in address else "refused"


def _inner(ip: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 address embeds, because packets are sent there; else the address itself."""
    if not isinstance(ip, ipaddress.IPv6Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(ip.packed[-4:])
    return ip.ipv4_mapped or ip


def is_local_url(url: str) -> bool:
    """Whether a URL's host is a literal loopback or private address. A name is not, whatever it resolves to."""
    return reach(urlsplit(url).hostname or "") == "local"


def is_loopback_url(url: str) -> bool:
    """Whether a URL's host is a literal loopback address."""
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_loopback
    except ValueError:
        return False


def same_place(url: str) -> tuple[str, str | None, int, str]:
    """A URL's scheme, host, port and path: equal for all spellings of one gateway's URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")


def parse_address(text: str, *, local: bool) -> Provider | None:
    """The gateway at a multiaddr or URL; ``None`` if the text is neither, or is not permitted.

    ``local`` permits loopback and private addresses, and plain HTTP for those.
    """
    try:
        scheme, host, port, server_name = _multiaddr(text) if text.startswith("/") else _url(text)
    except ValueError:
        return None
    if host == "localhost" and scheme == "http":
        host = "127.0.0.1"  # RFC 6761; and Kubo accepts only the address
    where = "public" if is_name(host) else reach(host)  # a name is checked when it is resolved
    if where == "refused" or (where == "local" and not local) or (scheme == "http" and where != "local"):
        return None
    if not is_name(host):
        host = str(ipaddress.ip_address(host))
    at = "" if port in (None, {"https": 443, "http": 80}[scheme]) else f":{port}"
    return Provider(f"{scheme}://{f'[{host}]' if ':' in host else host}{at}", server_name)


def _multiaddr(text: str) -> tuple[str, str, int | None, str | None]:
    """Scheme, host, port and server name of a multiaddr; raises ``ValueError`` if it is not exactly HTTP over TCP."""
    match = _MULTIADDR.fullmatch(text)
    if match is None:
        raise ValueError("another transport, or none")
    kind, host, port, secure, server_name = match.groups()
    host = host.lower()
    if kind.startswith("ip"):
        (ipaddress.IPv4Address if kind == "ip4" else ipaddress.IPv6Address)(host)
    if server_name is not None and not is_name(server_name.lower()):
        raise ValueError(server_name)
    name = None if server_name is None or server_name.lower() == host else server_name.lower()
    return "https" if secure else "http", host, None if port is None else _port(int(port)), name


def _url(text: str) -> tuple[str, str, int | None, str | None]:
    parts = urlsplit(text)
    beyond = parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or beyond:
        raise ValueError("not the root of a host")
    return parts.scheme, parts.hostname or "", None if parts.port is None else _port(parts.port), None


def _port(port: int) -> int:
    if not 0 < port < 2**16:
        raise ValueError("no port")
    return port


def is_name(host: str) -> bool:
    """Whether a host is a DNS name, and not something that a resolver would read as an address."""
    return bool(_NAME.fullmatch(host)) and len(host) <= 253 and not _NUMBER.fullmatch(host.rpartition(".")[2])


def parse_record(record: object, *, local: bool) -> list[Provider]:
    """The gateway of a record, at its best addresses. Empty if it is not a gateway, or its schema is not known."""
    if not isinstance(record, dict) or record.get("Schema") not in ("peer", "generic"):
        return []
    protocols, addresses = record.get("Protocols") or [], record.get("Addrs") or []
    if not isinstance(protocols, list) or not isinstance(addresses, list):
        return []
    # Without protocols, its addresses tell whether it is an HTTP gateway.
    if protocols and not any(isinstance(name, str) and name.lower() == GATEWAY_PROTOCOL for name in protocols):
        return []
    found = [parse_address(text, local=local) for text in addresses[:_MAX_ADDRESSES] if isinstance(text, str)]
    unique = dict.fromkeys(provider for provider in found if provider is not None)
    return sorted(unique, key=_rank)[:_MAX_PER_RECORD]


def _rank(provider: Provider) -> tuple[bool, bool, bool]:
    """Sort key: HTTPS before HTTP, names before addresses, IPv4 before IPv6."""
    host = urlsplit(provider.url).hostname or ""
    return provider.url.startswith("http:"), reach(host) != "refused", ":" in host


def parse_answer(body: bytes) -> list[object]:
    """The records of an ``application/json`` answer; raises ``ValueError`` if it is malformed."""
    answer = _json(body)
    providers = answer.get("Providers") or [] if isinstance(answer, dict) else None
    if not isinstance(providers, list):
        raise ValueError("it is not an object with a list of Providers")  # noqa: TRY004 - of the answer, not an argument
    return providers


class RecordLines:
    """Parses an ``application/x-ndjson`` answer piece by piece. The records do not depend on how it was cut into pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[object]:
        """Take the next bytes, and yield each complete record. Raises ``ValueError`` for a line that is too long or not JSON."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if max(map(len, [*lines, self._rest])) > MAX_RECORD_BYTES:
            raise ValueError(f"a record has over {MAX_RECORD_BYTES} bytes")
        for line in lines:
            if line.strip():
                yield _json(line)

    def close(self) -> Iterator[object]:
        """Take the end of the answer: the last line may lack its newline. Raises ``ValueError`` if it was truncated."""
        yield from self.feed(b"\n")


def _json(data: bytes) -> object:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from error
    return value
