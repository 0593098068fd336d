"""What `dom0 up` would do to files that are on the machine already, as rows of `dom0 plan`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from dom0.agent.file_status import FileInfo, FilesPlanRequest, FileState
from dom0.agent.files import Files
from dom0.agent.progress import Changes
from dom0.agent.versions import project_versions, spelled
from dom0.cli.client import Agent, AgentUnreachable
from dom0.cli.places import is_here
from dom0.images.contents import TreeEntry
from dom0.names import state_directory
from dom0.plan.preview import Action, Change

_ROWS: dict[FileState, tuple[Action, str]] = {
    FileState.UPDATE: ("update", "the project changed it"),
    FileState.REMOVE: ("remove", "it is no longer in the project"),
    FileState.CONFLICT: ("keep", "changed here and in the project: what is here stays"),
}
"""Without those that come: they are as many as the project has files, and take nothing from anybody."""


def file_changes(entries: Iterable[TreeEntry], stays: Callable[[str], bool]) -> list[Change]:
    """`entries`: what the agent would place; `stays`: what it would not remove. Raises ProjectError."""
    files = {spelled(path): version for path, version in project_versions(entries).items()}
    found: list[FileInfo] = []
    try:
        found = Agent().call("POST", "/v1/files/plan", list[FileInfo], body=FilesPlanRequest(files=files))
    except AgentUnreachable:  # then from the disk, for who may read it
        with contextlib.suppress(PermissionError):
            found = Files(state_directory() / "project", Changes()).preview(files) if is_here() else []
    told = [info for info in found if info.state in _ROWS and not (info.state is FileState.REMOVE and stays(info.path))]
    rows = ((info.path, *_ROWS[info.state]) for info in told)
    return [Change(action=action, kind="file", name=path, reason=reason) for path, action, reason in rows]
