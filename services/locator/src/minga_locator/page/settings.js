// The dialog of settings: the user's gateway, and signing in.

import { grant, setGrant } from "./api.js";
import { byId } from "./dom.js";
import { own, setOwn } from "./gateways.js";

/** Makes the dialog work. `changed` is called when something else is in force. */
export function prepareSettings(changed) {
  const dialog = byId("settings");
  byId("open-settings").addEventListener("click", () => openSettings());
  byId("close-settings").addEventListener("click", () => dialog.close());
  byId("sign-out").addEventListener("click", () => {
    setGrant("");
    dialog.close();
    changed();
  });
  byId("settings-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const gateway = byId("gateway");
    gateway.setCustomValidity(setOwn(gateway.value.trim()) ? "" : "An HTTP address, such as http://127.0.0.1:50080");
    if (!gateway.reportValidity()) return;
    setGrant(byId("grant").value.replace(/\s/g, ""));
    dialog.close();
    changed();
  });
  byId("gateway").addEventListener("input", (event) => event.target.setCustomValidity(""));
}

/** Opens it; `reason` says why when nobody asked for it. */
export function openSettings(reason = "") {
  const dialog = byId("settings");
  if (dialog.open) return;
  byId("gateway").value = own();
  byId("grant").value = grant();
  byId("sign-out").hidden = !grant();
  byId("settings-reason").textContent = reason;
  byId("settings-reason").hidden = !reason;
  dialog.showModal();
  if (reason) byId("grant").focus();
}
