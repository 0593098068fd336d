"""Measurements as text, and the page they are on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Row:
    """One line: what was measured, with what beside it, and what it should reach.

    `unit` is s, ms, MB or %; samples are in seconds for s and ms. Without `other` there is no ratio.
    """

    what: str
    dom0: Sequence[float]
    other: Sequence[float] = ()
    beside: str = ""  # the command of `other`
    unit: str = "s"
    goal: str = ""
    reached: bool | None = None

    @property
    def value(self) -> float:
        return median(self.dom0)

    @property
    def ratio(self) -> float:
        return self.value / median(self.other)


def at_most_ratio(what: str, dom0: Sequence[float], other: Sequence[float], beside: str, goal: float) -> Row:
    reached = median(dom0) <= goal * median(other)
    return Row(what, dom0, other, beside, goal=f"≤ {goal:g}", reached=reached)


def at_most_more(what: str, dom0: Sequence[float], other: Sequence[float], beside: str, more: float) -> Row:
    """At most `more` seconds above the other."""
    reached = median(dom0) <= median(other) + more
    return Row(what, dom0, other, beside, unit="ms", goal=f"≤ +{more * 1000:g} ms", reached=reached)


def at_most(what: str, dom0: Sequence[float], goal: float, unit: str) -> Row:
    shown = goal * 1000 if unit == "ms" else goal
    return Row(what, dom0, unit=unit, goal=f"≤ {shown:g} {unit}", reached=median(dom0) <= goal)


def table(rows: Sequence[Row]) -> str:
    lines = ["| | dom0 | beside it | | ratio | to reach | |", "|---|---:|---:|---|---:|---:|---|"]
    lines += [_line(row) for row in rows]
    return "\n".join(lines)


def _line(row: Row) -> str:
    other = ratio = ""
    if row.other:
        other, ratio = _amount(row.other, row.unit), f"{row.ratio:.2f}"
    verdict = {None: "", True: "yes", False: "**no**"}[row.reached]
    beside = f"`{row.beside}`" if row.beside else ""
    return f"| {row.what} | {_amount(row.dom0, row.unit)} | {other} | {beside} | {ratio} | {row.goal} | {verdict} |"


def _amount(samples: Sequence[float], unit: str) -> str:
    value = median(samples)
    match unit:
        case "ms":
            return f"{value * 1000:.0f} ms"
        case "s":
            return f"{value:.2f} s"
        case "MB":
            return f"{value:.1f} MB"
        case "MiB":
            return f"{value:.0f} {unit}"
        case _:
            return f"{value:.2f} {unit}"


def write_section(path: Path, title: str, text: str) -> None:
    """Put `text` below the page's heading `## title`, instead of what is there; other sections stay."""
    page = path.read_text()
    section = f"## {title}\n\n{text}\n"
    found = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if found.search(page):
        page = found.sub(lambda match: section if match.end() == len(page) else f"{section}\n", page)
    else:
        page = f"{page.rstrip()}\n\n{section}"
    path.write_text(page)
