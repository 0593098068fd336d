"""Create bodies at random, really created: the oracle looks at the containers, networks and volumes that there are."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random

import pytest

from dom0.socketproxy import requests
from dom0.testing import busybox, scopes
from dom0.testing.escape import bodies
from dom0.testing.escape.raw import Answer, Client
from dom0.testing.escape.world import LABELLED, World
from dom0.testing.hosts import Host

CREATED = int(os.environ.get("DOM0_TEST_CREATED", "10"))  # at least
AT_ONCE = 30
TOLD_EACH = 100  # that were created


def attempts(random: Random, client: Client, world: World) -> list[Answer]:
    """The answers to as many bodies, some of which refer to a container and a network of the scope's."""
    for target, body in (("/networks/create", {"Name": "front"}), ("/containers/create?name=db", {"Image": LABELLED})):
        made = client.ask("POST", target, body, patience=60)
        assert made.status == 201, made.content
    told = []
    for number in range(AT_ONCE):
        raw = bodies.body(random, requests.Container, spoilt=6).replace(busybox.IMAGE.encode(), LABELLED.encode())
        raw = raw.replace(bodies.VICTIM.encode(), world.victim_id.encode())
        told.append(client.ask("POST", f"/containers/create?name=at-random-{number}", raw, patience=60))
    return told


@pytest.mark.timeout(600 + 10 * CREATED)
def test_no_container_that_was_created_reaches_outside(engine_host: Host, tmp_path: Path) -> None:
    seed = Random().getrandbits(64)  # noqa: S311 -- no secret
    random, created = Random(seed), 0  # noqa: S311
    with scopes.served(engine_host, tmp_path, "{images: {use: [busybox]}, networks: 3}") as path:
        client = Client(path)
        own = {"prefix": "guest.", "socket": str(path), "group": f"/{engine_host.cgroup}/guest"}
        world = World(engine_host.socket, engine_host.path("/"), image=busybox.IMAGE, loopback="", **own)
        while created < CREATED:
            answers = attempts(random, client, world)
            assert not world.escapes(answers), f"seed {seed}"
            assert not [answer.content for answer in answers if answer.status in (0, 502)], f"seed {seed}"
            before, created = created, created + sum(answer.status == 201 for answer in answers)
            if before // TOLD_EACH < created // TOLD_EACH or created >= CREATED:
                print(f"{created} containers at random, none reaches outside", file=sys.__stderr__, flush=True)
            world.clean()
