"""Text from outside, as a terminal may get it. Light to import: the quickest commands need it too."""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    r"""`text` with everything that is no visible character (controls, bidirectional marks), but those in `keep`,
    written as `\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
