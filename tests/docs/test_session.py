"""The first session of the README, replayed in its order on a real Engine: what it prints is what the page shows.

What differs from run to run (times, IDs, sizes, places) is masked on both sides.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from dom0.testing import chain
from dom0.testing.hosts import Host
from dom0.testing.pages import CHECKOUT, page

pytestmark = [pytest.mark.chain, pytest.mark.timeout(900)]

LOOKS = ("dom0 status", "dom0 tree", "dom0 history")  # they change nothing: asked again until they say what is shown
SOURCES = ("src", "images", "examples", "scripts")  # stay as they are now, whatever somebody edits meanwhile
PATIENCE = 60.0  # seconds
MASKS = (
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "DATE"),
    (r"\b\d\d \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3}\b", "DATE"),
    (r"\b\d\.\d{3} seconds\b", "A MOMENT"),
    (r"(?<![0-9a-f])[0-9a-f]{12}(?![0-9a-f])", "ID"),
    (r"^ *\d+\.\ds ", "SECONDS "),
    (r"\(\d+\.\d s\)", "(SECONDS)"),
    (r"\b\d+[smhd]\b", "AGE"),
    (r"\bEngine \d\S*", "Engine VERSION"),
    (r": (unchanged|Python 3\.\S+, requirements\S*\.lock)$", ": READY"),
    (r" {2,}", "  "),
)


def session() -> Iterator[tuple[str, str]]:
    """What is typed, and what comes."""
    for block in page("README.md").blocks:
        if block.language == "console":
            for typed in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, output = typed.partition("\n")
                yield command, output


def masked(text: str) -> str:
    for pattern, word in MASKS:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


class Person:
    """At a keyboard of the host, in a checkout that can be written to without anybody noticing outside."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._home = host.root / "home"
        self._home.mkdir()
        upper, work = host.root / "checkout", host.root / "checkout-work"
        upper.mkdir()
        work.mkdir()
        layers = f"lowerdir={CHECKOUT},upperdir={upper},workdir={work}"
        host.run(["mount", "-t", "overlay", "-o", layers, "overlay", str(CHECKOUT)])
        for name in SOURCES:
            copy = host.root / "sources" / name
            shutil.copytree(CHECKOUT / name, copy, symlinks=True)
            host.run(["mount", "--bind", str(copy), str(CHECKOUT / name)])

    def type(self, command: str) -> str:
        path = f"{CHECKOUT}/.venv/bin:{self._host.environment()['PATH']}"
        env = {"HOME": str(self._home), "PATH": path, "COLUMNS": "120"}
        argv = ["bash", "-c", f"{command} 2>&1"]
        said = self._host.run(argv, check=False, timeout=600, env=env, cwd=CHECKOUT).stdout
        return said.replace(str(self._home), "/home/you").replace(str(CHECKOUT), "/home/you/dom0")

    def until(self, command: str, expected: str) -> str:
        deadline = time.monotonic() + PATIENCE
        while masked(said := self.type(command)) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        return said


@pytest.fixture
def person(fresh_host: Callable[..., Host]) -> Person:
    host = fresh_host(outside=True)
    chain.provide(host)
    return Person(host)


def test_the_first_session_prints_what_the_readme_shows(person: Person) -> None:
    person.type("make up")  # the first time it says what it installs and builds
    person.type("dom0 up --wait examples/mybox")  # whether it stays well: the person reads so long
    steps = list(session())
    assert len(steps) > 5
    for command, output in steps:
        expected = masked(output)
        said = person.until(command, expected) if command.startswith(LOOKS) else person.type(command)
        assert masked(said) == expected, f"$ {command}\n{said}"


def test_masks_hide_what_differs_and_nothing_else() -> None:
    one = "   1.0s  stop 28264be1651d_web (0.3 s)\nweb  web-1  ready  8s   box\n"
    assert masked(one) == masked("  21.9s  stop 684e9d2dadf7_web (1.1 s)\nweb    web-1    ready    2m   box")
    assert masked(one) != masked(one.replace("ready", "failed"))
