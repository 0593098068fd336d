"""Whose a file is, case by case, and over random histories of a project and a machine."""

from __future__ import annotations

import pytest

from dom0.agent.three_way import DIRECTORY, NEVER, Action, FileVersion, decide, done, under_way

A, B, C = (FileVersion(f"file 1 sha256:{name}", 0o644) for name in "abc")
FOLDER = FileVersion(DIRECTORY, 0o755)
SCRIPT = FileVersion(A.content, 0o755)

CASES = {
    "what was never there is placed": (None, NEVER, A, Action.CREATE, A),
    "what is there already is left": (A, NEVER, A, Action.NOTHING, A),
    "a file of the machine where the project brings one": (C, NEVER, A, Action.CONFLICT, C),
    "only the project changed": (A, (A,), B, Action.UPDATE, B),
    "only the machine changed": (C, (A,), A, Action.KEEP, C),
    "both changed": (C, (A,), B, Action.CONFLICT, C),
    "both changed to the same": (B, (A,), B, Action.NOTHING, B),
    "the machine removed it": (None, (A,), A, Action.KEEP, None),
    "the machine removed it, the project changed it": (None, (A,), B, Action.CONFLICT, None),
    "the project removed it": (A, (A,), None, Action.REMOVE, None),
    "the project removed what the machine changed": (C, (A,), None, Action.KEEP, C),
    "both removed it": (None, (A,), None, Action.NOTHING, None),
    "the project removed a directory": (FOLDER, (FOLDER,), None, Action.KEEP, FOLDER),
    "cut off before it was written, and back": (A, (A, B), A, Action.NOTHING, A),
    "cut off after it was written, and back": (B, (A, B), A, Action.UPDATE, A),
    "cut off, and the machine wrote": (C, (A, B), A, Action.CONFLICT, C),
    "the first placement was cut off": (None, (None, A), A, Action.CREATE, A),
    "a removal was cut off, and back": (None, (A, None), A, Action.CREATE, A),
    "the project changed its mode": (A, (A,), SCRIPT, Action.UPDATE, SCRIPT),
    "the machine changed its mode": (SCRIPT, (A,), A, Action.NOTHING, SCRIPT),
    "the machine its content, the project its mode": (
        C,
        (A,),
        SCRIPT,
        Action.UPDATE,
        FileVersion(C.content, 0o755),
    ),
    "the machine its owner, the project its content": (
        FileVersion(A.content, 0o644, 911, 911),
        (A,),
        B,
        Action.UPDATE,
        FileVersion(B.content, 0o644, 911, 911),
    ),
    "a link of the machine in the place of a file": (
        FileVersion("link /etc"),
        (A,),
        A,
        Action.KEEP,
        FileVersion("link /etc"),
    ),
    "a file becomes a directory": (A, (A,), FOLDER, Action.UPDATE, FOLDER),
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
    assert [decide(None, placed, theirs).action for theirs in (A, FOLDER)] == [Action.CREATE, Action.CREATE]


def test_a_conflict_stays_one_until_somebody_settles_it() -> None:
    step = decide(C, (A,), B)
    assert decide(C, done((A,), step), B).action is Action.CONFLICT
    assert decide(C, done((A,), step), A).action is Action.KEEP  # the project went back
    assert decide(C, (B,), B).action is Action.KEEP  # settled
