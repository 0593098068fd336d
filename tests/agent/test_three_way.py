"""Whose a file is, case by case, and over random histories of a project and a machine."""

from __future__ import annotations

import pytest

from dom0.agent.three_way import DIRECTORY, NEVER, FileAction, FileVersion, decide, done, under_way

A, B, C = (FileVersion(f"file 1 sha256:{name}", 0o644) for name in "abc")
FOLDER = FileVersion(DIRECTORY, 0o755)
SCRIPT = FileVersion(A.content, 0o755)

CASES = {
    "what was never there is placed": (None, NEVER, A, FileAction.CREATE, A),
    "what is there already is left": (A, NEVER, A, FileAction.NOTHING, A),
    "a file of the machine where the project brings one": (C, NEVER, A, FileAction.CONFLICT, C),
    "only the project changed": (A, (A,), B, FileAction.UPDATE, B),
    "only the machine changed": (C, (A,), A, FileAction.KEEP, C),
    "both changed": (C, (A,), B, FileAction.CONFLICT, C),
    "both changed to the same": (B, (A,), B, FileAction.NOTHING, B),
    "the machine removed it": (None, (A,), A, FileAction.KEEP, None),
    "the machine removed it, the project changed it": (None, (A,), B, FileAction.CONFLICT, None),
    "the project removed it": (A, (A,), None, FileAction.REMOVE, None),
    "the project removed what the machine changed": (C, (A,), None, FileAction.KEEP, C),
    "both removed it": (None, (A,), None, FileAction.NOTHING, None),
    "the project removed a directory": (FOLDER, (FOLDER,), None, FileAction.KEEP, FOLDER),
    "cut off before it was written, and back": (A, (A, B), A, FileAction.NOTHING, A),
    "cut off after it was written, and back": (B, (A, B), A, FileAction.UPDATE, A),
    "cut off, and the machine wrote": (C, (A, B), A, FileAction.CONFLICT, C),
    "the first placement was cut off": (None, (None, A), A, FileAction.CREATE, A),
    "a removal was cut off, and back": (None, (A, None), A, FileAction.CREATE, A),
    "the project changed its mode": (A, (A,), SCRIPT, FileAction.UPDATE, SCRIPT),
    "the machine changed its mode": (SCRIPT, (A,), A, FileAction.NOTHING, SCRIPT),
    "the machine its content, the project its mode": (
        C,
        (A,),
        SCRIPT,
        FileAction.UPDATE,
        FileVersion(C.content, 0o755),
    ),
    "the machine its owner, the project its content": (
        FileVersion(A.content, 0o644, 911, 911),
        (A,),
        B,
        FileAction.UPDATE,
        FileVersion(B.content, 0o644, 911, 911),
    ),
    "a link of the machine in the place of a file": (
        FileVersion("link /etc"),
        (A,),
        A,
        FileAction.KEEP,
        FileVersion("link /etc"),
    ),
    "a file becomes a directory": (A, (A,), FOLDER, FileAction.UPDATE, FOLDER),
}


@pytest.mark.parametrize("case", CASES)
def test_three_versions_decide(case: str) -> None:
    there, placed, theirs, action, wanted = CASES[case]
    step = decide(there, placed, theirs)
    assert (step.action, step.wanted) == (action, wanted)


def test_a_change_that_was_cut_off_is_known_as_ours_whichever_way_it_went() -> None:
    step = decide(A, (A,), B)
    for left in (A, B):
        assert decide(left, under_way((A,), step), A).wanted == A
        assert decide(left, under_way((A,), step), B).wanted == B


def test_between_a_file_and_the_directory_that_follows_it_nothing_may_be_there() -> None:
    placed = under_way((A,), decide(A, (A,), FOLDER))
    assert [decide(None, placed, theirs).action for theirs in (A, FOLDER)] == [FileAction.CREATE, FileAction.CREATE]


def test_a_conflict_stays_one_until_somebody_settles_it() -> None:
    step = decide(C, (A,), B)
    assert decide(C, done((A,), step), B).action is FileAction.CONFLICT
    assert decide(C, done((A,), step), A).action is FileAction.KEEP  # the project went back
    assert decide(C, (B,), B).action is FileAction.KEEP  # settled
