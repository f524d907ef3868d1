// Vectors as people have them (a file, a paste) made into Float32Array, and what is said of one: its figures, its
// cosine to another, its base64. The bytes of .npy are read in npy.js.

import { openNpy } from "./npy.js";

const JSON_BYTES = 64 * 2 ** 20;

/** Opens a dropped or chosen file: {name, count, dim, row: async (index) => Float32Array}. */
export async function openFile(file) {
  if (file.size === 0) throw new Error(`${file.name} is empty.`);
  if (/\.npy$/i.test(file.name)) return { name: file.name, ...(await openNpy(file)) };
  if (/\.json$/i.test(file.name) || file.type === "application/json") {
    if (file.size > JSON_BYTES) throw new Error(`${file.name} is larger than 64 MiB; save it as .npy.`);
    return { name: file.name, ...openText(await file.text()) };
  }
  throw new Error(`${file.name} is neither .npy nor .json. Save the vector with np.save, or as a JSON list.`);
}

/** Opens pasted text or the text of a JSON file. */
export function openText(text) {
  const rows = rowsOf(parsed(text.trim()));
  if (!rows.length) throw new Error("No vector is in there: the list is empty.");
  const dim = rows[0].length;
  const ragged = rows.findIndex((row) => row.length !== dim);
  if (ragged > 0) throw new Error(`Row ${ragged} has ${rows[ragged].length} numbers, and row 0 has ${dim}.`);
  return { count: rows.length, dim, row: async (index) => rows[index] };
}

function parsed(text) {
  if (/^[A-Za-z0-9+/\s]{8,}={0,2}$/.test(text) && !/^[\d\s]+$/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch (error) {
    const nan = /\b(NaN|Infinity)\b/.test(text) ? " NaN and Infinity cannot be inverted." : "";
    throw new Error(`This is neither JSON nor base64 of float32 (${error.message}).${nan}`);
  }
}

function rowsOf(value) {
  if (typeof value === "string") return [fromBase64(value)];
  if (Array.isArray(value)) {
    if (value.length && value.every((item) => typeof item === "number")) return [Float32Array.from(value)];
    const kinds = value.some((item) => typeof item === "number") ? ["number"] : ["object", "string"];
    const at = value.findIndex((item) => item === null || !kinds.includes(typeof item));
    if (at >= 0) throw new Error(`Item ${at} is ${JSON.stringify(value[at]).slice(0, 40)}; send a list of numbers.`);
    return value.flatMap(rowsOf);
  }
  if (value !== null && typeof value === "object") {
    const name = ["embedding", "embeddings", "data", "vector", "vectors"].find((name) => name in value);
    if (name) return rowsOf(value[name]);
  }
  throw new Error('No vector is in there; send [0.1, …] or {"embedding": [0.1, …]}.');
}

function fromBase64(text) {
  let bytes;
  try {
    bytes = Uint8Array.from(atob(text.replace(/\s/g, "")), (letter) => letter.charCodeAt(0));
  } catch {
    throw new Error("The base64 cannot be read; it is cut off, or holds other characters.");
  }
  if (!bytes.length || bytes.length % 4) {
    throw new Error(`The base64 holds ${bytes.length} bytes, which is no whole number of float32.`);
  }
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, at) => view.getFloat32(4 * at, true));
}

/** Base64 of little-endian float32, as the server takes it. */
export function toBase64(vector) {
  const view = new DataView(new ArrayBuffer(4 * vector.length));
  vector.forEach((number, at) => view.setFloat32(4 * at, number, true));
  const bytes = new Uint8Array(view.buffer);
  let letters = "";
  for (let at = 0; at < bytes.length; at += 8192) letters += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(letters);
}

/** The sentence on what is wrong with a vector for an encoder of `dim` dimensions, or null. */
export function objection(vector, dim, encoder) {
  if (dim && vector.length !== dim) {
    return `This vector has ${vector.length} dimensions, but ${encoder} takes ${dim}. Choose the encoder that made it.`;
  }
  const at = vector.findIndex((number) => !Number.isFinite(number));
  if (at >= 0) return `Component ${at} is ${vector[at]}; a vector of finite float32 numbers is needed.`;
  if (vector.every((number) => number === 0)) return "This is a zero vector: no text is behind it.";
  return null;
}

export function figuresOf(vector) {
  const n = vector.length;
  const mean = vector.reduce((sum, x) => sum + x, 0) / n;
  const variance = vector.reduce((sum, x) => sum + (x - mean) ** 2, 0) / n;
  const low = vector.reduce((least, x) => Math.min(least, x), Infinity);
  const high = vector.reduce((most, x) => Math.max(most, x), -Infinity);
  return { mean, deviation: Math.sqrt(variance), norm: norm(vector), low, high };
}

export function cosine(one, other) {
  return one.reduce((sum, x, at) => sum + x * other[at], 0) / (norm(one) * norm(other));
}

const norm = (vector) => Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
