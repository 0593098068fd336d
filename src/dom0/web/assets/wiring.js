// Who connects to whom: ambassadors, where each leads, and which of its consumers take the shortcut.

import { ask } from "/act.js";
import { h, keep } from "/dom.js";
import { card, cmd, isOld, isUnseen, picker, state } from "/parts.js";
import { Asked, get } from "/wire.js";
import { becomes, clock, moment } from "/words.js";

const EVERY = 2000; // milliseconds between two times that all ambassadors are asked for
const FLOWS_EVERY = 10_000; // milliseconds, of connections: a process in the ambassador's container tells them
const MOST_DRAWN = 8; // consumers, and targets
const MOST_FLOWS = 200; // connections in the page
const MOST_RECEIPTS = 5;
const ROW = 46; // of the drawing

export function askForWiring(changed) {
  const heard = new Map(); // service -> what its ambassador has told
  return new Asked(async () => {
    const list = await get("/v1/ambassadors");
    for (const one of list) heard.set(one.service, await hear(one, heard.get(one.service)));
    return list.map((one) => ({ ...one, ...heard.get(one.service) }));
  }, EVERY, changed);
}

/** Its connections and receipts; `unknown`: why they are not known. Asked for when a receipt is new, or after a while. */
async function hear({ service, running, state }, before) {
  const now = count({ state });
  if (before && before.wasRunning === running && before.count === now && Date.now() - before.at < FLOWS_EVERY) return before;
  const told = { count: now, wasRunning: running, at: Date.now(), flows: [], receipts: before?.receipts ?? [], unknown: running ? "" : "it does not run" };
  if (!running) return told;
  const path = `/v1/ambassadors/${encodeURIComponent(service)}`;
  try {
    return { ...told, flows: await get(`${path}/flows`), receipts: await get(`${path}/history`) };
  } catch (error) {
    return { ...told, unknown: error.message };
  }
}

/** `[fd00::5]:6379` -> `fd00::5`. */
const host = (target) => target.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const many = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

const heading = (title) => h(`th${["connections", "sent", "received"].includes(title) ? ".n" : ""}`, { scope: "col" }, title);

/** How many receipts there are: another number, and where it leads has changed. */
const count = (one) => one.state?.receipts ?? 0;

/** How many connections; "?" where that was not told. */
const open = (one, flows) => (one.unknown ? "?" : String(flows.length));

/** By container, or by address where no container on its networks has it: its connections. */
function byClient(one) {
  return Map.groupBy(one.flows, ({ consumer, flow }) => consumer || one.addresses?.[flow.client.address] || flow.client.address);
}

/** Everybody who may connect, or does: the container or address, which way its connections take, and how many there are. */
function consumers(one) {
  const flows = byClient(one);
  const known = (one.shortcuts ?? []).map(({ consumer, listeners = [], reason = "" }) => ({ name: consumer, listeners, reason, open: flows.get(consumer) ?? [] }));
  const others = [...flows].filter(([name]) => !known.some((it) => it.name === name)).map(([name, open]) => ({ name, listeners: [], reason: "on no network of the ambassador", open }));
  return [...known, ...others];
}

function leadsTo(one, target) {
  const name = one.addresses?.[host(target)];
  return name ? [name, " ", h("small", null, h("code", null, target))] : h("code", null, target);
}

function listeners(one) {
  return h("table.wide", { "aria-label": `Where ${one.service} leads` },
    h("thead", null, h("tr", null, ["listens on", "leads to", "as it was asked for", "state", "connections"].map(heading))),
    h("tbody", null, (one.state?.listeners ?? []).map((it) => h("tr", { "data-key": it.listener },
      h("th", { scope: "row" }, h("code", null, it.listener)),
      h("td", { "data-title": "leads to" }, it.targets.length ? it.targets.map((target) => h("div", null, leadsTo(one, target))) : "nowhere"),
      h("td", { "data-title": "asked for" }, it.sources.map((source) => h("code", null, source)), it.rewired && h("small", null, "rewired")),
      h("td", { "data-title": "state" }, it.down ? state(["✕", "bad"], it.down === "hold" ? "new ones wait" : "refuses") : it.unhealthy?.length ? state(["▲", "warn"], `down: ${it.unhealthy.join(", ")}`) : state(["●", "ok"], "forwards"), h("small", null, `old ones: ${one.state.existing[it.listener] ?? "keep"}`)),
      h("td.n", { "data-title": "connections" }, open(one, one.flows.filter(({ flow }) => `${flow.listener.port}/${flow.protocol}` === it.listener)))))));
}

function way(it) {
  if (it.listeners.length) return [state(["⇢", "ok"], "by the shortcut"), it.reason && h("small", null, it.reason)];
  return [state(["→", "quiet"], "through the ambassador"), it.reason && h("small", null, it.reason)];
}

function clients(one) {
  const all = consumers(one);
  if (!all.length) return h("p.empty", null, "Nothing else is on its networks.");
  return h("table.wide", { "aria-label": `Who reaches ${one.service}` },
    h("thead", null, h("tr", null, ["who reaches it", "which way", "for", "connections"].map(heading))),
    h("tbody", null, all.map((it) => keep("tr", it.name, [it.listeners.join(), it.reason, open(one, it.open)], () => h("tr", null,
      h("th", { scope: "row" }, it.name),
      h("td", { "data-title": "way" }, way(it)),
      h("td", { "data-title": "for" }, it.listeners.map((listener) => h("code", null, listener))),
      h("td.n", { "data-title": "connections" }, open(one, it.open)))))));
}

function end({ address, port }) {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

function flows(one) {
  const titles = ["from", "to", "leads to", "way", "state", "sent", "received"];
  const shown = one.flows.slice(0, MOST_FLOWS);
  if (one.unknown) return h("p.bad", null, `Its connections are not known: ${one.unknown}`);
  return h("details", { "data-key": "flows" }, h("summary", null, many(one.flows.length, "connection")),
    h("table.wide", { "aria-label": `Connections of ${one.service}` }, h("thead", null, h("tr", null, titles.map(heading))),
      h("tbody", null, shown.map(({ flow, consumer }) => h("tr", null,
        h("th", { scope: "row" }, consumer || one.addresses?.[flow.client.address] || "", " ", h("code", null, end(flow.client))),
        h("td", { "data-title": "to" }, h("code", null, `${flow.listener.port}/${flow.protocol}`)),
        h("td", { "data-title": "leads to" }, leadsTo(one, end(flow.target))),
        h("td", { "data-title": "way" }, consumer ? "shortcut" : "ambassador"),
        h("td", { "data-title": "state" }, flow.state || "–"),
        h("td.n", { "data-title": "sent" }, String(flow.sent)),
        h("td.n", { "data-title": "received" }, String(flow.received)))))),
    one.flows.length > shown.length && h("p.more", null, `These are ${shown.length} of ${one.flows.length}.`));
}

// The drawing says nothing that the tables do not.

function box(x, y, width, kind, title, below) {
  return h(`g.box.${kind}`, { transform: `translate(${x} ${y})` }, h("rect", { width, height: 34, rx: 8 }),
    h("text", { x: 10, y: 15 }, title), h("text.below", { x: 10, y: 28 }, below));
}

function line(kind, fromX, fromY, toX, toY) {
  const middle = (fromX + toX) / 2;
  return h(`path.${kind}`, { d: `M${fromX} ${fromY}C${middle} ${fromY} ${middle} ${toY} ${toX} ${toY}` });
}

function drawing(one) {
  const targets = [...new Set((one.state?.listeners ?? []).flatMap((it) => it.targets))].slice(0, MOST_DRAWN);
  const all = consumers(one).filter((it) => it.open.length || !targets.some((target) => one.addresses?.[host(target)] === it.name));
  const shown = all.slice(0, MOST_DRAWN);
  const rows = Math.max(shown.length, targets.length, 1);
  const at = (index, count) => ((rows - count) / 2 + index) * ROW + 6;
  const middle = at(0, 1);
  return h("svg.wiring", { viewBox: `0 0 720 ${rows * ROW + 4}`, "aria-hidden": "true" },
    shown.map((it, index) => line(it.listeners.length ? "shortcut" : "way", 210, at(index, shown.length) + 17, 275, middle + 17)),
    targets.map((_, index) => line("way", 445, middle + 17, 510, at(index, targets.length) + 17)),
    shown.map((it, index) => box(2, at(index, shown.length), 208, "client", short(it.name, 28), `${it.listeners.length ? "shortcut, " : ""}${open(one, it.open)} open`)),
    box(275, middle, 170, "main", short(one.service, 22), (one.state?.listeners ?? []).map((it) => it.listener).slice(0, 3).join(", ")),
    targets.map((target, index) => box(510, at(index, targets.length), 208, "target", short(one.addresses?.[host(target)] ?? target, 28), target)));
}

function rewiring(one, all, picked) {
  const others = [...new Set(all.map((service) => service.service))].filter((name) => name !== one.service && !name.startsWith("dom0-") && name !== "home-volume");
  const sources = (one.state?.listeners ?? []).flatMap((it) => it.sources);
  const wanted = picked.get(`lead ${one.service}`);
  const chosen = others.includes(wanted) ? wanted : others.find((name) => !sources.some((source) => `${source}:`.startsWith(`service:${name}:`))) ?? others[0];
  if (!chosen) return null;
  const words = `ambassador rewire ${one.service} --to service:${chosen}`;
  return h("div.tools", null,
    h("label", null, "To lead it to ", picker(`lead ${one.service}`, others, chosen)),
    ask(`lead ${one.service} ${chosen} ${count(one)}`, "Lead it there…", `Lead ${one.service} to ${chosen}: what that would do`), h("span.mute", null, cmd(`${words} --plan`)));
}

function receipt(it, now) {
  return h("li", { "data-key": it.number }, h("time", { datetime: new Date(it.at * 1000).toISOString(), title: moment(it.at, now) }, clock(it.at)), h("i.quiet", { "aria-hidden": "true" }, "⇢"),
    h("div", null, `${it.listeners.join(", ")}: ${it.before.join(", ") || "nowhere"} → ${it.after.join(", ") || "nowhere"}`,
      h("small", null, [`${it.cause}${it.undone ? ", undone" : ""}`, `old connections: ${becomes(it)}`, `${it.switch_ms.toFixed(1)} ms`].join(" · "))));
}

function receipts(one, now) {
  const last = one.receipts.slice(-MOST_RECEIPTS).reverse();
  const undoable = one.receipts.findLast((it) => it.cause === "rewire" && !it.undone)?.number;
  if (!last.length) return null;
  return [h("div.tools", null, h("h3", null, "Rewired"), cmd(`ambassador history ${one.service}`),
    undoable && ask(`undo ${one.service} ${undoable} ${count(one)}`, `Undo rewire ${undoable}…`, `Undo rewire ${undoable} of ${one.service}: what that would do`)),
    h("ul.events", null, last.map((it) => receipt(it, now)))];
}

function ambassador(one, { status, now, picked }) {
  const planes = { kernel: "the kernel forwards", relay: "a relay forwards" };
  return card(one.service, { sub: one.state ? planes[one.state.plane] ?? one.state.plane : "", right: cmd(`ambassador show ${one.service}`) },
    !one.running && h("p.more.bad", null, "It does not run."),
    one.error && h("p.more.bad", null, `It cannot be asked: ${one.error}. It forwards as before; below is what it said last.`),
    drawing(one), listeners(one), clients(one),
    h("div.tools", null, cmd(`ambassador flows ${one.service}`), flows(one)),
    rewiring(one, status.services, picked), receipts(one, now));
}

export function wiring(seen) {
  const list = seen.asked?.found;
  const old = [isOld(seen.asked), isUnseen(seen.status)].filter(Boolean);
  return h("div.column", null,
    (!list?.length || old.length > 0) && card("Ambassadors", { right: cmd("ambassador ls") }, old, !list && !old.length && h("p.empty", null, "asking…"),
      list && !list.length && h("p.empty", null, "No service of this project is an ambassador: connections go where their names lead, and nothing of dom0 is in between.")),
    (list ?? []).map((one) => ambassador(one, seen)));
}
