"""The values of Compose's two YAML tags, which say how a layer is merged into those below. Reads no YAML."""

from __future__ import annotations

from typing import Any

import msgspec


class Reset:
    """`!reset`: removes the key of the layers below."""


class Override(msgspec.Struct, frozen=True):
    """`!override`: replaces the value of the layers below."""

    value: Any
