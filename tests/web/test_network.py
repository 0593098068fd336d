"""The page on the network in a real browser, over TLS: it is paired, sees the machine, and is out when revoked."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from dom0.agent.status import Phase
from dom0.http.server import Request, Response
from dom0.testing import browser
from dom0.testing.browser import Browser
from dom0.testing.fake_agent import make_service, make_status
from dom0.testing.network_page import Served, open_directory, trusting_flag
from dom0.testing.possible import require

ASKED = 3  # by a page: statuses, events, generations
STATUS = make_status(problems=(), services=(make_service("web", Phase.READY),))


async def stream(*documents: Any) -> AsyncGenerator[bytes]:
    for one in documents:
        yield msgspec.json.encode(one) + b"\n"
    await asyncio.Event().wait()


async def answer(request: Request) -> Response:
    if request.path in ("/v1/watch", "/v1/events"):
        return Response(stream(*[STATUS] * (request.path == "/v1/watch")), content_type="application/x-ndjson")
    return Response(b"[]")


@pytest.fixture
def served() -> Iterator[Served]:
    require(browser.missing(), "tests of the page")
    with open_directory() as directory, serving(Served(directory, answer)) as served:
        yield served


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    """In a thread of its own, as the browser is waited for."""
    begun, loop, ended = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        async with served.running():
            begun.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    begun.wait()
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def trusting(*pages: Served) -> str:
    return trusting_flag(*(served.state / "web" / "server.pem" for served in pages))


def type_code(looking: Browser, code: str) -> None:
    looking.until("!!document.querySelector('#code')")
    looking.run("document.querySelector('#code').value = ''; document.querySelector('#code').focus()")
    for letter in code:
        looking.press(letter)
    looking.press("Enter")


def test_a_device_is_paired_sees_the_page_again_and_is_out_at_once_when_it_is_revoked(served: Served) -> None:
    address = served.register.served[0]
    with Browser(trusting(served)) as phone:
        invitation = served.invite("phone")
        phone.open(f"{address}#{invitation.code}{'-' * 20}")  # is typed by a person, or by nobody
        phone.until_text("This device is not paired", "h1")
        for width, dark in itertools.product((390, 1440), (False, True)):
            phone.look(width, 900, dark=dark)
            assert phone.run("document.documentElement.scrollWidth <= innerWidth")
            assert phone.pale_texts() == []
            assert phone.violations() == []
        type_code(phone, "2222-2222")
        phone.until_text("this is not the code", "main")
        phone.problems.clear()  # the browser says that it was refused
        type_code(phone, invitation.code)
        phone.until_text("Everything is as desired", "h1")
        assert "only looks" in phone.text("#about")
        assert phone.run("document.cookie") == ""
        assert phone.run("sessionStorage.length") == 0
        phone.run("window.isBefore = true")
        phone.ask("Page.reload")
        phone.until("!window.isBefore && document.querySelectorAll('main .card').length > 2")
        assert phone.problems == []
        served.revoke("phone")
        phone.until_text("This device is not paired", "h1")
        type_code(phone, served.invite("phone", operates=True).code)
        phone.until_text("Everything is as desired", "h1")
        assert "may change this machine" in phone.text("#about")


def test_a_page_elsewhere_gets_nothing_by_the_cookie_of_a_device(served: Served) -> None:
    """From another port of the same host, where the cookie goes, by a browser that has it."""
    address = served.register.served[0]
    with (
        open_directory() as directory,
        serving(Served(directory, answer)) as other,
        Browser(trusting(served, other)) as phone,
    ):
        phone.open(address)
        type_code(phone, served.invite("phone").code)
        phone.until_text("Everything is as desired", "h1")
        phone.until_true(lambda: len(served.asked) == ASKED, "all that the page asks")
        phone.open(other.register.served[0])
        phone.until_text("This device is not paired", "h1")
        for mode in ("cors", "no-cors"):
            options = f"{{mode: '{mode}', credentials: 'include'}}"
            ask = f"fetch({json.dumps(address + 'v1/status')}, {options}).then((said) => said.text(), () => '')"
            assert not phone.run(ask)
        assert len(served.asked) == ASKED


def test_a_browser_that_has_let_in_another_certificate_sees_nothing(served: Served) -> None:
    with open_directory() as directory, serving(Served(directory, answer)) as other, Browser(trusting(other)) as phone:
        phone.open(served.register.served[0])
        assert phone.until("document.readyState === 'complete'")
        assert "This device is not paired" not in phone.text()
