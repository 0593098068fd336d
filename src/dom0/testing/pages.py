"""The documentation as data: pages, headings, links, blocks of code. Reads what of GitHub's Markdown we use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +(?P<title>.+?) *$", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^()\s]+)\)|(?:src|srcset|href)=\"(?P<attribute>[^\"]+)\"")
_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """`line` is where its text begins, from 1."""

    language: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Page:
    path: Path
    text: str

    @property
    def name(self) -> str:
        return str(self.path.relative_to(CHECKOUT))

    @property
    def prose(self) -> str:
        """Everything but blocks of code, their lines left empty."""
        return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), self.text)

    @property
    def blocks(self) -> Iterator[Block]:
        for match in _FENCE.finditer(self.text):
            yield Block(match["language"], match["text"], self.text.count("\n", 0, match.start("text")) + 1)

    @property
    def headings(self) -> list[str]:
        return [match["title"] for match in _HEADING.finditer(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """Of the headings, as GitHub makes them."""
        return {_anchor(title) for title in self.headings}

    @property
    def links(self) -> list[str]:
        return [match["target"] or match["attribute"] for match in _LINK.finditer(_CODE.sub("``", self.prose))]

    @property
    def code(self) -> set[str]:
        """What stands between backticks in the prose."""
        return set(_CODE.findall(self.prose))


def pages() -> list[Page]:
    """Every page of the repository."""
    paths = [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")]
    return [page(str(path.relative_to(CHECKOUT))) for path in sorted(paths)]


def page(name: str) -> Page:
    path = CHECKOUT / name
    return Page(path, path.read_text())


def section(of: Page, title: str) -> str:
    """The text below heading `title`, up to the next heading."""
    match = re.search(rf"^#{{1,6}} +{re.escape(title)} *\n(.*?)(?=^#{{1,6}} |\Z)", of.text, re.DOTALL | re.MULTILINE)
    assert match is not None, f"{of.name}: no section {title}"
    return match[1]


def plain_lines(text: str) -> set[str]:
    """Its lines, without what differs from one run to the next: numbers, IDs, widths of columns, which is current."""
    without_ids = re.sub(r"\b[0-9a-f]{12}\b", "ID", text.replace("*", " "))
    without_numbers = re.sub(r"\b0[mhd]\b", "0s", re.sub(r"[0-9]+", "0", without_ids))
    return {" ".join(line.split()) for line in without_numbers.splitlines()}


def _anchor(title: str) -> str:
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
