"""`dom0 web` on a real machine: in a real browser, and as everybody else on the same computer finds its port."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dom0.agent import api
from dom0.names import Access
from dom0.testing import browser
from dom0.testing.browser import Browser
from dom0.testing.hosts import path_with_ssh
from dom0.testing.machines import Machine
from dom0.testing.possible import require
from dom0.testing.web_page import Web
from dom0.web.page import ASSETS

HOSTILE = (
    r"<img src=x onerror=alert(1)><script>alert(2)</script> \\033[31mred\\033[0m \\342\\200\\256gnp"  # as YAML has it
)
COMPOSE = """
    name: box
    x-dom0: {{rollout: {{monitor: 1s, timeout: 60s}}, home: {{}}}}
    volumes: {{data: {{}}}}
    services:
      web:
        image: busybox:test
        command: ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\\\0' x; printf '\\\\n{hostile}\\\\n';
          while :; do date +%s; sleep 1; done"]
        init: true
        environment: {{PASSWORD: "{password}"}}
        mem_limit: {memory}
        healthcheck: {{test: ["CMD", "true"], interval: 5s}}
      beside:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        ports: ["8080:80"]
        volumes: ["data:/data"]
    """
VIEWS = [route for route, about in api.ROUTES.items() if about.access is Access.VIEW]
VIEW_NAMES = ("", "services", "wiring", "scopes", "storage", "boots", "generations", "events", "farm", "logs")


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    for password, memory in (("first", "64m"), ("second", "128m")):
        machine.write(COMPOSE.format(hostile=HOSTILE, password=password, memory=memory))
        machine.up()
        machine.until_good()
    return machine


@pytest.fixture(scope="module")
def web(box: Machine) -> Iterator[Web]:
    with Web(box) as web:
        yield web


@pytest.fixture(scope="module")
def page(web: Web) -> Iterator[Browser]:
    require(browser.missing(), "tests of the page")
    with Browser() as page:
        page.look(1440, 900)
        page.open(web.address)
        page.until_text("Everything is as desired", "h1")
        web.address = web.next_address()
        yield page


@pytest.fixture(scope="module")
def operating(box: Machine) -> Iterator[Web]:
    with Web(box, "--operate") as web:
        yield web


@pytest.fixture(scope="module")
def desk(operating: Web) -> Iterator[Browser]:
    """The page that may change the machine."""
    require(browser.missing(), "tests of the page")
    with Browser() as desk:
        desk.look(1440, 900)
        desk.open(operating.address)
        desk.until("document.querySelectorAll('main .card').length > 2")
        operating.address = operating.next_address()
        yield desk


@pytest.fixture(autouse=True)
def no_problems(request: pytest.FixtureRequest) -> Iterator[None]:
    """The console of the page is told of none."""
    used = [request.getfixturevalue(name) for name in ("page", "desk") if name in request.fixturenames]
    yield
    for page in used:
        page.run("0")  # what was told before is read with the answer
        assert page.problems == []


def show(page: Browser, view: str) -> None:
    page.run(f"location.hash = '#/{view}'")
    page.until(f"document.querySelector('main').dataset.view === '{view.partition('/')[0] or 'overview'}'")
    page.until("document.querySelectorAll('main .card').length > 0")


def test_the_first_view_says_what_runs_and_why(page: Browser) -> None:
    tree = page.until_text("made anew: its configuration changed", ".tree")
    assert [row.split("\t")[0].split("\n")[0] for row in tree.splitlines() if row][:1] == ["container"]
    assert "beside" in tree
    assert "new in generation 1" in tree
    assert page.text("h1") == "Everything is as desired"
    assert page.run("document.title") == "box: Everything is as desired"
    assert not page.run("document.querySelector('#scopes-link').checkVisibility()")  # there is no scope
    assert page.run("location.hash") == "#/"
    page.picture("web.png", 480)


def test_what_happens_is_shown_as_it_comes(page: Browser, box: Machine) -> None:
    show(page, "")
    before = page.text(".events")
    removed = box.container("box-beside-1")["Id"]
    box.docker("rm", "--force", removed)
    box.until_running("box-beside-1", not_id=removed)
    page.until(f"document.querySelector('.events').innerText !== {json.dumps(before)}")
    events = [json.loads(line) for line in box.dom0("events", "--json").stdout.splitlines()]
    made = [one for one in events if one["kind"] == "create-container" and one["subject"].endswith("box-beside-1")]
    assert len(made) == 2
    assert made[-1]["reason"] in page.until_text(made[-1]["text"], ".events")
    show(page, "events")
    page.until_text(made[-1]["text"], ".events")
    page.picture("web-events.png", 440)
    show(page, "services")
    page.until_text("8080/tcp", ".wide")
    page.until_text("healthy", ".wide")  # once its first check has been made


def test_what_services_use_is_shown_as_the_engine_counts_it(page: Browser, box: Machine) -> None:
    show(page, "services")
    percent = "parseFloat(document.querySelector(\"[data-key='beside-1'] [data-title='uses']\").innerText)"
    page.until(f"{percent} < 20")

    def is_the_same() -> bool:
        used = json.loads(box.dom0("top", "--json").stdout)["usage"]["containers"]
        memory = used[box.container("box-beside-1")["Id"]]["memory"]
        said = page.run(f"import('/words.js').then((words) => words.size({memory}))")
        return bool(page.text("[data-key='beside-1'] [data-title='uses'] small") == said)

    page.until_true(is_the_same, "the memory that dom0 top says")
    assert page.text("[data-key='home-volume-1'] [data-title='uses'] small") == ""  # it does not run
    box.docker("exec", "--detach", "box-beside-1", "sh", "-c", "echo $$ > /busy; while :; do :; done")
    page.until(f"{percent} > 20")
    box.docker("exec", "box-beside-1", "sh", "-c", "kill $(cat /busy)")
    page.until(f"{percent} < 20")


def test_generations_show_what_they_changed_and_what_going_back_would_do(page: Browser, box: Machine) -> None:
    show(page, "generations")
    changed = page.until_text("128 MiB", "#generation-2")
    assert "64 MiB" in changed
    assert "Env.PASSWORD" in changed
    assert "(not shown)" in changed
    page.picture("web-generations.png", 410)
    page.run("document.querySelector('#generation-1 [data-ask]').focus()")
    page.press("Enter")
    plan = page.until_text("Going back to generation 1 would", "#ask")
    planned: list[dict[str, str]] = json.loads(box.dom0("rollback", "--plan", "1", "--json").stdout)
    assert {
        "action": "replace",
        "kind": "container",
        "name": "box-web-1",
        "reason": "its configuration changed",
    } in planned
    assert all(change["name"] in plan and change["action"] in plan for change in planned)
    assert "dom0 rollback 1" in plan
    assert page.run("document.querySelectorAll('#ask .acts button').length") == 1  # this page may only look
    assert page.violations() == []
    page.press("Escape")
    page.until("!document.querySelector('#ask').open")
    assert page.run("document.activeElement.closest('li').id") == "generation-1"
    assert "second" not in page.run("document.documentElement.outerHTML")
    history = box.dom0("history", "2").stdout
    assert "HostConfig.Memory" in history
    assert "second" not in history


def test_volumes_are_shown_with_who_mounts_them_and_what_is_in_no_backup(page: Browser, box: Machine) -> None:
    show(page, "storage")
    assert "△in no backup" in page.until_text("box-beside-1 /data", "[data-key='box_data']").replace("\n", "")
    assert "home" in page.text("[data-key='home-volume']")
    assert "no snapshot on this machine" in page.text("[data-key='Home']")
    snapshots = box.host.path("/var/lib/dom0/home-snapshots/snapshots")
    snapshots.mkdir(parents=True)
    (snapshots / "one").touch()  # as restic does
    page.until_text("1 snapshot on this machine", "[data-key='Home']")
    page.picture("web-storage.png", 400)
    box.docker("volume", "create", "--label", "dom0.home=<img src=x onerror=alert(1)>", "kept")
    page.until_text("what was in <img src=x onerror=alert(1)> before", "[data-key='kept']")
    box.docker("volume", "rm", "kept")
    assert page.text("[data-key='Room'] li").startswith("/var/lib/dom0")


def test_boots_are_compared_stage_by_stage(page: Browser, box: Machine) -> None:
    show(page, "boots")
    page.until_text("There is no record of a boot", "[data-key='Boots']")
    show(page, "")
    kept = box.host.path("/var/lib/dom0/boot")
    kept.mkdir(exist_ok=True)
    (kept / "0006.record").write_text("2.00\tkernel\t\n9.00\tengine\t\n9.50\tdom0\t\n10.00\tready\t\n")
    (kept / "0007.record").write_text("2.00\tkernel\t<b>6.18</b>\n7.50\tengine\t\n8.00\tdom0\t\n9.00\tready\t\n")
    show(page, "boots")
    assert page.until_text("than in boot 6", "[data-key='boot']").startswith("Boot 7")
    rows = [row.split("\t") for row in page.text(".stages tbody").splitlines() if "s\t" in row]
    assert [row[-1] for row in rows] == ["the same", "\N{MINUS SIGN}1.50 s", "the same"]
    assert "<b>6.18</b>" in page.text(".stages")
    assert page.violations() == []
    page.click("[href='#/boots/6']")
    assert "than in boot 7" in page.until_text("+1.50 s", "[data-key='boot']")


def test_a_log_is_followed_and_nothing_in_it_is_markup(page: Browser) -> None:
    show(page, "logs/box-web-1")
    said = page.until_text("<img src=x onerror=alert(1)><script>alert(2)</script>", ".log")
    assert "red" in said
    assert "[31m" not in said
    assert "\\u202egnp" in said
    assert "x… and " in said  # of a line of 3 MB, which comes in parts
    assert all(page.run("[...document.querySelectorAll('.row time')].map((one) => !!Date.parse(one.dateTime))"))
    last = page.run("document.querySelector('.log').lastChild.textContent")
    page.until(f"document.querySelector('.log').lastChild.textContent !== {json.dumps(last)}")
    page.run("document.querySelector('#find-line').focus()")
    for letter in "onerror":
        page.press(letter)
    seen = "[...document.querySelectorAll('.row')].filter((row) => row.checkVisibility()).length"
    page.until(f"{seen} === 1")
    for container in ("box-beside-1", "box-web-1"):
        show(page, f"logs/{container}")
        page.until(f"document.querySelector('#log-place').dataset.key === '{container}'")
    page.until(f"document.querySelectorAll('.row').length > 1 && {seen} > 0")
    assert page.run(f"document.querySelector('#find-line').value + {seen}") == "onerror1"
    assert page.run("document.querySelectorAll('main img, main script').length") == 0


def test_all_of_a_log_is_searched_by_words_and_time_also_what_the_page_does_not_have(
    page: Browser, box: Machine
) -> None:
    printed = "echo 'a Needle of <b>red</b>'; sleep 3; seq 1 3000; echo 'needle 2'; echo \"it's the end\""
    box.docker("exec", "box-beside-1", "sh", "-c", f"{{ {printed}; }} > /proc/1/fd/1")
    show(page, "")  # which forgets what was looked for before
    show(page, "logs/box-beside-1")
    page.until_text("it's the end", ".log")
    assert "a Needle" not in page.text(".log")
    found, status = (
        "[...document.querySelectorAll('.row')].map((row) => row.lastChild.textContent)",
        ".tools [role=status]",
    )

    def search(words: str, since: str = "", until: str = "") -> list[str]:
        """What is found: the same as by the command that is shown."""
        for field, value in (("log-since", since), ("log-until", until), ("find-line", words)):
            page.run(f"document.querySelector('#{field}').value = {json.dumps(value)}; 0")
        page.run("document.querySelector('#find-line').dispatchEvent(new Event('input', { bubbles: true })); 0")
        page.run("document.querySelector('.log').dataset.isBefore = ''; document.querySelector('#find-line').focus()")
        page.press("Enter")
        page.until("!document.querySelector('[data-is-before]')")
        page.until(f"/line|nothing/.test(document.querySelector({json.dumps(status)}).innerText)")
        shown: list[str] = page.run(found)
        argv, _, grep = page.run("document.querySelector('main header .cmd').dataset.copy").partition(" | ")
        said = box.dom0(*shlex.split(argv)[1:]).stdout
        said = subprocess.run(["sh", "-c", grep], input=said, capture_output=True, text=True, check=False).stdout
        assert said.splitlines() == shown
        return shown

    assert search("NEEDLE") == ["a Needle of <b>red</b>", "needle 2"]
    assert page.text(status) == "2 lines"
    for width, dark in itertools.product((390, 1440), (False, True)):
        page.look(width, 900, dark=dark)
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), (width, dark)
        assert page.pale_texts() == [], (width, dark)
        assert page.violations() == [], (width, dark)
    assert search("it's") == ["it's the end"]
    first, *_ = box.dom0("logs", "-t", "--no-log-prefix", "beside").stdout.split()
    between = (datetime.fromisoformat(first[:19]) + timedelta(seconds=2)).isoformat()
    assert search("needle", until=between) == ["a Needle of <b>red</b>"]
    assert search("needle", since=between) == ["needle 2"]
    assert search("2999", since=between, until=f"{between[:4]}-12-31T23:59:59") == ["2999"]
    assert search("nothing of that") == []
    assert page.text(status) == "nothing is like that"
    found_again = search("needle")
    page.run("""
        for (const hidden of [true, false]) {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }
    """)
    assert page.run(found) == found_again
    page.click("[data-do=follow]")
    page.until_text("as it comes", "main header")
    assert page.run("document.querySelectorAll('main b').length") == 0
    show(page, "")


def test_an_address_that_names_nothing_shows_what_there_is(page: Browser) -> None:
    for address, view in (("#/constructor", "overview"), ("#/services/%", "services")):
        show(page, "events")
        page.run(f"location.hash = {json.dumps(address)}")
        page.until(f"document.querySelector('main').dataset.view === '{view}'")


@pytest.mark.parametrize("may", [True, False])
def test_only_what_was_copied_is_said_to_be(page: Browser, may: bool) -> None:
    show(page, "")
    assert page.run(f"""(async () => {{
        const button = document.querySelector(".cmd");
        const writeText = () => {"Promise.resolve()" if may else "Promise.reject(new Error())"};
        Object.defineProperty(navigator, "clipboard", {{ value: {{ writeText }}, configurable: true }});
        const later = window.setTimeout;
        window.setTimeout = () => 0; // after which it would be over
        button.click();
        for (let frame = 0; frame < 4; frame += 1) await new Promise(requestAnimationFrame);
        window.setTimeout = later;
        const shown = button.hasAttribute("data-copied");
        button.removeAttribute("data-copied");
        return [shown, document.querySelector("#said").textContent];
    }})()""") == [may, "Copied." if may else "The browser does not let this page copy."]


def test_what_ends_at_once_is_asked_for_less_and_less_often(page: Browser) -> None:
    """As the log of a container that has ended."""
    pause = page.run("""(async () => {
        const { follow } = await import("/wire.js");
        const begun = [];
        await new Promise((done) => {
            const stream = follow(() => {
                if (begun.push(performance.now()) === 4) { stream.stop(); done(); }
                return "/v1/events";
            }, () => {}, () => {});
        });
        return begun[3] - begun[2];
    })()""")
    assert pause >= 1000


def test_every_view_fits_and_can_be_read_on_every_screen(page: Browser) -> None:
    for view, width, dark in itertools.product(VIEW_NAMES, (390, 768, 1440), (False, True)):
        page.look(width, 900, dark=dark)
        show(page, view)
        where = (view, width, dark)
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), where
        assert page.pale_texts() == [], where
        if width != 768:
            assert page.violations() == [], where
    page.look(1440, 900)


def test_every_view_is_told_to_those_who_do_not_see_it(page: Browser) -> None:
    for view in VIEW_NAMES:
        show(page, view)
        told = page.accessible()
        roles = {role for role, _ in told}
        assert {"main", "navigation", "heading"} <= roles, view
        unnamed = [
            role for role, name in told if role in ("button", "link", "searchbox", "combobox", "log") and not name
        ]
        assert unnamed == [], view
        assert page.run("document.querySelectorAll('h1').length") == 1, view
        assert page.run(
            "(ids => new Set(ids).size === ids.length)([...document.querySelectorAll('[id]')].map((one) => one.id))"
        ), view


def test_every_card_has_the_command_that_shows_the_same(page: Browser) -> None:
    for view in VIEW_NAMES:
        show(page, view)
        cards: list[list[str]] = page.run(
            "[...document.querySelectorAll('main .card')].map((one) => "
            "[one.getAttribute('aria-label'), one.querySelector('header code')?.innerText ?? ''])"
        )
        assert all(command.startswith(("dom0 ", "docker ", "df ")) for _, command in cards), (view, cards)


def said_by(box: Machine, command: str) -> str:
    """What it prints, once."""
    program, *words = (word for word in shlex.split(command) if word not in ("--follow", "--watch", "-f"))
    return (box.dom0 if program == "dom0" else box.docker)(*words).stdout


def test_what_is_named_in_a_table_is_named_by_the_commands_above_it(page: Browser, box: Machine) -> None:
    seen = set()
    for view in VIEW_NAMES:
        show(page, view)
        page.until("!document.querySelector('main').innerText.includes('asking…')")
        tables = page.run("""[...document.querySelectorAll('main .card:has(tbody)')].map((card) => [
            card.getAttribute('aria-label'),
            [...card.querySelectorAll('header .cmd')].map((one) => one.dataset.copy),
            [...card.querySelectorAll('tbody th')].map((one) =>
              [...one.childNodes].find((it) => it.textContent.trim() && !it.matches?.('.tag, small')).textContent)])""")
        for label, commands, names in tables:
            said = "".join(said_by(box, command) for command in commands)
            assert [name for name in names if name not in said] == [], (label, commands)
            seen.add(label)
    assert seen >= {"Who started whom", "Services", "Volumes", "Boots"}


def test_the_keyboard_alone_gets_everywhere(page: Browser) -> None:
    show(page, "")
    page.run("window.isBefore = true")
    page.ask("Page.reload")  # which leaves the session
    page.until("!window.isBefore && document.querySelectorAll('main .card').length > 2")
    names = []
    for _ in range(60):
        page.press("Tab")
        name = page.run("document.activeElement.textContent.trim() || document.activeElement.tagName")
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none", name
        names.append(name)
        if name.startswith("Generations"):
            break
    assert names[0] == "Skip to the content"
    page.press("Enter")
    page.until("location.hash === '#/generations'")
    assert page.run("document.activeElement.getAttribute('href')") == "#/generations"  # what is drawn anew leaves it


def test_a_machine_that_does_not_answer_is_said_and_it_comes_back_by_itself(page: Browser, box: Machine) -> None:
    show(page, "")
    box.docker("stop", "dom0")
    page.until_text("Not connected since", "#line")
    assert page.run("document.title").startswith("not connected")
    assert "Everything is as desired" in page.text("h1")  # as it was then
    box.docker("start", "dom0")
    page.until("!document.querySelector('#line').innerText")
    page.until_text("the agent 0", ".events")
    page.problems.clear()  # the browser says what it could not load


def test_a_line_that_is_cut_without_a_word_is_said_and_it_comes_back_by_itself(
    page: Browser, web: Web, box: Machine
) -> None:
    show(page, "services")
    web.process.send_signal(signal.SIGSTOP)  # its connections stay, and nothing comes
    try:
        page.until_text("Not connected since", "#line")
        assert page.run("document.title").startswith("not connected")
        box.docker("stop", "--time", "0", "box-beside-1")
        assert "stopped" not in page.text("[data-key='beside-1']")  # what was seen last, and said to be old
    finally:
        web.process.send_signal(signal.SIGCONT)
    page.until("!document.querySelector('#line').innerText")
    page.until_text("stopped", "[data-key='beside-1']")
    box.dom0("start", "beside")
    page.until_text("ready", "[data-key='beside-1']")
    page.problems.clear()  # the browser says what it could not load


def test_a_tab_that_is_seen_again_does_not_pass_what_it_knew_for_news(page: Browser) -> None:
    show(page, "")
    said = page.run("""(async () => {
        const see = (hidden) => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        };
        const { fetch } = window;
        see(true);
        await new Promise((done) => setTimeout(done, 2000));
        window.fetch = () => new Promise(() => {});
        see(false);
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        const said = document.querySelector("#line").innerText;
        see(true);
        window.fetch = fetch;
        see(false);
        return said;
    })()""")
    assert "Not connected since" in said
    page.until("!document.querySelector('#line').innerText")


def ask_for(desk: Browser, action: str) -> str:
    """Open the question; returns it when it can be answered."""
    desk.click(f"[data-ask='{action}']")
    desk.until("document.querySelector('#ask').open && document.querySelector('#ask .main')?.disabled === false")
    return desk.text("#ask")


def answer(desk: Browser) -> None:
    desk.click("#ask .main")
    desk.until("!document.querySelector('#ask').open")


def test_a_service_is_restarted_stopped_and_started(desk: Browser, box: Machine) -> None:
    show(desk, "services")
    row = "[data-key='beside-1']"
    seen = [box.container("box-beside-1")]
    for action, did, phase in (
        ("restart beside", "was restarted", "ready"),
        ("stop beside", "was stopped", "stopped"),
        ("start beside", "was started", "ready"),
    ):
        question = ask_for(desk, action)
        assert "box-beside-1" in question
        assert f"dom0 {action}" in question
        answer(desk)
        desk.until_text(f"beside {did}: box-beside-1", "#acts")
        seen.append(box.container("box-beside-1"))
        desk.click("#acts button")
        desk.until_text(phase, row)
    assert len({one["Id"] for one in seen}) == 1
    assert [one["State"]["Status"] for one in seen] == ["running", "running", "exited", "running"]
    first, restarted, stopped, started = [one["State"]["StartedAt"] for one in seen]
    assert first != restarted == stopped != started


def test_going_back_says_first_what_it_would_do_and_then_what_came_of_it(desk: Browser, box: Machine) -> None:
    show(desk, "generations")
    question = ask_for(desk, "rollback 1")
    assert "replace\tcontainer\tbox-web-1" in question
    assert "dom0 rollback 1" in question
    assert desk.run("document.activeElement.dataset.do") == "leave"
    desk.press("Escape")
    desk.until("!document.querySelector('#ask').open")
    assert box.status()["generation"]["number"] == 2
    ask_for(desk, "rollback 1")
    answer(desk)
    told = desk.until_text("generation 1 is good", "#acts")
    assert "done" in told
    desk.until_text("runs now", "#generation-1")
    assert box.status()["generation"]["number"] == 1
    events = [json.loads(line) for line in box.dom0("events", "--json").stdout.splitlines()]
    asked = [one for one in events if one["subject"] == "dom0 rollback"]
    assert [(one["kind"], one["actor"]) for one in asked] == [("command", f"uid {os.getuid()} on the page")]
    desk.click("#acts button")
    desk.until("document.querySelector('#acts').innerText === ''")
    desk.problems.clear()  # the browser says that streams have ended: that generation has an agent of its own


def test_what_the_machine_refuses_is_said_in_its_words(desk: Browser, box: Machine) -> None:
    show(desk, "generations")
    ask_for(desk, "rollback 2")
    box.dom0("rollback", "2")  # by somebody else, while it is asked
    desk.until_text("generation 2 is the current one", "#ask")
    assert desk.run("document.querySelector('#ask .main').disabled")
    desk.press("Escape")
    desk.until_text("runs now", "#generation-2")
    desk.problems.clear()  # the browser says that it was refused


def test_a_trial_is_counted_down_and_kept_or_ended(desk: Browser, box: Machine) -> None:
    show(desk, "")
    for action, number, did, kept in (
        ("abort 3 2", 3, "generation 3 was ended", 2),
        ("confirm 4", 4, "generation 4 is kept", 4),
    ):
        box.write(COMPOSE.format(hostile=HOSTILE, password="third", memory="96m"))
        box.dom0("try", str(box.project), "--for", "10m")
        desk.until_text(f"Generation {number} is on trial", "h1")
        assert re.search(r"goes back to generation 2 in \d+:[0-5]\d unless", desk.text(".trial"))
        ask_for(desk, action)
        answer(desk)
        desk.until_text(did, "#acts")
        desk.click("#acts button")
        desk.until("!document.querySelector('.trial')")
        box.until_good(kept)


def test_an_answer_that_was_lost_is_called_unknown_and_never_done(desk: Browser, box: Machine) -> None:
    slow = """
      slow:
        image: busybox:test
        command: ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
        stop_grace_period: 10m
    """
    box.write(COMPOSE.format(hostile=HOSTILE, password="third", memory="96m") + slow)
    box.up()
    box.until_good(5)
    show(desk, "generations")
    ask_for(desk, "rollback 4")
    answer(desk)
    desk.until_text("under way", "#acts")  # until the slow one is stopped
    box.until(lambda: box.status()["generation"]["number"] == 4)
    box.docker("kill", "dom0")
    desk.until_text("unknown", "#acts")
    desk.until_text("Not connected since", "#line")
    box.docker("start", "dom0")
    desk.until("!document.querySelector('#line').innerText")
    assert "done" not in desk.text("#acts")
    assert "look at Generations" in desk.text("#acts")
    desk.until_text("runs now", "#generation-4")
    box.docker("kill", "box-slow-1")
    box.until(lambda: "box-slow-1" not in box.containers())
    desk.click("#acts button")
    desk.problems.clear()  # the browser says what it could not load


def test_an_engine_that_is_restarted_is_said_and_nothing_is_asked_for_meanwhile(desk: Browser, box: Machine) -> None:
    show(desk, "generations")
    box.host.stop_engine()
    desk.until_text("Not connected since", "#line")
    desk.click("[data-ask='rollback 1']")
    desk.until_text("nothing can be asked for now", "#ask")
    assert desk.run("document.querySelector('#ask .main').disabled")
    desk.press("Escape")
    box.host.start_engine()
    desk.until("!document.querySelector('#line').innerText")
    box.until(lambda: box.status()["converged"])
    desk.problems.clear()


def test_an_engine_that_goes_away_under_an_action_leaves_it_unknown_and_the_page_comes_back(
    desk: Browser, box: Machine
) -> None:
    slow = """
      slow:
        image: busybox:test
        command: ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
        stop_grace_period: 10m
    """
    before = box.status()["generation"]["number"]
    box.write(COMPOSE.format(hostile=HOSTILE, password="third", memory="96m") + slow)
    box.up()
    box.until(lambda: box.status()["converged"])

    def stops() -> bool:
        return "dom0 stop slow" in box.dom0("events").stdout

    def goes_back() -> bool:
        return bool(box.status()["generation"]["number"] == before)

    for view, action, has_begun in (
        ("services", "stop slow", stops),
        ("generations", f"rollback {before}", goes_back),
    ):
        box.dom0("start", "slow")  # the Engine may have noted that it is to be stopped
        box.until(lambda: box.status()["converged"] and box.container("box-slow-1")["State"]["Running"])
        show(desk, view)
        ask_for(desk, action)
        answer(desk)
        desk.until_text("under way", "#acts")  # until the slow one is stopped
        box.until(has_begun)
        pid = box.container("box-slow-1")["State"]["Pid"]
        box.host.kill_engine()
        show(desk, "storage")
        desk.until_text("This is as it was seen last: the Docker Engine does not answer", "main")
        box.host.run(["kill", "-KILL", str(pid)])
        box.host.start_engine()
        told = desk.until_text("unknown", "#acts")
        assert "done" not in told
        desk.until("!document.querySelector('#line').innerText")
        box.until(lambda: box.status()["converged"])
        desk.until("!document.querySelector('main').innerText.includes('as it was seen last')")
        show(desk, "services")
        status = box.status()
        for one in status["services"]:
            if one["container"]:
                desk.until_text(one["phase"], f"[data-key='{one['service']}-{one['number']}']")
        show(desk, "generations")
        desk.until_text("runs now", f"#generation-{status['generation']['number']}")
        desk.click("#acts button")
    assert status["generation"]["number"] == before
    assert "box-slow-1" not in box.containers()
    desk.problems.clear()  # the browser says what it could not load


def test_what_was_asked_for_before_a_tab_was_hidden_is_unknown_when_nobody_answers_then(desk: Browser) -> None:
    show(desk, "services")
    ask_for(desk, "restart beside")
    desk.run("""
        window.see = (hidden) => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        };
        window.fetched = window.fetch;
        window.fetch = (path, options) => path.includes("/services/") // as on a line that was cut without a word
            ? new Promise((_, broken) => options.signal.addEventListener("abort", () => broken(options.signal.reason)))
            : fetched(path, options);
        0
    """)
    answer(desk)
    desk.until_text("under way", "#acts")
    desk.run("see(true); fetch = () => Promise.reject(new TypeError('gone')); see(false); 0")
    desk.until_text("unknown", "#acts")
    desk.run("fetch = fetched; 0")
    desk.until("!document.querySelector('#line').innerText")
    desk.click("#acts button")


def test_an_outcome_that_was_heard_stays_when_the_connection_ends_then(desk: Browser) -> None:
    end = desk.run("""(async () => {
        const { Act, action } = await import("/act.js");
        const { fetch } = window;
        let told = 0;
        let heard;
        const all = new Promise((resolve) => heard = resolve);
        const says = (stream) => stream.enqueue(new TextEncoder().encode('{"outcome":"good","generation":1}\\n'));
        const ends = (stream) => all.then(() => stream.error(new TypeError("cut")));
        const pulls = [says, ends];
        window.fetch = async () => new Response(new ReadableStream({ pull: (stream) => pulls.shift()(stream) }));
        const act = new Act(action("rollback 1"), () => {
            if ((told += 1) === 2) heard(); // the first time it was of nothing
        });
        await act.done;
        window.fetch = fetch;
        return act.end;
    })()""")
    assert end == {"is": "ok", "text": "generation 1 is good"}


def test_what_is_not_so_any_more_is_not_asked_any_more(desk: Browser, box: Machine) -> None:
    show(desk, "")
    box.write(COMPOSE.format(hostile=HOSTILE, password="fourth", memory="96m"))
    box.dom0("try", str(box.project), "--for", "10m")
    tried = box.status()["generation"]
    number, back = tried["number"], tried["goes_back_to"]
    desk.until_text(f"Generation {number} is on trial", "h1")
    ask_for(desk, f"abort {number} {back}")
    box.dom0("confirm")  # by somebody else, while it is asked
    desk.until_text("The machine has changed meanwhile: this is not asked any more.", "#ask")
    assert not desk.run("!!document.querySelector('#ask .main')")
    desk.press("Escape")
    desk.until("!document.querySelector('#ask').open")
    assert desk.run("""(async () => {
        const { action } = await import("/act.js");
        const { holds } = action("confirm 5");
        const now = [5, 6].flatMap((number) => [0, 1].map((trial_until) => ({ number, trial_until })));
        return now.filter(holds);
    })()""") == [{"number": 5, "trial_until": 1}]
    own = box.until_good(number)["generation"]["dom0_image"].removeprefix("sha256:")[:12]
    desk.until_text(own, "#about")
    desk.problems.clear()  # the browser says that streams have ended: that generation has an agent of its own


def test_a_hand_over_is_seen_from_the_old_agent_to_the_new_one_on_the_same_page(page: Browser, box: Machine) -> None:
    show(page, "events")
    page.run("""
        window.lines = [];
        new MutationObserver(() => lines.push(document.getElementById("line").innerText))
            .observe(document.getElementById("line"), { subtree: true, childList: true, characterData: true });
        0
    """)
    since = json.loads(box.dom0("events", "--json").stdout.splitlines()[-1])["seq"]
    box.write(COMPOSE.format(hostile=HOSTILE, password="fifth", memory="80m"))
    box.up()
    number = box.status()["generation"]["number"]
    own = box.container("dom0")["Image"].removeprefix("sha256:")[:12]
    page.until_text(own, "#about")
    told = [json.loads(line) for line in box.dom0("events", "--json", "--since", str(since)).stdout.splitlines()]
    kinds = [one["kind"] for one in told]
    assert kinds.index("handover-begun") < kinds.index("agent-ended") < kinds.index("agent-started")
    shown = [one["text"] for one in told if one["kind"] in ("handover-begun", "agent-ended", "agent-started")]
    for text in shown:
        page.until_text(text, ".events")
    show(page, "generations")
    page.until_text("runs now", f"#generation-{number}")
    show(page, "services")
    box.docker("stop", "--time", "0", "box-beside-1")
    page.until_text("stopped", "[data-key='beside-1']")
    box.dom0("start", "beside")
    page.until_text("ready", "[data-key='beside-1']")
    said = page.run("window.lines")  # of this very page: it was not loaded anew
    assert all(line == "" or line.startswith("Not connected since") for line in said), said
    page.problems.clear()  # the browser says that streams have ended


def test_a_used_address_opens_nothing(web: Web) -> None:
    require(browser.missing(), "tests of the page")
    used = web.address
    web.enter()
    with Browser() as other:
        other.open(used)
        other.until_text("does not open the page any more", "h1")
        other.open(web.address)  # in the same tab, where nothing but the part after # is another one
        other.until_text("Everything is as desired", "h1")
        web.address = web.next_address()


# the port, for everybody else


ROUTES = [
    *(f"GET /{file.name}" for file in ASSETS.iterdir()),
    "GET /",
    "POST /session",
    *api.ROUTES,
    "GET /nothing",
    "DELETE /v1/status",
    "OPTIONS /v1/status",
]
FOREIGN = (
    {"Host": "attacker.example"},
    {"Host": "attacker.example:{port}"},
    {"Host": "127.0.0.1.nip.io:{port}"},
    {"Host": "dom0"},
    {"Origin": "http://attacker.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
)


def asked(route: str) -> tuple[str, str]:
    method, path = route.split()
    return method, re.sub(r"\{\w+\}", "1", path).replace("/logs", "/logs?container=box-web-1")


@pytest.fixture(params=["web", "operating"])
def either(request: pytest.FixtureRequest) -> Web:
    """A page that may look, and one that may change the machine."""
    found: Web = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("route", ROUTES)
def test_no_page_of_another_site_is_answered(either: Web, route: str) -> None:
    web = either
    token = {"Authorization": f"Bearer {web.enter()}", "Content-Type": "application/json"}
    body = json.dumps({"code": web.address.partition("#")[2]}) if route.startswith("POST") else ""
    for headers in FOREIGN:
        filled = {name: value.format(port=web.port) for name, value in headers.items()}
        status, said = web.ask(*asked(route), token | filled, body)
        assert status == 403, filled
        assert b"box" not in said


def test_nothing_is_told_without_the_token_of_this_run(either: Web, box: Machine) -> None:
    web = either
    with Web(box) as earlier:
        old = earlier.enter()
    assert earlier.process.returncode == 130
    wrong = ("", f"Bearer {old}", "Bearer ", f"Basic {web.enter()}", f"Bearer {web.address.partition('#')[2]}")
    for route, authorization in itertools.product((*api.ROUTES, "GET /v1"), wrong):
        status, said = web.ask(*asked(route), {"Authorization": authorization} if authorization else {})
        assert status == 401, (route, authorization)
        assert b"box" not in said


def test_every_question_of_the_page_is_answered_and_nothing_else(web: Web) -> None:
    token = {"Authorization": f"Bearer {web.enter()}"}
    found = {route: web.ask(*asked(route), token)[0] for route in VIEWS}
    assert found == {route: 400 if "{name}" in route else 200 for route in VIEWS}  # there is no ambassador here
    for path in (
        "/v1/files",
        "/v1/files/diff?path=compose.yaml",
        "/v1/ambassadors/nobody/rewire",
        "/v1/../v1/status",
        "/v1/%2e%2e/up",
    ):
        assert web.ask("GET", path, token)[0] == 404, path
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for path in ("/v1/up", "/v1/rollback", "/v1/status", "/"):
            assert web.ask(method, path, token | {"Content-Type": "application/json"})[0] == 405, (method, path)


def test_the_page_that_may_change_the_machine_is_answered_that_and_no_more(operating: Web, box: Machine) -> None:
    before = box.history()
    token = {"Authorization": f"Bearer {operating.enter()}", "Content-Type": "application/json"}
    for route, about in api.ROUTES.items():
        body = json.dumps({"generation": 99}) if route.startswith("POST") else ""  # which is refused where it is known
        status, said = operating.ask(*asked(route), token, body)
        assert (status == 404) == (about.access > Access.OPERATE), (route, said)
        if route.startswith("POST"):
            assert operating.ask(*asked(route), token | {"Content-Type": "text/plain"}, body)[0] == 415, route
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
        assert operating.ask(method, "/v1/rollback", token)[0] == 405, method
    assert operating.ask("POST", "/v1/rollback", token, "x" * 2000)[0] == 413
    assert box.history() == before


def test_every_answer_carries_the_policy(web: Web) -> None:
    for route, token in itertools.product(ROUTES, ({}, {"Authorization": f"Bearer {web.enter()}"})):
        web.ask(*asked(route), token)
        assert "frame-ancestors 'none'" in web.headers["Content-Security-Policy"], route
        assert web.headers["X-Content-Type-Options"] == "nosniff"
        assert not any(name.lower().startswith("access-control-") for name in web.headers)


def test_a_link_from_elsewhere_leads_to_the_page_but_to_no_data(web: Web) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert web.ask("GET", "/", link)[0] == 200
    assert web.ask("GET", "/v1/status", link | {"Authorization": f"Bearer {web.enter()}"})[0] == 403


@pytest.mark.parametrize("way", ["ssh", "forwarded socket", "--on"])
def test_another_machine_is_shown_through_its_engine(box: Machine, tmp_path: Path, way: str) -> None:
    options = ["--on", "me@box"] if way == "--on" else []
    engine = {"ssh": "ssh://me@box", "--on": "unix:///nobody.sock", "forwarded socket": box.host.docker_host}[way]
    path = path_with_ssh(tmp_path, box.host)
    with Web(box, *options, DOCKER_HOST=engine, PATH=path, HOME=str(tmp_path)) as web:
        status, body = web.ask("GET", "/v1/status", {"Authorization": f"Bearer {web.enter()}"})
    found: dict[str, Any] = json.loads(body)
    assert (status, found["project"]) == (200, "box")
    assert web.process.returncode == 130


def test_a_port_that_is_taken_and_a_machine_that_is_not_there_are_said(web: Web, box: Machine, tmp_path: Path) -> None:
    taken = box.dom0("web", "--port", "65536", check=False)
    assert taken.code == 2
    argv = [sys.executable, "-m", "dom0", "web", "--no-browser"]
    here = os.environ | {"DOM0_RUN": str(box.host.path("/run/dom0")), "DOCKER_HOST": box.host.docker_host}
    refused = subprocess.run([*argv, "--port", str(web.port)], env=here, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"web: port {web.port} of 127.0.0.1: Address already in use" in refused.stderr
    nobody = subprocess.run(argv, env=here | {"DOM0_RUN": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert nobody.returncode == 1
    assert nobody.stderr.startswith("dom0: dom0: ")
