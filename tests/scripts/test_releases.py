"""What becomes of changes: paragraphs in files of their own, a release that takes them up, a wheel that is complete."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SCRIPTS = CHECKOUT / "scripts"
CHANGELOG = (
    "# Changelog\n\nFor users.\n\n## Unreleased\n\n- The first version.\n\n## 0.0.1 (2026-01-01)\n\n- Nothing.\n"
)
PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "dom0"
requires-python = ">=3.11"
dynamic = ["version"]
[tool.hatch.version]
path = "src/dom0/__init__.py"
[tool.hatch.build.targets.wheel]
packages = ["src/dom0"]
"""


def run(directory: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=directory, check=False, capture_output=True, text=True)


def git(directory: Path, *argv: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *argv], cwd=directory, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small one with one change since 0.1.0, all of it committed."""
    files = {
        "CHANGELOG.md": CHANGELOG,
        "pyproject.toml": PYPROJECT,
        "src/dom0/__init__.py": '"""A package."""\n\n__version__ = "0.1.0"\n',
        "changes/README.md": "how\n",
        "changes/faster-start.md": "A start takes\nhalf the time.\n",
        ".gitignore": ".venv\ndist/\n",
    }
    directory = tmp_path / "checkout"
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (directory / "scripts").mkdir()
    for script in ("changes", "release"):
        shutil.copy(SCRIPTS / script, directory / "scripts")
    (directory / ".venv").symlink_to(CHECKOUT / ".venv")
    git(directory, "init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", "a"), ("user.email", "a@example.org")):
        git(directory, "config", key, value)
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", "all")
    return directory


@pytest.mark.parametrize("script", ["changes", "check-wheel", "durations", "release"])
def test_each_has_help_with_an_example(script: str) -> None:
    shown = run(CHECKOUT, str(SCRIPTS / script), "--help")
    assert shown.returncode == 0
    assert re.search(rf"^ *scripts/{script}", shown.stdout, re.MULTILINE)


# changes


def test_changes_are_shown_as_the_changelog_will_have_them(checkout: Path) -> None:
    (checkout / "changes" / "another.md").write_text(f"{'word ' * 40}end.\n")
    shown = run(checkout, "scripts/changes").stdout.splitlines()
    assert shown[0].startswith("- word word")
    assert shown[1].startswith("  word")
    assert shown[2:] == ["- A start takes half the time."]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("Upper.md", "A change.\n", "its name"),
        ("note.txt", "A change.\n", "its name"),
        ("no-end.md", "a change\n", "full stop"),
        ("empty.md", "", "full stop"),
        ("list.md", "- A change.\n- And one more.\n", "more than one paragraph"),
        ("long.md", "A change.\n\nAnd one more.\n", "more than one paragraph"),
    ],
)
def test_what_is_no_paragraph_is_named(checkout: Path, name: str, text: str, why: str) -> None:
    (checkout / "changes" / name).write_text(text)
    refused = run(checkout, "scripts/changes")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"changes/{name}: ")
    assert why in refused.stderr


# releases


def test_a_release_is_a_commit_a_tag_and_what_is_built_of_them(checkout: Path) -> None:
    done = run(checkout, "scripts/release", "0.2.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert (checkout / "src/dom0/__init__.py").read_text().endswith('__version__ = "0.2.0"\n')
    head, section, before = (checkout / "CHANGELOG.md").read_text().split("\n## ")
    assert head == "# Changelog\n\nFor users.\n"
    assert section.startswith("0.2.0 (2")
    assert section.endswith(")\n\n- The first version.\n- A start takes half the time.\n")
    assert before == "0.0.1 (2026-01-01)\n\n- Nothing.\n"
    assert [path.name for path in (checkout / "changes").iterdir()] == ["README.md"]
    assert git(checkout, "log", "-1", "--format=%s %D").strip() == "release: 0.2.0 HEAD -> main, tag: v0.2.0"
    assert git(checkout, "status", "--porcelain") == ""
    assert {path.name for path in (checkout / "dist").iterdir()} == {"dom0-0.2.0-py3-none-any.whl", "dom0-0.2.0.tar.gz"}


def test_the_next_release_begins_with_what_came_since(checkout: Path) -> None:
    run(checkout, "scripts/release", "0.2.0rc1")
    (checkout / "changes" / "more.md").write_text("One more.\n")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "more")
    assert run(checkout, "scripts/release", "0.2.0").returncode == 0
    sections = (checkout / "CHANGELOG.md").read_text().split("\n## ")
    assert [section.split()[0] for section in sections[1:]] == ["0.2.0", "0.2.0rc1", "0.0.1"]
    assert sections[1].endswith(")\n\n- One more.\n")


def test_a_dry_run_shows_the_section_and_changes_nothing(checkout: Path) -> None:
    shown = run(checkout, "scripts/release", "--dry-run", "0.2.0")
    assert shown.returncode == 0
    assert shown.stdout.startswith("0.1.0 becomes 0.2.0\n\n## 0.2.0 (2")
    assert shown.stdout.endswith("- The first version.\n- A start takes half the time.\n\n")
    assert git(checkout, "log", "--format=%s") == "all\n"
    assert git(checkout, "status", "--porcelain", "--ignored") == "!! .venv\n"
    assert git(checkout, "tag") == ""


@pytest.mark.parametrize(
    ("before", "version", "why"),
    [
        ("touch new", "0.2.0", "commit or remove this first:\n?? new"),
        ("echo >>CHANGELOG.md", "0.2.0", "commit or remove this first:\n M CHANGELOG.md"),
        ("git switch --quiet --create topic", "0.2.0", "this is branch topic"),
        ("git switch --quiet --detach", "0.2.0", "this is branch none"),
        ("git tag v0.2.0", "0.2.0", "v0.2.0: this tag exists"),
        ("true", "0.0.9", "is older than 0.1.0"),
        ("true", "0.1.0rc1", "is older than 0.1.0"),
        ("true", "v0.2", "is no version such as"),
        ("rm .venv", "0.2.0", ".venv/bin/python is missing: make dev"),
    ],
)
def test_a_release_does_not_begin_where_it_must_not(checkout: Path, before: str, version: str, why: str) -> None:
    subprocess.run(["sh", "-c", before], cwd=checkout, check=True)
    state = git(checkout, "status", "--porcelain")
    refused = run(checkout, "scripts/release", version)
    assert refused.returncode == 1
    assert refused.stderr.startswith("release: ")
    assert why in refused.stderr
    assert (git(checkout, "status", "--porcelain"), git(checkout, "log", "--format=%s")) == (state, "all\n")


@pytest.mark.parametrize(
    "fault", ["echo '[tool.hatch.build' >>pyproject.toml", "printf '#!/bin/sh\\nexit 1' >hook; chmod +x hook"]
)
def test_what_cannot_be_built_or_committed_leaves_all_as_it_was(checkout: Path, fault: str) -> None:
    subprocess.run(["sh", "-c", fault], cwd=checkout, check=True)
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "broken")
    (checkout / ".git/hooks/pre-commit").symlink_to(checkout / "hook")
    refused = run(checkout, "scripts/release", "0.2.0")
    assert refused.returncode == 1
    assert refused.stderr.startswith("release: ")
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "log", "-1", "--format=%s %D").strip() == "broken HEAD -> main"


# wheels


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["dom0/__main__.py", "dom0/testing/hosts.py"], "the test kit is in it"),
        (["dom0/__main__.py"], "dom0/data/images/ is not in it"),
    ],
)
def test_a_wheel_with_the_test_kit_or_without_its_data_is_refused(tmp_path: Path, names: list[str], why: str) -> None:
    wheel = tmp_path / "dom0-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    refused = run(tmp_path, str(SCRIPTS / "check-wheel"), str(wheel))
    assert (refused.returncode, why in refused.stderr) == (1, True), refused.stderr


# durations


def test_long_files_are_written_down_the_longest_first(tmp_path: Path) -> None:
    for name in ("tests/a/test_one.py", "tests/b/test_two.py", "tests/test_quick.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    times = [("tests.a.test_one", 6), ("tests.b.test_two.TestIt", 30), ("tests.a.test_one", 5), ("tests.test_quick", 9)]
    cases = "".join(f'<testcase classname="{name}" name="test" time="{seconds}.1"/>' for name, seconds in times)
    (tmp_path / "report.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert run(tmp_path, str(SCRIPTS / "durations"), "report.xml").returncode == 0
    found = json.loads((tmp_path / "tests/durations.json").read_text())
    assert list(found.items()) == [("tests/b/test_two.py", 30), ("tests/a/test_one.py", 11)]
