// Farms whose servers run on this machine: their nodes, what those run, and what keeps them.

import { h } from "/dom.js";
import { age } from "/words.js";
import { card, copied, isOld, state, time } from "/parts.js";
import { Asked, get, quoted } from "/wire.js";

const EVERY = 2000; // milliseconds between two times that it is asked for
const SILENT = 15; // seconds after which a server is said to be so; it says a word every two
const STATES = { trying: ["◐", "busy"], good: ["●", "ok"], failed: ["✕", "bad"] };

export function askForFarms(changed) {
  return new Asked(() => get("/v1/farms"), EVERY, changed);
}

function node(one, now) {
  return h("tr", { "data-key": one.name },
    h("th", { scope: "row" }, one.name),
    h("td", { "data-title": "role" }, one.role),
    h("td", { "data-title": "revision" }, one.revision || "–"),
    h("td", { "data-title": "state" }, one.state in STATES ? state(STATES[one.state], one.state) : one.state),
    h("td", { "data-title": "base OS" }, one.os || "–"),
    h("td", { "data-title": "last word" }, time(one.last_seen, now), " ago"),
    h("td", { "data-title": "why not" }, one.why));
}

function farm(one, now) {
  const place = /^[\w./-]+$/.test(one.directory) ? one.directory : quoted(one.directory);
  const does = (words) => copied(`dom0 farm ${words} --dir ${place}`);
  const silent = now - one.heard;
  return card(one.farm, { sub: `${one.revision ? `revision ${one.revision}` : "no revision yet"}${one.os ? `, base OS ${one.os}` : ""}`, right: [does("status"), " ", does("tree")] },
    silent >= SILENT && h("p.more.bad", { role: "status" }, `Its server has said nothing for ${age(silent)}: this is as it was then.`),
    one.nodes.length ? h("table.wide", null,
      h("thead", null, h("tr", null, ["node", "role", "revision", "state", "base OS", "last word", "why not"].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", null, one.nodes.map((it) => node(it, now)))) : h("p.empty", null, "It has no node yet: ", does("nodes")),
    one.remarks.length > 0 && h("ul.plain", null, one.remarks.map((text) => h("li", null, text))),
    one.paused.map((role) => h("div.tools", { "data-key": `paused ${role}` }, h("h3", null, role, " is paused"), does(`resume ${role}`), does("rollback"))));
}

export function farms({ asked, now }) {
  const all = asked?.found;
  const old = isOld(asked);
  return h("div.column", null,
    (!all?.length || old) && card("Farm", { right: copied("dom0 farm serve") }, old, !all && !old && h("p.empty", null, "asking…"),
      all && !all.length && h("p.empty", null, "No server of a farm has said that it runs on this machine; one that does says so every two seconds.")),
    (all ?? []).map((one) => farm(one, now)));
}
