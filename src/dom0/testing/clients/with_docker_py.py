"""docker-py: what programs do with it, step by step."""

from __future__ import annotations

import io
import tarfile
from itertools import islice

import docker
from docker.types import LogConfig, Mount, Ulimit
from outcomes import packed, step

IMAGE = "busybox:test"
IDLE = {"command": ["sleep", "1000"], "init": True, "detach": True}


def main() -> None:
    client = docker.from_env()
    containers(client)
    networks_and_volumes(client)
    images(client)
    refused(client)
    step("nothing is left", lambda: [one.name for one in client.containers.list(all=True)])


def containers(client: docker.DockerClient) -> None:
    step("info", lambda: (client.ping(), client.info()["OSType"], client.version()["Os"]))
    step("run", lambda: client.containers.run(IMAGE, ["echo", "hello"], remove=True))
    step("run and fail", lambda: client.containers.run(IMAGE, ["sh", "-c", "echo no >&2; exit 3"], remove=True))
    web = client.containers.run(
        IMAGE,
        ["sh", "-c", "echo up; touch /started; exec sleep 1000"],
        name="web",
        init=True,
        detach=True,
        labels={"a": "b"},
        environment={"A": "b"},
        ulimits=[Ulimit(name="nofile", soft=100, hard=100)],
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m"}),
        mem_limit="64m",
        tmpfs={"/t": "size=1m"},
    )
    step("run the same again", lambda: client.containers.run(IMAGE, ["true"], name="web", detach=True))
    step("wait until it has begun", lambda: web.exec_run(["sh", "-c", "until [ -e /started ]; do sleep 0.1; done"]))
    step("attributes", lambda: (web.name, web.labels, web.image.tags, web.attrs["HostConfig"]["Memory"]))
    step("list", lambda: [one.name for one in client.containers.list(filters={"label": "a=b"})])
    step("get nothing", lambda: client.containers.get("nothing"))
    step("execute", lambda: web.exec_run(["sh", "-c", "echo $A; id -u"], environment={"A": "c"}, user="12"))
    step("execute apart", lambda: web.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True))
    step("execute by a socket", lambda: typed(web))
    step("copy in", lambda: web.put_archive("/root", packed("file", b"copied")))
    step("copy out", lambda: unpacked(b"".join(web.get_archive("/root/file")[0])))
    step("diff", lambda: sorted(one["Path"] for one in web.diff()))
    step("top", lambda: web.top(ps_args="-o pid,args")["Titles"])
    step("stats", lambda: web.stats(stream=False)["name"])
    step("logs", lambda: web.logs(tail=1))
    step("follow", lambda: next(iter(web.logs(stream=True, follow=True))))
    step("update", lambda: (web.update(mem_limit="32m", memswap_limit="32m"), web.reload(), limit(web)))
    step("rename", lambda: (web.rename("www"), web.reload(), web.name))
    step("pause", lambda: (web.pause(), web.reload(), web.status, web.unpause()))
    step("restart", lambda: web.restart(timeout=0))
    step("resize", lambda: web.resize(20, 80))
    step("commit", lambda: web.commit("made", tag="1").tags)
    step("kill and wait", lambda: (web.kill(), web.wait()))
    step("export", lambda: len(b"".join(web.export())) > 1000)
    step("remove", lambda: web.remove(v=True))
    step("events", lambda: seen(client))
    step("prune", lambda: sorted(client.containers.prune()))


def typed(container: docker.models.containers.Container) -> bytes:
    """What comes back of what is written to a command."""
    _, connection = container.exec_run(["cat"], stdin=True, socket=True)
    connection._sock.sendall(b"typed\n")
    return bytes(connection.read(14))  # 8 of them say of which stream it is


def limit(container: docker.models.containers.Container) -> int:
    return int(container.attrs["HostConfig"]["Memory"])


def seen(client: docker.DockerClient) -> list[str]:
    """What is told of a container while it is made."""
    told = client.events(decode=True, filters={"type": "container", "event": ["create", "destroy"]})
    client.containers.create(IMAGE, ["true"], name="seen").remove()
    return [f"{one['Action']} {one['Actor']['Attributes']['name']}" for one in islice(told, 2)]


def unpacked(archive: bytes) -> list[tuple[str, int]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [(entry.name, entry.size) for entry in tar]


def networks_and_volumes(client: docker.DockerClient) -> None:
    front = client.networks.create("front", labels={"a": "b"}, check_duplicate=True)
    step("networks", lambda: [(one.name, one.attrs["Driver"]) for one in client.networks.list(names=["front"])])
    step("volume", lambda: client.volumes.create("data", labels={"a": "b"}).name)
    step("volumes", lambda: [one.name for one in client.volumes.list(filters={"label": "a"})])
    on_both = {"network": "front", "volumes": {"data": {"bind": "/d", "mode": "rw"}}, "remove": True}
    step("run on both", lambda: client.containers.run(IMAGE, ["touch", "/d/x"], **on_both))
    mounted = [Mount("/d", "data", read_only=True)]
    step("mount it", lambda: client.containers.run(IMAGE, ["ls", "/d"], mounts=mounted, remove=True))
    idle = client.containers.run(IMAGE, name="idle", **IDLE)
    step("connect", lambda: front.connect(idle, aliases=["x"]))
    step("members", lambda: (front.reload(), [one.name for one in front.containers]))
    step("ask by the alias", lambda: client.containers.run(IMAGE, ["ping", "-c", "1", "x"], network="front") != b"")
    step("disconnect", lambda: front.disconnect(idle))
    step("remove by force", lambda: idle.remove(force=True))
    step("prune containers", lambda: len(client.containers.prune()["ContainersDeleted"]))
    step("remove them", lambda: (front.remove(), client.volumes.get("data").remove()))
    step("! prune networks", client.networks.prune)
    step("prune volumes", lambda: client.volumes.prune(filters={"all": True}))


def images(client: docker.DockerClient) -> None:
    step("images", lambda: sorted(name for one in client.images.list() for name in one.tags))
    step("! get nothing", lambda: client.images.get("nothing:1"))
    step("tag", lambda: client.images.get(IMAGE).tag("mine", tag="1"))
    step(
        "save and load",
        lambda: [
            sorted(one.tags) for one in client.images.load(b"".join(client.images.get("mine:1").save(named=True)))
        ],
    )
    step("history", lambda: len(client.images.get("mine:1").history()) > 0)
    dockerfile = f"FROM {IMAGE}\nRUN echo built >/built\nCMD cat /built\n".encode()
    context = {"fileobj": io.BytesIO(packed("Dockerfile", dockerfile)), "custom_context": True}
    step("build", lambda: client.images.build(**context, tag="built:1", rm=True)[0].tags)
    step("run what was built", lambda: client.containers.run("built:1", remove=True))
    step("! pull nothing", lambda: client.images.pull("no.such.host.invalid/nothing", tag="1") and None)
    step("remove all", lambda: [client.images.remove(name, force=True) for name in ("mine:1", "built:1", "made:1")])


def loaded(client: docker.DockerClient, archive: bytes) -> list[list[str]]:
    return [sorted(one.tags) for one in client.images.load(archive)]


def refused(client: docker.DockerClient) -> None:
    """What a scope does not get; the outcomes differ."""
    run = client.containers.run
    step("! disk usage", lambda: sorted(client.df()))
    step("! privileged", lambda: run(IMAGE, ["true"], privileged=True, remove=True))
    step("! a path of the host", lambda: run(IMAGE, ["true"], volumes=["/etc:/e"], remove=True))
    step("! network of the host", lambda: run(IMAGE, ["true"], network_mode="host", remove=True))
    step("! a capability", lambda: run(IMAGE, ["true"], cap_add=["SYS_ADMIN"], remove=True))
    step("! a driver", lambda: client.volumes.create("tmp", driver_opts={"type": "tmpfs", "device": "tmpfs"}).name)


if __name__ == "__main__":
    main()
