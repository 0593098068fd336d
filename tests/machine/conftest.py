"""One machine for all tests of a module: bringing one up takes seconds.

Some modules run twice: on a machine of their own, and on one that is a guest in another one, with its Engine through a
scoped socket. What such a machine does otherwise is in scoped.toml: those tests fail there, and one that does not fails
the run.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.run import CommandFailed
from dom0.testing import api
from dom0.testing.foreign import Foreign
from dom0.testing.hosts import Host
from dom0.testing.machines import GuestMachine, Machine

PROJECT = "box"  # the name of every project in this folder
SCOPED = Path(__file__).with_name("scoped.toml")
IN_A_SCOPE = os.environ.get("DOM0_TEST_IN_A_SCOPE", "test_reconciliation test_login").split()
FAILURES = (AssertionError, CommandFailed, api.EngineRefused)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "machine" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in IN_A_SCOPE:
        metafunc.parametrize("machine", ["raw", "scoped"], indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    refused = {test: why for why, said in tomllib.loads(SCOPED.read_text()).items() for test in said["tests"]}
    for item in items:
        test, callspec = item.name.partition("[")[0], getattr(item, "callspec", None)
        if test in refused and callspec is not None and callspec.params.get("machine") == "scoped":
            item.add_marker(pytest.mark.xfail(reason=refused[test], raises=FAILURES, strict=True))


@pytest.fixture(scope="module")
def machine(
    request: pytest.FixtureRequest,
    session_host: Host,
    chain_images: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Machine]:
    """A host with dom0-base and no project yet; afterwards it is as empty as before."""
    images = api.images(session_host.socket)
    project = tmp_path_factory.mktemp("project")
    try:
        if getattr(request, "param", "raw") == "scoped":
            yield GuestMachine(session_host, project, tmp_path_factory.mktemp("owner"))
        else:
            yield Machine(session_host, project)
    finally:
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
