"""An Engine whose images are kept by containerd, as on the base OS: what is different there."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

from dom0.engine.docker import DockerEngine
from dom0.testing.busybox import IMAGE
from dom0.testing.hosts import CONTAINERD_STORE, Host

FILES = {"Dockerfile": f"FROM {IMAGE}\nCOPY told /\n", "told": "by the context"}


def context() -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))
    packed.seek(0)
    return packed


async def test_an_image_is_built_from_a_context_that_is_sent_along(fresh_host: Callable[..., Host]) -> None:
    host = fresh_host(config=CONTAINERD_STORE)
    engine = await DockerEngine.connect(host.docker_host)
    try:
        assert (await engine.info()).containerd_store
        built = await engine.build_image(context(), tag="own:1", labels={"a": "ä b"}, args={"SOURCE_DATE_EPOCH": "1"})
        image = await engine.image("own:1")
    finally:
        await engine.close()
    assert (image.id, image.labels) == (built, {"a": "ä b"})
    assert host.docker("run", "--rm", "own:1", "cat", "/told").stdout == FILES["told"]
