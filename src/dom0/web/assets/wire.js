// What the page asks, and whether it is still answered. The token goes in a header. It is this tab's alone; of a device
// that was paired it is the device's, and half of what it needs: the other half is a cookie that no script sees.

const TOKEN = "dom0.token";
const COMMAND = "dom0.command";
const OPERATES = "dom0.operates";
const REPEAT = 5; // seconds between two statuses when nothing changes
const ANSWER_WITHIN = 15_000; // milliseconds, of what is no stream
const SILENCE = 13_000; // milliseconds without any: nobody answers
const PAUSES = [200, 500, 1000, 2000, 4000]; // milliseconds between attempts
const STEADY = 5000; // milliseconds: only what ends sooner is asked for less and less often

/** Whether this page is looked at over the network, by a device that is paired or is to be. */
export const IS_DEVICE = location.protocol.endsWith("s:");
const kept = IS_DEVICE ? localStorage : sessionStorage;

export class Refused extends Error {
  constructor(status, said) {
    super(said.message ?? `status ${status}`);
    this.status = status;
    this.hint = said.hint ?? "";
  }
}

export function command(words) {
  return `${kept.getItem(COMMAND) ?? "dom0"} ${words}`;
}

/** As a shell takes it, whatever is in it. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Whether this page was opened to change the machine, too. */
export function mayOperate() {
  return kept.getItem(OPERATES) === "true";
}

/** What opens a session, where the address has it. A device's is typed: a link would lead past the fingerprint, and others could use up its tries. */
export function code() {
  return !IS_DEVICE && /^#([\w-]{20,})$/.exec(location.hash)?.[1];
}

/** Use up the code in the address, if there is one. Whether this tab may look. */
export async function enter() {
  if (code()) {
    const used = code();
    history.replaceState(null, "", "#/");
    await open(used);
  }
  return kept.getItem(TOKEN) !== null;
}

/** Use up a code. Why it was refused; "": it was not. */
export async function open(code) {
  const said = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ code }) };
  const answer = await fetch("/session", said).catch(() => null);
  if (!answer?.ok) return (await answer?.json().catch(() => null))?.message ?? "nobody answers";
  const opened = await answer.json();
  kept.setItem(TOKEN, opened.token);
  kept.setItem(COMMAND, opened.command);
  kept.setItem(OPERATES, String(opened.operates));
  return "";
}

async function ask(path, signal, body) {
  const headers = { Authorization: `Bearer ${kept.getItem(TOKEN)}` };
  const change = body && { method: "POST", body: JSON.stringify(body) };
  const answer = await fetch(path, { ...change, headers: change ? { ...headers, "Content-Type": "application/json" } : headers, signal });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

/** `body`: of what is asked by POST, and changes nothing. */
export async function get(path, body) {
  return (await ask(path, AbortSignal.timeout(ANSWER_WITHIN), body)).json();
}

/** Call `take` with the documents of a stream, those that have come; none at first. Returns when it ends; throws when it breaks. */
export async function read(path, signal, take, body) {
  const answer = await ask(path, signal, body);
  take([]);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return void (rest && take([JSON.parse(rest)])); // what is no stream has no line break
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (lines.length) take(lines.map((line) => JSON.parse(line)));
  }
}

/** Ask for a change, and call `take` with the documents of the answer as they come. Throws Refused, or else nobody knows. */
export function change(path, body, signal, take) {
  return read(path, signal, take, body);
}

/**
 * Follow a stream, again and again, until `stop()`. `path()` is asked before each attempt; `told(state)` gets
 * "live" when it is answered, "lost" when it broke or ended, "refused" with the error when that will not change.
 * `again()` begins anew: what is cut off without a word looks like one where nothing happens.
 */
export function follow(path, take, told, { silence = 0 } = {}) {
  let stopped = false;
  let failures = 0;
  let controller = new AbortController();
  (async () => {
    while (!stopped) {
      controller = new AbortController();
      let watchdog = 0;
      const asked = Date.now();
      const alive = () => {
        clearTimeout(watchdog);
        if (silence) watchdog = setTimeout(() => controller.abort(), silence);
        told("live");
      };
      try {
        if (silence) watchdog = setTimeout(() => controller.abort(), silence);
        await read(path(), controller.signal, (documents) => {
          if (stopped) return;
          alive();
          if (documents.length) take(documents);
        });
        if (!stopped) told("lost");
      } catch (error) {
        if (stopped) return;
        if (error instanceof Refused && error.status === 401) {
          told("refused", error);
          return;
        }
        told("lost", error);
      } finally {
        clearTimeout(watchdog);
        if (Date.now() - asked > STEADY) failures = 0;
      }
      if (!stopped) await new Promise((resume) => setTimeout(resume, PAUSES[Math.min(failures++, PAUSES.length - 1)]));
    }
  })();
  return {
    again: () => controller.abort(),
    stop: () => {
      stopped = true;
      controller.abort();
    },
  };
}

/** What `read()` finds, asked for again and again until `stop()`. `at`: when it was found, in milliseconds; `trouble`: why it is not found again. */
export class Asked {
  constructor(read, every, changed) {
    Object.assign(this, { found: null, at: 0, trouble: "", stopped: false });
    this.ask(read, every, changed);
  }

  async ask(read, every, changed) {
    while (!this.stopped) {
      try {
        Object.assign(this, { found: await read(), at: Date.now(), trouble: "" });
      } catch (error) {
        this.trouble = error.message;
      }
      changed();
      await new Promise((resume) => setTimeout(resume, every));
    }
  }

  stop() {
    this.stopped = true;
  }
}

/** Follow the status. Of the same services, each that is not different is the same object as before. */
export function watch(take, told) {
  let status;
  const of = (one) => `${one.service} ${one.number}`;
  const differ = (said) => {
    const fresh = new Map(said.services?.map((one) => [of(one), one]));
    return { ...status, ...said, services: status.services.map((one) => fresh.get(of(one)) ?? one) };
  };
  const path = () => `/v1/watch?${new URLSearchParams({ repeat: String(REPEAT), differences: "1" })}`;
  return follow(path, (all) => {
    for (const said of all) status = "project" in said ? said : differ(said);
    take(status);
  }, told, { silence: SILENCE });
}
