// What a container prints, and what is found in all that it has printed. Lines come faster than anybody reads: they are put into the page some times a second, and few stay.

import { h, keep, visible, withoutColours } from "/dom.js";
import { card, cmd } from "/parts.js";
import { follow, quoted, read } from "/wire.js";
import { clock, moment } from "/words.js";

const MOST = 2000; // lines in the page
const PAUSE = 150; // milliseconds between two times that lines are put there, at least
const SHARE = 4; // of the time that putting them takes: the rest is for all else
const TAIL = 500; // of what was there before
const LONGEST = 10_000; // characters of a line in the page

export class Log {
  /** Of `query` { find, since, until }, times in seconds or "", all of the log is searched; null: its end is followed. */
  constructor(container, changed, find, query) {
    this.container = container;
    this.changed = changed;
    this.query = query;
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
    this.stream = query ? this.search(query) : follow(() => path(container, { tail: TAIL, follow: 1 }), (lines) => this.take(lines), (what, error) => {
      if (what !== "live") this.edge = this.seen;
      this.tell(what === "live", error?.message ?? "");
    });
  }

  /** Whether it is of a search, and of all that this has found. */
  get isFound() {
    return this.query !== null && !this.live && !this.trouble;
  }

  tell(live, trouble) {
    this.trouble = trouble;
    if (live === this.live) return;
    this.live = live;
    this.changed();
  }

  /** Once: what has been found does not change, and whoever wants more searches again. */
  search(query) {
    const controller = new AbortController();
    const asked = Object.fromEntries(Object.entries(query).filter(([, value]) => value));
    this.tell(true, "");
    read(path(this.container, { tail: MOST, ...asked }), controller.signal, (lines) => this.take(lines)).then(
      () => { this.put(); this.tell(false, ""); }, (error) => this.tell(false, error.hint ? `${error.message}. ${error.hint}` : error.message));
    return { again: () => {}, stop: () => controller.abort() };
  }

  take(lines) {
    const fresh = lines.filter((line) => line.time > this.edge);
    if (!fresh.length) return;
    this.seen = fresh.at(-1).time;
    this.count += fresh.length + (fresh[0].left_out ?? 0);
    this.waiting.push(...fresh);
    if (this.waiting.length > MOST) this.waiting.splice(0, this.waiting.length - MOST);
    this.due ??= setTimeout(() => this.put(), this.pause);
  }

  put() {
    this.due = undefined;
    const began = performance.now();
    const when = this.query ? (seconds) => moment(seconds, Date.now() / 1000) : clock;
    const rows = document.createDocumentFragment();
    for (const line of this.waiting) {
      const over = line.text.length - LONGEST;
      const text = withoutColours(over > 0 ? `${line.text.slice(0, LONGEST)}… and ${over} characters more` : line.text);
      const row = h("div.row", { hidden: !this.matches(text) }, h("time", { datetime: line.time }, when(Date.parse(line.time) / 1000)));
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
    return this.find === this.query?.find || text.toLowerCase().includes(this.find.toLowerCase());
  }

  show(find) {
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

const path = (container, asked) => `/v1/logs?${new URLSearchParams({ container, ...asked })}`;

function choice(names, chosen) {
  const gone = chosen && !names.includes(chosen) ? [chosen] : [];
  return h("select", { id: "log-of" }, [...names, ...gone].map((name) => h("option", { value: name, selected: name === chosen }, name)));
}

/** The command that shows the same. */
function words(service, query) {
  if (!query) return `logs -f${service}`;
  const range = ["since", "until"].filter((name) => query[name]).map((name) => ` --${name} ${new Date(query[name] * 1000).toISOString().replace(".000Z", "Z")}`);
  return `logs${range.join("")}${query.find ? " --no-log-prefix" : ""}${service}${query.find ? ` | grep -iF -- ${quoted(query.find)}` : ""}`;
}

function told({ query, live, trouble, count, pane }) {
  const rows = pane.childElementCount;
  if (query && live) return "searching…";
  if (query && trouble) return `not searched to its end: ${trouble}`;
  if (query && !count) return "nothing is like that";
  return rows < count ? `the last ${rows} of ${count} lines` : rows === 1 ? "1 line" : `${rows} lines`;
}

export function logs({ status, log }) {
  const names = status.services.filter((one) => one.container).map((one) => one.container);
  const service = status.services.find((one) => one.container === log?.container);
  const when = (id, label) => h("label", null, `${label} `, h("input", { type: "datetime-local", id, step: "1" }));
  const sub = !log || log.query ? "" : log.live ? "as it comes" : log.trouble || "it has ended, or does not answer";
  return card("Logs", { label: "Logs", sub, right: cmd(words(service ? ` ${service.service}` : "", log?.query)) },
    h("div.tools", null,
      h("label", null, "of ", keep("select", "log-of", [log?.container, names.join("\n")], () => choice(names, log?.container))),
      h("label", null, h("span.hidden-text", null, "Find in these lines"), h("input", { type: "search", id: "find-line", placeholder: "Find", maxlength: "1000", value: log?.find ?? "" })),
      log?.query ? h("button", { type: "button", "data-do": "follow" }, "Back to what comes") : h("button", { type: "button", "data-do": "to-end", "aria-pressed": String(log?.follows ?? false) }, "Follow"),
      log && h("span.mute", { role: log.query ? "status" : null }, told(log)),
      h("details", { "data-key": "search" }, h("summary", null, "Search all of the log"),
        h("div.tools", null, when("log-since", "from"), when("log-until", "to"), h("button", { type: "button", "data-do": "search" }, "Search")))),
    log ? h("div", { id: "log-place", "data-own": true, "data-key": log.container }) : h("p.empty", null, "There is no container yet."));
}
