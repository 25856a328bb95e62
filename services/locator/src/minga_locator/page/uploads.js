// Uploads: files that are dropped or chosen are sent to a gateway, which has the locator place them. What a reload has
// broken off goes on once the same file is dropped or chosen again.

import { announce, byId, el, say } from "./dom.js";
import { best } from "./gateways.js";
import { discard, send, unfinished } from "./tus.js";
import { bytes, duration, percent, rate, shown } from "./words.js";

const AT_ONCE = 2;
const SHOWN_EVERY_MS = 250;
const waiting = [];
const uploads = new Map();
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
  Object.keys(unfinished()).forEach(showBrokenOff);
}

/** Lets the user choose files for that folder. */
export const pickFiles = (folder) => pick({ multiple: true }, (file) => enqueue(file, folder + file.name));

function pick(options, chosen) {
  const input = el("input", { type: "file", ...options });
  input.addEventListener("change", () => [...input.files].forEach(chosen));
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
  if (uploads.has(name)) withdraw(uploads.get(name));
  const upload = { file, name, samples: [], canceller: new AbortController() };
  upload.bar = el("progress", { max: 100, value: 0, "aria-label": `Sent of ${shown(name)}` });
  upload.text = el("span", { class: "help" }, "waiting");
  upload.button = el("button", { type: "button", class: "quiet", "aria-label": `Cancel ${shown(name)}` }, "Cancel");
  upload.button.addEventListener("click", () => dismiss(upload));
  addRow(upload, upload.button, upload.bar, upload.text);
  waiting.push(upload);
  runWaiting();
}

/** An upload that another load of the page began. */
function showBrokenOff(name) {
  const upload = { name };
  const again = el("button", { type: "button", class: "quiet", onclick: () => pick({}, (file) => enqueue(file, name)) }, "Choose the file");
  const button = el("button", { type: "button", class: "quiet", "aria-label": `Dismiss ${shown(name)}`, onclick: () => dismiss(upload) }, "Dismiss");
  addRow(upload, el("span", {}, again, " ", button), el("span", { class: "help" }, "Broken off. It goes on once the same file is chosen, or dropped into its folder."));
}

function addRow(upload, ...parts) {
  upload.row = el("li", {}, el("bdi", {}, shown(upload.name)), parts);
  uploads.set(upload.name, upload);
  listElement().append(upload.row);
  byId("uploads").hidden = false;
}

function listElement() {
  const tray = byId("uploads");
  if (!tray.firstChild) tray.append(el("h2", {}, "Uploads"), el("ul", {}));
  return tray.querySelector("ul");
}

/** Ends an upload, which may go on later. */
function withdraw(upload) {
  const at = waiting.indexOf(upload);
  if (at >= 0) waiting.splice(at, 1);
  upload.canceller?.abort();
  upload.row.remove();
  uploads.delete(upload.name);
}

function dismiss(upload) {
  withdraw(upload);
  discard(upload.name);
  byId("uploads").hidden = !listElement().firstChild;
}

async function runWaiting() {
  if (running >= AT_ONCE || !waiting.length) return;
  running += 1;
  const upload = waiting.shift();
  try {
    await start(upload);
    finished(upload, "Uploaded", "good");
    document.dispatchEvent(new CustomEvent("minga:uploaded"));
  } catch (error) {
    if (!upload.canceller.signal.aborted) finished(upload, error.message, "bad");
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

async function start(upload) {
  const gateway = await best();
  if (!gateway) throw new Error("No gateway answers. Start a peer on this machine, or set its address under Settings.");
  await send(gateway.url, upload.file, upload.name, (sent) => progress(upload, sent), upload.canceller.signal);
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
