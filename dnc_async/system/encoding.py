"""Replaces our few non-ASCII signs for streams whose encoding lacks them."""

from __future__ import annotations

_IN_ASCII = {"█": "#", "·": ".", "…": "..."}


def encodable(text: str, encoding: str | None) -> str:
    """Replace those of our signs that an encoding lacks by ASCII; other text stays as it is."""
    if text.isascii():
        return text
    for sign, plain in _IN_ASCII.items():
        if sign in text and not _has(encoding or "utf-8", sign):
            text = text.replace(sign, plain)
    return text


def _has(encoding: str, sign: str) -> bool:
    try:
        sign.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
