// Every container that should exist, with all that is known of it.

import { ask } from "/act.js";
import { h } from "/dom.js";
import { card, cmd, label, phase, problems, since, time } from "/parts.js";
import { moment, shortId } from "/words.js";

const RUNS = ["ready", "starting", "unhealthy"];
const RESTS = ["stopped", "completed", "scheduled", "failed", "crash-loop"];

/** What can be done to a service: to all of its containers, so it stands beside the first one. */
function acts(service, services) {
  const first = services.find((one) => one.service === service.service);
  const all = services.filter((one) => one.service === service.service && one.container);
  if (first !== service || !all.length) return null;
  const verbs = [...(all.some((one) => RUNS.includes(one.phase)) ? ["restart", "stop"] : []), ...(all.some((one) => RESTS.includes(one.phase)) ? ["start"] : [])];
  return verbs.length > 0 && h("p.acts", null, verbs.map((verb) => ask(`${verb} ${service.service}`, `${verb[0].toUpperCase()}${verb.slice(1)}…`, `${verb} ${service.service}: what that would do`)));
}

export function services({ status, now }) {
  const titles = ["service", "state", "health", "since", "ports of the host", "restarts", "image", "container", "do"];
  return h("div.column", null, problems(status, now),
    card("Services", { sub: `${status.services.length} containers`, right: cmd("status") },
      h("table.wide", null,
        h("thead", null, h("tr", null, titles.map((title) => h("th", { scope: "col" }, title)))),
        h("tbody", null, status.services.map((service) =>
          h("tr", { "data-key": `${service.service}-${service.number}` },
            h("th", { scope: "row" }, label(service, status.services)),
            h("td", { "data-title": "state" }, phase(service), service.reason && h("small", null, service.reason)),
            h("td", { "data-title": "health" }, service.health === "none" ? h("span.mute", null, "no check") : service.health),
            h("td", { "data-title": "since" }, time(since(service), now), since(service) ? h("small", null, `${service.finished ? "ended" : "started"} ${moment(since(service), now)}`) : null, service.next_run ? h("small", null, `next at ${moment(service.next_run, now)}`) : null),
            h("td", { "data-title": "ports" }, service.ports.map((port) => h("code", null, port))),
            h("td.n", { "data-title": "restarts" }, service.restarts || ""),
            h("td", { "data-title": "image" }, service.image, h("small", null, h("code", null, shortId(service.image_id)))),
            h("td", { "data-title": "container" }, service.container ? [h("code", null, service.container), h("small", null, h("a", { href: `#/logs/${encodeURIComponent(service.container)}` }, "logs"))] : h("span.mute", null, "none")),
            h("td", null, acts(service, status.services))))))));
}
