// What the page can change. First it says what that would do and by which command; then it asks; then it says what the
// machine said. What was not heard to its end is called unknown.

import { h } from "/dom.js";
import { cmd, phase, state as sign } from "/parts.js";
import { clock, moment } from "/words.js";
import { change, mayOperate, Refused } from "/wire.js";

const MOST_LINES = 8; // of progress, in the page
const STARTED = ["good", "trial"]; // outcomes of a generation that runs
const UNDECIDED = ["pending", "trial"]; // of one that can be ended

/**
 * `plan`: number of the generation that the machine goes to. `holds`: whether it is still what would be done. `judge`: what one document of
 * the answer says of the end, or null.
 */
const ACTIONS = {
  rollback: (number) => ({
    title: `Go back to generation ${number}?`,
    does: `Go back to generation ${number}`,
    words: `rollback ${number}`,
    plan: Number(number),
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
    plan: Number(back),
    about: Number(back) ? "Data in volumes stays as it is." : "",
    path: "/v1/abort",
    body: { generation: Number(number) },
    holds: (one) => one?.number === Number(number) && UNDECIDED.includes(one.outcome) && one.goes_back_to === Number(back),
    judge: () => ({ is: "ok", text: `generation ${number} was ended` }),
  }),
};

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
  return { name, ...ACTIONS[name](...of) };
}

export function ask(text, title, label) {
  return h("button", { type: "button", "data-ask": text, "aria-label": label }, title);
}

function planned(found, number, now) {
  if (!found) return h("p.mute", null, "asking what that would do…");
  if (found.error) return h("p.bad", { role: "alert" }, found.error);
  return [
    h("p", null, found.list.length ? `Going back to generation ${number} would, as the machine was at ${moment(found.at, now)}:` : `Going back to generation ${number} would have changed nothing at ${moment(found.at, now)}.`),
    h("table", null, h("tbody", null, found.list.map((one) => h("tr", null, h(`td.${one.action}`, null, one.action), h("td.mute", null, one.kind), h("th", { scope: "row" }, one.name), h("td.mute", null, one.reason)))))];
}

/** What is asked, with what it would do. */
export function question({ asking, details, status, now }, isOld) {
  if (!asking) return null;
  const found = asking.plan ? details.get(`plan ${asking.plan}`) : { list: [] };
  const ready = found?.list && !isOld;
  const holds = isOld || !asking.holds || asking.holds(status.generation);
  return [
    h("h2", { id: "ask-title" }, asking.title),
    h("div.plan", null, asking.plan ? planned(found, asking.plan, now) : null,
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
    end?.is === "unknown" && h("p", null, "The connection ended before the answer came. Whether it was carried out, or a part of it, is not known here: look at ", h("a", { href: "#/generations" }, "Generations"), " and ", h("a", { href: "#/events" }, "What happened"), "."));
}

export function acts(all) {
  return all.map((act, index) => acted(act, index)).reverse();
}
