"""Networks, volumes and images, on the fake Engine and on a real one."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile

import msgspec
import pytest

from dom0.engine.bodies import EndpointSettings, NetworkBody, VolumeBody
from dom0.engine.values import Endpoint
from dom0.errors import Conflict, EngineError, EngineUnreachable, NotFound
from dom0.testing.engine_bench import HANDLES_TERM, IGNORES_TERM, IMAGE, UNREACHABLE_IMAGE, Bench


async def endpoints(bench: Bench, ref: str) -> dict[str, Endpoint]:
    return {endpoint.network: endpoint for endpoint in (await bench.engine.container(ref)).endpoints}


async def test_info_tells_of_the_engine(bench: Bench) -> None:
    info = await bench.engine.info()
    assert info.cpus > 0
    assert info.memory > 0
    assert info.version
    assert info.machine == os.uname().machine
    assert info.api_version.startswith("1.")
    assert not info.swarm_active


async def test_a_network_is_made_once_and_removed_once(bench: Bench) -> None:
    network_id = await bench.engine.create_network("net", NetworkBody(labels={"a": "1"}))
    with pytest.raises(Conflict):
        await bench.engine.create_network("net", NetworkBody())
    (found,) = [network for network in await bench.engine.networks() if network.name == "net"]
    assert (found.id, found.driver, found.labels) == (network_id, "bridge", {"a": "1"})
    await bench.engine.remove_network("net")
    await bench.engine.remove_network("net")
    assert {network.name for network in await bench.engine.networks()} == {"bridge", "host", "none"}


async def test_the_engine_s_own_networks_cannot_be_removed(bench: Bench) -> None:
    with pytest.raises(EngineError, match="pre-defined"):
        await bench.engine.remove_network("bridge")


async def test_the_start_of_an_id_is_no_network(bench: Bench) -> None:
    network_id = await bench.engine.create_network("net", NetworkBody())
    await bench.engine.remove_network(network_id[:12])
    assert network_id in {network.id for network in await bench.engine.networks()}


async def test_a_network_tells_which_containers_run_in_it(bench: Bench) -> None:
    await bench.engine.create_network("net", NetworkBody())
    assert await bench.engine.network_members("net") == ()
    running = await bench.run("one", *IGNORES_TERM, host={"NetworkMode": "net"})
    await bench.create("two", *IGNORES_TERM, host={"NetworkMode": "net"})
    assert await bench.engine.network_members("net") == (running,)
    with pytest.raises(NotFound):
        await bench.engine.network_members("nothing")


async def test_a_network_with_a_running_container_is_in_use(bench: Bench) -> None:
    await bench.engine.create_network("net", NetworkBody())
    await bench.run("one", *HANDLES_TERM, host={"NetworkMode": "net"})
    with pytest.raises(Conflict):
        await bench.engine.remove_network("net")
    await bench.engine.stop_container("one")
    await bench.engine.remove_network("net")


async def test_endpoints_have_their_aliases_at_once_and_an_address_while_running(bench: Bench) -> None:
    network_id = await bench.engine.create_network("net", NetworkBody())
    asked = {"EndpointsConfig": {"net": {"Aliases": ["alias"]}}}
    await bench.create("one", *HANDLES_TERM, host={"NetworkMode": "net"}, NetworkingConfig=asked)
    assert await endpoints(bench, "one") == {"net": Endpoint(network="net", network_id="", aliases=("alias",))}
    await bench.engine.start_container("one")
    running = (await endpoints(bench, "one"))["net"]
    assert (running.network_id, running.aliases) == (network_id, ("alias",))
    assert running.ip_address
    await bench.until_succeeds("one", "test", "-f", "/ready")
    await bench.engine.stop_container("one")
    stopped = (await endpoints(bench, "one"))["net"]
    assert (stopped.network_id, stopped.ip_address) == (network_id, "")


async def test_a_container_is_created_before_its_networks_and_connected_when_it_starts(bench: Bench) -> None:
    asked = {"EndpointsConfig": {"net1": {"Aliases": ["alias"]}, "net2": {"Aliases": ["alias"]}}}
    await bench.create("one", *IGNORES_TERM, host={"NetworkMode": "net1"}, NetworkingConfig=asked)
    assert {endpoint.network_id for endpoint in (await endpoints(bench, "one")).values()} == {""}
    with pytest.raises(NotFound):
        await bench.engine.start_container("one")
    ids = {name: await bench.engine.create_network(name, NetworkBody()) for name in ("net1", "net2")}
    await bench.engine.start_container("one")
    found = await endpoints(bench, "one")
    assert {name: endpoint.network_id for name, endpoint in found.items()} == ids
    assert {endpoint.aliases for endpoint in found.values()} == {("alias",)}
    assert all(endpoint.ip_address for endpoint in found.values())


async def test_without_a_network_asked_for_it_is_the_bridge(bench: Bench) -> None:
    await bench.create("one", "true")
    await bench.create("two", "true", host={"NetworkMode": "none"})
    await bench.create("three", "true", host={"NetworkMode": "container:one"})
    assert set(await endpoints(bench, "one")) == {"bridge"}
    assert set(await endpoints(bench, "two")) == {"none"}
    assert set(await endpoints(bench, "three")) == set()


async def test_a_running_container_is_connected_once_and_disconnected(bench: Bench) -> None:
    network_id = await bench.engine.create_network("net", NetworkBody())
    await bench.run("one", *IGNORES_TERM)
    await bench.engine.connect_network("net", "one", EndpointSettings(aliases=("alias",)))
    with pytest.raises(Conflict):
        await bench.engine.connect_network(network_id, "one", EndpointSettings())
    found = (await endpoints(bench, "one"))["net"]
    assert (found.network_id, found.aliases) == (network_id, ("alias",))
    await bench.engine.disconnect_network(network_id, "one")
    await bench.engine.disconnect_network("net", "one", force=True)
    assert set(await endpoints(bench, "one")) == {"bridge"}


async def test_connecting_needs_a_network_and_a_container(bench: Bench) -> None:
    await bench.engine.create_network("net", NetworkBody())
    await bench.run("one", *IGNORES_TERM)
    with pytest.raises(NotFound):
        await bench.engine.connect_network("nothing", "one", EndpointSettings())
    with pytest.raises(NotFound):
        await bench.engine.connect_network("net", "nothing", EndpointSettings())
    with pytest.raises(NotFound):
        await bench.engine.disconnect_network("nothing", "one")


async def test_a_stopped_container_may_have_an_endpoint_in_a_missing_network_and_cannot_start(bench: Bench) -> None:
    await bench.create("one", *IGNORES_TERM)
    await bench.engine.connect_network("nothing", "one", EndpointSettings())
    assert set(await endpoints(bench, "one")) == {"bridge", "nothing"}
    with pytest.raises(NotFound):
        await bench.engine.start_container("one")
    await bench.engine.create_network("nothing", NetworkBody())
    await bench.engine.start_container("one")


async def test_a_container_remembers_its_network_by_id(bench: Bench) -> None:
    await bench.engine.create_network("net", NetworkBody())
    await bench.run("one", *HANDLES_TERM, host={"NetworkMode": "net"})
    await bench.engine.stop_container("one")
    await bench.engine.remove_network("net")
    again = await bench.engine.create_network("net", NetworkBody())
    with pytest.raises(NotFound):
        await bench.engine.start_container("one")
    await bench.engine.disconnect_network("net", "one", force=True)
    await bench.engine.connect_network("net", "one", EndpointSettings())
    await bench.engine.start_container("one")
    assert (await endpoints(bench, "one"))["net"].network_id == again


async def test_a_volume_is_made_once_and_removed_once(bench: Bench) -> None:
    made = await bench.engine.create_volume("vol", VolumeBody(labels={"a": "1"}))
    assert (made.name, made.driver, made.labels) == ("vol", "local", {"a": "1"})
    assert await bench.engine.create_volume("vol", VolumeBody(labels={"a": "2"})) == made
    assert await bench.engine.volumes() == (made,)
    await bench.engine.remove_volume("vol")
    await bench.engine.remove_volume("vol")
    assert await bench.engine.volumes() == ()


async def test_a_volume_is_in_use_as_long_as_a_container_mounts_it(bench: Bench) -> None:
    await bench.create("one", "true", host={"Binds": ["vol:/vol"]})
    with pytest.raises(Conflict):
        await bench.engine.remove_volume("vol")
    await bench.engine.remove_container("one", volumes=True)
    await bench.engine.remove_volume("vol")


async def test_an_image_is_found_by_name_tag_and_id(bench: Bench) -> None:
    image = await bench.engine.image(IMAGE)
    assert image.tags == (IMAGE,)
    assert not image.has_healthcheck
    assert await bench.engine.image(image.id) == image
    assert [row.id for row in await bench.engine.images() if IMAGE in row.tags] == [image.id]
    assert await bench.engine.images(labels=["a=1"]) == ()
    like = f"{IMAGE.partition(':')[0][:-1]}*"
    assert [row.id for row in await bench.engine.images(named=like)] == [image.id]
    assert await bench.engine.images(named=f"{like}/other") == ()


@pytest.mark.parametrize("cut", [slice(0, 19), slice(7, 19), slice(7, None), slice(0, 70)])
async def test_a_part_of_an_id_is_no_image(bench: Bench, cut: slice) -> None:
    part, all_images = (await bench.engine.image(IMAGE)).id[cut], await bench.engine.images()
    with pytest.raises(NotFound):
        await bench.engine.image(part)
    with pytest.raises(NotFound):
        await bench.engine.tag_image(part, "other:1")
    await bench.engine.remove_image(part)
    assert {row.id: row for row in await bench.engine.images()} == {row.id: row for row in all_images}


@pytest.mark.parametrize("ref", ["", "nothing", "nothing:1", "a\0b"])
async def test_an_image_that_is_not_there_is_not_found(bench: Bench, ref: str) -> None:
    with pytest.raises(NotFound):
        await bench.engine.image(ref)


async def test_a_tag_moves_and_goes_alone(bench: Bench) -> None:
    image = await bench.engine.image(IMAGE)
    await bench.engine.tag_image(IMAGE, "registry:5000/other")
    await bench.engine.tag_image(image.id, "cafe")
    assert set((await bench.engine.image(image.id)).tags) == {IMAGE, "registry:5000/other:latest", "cafe:latest"}
    assert (await bench.engine.image("cafe")).id == image.id
    await bench.engine.remove_image("cafe")
    await bench.engine.remove_image("registry:5000/other:latest")
    await bench.engine.remove_image("registry:5000/other:latest")
    assert (await bench.engine.image(image.id)).tags == (IMAGE,)


def tar_of(name: str, content: str) -> io.BytesIO:
    """With that one file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content.encode()))
    archive.seek(0)
    return archive


def build_context(dockerfile: str) -> io.BytesIO:
    return tar_of("Dockerfile", dockerfile)


async def test_a_built_image_has_its_name_and_labels(bench: Bench) -> None:
    built = await bench.engine.build_image(build_context(f"FROM {IMAGE}\n"), tag="own:1", labels={"a": "ä b"})
    image = await bench.engine.image("own:1")
    assert (image.id, image.labels) == (built, {"a": "ä b"})
    assert built != (await bench.engine.image(IMAGE)).id


async def test_a_build_on_an_image_that_is_nowhere_fails(bench: Bench) -> None:
    with pytest.raises(EngineError):
        await bench.engine.build_image(build_context(f"FROM {UNREACHABLE_IMAGE}\n"), tag="own:1")
    with pytest.raises(NotFound):
        await bench.engine.image("own:1")


async def test_a_layer_on_an_image_makes_another_one_with_labels_more(bench: Bench) -> None:
    if (await bench.engine.info()).containerd_store:
        pytest.skip("nobody but containerd knows the layers of the image below by name")
    below = await bench.engine.build_image(build_context(f"FROM {IMAGE}\n"), tag="below:1", labels={"a": "1", "b": "1"})
    made = await bench.engine.add_layer(
        below, tar_of("told", "by it"), tag="own:1", labels={"b": "2", "c": "ä b"}, created=1
    )
    image = await bench.engine.image("own:1")
    assert (image.id, image.labels) == (made, {"a": "1", "b": "2", "c": "ä b"})
    assert (await bench.engine.image("below:1")).labels == {"a": "1", "b": "1"}


async def test_a_layer_on_an_image_that_is_nowhere_makes_none(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.engine.add_layer("nothing:1", tar_of("told", ""), tag="own:1", created=1)
    with pytest.raises(NotFound):
        await bench.engine.image("own:1")


def saved_image(tag: str) -> tuple[str, io.BytesIO]:
    """The ID of an image with one layer, and it as `docker save` writes it."""
    layer = tar_of("told", "by it").getvalue()
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = msgspec.json.encode(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"a": "ä b"}},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    )
    manifest = msgspec.json.encode([{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}])
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in (("layer.tar", layer), ("config.json", config), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    archive.seek(0)
    return f"sha256:{hashlib.sha256(config).hexdigest()}", archive


async def test_a_loaded_image_has_its_name_labels_and_layers(bench: Bench) -> None:
    config, archive = saved_image("own:1")
    await bench.engine.load_image(archive, name="own:1")
    image = await bench.engine.image("own:1")
    assert (image.tags, image.labels) == (("own:1",), {"a": "ä b"})
    layer = hashlib.sha256(tar_of("told", "by it").getvalue()).hexdigest()
    assert image.layers == (f"sha256:{layer}",)
    if not (await bench.engine.info()).containerd_store:  # that has the digest of a manifest
        assert image.id == config


async def test_an_archive_that_cannot_be_read_to_its_end_loads_nothing(bench: Bench) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if piece := super().read(min(size or 0, 512)):
                return piece
            raise OSError("the disk is broken")

    _, archive = saved_image("own:1")
    half = archive.getvalue()[:4096]  # of a whole one the Engine makes an image before it waits for the body's end
    with pytest.raises(EngineUnreachable, match="the disk is broken"):
        await bench.engine.load_image(Breaking(half), name="own:1")
    with pytest.raises(NotFound):
        await bench.engine.image("own:1")


async def test_an_image_that_a_container_uses_is_not_removed(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    with pytest.raises(Conflict):
        await bench.engine.remove_image(IMAGE)


async def test_a_registry_that_does_not_answer_is_a_passing_error(bench: Bench) -> None:
    with pytest.raises(EngineError) as refusal:
        async for _ in bench.engine.pull_image(UNREACHABLE_IMAGE):
            pass
    assert refusal.value.transient
