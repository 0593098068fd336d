"""One machine for all tests of a module: bringing one up takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.testing import api
from dom0.testing.foreign import Foreign
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine

PROJECT = "box"  # the name of every project in this folder


@pytest.fixture(scope="module")
def machine(session_host: Host, chain_images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A host with dom0-base and no project yet; afterwards it is as empty as before."""
    images = api.images(session_host.socket)
    yield Machine(session_host, tmp_path_factory.mktemp("project"))
    session_host.clean(keep=images)


@pytest.fixture(scope="module")
def foreign(machine: Machine) -> Foreign:
    return Foreign(machine, PROJECT)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git work tree around a project."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / ".git").mkdir()
    (tree / ".git/HEAD").write_text("ref: refs/heads/main\n")
    return tree
