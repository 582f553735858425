"""Removes secrets from a URL: the credentials are sent as a header, and are hidden in messages. PURE."""

from __future__ import annotations

import base64
from urllib.parse import unquote_to_bytes, urlsplit


def without_secrets(url: str) -> str:
    """A URL that is safe to show: without user name and password, and without the query, which may contain a signature."""
    url, query, _ = url.partition("?")
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    _, at, host = authority.rpartition("@")
    shown = f"{scheme}{separator}***@{host}{slash}{path}" if at else url
    return shown + ("?***" if query else "")


def take_credentials(url: str) -> tuple[str, dict[str, str]]:
    """A URL without user name and password, and the ``Authorization`` header for these (RFC 7617; any bytes after decoding)."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    user, _, password = userinfo.partition(":")
    secret = base64.b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {secret}"}
