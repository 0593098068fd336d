"""Registries of a test, and clients that are closed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.registry.client import Registry
from dom0.testing import debian_registry
from dom0.testing.debian_registry import DebianRegistry
from dom0.testing.possible import require


@pytest.fixture(scope="session")
def registry_possible() -> None:
    """Where there is no docker-registry, skip and say why; in CI that is a failure."""
    require(debian_registry.missing(), "tests of a registry")


@pytest.fixture
def debian(registry_possible: None, tmp_path: Path) -> Iterator[Callable[..., DebianRegistry]]:
    """Starts registries with the arguments of `DebianRegistry` but its directory."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> DebianRegistry:
            directory = tmp_path / f"registry{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(DebianRegistry(directory, **options))

        yield start


@pytest.fixture
async def client() -> AsyncIterator[Callable[..., Registry]]:
    """Makes clients with the arguments of `Registry`."""
    made: list[Registry] = []

    def make(*args: Any, **options: Any) -> Registry:
        made.append(Registry(*args, **options))
        return made[-1]

    yield make
    for registry in made:
        await registry.close()
