"""One Compose file as text: what it says, on which line, and whether it is safe to parse. No I/O.

Every file is measured here before Docker Compose sees it. Compose expands aliases without a limit, so nine lines of
"billion laughs" keep it busy for ever (compose-go 2.4.8, `loader/reset.go`), and its own messages name the key but not
the line, or the line but not the key. The measuring reads parser events and keeps its own stack: depth and size are
known before anything recursive reads the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml
from yaml import CSafeLoader

from dom0.compose.findings import OVERRIDE, Finding, KeyPath, Locations, refuse
from dom0.compose.values import SourceLoader
from dom0.errors import ProjectError
from dom0.wording import did_you_mean

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 100_000  # with aliases expanded

# A line is kept for each key by its dotted name: what a small file makes of a long key, or by aliases, has an end.
_ROOM = 100_000  # characters of names
_ROOM_FOR_EACH = 64  # more for each byte of the file
_COST = 100  # as many characters is the rest of one name

_CORE = ("str", "int", "float", "bool", "null")
_PREFIX = "tag:yaml.org,2002:"
_MERGE = f"{_PREFIX}merge"
_SCALAR_TAGS = (None, "!", "!reset", "!override", _MERGE, *(f"{_PREFIX}{name}" for name in _CORE))
_COLLECTION_TAGS = (None, "!", "!reset", "!override", f"{_PREFIX}map", f"{_PREFIX}seq")
_LARGE = re.compile(r"[-+]?[0-9_]{19,}(\.[0-9]*)?$", re.ASCII)
_LONGEST = re.compile(r"[-+]?[1-9][0-9]{,19}$", re.ASCII)  # that Compose may read as a number
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$", re.ASCII)
_EXPONENT = re.compile(r"[-+]?[0-9.]+[eE][-+]?([0-9]+)$", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Variable(msgspec.Struct, frozen=True):
    """A value with a `$` in it, and its range of characters in the text; `head` is its anchor and its tag."""

    value: str
    start: int
    end: int
    head: str

    def written(self, value: str, text: str) -> str:
        """The same node with another value, in which each `$` is literal."""
        line_break = "\n" if text[self.start : self.end].endswith("\n") else ""  # of a block scalar
        return self.head + json.dumps(value.replace("$", "$$"), ensure_ascii=False) + line_break


class SourceFile(msgspec.Struct, frozen=True):
    """`name` is how messages call the file; `documents` hold plain data, with `tags.Reset` and `tags.Override`."""

    name: str
    documents: tuple[dict[str, Any], ...]
    lines: dict[str, int]
    text: str
    variables: tuple[Variable, ...] = ()

    def with_values(self, values: Mapping[str, str]) -> str:
        """The text, where each value that is a key of `values` is replaced."""
        parts, end = [], 0
        for found in self.variables:
            if found.value in values:
                parts += [self.text[end : found.start], found.written(values[found.value], self.text)]
                end = found.end
        return "".join([*parts, self.text[end:]])


def read_source(name: str, content: bytes, *, may_be_empty: bool = False) -> SourceFile:
    """Raises ProjectError with the line at fault."""
    text, walk = _decode(name, content), _Walk(name, room=_ROOM + _ROOM_FOR_EACH * len(content))
    try:
        for event in yaml.parse(text, Loader=CSafeLoader):
            walk.step(event)
        documents = [{} if document is None else document for document in yaml.load_all(text, Loader=SourceLoader)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "end of stream" in (error.problem or ""):  # then what does not end says more
            mark = error.context_mark or mark
        what = f"this is not YAML: {error.problem or error.context}"
        line = mark.line + 1 if mark else 0
        indent = "".join(text.splitlines()[line - 1 : line])[: mark.column + 1 if mark else 0]
        hint = "look at indentation, colons and quotes of this line and the one before"
        hint = "YAML is indented by spaces, and there is a tab" if "\t" in indent else hint
        raise _refused(name, what, hint, line=line) from error
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        hint = "save the file as UTF-8 text without control characters"
        raise _refused(name, f"this is not YAML: {error.reason}", hint, line=line) from error
    if not all(isinstance(document, dict) for document in documents):
        what = "the file has to be a mapping with keys such as services:"
        hint = "services: on a line of its own, and the services below it, indented"
        raise _refused(name, what, hint, line=walk.lines.get("", 1))
    if not (may_be_empty or any(documents)):
        raise _refused(name, "the file is empty", "it needs at least a name and services; dom0 init makes an example")
    return SourceFile(name, tuple(documents), walk.all_lines(), text, tuple(walk.variables))


def _decode(name: str, content: bytes) -> str:
    if len(content) > MAX_BYTES:
        what = f"the file has {len(content)} bytes, a Compose file may have at most {MAX_BYTES}"
        raise _refused(name, what, "put services into files of their own, with include:")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _refused(name, f"byte {error.start} is not UTF-8", "save the file as UTF-8 text", line=line) from error
    if "\0" in text:
        raise _refused(name, "the file holds binary data", "a Compose file is YAML text")
    return text


class _Frame(msgspec.Struct):
    """A mapping or sequence that has begun and not ended."""

    path: KeyPath
    is_mapping: bool
    anchor: str | None = None
    first: int = 0
    nodes: int = 1
    height: int = 0
    key: str | None = None  # of the next value, None while a key comes next
    keys: dict[str, int] = {}
    index: int = 0

    @property
    def key_due(self) -> bool:
        return self.is_mapping and self.key is None

    def child(self) -> KeyPath:
        return (*self.path, self.key if self.key is not None else str(self.index))


class _Anchored(msgspec.Struct, frozen=True):
    """`first` and `last`: where its keys stand in the list of all."""

    nodes: int
    height: int
    path: KeyPath
    first: int
    last: int


class _Walk:
    """Counts nodes with aliases expanded, finds lines of keys, and refuses what is too deep, too large or duplicate."""

    def __init__(self, name: str, *, room: int) -> None:
        self.lines: dict[str, int] = {}
        self.variables: list[Variable] = []
        self._name = name
        self._stack: list[_Frame] = []
        self._anchors: dict[str, _Anchored] = {}
        self._nodes = 0
        self._room = self._room_of_aliases = room
        self._all: list[tuple[str, int, bool]] = []  # keys as they come, with those of aliases: path, line, written out

    def step(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        match event:
            case yaml.DocumentStartEvent():
                self._anchors.clear()
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._begin(event, line)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self._stack.pop()
                self._count(frame.anchor, frame.nodes, frame.height + 1, line, frame)
            case yaml.ScalarEvent():
                self._scalar(event, line)
            case yaml.AliasEvent():
                self._alias(event.anchor or "", line)

    def _check_anchor(self, anchor: str | None, line: int) -> None:
        if anchor and (anchor in self._anchors or any(frame.anchor == anchor for frame in self._stack)):
            raise self._refused(f"the anchor &{anchor} is set twice", line, "give the second one another name")

    def _begin(self, event: yaml.CollectionStartEvent, line: int) -> None:
        if self._stack and self._stack[-1].key_due:
            raise self._refused("a key has to be plain text", line, "write KEY: VALUE")
        self._check_tag(event.tag, _COLLECTION_TAGS, line)
        self._check_anchor(event.anchor, line)
        path = self._stack[-1].child() if self._stack else ()
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self._remember_line(path, line)
        if event.tag == OVERRIDE:
            self._remember_line((*path, OVERRIDE), line)
        self._stack.append(_Frame(path, is_mapping, event.anchor, first=len(self._all)))
        self._check_depth(len(self._stack), line)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        self._check_tag(event.tag, _SCALAR_TAGS, line)
        self._check_anchor(event.anchor, line)
        if self._stack and self._stack[-1].key_due:
            self._key(event.value, line)
            return
        if "\0" in event.value:
            raise self._refused("the text holds a NUL character", line, "take it out")
        if event.implicit[0] and not event.style:  # it may be a number
            exponent, quotes = _EXPONENT.match(event.value), "put quotes around it if it is text"
            is_long = _LARGE.match(event.value)
            too_large = is_long and not (_LONGEST.match(event.value) and -(2**63) <= int(event.value) < 2**64)
            if too_large or (exponent and len(exponent[1]) > 2):
                raise self._refused(f"the number {event.value[:40]} is too large", line, quotes)
            if _NO_NUMBER.match(event.value):
                raise self._refused(f"{event.value} is not a usable number", line, quotes)
        if "$" in event.value:
            assert event.start_mark
            assert event.end_mark
            anchor = f"&{event.anchor} " if event.anchor else ""
            tag = f"!<{event.tag}> " if event.tag else ""
            self.variables.append(Variable(event.value, event.start_mark.index, event.end_mark.index, anchor + tag))
        if self._stack:
            self._remember_line(self._stack[-1].child(), line)
        self._count(event.anchor, 1, 0, line)

    def _key(self, key: str, line: int) -> None:
        frame = self._stack[-1]
        if _CONTROL.search(key):
            raise self._refused(f"the key {key!r} has a control character in it", line, "take it out")
        if key in frame.keys and key != "<<":
            raise self._refused(f"duplicate key {key!r}, first in line {frame.keys[key]}", line, "keep one of them")
        frame.keys[key] = line
        frame.key = key
        self._remember_line(frame.child(), line)
        self._add(1, line)

    def _alias(self, anchor: str, line: int) -> None:
        if self._stack and self._stack[-1].key_due:
            raise self._refused(f"an alias, *{anchor}, cannot be a key", line, "write the key itself")
        if anchor not in self._anchors:
            inside = any(frame.anchor == anchor for frame in self._stack)
            what, hint = f"*{anchor} is not defined above", did_you_mean(anchor, self._anchors)
            if inside:
                what, hint = f"*{anchor} contains itself", "write out what is meant"
            raise self._refused(what, line, hint or f"write &{anchor} before the value that it stands for, further up")
        found = self._anchors[anchor]
        self._check_depth(len(self._stack) + found.height, line)
        self._add(found.nodes, line)
        if self._stack:
            self._remember_line(self._stack[-1].child(), line)
        self._repeat(found)
        self._close(found.nodes, found.height)

    def _repeat(self, anchored: _Anchored) -> None:
        """The keys of an alias stand where its anchor is; what is written out beside a merge key counts more."""
        if self._room_of_aliases < 0:  # the alias itself has a line
            return
        path = self._stack[-1].child() if self._stack else ()
        if "<<" in path[-2:]:
            path = path[: -2 if path[-1] != "<<" else -1]
        start, inner = ".".join(path), len(".".join(anchored.path))
        found: dict[str, int] = {}
        for name, line, is_written in self._all[anchored.first : anchored.last]:
            if is_written or name not in found:
                found[name] = line
        for name, line in found.items():  # until there is no room
            self._room_of_aliases -= _COST + len(start) + len(name) - inner
            if self._room_of_aliases < 0:
                return
            self._all.append((f"{start}{name[inner:]}".removeprefix("."), line, False))

    def _count(self, anchor: str | None, nodes: int, height: int, line: int, frame: _Frame | None = None) -> None:
        """At the end of a node, whose inner nodes have been added already."""
        if anchor:
            first = frame.first if frame else len(self._all)
            self._anchors[anchor] = _Anchored(nodes, height, frame.path if frame else (), first, len(self._all))
        self._add(1, line)
        self._close(nodes, height)

    def _close(self, nodes: int, height: int) -> None:
        if self._stack:
            frame = self._stack[-1]
            frame.nodes += nodes
            frame.height = max(frame.height, height)
            frame.key = None
            frame.index += 1

    def _add(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            hint = "aliases count as if they were written out"
            raise self._refused(f"the file grows to more than {MAX_NODES} keys and values", line, hint)

    def _check_depth(self, depth: int, line: int) -> None:
        if depth > MAX_DEPTH:
            hint = "no key of Compose is that deep: is this a Compose file?"
            raise _refused(self._name, f"nested more than {MAX_DEPTH} levels deep", hint, line=line)

    def _check_tag(self, tag: str | None, known: tuple[str | None, ...], line: int) -> None:
        if tag not in known:
            shown = tag.replace(_PREFIX, "!!") if tag else ""
            raise self._refused(f"unknown tag {shown}", line, "Compose knows !reset and !override")

    def _remember_line(self, path: KeyPath, line: int) -> None:
        name = ".".join(path)
        if name not in self.lines:
            self._room -= len(name)
            if self._room < 0:
                raise _refused(self._name, "the keys are too long", "no key of Compose is that long", line=line)
            self.lines[name] = line
            self._all.append((name, line, True))

    def all_lines(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, line, _ in self._all:
            found.setdefault(name, line)
        return found | self.lines

    def _refused(self, what: str, line: int, hint: str = "") -> ProjectError:
        frame = self._stack[-1] if self._stack else _Frame((), is_mapping=True)
        path = frame.path if frame.key_due or not self._stack else frame.child()
        return _refused(self._name, what, hint, path=path, line=line)


def _refused(name: str, what: str, hint: str = "", *, path: KeyPath = (), line: int = 0) -> ProjectError:
    return refuse([Finding(path, what, hint, name, line)], Locations({name: {}}))
