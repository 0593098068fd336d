"""A recording: what is allowed, and which grants are kept of it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dom0.socketproxy import requests, rules
from dom0.socketproxy.context import Asked, Context, Document
from dom0.socketproxy.grants import Grants, Images, Ports
from dom0.socketproxy.record import Recording
from dom0.socketproxy.refusal import NOT_FOUND, Refused, never, not_granted
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import Upstream

CONTEXT = Context(Scope("guest"), Grants(), Upstream("/none"), "/run/guest.sock")
ASKED = Asked(method="POST", path=("containers", "create"), names={}, query={})
WIDE = Grants(ports=("80/tcp",), images=Images(use=("web:1",)))


async def publish(context: Context, asked: Asked) -> Document:
    if not context.grants.may_use("web:1"):
        raise Refused(NOT_FOUND, "No such image: web:1", grant=Grants(images=Images(use=("web:1",))))
    if not context.grants.may_publish(Ports.read("80")):
        raise not_granted("Ports", "80", Grants(ports=("80/tcp",)))
    return Document("published")


async def publish_privileged(context: Context, asked: Asked) -> Document:
    await publish(context, asked)
    raise never("Privileged", True)


async def test_what_can_be_granted_passes_and_is_kept() -> None:
    recording = Recording()
    assert await recording.observe(publish)(CONTEXT, ASKED) == Document("published")
    assert recording.needed == WIDE
    assert await publish(replace(CONTEXT, grants=recording.needed), ASKED) == Document("published")


async def bind(context: Context, asked: Asked) -> Document:
    read_only = [
        bound.read_only for bound in (rules.bound(one, context.grants) for one in rules.host_mounts(asked.body))
    ]
    return Document(read_only)


async def test_what_is_read_first_and_written_later_is_granted_to_write() -> None:
    recording = Recording()
    for binds in (("/srv:/a:ro",), ("/srv:/a",), ("/srv/in:/b:ro",), ("/srv:/a:ro",)):
        await recording.observe(bind)(CONTEXT, replace(ASKED, body=requests.HostConfig(binds=binds)))
    assert recording.needed.paths == ("/srv:ro", "/srv")
    again = replace(CONTEXT, grants=recording.needed)
    assert await bind(again, replace(ASKED, body=requests.HostConfig(binds=("/srv:/a",)))) == Document([False])


async def test_a_request_that_no_grant_allows_adds_nothing() -> None:
    recording = Recording()
    with pytest.raises(Refused, match="Privileged: True: not through this socket"):
        await recording.observe(publish_privileged)(CONTEXT, ASKED)
    assert recording.needed == Grants()


async def test_a_grant_that_does_not_help_ends_it() -> None:
    async def stubborn(context: Context, asked: Asked) -> Document:
        raise not_granted("Ports", "80", WIDE)

    with pytest.raises(Refused, match="not granted"):
        await Recording().observe(stubborn)(CONTEXT, ASKED)
