"""A farm's server, killed and started again, and nodes that join it and follow it over TLS. They have no Engines: what
they are told to run succeeds or fails by its content.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from dom0.farms import join, lock, nodes, pin, rollout
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import key_of
from dom0.farms.revisions import Blob, FarmImage, NodeReport, Order, Revision, RoleContent, RoleState
from dom0.http.channel import Malformed
from dom0.http.client import Client
from dom0.registry.manifest import digest_of

WITHIN = 120.0  # seconds
FARM = "name: attic\nlisten: 127.0.0.1:{port}\nroles: {{web: {{at_once: 2, soak: 200ms}}}}\n"


class NodeTask:
    """A machine that joins, fetches and reports as a real one, and whose Engine is a set of contents that fail."""

    def __init__(self, state: Path, server: pin.Pin, bad: set[str]) -> None:
        self.state = state
        self.bad = bad
        self.tried: list[str] = []
        self.report = NodeReport()
        self.membership = join.prepare(state, server, leave=False)
        self.server = server
        self.told = ""
        self.client = Client(lambda: pin.connect(server), "farm")

    async def live(self) -> None:
        await join.join(self.state, self.server, self.membership, lambda _said: None, patient=True)
        while True:
            try:
                await self._follow()
            except (OSError, Malformed):
                await asyncio.sleep(0.05)

    async def _follow(self) -> None:
        order = await self._say(self.told)
        if order is None:
            return
        for content in (order.fetch, order.run):
            for digest in content.blobs if content else ():
                assert digest_of(await self._get(digest)) == digest
        if order.fetch:
            self.report = replace(self.report, fetched=order.fetch.digest)
        if order.run:
            await self._run(order, order.run.digest)
        self.told = order.digest

    async def _run(self, order: Order, content: str) -> None:
        was = self.report
        has_failed = was.state is RoleState.FAILED and was.turn == order.turn
        self.report = replace(was, content=content, revision=order.revision, turn=order.turn)
        if was.content == content and (was.state is RoleState.GOOD or has_failed):
            return
        self.tried.append(content)
        self.report = replace(self.report, state=RoleState.TRYING)
        await self._say("")
        outcome = RoleState.FAILED if content in self.bad else RoleState.GOOD
        self.report = replace(self.report, state=outcome, reason="web is unhealthy" if content in self.bad else "")

    async def _say(self, told: str) -> Order | None:
        body = msgspec.json.encode({"report": self.report, "told": told})
        secret = self.membership.secret
        status, said = await join.ask(self.client, "/v1/follow", secret, body, within=WITHIN, most=1 << 20)
        if status not in (200, 204):
            raise ConnectionError(str(status))
        return msgspec.json.decode(said, type=Order) if status == 200 else None

    async def _get(self, digest: str) -> bytes:
        headers = {"Authorization": f"Bearer {self.membership.secret}"}
        async with self.client.ask("GET", f"/v1/blobs/{digest}", headers=headers) as answer:
            raw = b"".join([piece async for piece in answer.chunks()])
            if answer.status != 200:  # there is another order meanwhile
                raise ConnectionError(str(answer.status))
            return raw


def texts(word: str) -> list[bytes]:
    return [text.encode() for text in (f"{word} manifest", f"{word} config", "base", f"{word} layer")]


def content_of(word: str) -> RoleContent:
    manifest, config, *layers = (Blob(digest=digest_of(text), size=len(text)) for text in texts(word))
    image = FarmImage(reference="dom0:latest", manifest=manifest, config=config, layers=tuple(layers))
    return RoleContent(image=image)


class Served:
    """Its server is a process; `nodes` are tasks."""

    def __init__(self, farm: FarmDirectory, port: int) -> None:
        self.farm = farm
        self.server: asyncio.subprocess.Process | None = None
        self.at = pin.Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem))
        self.nodes: dict[str, NodeTask] = {}
        self.bad: set[str] = set()

    async def start(self) -> None:
        argv = ["setpriv", "--pdeathsig=KILL", "--", sys.executable, "-m", "dom0", "farm", "serve", "--json"]
        self.server = await asyncio.create_subprocess_exec(*argv, "--dir", str(self.farm.path), stdout=PIPE)
        assert self.server.stdout
        assert json.loads(await self.server.stdout.readline())["name"] == "attic"

    async def kill(self) -> None:
        if self.server is not None:
            self.server.kill()
            await self.server.communicate()
            self.server = None

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN):
            while not holds():  # noqa: ASYNC110 -- what is on the disk of another process
                await asyncio.sleep(0.02)

    def publish(self, number: int, word: str) -> str:
        """Returns the digest of its content."""
        for text in texts(word):
            self.farm.add_blob(digest_of(text), [text])
        made = content_of(word)
        self.farm.revise(lambda _known: Revision(number=number, made=1e9, roles={"web": made}))
        return made.digest

    def at_it(self, content: str) -> list[str]:
        return [
            name
            for name, node in self.nodes.items()
            if (node.report.content, node.report.state) == (content, RoleState.GOOD)
        ]

    def who_tried(self, content: str) -> list[str]:
        return [name for name, node in self.nodes.items() for tried in node.tried if tried == content]


@pytest.fixture
async def served(farm: FarmDirectory, tmp_path: Path) -> AsyncIterator[Served]:
    """With three nodes that run revision 1."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (farm.path / "farm.yaml").write_text(FARM.format(port=port))
    made = Served(farm, port)
    async with asyncio.TaskGroup() as tasks:
        await made.start()
        living = []
        for name in ("pi1", "pi2", "pi3"):
            node = made.nodes[name] = NodeTask(tmp_path / name, made.at, made.bad)
            living.append(tasks.create_task(node.live()))
            key = key_of(node.membership.secret)
            await made.until(lambda key=key: any(one.key == key for one in farm.nodes().nodes))  # type: ignore[misc]
            code = next(one.code for one in farm.nodes().nodes if one.key == key)
            farm.change(lambda before, code=code, name=name: nodes.approve(before, code, name, "web"))  # type: ignore[misc]
        first = made.publish(1, "one")
        await made.until(lambda: len(made.at_it(first)) == 3 and "web" in farm.rollout().settled)
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: [task.cancel() for task in living])
            try:
                yield made
            finally:
                await made.kill()


async def test_a_good_revision_comes_to_all_and_to_each_once(served: Served) -> None:
    second = served.publish(2, "two")
    await served.until(lambda: len(served.at_it(second)) == 3)
    await served.until(lambda: not served.farm.rollout().turns)
    assert sorted(served.who_tried(second)) == ["pi1", "pi2", "pi3"]


async def test_a_bad_revision_touches_one_node_until_somebody_says_what_to_do(served: Served) -> None:
    second = content_of("two").digest
    served.bad.add(second)
    assert served.publish(2, "two") == second
    await served.until(lambda: "web" in served.farm.rollout().pauses)
    assert served.farm.rollout().pauses["web"].why == "pi1 failed: web is unhealthy"
    assert served.farm.rollout().turns == {}
    served.farm.change_rollout(lambda state: (rollout.resume(state, ["web"]), None))
    await served.until(lambda: len(served.who_tried(second)) == 2 and "web" in served.farm.rollout().pauses)
    assert served.who_tried(second) == ["pi1", "pi1"]
    served.bad.clear()
    served.farm.change_rollout(lambda state: (rollout.resume(state, ["web"]), None))
    await served.until(lambda: len(served.at_it(second)) == 3)
    assert sorted(served.who_tried(second)) == ["pi1", "pi1", "pi1", "pi2", "pi3"]


async def test_a_copy_of_a_node_is_that_node_and_in_nobody_elses_way(served: Served, tmp_path: Path) -> None:
    """As of one whose disk was copied: two machines with one name."""
    copied = served.nodes["pi1"].membership
    join.keep(tmp_path / "copy", None, copied)
    copy = NodeTask(tmp_path / "copy", served.at, served.bad)
    living = asyncio.create_task(copy.live())
    second = served.publish(2, "two")
    await served.until(lambda: len(served.at_it(second)) == 3 and copy.report.content == second)
    assert sorted(served.who_tried(second)) == ["pi1", "pi2", "pi3"]
    assert [node.name for node in served.farm.nodes().nodes] == ["pi1", "pi2", "pi3"]
    living.cancel()


async def test_a_server_that_is_killed_in_the_middle_goes_on_where_it_was(served: Served) -> None:
    second = served.publish(2, "two")
    for _ in range(3):
        await served.until(lambda: served.farm.rollout().turns != {} or len(served.at_it(second)) == 3)
        await served.kill()
        before = {*served.who_tried(second)}
        turns = {*served.farm.rollout().turns}
        await served.start()
        assert {*served.who_tried(second)} <= before | turns
    await served.until(lambda: len(served.at_it(second)) == 3 and not served.farm.rollout().turns)
    assert sorted(served.who_tried(second)) == ["pi1", "pi2", "pi3"]


async def test_a_node_that_reboots_has_the_place_of_one_that_would_go(served: Served) -> None:
    served.farm.change_rollout(lambda state: (rollout.drain(state, "pi3"), None))
    secret = served.nodes["pi3"].membership.secret
    body = json.dumps({"client_params": {"id": "x", "group": "web"}}).encode()
    headers = {"Authorization": f"Bearer {secret}", "fleet-lock-protocol": "true"}
    async with served.nodes["pi3"].client.ask("POST", "/v1/pre-reboot", headers=headers, body=body) as answer:
        assert answer.status == 200
    second = served.publish(2, "two")
    fetched = [served.nodes[name] for name in ("pi1", "pi2")]
    await served.until(lambda: all(node.report.fetched == second for node in fetched))
    await served.kill()
    assert served.who_tried(second) == []
    await served.start()
    served.farm.change_rollout(lambda state: lock.unlock(state, "pi3"))
    await served.until(lambda: served.at_it(second) == ["pi1", "pi2"])
    assert served.who_tried(second) == ["pi1", "pi2"]
