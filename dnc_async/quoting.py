"""Quotes what a stranger wrote, before it stands in an error, a log or on a terminal. PURE.

Names in a directory, columns of a dataset, a server's answers and the texts of a report that somebody sent may hold anything:
control codes that a terminal obeys, line breaks that forge a line, controls that reverse the direction of the text.
"""

from __future__ import annotations


def quoted(text: str) -> str:
    """The text with every character that is not printable as an escape, as ``repr()`` writes it; other text stays as it is."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
