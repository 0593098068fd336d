"""dom0-rootfs and dom0-base as they really are."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from dom0 import __version__
from dom0.engine.docker import DockerEngine
from dom0.images import chain, recipe
from dom0.names import BASE_IMAGE
from dom0.testing.hosts import Host

LARGEST = 250_000_000  # bytes of dom0-base, unpacked


@pytest.fixture(scope="module")
def host(session_host: Host, chain_images: None) -> Host:
    return session_host


@pytest.fixture(scope="module")
def inside(host: Host) -> Iterator[str]:
    """Name of a container of dom0-base that waits."""
    name = host.docker("run", "--detach", "--rm", "--entrypoint", "sleep", BASE_IMAGE, "infinity").stdout.strip()
    yield name
    host.docker("rm", "--force", name)


def run(host: Host, inside: str, *argv: str) -> str:
    return host.docker("exec", inside, *argv).stdout.strip()


def test_the_base_is_small(host: Host) -> None:
    assert int(host.docker("image", "inspect", "--format", "{{.Size}}", BASE_IMAGE).stdout) <= LARGEST


def test_the_agents_command_runs_with_the_images_own_python(host: Host, inside: str) -> None:
    assert run(host, inside, "dom0", "--version") == f"dom0 {__version__}"


def test_everything_the_agent_imports_is_there_and_byte_compiled(host: Host, inside: str) -> None:
    script = (
        "import sys; sys.path.append('/usr/lib/dom0/python'); sys.dont_write_bytecode = True\n"
        "import dom0.daemon, dom0.images.project, dom0.home, rich.live\n"
        "import os; print([m.__name__ for m in list(sys.modules.values()) if getattr(m, '__cached__', None) "
        "and not os.path.exists(m.__cached__)])"
    )
    assert run(host, inside, "python3", "-IS", "-c", script) == "[]"


def test_compose_and_docker_are_there(host: Host, inside: str) -> None:
    assert run(host, inside, "docker", "--version").startswith("Docker version")
    assert run(host, inside, "docker", "compose", "version", "--short")


def test_no_secret_and_no_test_kit_is_in_it(host: Host, inside: str) -> None:
    keys = ["find", "/etc/ssh", "/root", "/var/lib/apt/lists", "/usr/lib/dom0/python/dom0/testing"]
    found = host.docker("exec", inside, *keys, "-type", "f", check=False).stdout.split()
    shipped = {"/etc/ssh/moduli", "/etc/ssh/ssh_config", "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/dom0.conf"}
    assert {path for path in found if not path.startswith("/root/.")} - {"/var/lib/apt/lists/lock"} == shipped


def test_more_can_be_installed_from_the_hosts_archives(host: Host, inside: str) -> None:
    sources = run(host, inside, "cat", "/etc/apt/sources.list.d/debian.sources")
    assert "URIs: http" in sources
    assert "file:" not in sources
    assert run(host, inside, "sh", "-c", "apt-get --version | head -n 1").startswith("apt ")


def test_the_user_of_the_machine_owns_the_home(host: Host, inside: str) -> None:
    assert run(host, inside, "stat", "--format", "%U %u %G %g %a", "/home/dom0") == "dom0 1000 dom0 1000 700"


def test_the_image_says_how_it_is_run(host: Host) -> None:
    config = json.loads(host.docker("image", "inspect", BASE_IMAGE).stdout)[0]["Config"]
    assert config["Entrypoint"] == ["dom0", "agent"]
    assert config["Healthcheck"]["Test"] == ["CMD", "dom0", "agent", "--check"]
    assert config["Labels"]["dom0.role"] == "root"
    assert config["Labels"]["dom0.inputs"] == recipe.base_inputs()


async def test_what_is_there_is_not_built_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host.docker_host)
    engine = await DockerEngine.connect(host.docker_host)
    said: list[str] = []
    try:
        image = await chain.build_base(engine, said.append)
    finally:
        await engine.close()
    assert said == []
    assert image.tags == (f"{BASE_IMAGE}:latest",)


def test_inside_the_image_the_base_is_taken_as_it_is(host: Host, inside: str) -> None:
    script = (
        "import sys; sys.path.append('/usr/lib/dom0/python')\n"
        "from dom0.images.recipe import base_inputs; print(base_inputs())"
    )
    assert run(host, inside, "python3", "-IS", "-c", script) == recipe.base_inputs()
