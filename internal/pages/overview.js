"use strict";
// All that comes from messages and servers goes in as text nodes: there is no way for it to
// become markup.
function h(tag, attributes, ...children) {
  const svg = ["svg", "rect", "line"].includes(tag);
  const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== false) e.setAttribute(name, value);
  }
  e.append(...children.flat(9).filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

// morph makes old like fresh and keeps what is the same, so that a link keeps the focus and a
// text its selection.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const a of [...old.attributes]) if (!fresh.hasAttribute(a.name)) old.removeAttribute(a.name);
  for (const a of fresh.attributes) if (old.getAttribute(a.name) !== a.value) old.setAttribute(a.name, a.value);
  const had = [...old.childNodes], wanted = [...fresh.childNodes];
  wanted.forEach((child, i) => had[i] ? morph(had[i], child) : old.append(child));
  had.slice(wanted.length).forEach((child) => child.remove());
}

const put = (id, ...children) => {
  const old = document.getElementById(id), fresh = old.cloneNode(false);
  fresh.append(...children.flat(9).filter(Boolean));
  morph(old, fresh);
};

const number = (n) => n.toLocaleString("en");
const rate = (n) => n >= 100 ? number(Math.round(n)) : n === 0 ? "0" : n.toFixed(1);
const mailerName = (name) => name || "default";

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return s + " s";
  if (s < 7200) return Math.floor(s / 60) + " min";
  if (s < 172800) return Math.floor(s / 3600) + " h";
  return Math.floor(s / 86400) + " days";
}

let now = 0; // the worker's clock
const since = (time) => (now - Date.parse(time)) / 1000;
const ago = (time) => h("time", { datetime: time, title: new Date(time).toLocaleString() }, span(since(time)) + " ago");
const fact = (name, value, bad) => h("div", {}, h("dt", {}, name), h("dd", { class: bad && "bad" }, value));

const words = {
  ok: (s) => s.rate > 0 ? ["delivering", ""] : ["ready", "idle"],
  held: () => ["held", "warn"],
  redis: () => ["no Redis", "bad"],
  ending: () => ["ending", "warn"],
};

function notices(s) {
  const list = [];
  if (s.state === "ending") {
    list.push(h("p", { class: "notice" }, h("strong", {}, "This worker is ending. "), "It takes nothing new and finishes what is on the wire."));
  }
  if (s.redis_refuses) {
    list.push(h("p", { class: "notice bad" }, h("strong", {}, "Redis takes no mail and gives none out. "), s.redis_refuses));
  }
  if (s.redis) {
    list.push(h("p", { class: "notice bad" }, h("strong", {}, "Redis does not answer. "), s.redis, ". The queues below are as they were last seen."));
  }
  for (const line of s.secrets_wrong || []) {
    list.push(h("p", { class: "notice" }, h("strong", {}, "A secret that was replaced cannot be used. "), line));
  }
  for (const p of s.pauses || []) {
    const what = p.mailing ? `The mailing ${p.mailing}` : p.queue ? `The queue ${p.queue}${p.mailer ? " of mailer " + p.mailer : ""}` : `The mailer ${p.mailer}`;
    list.push(h("p", { class: "notice" }, h("strong", {}, `${what} is paused`), ` since ${span(since(p.at))}, by ${p.by}${p.reason ? ": " + p.reason : ""}. `,
      h("a", { href: "/pauses" }, "All that is paused")));
  }
  for (const m of s.mailers) {
    if (m.override) {
      list.push(h("p", { class: "notice" }, h("strong", {}, `No mail of the mailer ${mailerName(m.name)} goes to its recipients. `),
        `All of it goes to ${m.override.join(", ")} (EMAIL_OVERRIDE_RECIPIENTS).`));
    }
    if (m.only) {
      list.push(h("p", { class: "notice" }, h("strong", {}, `Not everybody gets mail of the mailer ${mailerName(m.name)}. `),
        `Only ${m.only.join(", ")} may; whoever else a message is for becomes a dead letter (EMAIL_ALLOWED_RECIPIENTS).`));
    }
  }
  for (const m of s.mailers) {
    if (!m.held_since) continue;
    list.push(h("p", { class: "notice" }, h("strong", {}, `The relay of ${mailerName(m.name)} has taken no mail for ${span(since(m.held_since))}. `),
      "Mail waits, no try is spent, and the relay is probed by itself: ", m.held_why));
  }
  for (const m of s.mailers) {
    if (!m.passed_over || m.held_since) continue;
    const serve = m.members.filter((one) => one.serves).map((one) => one.name).join(", ");
    const away = m.members.filter((one) => one.why).map((one) => `${one.name}: ${one.why}`).join("; ");
    list.push(h("p", { class: "notice" }, h("strong", {}, `${mailerName(m.name)} sends with ${serve || "nobody"} for ${span(since(m.members_since))}. `), away));
  }
  return list;
}

function chart(s) {
  const sum = s.chart.sent.map((n, i) => n + s.chart.failed[i]);
  const peak = Math.max(...sum), top = Math.max(peak, 1), n = sum.length;
  const bars = [];
  for (let i = 0; i < n; i++) {
    const sent = s.chart.sent[i] / top * 96, failed = s.chart.failed[i] / top * 96;
    if (sent > 0) bars.push(h("rect", { x: i * 10 + 1, width: 8, y: 100 - sent, height: sent }));
    if (failed > 0) bars.push(h("rect", { class: "failed", x: i * 10 + 1, width: 8, y: 100 - sent - failed, height: failed }));
  }
  const label = `Mails a second in the last minute: at most ${number(peak)}`;
  return h("div", { class: "chart" },
    h("svg", { viewBox: `0 0 ${n * 10} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label },
      h("line", { x1: 0, x2: n * 10, y1: 99.6, y2: 99.6 }), bars),
    h("p", { class: "soft" }, h("span", {}, "a minute ago"), h("span", {}, `peak ${number(peak)}/s`), h("span", {}, "now")));
}

// days are the last days as bars, with what was sent in each.
function days(list) {
  const top = Math.max(...list.map((d) => d.sent), 1);
  const name = (d) => new Date(d.date + "T00:00:00Z").toLocaleDateString("en", { weekday: "short", timeZone: "UTC" });
  const short = (n) => n >= 1e6 ? (n / 1e6).toFixed(n >= 1e7 ? 0 : 1) + "M" : n >= 1e4 ? Math.round(n / 1e3) + "k" : number(n);
  return h("ol", { class: "days", "aria-label": "Sent in the last days" }, list.map((d, i) => {
    const failed = d.dead > 0 && ` · ${number(d.dead)} dead`;
    return h("li", { title: `${d.date}: ${number(d.sent)} sent, ${number(d.retried)} tried again, ${number(d.dead)} dead letters, ${number(d.refused)} recipients refused` },
      h("span", { class: "n" }, short(d.sent)),
      h("svg", { viewBox: "0 0 10 100", preserveAspectRatio: "none", "aria-hidden": "true" }, h("rect", { x: 0, width: 10, y: 100 - Math.max(d.sent / top * 96, d.sent ? 2 : 0.6), height: 100 })),
      h("span", { class: "soft" }, i === list.length - 1 ? "today" : name(d), failed && h("span", { class: "bad" }, failed)));
  }));
}

// fleet is what all workers do together.
function fleet(f) {
  const today = f.days[f.days.length - 1] || { sent: 0, retried: 0, dead: 0, refused: 0 };
  const week = f.days.reduce((sum, d) => sum + d.sent, 0);
  return h("section", { class: "card flow", "aria-label": "All workers" },
    h("div", {}, h("p", { class: "big" }, rate(f.rate)), h("p", { class: "soft" }, `mails a second, ${f.workers.length === 1 ? "one worker" : number(f.workers.length) + " workers"}`)),
    days(f.days),
    h("dl", { class: "facts" },
      fact("sent today, UTC", number(today.sent)),
      fact("tried again today", number(today.retried)),
      fact("recipients refused today", number(today.refused), today.refused > 0),
      fact("dead letters today", number(today.dead), today.dead > 0),
      fact(`sent in ${f.days.length} days`, number(week))));
}

function workers(f) {
  if (f.workers.length === 0) return h("p", { class: "card empty" }, "No worker has said in the last 20 seconds that it lives.");
  const cell = (label, ...shown) => h("td", { "data-label": label }, ...shown);
  return h("div", { class: "card table" }, h("table", { class: "workers" },
    h("caption", { class: "hidden" }, "The workers that live"),
    h("thead", {}, h("tr", {}, ["worker", "version", "runs for", "mails/s", "sent", "relays"].map((c) => h("th", { scope: "col" }, c)))),
    h("tbody", {}, f.workers.map((w) => h("tr", {},
      h("th", { scope: "row" }, `${w.host}, process ${w.pid}`, w.this && [" ", h("span", { class: "chip idle" }, "this one")]),
      cell("version", w.version.split(" ")[0] || "–"), cell("runs for", span(since(w.started))), cell("mails/s", rate(w.rate)), cell("sent", number(w.sent)),
      cell("relays", w.held ? h("span", { class: "chip warn" }, "held: " + w.held.join(", ")) : "ok"))))));
}

function flow(s) {
  const all = s.all;
  return h("section", { class: "card flow", "aria-label": "Flow of this worker" },
    h("div", {}, h("p", { class: "big" }, rate(s.rate)), h("p", { class: "soft" }, "mails a second")),
    chart(s),
    h("dl", { class: "facts" },
      fact("sent", number(all.sent)),
      fact("tried again", number(all.retried)),
      fact("recipients refused", number(all.refused), all.refused > 0),
      fact("dead letters", number(all.dead), all.dead > 0),
      fact("runs for", span(since(s.worker.started)))));
}

// token is what is known of the OAuth 2 token that a mailer logs in with.
function token(m) {
  if (!m.token_at) return null;
  const left = m.token_end ? -since(m.token_end) : 0;
  const state = left > 0 ? `OAuth 2 token: good for ${span(left)}` : m.token_error ? "OAuth 2: no token" : m.token_end ? "OAuth 2 token: has ended, replaced at the next login" : "OAuth 2 token: good until it is refused";
  return h("p", { class: "why" }, state, m.token_error && [". ", ago(m.token_at), ": ", m.token_error]);
}

// members are the mailers that one sends with: which of them serve, and why the others do not.
function members(m) {
  return h("ul", { class: "members", "aria-label": `What ${mailerName(m.name)} sends with` }, m.members.map((one) => h("li", {},
    h("span", { class: "chip " + (one.why ? "warn" : one.serves ? "" : "idle") }, one.why ? "passed over" : one.serves ? "serves" : "in reserve"), " ",
    one.name, m.weighted && `, weight ${number(one.weight)}`, one.why && h("span", { class: "soft" }, ": " + one.why))));
}

// limits says what all workers together may send to a mailer's relay.
function limits(l) {
  const parts = [
    l.messages && l.messages,
    l.recipients && `recipients ${l.recipients}`,
    l.domains && `by domain ${l.domains}`,
    l.connections && `${number(l.leased || 0)} of ${number(l.connections)} connections here`,
  ].filter(Boolean);
  const slower = l.factor < 1 ? ` The relay wants less: now ${number(Math.round(l.factor * 100))} % of that.` : "";
  return `Limits of all workers: ${parts.join("; ")}.${slower}`;
}

function mailer(m) {
  const known = m.opened > 0 || m.flow.sent === 0;
  const chip = m.held_since ? ["held " + span(since(m.held_since)), "warn"] : m.rate > 0 ? ["delivering", ""] : ["ready", "idle"];
  return h("article", { class: "card" + (m.held_since ? " held" : "") },
    h("div", { class: "top" }, h("h3", {}, mailerName(m.name)), h("span", { class: "chip " + chip[1] }, chip[0])),
    h("dl", { class: "facts" },
      fact("mails/s", rate(m.rate)),
      !m.members && fact("open", known ? number(m.open) + (m.grown ? " of " + number(m.grown) : "") : "–"),
      !m.members && fact("last batch", m.last_batch ? number(m.last_batch) : "–"),
      fact("sent", number(m.flow.sent))),
    m.members && members(m),
    m.allowed && h("p", { class: "why" }, `The relay allows ${number(m.allowed)} of ${number(m.wanted)} connections at once.`),
    m.carries && h("p", { class: "why" }, m.carries === 1 ? "The relay takes one message over each connection."
      : `The relay takes ${number(m.carries)} messages over one connection, which is then replaced.`),
    token(m),
    m.signs && h("p", { class: "why" }, "Signed (DKIM) by " + m.signs.join(", ") + "."),
    m.limits && h("p", { class: "why" }, limits(m.limits)),
    m.held_since ? h("p", { class: "why" }, m.held_why)
      : m.last_error && h("p", { class: "why" }, ago(m.error_at), ": ", m.last_error));
}

function cells(q, extra) {
  const cell = (label, n, text, link, bad) => {
    const shown = text === undefined ? number(n) : text;
    return h("td", { "data-label": label, class: n === 0 ? "none" : bad && "bad" }, link && n > 0 ? h("a", { href: link }, shown) : shown);
  };
  return [
    cell("waiting", q.waiting),
    cell("oldest", q.oldest, q.waiting ? span(q.oldest) : "–"),
    cell("in hand", q.in_hand),
    extra ? cell("mails/s here", q.rate, rate(q.rate)) : cell("mails/s here", 0, ""),
    cell("scheduled", q.scheduled),
    cell("retry", q.retry, undefined, "/retries?" + q.filter),
    cell("dead", q.dead, undefined, "/dead?" + q.filter, true),
  ];
}

function queue(q) {
  const name = q.mailer ? `${q.name} of ${q.mailer}` : q.name;
  const first = q.parts[0];
  const notes = [];
  if (q.paused) notes.push(" ", h("span", { class: "chip warn" }, "paused"));
  if (!q.served) notes.push(" ", h("span", { class: "chip idle" }, "not taken by this worker"));
  if (q.unserved) notes.push(" ", h("span", { class: "chip warn" }, "taken by no worker" + (q.parts.length > 1 ? ": " + q.unserved.join(", ") : "")));
  const rows = [h("tr", {}, h("th", { scope: "row" }, first ? h("a", { href: first.link }, name) : name, notes), cells({ ...q, filter: new URLSearchParams({ queue: q.name, mailer: mailerName(q.mailer) }) }, true))];
  if (q.parts.length > 1 || q.parts.some((p) => p.mass)) {
    for (const p of q.parts) {
      rows.push(h("tr", { class: "part" }, h("th", { scope: "row" }, h("a", { href: p.link }, p.name), p.mass && ", many mails a task", p.paused && !q.paused && [" ", h("span", { class: "chip warn" }, "paused")]),
        cells({ ...p, filter: new URLSearchParams({ queue: p.name }) }, false)));
    }
  }
  return rows;
}

function queues(list) {
  const columns = ["queue", "waiting", "oldest", "in hand", "mails/s here", "scheduled", "retry", "dead"];
  return h("div", { class: "card table" }, h("table", {},
    h("caption", { class: "hidden" }, "What waits in each queue"),
    h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col" }, c)))),
    h("tbody", {}, list.map(queue))));
}

const happened = {
  "retry": ["will be tried again", ""], "dead letter": ["dead letter", "bad"],
  "refused": ["recipient refused", "bad"], "failed silently": ["given up, as asked", ""],
};

function failed(f) {
  const [what, kind] = happened[f.what] || [f.what, ""];
  const about = [f.mailer ? `${f.queue} of ${f.mailer}` : f.queue, ...(f.member ? [`with ${f.member}`] : []), `try ${f.try}`];
  if (f.next) about.push(Date.parse(f.next) > now ? `next in ${span(-since(f.next))}` : "next try is due");
  if (f.message_id) about.push(f.message_id);
  return h("li", {},
    h("span", { class: "when" }, ago(f.at)),
    h("p", { class: "text" }, h("span", { class: "what " + kind }, f.link ? h("a", { href: f.link, class: kind }, what) : what), ": ", f.text),
    h("p", { class: "soft" }, about.join(" · ")));
}

function failures(list) {
  if (list.length === 0) return h("p", { class: "card empty" }, "Nothing has failed since this worker started.");
  return h("ol", { class: "card failures" }, list.map(failed));
}

// takesIn is what other programs have handed in here.
function takesIn(ways) {
  return h("div", { class: "mailers" }, ways.map((w) => {
    const refused = Object.entries(w.refused).sort();
    return h("article", { class: "card" },
      h("div", { class: "top" }, h("h3", {}, w.name), h("span", { class: "chip " + (w.rate > 0 ? "" : "idle") }, w.rate > 0 ? "taking mail" : "ready")),
      h("dl", { class: "facts" },
        fact(w.name === "SMTP" ? "mails/s" : "requests/s", rate(w.rate)),
        w.name === "SMTP" && fact("open", number(w.open)),
        fact("accepted", number(w.accepted)),
        fact("refused", number(refused.reduce((sum, [, n]) => sum + n, 0))),
        w.name === "SMTP" && fact("failed logins", number(w.failed_logins), w.failed_logins > 0)),
      refused.length > 0 && h("p", { class: "why" }, "Refused: " + refused.map(([code, n]) => `${number(n)} with ${code}`).join(", ")));
  }));
}

// endpoints are where events are posted.
function endpoints(list) {
  return h("div", { class: "mailers" }, list.map((e) => {
    const chip = e.ended_at ? ["wants no more (410)", "warn"] : e.failing_since ? ["takes nothing for " + span(since(e.failing_since)), "warn"] : ["ready", "idle"];
    return h("article", { class: "card" + (chip[1] === "warn" ? " held" : "") },
      h("div", { class: "top" }, h("h3", {}, e.name), h("span", { class: "chip " + chip[1] }, chip[0])),
      h("dl", { class: "facts" },
        fact("delivered", number(e.delivered)),
        fact("in hand", number(e.waiting)),
        fact("failed posts", number(e.failed)),
        fact("given up", number(e.given_up), e.given_up > 0)),
      e.last_error && h("p", { class: "why" }, ago(e.error_at), ": ", e.last_error));
  }));
}

let known = []; // the queues, as they were last seen

function show(s) {
  now = Date.parse(s.now);
  if (!s.redis) known = s.queues;
  const [word, kind] = words[s.state](s);
  const chip = document.getElementById("state");
  if (chip.textContent !== word) chip.textContent = word;
  chip.className = "chip " + kind;
  document.title = (s.state === "ok" ? rate(s.rate) + "/s" : word) + " · Mailpouch";
  put("who", `shown by the worker ${s.worker.version.split(" ")[0]} on ${s.worker.host}, process ${s.worker.pid}`);
  put("notices", notices(s));
  put("main", fleet(s.fleet),
    h("h2", {}, "Queues"), queues(known),
    h("h2", {}, "Workers"), workers(s.fleet),
    h("h2", { class: "part" }, s.delivers ? "This worker" : "This process, which delivers nothing"), s.delivers && flow(s),
    s.takes_in && [h("h3", { class: "part" }, "Mail from other programs"), takesIn(s.takes_in)],
    s.delivers && [h("h3", { class: "part" }, "Its relays"), h("div", { class: "mailers" }, s.mailers.map(mailer))],
    s.webhooks && [h("h3", { class: "part" }, "Its webhooks"), endpoints(s.webhooks)],
    s.delivers && [h("h3", { class: "part" }, "Its newest failures"), failures(s.failures)]);
}

let frozen = false, answered = Date.now();

async function refresh() {
  if (frozen || document.hidden) return;
  try {
    const reply = await fetch("/status.json", { signal: AbortSignal.timeout(5000) });
    if (!reply.ok) throw new Error(reply.status === 401 ? "a password is needed: load this page again" : "it says " + reply.status);
    const s = await reply.json();
    if (frozen) return;
    answered = Date.now();
    document.body.classList.remove("stale");
    show(s);
  } catch (err) {
    document.body.classList.add("stale");
    document.getElementById("state").textContent = "no answer";
    document.getElementById("state").className = "chip bad";
    put("notices", h("p", { class: "notice bad" }, h("strong", {}, `The worker has not answered for ${span((Date.now() - answered) / 1000)}. `), String(err.message)));
  }
}

document.getElementById("freeze").addEventListener("click", (event) => {
  frozen = !frozen;
  event.target.textContent = frozen ? "Go on" : "Freeze page";
  event.target.setAttribute("aria-pressed", String(frozen));
  document.body.classList.toggle("frozen", frozen);
  refresh();
});
document.addEventListener("visibilitychange", refresh);
(async () => {
  for (;;) {
    await refresh();
    await new Promise((wake) => setTimeout(wake, 1000));
  }
})();
