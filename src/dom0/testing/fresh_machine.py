"""A Debian on which nobody has installed anything yet: a privileged container with Debian's smallest file system, no
service manager and no Docker. What it can reach of package registries is what this machine reaches, by its settings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from dom0.names import ROOTFS_IMAGE
from dom0.run import Output
from dom0.testing import chain
from dom0.testing.hosts import Host

NAME = "fresh"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SETTINGS = ("pip_", "http_proxy", "https_proxy", "no_proxy")  # beginnings of names, in any case


class FreshMachine:
    """`host` has to reach the network; the container is removed with it."""

    def __init__(self, host: Host, packages: Sequence[str], *, workdir: str = "/root") -> None:
        self._host = host
        self._workdir = workdir
        chain.provide(host)
        install = f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(packages)}"
        dockerfile = f"FROM {ROOTFS_IMAGE}\nRUN {install}\n"
        host.run(["docker", "build", "--tag", NAME, "-"], stdin=dockerfile.encode(), timeout=300)
        options = ["--env", f"PIP_CERT={CERTIFICATES}", "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        for name, value in os.environ.items():
            if name.lower().startswith(SETTINGS):
                options += ["--env", f"{name}={value}"]
        host.docker(
            *("run", "--detach", "--init", "--privileged", "--name", NAME, "--hostname", NAME),
            *("--volume", "/var/lib/docker", *options, NAME, "sleep", "infinity"),
        )

    def unpack(self, tar: bytes) -> None:
        """Into /root."""
        self._host.run(["docker", "cp", "-", f"{NAME}:/root"], stdin=tar, timeout=120)

    def run(self, *argv: str, check: bool = True) -> Output:
        exec_ = ("docker", "exec", "--workdir", self._workdir, NAME)
        return self._host.run([*exec_, *argv], check=check, timeout=900)

    def containers(self) -> set[str]:
        return set(self.run("docker", "ps", "--format", "{{.Names}}").stdout.split())
