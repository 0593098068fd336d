"""Layers that an Engine has, as far as it says so, and as far as we remember."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.images.layers_there import Remembered, in_graph_driver
from dom0.registry.manifest import LAYERS, Descriptor, ImageManifest
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine

CONFIG = Descriptor("", "config", 1)


def image(*layers: str) -> ImageManifest:
    return ImageManifest(CONFIG, tuple(Descriptor(LAYERS[1], layer, 1) for layer in layers), b"", "", "")


@pytest.fixture
def docker() -> FakeDocker:
    return FakeDocker()


@pytest.fixture
def engine(docker: FakeDocker) -> FakeEngine:
    return FakeEngine(docker)


async def test_the_longest_common_beginning_is_left_out(docker: FakeDocker, engine: FakeEngine) -> None:
    for layers in (("A",), ("A", "B", "X"), ("B", "C"), ()):
        docker.images.add(layers=layers)
    assert await in_graph_driver(engine, image("a", "b", "c"), ("A", "B", "C")) == {"a", "b"}
    assert await in_graph_driver(engine, image("b", "c"), ("B", "C")) == {"b", "c"}
    assert await in_graph_driver(engine, image("c"), ("C",)) == frozenset()


async def test_a_layer_that_is_needed_further_up_too_is_sent(docker: FakeDocker, engine: FakeEngine) -> None:
    docker.images.add(layers=("A", "B"))
    assert await in_graph_driver(engine, image("a", "b", "c", "a"), ("A", "B", "C", "A")) == {"b"}


async def test_an_engine_without_images_has_no_layer(engine: FakeEngine) -> None:
    assert await in_graph_driver(engine, image("a"), ("A",)) == frozenset()
    assert await in_graph_driver(engine, image(), ()) == frozenset()


async def test_what_was_pulled_is_remembered_until_it_is_gone(
    docker: FakeDocker, engine: FakeEngine, tmp_path: Path
) -> None:
    remembered = Remembered(tmp_path / "images")
    assert await remembered.in_containerd(engine) == frozenset()
    one, other = docker.images.add("one:1"), docker.images.add("other:1")
    remembered.add(one, image("a", "b"))
    remembered.add(other, image("b", "c"))
    assert await remembered.in_containerd(engine) == {"a", "b", "c"}
    await engine.remove_image(one)
    assert await remembered.in_containerd(engine) == {"b", "c"}
    assert [path.name for path in (tmp_path / "images").iterdir()] == [other.removeprefix("sha256:")]


@pytest.mark.parametrize("content", [b"", b"\0" * 80, b'{"a": 1}', b"[1]", b"\xff", b'["\xff"]'])
async def test_of_a_damaged_memory_nothing_is_believed(
    docker: FakeDocker, engine: FakeEngine, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / docker.images.add("one:1").removeprefix("sha256:")).write_bytes(content)
    assert await Remembered(tmp_path).in_containerd(engine) == frozenset()
