"""What Compose's two tags of YAML turn into: they say how a layer is merged over those below. Reads no YAML itself."""

from __future__ import annotations

from typing import Any

import msgspec


class Reset:
    """`!reset`: takes the key of the layers below away."""


class Override(msgspec.Struct, frozen=True):
    """`!override`: stands instead of what the layers below say."""

    value: Any
