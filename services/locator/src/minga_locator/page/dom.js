// Elements are made here alone: what comes from the network becomes text, never markup.

/** A new element. Attributes that are null or false are left out; `on…` are listeners; children are nodes and text. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Sets the text of a node where it differs: a status that is set again would be read aloud again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Reads `text` to those who use a screen reader. */
export const announce = (text) => say(byId("announcer"), text);

/** A button that copies `text`. */
export function copyButton(text, label) {
  const button = el("button", { type: "button", class: "quiet copy", "aria-label": `Copy ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    const copied = await copy(text);
    button.textContent = copied ? "Copied" : "Select and copy";
    announce(copied ? "Copied" : "This browser does not let the page copy: select the line and copy it.");
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

// navigator.clipboard is there on HTTPS and on this machine alone.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "unseen", "aria-hidden": "true" });
    const focused = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}

/** The arrow keys move between the links of a list. */
export function arrowKeys(list, selector) {
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches(selector)) return;
    const links = [...list.querySelectorAll(selector)];
    const next = links[links.indexOf(event.target) + step];
    if (next) next.focus();
    event.preventDefault();
  });
}
