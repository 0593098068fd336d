"""Who may reboot: places of a group at random, and the protocol over TLS, to nodes, to curl and to hostile machines."""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.errors import Busy, UsageError
from dom0.farms import lock, nodes, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import MachineInfo, Node, key_of
from dom0.farms.rollout import Lock, RolloutState, Turn
from dom0.farms.settings import FarmSettings, RoleSettings

NOW = 1_800_000_000.0
HEADER = {"fleet-lock-protocol": "true"}
ATTIC = FarmSettings(name="attic", roles={"web": RoleSettings(at_once=2)})
Answer = tuple[int, dict[str, str]]


def of(name: str, group: str = "web", *, foreign: bool = False) -> Lock:
    return Lock(group=group, id=name, since=NOW, foreign=foreign)


def test_as_many_as_at_once_have_a_lock_and_each_may_ask_again() -> None:
    state = RolloutState()
    for name in ("pi1", "pi2", "pi1", "pi2"):
        state = lock.acquire(state, ATTIC, of(name))
    assert [one.id for one in state.locks] == ["pi1", "pi2"]
    with pytest.raises(Busy, match="pi1, pi2: have the 2 places of the group web"):
        lock.acquire(state, ATTIC, of("pi3"))
    with pytest.raises(Busy, match="nas: has its place"):
        lock.acquire(lock.acquire(state, ATTIC, of("nas", "store")), ATTIC, of("other", "store"))
    for _ in range(2):
        state = lock.release(state, of("pi1"))
    assert [one.id for one in lock.acquire(state, ATTIC, of("pi3")).locks] == ["pi2", "pi3"]


def test_nobody_gives_back_what_another_one_has() -> None:
    state = lock.acquire(RolloutState(), ATTIC, of("pi1"))
    for other in (of("pi2"), of("PI1"), of("pi1", foreign=True)):
        assert lock.release(state, other) == state
    foreign = lock.acquire(RolloutState(), ATTIC, of("pi1", foreign=True))
    for other in (of("pi1"), of("pi1", "store", foreign=True)):
        assert lock.release(foreign, other) == foreign


def test_who_goes_to_a_revision_has_a_place_and_may_reboot_in_it() -> None:
    turn = Turn(number=1, role="web", revision=2, content="x", since=NOW)
    state = RolloutState(turns={"pi1": turn, "pi2": turn})
    with pytest.raises(Busy):
        lock.acquire(state, ATTIC, of("pi3"))
    assert lock.acquire(state, ATTIC, of("pi1")).locks
    with pytest.raises(Busy):
        lock.acquire(state, ATTIC, of("pi1", foreign=True))


def test_a_person_takes_a_lock_away_and_a_typing_mistake_is_named() -> None:
    state = lock.acquire(RolloutState(), ATTIC, of("pi1"))
    with pytest.raises(UsageError) as refused:
        lock.unlock(state, "pi11")
    assert refused.value.hint == "did you mean pi1?"
    assert lock.unlock(state, "pi1") == (RolloutState(), of("pi1"))


def test_those_that_are_no_nodes_have_only_so_many() -> None:
    state = RolloutState()
    for number in range(lock.MOST):
        state = lock.acquire(state, ATTIC, of("x", f"group{number}", foreign=True))
    with pytest.raises(Busy, match="have locks already"):
        lock.acquire(state, ATTIC, of("x", "one-more", foreign=True))
    assert lock.acquire(state, ATTIC, of("pi1")).locks


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["pi1", "pi2", "pi3", "pi4"]), st.booleans())))
def test_at_random_a_group_is_never_more_than_full(asked: Iterable[tuple[bool, str, bool]]) -> None:
    """Beside it a model: the set of those that were told that they may."""
    state, may = RolloutState(), set[tuple[str, bool]]()
    for reboots, name, foreign in asked:
        wanted = of(name, foreign=foreign)
        if reboots:
            try:
                state = lock.acquire(state, ATTIC, wanted)
                may.add((name, foreign))
            except Busy:
                assert len(may) == 2
                assert (name, foreign) not in may
        else:
            state = lock.release(state, wanted)
            may.discard((name, foreign))
        assert {(one.id, one.foreign) for one in state.locks} == may
        assert len(may) <= 2


# over TLS


@pytest.fixture(params=["nodes", "open"])
async def port(farm: FarmDirectory, request: pytest.FixtureRequest) -> AsyncIterator[int]:
    """Of a server in whose farm.yaml `fleetlock` is so."""
    (farm.path / "farm.yaml").write_text(f"name: attic\nfleetlock: {request.param}\nroles: {{web: {{at_once: 2}}}}\n")
    listening = socket.create_server(("127.0.0.1", 0))
    async with asyncio.timeout(300), serve.serve(farm, listening):
        yield int(listening.getsockname()[1])


only_nodes = pytest.mark.parametrize("port", ["nodes"], indirect=True)
for_all = pytest.mark.parametrize("port", ["open"], indirect=True)


def enrolled(farm: FarmDirectory, name: str, role: str = "web") -> str:
    """Returns its secret."""
    secret = secrets.token_hex(32)

    def hear() -> Node:
        of = (key_of(secret), MachineInfo(), f"fd00::{name}", NOW, nodes.draw_code)
        return farm.change(lambda before: nodes.hear(before, *of))

    code = hear().code
    farm.change(lambda before: nodes.approve(before, code, name, role))
    hear()
    return secret


async def ask(
    port: int, path: str, secret: str, body: object, headers: Mapping[str, str] = HEADER, method: str = "POST"
) -> Answer:
    def talk() -> Answer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)) as connection:
            own = {"Authorization": f"Bearer {secret}"} if secret else {}
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, {**own, **headers})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")

    return await asyncio.to_thread(talk)


def params(name: str, group: str = "web") -> object:
    return {"client_params": {"id": name, "group": group}}


async def test_nodes_reboot_two_at_a_time_whatever_they_call_themselves(port: int, farm: FarmDirectory) -> None:
    secret = {name: enrolled(farm, name) for name in ("pi1", "pi2", "pi3")}
    for name in ("pi1", "pi2", "pi1"):
        assert await ask(port, "/v1/pre-reboot", secret[name], params("same")) == (200, {})
    status, said = await ask(port, "/v1/pre-reboot", secret["pi3"], params("pi1"))
    assert (status, said["kind"]) == (409, "failed_lock_semaphore_full")
    assert "pi1, pi2" in said["value"]
    assert [(one.id, one.foreign) for one in farm.rollout().locks] == [("pi1", False), ("pi2", False)]
    assert (await ask(port, "/v1/steady-state", secret["pi3"], params("pi1")))[0] == 200
    assert len(farm.rollout().locks) == 2
    assert (await ask(port, "/v1/steady-state", secret["pi1"], params("pi1")))[0] == 200
    assert (await ask(port, "/v1/pre-reboot", secret["pi3"], params("pi3")))[0] == 200


@only_nodes
async def test_only_nodes_are_heard_and_only_in_the_group_of_their_role(port: int, farm: FarmDirectory) -> None:
    secret = enrolled(farm, "pi1")
    waiting = secrets.token_hex(32)
    farm.change(lambda before: nodes.hear(before, key_of(waiting), MachineInfo(), "fd00::9", NOW, nodes.draw_code))
    for stranger in ("", waiting, secrets.token_hex(32), key_of(secret)):
        status, said = await ask(port, "/v1/pre-reboot", stranger, params("pi1"))
        assert (status, said["kind"]) == (401, "not_admitted")
    status, said = await ask(port, "/v1/pre-reboot", secret, params("pi1", "store"))
    assert (status, said) == (403, {"kind": "not_admitted", "value": "the group of pi1 is its role, web"})
    assert farm.rollout() == RolloutState()


@only_nodes
async def test_a_node_that_got_another_role_gives_back_the_lock_that_it_has(port: int, farm: FarmDirectory) -> None:
    secret = enrolled(farm, "pi1")
    assert (await ask(port, "/v1/pre-reboot", secret, params("pi1")))[0] == 200
    farm.change(lambda before: nodes.assign(before, "pi1", "store"))
    assert (await ask(port, "/v1/steady-state", secret, params("pi1")))[0] == 200
    assert farm.rollout() == RolloutState()


@for_all
async def test_a_foreign_machine_locks_with_curl_and_takes_nothing_from_a_node(port: int, farm: FarmDirectory) -> None:
    secret = enrolled(farm, "pi1")
    assert (await ask(port, "/v1/pre-reboot", secret, params("pi1")))[0] == 200

    def curl(path: str, name: str) -> str:
        body = json.dumps(params(name))
        argv = ["curl", "-sk", "-H", "fleet-lock-protocol: true", "-d", body, "-w", "%{http_code}"]
        argv.append(f"https://127.0.0.1:{port}{path}")
        return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False).stdout

    assert await asyncio.to_thread(curl, "/v1/steady-state", "pi1") == "200"
    assert [one.id for one in farm.rollout().locks] == ["pi1"]
    assert await asyncio.to_thread(curl, "/v1/pre-reboot", "c988d2509fdf") == "200"
    assert (await asyncio.to_thread(curl, "/v1/pre-reboot", "other")).endswith("409")
    assert await asyncio.to_thread(curl, "/v1/steady-state", "c988d2509fdf") == "200"
    wrong = secrets.token_hex(32)
    assert (await ask(port, "/v1/pre-reboot", wrong, params("x")))[0] == 401  # it says that it is a node


NONSENSE: tuple[object, ...] = (
    b"",
    b"[]",
    b"\xff",
    b"[" * 4000,
    {},
    {"client_params": {}},
    {"client_params": {"id": "pi1"}},
    {"client_params": {"id": "", "group": "web"}},
    {"client_params": {"id": "pi1\n", "group": "web"}},
    {"client_params": {"id": "x" * 129, "group": "web"}},
    *(params("pi1", group) for group in ("", "we b/", "web\n", "../web", "wéb", "x" * 129)),
    {"client_params": {"id": ["pi1"], "group": "web"}},
)


@for_all
async def test_what_is_no_request_of_the_protocol_locks_nothing(port: int, farm: FarmDirectory) -> None:
    for body in NONSENSE:
        status, said = await ask(port, "/v1/pre-reboot", "", body)
        assert (status, said["kind"]) == (400, "bad_request"), body
    for headers in ({}, {"fleet-lock-protocol": "false"}, {"fleet-lock-protocol": "true, true"}):
        status, said = await ask(port, "/v1/pre-reboot", "", params("x"), headers)
        assert (status, said["kind"]) == (400, "bad_request")
    assert (await ask(port, "/v1/pre-reboot", "", b" " * 100_000))[0] == 413
    assert (await ask(port, "/v1/pre-reboot", "", params("x"), method="GET"))[0] == 405
    assert farm.rollout() == RolloutState()


async def test_locks_outlive_the_server_and_a_disk_that_cannot_be_written_gives_none(
    farm: FarmDirectory, tmp_path: Path
) -> None:
    secret = {name: enrolled(farm, name) for name in ("pi1", "pi2")}
    for expected in (200, 409):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            async with serve.serve(farm, listening):
                port = int(listening.getsockname()[1])
                name = "pi1" if expected == 200 else "pi2"
                assert (await ask(port, "/v1/pre-reboot", secret[name], params(name)))[0] == expected
    farm.change_rollout(lambda before: lock.unlock(before, "pi1"))
    (farm.state / ".rollout.json.new").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with serve.serve(farm, listening):
            port = int(listening.getsockname()[1])
            status, said = await ask(port, "/v1/pre-reboot", secret["pi1"], params("pi1"))
            assert (status, said["kind"]) == (503, "server_problem")
    assert farm.rollout() == RolloutState()
