// The server's API, and one sentence for whatever goes wrong with it. Knows no element of the page.

import { events } from "./sse.js";

const KEY = "embinv-api-key";

/** An answer other than 200, or none at all; `message` is for the reader of the page. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** The absolute address of a path of the API, also behind a reverse proxy that puts it under a folder. */
export const address = (path) => new URL(path, document.baseURI).href;

export async function encoders(signal) {
  return await json(await send("encoders", { signal }));
}

/** The vector of a text, Float32Array. */
export async function encode(encoder, text, signal) {
  const response = await post(`encode/${encodeURIComponent(encoder)}`, { text }, signal);
  const vector = (await json(response)).embeddings?.[0];
  if (!Array.isArray(vector)) throw new ApiError("The server's answer holds no vector.");
  return Float32Array.from(vector);
}

/** Yields {pass} for each denoising pass, {correction} where it refines, then {result}: the answer of POST /invert. */
export async function* invert(encoder, body, signal) {
  const response = await post(`invert/${encodeURIComponent(encoder)}/stream`, body, signal, "text/event-stream");
  try {
    for await (const { event, data } of events(response.body)) {
      const value = JSON.parse(data);
      if (event === "pass") yield { pass: value };
      if (event === "correction") yield { correction: value };
      if (event === "error") throw new ApiError(sentence(value.status, value.detail), value.status);
      if (event === "result") {
        yield { result: value };
        return;
      }
    }
  } catch (error) {
    throw explained(error);
  }
  throw new ApiError("The connection ended before the result. Invert again.");
}

function post(path, body, signal, accept = "application/json") {
  const headers = { "Content-Type": "application/json", Accept: accept };
  return send(path, { method: "POST", body: JSON.stringify(body), headers, signal });
}

async function send(path, options) {
  const headers = { Accept: "application/json", ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(address(path), { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    throw explained(error);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new ApiError(sentence(response.status, body?.detail, response.headers.get("Retry-After")), response.status);
}

async function json(response) {
  try {
    return await response.json();
  } catch (error) {
    throw error instanceof SyntaxError ? new ApiError("The server's answer is not JSON.") : explained(error);
  }
}

function explained(error) {
  if (error instanceof ApiError || error.name === "AbortError") return error;
  if (error instanceof SyntaxError) return new ApiError("The server's answer cannot be read.");
  return new ApiError(`The server at ${location.host} cannot be reached. Is it still running, and is the network up?`);
}

function sentence(status, detail, retryAfter) {
  const said = typeof detail === "string" && detail ? detail : `The server answered with status ${status}.`;
  if (status === 401) return key.get() ? `The API key was not accepted: ${said}` : `An API key is needed: ${said}`;
  if (Number(retryAfter) > 0) return `${said}\nTry again in ${Number(retryAfter)} s.`;
  return said;
}
