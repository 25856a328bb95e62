// Requests to the locator, with the user's grant where there is one.

const GRANT = "minga.grant";
const TIMEOUT_MS = 10_000;

/** A refusal. `code` is one of the API's, or `unreachable`. */
export class ApiError extends Error {
  constructor(status, code, detail) {
    super(detail);
    Object.assign(this, { status, code });
  }
}

export const grant = () => sessionStorage.getItem(GRANT) ?? "";
export const setGrant = (text) => (text ? sessionStorage.setItem(GRANT, text) : sessionStorage.removeItem(GRANT));
export const bearer = () => (grant() ? { Authorization: `Bearer ${grant()}` } : {});

/** The JSON at a path of this locator. Throws ApiError, and AbortError when `signal` is aborted. */
export const api = (path, parameters = {}, signal = undefined) => json(`${path}?${new URLSearchParams(parameters)}`, bearer(), signal);

/** The JSON at a URL. */
export async function json(url, headers, signal = undefined) {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  let body;
  try {
    response = await fetch(url, { headers: { Accept: "application/json", ...headers }, signal: signal ? AbortSignal.any([signal, limit]) : limit });
    body = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (!response || response.ok) throw new ApiError(0, "unreachable", "no answer");
    body = {}; // of a proxy, and no JSON
  }
  if (!response.ok) throw new ApiError(response.status, body.code ?? "http_error", body.detail ?? response.statusText);
  return body;
}

/** What went wrong, for people. */
export function inWords(error) {
  switch (error.code) {
    case "unreachable":
      return "The locator does not answer. It is asked again.";
    case "store_unavailable":
    case "unavailable":
      return "The directory does not answer, so nothing can be looked up. Transfers under way go on.";
    case "busy":
      return "The locator is busy. It is asked again.";
    case "unauthenticated":
      return grant() ? `Your grant is refused: ${error.message}.` : "This network is secure. Sign in with a grant to see it.";
    case "permission_denied":
      return `Your grant does not permit this: ${error.message}.`;
    default:
      return error.message;
  }
}
