"""Removes secrets from a URL: the credentials are sent as a header, and are hidden in messages. PURE."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote_to_bytes, urlsplit

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def without_secrets(url: str) -> str:
    """A URL that is safe to show: without user name and password, and without the query, which may contain a signature.

    In a text that is not a URL with a host, everything before the last ``@`` may be a password, and is left out.
    """
    scheme = _SCHEME.match(url)
    start = scheme[0] if scheme else ""
    if _has_host(url):
        address, mark = _up_to(url[len(start) :], "?#")
        authority, slash, path = address.partition("/")
        _, at, host = authority.rpartition("@")
        shown = f"***@{host}{slash}{path}" if at else address
    else:
        _, at, rest = url[len(start) :].rpartition("@")
        rest, mark = _up_to(rest, "?#")
        shown = f"***@{rest}" if at else rest
    return f"{start}{shown}" + (f"{mark}***" if mark else "")


def _up_to(text: str, signs: str) -> tuple[str, str]:
    """A text up to the first of several signs, and that sign; empty if there is none of them."""
    end = min((text.find(sign) for sign in signs if sign in text), default=len(text))
    return text[:end], text[end : end + 1]


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port >= 0)
    except ValueError:  # the port is no number, as where a password has a slash in it
        return False


def take_credentials(url: str) -> tuple[str, dict[str, str]]:
    """A URL without user name and password, and the ``Authorization`` header for these (RFC 7617; any bytes after decoding)."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    user, _, password = userinfo.partition(":")
    secret = base64.b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {secret}"}
