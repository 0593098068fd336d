// The journal: what was done, why and by whom, as it comes.

import { h } from "/dom.js";
import { card, cmd, eventRow } from "/parts.js";
import { day, sortOf } from "/words.js";

export const FILTERS = { all: "all", change: "changes", repair: "repairs", trouble: "trouble", person: "people" };

export function events({ events, shown, find, live, most }) {
  const wanted = events.filter((event) => (shown === "all" || sortOf(event)[shown]) && `${event.text} ${event.reason ?? ""} ${event.actor ?? ""}`.toLowerCase().includes(find.toLowerCase()));
  const days = Map.groupBy(wanted.toReversed(), (event) => day(event.time));
  return card("What happened", { sub: live ? "as it comes" : "not live", right: cmd("events --follow") },
    h("div.tools", null,
      h("div.choice", { role: "group", "aria-label": "Which events" }, Object.entries(FILTERS).map(([name, title]) => h("button", { type: "button", "data-filter": name, "aria-pressed": String(shown === name) }, title))),
      h("label", null, h("span.hidden-text", null, "Find in the events"), h("input", { type: "search", id: "find-event", placeholder: "Find", value: find })),
      h("span.mute", { role: "status" }, `${wanted.length} of ${events.length}`)),
    [...days].map(([title, list]) => h("div", { "data-key": title }, h("h3.day", null, title), h("ul.events.long", null, list.map((event) => eventRow(event))))),
    !wanted.length && h("p.empty", null, events.length ? "None of them is like that." : "Nothing is in the journal yet."),
    events.length >= most && h("p.more", null, `These are the last ${events.length}. All that are kept: `, cmd("events")));
}
