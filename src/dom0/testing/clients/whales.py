"""python-on-whales, which runs the docker command: what it is used for, step by step."""

from __future__ import annotations

import tempfile
from pathlib import Path

from outcomes import step
from python_on_whales import DockerClient

IMAGE = "busybox:test"
COMPOSE = f"""
name: shop
services:
  db: {{image: "{IMAGE}", init: true, command: [sleep, "1000"], volumes: ["data:/data"]}}
  web: {{image: "{IMAGE}", init: true, command: [sh, -c, "echo up; exec sleep 1000"], depends_on: [db]}}
volumes: {{data: {{}}}}
"""


def main() -> None:
    docker = DockerClient()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        containers(docker, directory)
        networks_and_volumes(docker)
        images(docker, directory)
        compose(directory)
    refused(docker)
    step("nothing is left", lambda: [one.name for one in docker.container.list(all=True)])


def containers(docker: DockerClient, directory: Path) -> None:
    step("info", lambda: docker.system.info().os_type)
    step("run", lambda: docker.run(IMAGE, ["echo", "hello"], remove=True))
    step("run and fail", lambda: docker.run(IMAGE, ["sh", "-c", "exit 3"], remove=True))
    step("streamed", lambda: list(docker.run(IMAGE, ["seq", "3"], remove=True, stream=True)))
    web = docker.run(
        IMAGE, ["sh", "-c", "echo up; exec sleep 1000"], name="web", detach=True, init=True, labels={"a": "b"}
    )
    step("name", lambda: (web.name, web.state.status, web.config.labels, web.host_config.privileged))
    step("list", lambda: [one.name for one in docker.container.list(filters=[("label", "a=b")])])
    step("exists", lambda: (docker.container.exists("web"), docker.container.exists("nothing")))
    step("inspect nothing", lambda: docker.container.inspect("nothing"))
    step("execute", lambda: web.execute(["sh", "-c", "echo $A"], envs={"A": "b"}))
    step("execute and fail", lambda: web.execute(["false"]))
    (directory / "file").write_text("copied")
    step("copy in", lambda: web.copy_to(directory / "file", "/copied"))
    step("copy out", lambda: (web.copy_from("/copied", directory / "out"), (directory / "out").read_text())[1])
    step("diff", lambda: sorted(web.diff()))
    step("stats", lambda: [one.container_name for one in docker.stats(containers=["web"])])
    step("logs", web.logs)
    step("update", lambda: (docker.container.update(web, memory="64m", memory_swap="64m"), web.host_config.memory))
    step("rename", lambda: (web.rename("www"), web.name))
    step("pause", lambda: (web.pause(), web.state.paused, web.unpause(), web.state.paused))
    step("restart", lambda: web.restart(time=0))
    step("commit", lambda: web.commit("made:1").repo_tags)
    step("kill", web.kill)
    step("wait", lambda: docker.container.wait("www"))
    step("start and stop", lambda: (web.start(), web.stop(time=0), web.state.running))
    step("export", lambda: (web.export(directory / "tar"), (directory / "tar").stat().st_size > 1000))
    step("remove", lambda: web.remove(volumes=True))
    step("create", lambda: docker.container.create(IMAGE, ["true"], name="created").state.status)
    step("prune", docker.container.prune)


def networks_and_volumes(docker: DockerClient) -> None:
    step("network", lambda: docker.network.create("front", labels={"a": "b"}).driver)
    step("networks", lambda: [one.name for one in docker.network.list(filters={"name": "front"})])
    step("volume", lambda: docker.volume.create("data", labels={"a": "b"}).name)
    step("volumes", lambda: [one.name for one in docker.volume.list(filters={"label": "a"})])
    step(
        "run on both",
        lambda: docker.run(IMAGE, ["touch", "/d/x"], networks=["front"], volumes=[("data", "/d")], remove=True),
    )
    step("copy from a volume", lambda: docker.run(IMAGE, ["ls", "/d"], volumes=[("data", "/d", "ro")], remove=True))
    idle = docker.run(IMAGE, ["sleep", "1000"], detach=True, init=True, name="idle")
    step("connect", lambda: docker.network.connect("front", idle, alias="x"))
    step("members", lambda: [one.name for one in docker.network.inspect("front").containers.values()])
    step("disconnect", lambda: docker.network.disconnect("front", idle))
    step("remove by force", lambda: idle.remove(force=True))
    step("remove them", lambda: (docker.network.remove("front"), docker.volume.remove("data")))
    step("prune networks", docker.network.prune)
    step("prune volumes", lambda: docker.volume.prune(all=True))


def images(docker: DockerClient, directory: Path) -> None:
    step("images", lambda: sorted(name for one in docker.image.list() for name in one.repo_tags))
    step("exists", lambda: (docker.image.exists(IMAGE), docker.image.exists("nothing:1")))
    step("tag", lambda: docker.image.tag(IMAGE, "mine:1"))
    step("save", lambda: docker.image.save("mine:1", output=directory / "image.tar"))
    step("remove", lambda: docker.image.remove("mine:1"))
    step("load", lambda: docker.image.load(directory / "image.tar"))
    context = directory / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo built >/built\nCMD cat /built\n")
    step("build", lambda: docker.legacy_build(context, tags="built:1").repo_tags)
    step("run what was built", lambda: docker.run("built:1", remove=True))
    step("remove all", lambda: docker.image.remove(["mine:1", "built:1", "made:1"], force=True))


def compose(directory: Path) -> None:
    (directory / "compose.yaml").write_text(COMPOSE)
    docker = DockerClient(compose_files=[directory / "compose.yaml"])
    step("up", lambda: docker.compose.up(detach=True, quiet=True))
    step("ps", lambda: sorted(one.name for one in docker.compose.ps()))
    step("ls", lambda: [one.name for one in docker.compose.ls()])
    step("execute", lambda: docker.compose.execute("web", ["echo", "hi"], tty=False))
    step("scale", lambda: docker.compose.up(detach=True, quiet=True, scales={"web": 2}))
    step("ps of two", lambda: sorted(one.name for one in docker.compose.ps()))
    step("down", lambda: docker.compose.down(volumes=True, timeout=0, quiet=True))


def refused(docker: DockerClient) -> None:
    """What a scope does not get; the outcomes differ."""
    step("! import", lambda: docker.image.import_("/dev/null"))
    step("! disk usage", lambda: docker.system.disk_free().images is not None)
    step("! privileged", lambda: docker.run(IMAGE, ["true"], privileged=True, remove=True))
    step("! a path of the host", lambda: docker.run(IMAGE, ["true"], volumes=[("/etc", "/e")], remove=True))
    step("! network of the host", lambda: docker.run(IMAGE, ["true"], networks=["host"], remove=True))
    step("! all ports", lambda: docker.run(IMAGE, ["true"], expose=80, publish_all=True, remove=True))


if __name__ == "__main__":
    main()
