// The page: which view is shown, and the health of the network in words.

import { api, grant, inWords } from "./api.js";
import { byId, say } from "./dom.js";
import { fileView } from "./file.js";
import { filesView, searchKey } from "./files.js";
import { peersView } from "./peers.js";
import { every } from "./poll.js";
import { openSettings, prepareSettings } from "./settings.js";
import { transfersView } from "./transfers.js";
import { prepareUploads } from "./uploads.js";
import { bytes, plural } from "./words.js";

const HEALTH_SECONDS = 10;
const NEARLY_FULL = 0.05;
let shownView = new AbortController();
let asked = false;

/** What the address names: a view, a name or prefix, and a search. */
function place() {
  const [path, query] = location.hash.slice(1).split("?");
  const [, view = "files", ...rest] = path.split("/");
  let name = "";
  try {
    name = decodeURIComponent(rest.join("/"));
  } catch {
    // Not an address that this page has made.
  }
  return { view, name, query: new URLSearchParams(query).get("q") ?? "" };
}

/** The folder that is shown: files that are dropped go there. */
const shownFolder = () => (place().view === "files" ? place().name : "");

function show() {
  shownView.abort();
  shownView = new AbortController();
  const { signal } = shownView;
  const root = byId("view");
  const { view, name, query } = place();
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === (view === "file" ? "files" : view)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = name ? `${name} – Minga` : "Minga";
  if (view === "peers") peersView(root, signal);
  else if (view === "transfers") transfersView(root, signal);
  else if (view === "file" && name) fileView(root, name, signal);
  else filesView(root, view === "files" ? name : "", query, signal);
}

function moved() {
  show();
  window.scrollTo(0, 0);
  byId("view").focus({ preventScroll: true });
}

async function health() {
  const node = byId("health");
  try {
    const stats = await api("/v1/stats");
    const [state, words] = healthOf(stats);
    node.dataset.state = state;
    say(node, words);
  } catch (error) {
    node.dataset.state = "bad";
    say(node, inWords(error));
    if (error.code === "unauthenticated" && !asked) {
      asked = true;
      openSettings(inWords(error));
    }
  }
}

function healthOf(stats) {
  const least = stats.lower_bound ? "at least " : "";
  const words = `${least}${plural(stats.live_peers, "peer")}, ${plural(stats.names, "file")}, ${bytes(stats.free_bytes)} free`;
  if (!stats.live_peers) return ["bad", "No peer is connected"];
  if (stats.free_bytes < NEARLY_FULL * stats.capacity_bytes) return ["warn", `Nearly full: ${words}`];
  return ["good", `All is well: ${words}`];
}

function changed() {
  asked = false;
  health();
  show();
}

function drawGrant() {
  byId("open-settings").textContent = grant() ? "Signed in" : "Settings";
}

prepareSettings(() => (drawGrant(), changed()));
prepareUploads(shownFolder);
searchKey();
drawGrant();
addEventListener("hashchange", moved);
show();
every(HEALTH_SECONDS, health, new AbortController().signal);
