// One file: its versions, who has it, and every way to fetch it.

import { api, grant, inWords } from "./api.js";
import { copyButton, el, say } from "./dom.js";
import { folderLink } from "./files.js";
import { best, headersFor, own, peers } from "./gateways.js";
import { every } from "./poll.js";
import { ago, baseName, bytes, count, date, duration, folderOf, inPath, percent, plural, quoted, shortId, shown } from "./words.js";

/** Shows the file of that name, anew while copies of it are made. */
export function fileView(root, name, signal) {
  const status = el("p", { class: "status", role: "status" }, "Looking it up …");
  const body = el("div");
  const folder = folderOf(name);
  root.replaceChildren(
    el("nav", { "aria-label": "Folder", class: "crumbs" }, el("a", { href: folderLink(folder) }, "← ", el("bdi", {}, folder ? shown(folder) : "All files"))),
    el("h1", { class: "name" }, el("bdi", {}, shown(baseName(name)))),
    status,
    body,
  );
  const state = { name, chosen: null, spread: [], drawn: "" };
  every(2, () => refresh(state, status, body, signal), signal);
}

async function refresh(state, status, body, signal) {
  try {
    const [file, living] = await Promise.all([api(`/v1/files/${inPath(state.name)}`, {}, signal), peers()]);
    const version = file.versions.find((each) => each.content_id === state.chosen) ?? file.versions[0];
    version.sources.sort((one, other) => (one.peer_id < other.peer_id ? -1 : 1));
    const gateway = await best(version.sources.map((source) => source.peer_id));
    say(status, file.newer_incomplete ? "A newer version has no complete copy yet: its upload is under way, or was broken off." : "");
    draw(state, body, file, version, living.length, gateway, () => refresh(state, status, body, signal));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    say(status, error.code === "file_not_found" ? "Nobody shares this file now." : inWords(error));
    body.replaceChildren();
    state.drawn = "";
  }
}

/** Draws what has changed: a focused button or a selection stays while nothing does. */
function draw(state, body, file, version, living, gateway, again) {
  const looks = JSON.stringify([file, version.content_id, living, gateway]);
  const fresh = looks !== state.drawn;
  const speed = spreading(state, version);
  if (fresh) {
    state.drawn = looks;
    const choose = (contentId) => ((state.chosen = contentId), again());
    const focused = document.activeElement?.id;
    body.replaceChildren(facts(version), actions(file.name, version, file.versions[0], gateway), spread(version, living), sources(version), versions(file, version, choose));
    if (focused) document.getElementById(focused)?.focus();
  }
  say(body.querySelector("#speed"), speed);
}

function facts(version) {
  return el(
    "dl",
    { class: "facts" },
    fact("Size", bytes(version.size_bytes), `${count(version.size_bytes)} bytes`),
    fact("Published", ago(version.published_time), date(version.published_time)),
    fact("Modified", ago(version.modified_time), date(version.modified_time)),
    el("div", {}, el("dt", {}, "Content"), el("dd", {}, el("code", { title: version.content_id }, shortId(version.content_id), "…"), " ", copyButton(version.content_id, "the content id"))),
  );
}

const fact = (name, text, title) => el("div", {}, el("dt", {}, name), el("dd", { title }, text));

function actions(name, version, newest, gateway) {
  const pinned = version.content_id !== newest.content_id;
  const path = `/files/${inPath(name)}${pinned ? `@${version.content_id}` : ""}`;
  const link = gateway
    ? el("a", { id: "download", class: "button main", href: `${gateway.url}${path}?download`, rel: "noreferrer" }, "Download")
    : el("p", { class: "note" }, "No gateway answers, so the browser cannot fetch it. Start a peer on this machine (", el("code", {}, "minga peer --share DIR"), "), or use a line below.");
  const through = gateway && el("span", { class: "help" }, gateway.peer ? `through peer ${gateway.peer}` : "through your gateway");
  return el("section", { class: "actions", "aria-label": "Fetch" }, el("p", { class: "fetch" }, link, through), lines(name, version, pinned, (gateway?.url ?? own()) + path, gateway));
}

/** The same as commands. */
function lines(name, version, pinned, url, gateway) {
  const at = pinned ? `@${version.content_id}` : "";
  const dashes = name.startsWith("-") ? "-- " : "";
  const needsGrant = grant() && Object.keys(headersFor(gateway?.url ?? own())).length > 0;
  const base = baseName(name);
  const all = [
    ["minga", `minga get -o . ${dashes}${quoted(name + at)}`],
    ["curl", `curl -f${needsGrant ? ' -H "Authorization: Bearer $GRANT"' : ""} -o ${quoted(base.startsWith("-") ? `./${base}` : base)} ${quoted(url)}`],
    ["Python", `import minga; file = minga.Client().open(${JSON.stringify(name + at)})`],
  ];
  return el("dl", { class: "lines" }, all.map(([title, line]) => el("div", {}, el("dt", {}, title), el("dd", {}, el("code", { tabindex: 0 }, shown(line)), copyButton(line, `the ${title} line`)))));
}

function spread(version, living) {
  const whole = version.complete_count;
  const share = percent(whole, living);
  const words = whole
    ? `${count(whole)} of ${plural(living, "peer")} ${whole === 1 ? "has" : "have"} all of it${version.partial_count ? `, ${count(version.partial_count)} more some of it` : ""}.`
    : `No living peer has all of it; ${plural(version.partial_count, "peer has", "peers have")} some of it.`;
  const warning = whole === 1 && living > 1 ? " If that peer goes, so does the file." : "";
  return el(
    "section",
    { "aria-labelledby": "spread-title" },
    el("h2", { id: "spread-title" }, "Spread"),
    el("progress", { max: 100, value: share, "aria-label": "Share of the peers that have all of it" }),
    el("p", {}, words, warning),
    el("p", { id: "speed", class: "help" }),
  );
}

/** How fast copies come to be, from successive answers. */
function spreading(state, version) {
  const now = performance.now();
  if (state.spread[0]?.content_id !== version.content_id) state.spread = [];
  state.spread.push({ content_id: version.content_id, at: now, whole: version.complete_count });
  state.spread = state.spread.filter((sample) => now - sample.at < 60_000);
  const [first] = state.spread;
  const gained = version.complete_count - first.whole;
  if (gained <= 0) return version.partial_count ? "Copies are under way." : "";
  const perSecond = gained / ((now - first.at) / 1000);
  const left = version.partial_count ? `; the ${plural(version.partial_count, "one", "ones")} under way may take ${duration(version.partial_count / perSecond)} more` : "";
  return `${plural(gained, "new copy", "new copies")} in the last ${duration((now - first.at) / 1000)}${left}.`;
}

function sources(version) {
  const all = version.complete_count + version.partial_count;
  if (!version.sources.length) return null;
  const rows = version.sources.map((source) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, source.peer_id),
      el("td", {}, el("span", { class: source.state === "complete" ? "tag good" : "tag" }, source.state === "complete" ? "all of it" : "some of it")),
      el("td", {}, source.zone || "–"),
      el("td", { class: "wide" }, el("code", {}, source.address)),
    ),
  );
  const shownOf = all > version.sources.length ? ` (${version.sources.length} of ${count(all)}, drawn at random)` : "";
  return el(
    "section",
    { "aria-labelledby": "sources-title" },
    el("h2", { id: "sources-title" }, `Holders${shownOf}`),
    el("table", { class: "list" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Peer"), el("th", { scope: "col" }, "Has"), el("th", { scope: "col" }, "Zone"), el("th", { scope: "col", class: "wide" }, "Address"))), el("tbody", {}, rows)),
  );
}

function versions(file, version, choose) {
  if (file.versions.length < 2) return null;
  const rows = file.versions.map((each, index) =>
    el(
      "li",
      {},
      el("button", { type: "button", id: `version-${index}`, class: "version", "aria-pressed": String(each === version), onclick: () => choose(each.content_id) }, el("code", {}, shortId(each.content_id)), el("span", {}, date(each.published_time)), el("span", { class: "figure" }, bytes(each.size_bytes)), el("span", {}, plural(each.complete_count, "whole copy", "whole copies")), index === 0 ? el("span", { class: "tag good" }, "default") : null),
    ),
  );
  return el("section", { "aria-labelledby": "versions-title" }, el("h2", { id: "versions-title" }, "Versions"), el("ul", { class: "versions" }, rows));
}
