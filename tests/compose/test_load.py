"""Loading as a whole: the same project is the same value wherever it lies, and nothing gets in or out on the way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dom0.compose import mounted, parser
from dom0.compose.load import load
from dom0.compose.model import Project
from dom0.compose.parser import find_plugin
from dom0.errors import Dom0Error, ProjectError
from dom0.run import capture

FINAL = Path("/final")
WEB = "name: box\nservices:\n  web:\n    image: busybox\n"
EVERYDAY = """
name: box
services:
  web:
    image: busybox
    env_file: web.env
    environment: [FROM_OUTSIDE, B=c]
    volumes: ["./site:/site:ro", "data:/data"]
    configs: [conf]
    ports: ["8080-8081:80"]
    depends_on: {db: {condition: service_healthy}, off: {condition: service_started, required: false}}
    mem_limit: 64m
    memswap_limit: -1
    labels: {price: "$$5"}
    healthcheck: {test: "true", interval: 1m30s}
  db: {image: redis, ulimits: {nofile: {soft: 1, hard: 2}}, stop_grace_period: 90s}
  off: {image: busybox, profiles: [later]}
volumes: {data: {}}
configs: {conf: {content: "$$x"}}
"""


def everyday(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "compose.yaml").write_text(EVERYDAY)
    (directory / "web.env").write_text("A=b\n")
    return directory


def project(directory: Path, text: str) -> Path:
    (directory / "compose.yaml").write_text(text)
    return directory


async def test_the_same_files_are_the_same_project_wherever_they_lie(tmp_path: Path) -> None:
    here = await load(everyday(tmp_path / "a" / "box"), FINAL)
    there = await load(everyday(tmp_path / "quite elsewhere: b" / "other"), FINAL)
    assert msgspec.json.encode(here, order="sorted") == msgspec.json.encode(there, order="sorted")


async def test_what_is_not_there_is_bound_from_outside_but_not_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "box").mkdir()
    text = "services: {{web: {{image: busybox, volumes: ['../{}/new:/x']}}}}\n"
    found = await load(project(tmp_path / "box", text.format("real")), FINAL)
    assert found.services["web"].volumes[0].source == f"{FINAL}/.dom0-parent/real/new"
    with pytest.raises(ProjectError, match=r"\.\./link/new leads out of the project"):
        await load(project(tmp_path / "box", text.format("link")), FINAL)


async def test_hashes_are_those_of_compose_in_the_final_place(tmp_path: Path) -> None:
    """So `docker compose up` in that place finds nothing to do. Compose forgets the env_file in `config --hash`."""
    final = everyday(tmp_path / "final")
    (final / "compose.yaml").write_text(EVERYDAY.replace("    env_file: web.env\n", ""))
    argv = [str(find_plugin()), "-f", str(final / "compose.yaml"), "config", "--hash", "*"]
    printed = (await capture(argv, env={"HOME": "/root"})).stdout
    shutil.copytree(final, tmp_path / "source")
    found = (await load(tmp_path / "source", final)).compose_hashes
    assert found == dict(line.split() for line in printed.splitlines())


async def test_an_image_layer_and_a_project_with_the_same_text_are_the_same_services(tmp_path: Path) -> None:
    layers = tmp_path / "etc" / "compose.d"
    layers.mkdir(parents=True)
    (layers / "50-box.yaml").write_text(EVERYDAY)
    (tmp_path / "etc" / "web.env").write_text("A=b\n")
    of_image = await load(tmp_path / "etc", FINAL)
    of_project = await load(everyday(tmp_path / "box"), FINAL)
    assert of_image.services == of_project.services
    assert of_image.compose_hashes == of_project.compose_hashes


async def test_the_environment_of_this_process_does_not_get_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "leaked")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "leaked")
    monkeypatch.setenv("COMPOSE_FILE", "/leaked.yaml")
    loaded = await load(project(tmp_path, WEB + "    command: ['${SECRET-clean}']\n    environment: [SECRET]\n"), FINAL)
    assert loaded.name == "box"
    assert loaded.services["web"].command == ("clean",)
    assert loaded.services["web"].environment == {"SECRET": None}


@pytest.mark.parametrize("name", ["GOGC", "GOMEMLIMIT", "DOCKER_HOST", "DOCKER_CONTEXT"])
async def test_what_lets_compose_be_quick_is_no_variable_of_the_project(name: str, tmp_path: Path) -> None:
    text = f"name: box\nservices: {{web: {{image: i, environment: {{A: '${{{name}-unset}}', {name}: }}}}}}\n"
    loaded = await load(project(tmp_path, text), tmp_path)
    assert loaded.services["web"].environment == {"A": "unset", name: None}
    argv = [str(find_plugin()), "-f", str(tmp_path / "compose.yaml"), "config", "--hash", "*"]
    assert (await capture(argv, env={"HOME": "/root"})).stdout.split() == ["web", loaded.compose_hashes["web"]]
    (tmp_path / "web.env").write_text(f"{name}\n")
    named_there = await load(project(tmp_path, WEB + "    env_file: web.env\n"), FINAL)
    assert named_there.services["web"].environment == {}


async def test_compose_has_no_engine_to_ask(tmp_path: Path, fake_plugin: Callable[[str], None]) -> None:
    """Nor does anything of that get into the project, whose variables may be named in pieces."""
    fake_plugin(f'cat "$DOCKER_CONFIG"/contexts/meta/*/meta.json >>{tmp_path}/asked\nexec {find_plugin()} "$@"')
    (tmp_path / "x.env").write_text("")
    text = WEB + "    env_file: '${A-x}.env'\n    environment: ['${P}_HOST']\n"
    loaded = await load(project(tmp_path, text), FINAL, env={"P": "DOCKER"})
    assert loaded.services["web"].environment == {"DOCKER_HOST": None}
    assert (tmp_path / "asked").read_text().count("unix:///dev/null") == 3


async def test_the_callers_variables_stand_above_the_dotenv_but_not_above_ours(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=dotenv\nB=dotenv\n")
    given = {"A": "caller", "HOME": "/elsewhere", "COMPOSE_COMPATIBILITY": "true"}
    text = WEB + "    command: ['$A', '$B']\n    volumes: ['~/x:/x']\n"
    web = (await load(project(tmp_path, text), FINAL, env=given)).services["web"]
    assert web.command == ("caller", "dotenv")
    assert web.volumes[0].source == "/root/x"


@pytest.mark.parametrize("name", ["", "A=B", "A\0B"])
async def test_a_variable_that_cannot_be_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="environment"):
        await load(project(tmp_path, WEB), FINAL, env={name: "x"})


async def test_profiles_choose_services(tmp_path: Path) -> None:
    text = WEB + "  dev: {image: busybox, profiles: [dev]}\n  test: {image: busybox, profiles: [test]}\n"
    chosen = await load(project(tmp_path, text), FINAL, profiles=["dev"])
    assert (sorted(chosen.services), chosen.disabled) == (["dev", "web"], ("test",))
    everything = await load(tmp_path, FINAL, profiles=["*"])
    assert (sorted(everything.services), everything.disabled) == (["dev", "test", "web"], ())


@pytest.mark.parametrize("profile", ["--project-name=x", "", "a b", "\x1b"])
async def test_a_profile_that_cannot_be_one(profile: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="profile"):
        await load(project(tmp_path, WEB), FINAL, profiles=[profile])


async def test_a_file_with_a_hole_of_200_gb_is_not_read_and_that_is_said(tmp_path: Path) -> None:
    for name in ("disk.img", "c.conf"):
        (tmp_path / name).touch()
    os.truncate(tmp_path / "disk.img", 200 * 10**9)
    text = WEB + '    volumes: ["./disk.img:/disk.img", "./c.conf:/c.conf"]\n'
    loaded = await load(project(tmp_path, text), FINAL)
    assert loaded.digests.keys() == {"/final/c.conf"}
    assert [words for words in loaded.warnings if "disk.img is with 200000 MB too large to be read" in words]


async def test_files_that_are_large_together_are_not_all_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, mounted.MOST // 2 + 1)
    loaded = await load(project(tmp_path, WEB + '    volumes: ["./a:/a", "./b:/b"]\n'), FINAL)
    assert loaded.digests.keys() == {"/final/a"}


async def test_another_content_is_another_digest(tmp_path: Path) -> None:
    text = WEB + "    configs: [c]\nconfigs: {c: {file: c.conf}}\n"
    (tmp_path / "c.conf").write_text("one")
    before = await load(project(tmp_path, text), FINAL)
    (tmp_path / "c.conf").write_text("two")
    after = await load(tmp_path, FINAL)
    assert before.digests.keys() == after.digests.keys() == {"/final/c.conf"}
    assert before.digests != after.digests
    assert before.compose_hashes == after.compose_hashes


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("backup.data.env_file", "backup: {data: {to: /srv/backup, env_file: secret}}"),
        (
            "backup.data.ssh_key",
            'backup: {data: {to: "sftp:me@nas:/b", env_file: other, ssh_key: secret, known_hosts: ["nas ssh-rsa A"]}}',
        ),
        ("notify.env_file", "notify: {env_file: secret}"),
    ],
)
async def test_a_secret_file_of_the_machine_that_is_missing_is_refused(tmp_path: Path, key: str, section: str) -> None:
    box = project(tmp_path, f"{WEB}volumes: {{data: {{}}}}\nx-dom0: {{{section}}}\n")
    (box / "other").write_text("RESTIC_PASSWORD=a\n")
    with pytest.raises(ProjectError, match=f"x-dom0.{key}: secret: there is no such file"):
        await load(box, FINAL)
    (box / "secret").write_text("RESTIC_PASSWORD=a\n")
    assert f"{FINAL}/secret" in (await load(box, FINAL)).digests


async def test_a_bound_pipe_or_directory_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    text = WEB + "    volumes: ['./pipe:/p', './directory:/d', './none:/n']\n"
    assert (await load(project(tmp_path, text), FINAL)).digests == {}


async def test_a_project_of_two_hundred_services(tmp_path: Path) -> None:
    services = "".join(f"  s{n}:\n    image: busybox\n    depends_on: [s{n - 1}]\n" for n in range(1, 200))
    text = "name: box\nservices:\n  s0: {image: busybox}\n" + services
    assert len((await load(project(tmp_path, text), FINAL)).services) == 200


@pytest.fixture
def fake_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a shell script in Compose's place, and sees to it that the loader leaves no temporary file behind."""
    plugin = tmp_path / "docker" / "cli-plugins" / "docker-compose"
    plugin.parent.mkdir(parents=True)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def install(script: str) -> None:
        plugin.write_text(f'#!/bin/sh\n[ "$1" = version ] && echo "${{VERSION-2.26.1}}" && exit\n{script}\n')
        plugin.chmod(0o755)

    yield install
    assert [path for path in scratch.glob("dom0-*/*") if path.is_dir()] == []  # but for the directory of all of them


def box(tmp_path: Path, text: str = WEB) -> Path:
    (tmp_path / "box").mkdir()
    return project(tmp_path / "box", text)


OUTPUT = 'while [ "$1" != --output ]; do shift; done; out="$2"\n'


async def test_a_compose_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "_DIRECTORIES", ())
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Dom0Error, match="the plugin is not installed") as error:
        await load(project(tmp_path, WEB), FINAL)
    assert "apt-get install docker-compose" in error.value.hint


async def test_a_compose_that_is_too_old(tmp_path: Path, fake_plugin: Callable[[str], None]) -> None:
    fake_plugin("exit 1")
    with pytest.raises(Dom0Error, match=r"Docker Compose 2\.20\.0 is too old, 2\.24 is needed"):
        await load(box(tmp_path), FINAL, env={"VERSION": "2.20.0"})


async def test_a_compose_that_never_ends(
    tmp_path: Path, fake_plugin: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parser, "TIMEOUT", 0.2)
    fake_plugin("exec sleep 1000")
    with pytest.raises(ProjectError, match=r"did not end within 0\.2 s"):
        await load(box(tmp_path), FINAL)


async def test_a_compose_that_prints_too_much(tmp_path: Path, fake_plugin: Callable[[str], None]) -> None:
    fake_plugin(OUTPUT + 'exec truncate -s 40M "$out"')
    with pytest.raises(ProjectError, match="the project grows to 41943040 bytes"):
        await load(box(tmp_path), FINAL)


@pytest.mark.parametrize("printed", ["{", "[]", "", "name: box"])
async def test_a_compose_that_prints_something_else(
    printed: str, tmp_path: Path, fake_plugin: Callable[[str], None]
) -> None:
    fake_plugin(f"{OUTPUT}printf %s '{printed}' > \"$out\"")
    with pytest.raises(ProjectError, match="Docker Compose printed"):
        await load(box(tmp_path), FINAL)


async def test_a_compose_that_knows_more_than_we(tmp_path: Path, fake_plugin: Callable[[str], None]) -> None:
    printed = '{"name": "box", "services": {"web": {"image": "x", "later": {"type": "y"}}}}'
    fake_plugin(f"{OUTPUT}printf %s '{printed}' > \"$out\"")
    with pytest.raises(ProjectError, match=r"compose\.yaml:3: services\.web\.later: not supported yet"):
        await load(box(tmp_path), FINAL)


@pytest.mark.parametrize(("version", "made"), [("2.26.1", False), ("2.40.3", False), ("5.0.0", True)])
async def test_a_compose_that_leaves_out_that_a_directory_is_made(
    version: str, made: bool, tmp_path: Path, fake_plugin: Callable[[str], None]
) -> None:
    volumes = [
        {"type": "bind", "source": "/a", "target": "/a", "bind": {}},
        {"type": "bind", "source": "/b", "target": "/b"},
    ]
    printed = {"name": "box", "services": {"web": {"image": "x", "volumes": volumes}}}
    fake_plugin(f"{OUTPUT}printf %s '{msgspec.json.encode(printed).decode()}' > \"$out\"")
    web = (await load(box(tmp_path), FINAL, env={"VERSION": version}, hashed=False)).services["web"]
    assert [volume.bind.create_host_path if volume.bind else False for volume in web.volumes] == [made, False]


async def test_a_compose_that_says_what_nobody_understands(tmp_path: Path, fake_plugin: Callable[[str], None]) -> None:
    fake_plugin('echo "the moon is full" >&2; exit 15')
    with pytest.raises(ProjectError, match=r"^compose\.yaml: the moon is full$"):
        await load(box(tmp_path), FINAL)


async def test_compose_sees_copies_and_nothing_else_of_the_project(
    tmp_path: Path, fake_plugin: Callable[[str], None]
) -> None:
    directory = box(tmp_path, WEB + "    env_file: web.env\n")
    (directory / "real.env").touch()
    (directory / "web.env").symlink_to("real.env")
    (directory / "other").touch()
    fake_plugin("find . -printf '%y %P\\n' | sort | tr '\\n' ' ' >&2; exit 1")
    with pytest.raises(ProjectError, match=r"d  f compose\.yaml f web\.env"):
        await load(directory, FINAL)


async def test_a_compose_that_grows_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_plugin: Callable[[str], None]
) -> None:
    monkeypatch.setattr(parser, "MAX_MEMORY", 64 * 1024 * 1024)
    fake_plugin("exec tail /dev/zero")
    with pytest.raises(ProjectError, match="memory exhausted"):
        await load(box(tmp_path), FINAL)


async def test_a_cancelled_load_leaves_nothing(tmp_path: Path, fake_plugin: Callable[[str], None]) -> None:
    pid = tmp_path / "pid"
    os.mkfifo(pid)
    fake_plugin(f"echo $$ > {pid}; exec sleep 1000")
    loading = asyncio.create_task(load(box(tmp_path), FINAL))
    written = await asyncio.to_thread(pid.read_text)  # a pipe: waits until a script has written, or two
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    for process in map(int, written.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


async def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is not there stands for one that cannot be written."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(Dom0Error, match="there is no such file"):
        await load(project(tmp_path, WEB), FINAL)


KEYS = st.sampled_from(
    ["image", "command", "ports", "volumes", "environment", "labels", "deploy", "scale", "x-dom0", "networks",
     "configs", "depends_on", "healthcheck", "mem_limit", "extends", "env_file", "x-y", "security_opt",
     "container_name", "build"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from(["busybox", "80:80", "./a:/a", "$X", "${X", "../x", "5m", "-1", "service:web", "x-y", "=", "<<"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
SERVICES = st.dictionaries(st.sampled_from(["web", "db", "a.b"]), st.dictionaries(KEYS, VALUES, max_size=4), max_size=2)
TOP = st.fixed_dictionaries({"services": SERVICES}, optional={"x-dom0": VALUES, "configs": VALUES, "networks": VALUES})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | TOP.map(lambda tree: b"name: box\n" + _yaml(tree)))
def test_whatever_the_file_says_it_loads_or_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "compose.yaml").write_bytes(content)
    try:
        loaded = asyncio.run(load(tmp_path, FINAL))
    except ProjectError as refusal:
        loaded = None
        message = refusal.message
    assert isinstance(loaded, Project) or all(line.isprintable() for line in message.splitlines())


TEXTS = st.text(
    st.characters(
        blacklist_categories=("Cs", "Cc"), whitelist_characters="\n\t", blacklist_characters="\ufeff\ufffe\uffff"
    ),
    max_size=12,
) | st.text("\n\t |>-'\"#$:x", max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_every_text_comes_through_as_it_is(tmp_path: Path, texts: list[str]) -> None:
    escaped = [text.replace("$", "$$") for text in texts]
    variables = {f"A{number}": text for number, text in enumerate(escaped)}
    service = {"image": "busybox", "command": escaped, "environment": variables, "configs": ["c"]}
    document = {"name": "box", "services": {"web": service}, "configs": {"c": {"content": f"\n{escaped[0]}"}}}
    (tmp_path / "compose.yaml").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    loaded = asyncio.run(load(tmp_path, FINAL, hashed=False))
    web = loaded.services["web"]
    assert web.command == tuple(texts)
    assert list(web.environment.values()) == texts
    assert loaded.configs["c"].content == f"\n{texts[0]}"


def _yaml(tree: object) -> bytes:
    return yaml.safe_dump(tree, allow_unicode=False).encode()
