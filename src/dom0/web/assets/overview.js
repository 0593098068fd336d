// One sentence, who started whom and why, and what there is to know at once.

import { h, keep } from "/dom.js";
import { backupJob, card, cmd, eventRow, label, outcome, phase, problems, since, state as sign, time } from "/parts.js";
import { age, day, shortId } from "/words.js";

// Those that make a container what it is; what was stopped and removed is the one before it, under the same name.
const STEPS = /^(create|start|restart|unpause|update)-container$/;

/** What follows from another event that is shown. */
const ASIDE = (event) => event.kind === "rename-container" || (event.kind === "start-container" && event.reason === "created") || event.kind === "agent-ended";

/** Why a container is as it is: what the agent says of it, else the last that happened to it; `about`: all of that. */
function why(service, about = []) {
  if (service.reason) return service.reason;
  let last = about.at(-1);
  if (last?.kind === "start-container" && last.reason === "created") last = about.findLast((event) => event.kind === "create-container") ?? last;
  if (!last) return service.phase === "data" ? "holds the home, never started" : "";
  const asked = last.actor?.startsWith("uid") ? `, asked for by ${last.actor}` : "";
  if (last.kind === "create-container" && last.reason === "it does not exist") return `new in generation ${last.generation}${asked}`;
  const [verb] = last.kind.split("-");
  const done = { create: "made anew", start: "started", restart: "started again", unpause: "goes on", update: "changed" }[verb];
  return `${done}${last.reason && last.reason !== "created" ? `: ${last.reason}` : ""}${asked}`;
}

function tree({ status, events, now }) {
  const steps = Map.groupBy(events.filter((event) => STEPS.test(event.kind)), (event) => event.subject.replace(/^[0-9a-f]{12}_/, ""));
  const today = day(now);
  const siblings = Map.groupBy(status.services, (one) => one.service);
  const leaf = (service, several, reason, isLast) =>
    h(`tr.leaf${isLast ? ".last" : ""}`, null,
      h("th", { scope: "row" }, h("span.guide", { "aria-hidden": "true" }), h("a", { href: `#/logs/${encodeURIComponent(service.container)}` }, label(service, several))),
      h("td", null, phase(service)),
      h("td.why", null, reason, service.restarts ? h("span.warn", null, ` restarted ${service.restarts} ${service.restarts === 1 ? "time" : "times"}`) : null),
      h("td.n", null, time(since(service), now)));
  const rows = status.services.map((service, index) => {
    const told = [siblings.get(service.service).length > 1, why(service, steps.get(service.container)), index === status.services.length - 1];
    return keep("tr", `${service.service}-${service.number}`, [service, ...told, age(now - since(service)), today], () => leaf(service, ...told));
  });
  return card("Who started whom", { sub: "and why each is as it is", right: [cmd("tree"), " ", cmd("status")] },
    h("table.tree", null,
      h("thead", null, h("tr", null, ["container", "state", "why"].map((title) => h("th", { scope: "col" }, title)), h("th.n", { scope: "col" }, "for"))),
      h("tbody", null,
        h("tr.root", { "data-key": "dom0" }, h("th", { scope: "row" }, "dom0"),
          h("td", null, h("span.state.ok", null, h("i", { "aria-hidden": "true" }, "●"), "runs")),
          h("td.why", null, `dom0 ${status.version}, from the image `, h("code", null, shortId(status.dom0_image))), h("td.n")),
        rows)));
}

function generations({ history, now }) {
  return card("Generations", { right: cmd("history") },
    h("ol.line", null, history.slice(0, 8).map((one) =>
      h("li", { "data-key": one.number }, h(`span.dot.${one.current ? "current" : one.outcome}`, { "aria-hidden": "true" }, one.number),
        h("div.head", null, h("a", { href: `#/generations/${one.number}` }, `Generation ${one.number}`), outcome(one), h("span.n", null, `${age(now - one.created)} ago`)),
        h("p", null, one.current && one.back_at ? `back: ${one.back_because}` : one.reason || one.cause)))),
    history.length > 8 && h("p.more", null, h("a", { href: "#/generations" }, `all ${history.length}`)));
}

function backups({ status, now }) {
  const all = status.backups ?? [];
  const [made, none] = [all.filter((one) => one.key), all.filter((one) => !one.key)];
  const last = (one) => {
    const { failed } = backupJob(one, status);
    return failed && h("p", null, sign(["✕", "bad"], "the last run failed"), h("small", null, ` ${failed} `), cmd(`logs ${one.service}`));
  };
  return all.length > 0 && card("Backups", { right: cmd("backup ls") },
    h("ul.plain", null,
      made.map((one) => h("li", { "data-key": one.volume }, one.volume, " ", h(one.last && one.complete ? "span.mute" : "span.warn", null, one.last ? `${age(now - one.last)} ago${one.complete ? "" : ", some files could not be read"}` : "not yet"), last(one))),
      none.length > 0 && h("li", { "data-key": "" }, h("span.mute", null, "in none: "), none.map((one) => one.volume).join(", "))));
}

function farm({ status: { farm: one, serves = [] } }) {
  if (!one && !serves.length) return null;
  const runs = one?.revision ? ["revision ", one.revision, " ", one.state === "failed" ? h("span.bad", null, "failed") : one.state] : "told of no revision yet";
  return card("Farm", { right: cmd("status") },
    h("ul.plain", null, serves.map((name) => h("li", { "data-key": `serves ${name}` }, h("a", { href: "#/farm" }, `the server of ${name}`), " runs here")),
      one && h("li", null, one.node ? [h("b", null, one.node), " of ", one.farm] : [sign(["◔", "busy"], "waits to be approved"), one.farm && ` as a node of ${one.farm}`], " ", h("small", null, one.server)),
      one?.node && h("li", null, "role ", one.role, ", ", runs), one?.reason && h("li.bad", null, one.reason)));
}

export function overview(state) {
  const { status, events } = state;
  const steps = status.steps.length + status.pulls.length > 0 && card("Under way", { right: cmd("status --watch") },
    h("ul.plain", null, status.steps.map((step) => h("li", null, step)),
      status.pulls.map((pull) => h("li", null, pull.image, " ", h("progress", { max: pull.size || 1, value: pull.have, "aria-label": `pulling ${pull.image}` }), pull.waits_for && h("span.mute", null, ` waits: ${pull.waits_for}`)))));
  const told = events.filter((event) => !ASIDE(event)).slice(-12).reverse();
  return h("div.columns", null,
    h("div.column", null, problems(status, state.now), steps, tree(state),
      card("What happened", { right: cmd("events --follow") },
        told.length ? h("ul.events", null, told.map((event) => eventRow(event))) : h("p.empty", null, "Nothing is in the journal yet."),
        events.length > told.length && h("p.more", null, h("a", { href: "#/events" }, "everything")))),
    h("div.column", null, generations(state), backups(state), farm(state)));
}
