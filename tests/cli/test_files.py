"""`dom0 files` asks the running dom0, and shows its answers."""

from __future__ import annotations

import json
from collections.abc import Callable

from dom0.agent.file_status import FileDiff, FileInfo, FileState
from dom0.run import Output
from dom0.testing.fake_agent import FakeAgent

RunCommand = Callable[..., Output]


def test_files_lists_what_the_machine_changed(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers["GET /v1/files"] = []
    assert dom0("files").stdout == "no file of the project was changed on this machine\n"
    infos = [FileInfo(path="a\x1b[2J", state=FileState.CHANGED), FileInfo(path="b", state=FileState.CONFLICT)]
    agent.answers["GET /v1/files"] = infos
    shown = dom0("files").stdout
    assert shown.splitlines()[0].split() == ["STATE", "PATH"]
    assert "\x1b[2J" not in shown
    assert "conflict  b" in shown
    assert [row["state"] for row in json.loads(dom0("files", "--json").stdout)] == ["changed", "conflict"]


def test_a_difference_is_printed_with_what_lines_do_not_show(agent: FakeAgent, dom0: RunCommand) -> None:
    diff = "--- machine/a\n+++ project/a\n@@ -1 +1 @@\n-mine\n+theirs\n"
    notes = ("mode: machine 600, project 644",)
    agent.answers["GET /v1/files/diff"] = FileDiff(path="a", state=FileState.CONFLICT, diff=diff, notes=notes)
    assert dom0("files", "diff", "a").stdout == f"a: {notes[0]}\n{diff}"
    agent.answers["GET /v1/files/diff"] = FileDiff(path="a", state=None)
    assert dom0("files", "diff", "a").stdout == "a: as the project says\n"


def test_what_is_settled_says_what_is_left(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers["POST /v1/files/take"] = [FileInfo(path="b", state=FileState.CONFLICT)]
    agent.answers["POST /v1/files/keep"] = [FileInfo(path="b", state=FileState.CHANGED)]
    assert dom0("files", "take", "a", "conf").stdout == "conflicts that are left: 1; see them: dom0 files\n"
    assert json.loads(agent.asked[-1][1]) == {"paths": ["a", "conf"]}
    assert dom0("files", "keep", "b").stdout == "no conflict is left\n"


def test_a_refusal_is_told(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.refusals["POST /v1/files/take"] = (400, {"message": "x: is no file of the project", "hint": "dom0 files"})
    refused = dom0("files", "take", "x")
    assert (refused.code, "is no file of the project" in refused.stderr) == (2, True)
