"""The project's files on this machine: placed, asked about, and settled by a person where both sides changed one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from dom0.agent import file_diff
from dom0.agent.file_status import FileDiff, FileInfo, FileState
from dom0.agent.placement import FileSteps, Placement, versions_of
from dom0.agent.progress import Changes
from dom0.agent.three_way import FileAction, FileStep, FileVersion
from dom0.agent.versions import read_content, spelled
from dom0.errors import UsageError
from dom0.health import Problem, Severity

MOST_PROBLEMS = 10
_PLANNED = {
    FileAction.CREATE: FileState.CREATE,
    FileAction.UPDATE: FileState.UPDATE,
    FileAction.REMOVE: FileState.REMOVE,
    FileAction.CONFLICT: FileState.CONFLICT,
}


class Files:
    """Every call raises Unwritable and ProjectError; whose `paths` are none of the project's, UsageError."""

    def __init__(self, target: Path, changed: Changes) -> None:
        self._changed = changed  # told when a person has settled something
        self.conflicts: tuple[str, ...] = ()  # as of the last look
        self._placement = Placement(target)
        self._files: Path | None = None  # those of the current generation

    def place(self, files: Path) -> None:
        self._files = files
        self._note(self._placement.place(files))

    def survey(self) -> list[FileInfo]:
        """What the machine changed."""
        return self._note(self._look())

    def take(self, paths: Sequence[str]) -> list[FileInfo]:
        return self._settle(self._placement.take(self._current(), paths))

    def keep(self, paths: Sequence[str]) -> list[FileInfo]:
        return self._settle(self._placement.keep(self._current(), paths))

    def preview(self, theirs: dict[str, FileVersion]) -> list[FileInfo]:
        """What placing a project that says `theirs` would do."""
        steps = self._placement.plan(theirs, self._placement.record(self._files))
        return [
            FileInfo(path=spelled(path), state=_PLANNED[step.action])
            for path, step in steps.items()
            if step.action in _PLANNED
        ]

    def diff(self, path: str) -> FileDiff:
        found = next(((own, step) for own, step in self._look().items() if spelled(own) == path and step.theirs), None)
        if found is None:
            raise UsageError(f"{path}: is no file of the project", hint="dom0 files lists what the machine changed")
        own, step = found
        notes = list(file_diff.notes(step.there, step.theirs))
        text: str | None = ""
        if all(version is None or version.kind == "file" for version in (step.there, step.theirs)):
            roots = {self._placement.target: step.there, self._current(): step.theirs}
            sides = [read_content(root, own, most=file_diff.LARGEST) for root in roots]
            unread = any(
                side is None and version is not None for side, version in zip(sides, roots.values(), strict=True)
            )
            text = None if unread else file_diff.unified(path, *sides)
        if text is None:
            notes.insert(0, "binary or large files differ")
        return FileDiff(path=path, state=_state(step), diff=text or "", notes=tuple(notes))

    @property
    def problems(self) -> tuple[Problem, ...]:
        told = []
        for path in self.conflicts[:MOST_PROBLEMS]:
            title, typed = "changed here and in the project: what is here stays", shlex.quote(path)
            hint = f"see how: dom0 files diff {typed}; then dom0 files take {typed} (the project's), or keep"
            told.append((path, title, hint))
        if (others := len(self.conflicts) - MOST_PROBLEMS) > 0:
            title = f"{others} more files were changed here and in the project: what is here stays"
            told.append(("files", title, "which ones: dom0 files"))
        return tuple(
            Problem(code="file-conflict", subject=subject, title=title, severity=Severity.WARNING, hint=hint)
            for subject, title, hint in told
        )

    def _look(self) -> FileSteps:
        files = self._current()
        return self._placement.plan(versions_of(files), self._placement.record(files))

    def _settle(self, steps: FileSteps) -> list[FileInfo]:
        infos = self._note(steps)
        self._changed.tell()
        return infos

    def _note(self, steps: FileSteps) -> list[FileInfo]:
        states = {spelled(path): _state(step) for path, step in steps.items()}
        infos = [FileInfo(path=path, state=state) for path, state in states.items() if state is not None]
        self.conflicts = tuple(info.path for info in infos if info.state is FileState.CONFLICT)
        return infos

    def _current(self) -> Path:
        if self._files is None:
            raise UsageError("files: there is no generation yet", hint="dom0 status")
        return self._files


def _state(step: FileStep) -> FileState | None:
    """Of a path of the project as it is after a placement; None: the machine has what the project says.

    Rights alone are not told: many an image gives itself what is bound into it at every start.
    """
    if step.action is FileAction.CONFLICT:
        return FileState.CONFLICT
    if step.theirs is None or (step.wanted is not None and step.wanted.content == step.theirs.content):
        return None
    return FileState.CHANGED if step.wanted is not None else FileState.REMOVED
