// Uploads: files that are dropped or chosen are sent to a gateway, which has the locator place them.

import { announce, byId, el, say } from "./dom.js";
import { best, headersFor } from "./gateways.js";
import { bytes, duration, inPath, percent, rate, shown } from "./words.js";

const AT_ONCE = 2;
const SHOWN_EVERY_MS = 250;
const waiting = [];
let running = 0;

/** Files that are dropped anywhere are uploaded to the folder that `folderOf` names at that moment. */
export function prepareUploads(folderOf) {
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dropping", depth > 0);
  };
  const withFiles = (handle) => (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    handle(event);
  };
  addEventListener("dragenter", withFiles(() => mark(1)));
  addEventListener("dragleave", withFiles(() => mark(-1)));
  addEventListener("dragover", withFiles(() => {}));
  addEventListener("drop", withFiles((event) => {
    mark(-depth);
    const folder = folderOf();
    // The list of items is empty once this handler waits.
    for (const item of event.dataTransfer.items) {
      const [entry, file] = [item.webkitGetAsEntry(), item.getAsFile()];
      if (entry?.isDirectory) enqueueEntry(entry, folder);
      else if (file) enqueue(file, folder + file.name);
    }
  }));
  addEventListener("beforeunload", (event) => {
    if (running || waiting.length) event.preventDefault();
  });
}

/** Lets the user choose files for that folder. */
export function pickFiles(folder) {
  const input = el("input", { type: "file", multiple: true });
  input.addEventListener("change", () => [...input.files].forEach((file) => enqueue(file, folder + file.name)));
  input.click();
}

async function enqueueEntry(entry, folder) {
  if (entry.isFile) {
    entry.file((file) => enqueue(file, folder + entry.name));
    return;
  }
  const reader = entry.createReader();
  const some = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  // It gives a hundred at a time.
  for (let entries = await some(); entries.length; entries = await some()) {
    for (const each of entries) await enqueueEntry(each, `${folder}${entry.name}/`);
  }
}

function enqueue(file, name) {
  const upload = { file, name, sent: 0, samples: [], done: false };
  upload.bar = el("progress", { max: 100, value: 0, "aria-label": `Sent of ${shown(name)}` });
  upload.text = el("span", { class: "help" }, "waiting");
  upload.button = el("button", { type: "button", class: "quiet", "aria-label": `Cancel ${shown(name)}` }, "Cancel");
  upload.row = el("li", {}, el("bdi", {}, shown(name)), upload.button, upload.bar, upload.text);
  upload.button.addEventListener("click", () => dismiss(upload));
  listElement().append(upload.row);
  byId("uploads").hidden = false;
  waiting.push(upload);
  runWaiting();
}

function listElement() {
  const tray = byId("uploads");
  if (!tray.firstChild) tray.append(el("h2", {}, "Uploads"), el("ul", {}));
  return tray.querySelector("ul");
}

function dismiss(upload) {
  const at = waiting.indexOf(upload);
  if (at >= 0) waiting.splice(at, 1);
  upload.request?.abort();
  upload.row.remove();
  byId("uploads").hidden = !listElement().firstChild;
}

async function runWaiting() {
  if (running >= AT_ONCE || !waiting.length) return;
  running += 1;
  const upload = waiting.shift();
  try {
    await send(upload);
    finished(upload, "Uploaded", "good");
    document.dispatchEvent(new CustomEvent("minga:uploaded"));
  } catch (error) {
    finished(upload, error.message, "bad");
  } finally {
    running -= 1;
    runWaiting();
  }
}

function finished(upload, text, state) {
  upload.bar.hidden = true;
  upload.text.className = `help ${state}`;
  say(upload.text, text);
  upload.button.textContent = "Dismiss";
  upload.button.setAttribute("aria-label", `Dismiss ${shown(upload.name)}`);
  announce(`${shown(upload.name)}: ${text}`);
}

async function send(upload) {
  const gateway = await best();
  if (!gateway) throw new Error("No gateway answers. Start a peer on this machine, or set its address under Settings.");
  await put(upload, `${gateway.url}/files/${inPath(upload.name)}`, headersFor(gateway.url));
}

/** fetch() does not say how much of a body has been sent: XMLHttpRequest does. */
function put(upload, url, headers) {
  return new Promise((resolve, reject) => {
    const request = (upload.request = new XMLHttpRequest());
    request.open("PUT", url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => progress(upload, event.loaded));
    request.addEventListener("load", () => (request.status < 300 ? resolve() : reject(new Error(refusal(request)))));
    request.addEventListener("error", () => reject(new Error("The connection to the gateway broke off.")));
    request.addEventListener("abort", () => reject(new Error("Cancelled")));
    request.send(upload.file);
  });
}

function refusal(request) {
  try {
    return JSON.parse(request.responseText).detail;
  } catch {
    return `The gateway refused it (${request.status}).`;
  }
}

function progress(upload, sent) {
  const now = performance.now();
  if (now - (upload.samples.at(-1)?.at ?? -Infinity) < SHOWN_EVERY_MS && sent < upload.file.size) return;
  upload.samples = [...upload.samples.filter((sample) => now - sample.at < 5000), { at: now, sent }];
  const [first] = upload.samples;
  const speed = ((sent - first.sent) / (now - first.at)) * 1000;
  upload.bar.value = percent(sent, upload.file.size);
  if (sent >= upload.file.size) say(upload.text, `${bytes(sent)} sent; the copies are being made …`);
  else say(upload.text, [`${bytes(sent)} of ${bytes(upload.file.size)}`, ...(speed > 0 ? [rate(speed), `${duration((upload.file.size - sent) / speed)} left`] : [])].join(" · "));
}
