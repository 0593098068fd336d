"""What a scope was granted. Pure. Nothing granted: containers of its own, of images that it may use, and no more."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
import yaml

from dom0.errors import UsageError
from dom0.wording import flaw


class Images(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Patterns of names: `busybox` is every tag of it, `busybox:1.36` that one, `farm/*` all below `farm/`."""

    use: tuple[str, ...] = ()


class Grants(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    images: Images = Images()
    capabilities: tuple[str, ...] = ()  # as `NET_ADMIN`
    containers: int = 100  # at a time
    networks: int = 8  # at a time; an Engine has addresses for some thirty
    volumes: int = 100
    connections: int = 256  # to the socket, at a time

    def may_use(self, image: str) -> bool:
        """`image` with its tag or digest."""
        return any(_matches(image, pattern) for pattern in self.images.use)


def _matches(image: str, pattern: str) -> bool:
    has_tag = ":" in pattern.rpartition("/")[2] or "@" in pattern
    return fnmatchcase(image if has_tag else without_tag(image), pattern)


def without_tag(image: str) -> str:
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def read(file: Path) -> Grants:
    """Raises UsageError, OSError."""
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=Grants | None) or Grants()
    except msgspec.ValidationError as error:
        found = flaw(error, Grants)
        place = "/".join((str(file), *found.steps))
        raise UsageError(f"{place}: {found.what}", hint=found.hint or "docs/socketproxy.md lists the grants") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{file}: no YAML: {error}", hint="docs/socketproxy.md has an example") from error
