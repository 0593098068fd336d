"""`.dockerignore`: which files of a directory are not part of a build, exactly as docker decides it. Pure.

The last pattern that matches a path, or a directory above it, decides. Source: moby/patternmatcher.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from itertools import accumulate

from dom0.errors import ProjectError

LONGEST = 1024 * 1024  # bytes of a .dockerignore


def literal(name: str) -> str:
    """A pattern that matches the path `name` alone."""
    return re.sub(r"[^\w./-]", r"\\\g<0>", name)


EVERYTHING = ("*", "**", "**/*")  # what an allow-list begins with


class Ignore:
    """`where` names the file in errors. Raises ProjectError for an invalid pattern."""

    def __init__(self, text: str, *, where: str) -> None:
        self.lines = tuple(_patterns(text))
        self._rules = [(not line.startswith("!"), _compile(line, where)) for line in self.lines]
        self._where = where
        self.exceptions = {line.removeprefix("!") for line in self.lines if line.startswith("!")}

    @property
    def has_exceptions(self) -> bool:
        """Whether something below an ignored directory may still be part of the build."""
        return not all(ignores for ignores, _ in self._rules)

    @property
    def named(self) -> Ignore:
        """What is ignored by a line that names it, and not because everything is."""
        return Ignore("\n".join(line for line in self.lines if line not in EVERYTHING), where=self._where)

    def lets_in(self, path: str) -> bool:
        """Whether there is an exception for this very path."""
        return path in self.exceptions and not self(path)

    def __call__(self, path: str) -> bool:
        """`path` is relative, with `/`."""
        paths = tuple(accumulate(path.split("/"), "{}/{}".format))  # with the directories above it
        ignored = False
        for ignores, pattern in self._rules:
            if ignored is not ignores and any(pattern.fullmatch(candidate) for candidate in paths):
                ignored = ignores
        return ignored


def _patterns(text: str) -> Iterable[str]:
    for raw in text.removeprefix("\ufeff").split("\n"):
        line = "" if raw.startswith("#") else raw.strip()
        exception = "!" if line.startswith("!") else ""
        pattern = line.removeprefix("!").strip()
        if pattern:
            clean = posixpath.normpath(pattern)
            yield exception + (clean.lstrip("/") or "/")


def _compile(line: str, where: str) -> re.Pattern[str]:
    pattern = line.removeprefix("!")
    tokens = _TOKEN.findall(pattern)
    if suffix := _SUFFIX.fullmatch(pattern):
        expression = f".*{re.escape(suffix[1])}"
    elif tokens[-1] in ("**", "**/"):
        expression = "".join(map(_regex_of, tokens[:-1])) + ".*"
    else:
        expression = "".join(map(_regex_of, tokens))
    try:
        return re.compile(expression, re.DOTALL)
    except re.error as error:
        raise ProjectError(
            f"{where}: {pattern!r} is no pattern: {error}", hint="close the bracket, or escape it"
        ) from error


_SUFFIX = re.compile(r"\*\*([^/*?\\\[\]][^*?\\\[\]]*)", re.DOTALL)  # `**.pyc`: docker compares the end alone
_TOKEN = re.compile(r"\*\*/?|\*|\?|\\.|\[\^?\]?[^\]]*\]|.", re.DOTALL)


def _regex_of(token: str) -> str:
    match token:
        case "**/" | "**":
            return "(?:.*/)?"
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
        case "[":
            return token  # not closed: refused by re.compile
    if token.startswith("["):
        return "[" + re.sub(r"[\[&~|]|-(?=-)", r"\\\g<0>", token[1:-1]) + "]"
    return re.escape(token[-1])
