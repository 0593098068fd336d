"""A farm's server over TLS with nodes that only say words, and the people who are told of them by a `Receiver`."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
from msgspec.structs import replace

from dom0.agent import notify
from dom0.agent.notify import NotifyState
from dom0.cli.farms.serve import tell
from dom0.farms import nodes, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import MachineInfo, key_of
from dom0.farms.pin import Pin, connect, fingerprint
from dom0.farms.revisions import NodeReport, Order, RoleState
from dom0.http.client import Client
from dom0.testing.receiver import Receiver
from dom0.testing.wires import eventually

Told = tuple[str, list[str], list[str]]  # title, subjects of what is wrong, and of what is over

SETTINGS = "name: attic\nroles: {web: {soak: 200ms}}\nnotify: {env_file: state/notify.env}\n"


class House:
    """Nodes of one server that say a word again and again, but those that are `off`. What they are told to run is well
    there at once; `ends`: of a content that is something else.
    """

    def __init__(self, farm: FarmDirectory, port: int, receiver: Receiver) -> None:
        (farm.state / "notify.env").write_text(f"WEBHOOK_URL={receiver.url}/hook\n")
        (farm.path / "farm.yaml").write_text(SETTINGS)
        self.farm = farm
        self._receiver = receiver
        self.secrets = {f"pi{number}": secrets.token_hex(32) for number in range(5)}
        self.reports = dict.fromkeys(self.secrets, NodeReport())
        self.off: set[str] = set()
        self.ends: dict[str, RoleState] = {}
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
                    body = msgspec.json.encode({"report": self.reports[name], "told": ""})
                    with suppress(OSError):
                        async with client.ask("POST", "/v1/follow", headers=headers, body=body) as answer:
                            assert answer.status == 200
                            said = b"".join([piece async for piece in answer.chunks()])
                        self._follow(name, msgspec.json.decode(said, type=Order))
                await asyncio.sleep(0.1)
        finally:
            await client.close()

    def _follow(self, name: str, order: Order) -> None:
        said = replace(self.reports[name], fetched=order.fetch.digest if order.fetch else "")
        if order.run is not None:
            content = order.run.digest
            state = self.ends.get(content, RoleState.GOOD)
            reason = "web is unhealthy" if state is RoleState.FAILED else ""
            turn = order.turn or said.turn
            said = replace(said, content=content, revision=order.revision, turn=turn, state=state, reason=reason)
        self.reports[name] = said

    async def until_told(self, expected: list[Told]) -> None:
        """And nothing else."""

        def told() -> list[Told]:
            said = self._receiver.posted("/hook")
            subjects = [[[each["subject"] for each in one[key]] for key in ("problems", "over")] for one in said]
            return [(one["title"], problems, over) for one, (problems, over) in zip(said, subjects, strict=True)]

        def waiting() -> object:
            return msgspec.json.decode((self.farm.state / notify.FILE).read_bytes(), type=NotifyState).waiting

        await asyncio.to_thread(eventually, lambda: len(told()) >= len(expected) and not waiting(), patience=100)
        assert told() == expected
