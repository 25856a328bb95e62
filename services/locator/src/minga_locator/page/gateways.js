// Gateways: peers that are reached over HTTP. The user's own comes first, and only that one is sent the grant: another
// peer could use it at the locator.

import { api, bearer } from "./api.js";

const SETTING = "minga.gateway";
const DEFAULT = "http://127.0.0.1:50080";
const KEPT_MS = 10_000;
const ANSWER_MS = 1500;
const known = new Map();

/** The origin that `text` names, or null: no other scheme than HTTP's becomes a link. */
export function origin(text) {
  try {
    const url = new URL(text);
    return ["http:", "https:"].includes(url.protocol) ? url.origin : null;
  } catch {
    return null;
  }
}

export const own = () => origin(localStorage.getItem(SETTING)) ?? DEFAULT;

/** Keeps the user's own gateway; an empty text is the default. False when that is no HTTP address. */
export function setOwn(text) {
  if (text && !origin(text)) return false;
  if (text) localStorage.setItem(SETTING, origin(text));
  else localStorage.removeItem(SETTING);
  known.clear();
  return true;
}

export const headersFor = (gateway) => (gateway === own() ? bearer() : {});

/** Living peers, at most a thousand. */
export const peers = () => remembered("peers", async () => (await api("/v1/peers", { page_size: 1000 })).peers);

/** Whether the user's own gateway answers this page. */
export const ownAnswers = () =>
  remembered("own", async () => {
    try {
      return (await fetch(`${own()}/health`, { signal: AbortSignal.timeout(ANSWER_MS) })).ok;
    } catch {
      return false;
    }
  });

/** Gateways of peers, by peer id. */
export async function ofPeers() {
  const found = (await peers()).map((peer) => [peer.peer_id, origin(peer.gateway_url)]);
  return new Map(found.filter(([, gateway]) => gateway));
}

/** The gateway to fetch from or upload to: the user's own, one of `holders` (peer ids), any; null when there is none. */
export async function best(holders = []) {
  if (await ownAnswers()) return { url: own(), peer: "" };
  const others = await ofPeers();
  const peer = holders.find((holder) => others.has(holder)) ?? others.keys().next().value;
  return peer === undefined ? null : { url: others.get(peer), peer };
}

async function remembered(key, ask) {
  const entry = known.get(key);
  if (entry && performance.now() - entry.at < KEPT_MS) return entry.answer;
  const answer = ask();
  known.set(key, { answer, at: performance.now() });
  answer.catch(() => known.delete(key));
  return answer;
}
