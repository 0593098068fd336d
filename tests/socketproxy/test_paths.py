"""Paths of the host that were granted: what the Engine is told, and what containers get of them."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.socketproxy import directories, paths
from dom0.socketproxy.context import Context
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.hostpath import HostPath
from dom0.socketproxy.scope import PATHS, Scope
from dom0.socketproxy.upstream import Upstream
from dom0.testing import scopes
from dom0.testing.hosts import Host

IMAGE = "busybox:test"
GRANTED = [HostPath.read(text) for text in ("/srv/a", "/srv/a/in:ro", "/srv/b:/data", "/srv/file:ro", "state:/var/s")]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("/srv/a", HostPath("/srv/a", "/srv/a", False)),
        ("/srv/a:ro", HostPath("/srv/a", "/srv/a", True)),
        ("/srv/a:/b", HostPath("/srv/a", "/b", False)),
        ("/srv/a:/b:ro", HostPath("/srv/a", "/b", True)),
        ("state:/b", HostPath("state", "/b", False)),
        ("/var/lib/dom0/project/a:/b", HostPath("/var/lib/dom0/project/a", "/b", False)),
    ],
)
def test_a_granted_path_is_read(text: str, read: HostPath) -> None:
    assert HostPath.read(text) == read


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a:ro", "./a", "/a/../b", "/a/", "//a", "/a:b", "/a:/b:/c", "/a:/b:rw", "/a\n", "/a:/"),
        *("/", "/var", "/var/lib", "/run", "/var/run", "/run/docker.sock", "/proc", "/proc/1/root", "/sys/fs", "/dev"),
        *("/var/lib/docker", "/var/lib/docker/volumes", "/run/dom0", "/var/lib/dom0", "/:/host:ro"),
        *("/var/lib/dom0/project", "/var/lib/dom0/project/../ssh", "/var/lib/dom0/projects"),
        *("/run/dom0/scopes", "/var/run/dom0/scopes", "/var/lib/dom0/ssh:ro", "/var/run/containerd", "/var/run/docker"),
    ],
)
def test_what_is_no_path_or_has_the_machine_in_it_is_no_grant(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|who has"):
        HostPath.read(text)


@pytest.mark.parametrize(
    ("asked", "root", "rest", "read_only"),
    [
        ("/srv/a", "/srv/a", "", False),
        ("/srv//a/./", "/srv/a", "", False),
        ("/srv/a/x/y", "/srv/a", "x/y", False),
        ("/srv/a/in", "/srv/a", "in", True),  # who can write in /srv/a decides what `in` is
        ("/srv/a/x/../in/y", "/srv/a", "in/y", True),
        ("/data/x", "/srv/b", "x", False),
        ("/srv/file", "/srv/file", "", True),
        ("/var/s/x", "state", "x", False),
    ],
)
def test_what_is_below_a_granted_path_is_a_part_of_it(asked: str, root: str, rest: str, read_only: bool) -> None:
    found = paths.find(GRANTED, asked, creates=True)
    assert found is not None
    assert (found.root, found.rest, found.read_only, found.creates) == (root, rest, read_only, not read_only)


@pytest.mark.parametrize("asked", ["/p/new", "/x/pub/new"])
def test_nothing_is_made_below_what_is_granted_to_read(asked: str) -> None:
    found = paths.find([HostPath.read(text) for text in ("/srv:/x:ro", "/srv/pub:/p")], asked, creates=True)
    assert found is not None
    assert (found.root, found.rest, found.creates) == ("/srv", "pub/new", False)


@pytest.mark.parametrize("asked", ["/srv", "/srv/ab", "/srv/a/../b", "/srv/b", "/", "", "srv/a", "/srv/a/../../etc"])
def test_nothing_else_is(asked: str) -> None:
    assert paths.find(GRANTED, asked, creates=True) is None


def test_levels_of_scopes_each_see_what_they_wrote() -> None:
    inner = paths.stamped({}, {"/m": "/inside/x"})
    outer = paths.stamped(inner, {"/m": "/outside/x"})
    assert paths.written(outer) == {"/m": "/outside/x"}
    assert paths.shown({"a": "b", **outer}) == {"a": "b", **inner}
    assert paths.shown({"a": "b", **inner}) == {"a": "b"}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"/m": "/x"}', '[{"/m": 1}]'])
def test_what_an_image_says_of_paths_is_nothing(text: str) -> None:
    assert paths.written({PATHS: text}) == {}
    assert paths.shown({PATHS: text}) == {}


def test_a_container_that_binds_nothing_says_so_whatever_its_image_says() -> None:
    assert paths.stamped({PATHS: "what it says"}, {}) == {PATHS: ""}
    assert paths.shown({"a": "b", **paths.stamped(paths.stamped({}, {}), {})}) == {"a": "b"}


GRANTS = """
images: {use: [busybox]}
paths: [/var/lib/guest, "/var/lib/media:ro", "/var/lib/mapped:/var/lib/dom0", "kept:/var/lib/kept", /var/lib/one.conf]
"""


class Guest(scopes.Scoped):
    """With its granted directories, as the host sees them."""

    def __init__(self, host: Host, socket: Path) -> None:
        super().__init__(host, socket)
        self.directory, self.media, self.mapped = (host.path(f"/var/lib/{n}") for n in ("guest", "media", "mapped"))

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.docker("inspect", name))[0]
        return found


@pytest.fixture
def guest(engine_host: Host, tmp_path: Path) -> Iterator[Guest]:
    for name in ("guest", "media", "mapped", "secret"):
        engine_host.run(["rm", "-rf", f"/var/lib/{name}"])
        engine_host.path(f"/var/lib/{name}").mkdir()
    engine_host.path("/var/lib/media/film").mkdir()
    engine_host.path("/var/lib/media/film/one").write_text("a film\n")
    engine_host.path("/var/lib/secret/canary").write_text("canary\n")
    engine_host.path("/var/lib/one.conf").write_text("one = 1\n")
    with scopes.served(engine_host, tmp_path, GRANTS) as path:
        yield Guest(engine_host, path)


@pytest.mark.engine
def test_a_granted_directory_and_what_is_below_it_are_bound(guest: Guest) -> None:
    (guest.directory / "etc").mkdir()
    (guest.directory / "etc/app.conf").write_text("app = 1\n")
    guest.docker("run", "--rm", "-v", "/var/lib/guest:/g", IMAGE, "sh", "-c", "echo whole >/g/whole")
    guest.docker("run", "--rm", "-v", "/var/lib/guest/new/dir:/n", IMAGE, "sh", "-c", "echo below >/n/below")
    assert (guest.directory / "whole").read_text() == "whole\n"
    assert (guest.directory / "new/dir/below").read_text() == "below\n"
    one = ("-v", "/var/lib/guest/etc/app.conf:/app.conf:ro", "-v", "/var/lib/one.conf:/one.conf")
    assert guest.docker("run", "--rm", *one, IMAGE, "cat", "/app.conf", "/one.conf") == "app = 1\none = 1\n"
    assert guest.docker("ps", "--all", "--quiet") == ""
    assert guest.docker("volume", "ls", "--quiet") == ""


@pytest.mark.engine
def test_a_read_only_grant_is_only_read(guest: Guest) -> None:
    for source in ("/var/lib/media", "/var/lib/media/film"):
        script = "cat $(find /m -name one); touch /m/x"
        ended = guest.run("run", "--rm", "-v", f"{source}:/m:rw", IMAGE, "sh", "-c", script)
        assert (ended.stdout, "Read-only file system" in ended.stderr) == ("a film\n", True)
    ended = guest.run("run", "--rm", "-v", "/var/lib/media/new:/m", IMAGE, "true")
    assert "bind source path does not exist: /var/lib/media/new" in ended.stderr
    assert not (guest.media / "new").exists()


@pytest.mark.engine
def test_what_a_killed_server_has_left_is_removed(
    guest: Guest, engine_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = paths.find([HostPath.read("/var/lib/guest")], "/var/lib/guest/below", creates=True)
    assert below is not None
    image = {"Id": IMAGE}

    async def ask() -> None:
        upstream = Upstream(str(engine_host.socket))
        try:
            await directories.provide(Context(Scope("guest"), Grants(), upstream, ""), image, [below])
        finally:
            await upstream.close()

    def provide() -> list[str]:
        """Names of all containers after that."""
        asyncio.run(ask())
        return engine_host.docker("ps", "--all", "--format", "{{.Names}}").stdout.split()

    for name, label in {"PATHS.guest.0123": "/guest", "PATHS.guest.mine": "", "PATHS.other.0123": "/other"}.items():
        engine_host.docker("create", "--name", name, "--label", f"dom0.scope={label}", IMAGE, "true")
    assert set(provide()) == {
        "PATHS.other.0123",
        "PATHS.guest.mine",
        "PATHS.guest.0123",
    }  # a server that hands over may have made it
    monkeypatch.setattr(directories, "_LEFT_AFTER", -60)
    assert set(provide()) == {"PATHS.other.0123", "PATHS.guest.mine"}
    assert guest.docker("ps", "--all", "--quiet") == ""


@pytest.mark.engine
def test_a_mount_of_what_is_missing_is_refused_as_by_the_engine(guest: Guest, engine_host: Host) -> None:
    mount = ("--mount", "type=bind,source=/var/lib/guest/none,target=/m")
    assert "bind source path does not exist: /var/lib/guest/none" in guest.run("run", *mount, IMAGE, "true").stderr
    assert engine_host.docker("ps", "--all", "--quiet").stdout == ""


@pytest.mark.engine
def test_a_mapped_path_is_elsewhere_on_the_host_and_seen_as_it_was_written(guest: Guest) -> None:
    binds = ["/var/lib/dom0:/lib", "/var/lib/dom0/ssh:/ssh:ro", "/var/lib/kept/deep:/kept"]
    volumes = [word for bind in binds for word in ("-v", bind)]
    (guest.mapped / "file").write_text("")
    mount = ("--mount", "type=bind,source=/var/lib/dom0/file,target=/file,readonly")
    guest.docker("create", "--name", "web", *volumes, *mount, "-v", "data:/data", IMAGE, "touch", "/lib/x", "/kept/y")
    seen = guest.inspect("web")
    assert sorted(seen["HostConfig"]["Binds"]) == sorted([*binds, "data:/data"])
    assert seen["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/var/lib/dom0/file", "Target": "/file", "ReadOnly": True}
    ]
    assert {(m["Type"], m["Source"], m["Destination"], m["RW"]) for m in seen["Mounts"]} == {
        ("bind", "/var/lib/dom0", "/lib", True),
        ("bind", "/var/lib/dom0/ssh", "/ssh", False),
        ("bind", "/var/lib/kept/deep", "/kept", True),
        ("bind", "/var/lib/dom0/file", "/file", False),
        ("volume", "", "/data", True),
    }
    assert seen["Config"]["Labels"] == {}
    assert "/var/lib/dom0/ssh" in guest.docker("ps", "--all", "--no-trunc", "--format", "{{.Mounts}}")
    guest.docker("start", "--attach", "web")
    assert (guest.mapped / "x").exists()
    assert (guest.mapped / "ssh").is_dir()


@pytest.mark.engine
def test_what_is_mounted_there_on_the_host_is_bound_and_stays_mounted(guest: Guest, engine_host: Host) -> None:
    """A volume that is unmounted would take along what it shares with the host."""
    for directory in ("/var/lib/guest", "/var/lib/guest/disk"):
        engine_host.run(["mkdir", "-p", directory])
        engine_host.run(["mount", "-t", "tmpfs", "none", directory])
        engine_host.run(["mount", "--make-shared", directory])
    engine_host.path("/var/lib/guest/disk/file").write_text("on the disk\n")
    try:
        volumes = ("-v", "/var/lib/guest/disk:/disk", "-v", "/var/lib/guest/other:/other")
        assert guest.docker("run", "--rm", *volumes, IMAGE, "cat", "/disk/file") == "on the disk\n"
        assert engine_host.path("/var/lib/guest/disk/file").read_text() == "on the disk\n"
    finally:
        engine_host.run(["umount", "/var/lib/guest/disk", "/var/lib/guest"])


@pytest.mark.engine
def test_docker_compose_binds_them_and_changes_nothing_the_second_time(guest: Guest, tmp_path: Path) -> None:
    (guest.directory / "conf").write_text("")
    file = tmp_path / "compose.yaml"
    file.write_text(
        textwrap.dedent(
            """
            name: shop
            services:
              web:
                image: busybox:test
                init: true
                command: [sleep, "1000"]
                volumes:
                  - /var/lib/guest/data:/data
                  - {type: bind, source: /var/lib/guest/conf, target: /conf, read_only: true}
                  - {type: bind, source: /var/lib/media/film, target: /film, bind: {create_host_path: false}}
              beside: {image: "busybox:test", init: true, command: [sleep, "1000"], volumes_from: [web]}
            """
        )
    )
    compose = ("compose", "--file", str(file))
    guest.docker(*compose, "up", "--detach")
    assert guest.docker(*compose, "exec", "-T", "beside", "ls", "/film", "/data") == "/data:\n\n/film:\none\n"
    before = guest.docker("ps", "--quiet")
    guest.docker(*compose, "up", "--detach")
    assert guest.docker("ps", "--quiet") == before
    guest.docker(*compose, "up", "--detach", "--force-recreate", "--timeout", "0")
    assert guest.docker(*compose, "exec", "-T", "web", "ls", "/film") == "one\n"


@pytest.mark.engine
@pytest.mark.parametrize("link", ["/", "/var/lib/secret", "../secret", "/proc/1/root", "/none"])
def test_a_link_out_of_a_granted_directory_leads_nowhere(guest: Guest, link: str) -> None:
    plant = f"mkdir -p /g/in && ln -s {link} /g/link && ln -s ../link /g/in/again"
    guest.docker("run", "--rm", "-v", "/var/lib/guest:/g", IMAGE, "sh", "-c", plant)
    for source in ("link", "in/again", "link/canary", "link/new"):
        ended = guest.run("run", "--rm", "-v", f"/var/lib/guest/{source}:/m", IMAGE, "ls", "-lR", "/m")
        assert "canary" not in ended.stdout
        assert ended.returncode != 0
        assert paths.LEADS_NOWHERE in ended.stderr or "not exist" in ended.stderr  # what there is, is not told
    assert guest.docker("ps", "--all", "--quiet", "--filter", "status=running") == ""


@pytest.mark.engine
def test_a_container_that_starts_again_follows_no_link_that_came_meanwhile(guest: Guest) -> None:
    guest.docker("create", "--name", "later", "-v", "/var/lib/guest/d:/m", IMAGE, "ls", "/m")
    assert guest.docker("start", "--attach", "later") == ""
    exchange = "rmdir /g/d && ln -s /var/lib/secret /g/d"
    guest.docker("run", "--rm", "-v", "/var/lib/guest:/g", IMAGE, "sh", "-c", exchange)
    ended = guest.run("start", "--attach", "later")
    assert (ended.returncode, ended.stdout) == (1, "")


@pytest.mark.engine
def test_a_scope_inside_binds_what_its_parent_maps(guest: Guest, engine_host: Host, tmp_path: Path) -> None:
    directory = tmp_path / "team"
    directory.mkdir()
    grants = 'images: {use: [busybox]}\npaths: ["/var/lib/guest/team:/srv", "state:/var/lib/dom0"]'
    outer = tmp_path / "docker.sock"
    with scopes.served(engine_host, directory, grants, scope="team", engine=outer) as path:
        team = Guest(engine_host, path)
        asked = ("-v", "/srv:/srv", "-v", "/var/lib/dom0/ssh:/ssh")
        team.docker("create", "--name", "web", *asked, IMAGE, "touch", "/srv/x", "/ssh/y")
        assert sorted(team.inspect("web")["HostConfig"]["Binds"]) == ["/srv:/srv", "/var/lib/dom0/ssh:/ssh"]
        seen = guest.inspect("team.web")["Mounts"]
        assert {(m["Type"], m["Source"] or m["Name"]) for m in seen} == {
            ("bind", "/var/lib/guest/team"),
            ("volume", "state"),
        }
        team.docker("start", "--attach", "web")
        assert (guest.directory / "team/x").exists()
        ended = team.run("run", "--rm", "-v", "/srv/below:/b", IMAGE, "true")
        assert "not through this socket" in ended.stderr
    listed = engine_host.docker("run", "--rm", "-v", "guest.state:/s", IMAGE, "ls", "/s/ssh")
    assert listed.stdout == "y\n"


@pytest.mark.parametrize("granted", [("/srv/a:ro", "/srv/a"), ("/srv/a", "/srv/a:ro")])
def test_what_is_granted_twice_can_be_written(granted: tuple[str, ...]) -> None:
    found = paths.find([HostPath.read(text) for text in granted], "/srv/a", creates=False)
    assert found is not None
    assert not found.read_only
