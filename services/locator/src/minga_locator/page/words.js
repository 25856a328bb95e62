// Figures and names in words.

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const COUNT = new Intl.NumberFormat("en");
const DATE = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const SPANS = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]];

export const count = (number) => COUNT.format(number);
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export function bytes(size) {
  let unit = 0;
  for (; size >= 1024 && unit < UNITS.length - 1; unit += 1) size /= 1024;
  return unit === 0 ? plural(size, "byte") : `${size >= 100 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

export const rate = (bytesPerSecond) => `${bytes(Math.round(bytesPerSecond))}/s`;

/** How long that is, in its two largest units. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "";
  seconds = Math.max(0, Math.ceil(seconds));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return plural(Math.round(seconds / 86400), "day");
}

export const date = (text) => DATE.format(new Date(text));

export function ago(text) {
  let value = (Date.parse(text) - Date.now()) / 1000;
  for (const [unit, length] of SPANS) {
    if (Math.abs(value) < length) return AGO.format(Math.round(value), unit);
    value /= length;
  }
  return "";
}

export const percent = (part, whole) => (whole ? Math.floor((100 * part) / whole) : 100);

// Characters that turn the direction of text, or have no width: with them a name looks like another one.
const DECEIVING = /[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/gu;

/** A name as it is shown. */
export const shown = (name) => name.replace(DECEIVING, (found) => `‹U+${found.codePointAt(0).toString(16).padStart(4, "0").toUpperCase()}›`);

export const baseName = (name) => name.slice(name.lastIndexOf("/") + 1);
export const folderOf = (name) => name.slice(0, name.lastIndexOf("/") + 1);
export const inPath = (name) => name.split("/").map(encodeURIComponent).join("/");
export const shortId = (contentId) => contentId.slice(0, 15);

/** `text` as one word of a POSIX shell. */
export const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
