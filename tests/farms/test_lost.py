"""Nodes that are lost: when they are, and that people are told by the server, once, over its restarts too."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.agent import alerts, notify
from dom0.agent.notify import NotifyState
from dom0.cli.farms.serve import tell
from dom0.farms import lost, nodes, orders, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.lost import TOGETHER, find_lost
from dom0.farms.nodes import MachineInfo, key_of
from dom0.farms.pin import Pin, connect, fingerprint
from dom0.farms.rollout import REBOOT_WITHIN, SILENT, Lock, Rollout, drain
from dom0.http.client import Client
from dom0.testing.receiver import Receiver
from dom0.testing.wires import eventually

LOOK = 5.0  # seconds


def test_a_node_is_lost_that_is_silent_for_longer_than_it_may() -> None:
    silent = {"nas": 10.0, "pi1": SILENT - TOGETHER - 1, "pi2": SILENT}
    assert find_lost(Rollout(), silent, ()) == ["pi2"]
    assert find_lost(Rollout(), silent | {"pi2": SILENT - 1}, ()) == []
    assert find_lost(Rollout(), silent, ["nas"]) == ["nas", "pi2"]
    assert find_lost(drain(Rollout(), "pi2"), silent, ["pi2"]) == []
    reboots = Rollout(locks=(Lock(group="web", id="pi2", since=0.0),))
    assert find_lost(reboots, silent, ()) == []
    assert find_lost(reboots, {"pi2": REBOOT_WITHIN}, ()) == ["pi2"]
    other = Rollout(locks=(Lock(group="web", id="pi2", since=0.0, foreign=True),))
    assert find_lost(other, silent, ()) == ["pi2"]


@given(st.lists(st.floats(0, orders.WAIT), min_size=1, max_size=50), st.floats(0, LOOK))
def test_those_that_one_power_cut_took_are_lost_at_the_same_look(words: list[float], first: float) -> None:
    """`words`: how long before it each of them has said its last one: it asks again when it has its answer."""
    while True:
        found = find_lost(Rollout(), {str(number): first + word for number, word in enumerate(words)}, ())
        if found:
            break
        first += LOOK
    assert len(found) == len(words)


class House:
    """Nodes of one server that say a word again and again, but those that are `off`."""

    def __init__(self, farm: FarmDirectory, port: int) -> None:
        self.farm = farm
        self.secrets = {f"pi{number}": secrets.token_hex(32) for number in range(5)}
        self.off: set[str] = set()
        self._pin = Pin("127.0.0.1", port, fingerprint(farm.server_pem))
        for name in self.secrets:
            self._enroll(name)

    def _enroll(self, name: str) -> None:
        hear = (key_of(self.secrets[name]), MachineInfo(), "10.0.0.1", 1e6, nodes.draw_code)
        waiting = self.farm.change(lambda before: nodes.hear(before, *hear))
        self.farm.change(lambda before: nodes.approve(before, waiting.code, name, "web"))
        self.farm.change(lambda before: nodes.hear(before, *hear))

    @asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[None]:
        listening = socket.create_server(("127.0.0.1", port), reuse_port=True)
        asked = self.farm.settings().notify
        assert asked is not None
        async with asyncio.timeout(200), serve.serve(self.farm, listening) as found, asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._speak(name)) for name in self.secrets]
            running.append(tasks.create_task(tell(self.farm, "attic", found, asked)))
            yield
            for task in running:
                task.cancel()

    async def _speak(self, name: str) -> None:
        client = Client(lambda: connect(self._pin), "farm")
        headers = {"Authorization": f"Bearer {self.secrets[name]}"}
        try:
            while True:
                if name not in self.off:
                    body = msgspec.json.encode({"report": {}, "told": ""})
                    with suppress(OSError):
                        async with client.ask("POST", "/v1/follow", headers=headers, body=body) as answer:
                            assert answer.status == 200
                await asyncio.sleep(0.1)
        finally:
            await client.close()


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds in the place of minutes."""
    times = {"SILENT": 6.0, "TOGETHER": 3.0, "HOLD": 0.2, "BETWEEN": 0.1, "CALM": 1.0, "EVERY": 0.05, "WAIT": 0.1}
    for module in (lost, alerts, notify, orders):
        for name, seconds in times.items():
            monkeypatch.setattr(module, name, seconds, raising=False)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


Told = tuple[str, list[str], list[str]]  # title, subjects of what is wrong, and of what is over


async def until_told(farm: FarmDirectory, receiver: Receiver, expected: list[Told]) -> None:
    """And nothing else."""

    def told() -> list[Told]:
        said = receiver.posted("/hook")
        subjects = [[[each["subject"] for each in one[key]] for key in ("problems", "over")] for one in said]
        return [(one["title"], problems, over) for one, (problems, over) in zip(said, subjects, strict=True)]

    def waiting() -> object:
        return msgspec.json.decode((farm.state / notify.FILE).read_bytes(), type=NotifyState).waiting

    await asyncio.to_thread(eventually, lambda: len(told()) >= len(expected) and not waiting(), patience=100)
    assert told() == expected


@pytest.mark.usefixtures("_hurried")
async def test_each_loss_is_told_once_and_that_it_is_over_also_by_the_next_server(
    farm: FarmDirectory, receiver: Receiver, port: int
) -> None:
    (farm.state / "notify.env").write_text(f"WEBHOOK_URL={receiver.url}/hook\n")
    (farm.path / "farm.yaml").write_text("name: attic\nnotify: {env_file: state/notify.env}\n")
    house = House(farm, port)

    expected: list[Told] = [("attic: dom0 will tell you here", [], [])]
    async with house.served(port):
        await until_told(farm, receiver, expected)
        house.off.add("pi1")
        expected.append(("attic: node pi1 is lost", ["pi1"], []))
        await until_told(farm, receiver, expected)
        assert "dom0 farm drain pi1" in receiver.posted("/hook")[-1]["text"]
    async with house.served(port):
        for name in ("pi0", "pi2", "pi3", "pi4"):
            house.off.add(name)
            await asyncio.sleep(0.1)
        expected.append(("attic: node pi0 is lost, and 3 more", ["pi0", "pi2", "pi3", "pi4"], []))
        await until_told(farm, receiver, expected)
    async with house.served(port):
        house.off.remove("pi1")
        expected.append(("attic: over: node pi1 is lost", [], ["pi1"]))
        await until_told(farm, receiver, expected)
