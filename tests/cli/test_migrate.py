"""`dom0 ambassador migrate`: what legacy links set, what replaces them, and names that are no friends."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import yaml

from dom0.cli.engine_client import Config, HostConfig, InspectedContainer
from dom0.cli.legacy_links import Legacy, examine, is_legacy
from dom0.run import Output
from dom0.testing import busybox
from dom0.testing.hosts import Host

RunCommand = Callable[..., Output]
HOSTILE = ("a: {b", "- x", "'\"", "#no", "&a *b", "!!str: x", "$HOME ${X}", "yes", "0x1", "\x1b[2J", "a\nb: c")


@pytest.fixture
def on_host(dom0: RunCommand, engine_host: Host) -> RunCommand:
    return partial(dom0, env={"DOCKER_HOST": engine_host.docker_host})


def container(name: str, *links: str, mode: str = "default", **config: Any) -> InspectedContainer:
    host = HostConfig(links=list(links), network_mode=mode)
    return InspectedContainer(
        id="0" * 64, name=f"/{name}", config=Config(**{"image": "app", **config}), host_config=host
    )


def web(*links: str, **config: Any) -> Legacy:
    redis = container("redis-1", image="redis:7", exposed_ports={"6379/tcp": {}}, env=["PATH=/", "PASSWORD=x"])
    return examine(container("web", *(links or ("/redis-1:/web/cache",)), **config), {"redis-1": redis}, engine=28)


def test_only_links_on_the_default_bridge_are_legacy() -> None:
    assert is_legacy(container("web", "/redis:/web/redis"))
    assert is_legacy(container("web", "/redis:/web/redis", mode="bridge"))
    assert not is_legacy(container("web", "/redis:/web/redis", mode="box_default"))
    assert not is_legacy(container("web"))


def test_the_snippet_has_the_alias_and_the_variables_with_a_name_for_the_address() -> None:
    assert yaml.safe_load(web().compose) == {
        "services": {
            "web": {
                "image": "app",
                "environment": {
                    "CACHE_PORT": "tcp://cache:6379",
                    "CACHE_PORT_6379_TCP": "tcp://cache:6379",
                    "CACHE_PORT_6379_TCP_ADDR": "cache",
                    "CACHE_PORT_6379_TCP_PORT": "6379",
                    "CACHE_PORT_6379_TCP_PROTO": "tcp",
                    "CACHE_NAME": "/web/cache",
                },
                "networks": ["web-links"],
            },
            "redis-1": {"image": "redis:7", "networks": {"web-links": {"aliases": ["cache"]}}},
        },
        "networks": {"web-links": {}},
    }


@pytest.mark.parametrize(("engine", "port"), [(26, "udp://my-db:53"), (28, "tcp://my-db:80")])
def test_the_port_that_stands_for_all_is_the_one_that_the_engine_chooses(engine: int, port: str) -> None:
    db = container("db", exposed_ports={"53/udp": {}, "81/tcp": {}, "80/tcp": {}})
    found = yaml.safe_load(examine(container("web", "/db:/web/my-db"), {"db": db}, engine=engine).compose)
    assert found["services"]["web"]["environment"]["MY_DB_PORT"] == port


def test_what_is_copied_from_the_other_container_is_named_and_not_told() -> None:
    assert web().links[0].copied == ("CACHE_ENV_PASSWORD",)
    assert "PASSWORD" not in web().compose


def test_it_says_which_variables_the_command_names() -> None:
    assert web(cmd=["sh", "-c", "connect $CACHE_PORT_6379_TCP_ADDR ${CACHE_NAMES}"]).named == (
        "CACHE_PORT_6379_TCP_ADDR",
    )
    assert web(env=["URL=$CACHE_ENV_PASSWORD"]).named == ("CACHE_ENV_PASSWORD",)


def test_an_ambassador_of_old_becomes_ours() -> None:
    found = yaml.safe_load(web(image="svendowideit/ambassador:latest").compose)["services"]["web"]
    assert found["image"] == "dom0-ambassador"
    assert found["environment"]["CACHE_PORT_6379_TCP"] == "tcp://cache:6379"
    assert found["cap_add"] == ["NET_ADMIN"]


def test_a_link_to_a_container_that_is_gone_is_told_all_the_same() -> None:
    (link,) = web("/gone:/web/gone").links
    assert (link.target, link.variables) == ("gone", ())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_what_they_are_in_the_snippet(text: str) -> None:
    name = text.replace(":", "")  # ends a name in a link
    found = examine(
        container(name, f"/{name}-2:/x/{name}", image=text, cmd=[text]),
        {f"{name}-2": container(f"{name}-2", image=text, exposed_ports={"80/tcp": {}, text: {}})},
        engine=28,
    )
    doubled = name.replace("$", "$$")
    document = yaml.safe_load(found.compose)
    assert list(document["services"]) == [doubled, f"{doubled}-2"]
    assert document["services"][doubled]["image"] == text.replace("$", "$$")
    assert document["services"][f"{doubled}-2"]["networks"] == {f"{doubled}-links": {"aliases": [doubled]}}


def test_migrate_tells_what_the_engine_really_set(on_host: RunCommand, engine_host: Host) -> None:
    exposed = [word for port in ("80", "81", "82", "6379", "53/udp") for word in ("--expose", port)]
    engine_host.docker("run", "-d", "--name", "redis", "--env", "A=1", *exposed, busybox.IMAGE, "sleep", "1000")
    engine_host.docker("run", "-d", "--name", "web", "--link", "redis:my-db", busybox.IMAGE, "sleep", "1000")
    shown = on_host("ambassador", "migrate", "--json")
    (found,) = json.loads(shown.stdout)
    (link,) = found["links"]
    said = engine_host.docker("exec", "web", "env").stdout.splitlines()
    real = dict(line.split("=", 1) for line in said if line.startswith("MY_DB_"))
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = engine_host.docker("inspect", "--format", form, "redis").stdout.strip()
    assert real.keys() == {*link["variables"], *link["copied"]}
    environment = yaml.safe_load(found["compose"])["services"]["web"]["environment"]
    assert environment == {k: v.replace(address, "my-db") for k, v in real.items() if k not in link["copied"]}
    assert shown.code == 10


def test_the_snippet_runs_and_the_name_is_found(on_host: RunCommand, engine_host: Host) -> None:
    engine_host.docker("run", "-d", "--name", "redis", "--expose", "80", busybox.IMAGE, "sleep", "1000")
    engine_host.docker("run", "-d", "--name", "web", "--link", "redis:db", busybox.IMAGE, "sleep", "1000")
    (found,) = json.loads(on_host("ambassador", "migrate", "--json").stdout)
    document = yaml.safe_load(found["compose"])
    for service in document["services"].values():
        service["command"] = ["sleep", "1000"]
    run = ("compose", "-p", "box", "-f", "-")
    engine_host.run(["docker", *run, "up", "-d"], stdin=yaml.safe_dump(document).encode())
    assert "Name:" in engine_host.docker("exec", "box-web-1", "nslookup", "db").stdout


def test_a_person_reads_what_breaks_and_what_to_write(on_host: RunCommand, engine_host: Host) -> None:
    assert on_host("ambassador", "migrate") == Output(0, "no container here has a legacy link\n", "")
    engine_host.docker("run", "-d", "--name", "redis", "--expose", "80", busybox.IMAGE, "sleep", "1000")
    engine_host.docker("run", "-d", "--name", "web", "--link", "redis", busybox.IMAGE, "sh", "-c", "sleep 1$REDIS_NAME")
    shown = on_host("ambassador", "migrate")
    assert shown.code == 10
    assert "web (busybox:test) is linked to redis as redis" in shown.stdout
    assert "Engine 29: its 6 link variables are not set any more" in shown.stdout
    assert "names REDIS_NAME" in shown.stdout
    assert "        REDIS_PORT_80_TCP_ADDR: redis" in shown.stdout
