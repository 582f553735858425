"""Which ``Host`` headers are answered: a web page must not read the store under a name of its own (DNS rebinding). PURE."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable


class AllowedHosts:
    """The hosts under which a server may be asked, without their ports.

    A server on a loopback ``address`` answers to loopback addresses, ``localhost``, its own ``host`` and ``names``. One on
    another address cannot know the names that its network has for it: it answers to any, unless there are ``names``; then to
    those, and to any address, which no web page can make its own.
    """

    def __init__(self, address: str, host: str, names: Collection[str] = ()) -> None:
        self._is_local = _is_loopback(address)
        self._any = not self._is_local and not names
        self._names = {"localhost", host.lower(), *(name.lower().strip("[]") for name in names)}

    def allow(self, headers: Iterable[str]) -> bool:
        """Whether a request with these ``Host`` headers is answered; HTTP/1.0 needs none."""
        return self._any or all(self._allows(header) for header in headers)

    def _allows(self, header: str) -> bool:
        host = header.strip().lower()
        name, _, port = host.rpartition(":")
        if name and not host.endswith("]") and (port.isdigit() or not port):
            host = name
        host = host.strip("[]").rstrip(".")
        if host in self._names or host.endswith(".localhost"):
            return True
        return _is_loopback(host) if self._is_local else _is_address(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
