// Engine sockets of orchestrators: what each was granted and uses, and what it was refused.

import { h } from "/dom.js";
import { card, cmd, isOld, isUnseen, state, time } from "/parts.js";
import { Asked, get } from "/wire.js";
import { clock, moment, size } from "/words.js";

const EVERY = 5000; // milliseconds between two times that it is asked for

export function askForScopes(changed) {
  return new Asked(() => get("/v1/scopes"), EVERY, changed);
}

/** Whether a service of the project has a scope: its socket is served by one more container. */
export function hasScopes(status) {
  return status.services.some((one) => one.service.startsWith("dom0-socket-"));
}

const amount = (kind, value) => (kind === "memory" ? size(value) : String(value));

function budget(one) {
  return h("table.wide", { "aria-label": `What ${one.scope} was granted` },
    h("thead", null, h("tr", null, ["", "granted", "in use", "state"].map((title) => (title ? h("th", { scope: "col" }, title) : h("td"))))),
    h("tbody", null, one.budget.map(({ kind, granted, used }) => h("tr", { "data-key": kind },
      h("th", { scope: "row" }, kind),
      h("td", { "data-title": "granted" }, granted === null ? h("span.mute", null, "no limit") : amount(kind, granted)),
      h("td", { "data-title": "in use" }, used === null ? h("span.mute", null, "not counted") : amount(kind, used)),
      h("td", null, granted && used >= granted && state(["△", "warn"], "used up"))))));
}

function refusal(it, now) {
  return h("li", null, h("time", { datetime: new Date(it.at * 1000).toISOString(), title: moment(it.at, now) }, clock(it.at)), h("i.bad", { "aria-hidden": "true" }, "✕"),
    h("div", null, h("span", null, it.message, it.times > 1 && h("span.mute", null, ` ×${it.times}`)), h("small", null, h("code", null, `${it.method} ${it.path}`))));
}

function scope(one, now) {
  return card(one.scope, { sub: one.served ? ["served for ", time(one.since, now)] : "", right: cmd(`socket show ${one.scope}`) },
    !one.served && h("p.more.bad", null, "Nobody serves its socket."),
    budget(one),
    h("div.tools", null, h("h3", null, "Refused"), cmd(`socket log ${one.scope}`), h("span.mute", null, one.refused > one.refusals.length ? `${one.refused} requests, the last ones:` : one.refused ? "" : "nothing")),
    h("ul.events", null, one.refusals.toReversed().map((it) => refusal(it, now))));
}

export function scopes({ asked, status, now }) {
  const all = asked?.found;
  const old = [isOld(asked), isUnseen(status)].filter(Boolean);
  return h("div.column", null,
    (!all?.length || old.length > 0) && card("Scopes", { right: cmd("socket ls") }, old, !all && !old.length && h("p.empty", null, "asking…"),
      all && !all.length && h("p.empty", null, "No scope is served on this machine: nothing here has an Engine socket of its own.")),
    (all ?? []).map((one) => scope(one, now)));
}
