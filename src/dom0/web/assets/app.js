// The page: what it knows, which view is shown, and how it is kept true. Each view is a function of the state.

import { Act, action, acts, question } from "/act.js";
import { askForBoots, boots } from "/boots.js";
import { h, patch, visible } from "/dom.js";
import { events } from "/events.js";
import { askForFarms, farms } from "/farm.js";
import { compared, generations, under } from "/generations.js";
import { Log, logs } from "/logs.js";
import { overview } from "/overview.js";
import { cmd } from "/parts.js";
import { askForScopes, hasScopes, scopes } from "/scopes.js";
import { askForUsage, services } from "/services.js";
import { askForStorage, storage } from "/storage.js";
import { code, command, enter, follow, get, IS_DEVICE, mayOperate, open, watch } from "/wire.js";
import { askForWiring, wiring } from "/wiring.js";
import { clock, headline, shortId } from "/words.js";

const MOST_EVENTS = 500;
const MOST_ACTS = 5; // that are told of
const PATIENCE = 1500; // milliseconds: a hand-over from one agent to the next is no loss worth a word
const VIEWS = { "": ["Overview", overview], services: ["Services", services], wiring: ["Wiring", wiring], scopes: ["Scopes", scopes], storage: ["Storage", storage], boots: ["Boots", boots], generations: ["Generations", generations], events: ["What happened", events], logs: ["Logs", logs], farm: ["Farm", farms] };

const ASKS = { services: askForUsage, wiring: askForWiring, scopes: askForScopes, storage: askForStorage, boots: askForBoots, farm: askForFarms }; // views of what tells of no change

const state = { status: null, at: 0, heard: 0, lost: 0, broke: 0, refused: null, wrong: "", history: [], events: [], live: false, shown: "all", find: "", findLine: "", details: new Map(), chosen: 0, log: null, query: null, asking: null, asked: null, picked: new Map(), acts: [], most: MOST_EVENTS };
let streams = []; // of statuses and of events
let again = 0; // timer: the history is asked for once more
let due = false;
let view = "";
let scrolled = 0; // number of the generation that was asked for last

/** The machine's clock; it stands still while nobody answers. */
function now() {
  return state.status.now + ((state.lost || Date.now()) - state.at) / 1000;
}

function route() {
  const [, name = "", rest = ""] = location.hash.split("/");
  return [Object.hasOwn(VIEWS, name) ? name : "", decoded(rest)];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand: it names nothing
  }
}

function changed() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    render();
  });
}

function render() {
  const content = document.getElementById("content");
  const line = document.getElementById("line");
  document.documentElement.toggleAttribute("data-old", isOld());
  patchInto(line, connection());
  patchInto(document.getElementById("acts"), acts(state.acts));
  if (state.refused) return void patchInto(content, locked());
  if (!state.status) return;
  const [name, rest] = route();
  state.chosen = Number(rest) || 0;
  if (name === "logs") chooseLog(rest);
  patchInto(document.getElementById("ask"), question({ ...state, now: now() }, isOld()));
  const shown = VIEWS[name][1]({ ...state, asked: name === view ? state.asked : null, now: now() }); // not what another view has asked
  patchInto(content, name === "" ? [hero(), shown] : [h("h1.hidden-text", { "data-key": "title" }, VIEWS[name][0]), shown]);
  content.dataset.view = name || "overview";
  const place = document.getElementById("log-place");
  if (place && state.log && place.firstChild !== state.log.pane) place.replaceChildren(state.log.pane);
  if (name === "generations" && state.chosen && state.chosen !== scrolled) document.getElementById(`generation-${state.chosen}`)?.scrollIntoView();
  scrolled = name === "generations" && state.history.length ? state.chosen : scrolled;
  const { project, services: all, generation, version } = state.status;
  document.title = visible(`${isOld() ? "not connected – " : ""}${project || "dom0"}: ${name ? VIEWS[name][0] : headline(state.status, now()).title}`);
  document.getElementById("machine").textContent = visible(project || "dom0");
  document.getElementById("scopes-link").hidden = !hasScopes(state.status);
  document.getElementById("farm-link").hidden = !state.status.serves?.length && name !== "farm";
  document.getElementById("services-count").textContent = all.length || "";
  document.getElementById("generation-count").textContent = generation?.number ?? "";
  patchInto(document.getElementById("about"), [`dom0 ${version}`, h("br"), "image ", h("code", null, shortId(state.status.dom0_image) || "none"), h("br"), cmd("version"), h("br"), mayOperate() ? "may change this machine" : "only looks", h("br"), command("").trim() === "dom0" ? "" : command("").trim()]);
}

function patchInto(parent, children) {
  const fresh = h(parent.nodeName.toLowerCase(), null, children);
  for (const { name, value } of parent.attributes) fresh.setAttribute(name, value);
  patch(parent, fresh);
}

function hero() {
  const { is, title, rest } = headline(state.status, now());
  return h("section.hero", { "data-key": "hero", "aria-label": "State" },
    h("h1", null, h(`span.pulse.${is}`, { "aria-hidden": "true" }), title), h("p", null, rest, " ", cmd("status")), state.status.generation && under(state.status.generation, now()));
}

function locked() {
  if (IS_DEVICE) return unpaired();
  return h("section.locked", { "data-key": "locked" }, h("h1", null, "This address does not open the page any more"),
    h("p", null, "Each address of dom0 web works once, and only while that command runs. The next one is in its terminal; or run it again:"), h("p", null, h("code", null, "dom0 web")));
}

function unpaired() {
  return h("section.locked", { "data-key": "unpaired" }, h("h1", null, "This device is not paired"),
    h("p", null, "On the machine, or where you have a login to it, print a code. It works once and for five minutes. Compare the fingerprint that stands beside it with the one of the certificate in this browser before you type it here."),
    h("p", null, h("code", null, "dom0 web pair NAME")),
    h("p.acts", null, h("label", { for: "code" }, "Code "), h("input", { id: "code", autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: "20" }), " ", h("button.main", { type: "button", "data-do": "pair" }, "Pair")),
    h("p", { role: "status" }, state.wrong));
}

async function pair() {
  state.wrong = await open(document.getElementById("code").value);
  if (state.wrong) changed();
  else location.reload();
}

// The connection

function isOld() {
  return !state.refused && state.lost > 0 && Date.now() - state.broke > PATIENCE;
}

function connection() {
  if (!isOld()) return null;
  const since = clock(state.lost / 1000);
  return h("p.lost", { "data-key": "lost" }, h("b", null, state.status ? `Not connected since ${since}.` : "Not connected."), state.status ? " What is below was so then; it is asked for again and again." : " It is asked for again and again.");
}

function told(what, error) {
  if (what === "refused") {
    state.refused = error;
    leave();
  } else if (what === "lost") {
    if (!state.lost) {
      state.broke = Date.now();
      for (const stream of [streams[1], state.log?.stream]) stream?.again();
      setTimeout(changed, PATIENCE + 50);
    }
    for (const act of state.acts) act.lose(); // also where it was lost before, as in a tab that nobody has seen
    state.lost ||= state.heard || state.broke;
  } else {
    state.heard = Date.now();
    state.lost = 0;
  }
  changed();
}

function takeStatus(status) {
  const marks = (one) => JSON.stringify([one?.generation?.number, one?.generation?.outcome, one?.generation?.back_at, one?.generation?.trial_until, one?.last_good]);
  const before = state.status;
  state.status = status;
  state.at = Date.now();
  if (marks(before) !== marks(status)) readHistory();
  changed();
}

async function readHistory() {
  clearTimeout(again);
  try {
    state.history = await get("/v1/history");
    for (const key of state.details.keys()) if (key.startsWith("plan ")) state.details.delete(key);
    if (state.asking?.plan) load(state.asking.plan);
    for (const one of state.history.filter((one) => one.current || one.number === state.chosen)) load(compared(one, state.history, state.picked).what);
    changed();
  } catch {
    clearTimeout(again);
    if (streams.length) again = setTimeout(readHistory, 1000);
  }
}

async function load(what) {
  const [kind, number, before] = what.split(" ");
  const { asking } = state;
  if (state.details.get(what)?.said && kind === "differences") return;
  const at = now();
  try {
    state.details.set(what, { at, said: await (kind === "lead" ? get(asking.path, { ...asking.body, plan: true }) : get(`/v1/generations/${number}/${kind}${before ? `?before=${before}` : ""}`)) });
  } catch (error) {
    state.details.set(what, { error: [error.message, error.hint].filter(Boolean).join(". ") });
  }
  changed();
}

function arrive() {
  if (streams.length) return;
  const last = () => state.events.at(-1)?.seq ?? 0;
  const path = () => `/v1/events?${new URLSearchParams({ follow: "1", since: String(last()), ...(last() ? {} : { tail: String(MOST_EVENTS) }) })}`;
  const take = (fresh) => {
    state.events = [...state.events, ...fresh].slice(-MOST_EVENTS);
    changed();
  };
  const heard = (what, error) => {
    state.live = what === "live" || (what !== "lost" && state.live);
    if (error?.status === 400) state.events = []; // another journal: this machine was made anew
    changed();
  };
  streams = [watch(takeStatus, told), follow(path, take, heard)];
  if (state.status) readHistory();
}

function leave() {
  clearTimeout(again);
  for (const stream of streams) stream.stop();
  streams = [];
  if (!state.log?.isFound) { // that is not asked for any more
    state.log?.stream.stop();
    state.log = null;
  }
  state.live = false;
  stopAsking();
  if (state.heard && !state.lost) state.lost = state.broke = state.heard; // what is shown next is as old as that
}

function stopAsking() {
  state.asked?.stop();
  state.asked = null;
}

function chooseLog(wanted) {
  const there = state.status.services.filter((one) => one.container);
  const name = wanted || state.log?.container || (there.find((one) => one.started) ?? there[0])?.container; // what was never started has printed nothing
  if (name && state.log?.container !== name) openLog(name);
}

function openLog(name) {
  state.log?.stream.stop();
  state.log = new Log(name, changed, state.findLine, state.query);
}

function searchLog() {
  const [since, until] = ["log-since", "log-until"].map((id) => document.getElementById(id));
  if (!state.log) return;
  const half = [since, until].find((one) => !one.validity.valid); // typed
  if (half) {
    half.closest("details").open = true;
    return void half.reportValidity();
  }
  const seconds = ({ value }) => (value ? String(new Date(value).getTime() / 1000) : "");
  const query = { find: state.findLine, since: seconds(since), until: seconds(until) };
  state.query = Object.values(query).some(Boolean) ? query : null;
  openLog(state.log.container);
}

// What a person does

document.addEventListener("click", async (event) => {
  const target = event.target.closest("[data-copy],[data-filter],[data-do],[data-ask],[data-forget],#theme,.skip");
  if (!target) return;
  if (target.matches(".skip")) {
    event.preventDefault();
    document.getElementById("content").focus();
  } else if (target.id === "theme") {
    const root = document.documentElement;
    const dark = (root.dataset.theme ?? (matchMedia("(prefers-color-scheme:dark)").matches ? "dark" : "light")) === "dark";
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("dom0.theme", root.dataset.theme);
  } else if (target.dataset.copy) {
    const copied = await navigator.clipboard.writeText(target.dataset.copy).then(() => true, () => false);
    say(copied ? "Copied." : "The browser does not let this page copy.");
    target.toggleAttribute("data-copied", copied);
    setTimeout(() => target.removeAttribute("data-copied"), 1200);
  } else if (target.dataset.filter) {
    state.shown = target.dataset.filter;
  } else if (target.dataset.do === "to-end") {
    state.log?.toEnd();
  } else if (target.dataset.do === "search") {
    searchLog();
  } else if (target.dataset.do === "follow") {
    state.query = null;
    openLog(state.log.container);
  } else if (target.dataset.ask) {
    state.asking = action(target.dataset.ask);
    state.details.delete(state.asking.plan);
    render();
    document.getElementById("ask").showModal();
    if (state.asking.plan) await load(state.asking.plan);
  } else if (target.dataset.forget) {
    state.acts.splice(Number(target.dataset.forget), 1);
  } else if (target.dataset.do === "pair") {
    await pair();
  } else if (target.dataset.do === "leave") {
    document.getElementById("ask").close();
  } else if (target.dataset.do === "act" && state.asking) {
    state.acts = [...state.acts, new Act(state.asking, changed)].slice(-MOST_ACTS);
    document.getElementById("ask").close();
    scrollTo(0, 0);
  }
  changed();
});

document.addEventListener("input", (event) => {
  if (event.target.id === "find-event") state.find = event.target.value;
  if (event.target.id === "find-line") {
    state.findLine = event.target.value;
    state.log?.show(state.findLine);
  }
  changed();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  if (event.target.id === "code") pair();
  if (["find-line", "log-since", "log-until"].includes(event.target.id)) searchLog();
});

document.addEventListener("change", (event) => {
  if (event.target.dataset.pick) {
    const { pick } = event.target.dataset;
    state.picked.set(pick, event.target.value);
    if (pick.startsWith("differences ")) load(`${pick} ${event.target.value}`.trim());
    changed();
  }
  if (event.target.id === "log-of") location.hash = `#/logs/${encodeURIComponent(event.target.value)}`;
});

document.addEventListener("toggle", (event) => {
  if (event.target.open && event.target.dataset.load) load(event.target.dataset.load);
}, true);

document.getElementById("ask").addEventListener("close", ({ target }) => {
  if (target.open) return; // told late: something else is asked by now
  state.asking = null;
  changed();
});

function say(text) {
  document.getElementById("said").textContent = text;
}

function move() {
  const [name] = route();
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.getAttribute("href") === `#/${name}`;
    if (here) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    else link.removeAttribute("aria-current");
  }
  if (name !== "logs") {
    state.log?.stream.stop();
    state.log = null;
    state.query = null;
    state.findLine = "";
  }
  if (name === "generations" && state.status) readHistory();
  if (view !== name) {
    document.getElementById("ask").close(); // what is asked stands on what this view has heard
    stopAsking();
  }
  if (streams.length && ASKS[name]) state.asked ??= ASKS[name](changed);
  if (view !== name) {
    scrollTo(0, 0);
    scrolled = 0;
    say(VIEWS[name][0]);
  }
  view = name;
  changed();
}

addEventListener("hashchange", () => (code() ? location.reload() : move())); // an address that was pasted into this tab
setInterval(() => state.status && !document.hidden && changed(), 1000);

const theme = localStorage.getItem("dom0.theme");
if (theme) document.documentElement.dataset.theme = theme;
if (!(await enter())) state.refused = new Error("no session");
// A tab that nobody sees asks for nothing.
function look() {
  if (document.hidden) leave();
  else if (!state.refused) arrive();
  move();
}
document.addEventListener("visibilitychange", look);
look();
