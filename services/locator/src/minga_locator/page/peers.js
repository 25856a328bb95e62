// The living peers.

import { api, inWords } from "./api.js";
import { el, say } from "./dom.js";
import { origin } from "./gateways.js";
import { every } from "./poll.js";
import { bytes, count, duration, percent, plural } from "./words.js";

const PAGE_SIZE = 100;
const REFRESH_SECONDS = 4;

/** Shows a page of them, as they are now. */
export function peersView(root, signal) {
  const status = el("p", { class: "status", role: "status" }, "Looking them up …");
  const body = el("tbody");
  const titles = ["Peer", "Zone", "Space", "Files", "Serving", "Lease", "Version"];
  const wide = new Set(["Files", "Serving", "Version"]);
  const table = el(
    "table",
    { class: "list peers", hidden: true },
    el("caption", { class: "unseen" }, "Living peers"),
    el("thead", {}, el("tr", {}, titles.map((title) => el("th", { scope: "col", class: wide.has(title) ? "wide" : null }, title)))),
    body,
  );
  const view = { tokens: [""], next: "", status, body, table, signal };
  const turn = (change) => () => (change(), refresh(view));
  view.back = el("button", { type: "button", class: "quiet", onclick: turn(() => view.tokens.pop()) }, "Previous");
  view.forth = el("button", { type: "button", class: "quiet", onclick: turn(() => view.tokens.push(view.next)) }, "Next");
  root.replaceChildren(el("h1", {}, "Peers"), status, table, el("p", { class: "buttons" }, view.back, view.forth));
  every(REFRESH_SECONDS, () => refresh(view), signal);
}

async function refresh(view) {
  try {
    const page = await api("/v1/peers", { page_size: PAGE_SIZE, page_token: view.tokens.at(-1) }, view.signal);
    view.next = page.next_page_token;
    view.body.replaceChildren(...page.peers.map(row));
    view.table.hidden = !page.peers.length;
    say(view.status, page.peers.length ? "" : "No peer is connected now. One starts with: minga peer --share DIR");
  } catch (error) {
    if (error.name === "AbortError") throw error;
    say(view.status, inWords(error));
    view.table.hidden = true;
    view.next = "";
  }
  view.back.hidden = view.tokens.length < 2;
  view.forth.hidden = !view.next;
}

function row(peer) {
  const used = Math.max(0, peer.capacity_bytes - peer.free_bytes);
  const gateway = origin(peer.gateway_url);
  const share = percent(used, peer.capacity_bytes);
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, peer.peer_id, el("small", {}, gateway ? el("a", { href: `${gateway}/files/`, rel: "noreferrer" }, gateway) : peer.address)),
    el("td", {}, peer.zone || "–"),
    el("td", {}, el("progress", { max: 100, value: share, "aria-label": `Space in use at ${peer.peer_id}`, class: share >= 95 ? "full" : null }), el("small", {}, `${bytes(peer.free_bytes)} free of ${bytes(peer.capacity_bytes)}`)),
    el("td", { class: "figure wide" }, count(peer.file_count)),
    el("td", { class: "wide" }, peer.active_serves ? plural(peer.active_serves, "stream") : "idle"),
    el("td", { title: "Listed for this long unless it renews its lease" }, duration(peer.lease_remaining_seconds)),
    el("td", { class: "wide" }, peer.software_version),
  );
}
