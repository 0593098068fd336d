"""Debian's Chromium without a screen, asked through a pipe: the DevTools protocol, as far as tests of a page need it.

Nothing is listened on and nothing is downloaded: `--remote-debugging-pipe` takes JSON that ends with a zero byte on
descriptor 3 and answers on 4. Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from dom0.testing import owned

T = TypeVar("T")
PATIENCE = 60.0  # seconds; a deadline, not an expectation
PAUSE = 0.02
MOST_STOPS = 300  # of the Tab key, in a page
FLAGS = (
    "--headless",
    "--no-sandbox",  # tests are root's, and open pages of ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--lang=en-GB",
)


# Every text that is seen with less contrast than WCAG 2.2 AA asks for (1.4.3), and how much it has.
_NAVIGATED = "Inspected target navigated or closed"  # how Chromium says it
_PALE = """(() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => sum + share * linear(rgb[i]), 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const isSeen = element.checkVisibility() && !element.closest(".hidden-text,.skip,option,noscript");
    if (!isSeen || !walker.currentNode.data.trim()) continue;
    const two = [parse(getComputedStyle(element).color), ground(element)].map(luminance).sort((a, b) => b - a);
    const ratio = (two[0] + 0.05) / (two[1] + 0.05);
    if (ratio < 4.5) found.push(`${walker.currentNode.data.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return found;
})()"""


def missing() -> str:
    """Why there is no browser; "": there is one."""
    return "" if shutil.which("chromium") else "chromium is not installed: scripts/packages dev"


class Navigated(AssertionError):
    """The page was left, or loaded itself anew, while it was asked."""


class Browser:
    """One process with one tab; use it as a context manager. `problems` are what the page's console was told.

    `flags`: more of Chromium's; `inside`: the words of a command that it is started by.
    """

    def __init__(self, *flags: str, inside: Sequence[str] = ()) -> None:
        self.problems: list[str] = []
        self._directory = Path(tempfile.mkdtemp(prefix="browser-", dir=owned.run_root()))
        theirs, self._to = os.pipe()
        self._from, theirs_too = os.pipe()
        # The shell puts the pipes where Chromium looks for them, whatever their numbers are.
        script = f'exec "$@" 3<&{theirs} 4>&{theirs_too}'
        argv = [
            *inside,
            "chromium",
            *FLAGS,
            *flags,
            f"--user-data-dir={self._directory}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "bash", "-c", script, "sh", *argv],
            pass_fds=(theirs, theirs_too),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TZ": "UTC", "HOME": str(self._directory), "TMPDIR": str(self._directory)},
            start_new_session=True,
        )
        os.close(theirs)
        os.close(theirs_too)
        self._rest = b""
        self._number = 0
        self._session = ""
        try:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
                self.ask(f"{domain}.enable")
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        os.close(self._to)
        self._process.kill()
        self._process.wait()
        os.close(self._from)
        owned.remove_directory(self._directory)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its answer. Raises AssertionError with the browser's words."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            error = Navigated if _NAVIGATED in answer["error"]["message"] else AssertionError
            raise error(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], PATIENCE)
            assert ready, "the browser says nothing"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"), event.get("params", {}):
            case "Log.entryAdded", {"entry": entry}:
                self.problems.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
            case "Runtime.exceptionThrown", {"exceptionDetails": details}:
                self.problems.append(f"exception: {details.get('exception', details).get('description', details)}")
            case "Runtime.consoleAPICalled", {"type": level, "args": said}:
                self.problems.append(f"{level}: {said}")
            case _:
                pass

    # what a person does

    def open(self, address: str) -> None:
        self.ask("Page.navigate", url=address)

    def press(self, key: str, *, shift: bool = False) -> None:
        """`Tab`, `Enter`, `ArrowDown`, or a letter."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowDown": 40}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        said = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, 0), "modifiers": 8 if shift else 0}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **said)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **said)

    def click(self, selector: str) -> None:
        self.until(f"!!document.querySelector({json.dumps(selector)})")
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def point(self, selector: str) -> None:
        """Click it with the mouse, where it is on the screen: what covers it is clicked instead."""
        self.until(f"!!document.querySelector({json.dumps(selector)})")
        measure = (
            f"(one => {{ one.scrollIntoView({{block: 'center'}}); const at = one.getBoundingClientRect(); "
            f"return [at.x + at.width / 2, at.y + at.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        place = None
        while (found := self.run(measure)) != place:  # the page may have moved it meanwhile
            place = found
            self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
        for kind in ("mousePressed", "mouseReleased"):
            said = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", type=kind, **said)

    def reach(self, selector: str) -> None:
        """Go there with the keyboard, and press it."""
        self.until(f"!!document.querySelector({json.dumps(selector)})")
        for _ in range(MOST_STOPS):
            if self.run(f"document.activeElement.matches({json.dumps(selector)})"):
                return self.press("Enter")
            self.press("Tab")
        raise AssertionError(f"the keyboard does not get to {selector}")

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """At a screen of this size."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme, {"name": "prefers-reduced-motion", "value": "reduce"}])

    # what there is

    def run(self, script: str) -> Any:
        """The value of an expression of the page. Raises AssertionError where it throws."""
        said = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def text(self, selector: str = "body") -> str:
        """As a person sees it; "" where there is no such thing."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def until(self, script: str, *, within: float = PATIENCE) -> Any:
        """Wait until the expression is true, and return it."""
        return self.until_true(lambda: self.run(script), script, within=within)

    def until_text(self, wanted: str, selector: str = "body") -> str:
        """Wait until the text is shown, and return all that is with it: a moment later it may be another page."""

        def look() -> str:
            text = self.text(selector)
            return text if wanted in text else ""

        return self.until_true(look, f"{wanted!r} in {selector}")

    def until_true(self, look: Callable[[], T], what: str, *, within: float = PATIENCE) -> T:
        deadline = time.monotonic() + within
        while True:
            with contextlib.suppress(Navigated):
                if found := look():
                    return found
            assert time.monotonic() < deadline, f"not within {within:g} s: {what}\n{self.text()}\n{self.problems}"
            time.sleep(PAUSE)

    def picture(self, name: str, height: int) -> None:
        """For the documentation: a PNG of what is seen, in the directory that DOM0_TEST_PICTURES names."""
        if directory := os.environ.get("DOM0_TEST_PICTURES"):
            self.look(1100, height)
            self.run("scrollTo(0, 0)")
            shot = self.ask("Page.captureScreenshot", format="png")
            Path(directory, name).write_bytes(base64.b64decode(shot["data"]))
            self.look(1440, 900)

    def pale_texts(self) -> list[str]:
        """Those that some people cannot read; a picture or a gradient behind them is not seen here."""
        found: list[str] = self.run(_PALE)
        return found

    def violations(self) -> list[str]:
        """What axe-core finds in the page that somebody cannot use: its rule, and where."""
        axe = files("axe_core_python").joinpath("axe.min.js").read_text()
        self.run(f"if (!window.axe) {{ {axe} }}; 0")
        found: list[str] = self.run(
            "axe.run().then((seen) => seen.violations.flatMap((rule) => "
            "rule.nodes.map((node) => `${rule.id}: ${node.target.join(' ')}`)))"
        )
        return found

    def accessible(self) -> list[tuple[str, str]]:
        """Role and name of everything that assistive technology is told of."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [
            (str(node["role"]["value"]), str(node.get("name", {}).get("value", "")))
            for node in nodes
            if not node.get("ignored")
        ]
