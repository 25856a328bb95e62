// Transfers as they go. The directory knows who has some of a file; how much, and how fast, the peers themselves say
// at their gateways.

import { json } from "./api.js";
import { el, say } from "./dom.js";
import { fileLink } from "./files.js";
import { headersFor, ofPeers, own, ownAnswers } from "./gateways.js";
import { every } from "./poll.js";
import { bytes, duration, percent, plural, rate, shown } from "./words.js";

const MAX_GATEWAYS = 16;

/** Shows the downloads of every peer whose gateway answers this page. */
export function transfersView(root, signal) {
  const status = el("p", { class: "status", role: "status" }, "Asking the gateways …");
  const body = el("div");
  root.replaceChildren(el("h1", {}, "Transfers"), status, body);
  every(2, () => refresh(status, body, signal), signal);
}

async function refresh(status, body, signal) {
  const asked = new Map();
  if (await ownAnswers()) asked.set(own(), "your peer");
  const others = await ofPeers().catch(() => new Map());
  for (const [peer, gateway] of [...others].slice(0, MAX_GATEWAYS)) if (!asked.has(gateway)) asked.set(gateway, peer);
  const answers = await Promise.allSettled([...asked].map(([gateway, peer]) => transfersOf(gateway, peer, signal)));
  const answered = answers.filter((each) => each.status === "fulfilled").map((each) => each.value);
  body.replaceChildren(...answered.filter((each) => each.transfers.length).map(section));
  say(status, sentence(answered));
}

async function transfersOf(gateway, peer, signal) {
  const { transfers } = await json(`${gateway}/transfers`, headersFor(gateway), signal);
  return { peer, transfers };
}

function sentence(answered) {
  if (!answered.length) {
    return "No gateway answers this page, so how far transfers are is not known here. A file’s own page shows which peers have some of it; `minga status` shows the downloads of the peer on that machine.";
  }
  const busy = answered.reduce((sum, each) => sum + each.transfers.length, 0);
  return busy ? `${plural(busy, "download")} under way.` : `Nothing is being fetched. ${plural(answered.length, "gateway")} asked.`;
}

function section({ peer, transfers }) {
  return el("section", { "aria-label": peer }, el("h2", {}, peer), el("ul", { class: "transfers" }, transfers.map(transfer)));
}

function transfer(each) {
  const share = percent(each.held_bytes, each.size_bytes);
  const left = each.rate_bytes_per_second > 0 ? `${duration((each.size_bytes - each.held_bytes) / each.rate_bytes_per_second)} left` : "waiting for a source";
  return el(
    "li",
    {},
    el("a", { href: fileLink(each.name) }, el("bdi", {}, shown(each.name))),
    el("progress", { max: 100, value: share, "aria-label": `Part of ${shown(each.name)} that is there` }),
    el("p", { class: "help" }, `${bytes(each.held_bytes)} of ${bytes(each.size_bytes)} · ${rate(each.rate_bytes_per_second)} from ${plural(each.active_source_count, "source")} · ${left}`),
  );
}
