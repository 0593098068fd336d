"""A root container that `dom0 up` starts before it knows whether it may."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dom0.cli.root_start import RootStart
from dom0.errors import ProjectError
from dom0.names import ROOT
from dom0.plan.labels import AWAITS, BUILDS
from dom0.testing.hosts import Host


@pytest.fixture
def host(engine_host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """With a dom0:latest that ends at once."""
    monkeypatch.setenv("DOCKER_HOST", engine_host.docker_host)
    monkeypatch.setenv("DOM0_RUN", str(tmp_path))
    made = engine_host.docker("create", "busybox:test", "true").stdout.strip()
    awaits = ["--change", f"LABEL {AWAITS}=", "--change", f"LABEL {BUILDS}={{}}"]
    engine_host.docker("commit", "--change", 'CMD ["true"]', *awaits, made, "dom0:latest")
    engine_host.docker("rm", made)
    return engine_host


def names(host: Host) -> list[str]:
    return host.docker("ps", "--all", "--format", "{{.Names}}").stdout.split()


def test_it_stays_when_it_was_accepted(host: Host) -> None:
    with RootStart() as root:
        root.begin()
        assert root.is_pending
        root.accept()
        assert root.await_start()
    assert names(host) == [ROOT]
    started = host.docker("inspect", "--format", '{{.State.StartedAt}} {{index .Config.Labels "dom0.awaits"}}', ROOT)
    assert not started.stdout.startswith("0001")
    assert started.stdout.split()[1] == "up"


def test_it_is_removed_when_the_command_is_ended(host: Host) -> None:
    def interrupted() -> None:
        with RootStart() as root:
            root.begin()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(host) == []


def test_a_container_of_somebody_else_with_its_name_is_left_alone(host: Host) -> None:
    host.docker("create", "--name", ROOT, "busybox:test", "true")
    with RootStart() as root:
        root.begin()
        assert not root.is_pending
    assert names(host) == [ROOT]
    assert host.docker("inspect", "--format", "{{.State.Status}}", ROOT).stdout.strip() == "created"


def created(host: Host, began: float) -> int:
    """How many root containers were since then: the Engine keeps its last 256 events only."""
    span = ["--since", f"{began:.6f}", "--until", f"{time.time():.6f}"]  # a duration is cut to whole seconds
    events = [*span, "--filter", "event=create", "--filter", f"container={ROOT}"]
    return len(host.docker("events", *events).stdout.splitlines())


def test_it_is_removed_where_its_image_is_not_the_projects(host: Host, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    began = time.time()
    with RootStart() as root:
        assert root.begin_if_current(project) == ""
        assert not root.is_pending
        assert names(host) == []
    assert created(host, began) == 1


def test_it_is_removed_where_the_project_cannot_be_read(host: Host, tmp_path: Path) -> None:
    began = time.time()
    with pytest.raises(ProjectError), RootStart() as root:
        root.begin_if_current(tmp_path / "missing")
    assert names(host) == []
    assert created(host, began) == 1
