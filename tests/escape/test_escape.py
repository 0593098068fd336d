"""Nothing gets out of a scoped socket. `make escape SOCKET=… ENGINE=…` tries the same on any other one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dom0.testing import api, busybox, hosts, scopes
from dom0.testing.escape import path_filter
from dom0.testing.escape.attempts import cases
from dom0.testing.escape.case import Case
from dom0.testing.escape.raw import Client
from dom0.testing.escape.world import GRANTS, World, loopback

PATHS = sorted({case.path for case in cases()})
ELSEWHERE = os.environ.get("DOM0_ESCAPE_SOCKET", "")  # of a proxy that somebody else runs, or a command with {socket}
ENGINE = os.environ.get("DOM0_ESCAPE_ENGINE", "/var/run/docker.sock")  # behind it
FILTERED = "path-filter"  # in place of a socket's path: the proxy for comparison

Ground = tuple[Client, World]
score = {"attempts": 0, "escapes": 0}


@pytest.fixture(scope="module", autouse=True)
def said_score() -> Iterator[None]:
    yield
    print(f"{score['escapes']} of {score['attempts']} attempts got out", file=sys.__stderr__)


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    if ELSEWHERE not in ("", FILTERED) and "{socket}" not in ELSEWHERE:
        with loopback(subprocess.Popen) as url:
            yield Client(Path(ELSEWHERE)), World(Path(ENGINE), Path("/"), image=busybox.IMAGE, loopback=url)
        return
    request.getfixturevalue("engines_possible")
    directory = tmp_path_factory.mktemp("scope")
    with hosts.Host() as host, loopback(host.popen) as url:
        if ELSEWHERE:
            with _other(host.socket, directory / "docker.sock") as path:
                yield Client(path), World(host.socket, host.path("/"), image=busybox.IMAGE, loopback=url)
            return
        with scopes.served(host, directory, GRANTS) as path:
            own = {"prefix": "guest.", "socket": str(path), "group": f"/{host.cgroup}/guest"}
            world = World(host.socket, host.path("/"), image=busybox.IMAGE, loopback=url, **own)
            yield Client(path), world


@contextmanager
def _other(engine: Path, path: Path) -> Iterator[Path]:
    """A proxy for comparison, that listens at `path`."""
    if ELSEWHERE == FILTERED:
        with path_filter.served(engine, path):
            yield path
        return
    with subprocess.Popen(shlex.split(ELSEWHERE.format(engine=engine, socket=path))) as server:
        try:
            while not api.is_answering(path):
                assert server.poll() is None, ELSEWHERE
                time.sleep(0.02)
            yield path
        finally:
            server.terminate()


def tried(ground: Ground, chosen: Callable[[Case], bool]) -> dict[str, list[str]]:
    """What each attempt got."""
    client, world = ground
    got = {}
    for case in filter(chosen, cases()):
        answers = case.attempt(client, world)
        got[case.title] = world.escapes(answers)
        world.clean()
    return got


@pytest.mark.engine
@pytest.mark.parametrize("path", PATHS)
def test_no_way_out(ground: Ground, path: int) -> None:
    got = tried(ground, lambda case: case.path == path)
    escapes = {title: what for title, what in got.items() if what}
    score["attempts"] += len(got)
    score["escapes"] += len(escapes)
    assert not escapes, f"{len(escapes)} of {len(got)}: {escapes}"


@pytest.mark.engine
def test_the_oracle_sees_what_gets_through_a_filter_of_paths(engines_possible: None, tmp_path: Path) -> None:
    with hosts.Host() as host, path_filter.served(host.socket, tmp_path / "docker.sock") as path:
        world = World(host.socket, host.path("/"), image=busybox.IMAGE, loopback="")
        got = tried((Client(path), world), lambda case: case.path in (1, 2, 5, 13, 14))
    through = sum(bool(what) for what in got.values())
    assert through > len(got) // 2, got
