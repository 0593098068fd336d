"""Keys that may log in: what is accepted, and what happens to the file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.run import Output

RunCommand = Callable[..., Output]


@pytest.fixture
def public_key(tmp_path: Path) -> Callable[[str], str]:
    """Makes a real key with a comment and returns its public line."""

    def make(comment: str) -> str:
        file = tmp_path / comment.replace("/", "_")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file], check=True)
        return file.with_suffix(".pub").read_text()

    return make


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ssh" / "authorized_keys"


def test_an_added_key_is_listed_by_its_fingerprint_and_removed_by_its_comment(
    dom0: RunCommand, public_key: Callable[[str], str], keys_file: Path
) -> None:
    line = public_key("me@here")
    printed = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=line, capture_output=True, text=True, check=True)
    fingerprint = printed.stdout.split()[1]
    assert dom0("ssh", "add", "-", stdin=line).stdout == f"added  {fingerprint}  me@here\n"
    assert keys_file.read_text() == line
    assert keys_file.stat().st_mode & 0o777 == 0o644
    assert fingerprint in dom0("ssh", "ls").stdout
    assert dom0("ssh", "rm", "me@here").code == 0
    assert keys_file.read_text() == ""


def test_a_key_that_is_known_is_not_added_twice(
    dom0: RunCommand, public_key: Callable[[str], str], keys_file: Path
) -> None:
    line = public_key("me@here")
    dom0("ssh", "add", "-", stdin=line)
    again = dom0("ssh", "add", "-", stdin=line + public_key("other"))
    assert [row.split()[0] for row in again.stdout.splitlines()] == ["known", "added"]
    assert len(keys_file.read_text().splitlines()) == 2


def test_programs_get_the_keys_that_were_added_and_removed(
    dom0: RunCommand, public_key: Callable[[str], str], keys_file: Path
) -> None:
    line = public_key("me@here")
    dom0("ssh", "add", "-", stdin=line)
    added = json.loads(dom0("ssh", "add", "-", "--json", stdin=line + public_key("other")).stdout)
    assert [key["comment"] for key in added] == ["other"]
    assert json.loads(dom0("ssh", "rm", "other", "--json").stdout) == added


HOSTILE = {
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n-----END OPENSSH PRIVATE KEY-----\n",
    "options": 'command="sh" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me\n',
    "another type inside": "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA== me\n",
    "no base64": "ssh-ed25519 ???? me\n",
    "a control character": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== \x1b[31mme\n",
    "a carriage return inside": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me\rssh-rsa x\n",
    "nothing": "\n# only a comment\n",
    "prose": "hello\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_plain_public_key_is_refused_and_nothing_is_written(
    dom0: RunCommand, keys_file: Path, text: str
) -> None:
    refused = dom0("ssh", "add", "-", stdin=text)
    assert refused.code == 2
    assert refused.stderr.startswith("dom0: standard input")
    assert "\x1b" not in refused.stderr
    assert not keys_file.exists()


def test_one_bad_line_among_good_ones_adds_none_and_is_named_by_its_number(
    dom0: RunCommand, public_key: Callable[[str], str], keys_file: Path
) -> None:
    refused = dom0("ssh", "add", "-", stdin=public_key("good") + "bad line\n")
    assert "standard input:2: 'bad'" in refused.stderr
    assert not keys_file.exists()


def test_removing_an_unknown_key_changes_nothing(
    dom0: RunCommand, public_key: Callable[[str], str], keys_file: Path
) -> None:
    dom0("ssh", "add", "-", stdin=public_key("me@here"))
    before = keys_file.read_text()
    refused = dom0("ssh", "rm", "me@here", "nobody")
    assert (refused.code, "nobody: no key" in refused.stderr) == (2, True)
    assert keys_file.read_text() == before


def test_a_comment_of_two_keys_is_too_little_to_remove_one(
    dom0: RunCommand, public_key: Callable[[str], str], tmp_path: Path
) -> None:
    first = public_key("same")
    for file in tmp_path.glob("same*"):
        file.unlink()
    dom0("ssh", "add", "-", stdin=first + public_key("same"))
    assert "is the comment of 2 keys" in dom0("ssh", "rm", "same").stderr
