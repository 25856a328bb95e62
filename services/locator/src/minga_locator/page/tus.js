// Uploads that go on where they broke off (tus 1.0): after a lost connection, and once the page was loaded again and the
// same file is chosen. What is unfinished is remembered for this tab alone.

import { headersFor } from "./gateways.js";

const KEPT = "minga.uploads";
const TRIES = 8;
const LONGEST_PAUSE_MS = 10_000;
const BYTES = "application/offset+octet-stream";

/** A refusal of a gateway; status 0 when the connection broke off. */
class UploadError extends Error {
  constructor(status, text) {
    const { code, detail } = parsed(text);
    super(detail ?? (status ? `The gateway refused it (${status}).` : "The connection to the gateway broke off."));
    Object.assign(this, { status, passing: [0, 409, 423, 503].includes(status) || code === "busy", gone: status === 404 });
  }
}

/** Unfinished uploads of this tab by name: each has the size and the time of change of its file. */
export const unfinished = () => parsed(sessionStorage.getItem(KEPT));

/** Sends a file, or what is missing of it. `sent` is called with the bytes that the gateway has. */
export async function send(gateway, file, name, sent, signal) {
  let url = begun(gateway, file, name);
  for (let failures = 0; ; ) {
    try {
      let offset = 0;
      if (url) offset = await offsetOf(url, signal);
      else keep(name, { url: (url = await create(gateway, file, name, signal)), size: file.size, modified: file.lastModified });
      if (offset < file.size) await patch(url, file, offset, (at) => (sent(at), (failures = 0)), signal);
      keep(name, null);
      return;
    } catch (error) {
      signal.throwIfAborted();
      failures += 1;
      if (failures > TRIES || !(error.passing || error.gone)) throw error;
      if (error.gone) url = null;
      await pause(Math.min(LONGEST_PAUSE_MS, 500 * 2 ** failures), signal);
    }
  }
}

/** Forgets an unfinished upload, here and at its gateway. */
export async function discard(name) {
  const { url } = unfinished()[name] ?? {};
  keep(name, null);
  if (url) await ask("DELETE", url).catch(() => {}); // It expires.
}

/** The address of the upload that this file goes on with; null when there is none. */
function begun(gateway, file, name) {
  const kept = unfinished()[name];
  return kept?.url.startsWith(`${gateway}/`) && kept.size === file.size && kept.modified === file.lastModified ? kept.url : null;
}

function keep(name, record) {
  const { [name]: _, ...others } = unfinished();
  sessionStorage.setItem(KEPT, JSON.stringify(record ? { ...others, [name]: record } : others));
}

async function create(gateway, file, name, signal) {
  const headers = { "Upload-Length": file.size, "Upload-Metadata": `filename ${base64(name)}` };
  const answer = await ask("POST", `${gateway}/uploads`, headers, signal);
  return new URL(answer.headers.get("Location"), gateway).href;
}

const offsetOf = async (url, signal) => Number((await ask("HEAD", url, {}, signal)).headers.get("Upload-Offset"));

async function ask(method, url, headers = {}, signal = undefined) {
  const answer = await fetch(url, { method, headers: allHeaders(url, headers), signal }).catch(() => null);
  if (!answer?.ok) throw new UploadError(answer?.status ?? 0, await answer?.text());
  return answer;
}

/** fetch() does not say how much of a body has been sent: XMLHttpRequest does. */
function patch(url, file, offset, sent, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PATCH", url);
    for (const [name, value] of Object.entries(allHeaders(url, { "Upload-Offset": offset, "Content-Type": BYTES }))) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => sent(offset + event.loaded));
    request.addEventListener("load", () => (request.status < 300 ? resolve() : reject(new UploadError(request.status, request.responseText))));
    for (const kind of ["error", "abort"]) request.addEventListener(kind, () => reject(new UploadError(0, "")));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file.slice(offset));
  });
}

const allHeaders = (url, headers) => ({ "Tus-Resumable": "1.0.0", ...headersFor(new URL(url).origin), ...headers });

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

/** The object that a text of JSON is; an empty one for other texts. */
function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

const pause = (milliseconds, signal) =>
  new Promise((resolve, reject) => {
    setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
