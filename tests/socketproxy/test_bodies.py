"""Bodies at random, from their first byte to what the Engine would get: whatever passes reaches nothing outside."""

from __future__ import annotations

import contextlib
import json
import os
from random import Random
from typing import Any

import pytest

from dom0.engine.bodies import Body, VolumeBody
from dom0.socketproxy import requests
from dom0.socketproxy.refusal import Refused
from dom0.testing.escape import bodies, still

# Chance reaches any line, once: it says nothing of what is tested, and counting takes longer than the tests.
pytestmark = pytest.mark.no_cover

EXAMPLES = int(os.environ.get("DOM0_TEST_BODIES", "20000"))


def judge(count: int, target: str, model: type[Body]) -> None:
    random = Random()  # noqa: S311 -- no secret
    for _ in range(count):
        request = bodies.request(random, target, model)
        with contextlib.suppress(Refused):
            assert not still.escapes(still.outcome(request)), request


HARMLESS = {"NetworkMode": "guest.bridge", "CgroupnsMode": "private"}


def oracle(**host: Any) -> list[str]:
    body = {"Image": still.IMAGE, "Labels": {"dom0.scope": "/guest"}, "HostConfig": HARMLESS | host}
    return still.REACH.container(json.dumps(body).encode())


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True},
        {"privileged": True},
        {"Binds": ["/etc:/e"]},
        {"Binds": ["data:/d"]},
        {"Binds": ["guest.data:/d:rshared"]},
        {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/e"}]},
        {"Mounts": [{"Type": "volume", "Target": "/d"}]},
        {"Mounts": [{"Type": "volume", "Target": "/d", "VolumeOptions": {"DriverConfig": {"Options": {"o": "bind"}}}}]},
        {"CapAdd": ["SYS_ADMIN"]},
        {"PidMode": "host"},
        {"PidMode": f"container:{bodies.VICTIM}"},
        {"NetworkMode": "host"},
        {"NetworkMode": ""},
        {"CgroupnsMode": "host"},
        {"VolumesFrom": [bodies.VICTIM]},
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"Sysctls": {"kernel.core_pattern": "x"}},
        {"PortBindings": {"80/tcp": [{"HostPort": ""}]}},
        {"PortBindings": {"80/tcp": [{"HostPort": "22"}]}},
        {"OomScoreAdj": -1},
        {"LogConfig": {"Type": "syslog"}},
        {"Devices": [{"PathOnHost": "/dev/sda"}]},
        {"MaskedPaths": []},
    ],
)
def test_the_oracle_sees(host: dict[str, Any]) -> None:
    assert oracle() == []
    assert oracle(**host) != []


def test_no_container_reaches_outside() -> None:
    judge(EXAMPLES, "/containers/create?name=web", requests.Container)


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("/networks/create", requests.Network),
        ("/networks/front/connect", requests.Connect),
        ("/networks/front/disconnect", requests.Disconnect),
        ("/volumes/create", VolumeBody),
        ("/containers/db/update", requests.Update),
        ("/containers/db/exec", requests.Exec),
    ],
)
def test_no_other_body_does(target: str, model: type[Body]) -> None:
    judge(EXAMPLES // 20, target, model)
