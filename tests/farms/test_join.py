"""A machine that becomes a node, at its farm's server and at others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from dom0.errors import Dom0Error
from dom0.farms import join, nodes, pin, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.join import Membership
from dom0.farms.nodes import NodeState, key_of
from dom0.farms.pin import Pin
from dom0.host import on_host
from dom0.run import capture
from dom0.testing.wires import eventually


@pytest.fixture(autouse=True)
def without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "AGAIN", 0.01)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of that of a machine that runs the base OS."""
    file = tmp_path / "console"
    file.touch()
    monkeypatch.setattr(on_host, "CONSOLE", file)
    return file


@asynccontextmanager
async def serving(farm: FarmDirectory, port: int = 0) -> AsyncIterator[Pin]:
    listening = socket.create_server(("127.0.0.1", port), reuse_port=True)
    async with asyncio.timeout(60), serve.serve(farm, listening):
        yield Pin("127.0.0.1", listening.getsockname()[1], pin.fingerprint(farm.server_pem))


@asynccontextmanager
async def impostor(
    pem: Path, answer: bytes = b"", first: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A TLS server with the certificate `pem`, and what was said to it."""
    said: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (part := await reader.read(65536)) and not part.endswith(b"}"):
            said.append(part)
        said.append(part)
        first()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=pin.of_server(pem))
    async with asyncio.timeout(60), server:
        yield server.sockets[0].getsockname()[1], said


def code_in(told: list[str]) -> str:
    return told[-1].partition(":")[0].removeprefix("code ")


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(eventually, condition)


async def test_a_machine_waits_is_approved_and_stays_a_node(farm: FarmDirectory, state: Path) -> None:
    told: list[str] = []
    async with serving(farm) as server:
        membership = join.prepare(state, server, leave=False)
        assert join.read(state) == membership
        waiting = asyncio.create_task(join.join(state, server, membership, told.append))
        await until(lambda: told)
        assert told[0].endswith(f"dom0 farm approve {code_in(told)} --as NAME --role ROLE")
        farm.change(lambda before: nodes.approve(before, code_in(told), "nas", "web"))
        standing = await waiting
        assert (standing.farm, standing.state, standing.name) == ("attic", NodeState.ENROLLED, "nas")
        kept = join.prepare(state, server, leave=False)
        assert (kept.secret, kept.farm, kept.name, kept.role) == (membership.secret, "attic", "nas", "web")
        farm.change(lambda before: nodes.assign(before, "nas", "store"))
        assert (await join.join(state, server, kept, told.append)).role == "store"
    assert len(told) == 1
    assert (state / "farm.json").stat().st_mode & 0o777 == 0o600


async def test_a_machine_whose_clock_is_decades_before_the_servers_certificate_joins_and_stays_a_node(
    farm: FarmDirectory, state: Path
) -> None:
    dates = ["-not_before", "20700101000000Z", "-not_after", "20710101000000Z"]
    made = ["openssl", "req", "-x509", "-newkey", "ed25519", "-noenc", "-batch", "-subj", "/CN=attic", *dates]
    key = await capture([*made, "-keyout", "-", "-out", "-"])
    farm.server_pem.write_text(key.stdout)
    told: list[str] = []
    async with serving(farm) as server:
        waiting = asyncio.create_task(join.join(state, server, join.prepare(state, server, leave=False), told.append))
        await until(lambda: told)
        farm.change(lambda before: nodes.approve(before, code_in(told), "nas", "web"))
        assert (await waiting).name == "nas"
        kept = join.prepare(state, server, leave=False)
        assert (await join.join(state, server, kept, told.append)).state is NodeState.ENROLLED


async def test_a_join_that_is_killed_while_it_waits_goes_on_with_its_code(farm: FarmDirectory, state: Path) -> None:
    told: list[str] = []
    async with serving(farm) as server:
        for count in (1, 2):
            membership = join.prepare(state, server, leave=False)
            waiting = asyncio.create_task(join.join(state, server, membership, told.append))
            await until(lambda: len(told) == count)  # noqa: B023 -- before the next one
            waiting.cancel()
            await asyncio.wait([waiting])
    assert told[0] == told[1]
    assert len(farm.nodes().nodes) == 1


async def test_a_server_that_goes_away_is_asked_until_it_is_back(farm: FarmDirectory, state: Path, port: int) -> None:
    told: list[str] = []
    async with serving(farm, port) as server:
        membership = join.prepare(state, server, leave=False)
        waiting = asyncio.create_task(join.join(state, server, membership, told.append))
        await until(lambda: told)
        code = code_in(told)
    await until(lambda: "does not answer" in told[-1])
    farm.change(lambda before: nodes.approve(before, code, "nas", "web"))
    async with serving(farm, port):
        assert (await waiting).name == "nas"


async def test_where_nobody_answers_that_is_said_at_once(farm: FarmDirectory, state: Path, port: int) -> None:
    server = Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem))
    with pytest.raises(ConnectionRefusedError):
        await join.join(state, server, join.prepare(state, server, leave=False), print)


async def test_nothing_is_told_to_a_server_with_another_certificate(farm: FarmDirectory, state: Path) -> None:
    (state.parent / "other.pem").write_bytes(await pin.make_certificate("attic"))
    async with impostor(state.parent / "other.pem") as (port, said):
        server = Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem))
        with pytest.raises(pin.NotTheServer, match="another server answers there"):
            await join.join(state, server, join.prepare(state, server, leave=False), print)
    assert b"".join(said) == b""


async def test_a_certificate_without_its_key_is_of_no_use(farm: FarmDirectory, state: Path, pem: bytes) -> None:
    """Everybody who asks the server gets its certificate; Python does not even load it beside another key."""
    other = await pin.make_certificate("attic")
    mixed = state.parent / "mixed.pem"
    at = b"-----BEGIN CERTIFICATE-----"
    mixed.write_bytes(other[: other.index(at)] + pem[pem.index(at) :])
    assert pin.fingerprint(mixed) == pin.fingerprint(farm.server_pem)
    with pytest.raises(Dom0Error):
        pin.of_server(mixed)


async def test_a_secret_is_for_one_server_alone(farm: FarmDirectory, state: Path, tmp_path: Path) -> None:
    other = FarmDirectory(tmp_path / "other")
    other.make("other", await pin.make_certificate("other"), {"roles/web/compose.yaml": b"name: web\n"})
    async with serving(farm) as ours, serving(other) as theirs:
        told: list[str] = []
        first = join.prepare(state, ours, leave=False)
        waiting = asyncio.create_task(join.join(state, ours, first, told.append))
        await until(lambda: told)
        farm.change(lambda before: nodes.approve(before, code_in(told), "nas", "web"))
        await waiting
        with pytest.raises(Dom0Error, match="this machine is in the farm attic") as refused:
            join.prepare(state, theirs, leave=False)
        assert refused.value.hint.startswith("--leave ")
        second = join.prepare(state, theirs, leave=True)
        assert second.secret != first.secret
        asking = asyncio.create_task(join.join(state, theirs, second, told.append))
        await until(lambda: len(told) == 2)
        asking.cancel()
        await asyncio.wait([asking])
    assert [node.key for node in other.nodes().nodes] == [key_of(second.secret)]
    assert [node.key for node in farm.nodes().nodes] == [key_of(first.secret)]


async def test_an_older_farm_that_is_still_waited_for_is_given_up_and_changes_nothing(
    farm: FarmDirectory, state: Path
) -> None:
    """As the agent follows the boot contract's farm, while a person joins another one."""
    told: list[str] = []
    async with serving(farm) as older:
        first = join.prepare(state, older, leave=False)
        waiting = asyncio.create_task(join.join(state, older, first, told.append))
        await until(lambda: told)
        second = join.prepare(state, Pin("127.0.0.1", 1, "1" * 64), leave=True)
        farm.change(lambda before: nodes.approve(before, code_in(told), "nas", "web"))
        with pytest.raises(Dom0Error, match="join or leave a farm meanwhile"):
            await waiting
    assert join.read(state) == second


async def test_an_answer_of_a_farm_that_was_left_since_it_was_asked_is_not_kept(
    farm: FarmDirectory, state: Path
) -> None:
    left: list[Membership] = []

    def leave() -> None:
        left.append(join.prepare(state, Pin("127.0.0.1", 1, "1" * 64), leave=True))

    body = msgspec.json.encode(nodes.Standing(farm="attic", state=NodeState.ENROLLED, name="nas", role="web"))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with impostor(farm.server_pem, answer, leave) as (port, _):
        older = Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem))
        with pytest.raises(Dom0Error, match="join or leave a farm meanwhile"):
            await join.join(state, older, join.prepare(state, older, leave=False), print)
    assert [join.read(state)] == left


def test_of_many_that_make_a_machine_a_member_at_once_one_does(state: Path) -> None:
    """Each in a process of its own: the secret that was told to a server has to be the one that is kept."""
    script = f"""
import sys
from pathlib import Path
from dom0.errors import Dom0Error
from dom0.farms import join
from dom0.farms.pin import Pin
print("ready", flush=True)
sys.stdin.read()
try:
    print(join.prepare(Path(sys.argv[1]), Pin("127.0.0.1", 1, "{"1" * 64}"), leave=False).secret)
except Dom0Error:
    pass
"""
    argv = [sys.executable, "-c", script, str(state)]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)) for _ in range(4)]
        ready = [one.stdout.readline() for one in many if one.stdout]
        for one in many:
            if one.stdin:
                one.stdin.close()
        said = {one.stdout.read().strip() for one in many if one.stdout}
    assert ready == ["ready\n"] * 4
    kept = join.read(state)
    assert kept is not None
    assert said - {""} == {kept.secret}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "is not one of a farm's server"),
        (b"<html>", "is not one of a farm's server"),
        (b'{"farm": "attic", "state": "king"}', "is not one of a farm's server"),
        (b'{"farm": "attic"}', "is not one of a farm's server"),
        (b'{"farm": "\xff"}', "is not one of a farm's server"),
        (b'{"more": ' + b"[" * 50_000, "is not one of a farm's server"),
        (b" " * 100_000, "is too long"),
    ],
)
async def test_an_answer_that_is_none_is_refused(farm: FarmDirectory, state: Path, body: bytes, what: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with impostor(farm.server_pem, answer) as (port, _):
        server = Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem))
        with pytest.raises(ConnectionError, match=what):
            await join.join(state, server, join.prepare(state, server, leave=False), print)


@pytest.mark.parametrize(
    "content",
    [b'{"fingerprint": "x", "secret": "short"}', b'{"farm": "short\xff"}', b'{"short": ' + b"[" * 50_000],
)
def test_a_damaged_file_is_named_and_kept(state: Path, content: bytes) -> None:
    state.mkdir()
    (state / "farm.json").write_bytes(content)
    with pytest.raises(Dom0Error, match=r"farm\.json: is damaged"):
        join.prepare(state, Pin("127.0.0.1", 1, "0" * 64), leave=False)
    assert (state / "farm.json").read_bytes() == content


async def test_what_the_boot_contract_names_is_asked_until_it_answers(
    farm: FarmDirectory, state: Path, port: int, console: Path
) -> None:
    """And whoever stands before the machine reads what it waits for."""
    server = Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem))
    following = asyncio.create_task(join.follow(state, str(server)))
    await until(lambda: "dom0: the farm's server does not answer: " in console.read_text())
    async with serving(farm, port):
        await until(lambda: farm.nodes().nodes)
        (node,) = farm.nodes().nodes
        await until(lambda: f"dom0: code {node.code}: on the server of the farm attic" in console.read_text())
        farm.change(lambda before: nodes.approve(before, node.code, "nas", "web"))
        await following
    kept = join.read(state)
    assert kept is not None
    assert (kept.name, kept.role) == ("nas", "web")
    assert pin.parse(join.known_server(state)) == server


async def test_a_boot_contract_of_another_farm_or_of_none_changes_nothing(farm: FarmDirectory, state: Path) -> None:
    before = join.prepare(state, Pin("127.0.0.1", 1, "0" * 64), leave=False)
    for named in ("nonsense", f"a..b:7701:{'0' * 64}", str(Pin("127.0.0.1", 1, "1" * 64))):
        await join.follow(state, named)
    assert join.read(state) == before


async def test_a_disk_that_cannot_be_read_does_not_end_what_follows(farm: FarmDirectory, state: Path) -> None:
    """The agent would end with it, at each start."""
    (state / "farm.json").mkdir(parents=True)
    await join.follow(state, str(Pin("127.0.0.1", 1, "0" * 64)))


async def test_of_a_server_that_says_nothing_it_is_told_that_nothing_came(
    state: Path, console: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert join.ask.__kwdefaults__
    monkeypatch.setitem(join.ask.__kwdefaults__, "within", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        following = asyncio.create_task(join.follow(state, str(Pin("127.0.0.1", silent.getsockname()[1], "0" * 64))))
        await until(lambda: "the farm's server does not answer: nothing came; asked again" in console.read_text())
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
