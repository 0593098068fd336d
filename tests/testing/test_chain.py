"""The image chain comes to test hosts from a file that is kept between runs, unless the sources have changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.names import BASE_IMAGE, ROOTFS_IMAGE
from dom0.testing import chain
from dom0.testing.hosts import Host


def image_id(host: Host, name: str) -> str:
    return host.docker("image", "inspect", "--format", "{{.Id}}", name).stdout.strip()


@pytest.mark.parametrize("image", [ROOTFS_IMAGE, BASE_IMAGE])
def test_another_host_gets_the_very_same_images(
    chain_images: None, engine_host: Host, fresh_host: Callable[..., Host], image: str
) -> None:
    other = fresh_host()
    chain.provide(other)
    assert image_id(other, image) == image_id(engine_host, image)


def test_a_kept_image_of_other_sources_is_replaced_and_the_layer_below_it_kept(
    chain_images: None, engine_host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = image_id(engine_host, BASE_IMAGE)
    for kind in ("rootfs", "base"):
        (tmp_path / f"{kind}-0000000000000000.tar").touch()
    monkeypatch.setattr(chain, "IMAGES", tmp_path)
    chain.provide(engine_host)
    kept = sorted(path.name for path in tmp_path.glob("*.tar"))
    assert len(kept) == 2
    assert not [name for name in kept if "0000" in name]
    assert image_id(engine_host, BASE_IMAGE) == before
