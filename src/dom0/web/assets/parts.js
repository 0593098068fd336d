// What several views are made of.

import { h, keep } from "/dom.js";
import { age, clock, moment, OUTCOMES, PHASES, sortOf } from "/words.js";
import { command } from "/wire.js";

/** A command of the terminal that shows or does the same; a click copies it. */
export function cmd(words) {
  return copied(command(words));
}

/** The same of any other program, typed on the machine that is shown. */
export function copied(whole) {
  return h("button.cmd", { type: "button", "data-copy": whole, title: "Copy this command", "aria-label": `Copy the command ${whole}` }, h("code", null, whole));
}

export function card(title, { sub, right, key, label } = {}, ...content) {
  return h("section.card", { "data-key": key ?? title, "aria-label": label ?? title },
    h("header", null, h("h2", null, title), sub && h("span.sub", null, sub), right && h("span.right", null, right)), ...content);
}

export function state([sign, kind], word) {
  return h(`span.state.${kind}`, null, h("i", { "aria-hidden": "true" }, sign), word);
}

export function phase(service) {
  return state(PHASES[service.phase] ?? ["?", "busy"], service.phase);
}

export function outcome(generation) {
  return state(OUTCOMES[generation.outcome] ?? ["?", "busy"], generation.outcome);
}

/** A container's name in the page: the service, and its number where there are several. */
export function label(service, several) {
  return [service.service, several && h("span.number", null, ` ${service.number}`)];
}

/** When it ended, or else when it started; 0: neither. */
export function since(service) {
  return service.finished || service.started;
}

export function time(seconds, now) {
  return seconds ? h("time", { datetime: new Date(seconds * 1000).toISOString(), title: moment(seconds, now) }, age(now - seconds)) : "";
}

/** One of several names, "" for none of them; what a person picks is in `picked`, by `what`. */
export function picker(what, names, chosen) {
  return keep("select", `pick ${what}`, [chosen, names.join("\n")], () => h("select", { "data-pick": what }, names.map((name) => h("option", { value: name, selected: name === chosen }, name || "none"))));
}

/** That what was asked for (wire.js: Asked) is not as it is now, where that is so. */
export function isOld(asked, what = "This is as it was") {
  return asked?.trouble ? h("p.more.bad", { role: "status" }, asked.at ? `${what} ${age((Date.now() - asked.at) / 1000)} ago: ${asked.trouble}` : asked.trouble) : null;
}

/** That what is told of containers and volumes is what was seen last, where that is so. */
export function isUnseen(status) {
  const blind = status.problems.find((problem) => problem.subject === "engine");
  return blind ? h("p.more.bad", { role: "status" }, `This is as it was seen last: ${blind.title}`) : null;
}

/** The job of a volume's backup, why its last run `failed`, and whether one is `under` way. */
export function backupJob({ service }, { services, problems: all }) {
  const job = services.find((it) => it.service === service);
  const failure = all.find((it) => it.code === "job-failed" && it.subject === `${service}-1`)?.title;
  const ended = job && ["failed", "crash-loop", "missing"].includes(job.phase);
  return { job, failed: failure ?? (ended ? job.reason || job.phase : ""), under: job && ["starting", "ready", "waiting"].includes(job.phase) };
}

export function problems(status, now) {
  if (!status.problems.length) return null;
  return card(status.problems.some((one) => one.severity === "error") ? "What is wrong" : "Worth knowing", { key: "problems", right: cmd("status") },
    h("ul.problems", null, status.problems.map((one) =>
      h("li", { "data-key": `${one.code} ${one.subject}` },
        h("div", null, h("b", null, state(one.severity === "error" ? ["✕", "bad"] : ["△", "warn"], one.severity), h("span", null, one.subject)), one.since ? h("span.mute", null, ` for ${age(now - one.since)}`) : null),
        h("p", null, one.title),
        one.hint && h("p.mute", null, one.hint)))));
}

export function eventRow(event) {
  return keep("li", event.seq, [event], () => eventItem(event));
}

function eventItem(event) {
  const sort = sortOf(event);
  const at = new Date(event.time * 1000);
  const kind = sort.trouble ? "bad" : sort.sign === "✓" ? "ok" : sort.person ? "person" : "quiet";
  const actor = event.actor && event.actor !== "dom0" ? `by ${event.actor}` : "";
  return h("li", null,
    h("time", { datetime: at.toISOString(), title: at.toLocaleString() }, clock(event.time)),
    h(`i.${kind}`, { "aria-hidden": "true" }, sort.sign),
    h("div", null, h("span", null, event.text, (event.count ?? 1) > 1 && h("span.mute", null, ` ×${event.count}`)),
      (event.reason || actor) && h("small", null, [event.reason, actor].filter(Boolean).join(" · "))));
}
