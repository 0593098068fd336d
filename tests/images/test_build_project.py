"""From a project to its image on a real Engine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.compose.parser import find_plugin
from dom0.engine.docker import DockerEngine
from dom0.errors import Dom0Error, ProjectError
from dom0.images import dockerfile, private, selection
from dom0.images.built import Built
from dom0.images.contents import digest, entries
from dom0.images.project import Options, build_project
from dom0.images.unpack import unpack_layer, unpacked
from dom0.names import BASE_IMAGE
from dom0.plan import labels
from dom0.testing.hosts import Host
from dom0.testing.wires import eventually

COMPOSE = "name: box\nservices: {a: {image: 'busybox:test', command: sleep 1000}}\n"
WITH_BUILD = "name: box\nservices: {web: {build: ./web}}\n"
TAG = "dom0:latest"
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, as setcap writes it


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a project's files, `name=content` with `__` for `/`; gives its directory."""

    def write(directory: str = "project", **files: str) -> Path:
        for name, content in files.items():
            path = tmp_path / directory / {"compose": "compose.yaml", "ignore": ".dockerignore"}.get(name, name)
            path = Path(str(path).replace("__", "/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path / directory

    return write


async def build(engine: DockerEngine, directory: Path, **options: str | bool) -> Built:
    return await build_project(engine, directory, lambda line: None, Options(**options))  # type: ignore[arg-type]


def etc(host: Host, image: str = TAG) -> list[str]:
    found = host.docker("run", "--rm", "--entrypoint", "find", image, "/etc/dom0", "-type", "f", "-printf", "%P %m\n")
    return sorted(found.stdout.splitlines())


async def test_the_projects_files_lie_on_top_of_the_base(host: Host, engine: DockerEngine, write: Write) -> None:
    built = await build(engine, write(compose=COMPOSE, conf__a="x", ignore="*.md\n", **{"README.md": "x"}))
    assert etc(host) == ["compose.d/50-box.yaml 644", "conf/a 644"]
    assert built.changed
    assert built.image.labels[labels.BASE] == (await engine.image(BASE_IMAGE)).id
    assert built.image.labels[labels.PROJECT] == "box"


@pytest.mark.parametrize("own", ["", f"FROM {BASE_IMAGE}\nCOPY . /etc/dom0/compose.d/\n"])
async def test_what_is_blank_or_ignored_in_a_project_is_said(
    host: Host, engine: DockerEngine, write: Write, own: str
) -> None:
    project = write(compose=COMPOSE.replace("1000", "$TIME").replace("image:", "attach: false, image:"))
    if own:
        (project / dockerfile.MACHINES).write_text(own)
    said: list[str] = []
    await build_project(engine, project, said.append)
    assert [line.partition(" ")[2] for line in said if "attach" in line] == [
        "services.a.attach: ignored: says what `docker compose up` prints; `dom0 logs` prints any service"
    ]
    assert 'The "TIME" variable is not set. Defaulting to a blank string.' in said


async def test_owners_modes_and_capabilities_come_into_the_image_and_out_of_it(
    host: Host, engine: DockerEngine, write: Write, tmp_path: Path
) -> None:
    project = write(compose=COMPOSE, conf__a="x", data__shared="x")
    (project / "empty").mkdir()
    modes = {".": 0o750, "conf/a": 0o640, "data": 0o1777, "data/shared": 0o666, "empty": 0o2770}
    for uid, (name, mode) in enumerate(modes.items(), 1000):
        os.chown(project / name, uid, uid + 1)
        (project / name).chmod(mode)
    os.setxattr(project / "conf/a", "security.capability", CAPABILITY)
    built = await build(engine, project)
    handed = tmp_path / "handed"
    handed.mkdir()
    async with unpacked(engine, TAG, tmp_path) as taken:
        for out in (taken, unpack_layer(built.layer, handed)):
            found = {name: ((out / name).stat().st_uid, (out / name).stat().st_mode & 0o7777) for name in modes}
            assert found == {name: (uid, mode) for uid, (name, mode) in enumerate(modes.items(), 1000)}
            assert os.getxattr(out / "conf/a", "security.capability") == CAPABILITY
        assert digest(entries(taken), owned=True) == digest(entries(out), owned=True)
    assert not (await build(engine, project)).changed
    os.chown(project / "empty", 1, 1)
    assert (await build(engine, project)).changed


async def test_but_for_a_layer_and_labels_it_is_the_base(host: Host, engine: DockerEngine, write: Write) -> None:
    await build(engine, write(compose=COMPOSE))
    base, made = json.loads(host.docker("image", "inspect", BASE_IMAGE, TAG).stdout)
    assert made["Created"] == "2026-01-01T00:00:00Z"
    assert made["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert made["Config"]["Labels"].keys() > base["Config"]["Labels"].keys()
    assert made["Config"] | {"Labels": {}} == base["Config"] | {"Labels": {}}
    assert (made["Architecture"], made["Os"]) == (base["Architecture"], base["Os"])
    assert host.docker("run", "--rm", "--entrypoint", "stat", TAG, "-c", "%a %U", "/etc").stdout == "755 root\n"


async def test_a_file_that_is_called_as_a_removed_one_is_in_a_layer_hides_none(
    host: Host, engine: DockerEngine, write: Write
) -> None:
    """It is in the image, or refused where no image can have it."""
    project = write(compose=COMPOSE, word="secret", **{".wh.word": "", "conf__app": "", "conf__.wh..wh..opq": ""})
    if (await engine.info()).containerd_store:
        with pytest.raises(ProjectError, match=r"\.wh\.\S*: an image that containerd keeps cannot hold a file"):
            await build(engine, project)
        return
    await build(engine, project)
    assert {line.split()[0] for line in etc(host)} >= {"word", ".wh.word", "conf/app", "conf/.wh..wh..opq"}


async def test_only_a_change_builds_again(host: Host, engine: DockerEngine, write: Write) -> None:
    first = await build(engine, write(compose=COMPOSE, ignore="*.md\n"))
    second = await build(engine, write(**{"README.md": "x"}))
    third = await build(engine, write(conf="x"))
    assert (second.changed, second.image.id) == (False, first.image.id)
    assert (third.changed, third.image.id != first.image.id) == (True, True)


async def test_the_same_project_becomes_the_same_image_to_the_byte(
    host: Host, engine: DockerEngine, write: Write
) -> None:
    first = await build(engine, write(compose=COMPOSE, conf__a="x"))
    again = await build(engine, write(compose=COMPOSE, conf__a="x"), no_cache=True)
    elsewhere = await build(engine, write("other", compose=COMPOSE, conf__a="x"), no_cache=True)
    assert {first.image.id, again.image.id, elsewhere.image.id} == {first.image.id}


async def test_a_bad_project_changes_nothing(host: Host, engine: DockerEngine, write: Write) -> None:
    first = await build(engine, write(compose=COMPOSE))
    for wrong in ("imag: x", "image: x, scale: 2, container_name: only"):
        with pytest.raises(ProjectError, match=r"^compose\.yaml:2: services\.a\."):
            await build(engine, write(compose=f"name: box\nservices: {{a: {{{wrong}}}}}\n"))
    assert (await engine.image(TAG)).id == first.image.id


async def test_what_the_machine_needs_is_in_its_image_and_noticed_whatever_the_dockerignore_says(
    host: Host, engine: DockerEngine, write: Write
) -> None:
    compose = COMPOSE.replace("command:", "env_file: vars.env, configs: [conf], command:").replace(
        "busybox:test", "${WHICH}"
    )
    compose += "configs: {conf: {file: conf}}\n"
    files = {".env": "WHICH=busybox:test\n", "vars.env": "A=b\n", "conf": "x"}
    project = write(compose=compose, ignore="**/*.env\n.env\ncompose*.y*ml\nconf\n", **files)
    assert (await build(engine, project)).changed
    found = {row.split()[0] for row in etc(host)}
    assert found == {"compose.d/50-box.yaml", "conf"}  # env files are noticed, and stay out
    assert not (await build(engine, project)).changed
    for edit in (
        {"conf": "y"},
        {"vars.env": "A=c\n"},
        {".env": "WHICH=busybox\n"},
        {"compose": compose.replace("1000", "2000")},
    ):
        write(**edit)
        with contextlib.suppress(ProjectError):  # there is no busybox
            assert (await build(engine, project)).changed


async def test_a_project_that_would_be_another_one_in_its_image_is_refused(
    host: Host, engine: DockerEngine, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await build(engine, write(compose=COMPOSE))
    compose = "name: box\nservices:\n  a:\n    image: busybox:test\n    environment:\n      SECRET: ${SECRET}\n"
    monkeypatch.setattr(selection, "kept", lambda *_arguments, **_options: ())
    with pytest.raises(
        ProjectError, match=r"^compose\.yaml:6: services\.a\.environment\.SECRET: is not what"
    ) as caught:
        await build(engine, write(compose=compose, ignore=".env\n", **{".env": "SECRET=x\n"}))
    assert ".dockerignore" in caught.value.hint
    assert (await engine.image(TAG)).id == first.image.id


@pytest.mark.parametrize("bound", ["./compose.yaml", "."])
async def test_a_compose_file_that_a_service_binds_is_a_file_as_others(
    host: Host, engine: DockerEngine, write: Write, bound: str
) -> None:
    compose = COMPOSE.replace("command:", f"volumes: ['{bound}:/bound:ro'], command:")
    project = write(compose=compose)
    first = await build(engine, project)
    assert "compose.yaml 644" in etc(host)
    assert "compose.d/50-box.yaml 644" in etc(host)
    assert not (await build(engine, project)).changed
    assert (await build(engine, write(compose=compose + "# edited\n"))).image.id != first.image.id


async def test_of_what_is_above_the_project_its_image_holds_what_is_named(
    host: Host, engine: DockerEngine, write: Write
) -> None:
    compose = COMPOSE.replace("command:", "env_file: ../vars.env, volumes: ['../data/in:/in'], command:")
    files = {".git__HEAD": "x", "vars.env": "A=b\n", "data__in__file": "1", "data__other": "x", "unnamed": "x"}
    write(".", **files)
    project = write("project", compose=compose)
    first = await build(engine, project)
    assert etc(host) == [".dom0-parent/data/in/file 644", "compose.d/50-box.yaml 644"]
    assert not (await build(engine, project)).changed
    write(".", data__other="y", unnamed="y")
    assert not (await build(engine, project)).changed
    for edit in ({"data__in__file": "2"}, {"data__in__more": "x"}, {"vars.env": "A=c\n"}):
        write(".", **edit)
        assert (await build(engine, project)).changed
    write(".", data__in__file="1", **{"vars.env": "A=b\n"})
    (project.parent / "data/in/more").unlink()
    assert (await build(engine, project)).image.id == first.image.id


COMPOSE_PLUGIN = """#!/bin/sh
[ "$1" = version ] && {{ echo 3.0.0; exit; }}
{plugin} "$@" || exit
while [ $# -gt 0 ]; do [ "$1" = --output ] && sed -i 's/"1000"/"{printed}"/' "$2"; shift; done
exit 0
"""


@pytest.mark.parametrize("printed", ["1000", "2000"])
async def test_another_compose_than_the_machines_may_read_a_project_as_that_does_and_not_otherwise(
    host: Host, engine: DockerEngine, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    plugin = tmp_path / "docker/cli-plugins/docker-compose"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(COMPOSE_PLUGIN.format(plugin=find_plugin(), printed=printed))
    plugin.chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    before, project = host.docker("ps", "--all", "--quiet").stdout, write(compose=COMPOSE, **{".env": "A=b\n"})
    if printed == "1000":
        assert (await build(engine, project)).changed
    else:
        with pytest.raises(ProjectError, match=r"^compose\.yaml:\d+: services\.\w+\.command\.1: is not what") as caught:
            await build(engine, project)
        assert re.match(r"Docker Compose [\d.]+ of the machine reads it otherwise than 3\.0\.0 here", caught.value.hint)
    assert host.docker("ps", "--all", "--quiet").stdout == before


async def test_services_are_built_and_built_again_for_their_files_alone(
    host: Host, engine: DockerEngine, write: Write
) -> None:
    web = "FROM busybox:test\nCOPY . /web\n"
    first = await build(engine, write(compose=WITH_BUILD, ignore="web\n", web__Dockerfile=web, web__page="1"))
    page = ["run", "--rm", "box-web", "cat", "/web/page"]
    assert host.docker(*page).stdout == "1"
    second = await build(engine, write(web__page="2"))
    assert host.docker(*page).stdout == "2"
    assert first.image.id != second.image.id


async def test_a_service_image_that_is_gone_is_built_again(host: Host, engine: DockerEngine, write: Write) -> None:
    project = write(compose=WITH_BUILD, web__Dockerfile="FROM busybox:test\n")
    await build(engine, project)
    host.docker("image", "rm", "box-web")
    await build(engine, project)
    assert (await engine.image("box-web")).tags


async def test_a_service_that_cannot_be_built_leaves_the_machines_image_alone(
    host: Host, engine: DockerEngine, write: Write
) -> None:
    first = await build(engine, write(compose=COMPOSE))
    with pytest.raises(Dom0Error, match="box: the build failed"):
        await build(engine, write(compose=WITH_BUILD, web__Dockerfile="FROM busybox:test\nRUN false\n"))
    assert (await engine.image(TAG)).id == first.image.id


async def test_one_machine_is_layered_on_another(host: Host, engine: DockerEngine, write: Write) -> None:
    farm = write("farm", compose=WITH_BUILD.replace("build:", "image: farm-web, build:"), ignore="web\n")
    write("farm", web__Dockerfile="FROM busybox:test\n")
    below = await build(engine, farm, tag="farm/dom0")
    mine = write(
        "mine",
        Dockerfile="FROM farm/dom0\nCOPY compose.yaml /etc/dom0/compose.d/60-mine.yaml\n",
        compose="name: mine\nservices: {web: {environment: {A: b}}}\n",
    )
    above = await build(engine, mine)
    assert etc(host) == ["compose.d/50-box.yaml 644", "compose.d/60-mine.yaml 644"]
    assert above.image.labels[labels.PROJECT] == "mine"
    assert above.image.labels[labels.BASE] == below.image.labels[labels.BASE]
    assert not (await build(engine, mine)).changed
    await build(engine, write("farm", more="x"), tag="farm/dom0")
    assert (await build(engine, mine)).changed


async def test_a_machine_on_another_one_has_private_files_of_its_own_for_those_that_are_not_in_the_image_below(
    host: Host, engine: DockerEngine, write: Write
) -> None:
    compose = "name: box\nservices: {a: {image: 'busybox:test', environment: ['A=${SECRET}']}}\n"
    await build(engine, write("farm", compose=compose, **{".env": "SECRET=x\n"}), tag="farm/dom0")
    mine = write("mine", **{"Dockerfile.dom0": "FROM farm/dom0\nRUN touch /etc/dom0/more\n"})
    with pytest.raises(ProjectError, match=r"\.env: private, so not in the image, and not on this machine"):
        await build(engine, mine)
    write("mine", **{".env": "SECRET=y\n"})
    assert private.of_image((await build(engine, mine)).image.labels) == (".env",)
    assert not (await build(engine, mine)).changed
    write("mine", **{".env": "SECRET=z\n"})
    assert (await build(engine, mine)).changed
    assert etc(host) == ["compose.d/50-box.yaml 644", "more 644"]


async def test_a_dockerfile_that_makes_no_machine_is_refused_and_leaves_nothing(
    host: Host, engine: DockerEngine, write: Write
) -> None:
    before = {tag for image in await engine.images() for tag in image.tags}
    named = {"Dockerfile.dom0": "FROM busybox:test\n"}
    with pytest.raises(ProjectError, match=r"Dockerfile\.dom0: the image does not stand on dom0-base"):
        await build(engine, write("named", compose=COMPOSE, **named))
    with pytest.raises(ProjectError, match=r"Dockerfile: /etc/dom0"):
        await build(engine, write(Dockerfile="FROM dom0-base\n", compose=COMPOSE))
    assert {tag for image in await engine.images() for tag in image.tags} == before


async def test_a_dockerfile_of_that_name_is_the_machines_beside_one_of_a_service(
    host: Host, engine: DockerEngine, write: Write
) -> None:
    named = {"Dockerfile.dom0": "FROM dom0-base\nCOPY box.yaml /etc/dom0/compose.d/\n", "box.yaml": COMPOSE}
    project = write(Dockerfile="FROM dom0-base\n", compose="services: {web: {build: .}}\n", **named)
    assert (await build(engine, project)).changed
    assert etc(host) == ["compose.d/box.yaml 644"]
    assert not (await build(engine, project)).changed


@pytest.mark.parametrize("base", ["busybox:test", "dom0-base"])
async def test_a_dockerfile_that_a_service_is_built_from_is_not_the_machines(
    host: Host, engine: DockerEngine, write: Write, base: str
) -> None:
    compose = "name: box\nservices: {web: {build: .}}\n"
    project = write(compose=compose, Dockerfile=f"FROM {base}\nCOPY page /web/\n", page="1", ignore="Dockerfile\n")
    first = await build(engine, project)
    show = ["run", "--rm", "--entrypoint=cat", "box-web", "/web/page"]
    assert host.docker(*show).stdout == "1"
    assert not (await build(engine, project)).changed
    await build(engine, write(page="2"))
    assert host.docker(*show).stdout == "2"
    await build(engine, write(Dockerfile=f"FROM {base}\nCOPY page /web/\nRUN echo 3 >/web/page\n"))
    assert host.docker(*show).stdout == "3\n"
    assert first.image.labels[labels.ROLE] == "root"


async def test_a_dockerfile_that_stands_on_no_dom0_image_is_not_the_machines_though_no_service_is_built_from_it(
    engine: DockerEngine, write: Write
) -> None:
    project = write(compose=COMPOSE, Dockerfile="FROM busybox:test\nRUN false\n")
    assert (await build(engine, project)).image.labels[labels.ROLE] == "root"
    assert not (await build(engine, project)).changed


def test_a_project_is_built_from_inside_the_base_too(host: Host, write: Write) -> None:
    """As a person does who has logged in: no buildx there, no recipe of the images below."""
    project = write(compose=WITH_BUILD, web__Dockerfile="FROM busybox:test\n", conf="x")
    above = write("above", Dockerfile=f"FROM {TAG}\nRUN touch /etc/dom0/more\n")
    socket = "--volume=/var/run/docker.sock:/run/docker.sock"
    host.docker("run", "--detach", "--name", "login", socket, "--entrypoint=sleep", BASE_IMAGE, "1000")
    for directory, tag in ((project, TAG), (above, "above")):
        host.docker("cp", str(directory), f"login:/{directory.name}")
        assert (
            f"{tag}: built" in host.docker("exec", "login", "dom0", "build", f"/{directory.name}", "--tag", tag).stdout
        )
    assert etc(host, "above") == ["compose.d/50-box.yaml 644", "conf 644", "more 644", "web/Dockerfile 644"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_was_ended_leaves_nothing_behind_the_next_one(
    host: Host, write: Write, tmp_path: Path, number: signal.Signals
) -> None:
    project = write(compose=WITH_BUILD, web__Dockerfile="FROM busybox:test\nRUN sleep 600\n")
    env = os.environ | {"TMPDIR": str(tmp_path)}
    argv = [sys.executable, "-m", "dom0", "build", str(project)]
    with subprocess.Popen(argv, env=env) as ended:
        eventually(lambda: any(tmp_path.glob("dom0-*/project-*/etc/compose.d/*")) or ended.poll() is not None)
        ended.send_signal(number)
    assert ended.returncode == (143 if number is signal.SIGTERM else -number)
    assert bool(list(tmp_path.glob("dom0-*/*"))) == (number is signal.SIGKILL)
    write(web__Dockerfile="FROM busybox:test\n")
    subprocess.run(argv, env=env, check=True)
    assert list(tmp_path.glob("dom0-*/*")) == []
