"""`dom0 image pull` and `dom0 image fetch` as a person calls them. What a pull does: tests/images/test_pull.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dom0.cli.image_pull import Outcome, pull_all, pull_missing, read_needs, say_end
from dom0.errors import Dom0Error, Interrupted, ProjectError
from dom0.plan.facts import ImageNeed
from dom0.registry.depot import Depot
from dom0.registry.fetch import GaveUp
from dom0.registry.reference import parse
from dom0.run import Output
from dom0.testing import debian_registry
from dom0.testing.debian_registry import DebianRegistry
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import Call, FakeEngine
from dom0.testing.hosts import Host
from dom0.testing.possible import require
from dom0.testing.web_server import Asked, reply, served

RunCommand = Callable[..., Output]
DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["Redis"], "Redis: no name of an image"),
        (["redis", "redis@sha256:1"], "redis@sha256:1: no name of an image"),
        (["--platform", "linux", "redis"], "--platform: 'linux' is no platform"),
        (["--key", "/nonexistent", "redis"], "--key"),
        (["--peer", "5050", "redis"], "--peer: '5050' is not HOST:PORT"),
        (["--peer", "http://a:5050", "redis"], "is not HOST:PORT"),
        (["--peer", "a/b:5050", "redis"], "is not HOST:PORT"),
        ([], "Missing argument"),
    ],
)
def test_what_is_no_image_is_refused_before_anybody_is_asked(dom0: RunCommand, arguments: list[str], what: str) -> None:
    refused = dom0("image", "pull", *arguments)
    assert (refused.code, refused.stdout) == (2, "")
    assert what in refused.stderr


def test_without_an_engine_nothing_is_fetched(dom0: RunCommand) -> None:
    assert dom0("image", "pull", "redis").code == 4


def test_what_has_come_so_far_is_listed(dom0: RunCommand, environment: dict[str, str], tmp_path: Path) -> None:
    environment |= {"DOM0_STATE": str(tmp_path / "dom0"), "XDG_STATE_HOME": str(tmp_path)}  # root's, anybody's
    assert json.loads(dom0("image", "ls", "--partial", "--json").stdout) == []
    depot = Depot(tmp_path / "dom0" / "pull", 1 << 30)
    with depot.use([DIGEST]), depot.fetching(DIGEST, 4_000_000) as partial:
        assert partial is not None
        partial.find(0)
        partial.put(0, bytes(1_500_000))
    (blob,) = json.loads(dom0("image", "ls", "--partial", "--json").stdout)
    assert (blob["digest"], blob["have"], blob["size"]) == (DIGEST, 1_500_000, 4_000_000)
    head, row = dom0("image", "ls", "--partial").stdout.splitlines()
    assert head.split() == ["BLOB", "HERE", "SIZE", "USED"]
    assert row.split()[:3] == ["abababababab", "1.5MB", "4MB"]


def need(ref: str, platform: str = "", *, built: bool = False) -> ImageNeed:
    return ImageNeed(where=f"compose.yaml:3: services.{ref}.image", ref=ref, platform=platform, built=built)


def test_what_a_project_calls_no_image_or_platform_does_not_stop_the_others() -> None:
    needs = [need("Redis"), need("redis"), need("caddy", "arm64"), need("x", "linux/"), need("Built", "-", built=True)]
    wanted, refused = read_needs([*needs, need("nginx", "linux/arm/v7")])
    assert [(each.ref, str(name), platform) for each, (name, platform) in wanted.items()] == [
        ("redis", "docker.io/library/redis:latest", ""),
        ("caddy", "docker.io/library/caddy:latest", "linux/arm64"),
        ("nginx", "docker.io/library/nginx:latest", "linux/arm/v7"),
    ]
    assert [(error.message.partition("image: ")[::2], error.exit_code) for error in refused] == [
        (
            (
                "compose.yaml:3: services.Redis.",
                "Redis: no name of an image: the name of a repository has small letters only",
            ),
            3,
        ),
        (
            ("compose.yaml:3: services.x.", "platform: 'linux/' is no platform, as linux/amd64 or linux/arm/v7"),
            3,
        ),
    ]


def test_each_image_that_fails_says_why_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    outcome: Outcome = (
        [],
        [Dom0Error("a: is gone", hint="look"), OSError(28, "is full", "/b"), GaveUp("c: is silent")],
    )
    with pytest.raises(GaveUp, match="c: is silent"):
        say_end(outcome, as_json=False)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "dom0: a: is gone",
        "      look",
        "dom0: /b: is full",
        "      free some space: df -h",
    ]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """One beside a depot below `tmp_path`."""
    for name in ("DOM0_STATE", "XDG_STATE_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "dom0"))
    return FakeEngine(FakeDocker())


async def test_of_a_project_only_what_is_not_here_is_pulled(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        """
        services:
          here: {image: "busybox:test", pull_policy: always}
          other: {image: "redis", platform: "linux/"}
        """
    )
    engine.docker.images.add("busybox:test")
    pulled, failed = await pull_missing(engine, tmp_path)
    assert pulled == []
    assert [type(error) for error in failed] == [ProjectError]


async def test_what_the_disk_refuses_of_one_image_is_kept_beside_the_others(engine: FakeEngine) -> None:
    def refuse(call: Call) -> None:
        if call.name == "info":
            raise PermissionError(13, "denied")

    engine.before = refuse
    pulled, failed = await pull_all(engine, [(parse("a"), ""), (parse("b"), "")])
    assert (pulled, [type(error) for error in failed]) == ([], [PermissionError] * 2)


async def test_ended_while_the_registry_is_asked_it_says_that_nothing_was_lost(engine: FakeEngine) -> None:
    is_asked = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        is_asked.set()
        await asyncio.Event().wait()
        yield b""

    def answer(asked: Asked) -> bytes | AsyncIterator[bytes]:
        return reply(200) if asked.path == "/v2/" else silent()

    async with served(answer) as server:
        pulling = asyncio.create_task(pull_all(engine, [(parse(f"{server.netloc}/team/app"), "")]))
        await is_asked.wait()
        pulling.cancel()
        with pytest.raises(Interrupted, match=f"^{server.netloc}/team/app:latest: ended while the registry was asked"):
            await pulling


@pytest.mark.engine
def test_the_images_of_a_project_are_fetched_and_what_it_builds_is_not(
    dom0: RunCommand, engine_host: Host, tmp_path: Path
) -> None:
    require(debian_registry.missing(), "tests of a registry")
    (tmp_path / "registry").mkdir()
    with DebianRegistry(tmp_path / "registry") as registry:
        registry.content.image("team/app", "1")
        name = f"{registry.host}/team/app:1"
        (tmp_path / "work" / "compose.yaml").write_text(
            f"""
            services:
              app: {{image: "{name}"}}
              app2: {{image: "{name}"}}
              here: {{image: "busybox:test"}}
              built: {{build: .}}
            """
        )
        engine = {"DOCKER_HOST": engine_host.docker_host}
        fetched = dom0("image", "fetch", "--json", env=engine)
        assert [image["reference"] for image in json.loads(fetched.stdout)] == [name], fetched.stderr
        engine_host.docker("image", "inspect", name)
        assert dom0("image", "fetch", env=engine).stdout == "nothing to pull: the images of this project are here\n"
        refused = dom0("image", "pull", f"{registry.host}/team/none:1", name, env=engine)
        assert refused.code == 1
        assert refused.stdout.startswith(f"{name}: ")
        assert "/team/none" in refused.stderr
