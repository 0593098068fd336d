"""A Dockerfile, read as the Engine's classic builder reads it and written anew: one line an instruction. Pure.

Written anew it has no comments, no continued lines and no here-documents, so there is one reading of it. Refused is
what would fetch something (ADD of a URL), run later (ONBUILD) or is known only while it is built (`$` in FROM).
Source: moby/buildkit, frontend/dockerfile/parser; moby/moby, builder/dockerfile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dom0.socketproxy.refusal import BAD_REQUEST, FORBIDDEN, Refused
from dom0.socketproxy.scope import LARGEST_LABELS

SCRATCH = "scratch"
MOST_STAGES = 64
MOST_INSTRUCTIONS = 1_000  # each makes an image, which has the history of all before
LONGEST = (
    1 << 20
)  # bytes, with its variables put in, and as it is written anew: the labels of its images stand behind each FROM
FLAGS: Mapping[str, tuple[str, ...]] = {
    "ADD": ("chown",),
    "COPY": ("chown", "from"),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
}
PLAIN = (
    *("ARG", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "LABEL", "MAINTAINER", "RUN", "SHELL", "STOPSIGNAL"),
    *("USER", "VOLUME", "WORKDIR"),
)
EXPANDED = ("ADD", "ARG", "COPY", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
HAVE_HEREDOCS = ("ADD", "COPY", "RUN")
_ESCAPE = re.compile(r"#[ \t]*escape[ \t]*=", re.IGNORECASE)
_CONTINUED = re.compile(r"(^|[^\\])\\[ \t]*$")
_INSTRUCTION = re.compile(r"([A-Za-z]+)[ \t]+(.+)")
_FLAG = re.compile(r"--([a-z-]+)=([a-zA-Z0-9_.:/@-]+)(?:[ \t]+|$)")
_FROM = re.compile(r"([a-zA-Z0-9][a-zA-Z0-9._/:@-]*)(?:[ \t]+as[ \t]+([a-z][a-z0-9_.-]*))?", re.IGNORECASE)
CHANGES = ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
_WORD = re.compile(r"""(?:[^ \t'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+""")  # as the Engine parts them
_VARIABLE = re.compile(r"(?=\$\{?([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#!?$-]))")  # behind another $ too
_COMPUTED = re.compile(  # from a value by a pattern, or with a name of other letters
    r"\$\{(?:[A-Za-z0-9_]+|[@*#!?$-]):?[^}:+?A-Za-z0-9_-]|\$\{?[A-Za-z0-9_]*[^\x00-\x7f]"
)
_ADDED = re.compile(r"[a-zA-Z0-9._/@%+=,~*?-]+")  # no scheme, no variable, no quotes


class Instruction(NamedTuple):
    keyword: str
    flags: dict[str, str]
    rest: str

    def written(self) -> str:
        return " ".join((self.keyword, *(f"--{key}={value}" for key, value in self.flags.items()), self.rest))


def read(content: bytes) -> list[Instruction]:
    """Raises Refused."""
    try:
        instructions = _read(content.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise _unclear("it is not UTF-8") from error
    keywords = [instruction.keyword for instruction in instructions if instruction.keyword != "ARG"]
    if keywords[:1] != ["FROM"]:
        raise _unclear("it does not begin with FROM")
    if keywords.count("FROM") > MOST_STAGES:
        raise _unclear(f"more than {MOST_STAGES} stages: build some of them before, as images of their own")
    if len(instructions) > MOST_INSTRUCTIONS:
        raise _unclear(f"more than {MOST_INSTRUCTIONS} instructions: put several into one")
    return instructions


def changes(text: str, prefix: str, environment: Iterable[str]) -> str:
    """Instructions of a commit, written anew as those of a Dockerfile are. Raises Refused."""
    found = _read(text)
    check_expanded(found, environment)
    for one in found:
        if one.keyword not in CHANGES:
            raise Refused(FORBIDDEN, f"changes: {one.keyword}: not through this socket", field="changes")
    return "\n".join(_labelled(one, prefix).written() for one in found)


def _read(text: str) -> list[Instruction]:
    lines = text.split("\n")
    if odd := next((line for line in lines if not line.replace("\t", " ").isprintable()), ""):
        raise _unclear(f"{odd[:40]!r}: control characters")
    if any(_ESCAPE.match(line.lstrip()) for line in lines):
        raise _unclear("escape=: only \\ is taken")
    return [_instruction(line) for line in _joined(lines)]


def _joined(lines: Sequence[str]) -> list[str]:
    """Each instruction in one line; comments and empty lines may stand between its parts."""
    joined = []
    parts: list[str] = []
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _CONTINUED.search(line)
        part = (line[: match.start()] + match[1]) if match else line
        parts.append(part)
        if not match:
            joined.append("".join(parts).strip())
            parts = []
    rest = "".join(parts).strip()
    return [*joined, *([rest] if rest else [])]


def _instruction(line: str) -> Instruction:
    found = _INSTRUCTION.fullmatch(line)
    if found is None or line.endswith("\\"):
        raise _unclear(f"{line[:40]}: no instruction")
    keyword, rest = found[1].upper(), found[2].strip()
    if keyword not in PLAIN and keyword not in FLAGS:
        raise Refused(FORBIDDEN, f"Dockerfile: {keyword}: not through this socket", field=keyword)
    flags: dict[str, str] = {}
    while rest.startswith("--"):
        flag = _FLAG.match(rest)
        if flag is None or flag[1] not in FLAGS.get(keyword, ()) or flag[1] in flags:
            raise Refused(FORBIDDEN, f"Dockerfile: {keyword} {rest[:40]}: not through this socket", field=keyword)
        flags[flag[1]] = flag[2]
        rest = rest[flag.end() :]
    if not rest or (keyword in HAVE_HEREDOCS and "<<" in rest):
        raise Refused(FORBIDDEN, f"Dockerfile: {line[:40]}: the classic builder has no here-documents", field=keyword)
    if keyword == "ADD":  # a URL would be fetched from where the Engine is
        try:
            words = json.loads(rest) if rest.startswith("[") else rest.split()
        except (ValueError, RecursionError) as error:
            raise _unclear(f"ADD {rest[:40]}") from error
        if not isinstance(words, list) or not all(isinstance(word, str) and _ADDED.fullmatch(word) for word in words):
            raise Refused(FORBIDDEN, f"Dockerfile: ADD {rest[:40]}: only plain names of the context", field="ADD")
    return Instruction(keyword, flags, rest)


def check_expanded(instructions: Iterable[Instruction], environment: Iterable[str]) -> None:
    """How long it is with its variables put in, which the Engine does: `ENV B=$A$A` doubles what it has of them.

    `environment`: `NAME=VALUE` of its images and of what is built with. Raises Refused.
    """
    sizes: dict[str, int] = {}
    for one in environment:
        name = one.partition("=")[0]
        sizes[name] = max(sizes.get(name, 0), len(one.encode()))
    room = {"LABEL": LARGEST_LABELS}
    left = LONGEST
    for instruction in instructions:
        keyword, rest = instruction.keyword, instruction.rest
        size = _expanded(rest, sizes) if keyword in EXPANDED else len(rest.encode())
        left -= size
        room[keyword] = room.get(keyword, LONGEST) - size
        if min(left, room[keyword]) < 0:
            raise _unclear(
                f"{keyword} {rest[:40]}: with its variables, and what stands before, it is too long: say less"
            )
        if keyword in ("ARG", "ENV"):
            words = _WORD.findall(rest)
            for word in words if "=" in words[0] else words[:1]:
                name, equals, value = word.partition("=")
                if "$" in name:
                    raise _unclear(f"{keyword} {name[:40]}: the name of a variable is not another's value")
                name = re.sub(r"""["'\\]""", "", name)
                sizes[name] = max(sizes.get(name, 0), _expanded(value, sizes) if equals else size)


def _expanded(text: str, sizes: Mapping[str, int]) -> int:
    """Bytes at most. Raises Refused."""
    if computed := _COMPUTED.search(text):
        raise _unclear(f"{text[computed.start() :][:40]}: of a variable there are ${{A}}, ${{A:-b}} and ${{A:+b}}")
    return len(text.encode()) + sum(sizes.get(name, 0) for name in _VARIABLE.findall(text))


class Bases(NamedTuple):
    """Images by what was written."""

    built_on: frozenset[str]
    copied_from: frozenset[str]


def bases(instructions: Sequence[Instruction]) -> Bases:
    """What is to be looked up. Raises Refused."""
    built_on, copied_from = set(), set()
    for instruction, stages in _with_stages(instructions):
        if instruction.keyword == "FROM" and (name := _from(instruction)[0]).lower() not in (*stages, SCRATCH):
            built_on.add(name)
        source = instruction.flags.get("from", "")
        if source and _stage(source, stages) is None:
            copied_from.add(source)
    return Bases(frozenset(built_on), frozenset(copied_from))


def written(
    instructions: Sequence[Instruction], ids: Mapping[str, str], stamps: Mapping[str, Mapping[str, str]], prefix: str
) -> bytes:
    """With each image's ID, from `ids`, in place of its name, and the number of a stage that is copied from.

    The steps' containers have only labels with `prefix`, and those of `stamps`: by name of the image that a stage
    begins with, "" for one that begins with another or with nothing. Raises Refused.
    """
    content = bytearray()
    for instruction, stages in _with_stages(instructions):
        label = ""
        if instruction.keyword == "FROM":
            base, name = _from(instruction)
            has_image = base.lower() not in (*stages, SCRATCH)
            image = ids[base] if has_image else base.lower()
            line = instruction._replace(rest=f"{image} AS {name}" if name else image)
            label = f"{_label(stamps[base if has_image else ''])}\n"
        elif source := instruction.flags.get("from", ""):
            stage = _stage(source, stages)
            line = instruction._replace(
                flags=instruction.flags | {"from": ids[source] if stage is None else str(stage)}
            )
        else:
            line = _labelled(instruction, prefix)
        content += f"{line.written()}\n{label}".encode()
        if len(content) > LONGEST:
            what = f"with the labels of its images it has more than {LONGEST} bytes: fewer stages, or images with fewer"
            raise _unclear(what)
    return bytes(content)


def _labelled(instruction: Instruction, prefix: str) -> Instruction:
    """With `prefix` in front of each label's key: `LABEL a=b "c"=d`, or `LABEL a b` of one. Raises Refused."""
    if instruction.keyword != "LABEL":
        return instruction
    rest = instruction.rest
    words = _WORD.findall(rest)
    if _WORD.sub("", rest).strip():
        raise _unclear(f"LABEL {rest[:40]}: quotes without an end")
    if "=" in words[0]:
        return instruction._replace(rest=" ".join(prefix + word for word in words))
    return instruction._replace(rest=prefix + rest)


def _label(labels: Mapping[str, str]) -> str:
    """A value of several lines cannot be said in a Dockerfile, and is left out. Raises Refused for such a key."""
    if odd := next((key for key in labels if "=" in key or not key.isprintable()), ""):
        raise Refused(FORBIDDEN, f"Dockerfile: FROM an image with the label {odd[:40]!r}", field="FROM")
    said = (f"{_quoted(key)}={_quoted(value)}" for key, value in labels.items() if value.isprintable())
    return " ".join(("LABEL", *said))


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\$])', r"\\\1", text) + '"'


def _with_stages(instructions: Sequence[Instruction]) -> Iterator[tuple[Instruction, Sequence[str]]]:
    """Each instruction with the names, "" for none, of the stages that have ended before it. Raises Refused."""
    before: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    for instruction in instructions:
        if instruction.keyword == "FROM":
            name = _from(instruction)[1]
            if name and name in (*names, SCRATCH):
                raise _unclear(f"two stages {name}")
            before, names = names, (*names, name)
        yield instruction, before


def _from(instruction: Instruction) -> tuple[str, str]:
    """What it begins with, and the name of its stage."""
    match = _FROM.fullmatch(instruction.rest)
    if match is None:
        raise Refused(FORBIDDEN, f"Dockerfile: FROM {instruction.rest[:40]}: say the image by its name", field="FROM")
    return match[1], (match[2] or "").lower()


def _stage(source: str, stages: Sequence[str]) -> int | None:
    """The number of an earlier stage; None for an image. Raises Refused."""
    if source.isdecimal():
        if len(source) > len(str(MOST_STAGES)) or not int(source) < len(stages):
            raise _unclear(f"COPY --from={source[:40]}: no stage before this one")
        return int(source)
    return stages.index(source.lower()) if source.lower() in stages else None


def _unclear(what: str) -> Refused:
    return Refused(BAD_REQUEST, f"Dockerfile: {what}")
