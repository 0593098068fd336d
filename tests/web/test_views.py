"""The page in a real browser, before an agent that says what a test wants: what a machine seldom is."""

from __future__ import annotations

import asyncio
import itertools
import shlex
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dom0.agent.ambassador_status import AmbassadorStatus, PlacedFlow, Rewired, ShortcutStatus
from dom0.agent.events import Entry, Kind
from dom0.agent.problems import of_engine
from dom0.agent.scope_status import ScopeBudget, ScopeRefusal, ScopeStatus
from dom0.agent.served_farms import ServedFarm, ServedNode
from dom0.agent.status import BackupStatus, GenerationInfo, LogLine, MembershipStatus, Outcome, Phase, PullStatus
from dom0.agent.storage import DiskSpace, StorageStatus, VolumeStatus, VolumeUser
from dom0.agent.vitals import UsageStatus, Vitals
from dom0.engine.values import Usage
from dom0.errors import EngineUnreachable
from dom0.host.boot import Boot, Stage
from dom0.http import server
from dom0.http.client import Client
from dom0.http.server import Handler, Request, Response
from dom0.plan.differences import Difference
from dom0.testing import browser
from dom0.testing.browser import Browser
from dom0.testing.command_lines import parse_dom0
from dom0.testing.fake_agent import make_service, make_status
from dom0.testing.fake_talk import make_flow, make_receipt, make_state
from dom0.testing.possible import require
from dom0.web import page
from dom0.web.session import Sessions

JOB = "dom0-backup-data"
REFUSED: list[tuple[str, Any]] = []  # path and body of what was asked to be changed
BLIND = make_status(problems=(of_engine(EngineUnreachable("gone"), 1000.0),))
BOOTS = [
    Boot(number=number, running=number == 4, written=1000.0, stages=(), slowest="", firmware=None, ready=1.0)
    for number in range(1, 5)
]
GOOD = GenerationInfo(number=2, created=900.0, cause="dom0 up", dom0_image="", outcome=Outcome.GOOD)
ON_TRIAL = msgspec.structs.replace(
    GOOD, number=3, outcome=Outcome.TRIAL, current=True, trial_until=9000.0, goes_back_to=2
)
BUSY = make_status(
    generation=ON_TRIAL,
    services=(
        make_service("web", Phase.READY),
        make_service("other", Phase.STOPPED),
        make_service(JOB, Phase.SCHEDULED),
    ),
    backups=(BackupStatus(volume="box_data", key="data", service=JOB, to="/srv"),),
)
ECHO = AmbassadorStatus(
    service="echo",
    container="box-echo-1",
    container_id="2",
    running=True,
    state=make_state("service:web:80", receipts=4),
)
VOLUME = VolumeStatus(name="box_data", driver="local", created=1.0, declared=True, is_home=False, kept_of="", users=())
NOTHING_USED = UsageStatus(now=1000.0, machine=Vitals(), containers={})
ANSWERS: dict[str, Any] = {
    "GET /v1/history": [],
    "GET /v1/usage": NOTHING_USED,
    "GET /v1/ambassadors": [],
    "GET /v1/boots": BOOTS,
    "GET /v1/storage": StorageStatus(volumes=(), others=0, home_snapshots=0, last_home_snapshot=0.0, disks=()),
}


async def stream(*documents: Any) -> AsyncGenerator[bytes]:
    for one in documents:
        yield msgspec.json.encode(one) + b"\n"
    await asyncio.Event().wait()


ACTING: dict[str, Any] = {
    "GET /v1/history": [ON_TRIAL, GOOD],
    "GET /v1/usage": NOTHING_USED,
    "GET /v1/generations/2/plan": [],
    "GET /v1/generations/2/differences": [],
    "GET /v1/generations/3/differences": [],
    "GET /v1/ambassadors": [ECHO],
    "GET /v1/ambassadors/echo/flows": [],
    "GET /v1/ambassadors/echo/history": [make_receipt(number=4)],
    "GET /v1/storage": StorageStatus(volumes=(VOLUME,), others=0, home_snapshots=0, last_home_snapshot=0.0, disks=()),
}


async def refuse(request: Request) -> Response:
    """A machine on which everything can be asked for, and is refused."""
    if request.path == "/v1/watch":
        return Response(stream(BUSY), content_type="application/x-ndjson")
    if request.path == "/v1/events":
        return Response(stream(), content_type="application/x-ndjson")
    if request.method == "GET":
        return Response(msgspec.json.encode(ACTING[f"GET {request.path}"]))
    body = msgspec.json.decode(await request.read(1000))
    if body.get("plan"):
        return Response(msgspec.json.encode(Rewired(receipt=make_receipt(number=0, kept=3))))
    REFUSED.append((request.path, body))
    return server.refusal(409, "dom0: another dom0 command is changing this machine", "wait for it")


async def answer(request: Request) -> Response:
    if request.path == "/v1/watch":
        return Response(stream(BLIND), content_type="application/x-ndjson")
    if request.path == "/v1/events":
        return Response(stream(), content_type="application/x-ndjson")
    return Response(msgspec.json.encode(ANSWERS[f"GET {request.path}"]))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path, answer, operates=False) as address:
        yield address


@contextmanager
def serving(directory: Path, answer: Handler, *, operates: bool) -> Iterator[str]:
    """The address of the page; its server has a loop of its own, as the browser is waited for."""
    sessions, loop, begun = Sessions(), asyncio.new_event_loop(), threading.Event()
    ended = asyncio.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    async def run() -> None:
        async with AsyncExitStack() as running:
            await running.enter_async_context(server.serve(answer, directory / "agent"))
            agent = Client(lambda: asyncio.open_unix_connection(directory / "agent"), "dom0")
            running.push_async_callback(agent.close)
            handler = page.handler(agent, sessions, command="dom0", opened=lambda: None, operates=operates)
            await running.enter_async_context(server.serve(handler, listening))
            begun.set()
            await ended.wait()

    serving = threading.Thread(target=loop.run_until_complete, args=(run(),))
    serving.start()
    begun.wait()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/#{sessions.code}"
    finally:
        loop.call_soon_threadsafe(ended.set)
        serving.join()
        loop.close()


def test_what_is_old_and_what_is_chosen_is_said(address: str) -> None:
    require(browser.missing(), "tests of the page")
    with Browser() as looking:
        looking.open(address)
        looking.until_text("The Docker Engine cannot be asked", "h1")
        for view in ("storage", "wiring"):
            looking.run(f"location.hash = '#/{view}'")
            looking.until_text("This is as it was seen last: the Docker Engine does not answer", "main")
        looking.run("location.hash = '#/boots'")
        select = "document.querySelector('select[data-pick=boot]')"
        looking.until(f"!!{select}")
        looking.run(f"{select}.focus()")
        for key, chosen in (("1", 1), ("ArrowDown", 2)):  # as a person does: a script would leave no trace in it
            looking.press(key)
            looking.until_text(f"than in boot {chosen}", ".stages thead")
        looking.run("location.hash = '#/boots/2'")
        looking.until_text("than in boot 1", ".stages thead")
        assert looking.run(f"{select}.value") == "1"
        assert looking.problems == []


def test_what_stays_keeps_the_focus_when_what_stood_before_it_goes(tmp_path: Path) -> None:
    require(browser.missing(), "tests of the page")
    mended = threading.Event()
    web = make_service("web", Phase.READY, started=1000.0)
    wrong = make_status(services=(web,), problems=BLIND.problems)

    async def watched() -> AsyncGenerator[bytes]:
        yield msgspec.json.encode(wrong) + b"\n"
        await asyncio.to_thread(mended.wait)
        yield msgspec.json.encode(make_status(services=(web,), problems=())) + b"\n"
        await asyncio.Event().wait()

    async def mend(request: Request) -> Response:
        if request.path == "/v1/watch":
            return Response(watched(), content_type="application/x-ndjson")
        return await answer(request)

    with serving(tmp_path, mend, operates=False) as address, Browser() as looking:
        try:
            looking.open(address)
            looking.until("document.querySelectorAll('main .card').length > 2")
            looking.run("location.hash = '#/services'")
            looking.until("!!document.querySelector('[data-key=problems] + [data-key=Services]')")
            looking.run("document.querySelector('[data-key=web-1] a').focus()")
        finally:
            mended.set()
        looking.until("!document.querySelector('[data-key=problems]')")
        assert looking.run("document.activeElement.closest('tr')?.dataset.key") == "web-1"
        assert looking.problems == []


async def three_generations(request: Request) -> Response:
    """Of which what was before the oldest one is not kept."""
    if request.path == "/v1/history":
        kept = [msgspec.structs.replace(GOOD, number=number, current=number == 7) for number in (7, 6, 4)]
        return Response(msgspec.json.encode(kept))
    if not request.path.endswith("/differences"):
        return await answer(request)
    number, before = request.path.split("/")[3], request.query.get("before", "")
    if not before:
        return server.refusal(400, f"generation {number}: the one before it is not kept any more")
    return Response(
        msgspec.json.encode([Difference(subject="web", key=f"{before} to {number}", before="a", after="b")])
    )


def test_any_two_generations_are_compared_the_oldest_one_that_is_kept_too(tmp_path: Path) -> None:
    require(browser.missing(), "tests of the page")
    with serving(tmp_path, three_generations, operates=False) as address, Browser() as looking:
        looking.open(address)
        looking.until_text("The Docker Engine cannot be asked", "h1")
        looking.run("location.hash = '#/generations'")
        unkept = "generation 4: the one before it is not kept any more"
        for number, first, others in (
            (7, "6 to 7", {"ArrowDown": "4 to 7", "ArrowUp": "6 to 7"}),
            (6, "4 to 6", {"ArrowUp": "7 to 6", "ArrowDown": "4 to 6"}),
            (4, unkept, {"ArrowUp": "6 to 4", "Home": "7 to 4", "End": unkept}),
        ):
            at = f"#generation-{number}"
            looking.until(f"!!document.querySelector('{at} details')")
            if number != 7:
                looking.click(f"{at} summary")
            looking.until_text(first, at)
            looking.run(f"document.querySelector('{at} select').focus()")
            for key, shown in others.items():
                looking.press(key)
                looking.until_text(shown, at)
                before = shown.partition(" to ")[0]
                does = f"history {number}" if shown in ("6 to 7", unkept) else f"history --compare {before} {number}"
                assert f"dom0 {does}" in looking.text(at)
        assert looking.violations() == []


ACTIONS: tuple[tuple[str, str, str, tuple[str, dict[str, Any]]], ...] = (
    ("", "confirm 3", "dom0 confirm", ("/v1/confirm", {"generation": 3})),
    ("", "abort 3 2", "dom0 abort", ("/v1/abort", {"generation": 3})),
    ("generations", "rollback 2", "dom0 rollback 2", ("/v1/rollback", {"generation": 2})),
    ("services", "restart web", "dom0 restart web", ("/v1/services/web/restart", {})),
    ("services", "stop web", "dom0 stop web", ("/v1/services/web/stop", {})),
    ("services", "start other", "dom0 start other", ("/v1/services/other/start", {})),
    ("storage", f"backup {JOB} data", "dom0 backup now data", (f"/v1/services/{JOB}/start", {})),
    (
        "wiring",
        "lead echo other 4",
        "dom0 ambassador rewire echo --to service:other",
        ("/v1/ambassadors/echo/lead", {"service": "other"}),
    ),
    ("wiring", "undo echo 4 4", "dom0 ambassador undo echo", ("/v1/ambassadors/echo/undo", {"receipt": 4})),
)


@pytest.mark.parametrize("by", ["point", "reach"])
def test_every_action_is_asked_for_once_by_mouse_and_by_keyboard_and_refused_in_words(tmp_path: Path, by: str) -> None:
    require(browser.missing(), "tests of the page")
    with serving(tmp_path, refuse, operates=True) as address, Browser() as desk:
        press = getattr(desk, by)
        desk.look(1440, 900)
        desk.open(address)
        desk.until_text("Generation 3 is on trial", "h1")
        for view, action, command, asked in ACTIONS:
            REFUSED.clear()
            desk.run(f"location.hash = '#/{view}'")
            press(f"[data-ask='{action}']")
            desk.until("document.querySelector('#ask .main')?.disabled === false")
            assert command in desk.text("#ask")
            assert desk.run("document.activeElement.dataset.do") == "leave"
            for width, dark in itertools.product((390, 1440), (False, True)):
                desk.look(width, 900, dark=dark)
                assert desk.run("document.documentElement.scrollWidth <= innerWidth"), (action, width, dark)
                assert desk.pale_texts() == [], (action, width, dark)
                assert desk.violations() == [], (action, width, dark)
            press("#ask [data-do=leave]")
            desk.until("!document.querySelector('#ask').open")
            assert REFUSED == []
            press(f"[data-ask='{action}']")
            desk.until("document.querySelector('#ask .main')?.disabled === false")
            press("#ask .main")
            said = "refused, nothing was changed: dom0: another dom0 command is changing this machine. wait for it"
            assert command in desk.until_text(said, "#acts")
            assert [asked] == REFUSED
            press("#acts button")
            desk.until("document.querySelector('#acts').innerText === ''")
        assert desk.run("""(async () => {
            const { ACTIONS } = await import("/act.js");
            return Object.keys(ACTIONS).sort();
        })()""") == sorted(action.split()[0] for _, action, *_ in ACTIONS)


PULLED = make_status(
    steps=("create box-web-1",),
    pulls=(
        PullStatus(image="redis:8", size=100, have=40, rate=1.0, left=None, drops=0, waits_for="the registry is busy"),
        PullStatus(image="busybox:1", size=0, have=0, rate=0.0, left=None, drops=0),
    ),
)


async def pull(request: Request) -> Response:
    if request.path == "/v1/watch":
        return Response(stream(PULLED), content_type="application/x-ndjson")
    return await answer(request)


def test_pulls_and_steps_that_are_under_way_are_shown(tmp_path: Path) -> None:
    require(browser.missing(), "tests of the page")
    with serving(tmp_path, pull, operates=False) as address, Browser() as looking:
        looking.open(address)
        told = looking.until_text("redis:8", "[data-key='Under way']")
        assert "create box-web-1" in told
        assert "waits: the registry is busy" in told
        assert "dom0 status --watch" in told
        shown = "[...document.querySelectorAll('progress')].map((one) => [one.ariaLabel, one.value / one.max])"
        assert looking.run(shown) == [["pulling redis:8", 0.4], ["pulling busybox:1", 0]]
        assert looking.violations() == []


def test_what_is_used_is_asked_for_while_it_is_looked_at_and_called_old_where_it_is_not_told(tmp_path: Path) -> None:
    require(browser.missing(), "tests of the page")
    looks, told, refuses = list[float](), Counter[str](), threading.Event()
    running = make_service("web", Phase.READY, started=1000.0)
    stopped = make_service("other", Phase.STOPPED, started=1000.0, finished=1001.0)

    async def use(request: Request) -> Response:
        """An eighth of a processor by one, a quarter of all by the machine."""
        told[request.path] += 1
        if request.path == "/v1/watch":
            return Response(stream(make_status(services=(running, stopped))), content_type="application/x-ndjson")
        if request.path != "/v1/usage":
            return await answer(request)
        if refuses.is_set():
            return server.refusal(409, "dom0: too many requests at once")
        looks.append(time.monotonic())
        count = float(len(looks))
        used = Usage(read=2 * count, memory=34_500_000, processor=count / 4)
        machine = Vitals(
            memory=4 * 10**9, memory_available=10**9, load=0.5, processors={"user": count, "idle": 3 * count}
        )
        return Response(
            msgspec.json.encode(UsageStatus(now=count, machine=machine, containers={running.container_id: used}))
        )

    with serving(tmp_path, use, operates=False) as address, Browser() as looking:
        looking.open(address)
        looking.until("document.querySelectorAll('main .card').length > 2")
        assert looks == []
        looking.run("location.hash = '#/services'")
        looking.until_text("12.5%", "[data-key='web-1'] [data-title='uses']")
        assert looking.text("[data-key='web-1'] [data-title='uses'] small") == "34.5 MB"
        assert looking.text("[data-key='other-1'] [data-title='uses']") == ""
        assert "25% of all processors, load 0.50, 3.0 GB of 4.0 GB memory" in looking.text("[data-key='machine']")
        assert "dom0 top" in looking.text("[data-key='Services'] header")
        looking.look(390, 900)
        assert looking.run("document.querySelector('[data-key=web-1] th').offsetWidth") > 300  # its name, in one line
        looking.look(1440, 900)
        looking.until_true(lambda: len(looks) == 3, "a third look")
        assert looks[1] - looks[0] >= 0.9
        assert looks[2] - looks[1] >= 4.9
        looking.run("location.hash = '#/storage'")
        looking.until_true(lambda: told["/v1/storage"] == 4, "what was asked for in more than five seconds")
        assert len(looks) == 3
        looking.run("location.hash = '#/services'")
        looking.until_text("12.5%", "[data-key='web-1'] [data-title='uses']")
        refuses.set()
        old = looking.until_text("Processor and memory are as they were", "[data-key='Services']")
        assert "dom0: too many requests at once" in old
        assert "12.5%" in old
        refuses.clear()
        looking.until("!document.querySelector('main').innerText.includes('as they were')")
        looking.problems.clear()  # the browser says what it could not load


def test_what_a_search_leaves_out_is_counted_and_one_that_is_cut_off_is_never_called_complete(tmp_path: Path) -> None:
    require(browser.missing(), "tests of the page")
    line = LogLine(time="2026-11-28T00:00:00Z", service="web", container="box-web-1", text="a needle", left_out=41)
    ends, cut = threading.Event(), threading.Event()

    async def found() -> AsyncGenerator[bytes]:
        await asyncio.to_thread(ends.wait, 60)
        if cut.is_set():
            raise ConnectionAbortedError
        yield msgspec.json.encode(line) + b"\n"

    async def search(request: Request) -> Response:
        if request.path == "/v1/watch":
            never, one = make_service("home", Phase.DATA), make_service("web", Phase.READY, started=900.0)
            return Response(stream(make_status(services=(never, one))), content_type="application/x-ndjson")
        if request.path != "/v1/logs":
            return await answer(request)
        return Response(found() if "find" in request.query else stream(), content_type="application/x-ndjson")

    with serving(tmp_path, search, operates=False) as address, Browser() as looking:
        looking.open(address)
        looking.until("document.querySelectorAll('main .card').length > 2")
        looking.run("location.hash = '#/logs'")
        looking.until_text("as it comes", "main header")
        looking.run("document.querySelector('#find-line').focus()")
        looking.press("x")
        looking.click("main summary")
        for says in ("the last 1 of 42 lines", "not searched to its end: network error"):
            looking.click("[data-do=search]")
            looking.until_text("searching…", ".tools")
            ends.set()
            looking.until_text(says, ".tools")
            assert looking.text("main header code") == "dom0 logs --no-log-prefix web | grep -iF -- 'x'"
            ends.clear()
            cut.set()
        looking.problems.clear()  # the browser says what was cut off
        looking.run("document.querySelector('#find-line').focus()")
        looking.press("'")
        looking.click("[data-do=search]")
        looking.until_text("searching…", ".tools")
        assert shlex.split(looking.text("main header code"))[-1] == looking.run(
            "document.querySelector('#find-line').value"
        )
        ends.set()
        assert looking.problems == []


MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>&amp;"
HOSTILE = f"{MARKUP}\x1b[31m\u202e\x07"
MEANT = {"phase", "health", "severity", "outcome", "action", "kind", "plane", "protocol", "existing", "udp", "time"}
NAMED = make_status(
    generation=ON_TRIAL,
    services=(
        make_service("web", Phase.CRASH_LOOP, reason="it ends", ports=("80/tcp",), started=1000.0, finished=1001.0),
        make_service(JOB, Phase.FAILED, reason="exit code 1", next_run=2000.0),
    ),
    steps=PULLED.steps,
    pulls=PULLED.pulls,
    farm=MembershipStatus(
        farm="attic", server="127.0.0.1:7701", node="nas", role="hello", revision=4, state="failed", reason="no room"
    ),
    serves=("attic",),
    backups=(
        BackupStatus(volume="box_data", key="data", service=JOB, to="/srv", last=900.0, snapshot="s", size=1),
        BackupStatus(volume="box_other"),
    ),
)
SERVED = ServedFarm(
    farm="attic",
    directory="/srv/attic",
    revision=4,
    os="0.2.0",
    paused=("web",),
    remarks=("web: role web is paused: pi1 failed: web is unhealthy",),
    nodes=(
        ServedNode(name="pi1", role="web", revision=4, state="failed", os="0.1.0", last_seen=NAMED.now, why="no room"),
        ServedNode(name="pi2", role="web", revision=3, state="good", os="", last_seen=NAMED.now - 180, why="waits"),
    ),
    heard=NAMED.now,
)
NAMES: dict[str, Any] = {
    **ACTING,
    "GET /v1/farms": [SERVED],
    "GET /v1/scopes": [
        ScopeStatus(
            scope="guest",
            served=False,
            since=1000.0,
            budget=(ScopeBudget(kind="memory", granted=64_000_000, used=64_000_000),),
            refused=1,
            refusals=(ScopeRefusal(at=1000.0, method="POST", path="/build", message="not granted", times=2),),
        )
    ],
    "GET /v1/generations/2/differences": [Difference(subject="service web", key="Env", before="a", after="b")],
    "GET /v1/generations/3/differences": [Difference(subject="service web", key="Env", before="a", after="b")],
    "GET /v1/ambassadors": [
        msgspec.structs.replace(
            ECHO, shortcuts=(ShortcutStatus(consumer="box-web-1", reason="no"),), addresses={"10.0.0.3": "box-web-1"}
        )
    ],
    "GET /v1/ambassadors/echo/flows": [PlacedFlow(flow=make_flow("10.0.0.4"), consumer="box-web-1")],
    "GET /v1/boots": [
        msgspec.structs.replace(one, stages=(Stage(name="kernel", began=0, ended=1, seconds=1, text="6.18"),))
        for one in BOOTS
    ],
    "GET /v1/storage": StorageStatus(
        volumes=(
            msgspec.structs.replace(VOLUME, users=(VolumeUser(container="web", path="/data", writable=True),)),
            msgspec.structs.replace(VOLUME, name="kept", kept_of="box_data"),
        ),
        others=0,
        home_snapshots=0,
        last_home_snapshot=0.0,
        disks=(DiskSpace(path="/", size=2, free=1),),
    ),
}


def made_hostile(document: Any) -> Any:
    """Every text in it that somebody else may have chosen, without those by which the page asks for more."""

    def change(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: change(name, one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [change(key, one) for one in value]
        return f"{value}{HOSTILE}" if isinstance(value, str) and key not in MEANT else value

    return change("", msgspec.to_builtins(document))


async def name(request: Request) -> Response:
    if request.path == "/v1/watch":
        return Response(stream(made_hostile(NAMED)), content_type="application/x-ndjson")
    if request.path == "/v1/events":
        told = (
            Entry(seq=number, time=1000.0, kind=kind, subject="box-web-1", text="done", reason="so", actor="uid 0")
            for number, kind in enumerate(("create-container", Kind.REFUSED, Kind.LOGIN), 1)
        )
        return Response(stream(*map(made_hostile, told)), content_type="application/x-ndjson")
    if request.path == "/v1/logs":
        line = LogLine(time="2026-11-28T00:00:00Z", service="web", container="box-web-1", text="said")
        return Response(stream(made_hostile(line)), content_type="application/x-ndjson")
    path = request.path.replace(HOSTILE, "")
    return Response(msgspec.json.encode(made_hostile(NAMES[f"GET {path}"])))


async def serve_farm(request: Request) -> Response:
    if request.path == "/v1/watch":
        return Response(stream(NAMED), content_type="application/x-ndjson")
    if request.path == "/v1/farms":
        silent = msgspec.structs.replace(SERVED, farm="barn", directory="/srv/my barn", heard=NAMED.now - 60, paused=())
        return Response(msgspec.json.encode([SERVED, silent]))
    return await answer(request)


def test_a_farm_that_is_served_here_is_shown_as_its_server_says_and_called_old_when_it_is_silent(
    tmp_path: Path,
) -> None:
    require(browser.missing(), "tests of the page")
    with serving(tmp_path, serve_farm, operates=False) as address, Browser() as desk:
        desk.open(address)
        desk.until_text("the server of attic runs here", "[data-key='Farm']")
        desk.look(1440, 900)
        desk.click("#farm-link")
        told = desk.until_text("pi2", "[data-key='attic']")
        assert "revision 4, base OS 0.2.0" in told
        assert "web: role web is paused: pi1 failed: web is unhealthy" in told
        assert "said nothing" not in told
        cells = "[...document.querySelector('[data-key=pi2]').cells].map((one) => one.textContent)"
        assert desk.run(cells) == ["pi2", "web", "3", "●good", "\N{EN DASH}", "3 min ago", "waits"]
        assert "Its server has said nothing for 1 min" in desk.text("[data-key='barn']")
        commands = desk.run(COMMANDS)
        assert "dom0 farm resume web --dir /srv/attic" in commands
        assert "dom0 farm status --dir '/srv/my barn'" in commands
        for width, dark in itertools.product((390, 1440), (False, True)):
            desk.look(width, 900, dark=dark)
            assert desk.run("document.documentElement.scrollWidth <= innerWidth"), (width, dark)
            assert desk.pale_texts() == [], (width, dark)
            assert desk.violations() == [], (width, dark)


BARE = """(() => {
  const shown = ["table", "ul", "ol", "meter", "progress", "time", ".state", ".pulse", "h3:not(.day)", "details:has(table, pre)"];
  const found = [...document.querySelectorAll(shown.map((one) => `main ${one}`))];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const around = texts.currentNode.parentElement;
    if (/\\d/.test(texts.currentNode.data) && around.closest("main, #about, dialog, #acts")) found.push(around);
  }
  const where = (one) => one.matches("details") ? one.closest(".tools") ?? one
    : one.closest(one.matches("h3:not(.day)") ? ".tools, li" : "section, .plan, dialog, #about");
  return found.filter((one) => !where(one)?.querySelector(".cmd, .act code")).map((one) => one.outerHTML.slice(0, 200));
})()"""  # noqa: E501 -- it reads as a list
"""What of the page has no command: numbers, states, tables and lists of a section without; what is opened, and what has
a heading of its own there, without one beside it."""
COMMANDS = "[...document.querySelectorAll('.cmd')].map((one) => one.dataset.copy)"


async def all_that_there_is(request: Request) -> Response:
    if request.method == "POST":
        return Response(msgspec.json.encode(Rewired(receipt=make_receipt(number=0, kept=3))))
    if request.path == "/v1/watch":
        return Response(stream(NAMED), content_type="application/x-ndjson")
    if request.path == "/v1/events":
        entry = Entry(seq=1, time=1000.0, kind=Kind.REFUSED, subject="up", text="up: refused", reason="2 flaws")
        return Response(stream(entry), content_type="application/x-ndjson")
    if request.path == "/v1/logs":
        line = LogLine(time="2026-11-28T00:00:00Z", service="web", container="box-web-1", text="said 1")
        return Response(stream(line), content_type="application/x-ndjson")
    if request.path == "/v1/history":
        failed = msgspec.structs.replace(GOOD, number=1, outcome=Outcome.FAILED, said=("it ended with 3",))
        return Response(msgspec.json.encode([ON_TRIAL, GOOD, failed]))
    return Response(msgspec.json.encode(NAMES[f"GET {request.path}"]))


def test_every_number_state_and_table_has_its_command_and_full_views_can_be_read_everywhere(tmp_path: Path) -> None:
    require(browser.missing(), "tests of the page")
    with serving(tmp_path, all_that_there_is, operates=True) as address, Browser() as desk:
        desk.open(address)
        desk.until_text("Generation 3 is on trial", "h1")
        commands = set[str]()
        for view, shown in {
            "": "redis:8",
            "services": "crash-loop",
            "wiring": "10.0.0.4",
            "scopes": "not granted",
            "storage": "what was in box_data",
            "boots": "6.18",
            "generations": "it ended with 3",
            "events": "2 flaws",
            "farm": "no room",
            "logs": "said 1",
        }.items():
            desk.run(f"location.hash = '#/{view}'")
            desk.until(f"document.querySelector('main').dataset.view === '{view or 'overview'}'")
            desk.until(f"document.querySelector('main').textContent.includes('{shown}')")
            assert desk.run(BARE) == [], view
            commands |= set(desk.run(COMMANDS))
            for width, dark in itertools.product((390, 1440), (False, True)):
                desk.look(width, 900, dark=dark)
                assert desk.run("document.documentElement.scrollWidth <= innerWidth"), (view, width, dark)
                assert desk.pale_texts() == [], (view, width, dark)
                assert desk.violations() == [], (view, width, dark)
        for view, asked, shown in (
            ("wiring", "lead echo web 4", "New connections"),
            ("wiring", "undo echo 4 4", "It was"),
            ("generations", "rollback 2", "would have changed nothing"),
            ("services", "start web", "box-web-1"),
        ):
            desk.run(f"location.hash = '#/{view}'")
            desk.click(f"[data-ask='{asked}']")
            desk.until_text(shown, "#ask")
            assert desk.run(BARE) == [], asked
            commands |= set(desk.run(COMMANDS))
            desk.click("#ask [data-do=leave]")
        for command in sorted(commands):
            program, *arguments = shlex.split(command.partition(" | ")[0])
            if program == "dom0":
                parse_dom0(arguments, complete=True)
            else:
                assert program in ("docker", "df"), command


def test_no_text_from_outside_is_markup_in_any_view(tmp_path: Path) -> None:
    """Names of services, containers, images, volumes, boots; reasons, problems, events, differences, logs."""
    require(browser.missing(), "tests of the page")
    with serving(tmp_path, name, operates=True) as address, Browser() as desk:
        desk.open(address)
        desk.until_text(MARKUP, "main")
        for view, named in {
            "": ("create box-web-1", "redis:8", "box_other", "nas", "attic", "127.0.0.1:7701", "hello", "no room"),
            "services": ("web", "it ends", "80/tcp"),
            "wiring": ("echo", "box-web-1", "80/tcp", "rewire"),
            "scopes": ("guest", "/build", "not granted"),
            "storage": ("box_data", "/data", "kept"),
            "boots": ("kernel", "6.18"),
            "generations": ("dom0 up", "service web"),
            "events": ("done", "uid 0"),
            "farm": ("attic", "pi1", "web", "failed", "0.1.0", "no room", "web is unhealthy"),
            "logs": ("said",),
        }.items():
            desk.run(f"location.hash = '#/{view}'")
            desk.until(f"document.querySelector('main').dataset.view === '{view or 'overview'}'")
            for text in named:
                desk.until_text(f"{text}{MARKUP}", "main")
            assert desk.run("document.querySelectorAll('img[src=x], main script').length") == 0, view
            assert (
                desk.run(r"/[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069]/.test(document.body.textContent)") is False
            ), view
        assert desk.problems == []


def test_a_page_that_was_taken_over_asks_for_nothing_elsewhere(address: str) -> None:
    """Tried from inside, by a script in it. What the agent answers it with its token is in tests/agent/test_api.py."""
    require(browser.missing(), "tests of the page")
    elsewhere = socket.create_server(("127.0.0.1", 0))
    with Browser() as looking:
        looking.open(address)
        looking.until_text("The Docker Engine cannot be asked", "h1")
        there = f"127.0.0.1:{elsewhere.getsockname()[1]}/"
        for attempt in (
            f"fetch('http://{there}', {{mode: 'no-cors'}})",
            f"new WebSocket('ws://{there}')",
            f"new Image().src = 'http://{there}'",
            f"navigator.sendBeacon('http://{there}', 'x')",
            f"document.head.append(Object.assign(document.createElement('link'), {{rel: 'stylesheet', href: 'http://{there}'}}))",
            f"document.body.append(Object.assign(document.createElement('iframe'), {{src: 'http://{there}'}}))",
        ):
            refused = looking.run(f"""new Promise((done) => {{
                addEventListener("securitypolicyviolation", (event) => done(event.blockedURI), {{ once: true }});
                try {{ Promise.resolve({attempt}).catch(() => {{}}); }} catch {{ /* the event tells it, too */ }}
            }})""")
            assert there.rstrip("/") in refused, attempt
    with elsewhere, suppress(BlockingIOError):
        elsewhere.setblocking(False)
        while connection := elsewhere.accept()[0]:  # it may connect early, where it would have led a frame
            with connection:
                connection.settimeout(60)
                assert connection.recv(1) == b""
