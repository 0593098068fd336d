"""What the browser is given: how much it is, and that nothing in it can run what comes from outside."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from dom0.web.page import ASSETS, SECURITY

FIRST_VIEW = 60_000  # bytes, compressed: all that there is
SCRIPTS = sorted(ASSETS.glob("*.js"))
SINKS = re.compile(
    r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|createContextualFragment|srcdoc"
)


def test_all_of_the_page_is_small() -> None:
    assert sum(len(gzip.compress(file.read_bytes())) for file in ASSETS.iterdir()) < FIRST_VIEW


@pytest.mark.parametrize("script", [pytest.param(file, id=file.name) for file in SCRIPTS])
def test_no_script_makes_markup_of_text(script: Path) -> None:
    code = re.sub(r"^\s*//.*$", "", script.read_text(), flags=re.MULTILINE)
    assert not SINKS.search(code)
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", code)


def test_the_markup_has_no_script_and_no_style_of_its_own() -> None:
    markup = (ASSETS / "index.html").read_text()
    assert re.findall(r"<script[^>]*>(.*?)</script>", markup, re.DOTALL) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", markup)


def test_the_policy_of_the_page_allows_nothing_unsafe() -> None:
    policy = dict(SECURITY)["Content-Security-Policy"]
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert "unsafe" not in policy
    assert directives["default-src"] == directives["frame-ancestors"] == directives["base-uri"] == "'none'"
    assert directives["require-trusted-types-for"] == "'script'"
