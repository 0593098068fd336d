"""testcontainers: what tests of others start, with the container that ends what they leave."""

from __future__ import annotations

import os
import urllib.request

from outcomes import step
from testcontainers.core.container import DockerContainer, Reaper
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

IMAGE = "busybox:test"
SERVES = "echo page >/index.html; echo ready; exec httpd -f -p 80 -h /"


def main() -> None:
    step("a container that is waited for", logs)
    step("a port that the Engine chooses", page)
    step("two on a network", together)
    step("a volume and files", files)
    step("a command that fails", lambda: DockerContainer(IMAGE).with_command("false").start().wait())
    step("an image that is built", built)
    step(
        "the reaper",
        lambda: Reaper._container is not None and Reaper._container._name.startswith("testcontainers-ryuk"),
    )
    step("! a path of the host", lambda: idle().with_volume_mapping("/etc", "/e").start().stop())
    step("! privileged", lambda: idle().with_kwargs(privileged=True).start().stop())
    left = idle().with_name("left").start()
    step("one that is left behind", lambda: left.status)
    os._exit(0)  # as a test run that was killed: nothing is stopped in order


def idle() -> DockerContainer:
    return DockerContainer(IMAGE).with_command("sleep 1000")


def logs() -> object:
    with DockerContainer(IMAGE).with_command(["sh", "-c", "echo up; exec sleep 1000"]).with_env("A", "b") as one:
        wait_for_logs(one, "up", timeout=60)
        code, output = one.exec(["sh", "-c", "echo $A"])
        return one.get_logs(), code, output, one.get_container_info().Config.Image


def page() -> object:
    with DockerContainer(IMAGE).with_command(["sh", "-c", SERVES]).with_exposed_ports(80) as one:
        wait_for_logs(one, "ready", timeout=60)
        address = f"http://{one.get_container_host_ip()}:{one.get_exposed_port(80)}/index.html"
        tries = one.exec(["sh", "-c", "until wget -q -O - http://127.0.0.1/index.html; do sleep 0.1; done"])
        return tries.output, urllib.request.urlopen(address, timeout=30).read()


def together() -> object:
    serves = ["sh", "-c", SERVES]
    with (
        Network() as network,
        DockerContainer(IMAGE).with_command(serves).with_network(network).with_network_aliases("web") as web,
    ):
        wait_for_logs(web, "ready", timeout=60)
        asks = ["sh", "-c", "until wget -q -O - http://web/index.html; do sleep 0.1; done; echo done"]
        with DockerContainer(IMAGE).with_command(asks).with_network(network) as other:
            wait_for_logs(other, "done", timeout=60)
            return other.get_logs()


def files() -> object:
    one = idle().with_volume_mapping("data", "/data", "rw")
    with one.with_tmpfs_mount("/t", "size=1m").with_copy_into_container(b"copied", "/root/file") as started:
        return started.exec("cat /root/file").output, started.exec("touch /data/x /t/x").exit_code


def built() -> object:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo built >/built\n")
        with (
            DockerImage(path=name, tag="built-here:1") as image,
            DockerContainer(str(image)).with_command("sleep 1000") as one,
        ):
            return one.exec("cat /built").output


if __name__ == "__main__":
    main()
