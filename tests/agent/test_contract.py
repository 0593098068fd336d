"""The run contract is what the documentation says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from dom0.agent.contract import RESTART, root_body
from dom0.engine.bodies import RestartPolicy
from dom0.names import IMAGE
from dom0.testing.machines import docker_run

CONCEPTS = Path(__file__).parents[2] / "docs" / "concepts.md"


def test_the_documented_command_is_the_contract() -> None:
    shown = re.search(r"docker run --detach --name dom0 .*?(?=\n```)", CONCEPTS.read_text(), re.DOTALL)
    assert shown is not None
    assert shlex.split(shown[0].replace("\\\n", "")) == docker_run(IMAGE)
    host = root_body(IMAGE).host_config
    assert (host.privileged, host.network_mode, host.pid_mode) == (True, "host", "host")
    assert host.restart_policy == RestartPolicy(name=RESTART)


def test_a_path_is_the_same_inside_and_outside() -> None:
    assert root_body(IMAGE).host_config.binds == (
        "/var/run/docker.sock:/var/run/docker.sock",
        "/var/lib/dom0:/var/lib/dom0",
        "/run/dom0:/run/dom0",
    )
