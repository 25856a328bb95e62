// The catalogue: folders, and a search through all names below one.

import { ApiError, api, inWords } from "./api.js";
import { announce, arrowKeys, byId, el, say } from "./dom.js";
import { ago, bytes, count, date, inPath, plural, shown } from "./words.js";
import { pickFiles } from "./uploads.js";

const PAGE_SIZE = 100;
const TYPING_MS = 150;

export const folderLink = (folder) => `#/files/${inPath(folder)}`;
export const fileLink = (name) => `#/file/${inPath(name)}`;

/** Shows a folder, or what a search in it finds. */
export function filesView(root, folder, query, signal) {
  const search = searchField(folder, query);
  // Folders stand before all files, those of later pages too.
  const [folders, files] = [el("tbody"), el("tbody")];
  const status = el("p", { class: "status", role: "status" });
  const more = el("button", { type: "button", class: "quiet", hidden: true }, "Show more");
  const table = el(
    "table",
    { class: "list", hidden: true },
    el("caption", { class: "unseen" }, "Folders and files"),
    el("thead", {}, el("tr", {}, ["Name", "Size", "Published"].map((title) => el("th", { scope: "col" }, title)))),
    folders,
    files,
  );
  const upload = el("button", { type: "button", class: "main", onclick: () => pickFiles(folder) }, "Upload");
  root.replaceChildren(
    el("div", { class: "bar" }, el("h1", { class: "unseen" }, folder ? shown(folder) : "Files"), search, upload),
    breadcrumbs(folder),
    status,
    table,
    more,
  );
  arrowKeys(table, "a");
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") table.querySelector("a")?.focus();
  });
  listAsTyped({ folder, search, folders, files, table, status, more, signal });
}

function searchField(folder, query) {
  const label = folder ? `Search in ${shown(folder)}` : "Search all files";
  const field = el("input", { type: "search", id: "search", spellcheck: "false", autocomplete: "off", placeholder: label, "aria-label": label, maxlength: 1024 });
  field.value = query;
  return field;
}

function breadcrumbs(folder) {
  const parts = folder.split("/").filter(Boolean);
  const steps = parts.map((part, index) => [shown(part), `${parts.slice(0, index + 1).join("/")}/`]);
  const links = [["All files", ""], ...steps].map(([text, to]) => el("li", {}, el("a", { href: folderLink(to), "aria-current": to === folder ? "page" : null }, el("bdi", {}, text))));
  return el("nav", { "aria-label": "Folder", class: "crumbs" }, el("ol", {}, links));
}

/** Lists anew at each change of the search field; what an older text asked for is aborted. */
function listAsTyped(view) {
  let asked = new AbortController();
  let typing = 0;

  async function list() {
    asked.abort();
    asked = new AbortController();
    const signal = AbortSignal.any([asked.signal, view.signal]);
    const text = view.search.value.trim();
    history.replaceState(null, "", `${folderLink(view.folder)}${text ? `?${new URLSearchParams({ q: text })}` : ""}`);
    await listOnce(view, text, signal);
  }

  view.search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(list, TYPING_MS);
  });
  view.signal.addEventListener("abort", () => (clearTimeout(typing), asked.abort()));
  document.addEventListener("minga:uploaded", list, { signal: view.signal });
  list();
}

async function listOnce(view, text, signal) {
  const parameters = { prefix: view.folder, page_size: PAGE_SIZE, ...(text ? { query: text } : { folders: true }) };
  let token = "";
  let listed = 0;

  // A page may have no files although more follow: a search looks at so many names at a time.
  async function next() {
    const wanted = listed + PAGE_SIZE;
    view.more.hidden = true;
    if (text) say(view.status, "Searching …");
    do {
      const page = await api("/v1/files", { ...parameters, page_token: token }, signal);
      if (listed === 0) view.folders.replaceChildren(), view.files.replaceChildren();
      view.folders.append(...page.folders.map((name) => folderRow(name, view.folder)));
      view.files.append(...page.files.map((file) => fileRow(file, view.folder, text)));
      listed += page.folders.length + page.files.length;
      view.table.hidden = listed === 0;
      token = page.next_page_token;
    } while (token && listed < wanted);
    view.more.hidden = !token;
    sum(view, text, listed, Boolean(token));
  }

  const guarded = async () => {
    try {
      await next();
    } catch (error) {
      if (error instanceof ApiError) failed(view, error);
      else if (error.name !== "AbortError") throw error;
    }
  };
  view.more.onclick = guarded;
  await guarded();
}

function failed(view, error) {
  say(view.status, inWords(error));
  view.table.hidden = true;
}

function sum(view, text, listed, more) {
  const all = `${more ? "the first " : ""}${count(listed)}`;
  if (text) say(view.status, listed ? `${all} found` : "Nothing found. A part of the name finds a file, and so does a pattern such as *.parquet.");
  else if (listed) say(view.status, "");
  else say(view.status, view.folder ? "Nothing here." : "There are no files yet. Drop some here, or put them into a peer’s shared folder.");
  if (text) announce(`${listed} found`);
}

function folderRow(name, folder) {
  const link = el("a", { href: folderLink(name), class: "folder" }, el("bdi", {}, shown(name.slice(folder.length))));
  return el("tr", {}, el("td", {}, link), el("td", {}), el("td", {}));
}

function fileRow(file, folder, text) {
  const notes = [
    file.version_count > 1 ? el("span", { class: "tag" }, plural(file.version_count, "version")) : null,
    file.newer_incomplete ? el("span", { class: "tag warn" }, "newer one incomplete") : null,
  ];
  const name = shown(file.name.slice(folder.length));
  const link = el("a", { href: fileLink(file.name), class: "file" }, el("bdi", {}, text ? marked(name, text) : name));
  return el(
    "tr",
    {},
    el("td", {}, link, notes),
    el("td", { class: "figure" }, bytes(file.size_bytes)),
    el("td", {}, el("time", { datetime: file.published_time, title: date(file.published_time) }, ago(file.published_time))),
  );
}

/** The name with what was searched for marked. */
function marked(name, text) {
  const at = name.toLowerCase().indexOf(text.toLowerCase());
  if (at < 0) return name;
  const end = at + text.length;
  return [name.slice(0, at), el("mark", {}, name.slice(at, end)), name.slice(end)];
}

/** `/` goes to the search field from everywhere. */
export function searchKey() {
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) return;
    const field = byId("search");
    if (field) field.focus();
    else location.hash = "#/files/";
    event.preventDefault();
  });
}
