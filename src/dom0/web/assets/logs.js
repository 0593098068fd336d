// What a container prints. Lines come faster than anybody reads: they are put into the page some times a second, and few stay.

import { h, keep, visible, withoutColours } from "/dom.js";
import { card, cmd } from "/parts.js";
import { follow } from "/wire.js";
import { clock } from "/words.js";

const MOST = 2000; // lines in the page
const PAUSE = 150; // milliseconds between two times that lines are put there, at least
const SHARE = 4; // of the time that putting them takes: the rest is for all else
const TAIL = 500; // of what was there before
const LONGEST = 10_000; // characters of a line in the page

export class Log {
  constructor(container, changed, find) {
    this.container = container;
    this.changed = changed;
    this.live = false;
    this.follows = true;
    this.find = find;
    this.count = 0;
    this.pane = h("div.log", { tabindex: "0", role: "log", "aria-label": `Log of ${container}`, "aria-live": "off" });
    this.pane.addEventListener("scroll", () => this.scrolled());
    this.waiting = [];
    this.pause = PAUSE;
    this.seen = ""; // time of the last line
    this.edge = ""; // and of the last one before the connection broke: the end of the log comes again
    this.stream = follow(() => `/v1/logs?${new URLSearchParams({ container, tail: String(TAIL), follow: "1" })}`, (lines) => this.take(lines), (what, error) => {
      const live = what === "live";
      if (!live) this.edge = this.seen;
      this.trouble = error?.message ?? "";
      if (live !== this.live) { this.live = live; changed(); }
    });
  }

  take(lines) {
    const fresh = lines.filter((line) => line.time > this.edge);
    if (!fresh.length) return;
    this.seen = fresh.at(-1).time;
    this.count += fresh.length;
    this.waiting.push(...fresh);
    if (this.waiting.length > MOST) this.waiting.splice(0, this.waiting.length - MOST);
    this.due ??= setTimeout(() => this.put(), this.pause);
  }

  put() {
    this.due = undefined;
    const began = performance.now();
    const rows = document.createDocumentFragment();
    for (const line of this.waiting) {
      const over = line.text.length - LONGEST;
      const text = withoutColours(over > 0 ? `${line.text.slice(0, LONGEST)}… and ${over} characters more` : line.text);
      const row = h("div.row", { hidden: !this.matches(text) }, h("time", { datetime: line.time }, clock(Date.parse(line.time) / 1000)));
      row.append(h("span", null, visible(text)));
      rows.append(row);
    }
    for (let over = this.pane.childElementCount + this.waiting.length - MOST; over > 0; over -= 1) this.pane.firstElementChild?.remove();
    this.waiting = [];
    this.pane.append(rows);
    if (this.follows) this.pane.scrollTop = this.pane.scrollHeight;
    this.pause = Math.max(PAUSE, SHARE * (performance.now() - began));
    this.changed();
  }

  matches(text) {
    return text.toLowerCase().includes(this.find.toLowerCase());
  }

  search(find) {
    this.find = find;
    for (const row of this.pane.children) row.hidden = !this.matches(row.lastChild.textContent);
    this.changed();
  }

  scrolled() {
    const atEnd = this.pane.scrollHeight - this.pane.scrollTop - this.pane.clientHeight < 24;
    if (atEnd !== this.follows) { this.follows = atEnd; this.changed(); }
  }

  toEnd() {
    this.follows = true;
    this.pane.scrollTop = this.pane.scrollHeight;
    this.changed();
  }
}

function choice(names, chosen) {
  const gone = chosen && !names.includes(chosen) ? [chosen] : [];
  return h("select", { id: "log-of" }, [...names, ...gone].map((name) => h("option", { value: name, selected: name === chosen }, name)));
}

export function logs({ status, log }) {
  const names = status.services.filter((one) => one.container).map((one) => one.container);
  const service = status.services.find((one) => one.container === log?.container);
  const rows = log ? log.pane.childElementCount : 0;
  return card("Logs", { label: "Logs", sub: !log ? "" : log.live ? "as it comes" : log.trouble || "it has ended, or does not answer", right: cmd(service ? `logs -f ${service.service}` : "logs -f") },
    h("div.tools", null,
      h("label", null, "of ", keep("select", "log-of", [log?.container, names.join("\n")], () => choice(names, log?.container))),
      h("label", null, h("span.hidden-text", null, "Find in these lines"), h("input", { type: "search", id: "find-line", placeholder: "Find", value: log?.find ?? "" })),
      h("button", { type: "button", "data-do": "to-end", "aria-pressed": String(log?.follows ?? false) }, "Follow"),
      h("span.mute", null, rows < (log?.count ?? 0) ? `the last ${rows} of ${log.count} lines` : `${rows} lines`)),
    log ? h("div", { id: "log-place", "data-own": true, "data-key": log.container }) : h("p.empty", null, "There is no container yet."));
}
