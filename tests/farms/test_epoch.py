"""Copies of a farm's directory: the one that was promoted last is the server, over TLS."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from dom0.errors import Dom0Error, UsageError
from dom0.farms import epoch, join, nodes, pin, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.epoch import Epochs
from dom0.farms.join import Membership, ServerClient
from dom0.farms.nodes import MachineInfo, NodeState, key_of
from dom0.farms.pin import Pin

ELSEWHERE = "another copy of it was promoted, and is the farm's server"
BEFORE = Epochs()


@pytest.fixture
def copied(farm: FarmDirectory, tmp_path: Path) -> FarmDirectory:
    """A copy of `farm`, which has two nodes."""
    for secret, name in (("1" * 64, "nas"), ("2" * 64, "pi")):
        approve(farm, secret, name)
    return FarmDirectory(shutil.copytree(farm.path, tmp_path / "copy"))


def approve(farm: FarmDirectory, secret: str, name: str) -> None:
    heard = (key_of(secret), MachineInfo(), "10.0.0.1", 1e6, nodes.draw_code)
    waiting = farm.change(lambda before: nodes.hear(before, *heard))
    farm.change(lambda before: nodes.approve(before, waiting.code, name, "web"))
    farm.change(lambda before: nodes.hear(before, *heard))


@asynccontextmanager
async def serving(farm: FarmDirectory) -> AsyncIterator[Pin]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with serve.serve(farm, listening):
            yield Pin("127.0.0.1", listening.getsockname()[1], pin.fingerprint(farm.server_pem))


class Machine:
    """One that is a node of the farm."""

    def __init__(self, directory: Path, name: str, secret: str) -> None:
        self.state = directory / name
        self.state.mkdir()
        self._secret = secret

    async def ask(self, server: Pin, path: str = "/v1/hello", body: bytes = b"") -> int:
        """The status of the answer."""
        if (before := join.read(self.state)) is None:
            join.keep(self.state, None, Membership(fingerprint=server.fingerprint, secret=self._secret))
        client = ServerClient(self.state, server)
        try:
            body = body or b'{"hostname": "pc", "architecture": "x86_64", "memory": 1073741824}'
            return (await join.ask(client, path, before.secret if before else self._secret, body))[0]
        finally:
            await client.close()

    @property
    def epoch(self) -> int:
        kept = join.read(self.state)
        return epoch.number_of(kept.epoch) if kept else 0


@pytest.fixture
def nas(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "nas", "1" * 64)


@pytest.fixture
def pi(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "pi", "2" * 64)


async def test_an_old_server_that_comes_back_after_a_copy_was_promoted_tells_nobody_anything(
    farm: FarmDirectory, copied: FarmDirectory, nas: Machine, pi: Machine
) -> None:
    async with serving(farm) as old:
        assert (await nas.ask(old), nas.epoch) == (200, 0)
        copied.promote()
        async with serving(copied) as new:
            assert (await nas.ask(new), nas.epoch) == (200, 1)
            assert (await nas.ask(new, "/v1/peers", b"{}"), nas.epoch) == (403, 1)  # it has no revision
            assert await pi.ask(old) == 200  # neither of them knows yet
            with pytest.raises(ConnectionError, match=ELSEWHERE):
                await nas.ask(old)
            for path in ("/v1/hello", "/v1/follow", "/v1/float", "/v1/pre-reboot"):
                with pytest.raises(ConnectionError, match=ELSEWHERE):
                    await pi.ask(old, path)
            assert (await pi.ask(new), pi.epoch) == (200, 1)
    assert farm.epochs().is_superseded
    assert not copied.epochs().is_superseded
    with pytest.raises(UsageError, match="another copy of this farm was promoted"):
        async with serving(farm):
            pass
    with pytest.raises(UsageError, match="nothing is changed"):
        farm.change(lambda before: (before, None))
    with pytest.raises(UsageError, match="nothing is changed"):
        farm.revise(lambda _known: pytest.fail("it is asked for a revision"))


async def test_what_was_superseded_may_be_promoted_again(
    farm: FarmDirectory, copied: FarmDirectory, nas: Machine
) -> None:
    copied.promote()
    async with serving(farm) as old, serving(copied) as new:
        await nas.ask(new)
        with pytest.raises(ConnectionError, match=ELSEWHERE):
            await nas.ask(old)
        farm.promote()  # the server that runs goes on
        assert (await nas.ask(old), nas.epoch) == (200, 2)
        with pytest.raises(ConnectionError, match=ELSEWHERE):
            await nas.ask(new)
    assert copied.epochs().is_superseded


async def test_two_copies_that_were_promoted_alike_are_both_left_alone_until_one_is_promoted_again(
    farm: FarmDirectory, copied: FarmDirectory, nas: Machine
) -> None:
    farm.promote()
    copied.promote()
    async with serving(farm) as one, serving(copied) as other:
        assert (await nas.ask(one), nas.epoch) == (200, 1)
        with pytest.raises(ConnectionError, match=ELSEWHERE):
            await nas.ask(other)
        assert copied.epochs().is_superseded
        assert await nas.ask(one) == 200
        copied.promote()
        assert (await nas.ask(other), nas.epoch) == (200, 2)


async def test_nobody_can_make_up_an_epoch(farm: FarmDirectory, copied: FarmDirectory, nas: Machine) -> None:
    real = copied.promote().own
    number, copy, signature = real.split("-")
    forged = (f"2-{copy}-{signature}", f"{number}-{'0' * 16}-{signature}", f"1-{copy}-{'0' * 64}", "9", f"{real}\n")
    async with serving(farm) as server:
        await nas.ask(server)
        kept = join.read(nas.state)
        assert kept is not None
        for each in forged:
            assert farm.hear_epoch(each) == BEFORE
            if not each.endswith("\n"):  # which HTTP does not carry
                client = ServerClient(nas.state, server)
                headers = {"Authorization": f"Bearer {kept.secret}", epoch.HEADER: each}
                async with client.ask("POST", "/v1/peers", headers=headers, body=b"{}") as answer:
                    assert answer.status == 403
                await client.close()
        assert await nas.ask(server) == 200
    assert farm.hear_epoch(real).is_superseded


async def test_a_machine_that_joins_another_farm_forgets_the_epoch(copied: FarmDirectory, nas: Machine) -> None:
    copied.promote()
    async with serving(copied) as server:
        await nas.ask(server)
        assert nas.epoch == 1
    kept = join.prepare(nas.state, Pin("127.0.0.1", 1, "1" * 64), leave=True)
    assert kept.epoch == ""


async def test_what_a_machine_is_told_while_it_waits_is_kept_with_the_epoch(
    farm: FarmDirectory, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    farm.promote()
    async with serving(farm) as server:
        membership = join.prepare(state, server, leave=False)
        approve(farm, membership.secret, "nas")
        standing = await join.join(state, server, membership, print)
    kept = join.read(state)
    assert (standing.state, kept and kept.name, kept and epoch.number_of(kept.epoch)) == (NodeState.ENROLLED, "nas", 1)


def test_a_damaged_file_says_what_to_do(farm: FarmDirectory) -> None:
    farm.promote()
    (farm.state / "epoch.json").write_text("{")
    with pytest.raises(Dom0Error, match="is damaged") as refused:
        farm.change(lambda before: (before, None))
    assert "dom0 farm promote" in refused.value.hint


def test_epochs_are_compared_by_number_and_then_by_copy() -> None:
    pem = b"key"
    one, other = epoch.promote(BEFORE, pem), epoch.promote(BEFORE, pem)
    two = epoch.promote(one, pem)
    assert [epoch.number_of(each.own) for each in (BEFORE, one, two)] == [0, 1, 2]
    for older, newer in (("", one.own), (one.own, two.own), (one.own, other.own), (other.own, one.own)):
        assert epoch.is_older(older, newer)
    for newer, older in ((one.own, ""), (two.own, one.own), (one.own, one.own), ("", "")):
        assert not epoch.is_older(newer, older)
    superseded = replace(one, heard=two.own)
    assert epoch.hear(one, two.own, pem) == superseded
    assert epoch.hear(two, one.own, pem) == two
    assert epoch.number_of(epoch.promote(superseded, pem).own) == 3
