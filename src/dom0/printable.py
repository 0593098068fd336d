"""Text from outside, as a terminal may get it. Light to import: the quickest commands need it too."""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    r"""`text` with everything that is no visible character (controls, bidirectional marks), but those in `keep`,
    written as `\x1b`.
    """
    if text.isprintable():
        return text
    escaped = ((char, char.encode("unicode_escape").decode()) for char in text)
    return "".join(char if char.isprintable() or char in keep else escape for char, escape in escaped)
