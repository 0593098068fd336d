"""Names of images: what a scope calls its own, beside those that were granted and those that are nobody's business."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tarfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dom0.engine.layer import pack
from dom0.socketproxy import images
from dom0.socketproxy.grants import Grants, Images
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import Scope
from dom0.testing import api, scopes
from dom0.testing import registry as registry_program
from dom0.testing.hosts import Host
from dom0.testing.scopes import Scoped
from dom0.testing.tars import tar_of

IMAGE = "busybox:test"
GRANTS = "images: {use: [busybox], own: 4}"
OWN = "dom0.invalid/guest/"


@pytest.fixture
def guest(engine_host: Host, tmp_path: Path) -> Iterator[Scoped]:
    with scopes.served(engine_host, tmp_path, GRANTS) as path:
        yield Scoped(engine_host, path)


def names(host: Host) -> set[str]:
    return {name for name in api.images(host.socket) if not name.startswith("sha256:")}


@pytest.fixture
def before(engine_host: Host) -> set[str]:
    """IMAGE, and what tests of whole machines keep on this Engine for the next of theirs."""
    return names(engine_host)


def listed(scoped: Scoped, *more: str) -> set[str]:
    return set(scoped.docker("images", "--format", "{{.Repository}}:{{.Tag}}", *more).split())


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ("app:dev", "app:dev"),
        ("team/app:1.0_x", "team/app:1.0_x"),
        ("ghcr.io/team/app:1", "ghcr.io/team/app:1"),
        ("dom0.invalid/team/app:1", "dom0.invalid/team/app:1"),
    ],
)
def test_a_name_of_ones_own_has_the_scopes_in_front(asked: str, own: str) -> None:
    assert Scope("guest").long_image(asked) == OWN + own
    assert Scope("guest").short_image(OWN + own) == asked


@pytest.mark.parametrize(
    "asked",
    ["App:1", "localhost:5000/app:1", "a/../b:1", "a//b:1", "/a:1", "a@sha256:" + "0" * 64, ":1", "a:", "a:/b", "é:1"],
)
def test_what_is_no_name_is_refused(asked: str) -> None:
    with pytest.raises(Refused):
        Scope("guest").long_image(asked)


def test_no_wildcard_means_what_another_scope_calls_its_own() -> None:
    everything = Grants(images=Images(use=("*",)))
    assert everything.may_use("private/secret:1")
    assert not everything.may_use("dom0.invalid/other/app:1")
    assert Grants(images=Images(use=("dom0.invalid/other/*",))).may_use("dom0.invalid/other/app:1")


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        *[("guest/app:1", True), ("guest/app", True), ("guest/*", True), ("g*t/a?p:*", True), ("*/*", True)],
        *[("app", False), ("*", False), ("guest/ap", False), ("guest/app:1/x", False), ("gues?", False)],
        *[("guest/[a]pp", False), ("guest/app.1", False), ("guest", False), ("", False)],
    ],
)
def test_a_pattern_is_of_the_whole_name_part_by_part(pattern: str, fits: bool) -> None:
    assert images.like([pattern])("guest/app:1") is fits


def test_a_pattern_with_many_wildcards_takes_no_time() -> None:
    assert not images.like(["*a" * 100 + "b", "*" * 5000 + "b", "*?" * 300])("a" * 200 + ":1")


def test_what_a_container_has_of_its_image() -> None:
    config = {"Cmd": ["a"], "Entrypoint": None, "Env": ["B=c"], "Healthcheck": {"Test": ["CMD", "d"]}, "User": "e"}
    assert images.command({"Config": config}) == ["a"]
    assert images.environment({"Config": config}) == ["B=c", "CMD", "d"]
    for nothing in (None, {"Healthcheck": None}):
        assert images.command({"Config": nothing}) == images.environment({"Config": nothing}) == []


@pytest.mark.engine
def test_a_name_that_is_given_is_the_scopes_own(guest: Scoped, before: set[str], engine_host: Host) -> None:
    engine_host.docker("tag", IMAGE, "app:dev")
    guest.docker("tag", IMAGE, "app:dev")
    assert names(engine_host) == before | {"app:dev", f"{OWN}app:dev"}
    assert listed(guest) == {IMAGE, "app:dev"}
    assert listed(guest, "app") == listed(guest, "a*:dev") == {"app:dev"}
    assert listed(guest, "b*:dev") == set()
    assert json.loads(guest.docker("inspect", "app:dev"))[0]["RepoTags"] == ["app:dev", IMAGE]
    assert json.loads(
        guest.client.ask("GET", "/images/app:dev/history", patience=60).content.partition(b"\r\n\r\n")[2]
    )[0]["Tags"] == ["app:dev", IMAGE]
    guest.docker("run", "-d", "--init", "--name", "web", "app:dev", "sleep", "1000")
    assert guest.docker("ps", "--format", "{{.Image}}", "--filter", "ancestor=app:dev") == "app:dev\n"
    assert json.loads(guest.docker("inspect", "web"))[0]["Config"]["Image"] == "app:dev"


@pytest.mark.engine
def test_only_names_of_ones_own_are_removed(guest: Scoped, before: set[str], engine_host: Host) -> None:
    engine_host.docker("tag", IMAGE, "app:dev")
    guest.docker("tag", IMAGE, "app:dev")
    guest.docker("tag", "app:dev", "app:2")
    image_id = guest.docker("images", "--quiet", "--no-trunc", "app:dev").strip()
    assert "not a name of this scope's own" in guest.docker("rmi", "--force", IMAGE, check=False)
    assert "No such image" in guest.docker("rmi", "other:1", check=False)
    assert guest.docker("rmi", "app:2") == "Untagged: app:2\n"
    assert names(engine_host) == before | {"app:dev", f"{OWN}app:dev"}
    assert guest.docker("rmi", image_id) == "Untagged: app:dev\n"
    assert "not a name of this scope's own" in guest.docker("rmi", "--force", image_id, check=False)
    assert names(engine_host) == before | {"app:dev"}


@pytest.mark.engine
def test_a_commit_is_the_scopes_own_and_goes_when_its_last_name_does(
    guest: Scoped, before: set[str], engine_host: Host
) -> None:
    guest.docker("run", "--name", "made", IMAGE, "sh", "-c", "echo new >/new")
    assert "nobody's: give it one" in guest.docker("commit", "made", check=False)
    guest.docker("commit", "--change", "ENV A=b", "made", "app:dev")
    assert guest.docker("run", "--rm", "app:dev", "sh", "-c", "cat /new; echo $A") == "new\nb\n"
    assert "not through this socket" in guest.docker("commit", "-c", "ONBUILD RUN true", "made", "app:dev", check=False)
    assert names(engine_host) == before | {f"{OWN}app:dev"}
    guest.docker("image", "prune", "--force")
    assert listed(guest) == {IMAGE, "app:dev"}
    guest.docker("image", "prune", "--all", "--force")
    assert names(engine_host) == before


@pytest.mark.engine
def test_there_are_so_many_names_and_no_more(guest: Scoped) -> None:
    for number in range(4):
        guest.docker("tag", IMAGE, f"app:{number}")
    guest.docker("tag", IMAGE, "app:0")
    assert "4 names of images are all that was granted" in guest.docker("tag", IMAGE, "app:4", check=False)
    guest.docker("rmi", "app:0")
    with ThreadPoolExecutor() as together:
        named = [together.submit(guest.run, "tag", IMAGE, f"app:at-once-{number}") for number in range(4)]
    assert sorted(ended.result().returncode for ended in named) == [0, 1, 1, 1]


@pytest.mark.engine
def test_what_others_have_is_no_image(guest: Scoped, engine_host: Host) -> None:
    engine_host.docker("run", "--name", "foreign", IMAGE, "sh", "-c", "echo secret >/secret")
    for name in ("private:1", "dom0.invalid/other/app:1"):
        engine_host.docker("commit", "foreign", name)
        assert "No such image" in guest.docker("tag", name, "stolen", check=False)
        assert "No such" in guest.docker("image", "inspect", name, check=False)
    image_id = api.images(engine_host.socket)["private:1"]
    assert "No such image" in guest.docker("tag", image_id, "stolen", check=False)
    assert "No such container" in guest.docker("commit", "foreign", "stolen", check=False)
    assert listed(guest) == {IMAGE}


@pytest.mark.engine
def test_a_grant_is_named_where_it_would_help(guest: Scoped) -> None:
    assert 'it would take the grant images: {use: ["other:1"]}' in guest.docker("tag", "other:1", "own", check=False)
    for command in (("rmi", "other:1"), ("tag", "dom0.invalid/inner/other:1", "own")):
        assert "grant" not in guest.docker(*command, check=False)


@pytest.mark.engine
def test_names_stack_as_scopes_do(guest: Scoped, before: set[str], engine_host: Host, tmp_path: Path) -> None:
    directory = tmp_path / "team"
    directory.mkdir()
    guest.docker("tag", IMAGE, "base:1")
    with scopes.served(engine_host, directory, "images: {use: [base]}", scope="team", engine=guest.path) as path:
        team = Scoped(engine_host, path)
        team.docker("tag", "base:1", "app:dev")
        assert names(engine_host) == before | {f"{OWN}base:1", f"{OWN}dom0.invalid/team/app:dev"}
        assert listed(team) == {"base:1", "app:dev"}
        assert listed(guest) == {IMAGE, "base:1", "dom0.invalid/team/app:dev"}
        assert team.docker("run", "--rm", "app:dev", "echo", "runs") == "runs\n"
        assert "not a name of this scope's own" in team.docker("rmi", "base:1", check=False)
        assert team.docker("rmi", "app:dev") == "Untagged: app:dev\n"
    assert names(engine_host) == before | {f"{OWN}base:1"}


@contextlib.contextmanager
def registry(host: Host, repository: str, tag: str, text: str) -> Iterator[tuple[str, str]]:
    """On the host: its address, and the digest of the image that it has."""
    argv = [sys.executable, registry_program.__file__, repository, tag, text]
    with host.popen(argv, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            port, digest = server.stdout.readline().decode().split()
            yield f"127.0.0.1:{port}", digest
        finally:
            server.kill()


@pytest.mark.engine
def test_a_pull_is_of_what_was_granted(engine_host: Host, tmp_path: Path) -> None:
    with registry(engine_host, "team/app", "1", "first") as (address, digest):
        granted = f'images: {{pull: ["{address}/team/*"], use: [busybox]}}'
        with scopes.served(engine_host, tmp_path, granted) as path:
            guest = Scoped(engine_host, path)
            guest.docker("pull", f"{address}/team/app:1")
            guest.docker("pull", f"{address}/team/app@{digest}")
            assert listed(guest) == {IMAGE, f"{address}/team/app:1"}
            assert "no image with its tag" in guest.docker("pull", "--all-tags", f"{address}/team/app", check=False)
            said = guest.docker("pull", f"{address}/other/app:1", check=False)
            assert f'it would take the grant images: {{pull: ["{address}/other/app:1"]}}' in said
            assert "not a name of this scope's own" in guest.docker("rmi", f"{address}/team/app:1", check=False)
            compose = tmp_path / "compose.yaml"
            compose.write_text(f"services: {{app: {{image: '{address}/team/app:1'}}}}")
            guest.docker("compose", "--file", str(compose), "pull")


@pytest.mark.engine
def test_credentials_are_passed_on_if_they_are_some(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, 'images: {pull: ["127.0.0.1:1/*"]}') as path:
        client = Scoped(engine_host, path).client
        target = "/images/create?fromImage=127.0.0.1:1/x&tag=1"
        for flawed in ("no base64", "e30", "bm8ganNvbg==", urlsafe_b64encode(b'{"other": "x"}').decode()):
            answer = client.ask("POST", target, headers={"X-Registry-Auth": flawed})
            assert answer.status in (400, 403), flawed
        some = urlsafe_b64encode(b'{"username": "a", "password": "b"}').decode()
        answer = client.ask("POST", target, headers={"X-Registry-Auth": some}, patience=60)
        assert b"connection refused" in answer.content


@pytest.mark.engine
def test_what_is_saved_is_loaded_by_its_name(
    guest: Scoped, before: set[str], engine_host: Host, tmp_path: Path
) -> None:
    guest.docker("run", "--name", "made", IMAGE, "sh", "-c", "echo new >/new")
    guest.docker("commit", "made", "app:dev")
    guest.docker("tag", "app:dev", "team/app:2")
    archive = str(tmp_path / "archive.tar")
    guest.docker("save", "--output", archive, "app:dev", "team/app:2", IMAGE)
    with tarfile.open(archive) as tar:
        said = b"".join(tar.extractfile(entry).read() for entry in tar if entry.isfile())  # type: ignore[union-attr]
    assert b"dom0.invalid" not in said
    guest.docker("rmi", "app:dev", "team/app:2")
    assert "Loaded image: app:dev" in (loaded := guest.docker("load", "--input", archive))
    assert "dom0.invalid" not in loaded
    assert names(engine_host) == before | {OWN + name for name in ("app:dev", "team/app:2", IMAGE)}
    assert guest.docker("run", "--rm", "team/app:2", "cat", "/new") == "new\n"
    guest.docker("rmi", IMAGE)
    assert listed(guest) == {"app:dev", "team/app:2", IMAGE}
    assert "No such image" in guest.docker("save", "--output", archive, "private:1", check=False)


@pytest.mark.engine
def test_layers_need_not_come_of_an_image_that_the_scope_knows_and_of_no_other(
    guest: Scoped, engine_host: Host, tmp_path: Path
) -> None:
    api.import_image(engine_host.socket, "private:1", tar_of({"secret": b"gold"}))
    for below in (IMAGE, "private:1"):
        document = json.dumps(api.request(engine_host.socket, "GET", f"/images/{below}/json")).encode()
        with (tmp_path / below).open("wb") as archive:
            pack(document, io.BytesIO(tar_of({"told": b"by it"})), archive, tag="on:1", labels={}, created=1)
    assert "of no image that this scope knows" in guest.docker(
        "load", "--input", str(tmp_path / "private:1"), check=False
    )
    assert "on:1" not in listed(guest)
    guest.docker("load", "--input", str(tmp_path / IMAGE))
    assert guest.docker("run", "--rm", "on:1", "cat", "/told") == "by it"
