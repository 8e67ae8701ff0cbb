"use strict";
const MAX_SPAN = 600; // longest time span of the plots, in seconds
const WIDTH = 600; // width of a plot's viewBox
const MAX_GAP = 2.5; // a longer gap between two samples, in seconds, breaks the line
const CONNECTION_TIMEOUT = 5; // seconds without a status after which the connection counts as lost
const RECONNECT_GRACE = 2.5; // seconds without a status that are normal when a stream ends and the browser reconnects

const byId = (id) => document.getElementById(id);
const sum = (numbers) => Object.values(numbers).reduce((all, number) => all + number, 0);

const count = (number) => number.toLocaleString("en");
const counted = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
const time = (unixSeconds) => new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");
const percent = (share) => (share > 0 && share < 0.0001 ? "<\u00a00.01\u00a0%" : `${Math.floor(share * 1e4 + 1e-6) / 100}\u00a0%`);
const size = (bytes) => (bytes < 2 ** 20 ? `${+(bytes / 2 ** 10).toFixed(1)}\u00a0KiB` : `${+(bytes / 2 ** 20).toFixed(1)}\u00a0MiB`);

function duration(seconds) {
  if (seconds > 0 && seconds < 1) return `${+(seconds * 1000).toPrecision(seconds < 0.1 ? 2 : 3)}\u00a0ms`;
  if (seconds < 60) return `${+seconds.toFixed(seconds < 10 ? 1 : 0)}\u00a0s`;
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [[large, largeName], [small, smallName]] = units.slice(units.findIndex(([unit]) => seconds >= unit));
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)}\u00a0${largeName}${rest ? ` ${rest}\u00a0${smallName}` : ""}`;
}

function createElement(name, className = "", ...children) {
  const node = document.createElement(name);
  node.className = className;
  node.append(...children);
  return node;
}

function createSvgElement(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  return node;
}

// Leaves an unchanged text alone, to preserve a selection or a screen reader's position in it.
const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };

// Sets a text, with the parts between backticks as code.
function setRichText(node, text) {
  const parts = text.split("`");
  if (node.textContent !== parts.join("")) node.replaceChildren(...parts.map((part, i) => (i % 2 ? createElement("code", "", part) : part)));
}

// Replaces the rows of a table. The first cell of a row is a text, or an array of a text and an explanatory note.
function fillTable(table, rows, className = () => "") {
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach(([head, ...cells], i) => {
    const [text, note = ""] = [head].flat();
    const row = body.rows[i] ?? body.insertRow();
    row.className = className([text, ...cells]);
    const title = row.cells[0] ?? row.appendChild(createElement("th", "", createElement("span"), createElement("p", "note")));
    title.scope = "row";
    setText(title.firstChild, text);
    setRichText(title.lastChild, note);
    title.lastChild.hidden = !note;
    cells.forEach((text, j) => setText(row.cells[j + 1] ?? row.appendChild(createElement("td")), text));
  });
}

// The connection to the daemon

let latestStatus = null;
let samples = []; // one per second, oldest first
let connected = false;
let lastStatusAt = Date.now(); // before the first status: when the page was loaded
let source, openedAt; // the event stream, and when it was opened

function connect() {
  source?.close();
  openedAt = Date.now();
  source = new EventSource("events");
  source.addEventListener("history", ({ data }) => { samples = JSON.parse(data); });
  source.addEventListener("status", ({ data }) => {
    latestStatus = JSON.parse(data);
    lastStatusAt = Date.now();
    const { now } = latestStatus;
    samples = [...samples.filter(({ time }) => time < now.time && time > now.time - MAX_SPAN), now];
    const isReconnected = !connected;
    connected = true;
    showHealth();
    showPlots();
    showTables(latestStatus);
    if (isReconnected) loadPrefixes(true);
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) byId("beat").animate({ opacity: [1, 0.25] }, 900);
  });
  source.addEventListener("error", () => { if (secondsWithoutStatus() > RECONNECT_GRACE) disconnect(); });
}

const secondsWithoutStatus = () => (Date.now() - Math.max(lastStatusAt, openedAt)) / 1000;

function disconnect() {
  connected = false;
  showHealth();
  showPlots();
}

// The browser reconnects by itself, but not after every kind of failure.
setInterval(() => {
  if (!connected || secondsWithoutStatus() > CONNECTION_TIMEOUT) disconnect();
  if (secondsWithoutStatus() > 2 * CONNECTION_TIMEOUT || (secondsWithoutStatus() > 3 && source.readyState === EventSource.CLOSED)) connect();
}, 1000);

// The health

const INDICATORS = { // for each state: the mark in the headline, the text in the title, and the path of the icon
  connecting: ["○", "connecting", "fill='none' stroke='#808a85' stroke-width='3' d='M8 3a5 5 0 1 0 .1 0z'"],
  empty: ["○", "no clients", "fill='none' stroke='#2f9a5f' stroke-width='3' d='M8 3a5 5 0 1 0 .1 0z'"],
  healthy: ["●", "all well", "fill='#2f9a5f' d='M8 1a7 7 0 1 0 .1 0z'"],
  warning: ["▲", "", "fill='#d08a14' d='M8 1 16 15H0z'"],
  critical: ["▲", "", "fill='#d8402f' d='M8 1 16 15H0z'"],
  lost: ["✕", "connection lost", "stroke='#d8402f' stroke-width='3.5' d='M3 3 13 13M13 3 3 13'"],
};
let announced = ""; // the last announced state and problems

function currentProblems() {
  const starting = {
    id: "not_ready", severity: "critical", summary: "The daemon is not ready: it is starting or stopping.",
    advice: "This takes a few seconds. If it takes longer, read the log: `journalctl --unit wakeupd`.",
  };
  return [...(latestStatus.ready ? [] : [starting]), ...latestStatus.findings];
}

function probeTarget() {
  const [, bound, port] = latestStatus.address.match(/^\[?(.*?)\]?:(\d+)$/);
  const host = ["0.0.0.0", "::"].includes(bound) ? location.hostname.replace(/[[\]]/g, "") : bound;
  return port === "7561" ? host : `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

// Returns the state, the headline in two parts, and an explanation.
function health(problems) {
  const ago = Math.round((Date.now() - lastStatusAt) / 1000);
  if (!connected && !latestStatus && ago < CONNECTION_TIMEOUT) return ["connecting", "Connecting", "to the daemon …", ""];
  if (!connected) {
    return ["lost", "Connection lost:", `no status since ${time(lastStatusAt / 1000)}.`,
      `That was ${duration(ago)} ago. ${latestStatus ? "The values below are from that time. " : ""}The page keeps trying to reconnect. ` +
      "If this lasts, check on the machine that the daemon is running: `systemctl status wakeupd`. " +
      "If it is, close other copies of this page: too many may be open."];
  }
  const clients = latestStatus.clients.ipv4 + latestStatus.clients.ipv6;
  const critical = problems.filter(({ severity }) => severity === "critical").length;
  if (problems.length) {
    const some = critical > 0 && problems.length > 1;
    return [critical ? "critical" : "warning", counted(problems.length, "problem") + (some ? "," : "."),
      some ? `${count(critical)} of them critical.` : "", `${counted(clients, "live client")}.`];
  }
  if (clients) return ["healthy", "All is well:", `${counted(clients, "client")}, pings on time.`, ""];
  const target = probeTarget();
  const where = /^\[?(localhost|127\.|::1)/.test(target) ? " on the daemon's machine" : "";
  return ["empty", "All is well,", latestStatus.totals.registrations ? "but no client is live." : "but no client has registered yet.",
    `To register one, run \`wakeupd probe ${target}\`${where}. Any datagram to UDP port ${latestStatus.address.split(":").at(-1)} registers its sender.`];
}

function showHealth() {
  const problems = latestStatus ? currentProblems() : [];
  const [state, strong, rest, explanation] = health(problems);
  const [mark, title, icon] = INDICATORS[state];
  document.body.className = state;
  setText(byId("mark"), mark);
  setText(byId("headline").firstChild, strong);
  setText(byId("headline").lastChild, ` ${rest}`);
  setRichText(byId("explanation"), explanation);
  byId("problems").hidden = state === "lost" || !problems.length;
  while (byId("problems").children.length > problems.length) byId("problems").lastChild.remove();
  problems.forEach(({ severity, summary, advice }, i) => {
    const parts = ["severity", "summary", "advice"].map((part) => createElement("p", part));
    const item = byId("problems").children[i] ?? byId("problems").appendChild(createElement("li", "", ...parts));
    item.className = severity;
    [severity, summary, advice].forEach((text, j) => setRichText(item.children[j], text));
  });
  if (latestStatus) setText(byId("as-of"), `${connected ? "live," : "as of"} ${time(latestStatus.now.time)}`);

  const now = [state, ...(title ? [] : problems.map(({ id }) => id).sort())].join();
  if (announced === now) return;
  announced = now;
  document.title = `${mark} wakeupd: ${title || counted(problems.length, "problem")}`;
  document.querySelector("link[rel=icon]").href = "data:image/svg+xml," +
    encodeURIComponent(`<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><path ${icon}/></svg>`);
  if (state !== "connecting") byId("announcement").textContent = title || problems.map(({ summary }) => summary).join(" ");
}

PLOTS_OF_THE_PAGE
// The tables

// For each reason to refuse a heartbeat: the guard's observation and the remedy.
const REFUSALS = REFUSALS_OF_THE_DAEMON;
const MUTED = "A muted client gets no pings until its next heartbeat, because its host answers pings with ICMP port unreachable: " +
  "the app has closed its socket, or a firewall or NAT on the path rejects pings. Keep the socket open and send heartbeats from it.";

const REASON_TEXTS = { // for reasons with unclear names
  source_port_zero: "source port 0", system_port: "source port below 1024", daemon_port: "source port 7561 or the daemon's own",
  translated_loopback: "loopback address behind a NAT64 prefix",
  refuse_nets: "in REFUSE_NETS", deny_file: "in DENY_FILE", max_clients: "MAX_CLIENTS reached",
  max_clients_per_address: "MAX_CLIENTS_PER_ADDRESS reached", max_clients_per_prefix: "MAX_CLIENTS_PER_PREFIX reached",
  stale: "stale, waited longer than CLIENT_EXPIRATION_SECONDS",
  made_way: "evicted to make room near a cap", denied: "in DENY_FILE",
  no_buffers: "device queue full", would_block: "send buffer full", skipped: "skipped, at least a second late",
};
// A row for the sum, then a row for each reason that occurred.
const reasonRows = (name, numbers) => [[name, count(sum(numbers))], ...Object.entries(numbers).filter(([, number]) => number)
  .map(([reason, number]) => [[` ${REASON_TEXTS[reason] ?? reason.replaceAll("_", " ")}`, explain(REFUSALS[reason])], count(number)])];
const explain = (refusal) => (refusal ? `${refusal.summary} ${refusal.advice}` : "");

function showTables({ address, version, started, uptime_seconds, clients, guard, buffers, totals, lateness: { buckets } }) {
  const live = clients.ipv4 + clients.ipv6;
  setText(byId("instance"), `${address}, version ${version}, up ${duration(Math.floor(uptime_seconds))}`);
  Object.assign(byId("meter"), { max: clients.max, value: live });
  setText(byId("used"), `${percent(live / clients.max)} of MAX_CLIENTS`);
  setText(byId("families"), `${count(clients.ipv4)} IPv4, ${count(clients.ipv6)} IPv6`);

  const pings = sum(buckets.map((bucket) => bucket.pings));
  const beyond = `>\u00a0${duration(buckets.at(-2).le_seconds)}`; // the last bucket, which is unbounded
  const quantile = (share) => {
    let rest = pings * share;
    const { le_seconds: limit } = buckets.find((bucket) => (rest -= bucket.pings) <= 0);
    return limit === null ? beyond : `≤\u00a0${duration(limit)}`;
  };
  const histogram = byId("histogram");
  setText(histogram.caption, pings ? `${counted(pings, "ping")} in the last 10 minutes. Delay after the due time: ` +
    `p50 ${quantile(0.5)}, p99 ${quantile(0.99)}, p99.9 ${quantile(0.999)}.` : "No pings in the last 10 minutes.");
  fillTable(histogram, buckets.map((bucket) => [
    bucket.le_seconds === null ? beyond : duration(bucket.le_seconds), count(bucket.pings), pings ? percent(bucket.pings / pings) : "–"]));
  buckets.forEach((bucket, i) => {
    const width = bucket.pings ? `max(2px, ${bucket.pings / pings} * (100% - 6.5rem))` : "0";
    histogram.tBodies[0].rows[i].cells[2].style.setProperty("--width", width);
  });

  setText(byId("ledger").caption, `Since the start of the daemon on ${new Date(started).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" })}`);
  fillTable(byId("ledger"), [
    ["Heartbeats accepted", count(totals.heartbeats)],
    ...reasonRows(guard.enforcing ? "Heartbeats refused" : "Heartbeats that GUARD_MODE=enforce would refuse", totals.refused),
    ["Heartbeats dropped (receive buffer full)", count(totals.receive_drops)],
    ["Clients registered", count(totals.registrations)],
    ...reasonRows("Clients removed", totals.removals),
    [["Clients muted (port closed)", totals.mutes ? MUTED : ""], count(totals.mutes)],
    ["Pings sent", count(totals.pings)],
    ...reasonRows("Pings not sent", { ...totals.failed_pings, skipped: totals.skipped_pings }),
    ["ICMP errors", count(totals.network_errors)],
    ["Requests with a wrong ADMIN_TOKEN", count(totals.wrong_tokens)],
  ], ([name]) => (name.startsWith(" ") ? "part" : ""));

  const buffer = (granted, wanted) => size(granted) + (granted < wanted ? ` of ${size(wanted)} requested` : "");
  fillTable(byId("daemon"), [
    ["Guard", guard.enforcing ? "enforcing" : "observing, not enforcing"],
    ["Client cap", count(clients.max)],
    ["Client cap per address", count(guard.max_clients_per_address)],
    ["Client cap per network", count(guard.max_clients_per_prefix)],
    ["Denied networks", count(guard.denied_networks)],
    ["Receive buffer", buffer(buffers.receive_bytes, buffers.wanted_receive_bytes)],
    ["Send buffer", buffer(buffers.send_bytes, buffers.wanted_send_bytes)],
  ]);
}

// The clients, which may require the token

let token = ""; // in memory only
let hasAccess = true;

// Fetches JSON about clients. Returns null if the daemon denies access.
async function fetchClients(path) {
  const denied = {
    401: token ? "The daemon rejected this token." : "Enter the ADMIN_TOKEN of the daemon to see its clients.",
    403: "HTTP_ADDR is not a loopback address, so ADMIN_TOKEN must be set before the daemon shows its clients.",
  };
  const response = await fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  hasAccess = !denied[response.status];
  byId("token-form").hidden = response.status !== 401;
  byId("clients").hidden = !hasAccess;
  setText(byId("access"), denied[response.status] ?? "");
  return hasAccess ? { ok: response.ok, ...await response.json() } : null;
}

// Loads the networks with the most clients. Does nothing after a denial, unless `retry` is set.
async function loadPrefixes(retry = false) {
  hasAccess ||= retry;
  if (!connected || !hasAccess || document.hidden) return;
  let note = "";
  try {
    const { ok, prefixes, error } = await fetchClients("prefixes?limit=10") ?? {};
    note = ok && !prefixes.length ? "No clients are registered." : error ?? "";
    if (ok) showPrefixes(prefixes);
  } catch (error) {
    note = `The request failed: ${error.message}`;
  }
  byId("prefixes").hidden = note !== "";
  setText(byId("prefixes-note"), note);
}

function showPrefixes(prefixes) {
  const isSuspicious = (share, clients) => share >= 0.5 && clients >= 10 && latestStatus.uptime_seconds > 60;
  fillTable(byId("prefixes"), prefixes.map(({ prefix, clients, pings_per_second, single_heartbeat_share: share }) => [
    prefix, count(clients), count(pings_per_second), `${isSuspicious(share, clients) ? "▲ " : ""}${percent(share)}`,
  ]), (cells) => (cells[3].startsWith("▲") ? "suspicious" : ""));
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  loadPrefixes(true);
});

const MAX_SHOWN = 50; // clients per search

// Returns the matching clients, a message about the result, and advice. Returns null if the daemon denies access.
async function find(query) {
  const isClient = /^(\d+\.){3}\d+:\d+$|^\[.+\]:\d+$/.test(query);
  if (isClient) {
    const client = await fetchClients(`clients/${encodeURIComponent(query)}`);
    return client?.ok ? { clients: [client], message: "" } : client && { clients: [], ...explainNonClient(client, query) };
  }
  const network = query.replace(/^\[(.*)\]$/, "$1");
  const page = await fetchClients(`clients?limit=${MAX_SHOWN}&network=${encodeURIComponent(network)}`);
  if (!page?.ok) return page && { clients: [], message: page.error };
  const { clients, next } = page;
  const place = `${network.includes("/") ? "in" : "at"} ${query}`;
  if (clients.length) return { clients, message: next ? `The first ${MAX_SHOWN} clients ${place}:` : `${counted(clients.length, "client")} ${place}:` };
  if (network.includes("/")) return { clients, message: `No clients ${place}.` };
  // The guard treats all ports alike from 1024 on, except 7561 and the daemon's own.
  const port = latestStatus.address.endsWith(":50000") ? 50001 : 50000;
  const response = await fetchClients(`clients/${encodeURIComponent(network.includes(":") ? `[${network}]:${port}` : `${network}:${port}`)}`);
  return response && { clients, ...explainNonClient(response, query) };
}

// Explains why an address is not a client, with the guard's decision about it.
function explainNonClient({ error, refused }, query) {
  if (refused === undefined) return { message: error };
  if (!refused) return { message: `${query} is not a client. The guard would accept it, so no heartbeat has arrived from it recently.` };
  const verdict = latestStatus.guard.enforcing ? "The guard refuses its heartbeats" : "GUARD_MODE=enforce would refuse its heartbeats";
  return { message: `${query} is not a client. ${verdict}: ${refused.summary}`, advice: refused.advice };
}

function showFound({ clients, message, advice = "" }) {
  const muted = clients.some((client) => client.muted);
  setRichText(byId("found-words"), message);
  setRichText(byId("found-advice"), muted ? MUTED : advice);
  byId("found").hidden = !clients.length;
  fillTable(byId("found"), clients.map(({ address, last_heartbeat, heartbeats, pings, muted }) => {
    const ago = Math.max(0, Math.round(latestStatus.now.time - Date.parse(last_heartbeat) / 1000));
    return [[address, `${muted ? "muted, " : ""}last heartbeat ${duration(ago)} ago`], count(heartbeats), count(pings)];
  }));
  byId("announcement").textContent = message || `Found ${counted(clients.length, "client")}.`;
}

let searches = 0;

byId("find-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const search = ++searches;
  const failed = (error) => ({ clients: [], message: `The request failed: ${error.message}` });
  const found = await find(byId("wanted").value.trim()).catch(failed);
  // The response to an earlier search may arrive later.
  if (found && search === searches) showFound(found);
});

connect();
setInterval(loadPrefixes, 5000);
