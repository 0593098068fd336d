// Every container that should exist, with all that is known of it, and what it uses while somebody looks.

import { ask } from "/act.js";
import { h, keep } from "/dom.js";
import { card, cmd, isOld, label, phase, problems, since, time } from "/parts.js";
import { Asked, get } from "/wire.js";
import { age, day, moment, shortId, size } from "/words.js";

const EVERY = 5000; // milliseconds between two looks at what is used: the Engine reads the control group of each container
const FIRST = 1000; // milliseconds between the first two: what a processor does takes two to tell
const IDLE = ["idle", "iowait"]; // modes of processors that do nothing
const RUNS = ["ready", "starting", "unhealthy"];
const RESTS = ["stopped", "completed", "scheduled", "failed", "crash-loop"];

/** What can be done to a service: to all of its containers, so it stands beside the first one. */
function verbs(all) {
  const phases = all.filter((one) => one.container).map((one) => one.phase);
  return [...(phases.some((one) => RUNS.includes(one)) ? ["restart", "stop"] : []), ...(phases.some((one) => RESTS.includes(one)) ? ["start"] : [])];
}

export function askForUsage(changed) {
  let before = null;
  return new Asked(async () => {
    if (!before) {
      before = await get("/v1/usage");
      await new Promise((resume) => setTimeout(resume, FIRST));
    }
    const then = before;
    before = null; // where this look fails the next one begins anew: a rate is of seconds
    before = await get("/v1/usage");
    return { ...before, percent: rates(then.containers, before.containers), busy: busy(then.machine, before.machine) };
  }, EVERY, changed);
}

/** Container ID -> percent of one processor; none of what started anew. */
function rates(before, now) {
  const both = Object.entries(now).map(([id, one]) => [id, one, before[id]]);
  return new Map(both.filter(([, one, then]) => then && one.read > then.read && one.processor >= then.processor)
    .map(([id, one, then]) => [id, (100 * (one.processor - then.processor)) / (one.read - then.read)]));
}

/** Percent of all processors together. */
function busy(before, now) {
  const spent = Object.entries(now.processors).map(([mode, at]) => [mode, at - (before.processors[mode] ?? 0)]);
  const sum = (all) => all.reduce((total, [, seconds]) => total + seconds, 0);
  return sum(spent) > 0 ? (100 * sum(spent.filter(([mode]) => !IDLE.includes(mode)))) / sum(spent) : 0;
}

/** Processor and memory of a container, in words: none of one that does not run, "–" where it is not known. */
function uses(service, usage) {
  if (!service.started || service.finished) return ["", ""];
  const [percent, now] = [usage?.percent.get(service.container_id), usage?.containers[service.container_id]];
  return [percent === undefined ? "–" : `${percent.toFixed(1)}%`, now ? size(now.memory) : "–"];
}

function machine({ machine: now, busy }) {
  return h("p.more", { "data-key": "machine" }, `The machine: ${busy.toFixed(0)}% of all processors, load ${now.load.toFixed(2)}, ${size(now.memory - now.memory_available)} of ${size(now.memory)} memory. A service's percentage is of one processor.`);
}

function row(service, all, [processor, memory], now, today) {
  const at = since(service);
  const may = all[0] === service ? verbs(all) : [];
  return keep("tr", `${service.service}-${service.number}`, [service, all.length, may.join(), processor, memory, age(now - at), today], () =>
    h("tr", null,
      h("th", { scope: "row" }, label(service, all.length > 1)),
      h("td", { "data-title": "state" }, phase(service), h("small", null, service.health === "none" ? "no health check" : service.health), service.reason && h("small", null, service.reason), service.restarts ? h("small.warn", null, `restarted ${service.restarts} ${service.restarts === 1 ? "time" : "times"}`) : null),
      h("td", { "data-title": "since" }, time(at, now), at ? h("small", null, `${service.finished ? "ended" : "started"} ${moment(at, now)}`) : null, service.next_run ? h("small", null, `next at ${moment(service.next_run, now)}`) : null),
      h("td.n", { "data-title": "uses" }, processor, memory && h("small", null, memory)),
      h("td", { "data-title": "ports" }, service.ports.map((port) => h("code", null, port))),
      h("td", { "data-title": "image" }, service.image, h("small", null, h("code", null, shortId(service.image_id)))),
      h("td", { "data-title": "container" }, service.container ? [h("code", null, service.container), h("small", null, h("a", { href: `#/logs/${encodeURIComponent(service.container)}` }, "logs"))] : h("span.mute", null, "none")),
      h("td", null, may.length > 0 && h("p.acts", null, may.map((verb) => ask(`${verb} ${service.service}`, `${verb[0].toUpperCase()}${verb.slice(1)}…`, `${verb} ${service.service}: what that would do`))))));
}

export function services({ status, asked, now }) {
  const titles = ["service", "state", "since", "uses", "ports of the host", "image", "container", "do"];
  const today = day(now);
  const siblings = Map.groupBy(status.services, (one) => one.service);
  return h("div.column", null, problems(status, now),
    card("Services", { sub: `${status.services.length} containers`, right: [cmd("status"), " ", cmd("top")] },
      isOld(asked, "Processor and memory are as they were"), asked?.found && machine(asked.found),
      h("table.wide.fixed", null,
        h("thead", null, h("tr", null, titles.map((title) => h(`th${title === "uses" ? ".n" : ""}`, { scope: "col" }, title)))),
        h("tbody", null, status.services.map((service) => row(service, siblings.get(service.service), uses(service, asked?.found), now, today))))));
}
