// What the page can change. First it says what that would do and by which command; then it asks; then it says what the
// machine said. What was not heard to its end is called unknown.

import { h } from "/dom.js";
import { cmd, phase, state as sign } from "/parts.js";
import { becomes, clock, leads, moment } from "/words.js";
import { change, mayOperate, Refused } from "/wire.js";

const MOST_LINES = 8; // of progress, in the page
const STARTED = ["good", "trial"]; // outcomes of a generation that runs
const UNDECIDED = ["pending", "trial"]; // of one that can be ended

/**
 * `plan`: what says what it would do (app.js: load); `lead …` only a page is answered that may change the machine. `holds`: whether it is still
 * what would be done, of the generation and the ambassadors. `judge`: what one document of the answer says of the end, or null. `isPassedOn`: to a
 * container, so that the agent does not know what it did where that does not answer.
 */
export const ACTIONS = {
  rollback: (number) => ({
    title: `Go back to generation ${number}?`,
    does: `Go back to generation ${number}`,
    words: `rollback ${number}`,
    plan: `plan ${number}`,
    about: "Services run with the images and files of that generation again. Data in volumes stays as it is.",
    path: "/v1/rollback",
    body: { generation: Number(number) },
    judge: (said) => said.outcome && (STARTED.includes(said.outcome) ? { is: "ok", text: `generation ${said.generation} is ${said.outcome}` } : { is: "bad", text: `generation ${said.generation}: ${said.outcome}. ${(said.problems ?? []).map((one) => one.title).join(". ")}` }),
  }),
  confirm: (number) => ({
    title: `Keep generation ${number}?`,
    does: `Keep generation ${number}`,
    words: "confirm",
    about: "It is on trial, and does not go back by itself any more then.",
    path: "/v1/confirm",
    body: { generation: Number(number) },
    holds: (one) => one?.number === Number(number) && one.trial_until > 0,
    judge: () => ({ is: "ok", text: `generation ${number} is kept` }),
  }),
  abort: (number, back) => ({
    title: `End generation ${number}?`,
    does: Number(back) ? `End it, and go back to generation ${back}` : "End it",
    words: "abort",
    plan: Number(back) ? `plan ${back}` : "",
    about: Number(back) ? "Data in volumes stays as it is." : "",
    path: "/v1/abort",
    body: { generation: Number(number) },
    holds: (one) => one?.number === Number(number) && UNDECIDED.includes(one.outcome) && one.goes_back_to === Number(back),
    judge: () => ({ is: "ok", text: `generation ${number} was ended` }),
  }),
  lead: (service, to, receipts) => ({
    title: `Lead ${service} to ${to}?`,
    does: `Lead ${service} to ${to}`,
    words: `ambassador rewire ${service} --to service:${to}`,
    plan: mayOperate() ? `lead ${service} ${to}` : "",
    about: "It can be undone, by its receipt in Wiring.",
    path: `/v1/ambassadors/${encodeURIComponent(service)}/lead`,
    body: { service: to },
    isPassedOn: true,
    holds: (_, all) => isAt(all, service, receipts),
    judge: switched,
  }),
  undo: (service, number, receipts) => ({
    title: `Undo rewire ${number} of ${service}?`,
    does: `Undo rewire ${number}`,
    words: `ambassador undo ${service}`,
    receipt: (all) => knows(all, service)?.receipts.find((one) => one.number === Number(number)),
    about: "What is done with connections that were made since, the settings of the ambassador say.",
    path: `/v1/ambassadors/${encodeURIComponent(service)}/undo`,
    body: { receipt: Number(number) },
    isPassedOn: true,
    holds: (_, all) => isAt(all, service, receipts),
    judge: switched,
  }),
  backup: (service, key) => ({
    title: `Back up ${key} now?`,
    does: `Back up ${key}`,
    words: `backup now ${key}`,
    service,
    about: "Services that its settings stop are stopped while it runs.",
    path: `/v1/services/${encodeURIComponent(service)}/start`,
    body: {},
    judge: () => ({ is: "ok", text: `the backup of ${key} has begun: Storage says what comes of it` }),
  }),
};

const knows = (all, service) => Array.isArray(all) ? all.find((one) => one.service === service) : undefined;

/** Whether nothing was rewired since there were so many receipts. */
function isAt(all, service, receipts) {
  const one = knows(all, service);
  return Boolean(one) && (one.state?.receipts ?? 0) === Number(receipts);
}

function switched({ receipt, refused = [] }) {
  return { is: "ok", text: [`receipt ${receipt.number}: ${leads(receipt)}; ${becomes(receipt)}`, ...refused.map((one) => `no shortcut for ${one}`)].join(". ") };
}

const VERBS = {
  start: ["Start", "was started", ""],
  stop: ["Stop", "was stopped", "It stays stopped, also over a restart of the machine, until it is started again. Its hooks for that run first."],
  restart: ["Restart", "was restarted", "The same containers end and start again, after their hooks for that. Connections to them are cut."],
};

for (const [verb, [title, done, about]] of Object.entries(VERBS)) {
  ACTIONS[verb] = (service) => ({
    title: `${title} ${service}?`,
    does: `${title} ${service}`,
    words: `${verb} ${service}`,
    service,
    about,
    path: `/v1/services/${encodeURIComponent(service)}/${verb}`,
    body: {},
    judge: (said) => ({ is: "ok", text: `${service} ${done}: ${said.map((one) => one.container).join(", ")}` }),
  });
}

/** `rollback 3`, `abort 4 3` -> what it is. */
export function action(text) {
  const [name, ...of] = text.split(" ");
  return { name, of: of[0], ...ACTIONS[name](...of) };
}

export function ask(text, title, label) {
  return h("button", { type: "button", "data-ask": text, "aria-label": label }, title);
}

function planned(found, what, now) {
  const [kind, number, to] = what.split(" ");
  if (!found) return h("p.mute", null, "asking what that would do…");
  if (found.error) return h("p.bad", { role: "alert" }, found.error);
  if (kind === "lead") return [h("p", null, cmd(`ambassador rewire ${number} --to service:${to} --plan`)), h("p", null, `New connections: ${leads(found.said.receipt)}.`), h("p", null, `Those that were open at ${moment(found.at, now)}: ${becomes(found.said.receipt)}.`)];
  return [
    h("p", null, cmd(`rollback --plan ${number}`)),
    h("p", null, found.said.length ? `Going back to generation ${number} would, as the machine was at ${moment(found.at, now)}:` : `Going back to generation ${number} would have changed nothing at ${moment(found.at, now)}.`),
    h("table", null, h("tbody", null, found.said.map((one) => h("tr", null, h(`td.${one.action}`, null, one.action), h("td.mute", null, one.kind), h("th", { scope: "row" }, one.name), h("td.mute", null, one.reason)))))];
}

/** What is asked, with what it would do. */
export function question({ asking, asked, details, status, now }, isOld) {
  if (!asking) return null;
  const found = asking.plan ? details.get(asking.plan) : { said: [] };
  const unseen = asking.isPassedOn && !asked?.found; // ambassadors were not heard yet: neither ready nor changed
  const ready = found?.said && !isOld && !unseen;
  const holds = isOld || unseen || !asking.holds || asking.holds(status.generation, asked?.found);
  const receipt = asking.receipt?.(asked?.found);
  return [
    h("h2", { id: "ask-title" }, asking.title),
    h("div.plan", null, asking.plan ? planned(found, asking.plan, now) : null,
      receipt && [h("p", null, `It was: ${leads(receipt)}. New connections go again where they went before.`), h("p", null, cmd(`ambassador history ${asking.of}`))],
      asking.service && h("p", null, cmd("status")),
      asking.service && h("table", null, h("tbody", null, status.services.filter((one) => one.service === asking.service && one.container).map((one) => h("tr", null, h(`td.${asking.name}`, null, asking.name), h("td.mute", null, "container"), h("th", { scope: "row" }, one.container), h("td", null, phase(one)))))),
      asking.about && h("p", null, asking.about)),
    h("p.mute", null, mayOperate() ? "The same in a terminal:" : ["This page may only look. This does it, or open the page with ", h("code", null, "dom0 web --operate"), ":"]),
    h("p", null, cmd(asking.words)),
    isOld && h("p.bad", null, "Not connected: nothing can be asked for now."),
    !holds && h("p.bad", { role: "alert" }, "The machine has changed meanwhile: this is not asked any more."),
    h("p.acts", null, h("button", { type: "button", "data-do": "leave", autofocus: true }, mayOperate() ? "Leave it as it is" : "Close"),
      mayOperate() && holds && h("button.main", { type: "button", "data-do": "act", disabled: !ready }, asking.does))];
}

/** One that was asked for; `changed` is called when more is known of it. */
export class Act {
  constructor(asked, changed) {
    this.asked = asked;
    this.at = Date.now();
    this.lines = [];
    this.end = null;
    this.controller = new AbortController();
    this.changed = changed;
    this.done = this.follow();
  }

  async follow() {
    let end = null;
    try {
      await change(this.asked.path, this.asked.body, this.controller.signal, (documents) => {
        for (const said of documents) {
          if (said.text) this.lines = [...this.lines, said.text].slice(-MOST_LINES);
          end = this.asked.judge(said) || end;
        }
        this.changed();
      });
    } catch (error) {
      end ??= !(error instanceof Refused) || error.status === 502 ? null
        : error.status === 503 || (error.status === 500 && this.asked.isPassedOn) ? { is: "unknown", text: `${error.message}. ${error.hint}` }
        : error.status === 500 ? { is: "bad", text: `it failed: ${error.message}. ${error.hint}` }
          : { is: "bad", text: `refused, nothing was changed: ${error.message}. ${error.hint}` };
    }
    this.end = end ?? { is: "unknown" };
    this.changed();
  }

  /** Nobody answers any more. */
  lose() {
    if (!this.end) this.controller.abort();
  }
}

const SIGNS = { ok: ["✓", "ok"], bad: ["✕", "bad"], unknown: ["?", "warn"] };
const WORDS = { ok: "done", bad: "not done", unknown: "unknown" };

function acted(act, index) {
  const { end } = act;
  return h("section.act", { "data-key": `act-${act.at}`, "aria-label": `What became of dom0 ${act.asked.words}` },
    h("p", null, sign(end ? SIGNS[end.is] : ["◐", "busy"], end ? WORDS[end.is] : "under way"), " ", h("code", null, `dom0 ${act.asked.words}`), h("span.mute", null, ` asked for at ${clock(act.at / 1000)}`),
      end && h("button", { type: "button", "data-forget": index, "aria-label": `Take away what became of dom0 ${act.asked.words}` }, "OK")),
    act.lines.length && !end ? h("ul.mute", null, act.lines.map((line) => h("li", null, line))) : null,
    end?.text && h(`p.${end.is}`, null, end.text),
    end?.is === "unknown" && h("p", null, end.text ? null : "No answer came. ", "Whether it was carried out, or a part of it, is not known here: look at ", h("a", { href: "#/generations" }, "Generations"), ", ", h("a", { href: "#/wiring" }, "Wiring"), " and ", h("a", { href: "#/events" }, "What happened"), "."));
}

export function acts(all) {
  return all.map((act, index) => acted(act, index)).reverse();
}
