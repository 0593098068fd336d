"""How the machine's version of a file differs from the project's, as text for people. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from dom0.agent.three_way import FileVersion

LARGEST = 1024 * 1024  # bytes of one side; of larger files it is only said that they differ


def unified(name: str, machine: bytes | None, project: bytes | None) -> str | None:
    """From the machine's to the project's, without context beyond three lines; None where one is no text.

    None in the place of a content stands for no file.
    """
    try:
        before, after = ((content or b"").decode().splitlines(keepends=True) for content in (machine, project))
    except UnicodeDecodeError:
        return None
    if any("\0" in line for line in (*before, *after)):
        return None
    heads = ["/dev/null" if of is None else f"{who}/{name}" for who, of in (("machine", machine), ("project", project))]
    lines = difflib.unified_diff(before, after, heads[0], heads[1])
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def notes(machine: FileVersion | None, project: FileVersion | None) -> Iterator[str]:
    """What lines of text do not show."""
    if machine is None or project is None or machine.kind != project.kind:
        kinds = [version.kind if version else "none" for version in (machine, project)]
        yield f"machine: {kinds[0]}; project: {kinds[1]}"
        return
    if machine.kind == "link" and machine.content != project.content:
        yield f"machine: {machine.content}; project: {project.content}"
    if machine.mode != project.mode:
        yield f"mode: machine {machine.mode:o}, project {project.mode:o}"
    if (machine.uid, machine.gid) != (project.uid, project.gid):
        yield f"owner: machine {machine.uid}:{machine.gid}, project {project.uid}:{project.gid}"
    if machine.attributes != project.attributes:
        yield "capabilities: the machine's are others than the project's"
