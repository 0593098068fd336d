"""`docker-proxy` of the base OS: what is published with it, and what an Engine keeps of a port after a power cut."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dom0.testing.busybox import IMAGE
from dom0.testing.hosts import Host, until

TREE = Path(__file__).parents[2] / "os/tree"
OF_DEBIAN = "/usr/sbin/docker-proxy"
BEGUN = "/run/begun"
RUNTIME = f"""#!/bin/sh
case " $* " in
*' create '*) ! mkdir {BEGUN} 2>/dev/null || exec sleep 1000 ;; # the first one hangs
esac
exec runc "$@"
"""
ALLOCATED = "port is already allocated"


@pytest.fixture
def cut_off(fresh_host: Callable[..., Host], tmp_path: Path) -> Callable[[str], Host]:
    """A host that lost its power while `web` was started, and has it again; its Engine uses that program.

    The port is then in the network database, and nothing says which container's it was.
    """
    runtime = tmp_path / "runtime"
    runtime.write_text(RUNTIME)
    runtime.chmod(0o755)

    def make(program: str) -> Host:
        config: dict[str, Any] = {"userland-proxy-path": program, "default-runtime": "hangs-once"}
        host = fresh_host(config={**config, "runtimes": {"hangs-once": {"path": str(runtime)}}})
        host.docker("create", "--name=web", "--publish=8080:80", IMAGE, "httpd", "-f", "-h", "/etc")
        with host.popen(["docker", "start", "web"], stderr=subprocess.DEVNULL):
            until(host.path(BEGUN).exists)
            host.lose_power()
        host.start_engine()
        return host

    return make


def test_a_port_of_a_start_that_a_power_cut_ended_is_free(cut_off: Callable[[str], Host]) -> None:
    settings = json.loads((TREE / "etc/docker/daemon.json").read_text())
    host = cut_off(f"{TREE}{settings['userland-proxy-path']}")
    host.docker("start", "web")
    served = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/hostname"]  # which takes a proxy
    until(lambda: host.run(served).stdout)


def test_without_it_the_engine_keeps_that_port_until_it_is_restarted(cut_off: Callable[[str], Host]) -> None:
    """Where this fails the Engine is mended, and the program of the base OS and its hint have had their time."""
    host = cut_off(OF_DEBIAN)
    assert ALLOCATED in host.docker("start", "web", check=False).stderr
    host.docker("rm", "web")
    again = host.docker("run", "--detach", "--name=web", "--publish=8080:80", IMAGE, "sleep", "1000", check=False)
    assert ALLOCATED in again.stderr
    host.restart_engine()
    host.docker("start", "web")
