"""Converts the address of a Kubo node's RPC, as Kubo or a user writes it, to a URL. PURE."""

from __future__ import annotations

import ipaddress
import re

from dnc_async.gateways.providers import is_name

# What Kubo writes into its file "api", and what users write by hand: over TCP, with or without TLS.
_MULTIADDR = re.compile(
    r"/(ip[46]|dns[46]?)/([^/]+)(?:/tcp/([0-9]{1,5}))?"
    r"(/https?|/tls(?:/sni/([^/]+))?(?:/https?)?)?(?:/(?:p2p|ipfs)/[^/]+)?/*"
)


def url_of(address: str) -> str:
    """The URL of an address: https if it names TLS. Raises ``ValueError`` if any part of the address is not understood."""
    match = _MULTIADDR.fullmatch(address)
    if match is None:
        raise ValueError("another transport, or none")
    kind, host, port, transport, server_name = match.groups()
    if kind.startswith("ip"):
        ip = (ipaddress.IPv4Address if kind == "ip4" else ipaddress.IPv6Address)(host)
        local = "127.0.0.1" if kind == "ip4" else "::1"
        host = local if ip.is_unspecified else str(ip)  # a node that listens on all addresses is reached at loopback
    elif not is_name(host.lower()):
        raise ValueError(f"{host!r} is no host's name")
    if server_name is not None and server_name.lower() != host.lower():
        raise ValueError(f"the certificate's name {server_name!r} is not the host's; use 'kubo=https://{server_name}'")
    if port is None and not transport:
        raise ValueError("it has no port")
    if port is not None and not 0 < int(port) < 2**16:
        raise ValueError(f"{port} is no port")
    scheme = "https" if transport and transport != "/http" else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}{'' if port is None else f':{int(port)}'}"
