"""aiodocker: what programs do with it, step by step."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiodocker
from outcomes import packed, step

IMAGE = "busybox:test"
IDLE = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": {"Init": True}}
Work = Callable[[aiodocker.Docker], Coroutine[Any, Any, object]]


def main() -> None:
    with asyncio.Runner() as runner:
        for name, work in STEPS.items():
            step(name, lambda work=work: runner.run(_connected(work)))


async def _connected(work: Work) -> object:
    async with aiodocker.Docker() as client:
        return await work(client)


def ran(*command: str, **host: Any) -> Work:
    """A container to its end: its output and code."""

    async def work(client: aiodocker.Docker) -> object:
        one = await client.containers.run({"Image": IMAGE, "Cmd": command, "HostConfig": host})
        code = (await one.wait())["StatusCode"]
        said = await one.log(stdout=True, stderr=True)
        await one.delete(force=True)
        return said, code

    return work


def asked(work: Callable[[aiodocker.Docker], Coroutine[Any, Any, Any]], key: str) -> Work:
    async def found(client: aiodocker.Docker) -> object:
        return (await work(client))[key]

    return found


def names(**parameters: Any) -> Work:
    async def work(client: aiodocker.Docker) -> object:
        return sorted(one["Names"][0] for one in await client.containers.list(all=True, **parameters))

    return work


async def started(client: aiodocker.Docker) -> object:
    one = await client.containers.create({**IDLE, "Labels": {"a": "b"}, "Env": ["A=b"]}, name="web")
    await one.start()
    shown = await one.show()
    return shown["Name"], shown["State"]["Status"], shown["Config"]["Labels"], shown["HostConfig"]["Privileged"]


async def executed(client: aiodocker.Docker) -> object:
    one = await client.containers.get("web")
    execution = await one.exec(["sh", "-c", "echo $A; exit 3"], environment={"A": "c"})
    async with execution.start() as stream:
        said = []
        while message := await stream.read_out():
            said.append((message.stream, message.data))
    return said, (await execution.inspect())["ExitCode"]


async def attached(client: aiodocker.Docker) -> object:
    one = await client.containers.create({"Image": IMAGE, "Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True})
    async with one.attach(stdin=True, stdout=True, stderr=True) as stream:
        await one.start()
        await stream.write_in(b"typed\n")
        message = await stream.read_out()
    await one.delete(force=True)
    return message and message.data


async def copied(client: aiodocker.Docker) -> object:
    one = await client.containers.get("web")
    await one.put_archive("/root", packed("file", b"copied"))
    return [(entry.name, entry.size) for entry in await one.get_archive("/root/file")]


async def renamed(client: aiodocker.Docker) -> object:
    one = await client.containers.get("web")
    await one.restart(timeout=0)
    await one.pause()
    paused = (await one.show())["State"]["Status"]
    await one.unpause()
    await one.rename("www")
    return paused, (await one.show())["Name"]


async def committed(client: aiodocker.Docker) -> object:
    await (await client.containers.get("www")).commit(repository="made", tag="1")
    return (await client.images.inspect("made:1"))["RepoTags"]


async def ended(client: aiodocker.Docker) -> object:
    one = await client.containers.get("www")
    stats = (await one.stats(stream=False))[0]["name"]
    await one.kill()
    code = (await one.wait())["StatusCode"]
    await one.delete(v=True)
    return stats, code


async def told(client: aiodocker.Docker) -> object:
    """The first two events of a container."""
    subscriber = client.events.subscribe(since=f"{time.time():.6f}")
    one = await client.containers.create(IDLE, name="told")
    await one.delete()
    found: list[str] = []
    async with asyncio.timeout(60):
        while len(found) < 2:
            event = await subscriber.get()
            found += [f"{event['Action']} {event['Actor']['Attributes']['name']}"]
    return found


async def connected(client: aiodocker.Docker) -> object:
    """A network, a volume, and a container on both."""
    network = await client.networks.create({"Name": "front", "Labels": {"a": "b"}})
    volume = await client.volumes.create({"Name": "data", "Labels": {"a": "b"}})
    one = await client.containers.create({**IDLE, "HostConfig": {"Init": True, "Binds": ["data:/d"]}}, name="idle")
    await one.start()
    await network.connect({"Container": "idle", "EndpointConfig": {"Aliases": ["x"]}})
    members = [member["Name"] for member in (await network.show())["Containers"].values()]
    volumes = [found["Name"] for found in (await client.volumes.list(filters={"label": ["a"]}))["Volumes"]]
    networks = [found["Name"] for found in await client.networks.list(filters={"name": ["front"]})]
    await network.disconnect({"Container": "idle"})
    await one.delete(force=True)
    await network.delete()
    await volume.delete()
    return members, volumes, networks


async def no_volume(client: aiodocker.Docker) -> object:
    return await (await client.volumes.get("nothing")).show()


async def tags(client: aiodocker.Docker) -> object:
    return sorted(name for one in await client.images.list() for name in one["RepoTags"] or ())


async def loaded(client: aiodocker.Docker) -> object:
    await client.images.tag(IMAGE, "mine", tag="1")
    async with client.images.export_image("mine:1") as archive:
        saved = await archive.read()
    return [line async for line in client.images.import_image(saved, stream=True)][-1:]


async def built(client: aiodocker.Docker) -> object:
    dockerfile = f"FROM {IMAGE}\nRUN echo built >/built\nCMD cat /built\n".encode()
    context = io.BytesIO(packed("Dockerfile", dockerfile))
    await client.images.build(fileobj=context, encoding="identity", tag="built:1")
    return (await client.images.inspect("built:1"))["RepoTags"]


async def removed(client: aiodocker.Docker) -> object:
    return [len(await client.images.delete(name, force=True)) > 0 for name in ("mine:1", "built:1", "made:1")]


STEPS: dict[str, Work] = {
    "version": asked(lambda client: client.version(), "Os"),
    "info": asked(lambda client: client.system.info(), "OSType"),
    "run": ran("echo", "hello"),
    "run and fail": ran("sh", "-c", "echo no >&2; exit 3"),
    "create and start": started,
    "list": names(filters=json.dumps({"label": ["a=b"]})),
    "get nothing": lambda client: client.containers.get("nothing"),
    "execute": executed,
    "attach": attached,
    "copy": copied,
    "restart, pause and rename": renamed,
    "commit": committed,
    "stats, kill and remove": ended,
    "events": told,
    "a network and a volume": connected,
    "a network that is not there": lambda client: client.networks.get("nothing"),
    "a volume that is not there": no_volume,
    "images": tags,
    "tag, save and load": loaded,
    "build": built,
    "! an image that is not there": lambda client: client.images.inspect("nothing:1"),
    "remove all": removed,
    "! privileged": ran("true", Privileged=True),
    "! a path of the host": ran("true", Binds=["/etc:/e"]),
    "! network of the host": ran("true", NetworkMode="host"),
}


if __name__ == "__main__":
    main()
