// Every container that should exist, with all that is known of it.

import { ask } from "/act.js";
import { h, keep } from "/dom.js";
import { card, cmd, label, phase, problems, since, time } from "/parts.js";
import { age, day, moment, shortId } from "/words.js";

const RUNS = ["ready", "starting", "unhealthy"];
const RESTS = ["stopped", "completed", "scheduled", "failed", "crash-loop"];

/** What can be done to a service: to all of its containers, so it stands beside the first one. */
function verbs(all) {
  const phases = all.filter((one) => one.container).map((one) => one.phase);
  return [...(phases.some((one) => RUNS.includes(one)) ? ["restart", "stop"] : []), ...(phases.some((one) => RESTS.includes(one)) ? ["start"] : [])];
}

function row(service, all, now, today) {
  const at = since(service);
  const may = all[0] === service ? verbs(all) : [];
  return keep("tr", `${service.service}-${service.number}`, [service, all.length, may.join(), age(now - at), today], () =>
    h("tr", null,
      h("th", { scope: "row" }, label(service, all.length > 1)),
      h("td", { "data-title": "state" }, phase(service), service.reason && h("small", null, service.reason)),
      h("td", { "data-title": "health" }, service.health === "none" ? h("span.mute", null, "no check") : service.health),
      h("td", { "data-title": "since" }, time(at, now), at ? h("small", null, `${service.finished ? "ended" : "started"} ${moment(at, now)}`) : null, service.next_run ? h("small", null, `next at ${moment(service.next_run, now)}`) : null),
      h("td", { "data-title": "ports" }, service.ports.map((port) => h("code", null, port))),
      h("td.n", { "data-title": "restarts" }, service.restarts || ""),
      h("td", { "data-title": "image" }, service.image, h("small", null, h("code", null, shortId(service.image_id)))),
      h("td", { "data-title": "container" }, service.container ? [h("code", null, service.container), h("small", null, h("a", { href: `#/logs/${encodeURIComponent(service.container)}` }, "logs"))] : h("span.mute", null, "none")),
      h("td", null, may.length > 0 && h("p.acts", null, may.map((verb) => ask(`${verb} ${service.service}`, `${verb[0].toUpperCase()}${verb.slice(1)}…`, `${verb} ${service.service}: what that would do`))))));
}

export function services({ status, now }) {
  const titles = ["service", "state", "health", "since", "ports of the host", "restarts", "image", "container", "do"];
  const today = day(now);
  const siblings = Map.groupBy(status.services, (one) => one.service);
  return h("div.column", null, problems(status, now),
    card("Services", { sub: `${status.services.length} containers`, right: cmd("status") },
      h("table.wide.fixed", null,
        h("thead", null, h("tr", null, titles.map((title) => h("th", { scope: "col" }, title)))),
        h("tbody", null, status.services.map((service) => row(service, siblings.get(service.service), now, today))))));
}
