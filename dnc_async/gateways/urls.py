"""The secrets in a host's URL: taken out to be sent, and hidden to be shown. PURE."""

from __future__ import annotations

import base64
from urllib.parse import unquote_to_bytes, urlsplit


def without_secrets(url: str) -> str:
    """A URL as it may be shown: without a user's name and password, and without a query, which may hold a signature."""
    url, query, _ = url.partition("?")
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    _, at, host = authority.rpartition("@")
    shown = f"{scheme}{separator}***@{host}{slash}{path}" if at else url
    return shown + ("?***" if query else "")


def take_credentials(url: str) -> tuple[str, dict[str, str]]:
    """A URL without a user's name and password, and the header that carries these: percent-decoded, any bytes (RFC 7617)."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    user, _, password = userinfo.partition(":")
    secret = base64.b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {secret}"}
