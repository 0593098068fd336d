"""Resolved projects for tests, written as `docker compose config` prints them."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from dom0.compose.model import Project
from dom0.compose.support import TABLE, KeySupport
from dom0.engine.values import Image
from dom0.plan.facts import Facts, images_needed


def image(ref: str, **fields: Any) -> Image:
    """Its ID is made of its name, so that the same name is always the same image."""
    return Image(id=f"sha256:{ref.encode().hex():0<64.64}", tags=(ref,), **fields)


def project(text: str, **fields: Any) -> Project:
    """`text` is the resolved YAML; a service without an image gets `busybox:test`; `fields` are others of Project."""
    tree = yaml.safe_load(text) or {}
    for service in tree.get("services", {}).values():
        if "build" not in service:
            service.setdefault("image", "busybox:test")
    return msgspec.convert({"name": "box", **tree, **fields}, Project, strict=False)


def support_of(key: str) -> KeySupport | None:
    """The row of Compose's keys that decides about `key`: its own, or that of the nearest key around it."""
    path = tuple(key.split("."))
    rows = {row.path: row for row in TABLE}
    return next((rows[path[:length]] for length in range(len(path), 0, -1) if path[:length] in rows), None)


def facts(of: Project, *images: Image, **fields: Any) -> Facts:
    """Every image that the project needs; those given replace the made-up ones of the same name."""
    known = {need.ref: image(need.ref) for need in images_needed(of)}
    return Facts(images=known | {tag: i for i in images for tag in i.tags}, **fields)
