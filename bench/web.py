"""`make bench-web`: how much the page weighs, takes and lags behind; its part of docs/benchmarks.md.

A real Chromium looks at a machine of SERVICES services through `dom0 web`, all on this computer, so that one clock says
when the Engine told of a change and when the page shows it. `--changes N` makes it short; then nothing is written.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import agent, projects
from bench.report import REPORT, Row, at_most, table, write_section
from bench.tools import DOM0, Dom0
from dom0.testing import api, chain, owned
from dom0.testing.browser import Browser
from dom0.testing.hosts import Host
from dom0.web.page import ASSETS

SERVICES = 200
CHANGES = 40
PAUSE = 1.0  # seconds between two changes
LINES = 10_000  # a second
LOG_FOR = 20.0  # seconds
LAST_LINE = "Date.parse(document.querySelector('.log').lastChild.firstChild.dateTime)"
TALKER = f"""  talker:
    image: {projects.IMAGE}
    command: ["sh", "-c", "while :; do seq 1 {LINES // 10}; usleep 70000; done"]
    init: true
"""
"""More than LINES a second, also where it has to wait for the processor."""
HEAD = f"""`make bench-web` writes this part: [the page](web.md) of a machine with {SERVICES} services, in Chromium.
From the Engine's event to the page: by one clock, from the time that the Engine gives the pause of a container, or its
end, to the frame after the row of its service says so; to what the agent tells: to its line on another connection.
Lines that a container prints are counted by the Engine, those that come to the page by the page, which keeps the last
2,000. Memory is the proportional set size. Portainer and Dockge are not beside it: their images are in registries that
no machine of these measurements reaches."""

# Resolves with the milliseconds at which the service's row, and what is drawn with it, shows the word.
_SHOWN = """new Promise((resolve) => {
  const row = () => document.querySelector('[data-key="%s-1"]');
  const look = () => {
    if (!row()?.children[1].textContent.includes("%s")) return false;
    requestAnimationFrame(() => resolve(performance.timeOrigin + performance.now()));
    return true;
  };
  if (!look()) new MutationObserver((_, it) => look() && it.disconnect())
    .observe(document.getElementById("content"), { subtree: true, childList: true, characterData: true });
})"""


@contextmanager
def page_of(host: Host) -> Iterator[tuple[int, Browser]]:
    """`dom0 web`'s process ID, and a browser that has opened it."""
    here = os.environ | {"DOM0_RUN": str(host.path("/run/dom0")), "DOCKER_HOST": host.docker_host}
    argv = ["setpriv", "--pdeathsig", "KILL", DOM0, "web", "--no-browser"]
    with subprocess.Popen(argv, env=here, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as web:
        assert web.stdout is not None
        try:
            with Browser() as browser:
                browser.look(1440, 900)
                browser.open(web.stdout.readline().strip())
                browser.until("document.querySelectorAll('main .card').length > 2")
                yield web.pid, browser
        finally:
            web.terminate()  # an interrupt is ignored by what a shell runs in the background


class Told(threading.Thread):
    """Follows the agent as the page does, and notes when it has told which phase of which service."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.at: dict[tuple[str, str], float] = {}
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(path))

    def run(self) -> None:
        self._connection.sendall(b"GET /v1/watch?differences=1 HTTP/1.1\r\nHost: dom0\r\n\r\n")
        for line in self._connection.makefile("rb"):
            for service in json.loads(line).get("services", ()) if line.startswith(b"{") else ():
                self.at[service["service"], service["phase"]] = time.time()

    def close(self) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)
        self.join()


def changes(host: Host, browser: Browser, count: int) -> tuple[list[float], list[float]]:
    """Seconds from the Engine's event to the page, and to what the agent tells."""
    taken, until_told = [], []
    told = Told(host.path("/run/dom0/view.sock"))
    told.start()
    browser.run("location.hash = '#/services'")
    browser.until("document.querySelector('main').dataset.view === 'services'")
    for number in range(count):
        service = f"s{number // 2:03}"
        verb, word = ("pause", "stopped") if number % 2 == 0 else ("unpause", "ready")
        time.sleep(PAUSE)
        browser.run(f"window.shown = {_SHOWN % (service, word)}; 0")
        before = time.time()
        api.request(host.socket, "POST", f"/containers/{Dom0.name}-{service}-1/{verb}")
        shown = float(browser.run("window.shown")) / 1000
        filters = json.dumps({"event": [verb], "type": ["container"]})
        query = {"since": f"{before:.6f}", "until": f"{time.time():.6f}", "filters": filters}
        event = api.request(host.socket, "GET", "/events", query=query)["timeNano"] / 1e9
        taken.append(shown - event)
        while told.at.get((service, word), 0.0) < before:
            time.sleep(0.01)
        until_told.append(told.at[service, word] - event)
    told.close()
    return taken, until_told


def logged(host: Host, browser: Browser) -> tuple[float, float, list[float]]:
    """Lines a second printed, and those that came to the page; seconds that the last one is old, again and again."""
    browser.run(f"location.hash = '#/logs/{Dom0.name}-talker-1'")
    browser.until("document.querySelectorAll('.row').length > 1500")
    count = "Number(/of (\\d+) lines/.exec(document.querySelector('main').textContent)?.[1] ?? 0)"
    browser.until(f"{count} > 0")
    began, first = time.time(), browser.run(count)
    behind = []
    while time.time() < began + LOG_FOR:
        time.sleep(0.5)
        behind.append(browser.run(f"(Date.now() - {LAST_LINE}) / 1000"))
    ended, last = time.time(), browser.run(count)
    argv = ["docker", "logs", "--since", f"{began:.6f}", "--until", f"{ended:.6f}", f"{Dom0.name}-talker-1"]
    environment = os.environ | {"DOCKER_HOST": host.docker_host}
    printed = subprocess.run(argv, env=environment, capture_output=True, check=True).stdout.count(b"\n")
    return printed / (ended - began), (last - first) / (ended - began), behind


def measure(count: int) -> list[Row]:
    all_of_it = sum(len(gzip.compress(file.read_bytes())) for file in ASSETS.iterdir())
    with Host(name="bench") as host:
        chain.provide(host)
        machine = Dom0(host, host.root / "bench")
        text = projects.sleepers(machine.name, SERVICES, version="looked at")
        machine.write(text.replace("x-dom0:", f"{TALKER}x-dom0:"))
        machine.up()
        machine.settle()
        with page_of(host) as (process, browser):
            seen, told = changes(host, browser, count)
            printed, lines, behind = logged(host, browser)
            memory = agent.pss(Path(f"/proc/{process}")), agent.memory(host)
            assert not browser.problems, browser.problems
        loaded = at_most("first view, compressed: all that there is", [all_of_it / 1000], 60, "kB")
        return [
            loaded,
            at_most(f"from the Engine's event of one in {SERVICES} services to the page", seen, 0.200, "ms"),
            Row(f"the slowest of {count}", [max(seen)], unit="ms"),
            Row("to what the agent tells of it", told, unit="ms"),
            at_most("`dom0 web`, memory, after all this", [memory[0]], 30, "MB"),
            at_most(
                f"agent, {SERVICES + 1} containers, with its journal, memory, after all this", [memory[1]], 60, "MB"
            ),
            Row("lines a second that a container prints", [printed], unit=""),
            Row("that come to the page", [lines], unit="", goal=f"≥ {LINES:,}", reached=lines >= LINES),
            Row("how old the last line is that is shown meanwhile", behind, unit="ms"),
            Row("the oldest", [max(behind)], unit="ms"),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.web", description=__doc__)
    parser.add_argument("--changes", type=int, default=CHANGES, help="default: %(default)s")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    owned.sweep()
    rows = measure(arguments.changes)
    print(table(rows))
    if arguments.changes == CHANGES:
        facts = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
        when = f"Measured {time.strftime('%Y-%m-%d')}: {facts}; medians of {CHANGES} changes and {LOG_FOR:g} s of log."
        write_section(REPORT, "The page", f"{HEAD}\n\n{when}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
