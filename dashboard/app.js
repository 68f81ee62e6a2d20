// The page: status by polling a few small answers, rows by subscription. Every text is set as text, never as markup.
"use strict";

const STATUS_EVERY_MS = 2000;
const ROWS_KEPT_MAX = 5000;
const ROWS_SHOWN_MAX = 200;
const RESULT_ROWS_MAX = 1000;
const $ = (id) => document.getElementById(id);

// Numbers keep the digits they were sent with: 64-bit integers and decimals do not fit a double.
class Digits {
  constructor(source) { this.source = source; }
  toJSON() { return this.source; }
  toString() { return this.source; }
}
const parse = (text) => JSON.parse(text, (_, value, context) =>
  typeof value === "number" && context && context.source !== undefined ? new Digits(context.source) : value);
const number = (value) => (value instanceof Digits ? Number(value.source) : value);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}
const count = (value) => (value === null || value === undefined ? "–" : Number(value).toLocaleString("en"));
function compact(value) {
  if (value < 10 && value % 1) return value.toFixed(1);
  return value < 100000 ? count(Math.round(value)) : new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 }).format(value);
}
function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}
function span(microseconds) {
  const seconds = Math.max(0, microseconds) / 1e6;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}
const moment = (microseconds) => new Date(microseconds / 1000).toISOString().replace("T", " ").replace("Z", "");
const now = () => Date.now() * 1000;

function shown(value) {
  if (value === null || value === undefined) return "null";
  if (value instanceof Digits) return value.source;
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}
// A double's seventeen digits are noise to the eye: eight are shown, all of them stand in the cell's title.
function cell(value) {
  const whole = shown(value);
  const long = value instanceof Digits && (/\.\d{7,}/.test(whole) || /e/i.test(whole));
  const text = long ? String(Number(Number(whole).toPrecision(8))) : whole;
  const made = element("td", text, value === null ? "null" : value instanceof Digits ? "num" : "");
  if (long || text.length > 50) made.title = whole;
  return made;
}

async function get(path) {
  const response = await fetch(path, { headers: { accept: "application/json" } });
  return JSON.parse(await response.text());
}

// ---- status ----

const rates = [];
function sparkline(rate) {
  rates.push(rate);
  if (rates.length > 60) rates.shift();
  const most = Math.max(...rates, 1);
  const points = rates.map((value, index) => `${(120 * (index + 60 - rates.length)) / 59},${31 - (28 * value) / most}`);
  const [area, line] = $("spark").querySelectorAll("path");
  line.setAttribute("d", `M${points.join("L")}`);
  area.setAttribute("d", `M${points[0].split(",")[0]},32L${points.join("L")}L120,32Z`);
}

const STATES = { running: "good", done: "", waiting: "", retrying: "warn", failed: "bad" };

function showSources(sources) {
  const rate = sources.reduce((sum, source) => sum + source.rows_per_second, 0);
  const errors = sources.reduce((sum, source) => sum + source.errors, 0);
  $("rate").textContent = compact(rate);
  sparkline(rate);
  $("total").textContent = compact(sources.reduce((sum, source) => sum + source.rows, 0));
  $("total-bytes").textContent = `${bytes(sources.reduce((sum, source) => sum + source.bytes, 0))} from ${sources.length} source${sources.length === 1 ? "" : "s"}`;
  $("errors").textContent = compact(errors);
  $("errors").classList.toggle("bad", errors > 0);
  $("sources").replaceChildren(...sources.map((source) => {
    const row = element("tr");
    const name = element("td", source.name);
    const notes = [source.connector];
    if (source.restarts) notes.push(`restarted ${source.restarts}×`);
    if (source.ignored_fields) notes.push(`${count(source.ignored_fields)} fields ignored`);
    if (source.message) notes.push(source.message);
    name.append(element("small", notes.join(" · ")));
    const state = element("td");
    state.append(element("span", source.state, `badge ${STATES[source.state] ?? ""}`));
    row.append(name, state, element("td", compact(source.rows_per_second), "num"), element("td", count(source.rows), "num"),
      element("td", count(source.lag), "num"), element("td", count(source.errors), "num"));
    return row;
  }));
  if (!sources.length) $("sources").append(note("no sources: CREATE SOURCE adds one", 6));
}

function note(text, columns) {
  const row = element("tr");
  const only = element("td", text, "muted");
  only.colSpan = columns;
  row.append(only);
  return row;
}

let relations = new Map();
function showViews(views) {
  relations = new Map(views.map((view) => [view.name, view]));
  const at = now();
  const live = views.filter((view) => view.kind === "materialized_view");
  const behind = live.length ? Math.max(...live.map((view) => at - view.as_of)) : null;
  $("freshness").textContent = behind === null ? "–" : span(behind);
  $("as-of").textContent = live.length ? `as of ${moment(Math.min(...live.map((view) => view.as_of)))}` : "";
  $("views").replaceChildren(...views.filter((view) => view.kind !== "source").map((view) => {
    const row = element("tr", undefined, `link${view.name === followed ? " chosen" : ""}`);
    row.tabIndex = 0;
    const name = element("td", view.name);
    name.append(element("small", view.failure ? view.failure : view.kind.replaceAll("_", " ")));
    if (view.failure) name.lastChild.style.color = "var(--bad)";
    row.append(name, element("td", count(view.rows), "num"), element("td", bytes(view.bytes), "num"),
      element("td", view.kind === "view" ? "–" : span(at - view.as_of), "num"), element("td", view.key.join(", ") || "–"));
    const follow = () => { $("live-view").value = view.name; choose(view.name); };
    row.addEventListener("click", follow);
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") follow(); });
    return row;
  }));
  if (!views.length) $("views").append(note("no views: CREATE MATERIALIZED VIEW adds one", 5));
  const names = views.map((view) => view.name);
  const select = $("live-view");
  if ([...select.options].map((option) => option.value).join("\n") !== ["", ...names].join("\n")) {
    const chosen = select.value;
    select.replaceChildren(...["", ...names].map((name) => { const option = element("option", name || "choose…"); option.value = name; return option; }));
    select.value = names.includes(chosen) ? chosen : "";
    if (!select.value && live.length) { select.value = decodeURIComponent(location.hash.slice(1)) || live[0].name; if (select.value) choose(select.value); }
  }
}

function showEpochs(epochs) {
  const newest = epochs[0];
  $("epoch").textContent = newest ? count(newest.epoch) : "–";
  if (newest) $("epoch-note").textContent = `${span(now() - newest.committed_at)} ago, took ${newest.milliseconds} ms`;
  $("epochs").replaceChildren(...epochs.map((epoch) => {
    const row = element("tr");
    const tables = epoch.tables.map(([name]) => name);
    const names = element("td", tables.length > 3 ? `${tables.length} tables` : tables.join(", ") || "nothing changed");
    names.title = epoch.tables.map(([name, snapshot]) => {
      const rows = (epoch.rows || {})[name];
      return rows ? `${name}: +${count(number(rows.added))} -${count(number(rows.removed))} rows` : `${name}: snapshot ${snapshot}`;
    }).join("\n");
    row.append(element("td", count(epoch.epoch), "num"), element("td", moment(epoch.as_of)), element("td", `${epoch.milliseconds} ms`, "num"), names);
    return row;
  }));
  if (!epochs.length) $("epochs").append(note("no epoch yet: sinks commit the first after their interval", 4));
}

function showHealth(health) {
  const { status, hydration } = health;
  const problems = [...health.problems];
  if (hydration) {
    const left = hydration.seconds_left === null ? "" : `, about ${span(number(hydration.seconds_left) * 1e6)} left`;
    problems.push(`reading tables back: ${count(number(hydration.rows))} of ${count(number(hydration.total))} rows${left}`);
  }
  $("health").textContent = status;
  $("health").className = `badge ${status === "running" && !problems.length ? "good" : status === "failed" ? "bad" : "warn"}`;
  $("problems").hidden = !problems.length;
  $("problems").textContent = problems.join("\n");
}

async function refresh() {
  try {
    const [health, sources, all, epochs] = await Promise.all(
      ["/health", "/api/v1/sources", "/api/v1/relations", "/api/v1/epochs?limit=50"].map(get));
    showHealth(health.data);
    showSources(sources.data);
    showViews(all.data);
    showEpochs(epochs.data);
  } catch {
    showHealth({ status: "unreachable", problems: ["The lake does not answer. This page goes on by itself as soon as it does."] });
  }
  setTimeout(refresh, STATUS_EVERY_MS);
}

// ---- live rows ----

let followed = null;
let events = null;
let rows = new Map();
let columns = [];
let order = { column: null, down: false };
let paused = false;
let whole = true;
let settled = false;
let latest = new Map();
let dirty = false;
let changesSeen = 0;

function choose(name) {
  if (events) events.close();
  events = null;
  followed = name || null;
  rows = new Map();
  columns = [];
  order = { column: null, down: false };
  changesSeen = 0;
  settled = false;
  latest = new Map();
  $("live").tHead.replaceChildren();
  $("live").tBodies[0].replaceChildren();
  $("live-empty").hidden = false;
  $("live-empty").textContent = followed ? "Waiting for rows…" : "Choose a view to follow it.";
  if (!followed) { $("live-state").textContent = ""; return; }
  history.replaceState(null, "", `#${encodeURIComponent(followed)}`);
  open(followed);
}

// A big relation's snapshot would fill the page's memory: of such only what changes is shown.
async function isSmall(name) {
  const quoted = name.split(".").map((part) => `"${part.replaceAll('"', '""')}"`).join(".");
  const answer = await (await fetch("/api/v1/sql", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    body: JSON.stringify({ sql: `SELECT count(*) AS rows FROM (SELECT 1 FROM ${quoted} LIMIT ${ROWS_KEPT_MAX + 1})` }),
  })).json();
  return answer.success && answer.data[0].rows <= ROWS_KEPT_MAX;
}

async function open(name) {
  $("live-state").textContent = "opening…";
  whole = await isSmall(name).catch(() => false);
  // Another one may have been chosen meanwhile.
  if (name !== followed) return;
  const view = relations.get(name);
  const source = new EventSource(`/api/v1/views/${encodeURIComponent(name)}/subscribe?snapshot=${whole}`);
  events = source;
  source.onopen = () => { $("live-state").textContent = whole ? "live" : "live: a big relation, so only what changes is shown"; };
  source.onmessage = (event) => { if (source === events) take(parse(event.data), view ? view.key : []); };
  source.addEventListener("error", (event) => {
    if (source !== events) return;
    if (event.data) { $("live-state").textContent = JSON.parse(event.data).message; source.close(); return; }
    $("live-state").textContent = source.readyState === EventSource.CLOSED ? "this relation cannot be followed" : "reconnecting…";
  });
}

function take(message, key) {
  if (message.progress) { settled = true; sweep(); return; }
  for (const { diff, row } of message.changes) {
    const text = JSON.stringify(row);
    const id = key.length ? JSON.stringify(key.map((column) => row[column])) : text;
    const known = rows.get(id);
    changesSeen += 1;
    if (!columns.length) columns = Object.keys(row);
    if (number(diff) > 0) {
      // What to compare with, for the highlight only: the key's earlier row, else the last one that began alike.
      const alike = shown(row[columns[0]]);
      const before = known ? known.row : key.length ? undefined : latest.get(alike);
      if (!key.length) latest.set(alike, row);
      const changed = before ? columns.filter((column) => shown(before[column]) !== shown(row[column])) : [];
      const copies = known && known.text === text && !known.gone ? known.copies + number(diff) : number(diff);
      rows.set(id, { row, text, copies, at: performance.now(), isNew: settled && !before, changed, gone: false });
    } else if (known && known.text === text) {
      known.copies += number(diff);
      known.gone = known.copies <= 0;
    }
  }
  dirty = true;
}

// A row that went is forgotten once its timestamp is complete: until then it may come back changed.
function sweep() {
  for (const [id, entry] of rows) if (entry.gone) { rows.delete(id); dirty = true; }
  if (rows.size > ROWS_KEPT_MAX) {
    const oldest = [...rows].sort((a, b) => a[1].at - b[1].at).slice(0, rows.size - ROWS_KEPT_MAX);
    for (const [id] of oldest) rows.delete(id);
  }
  if (latest.size > 2 * ROWS_KEPT_MAX) latest = new Map();
}

function compare(a, b) {
  const [left, right] = [number(a), number(b)];
  if (left === null || right === null) return (left === null) - (right === null);
  if (typeof left === "number" && typeof right === "number") return left - right;
  return String(left).localeCompare(String(right));
}

function draw() {
  if (!dirty || paused || !followed) return;
  dirty = false;
  const table = $("live");
  const sorted = order.column;
  const head = element("tr");
  for (const column of columns) {
    const heading = element("th");
    const button = element("button", column + (sorted === column ? (order.down ? " ↓" : " ↑") : ""));
    button.addEventListener("click", () => { order = { column, down: sorted === column && !order.down }; dirty = true; draw(); });
    heading.append(button);
    head.append(heading);
  }
  table.tHead.replaceChildren(head);
  const wanted = $("live-filter").value.toLowerCase();
  let entries = [...rows.values()].filter((entry) => !entry.gone);
  const all = entries.length;
  if (wanted) entries = entries.filter((entry) => columns.some((column) => shown(entry.row[column]).toLowerCase().includes(wanted)));
  if (sorted) entries.sort((a, b) => compare(a.row[sorted], b.row[sorted]) * (order.down ? -1 : 1));
  else entries.sort((a, b) => b.at - a.at);
  const time = performance.now();
  table.tBodies[0].replaceChildren(...entries.slice(0, ROWS_SHOWN_MAX).map((entry) => {
    const age = time - entry.at;
    const row = element("tr", undefined, entry.isNew && age < 2000 ? "new" : "");
    for (const column of columns) {
      const made = cell(entry.row[column]);
      if (age < 2000 && entry.changed.includes(column)) { made.classList.add("changed"); made.style.animationDelay = `-${Math.round(age)}ms`; }
      else if (entry.isNew) made.style.animationDelay = `-${Math.round(age)}ms`;
      row.append(made);
    }
    return row;
  }));
  for (const [index, heading] of [...head.children].entries()) {
    const first = entries.find((entry) => entry.row[columns[index]] !== null);
    if (first && first.row[columns[index]] instanceof Digits) heading.classList.add("num");
  }
  $("live-empty").hidden = entries.length > 0;
  $("live-empty").textContent = all ? "No row matches the filter." : "No rows.";
  const shownRows = Math.min(entries.length, ROWS_SHOWN_MAX);
  $("live-state").textContent = `${count(shownRows)} of ${count(all)} ${whole ? "rows" : "changed rows"} · ${count(changesSeen)} changes seen`;
}
setInterval(draw, 250);

$("live-view").addEventListener("change", (event) => choose(event.target.value));
$("live-filter").addEventListener("input", () => { dirty = true; draw(); });
$("live-pause").addEventListener("click", () => {
  paused = !paused;
  $("live-pause").textContent = paused ? "Go on" : "Pause";
  dirty = true;
});

// ---- SQL ----

async function run() {
  const state = $("sql-state");
  const table = $("sql-result");
  state.className = "muted";
  state.textContent = "running…";
  $("sql-run").disabled = true;
  const start = performance.now();
  try {
    const response = await fetch("/api/v1/sql", {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json" },
      body: JSON.stringify({ sql: $("sql").value.trim().replace(/;$/, "") }),
    });
    const answer = parse(await response.text());
    const took = `${(performance.now() - start).toFixed(1)} ms`;
    table.tHead.replaceChildren();
    table.tBodies[0].replaceChildren();
    if (!answer.success) {
      state.className = "bad";
      state.textContent = answer.message + (answer.hint ? `\n${answer.hint}` : "");
      return;
    }
    const names = (answer.columns || []).map((column) => column.name);
    const numeric = (answer.columns || []).map((column) => /int|numeric|real|double/.test(column.type));
    const head = element("tr");
    names.forEach((name, index) => head.append(element("th", name, numeric[index] ? "num" : "")));
    if (names.length) table.tHead.append(head);
    table.tBodies[0].append(...answer.data.slice(0, RESULT_ROWS_MAX).map((row) => {
      const made = element("tr");
      made.append(...names.map((name) => cell(row[name])));
      return made;
    }));
    const more = answer.data.length > RESULT_ROWS_MAX ? `, the first ${count(RESULT_ROWS_MAX)} shown` : "";
    state.textContent = names.length ? `${count(answer.data.length)} rows${more} · ${took} · as of ${moment(number(answer.as_of))}` : `${answer.message} · ${took}`;
  } catch (error) {
    state.className = "bad";
    state.textContent = `The answer broke off: ${error.message}`;
  } finally {
    $("sql-run").disabled = false;
  }
}
$("sql-run").addEventListener("click", run);
$("sql").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); } });

refresh();
