// The page: asks for the encoders, takes what is to be inverted, follows the inversion and shows what came out.
// Each part has a file of its own; here they are joined, and nothing is computed.

import * as api from "./api.js";
import { showMeasures, showTexts, showTokens, signed } from "./comparison.js";
import { copy, curlCommand } from "./curl.js";
import { byId, complain, element } from "./elements.js";
import { decoding, describeDecoding, describeEncoder, fields, listEncoders, offerDecoding, runs } from "./encoder.js";
import { drawHistogram, short } from "./histogram.js";
import { Input } from "./input.js";
import { Player } from "./player.js";
import { cosine, figuresOf, objection, toBase64 } from "./vectors.js";

const LOOK_AGAIN_MS = 4000;

const state = {
  encoders: [],
  reached: false, // the server answered when it was last asked for its encoders
  loading: null, // the promise of the first such answer
  looking: 0, // the timer until it is asked again
  keyRequired: false,
  offered: false, // the decoding's defaults were set once; after that they are the reader's
  encoded: null, // {text, encoder, vector}: the last text that the server encoded
  outcome: null, // {answer, result, original, cosine}: what the comparison shows
  running: null, // the AbortController of the inversion under way
};

const player = new Player({
  region: byId("recovery"), stage: byId("stage"), controls: byId("player"), legend: byId("legend"),
  slider: byId("slider"), back: byId("back"), forth: byId("forth"), play: byId("play"), pass: byId("pass"),
});
const input = new Input(() => refresh());

const chosen = () => state.encoders.find(({ name }) => name === byId("encoder").value);

/** What went wrong; on a phone the place of it may be out of sight. */
function fail(sentence) {
  complain(byId("error"), sentence);
  if (sentence) byId("error").scrollIntoView({ block: "nearest" });
}

/** The status, and behind it a text in whatever direction it is written. */
function say(sentence, text = "") {
  byId("status").replaceChildren(sentence, element("bdi", text));
}
// Encoders and the key

async function loadEncoders() {
  const before = chosen()?.status;
  let again = true;
  try {
    const answer = await api.encoders();
    state.encoders = answer.encoders;
    state.keyRequired = answer.key_required;
    byId("key-card").hidden = !answer.key_required;
    listEncoders(byId("encoder"), state.encoders);
    chooseEncoder();
    if (!state.reached) fail("");
    // Asked again and again, the server has news now and then; what a reader reads is not overwritten without them.
    if (!state.reached || chosen()?.status !== before) {
      say(state.encoders.length ? "Ready." : "No encoder is deployed on this server yet.");
    }
    state.reached = true;
    again = !runs(chosen());
  } catch (error) {
    state.reached = false;
    if (error.status === 401) {
      byId("key-card").hidden = false;
      state.keyRequired = true;
      again = false; // until a key is given
    }
    fail(error.message);
    say("");
  }
  if (again) lookAgain();
}

function lookAgain() {
  clearTimeout(state.looking);
  state.looking = setTimeout(() => (state.running ? lookAgain() : loadEncoders()), LOOK_AGAIN_MS);
}

function chooseEncoder() {
  const encoder = chosen();
  describeEncoder(encoder);
  if (runs(encoder)) {
    offerDecoding(encoder, !state.offered);
    state.offered = true;
  }
  input.setEncoder(runs(encoder) ? encoder : null);
  if (encoder && !runs(encoder)) lookAgain();
  refresh();
}

function useKey() {
  api.key.set(byId("key").value.trim());
  byId("key").value = "";
  byId("key").placeholder = api.key.get() ? "a key is in use" : "";
  state.reached = false;
  loadEncoders();
}

// What is shown of the vector, and the curl command

/** The vector that an inversion would send now, where it is known already. */
function knownVector() {
  if (input.mode === "vector") return input.vector;
  return state.encoded?.encoder === byId("encoder").value ? state.encoded.vector : null;
}

function refresh() {
  const encoder = chosen();
  describeDecoding(encoder);
  const vector = knownVector();
  byId("vector-card").hidden = !vector;
  if (vector) {
    const figures = figuresOf(vector);
    drawHistogram(byId("histogram"), vector, figures);
    byId("vector-facts").textContent = [
      `${vector.length} components`, `norm ${short(figures.norm, 4)}`, `mean ${short(figures.mean)}`,
      `standard deviation ${short(figures.deviation)}`,
    ].join(" · ");
    byId("axis-low").textContent = short(figures.low);
    byId("axis-middle").textContent = short((figures.low + figures.high) / 2);
    byId("axis-high").textContent = short(figures.high);
  }
  const settings = runs(encoder) ? decoding(encoder).settings : null;
  byId("curl-card").hidden = !vector || !settings;
  if (vector && settings) {
    const url = api.address(`invert/${encodeURIComponent(encoder.name)}`);
    byId("curl").textContent = curlCommand(url, { embedding: toBase64(vector), ...settings }, state.keyRequired);
    byId("curl-note").textContent = input.mode === "text" && state.encoded.text !== input.text
      ? "The vector is that of the text as it was last inverted."
      : state.keyRequired ? "Put the key into EMBINV_API_KEY first." : "";
  }
  if (state.outcome?.mode === "vector" && input.mode === "vector") state.outcome.original = input.original;
  if (state.outcome) showOutcome();
}

// An inversion

async function run() {
  await state.loading; // whoever is quicker than the list of encoders waits for it
  if (state.running) return;
  const encoder = chosen();
  if (!state.reached) return loadEncoders(); // which says why not
  fail("");
  for (const field of Object.values(fields())) field.removeAttribute("aria-invalid");
  if (!runs(encoder)) return fail(encoder ? `${encoder.name} does not answer yet.` : "There is no encoder to ask.");
  const { settings, problem, field } = decoding(encoder);
  if (problem) {
    complain(byId("error"), problem, field);
    return field.focus();
  }
  if (!input.ready()) return;

  const controller = new AbortController();
  busy(controller);
  document.body.classList.add("asked");
  // In one column the result is far below the button.
  if (matchMedia("(max-width: 56rem)").matches) byId("results").scrollIntoView();
  try {
    const given = { mode: input.mode, original: input.original };
    const vector = await vectorToInvert(encoder, controller.signal);
    const outcome = await follow(encoder, vector, settings, controller.signal);
    state.outcome = { ...outcome, ...given, settings };
    showOutcome();
    say("Recovered: ", outcome.result.text || "an empty text");
    state.outcome.cosine = await measuredCosine(encoder, vector, outcome.result, controller.signal);
    showOutcome();
  } catch (error) {
    stopped(error);
  } finally {
    busy(null);
  }
}

async function vectorToInvert(encoder, signal) {
  if (input.mode === "vector") return input.vector;
  const text = input.text;
  const known = state.encoded;
  if (known?.text === text && known.encoder === encoder.name && known.version === encoder.version) return known.vector;
  say("Encoding the text…");
  const vector = await api.encode(encoder.name, text, signal);
  const problem = objection(vector, encoder.dim, encoder.name);
  if (problem) throw new api.ApiError(`The server's own vector cannot be inverted. ${problem}`);
  state.encoded = { text, vector, encoder: encoder.name, version: encoder.version };
  refresh();
  return vector;
}

async function follow(encoder, vector, settings, signal) {
  say(`Inverting in up to ${settings.steps} passes…`);
  state.outcome = null;
  byId("comparison").hidden = true;
  player.clear("Waiting for the first pass…");
  const asked = { embedding: toBase64(vector), ...settings };
  for await (const { pass, correction, result } of api.invert(encoder.name, asked, signal)) {
    if (pass && pass.index === 0) player.add(pass);
    if (correction && correction.index === 0) {
      if (correction.step === 0) say("Refining with the encoder…");
      player.add({ step: null, name: nameOf(correction), tokens: correction.tokens });
    }
    if (result) {
      player.finish(result.results[0]);
      return { answer: result, result: result.results[0], cosine: { value: null, note: "being measured…" } };
    }
  }
}

function nameOf({ step, cosine }) {
  const name = step ? `Correction ${step}` : "Before corrections";
  return cosine === null ? name : `${name}, cosine ${signed(cosine)}`;
}

/** How close the recovered text's own vector is to the given one. */
async function measuredCosine(encoder, vector, result, signal) {
  if (typeof result.cosine === "number") return { value: result.cosine, note: "of the two vectors" };
  if (!encoder.encode) return { value: null, note: "not measured: the encoder is not served here" };
  if (!result.text.trim()) return { value: null, note: "not measured: the recovered text is empty" };
  try {
    return { value: cosine(vector, await api.encode(encoder.name, result.text, signal)), note: "of the two vectors" };
  } catch (error) {
    return { value: null, note: `not measured: ${error.name === "AbortError" ? "cancelled" : error.message}` };
  }
}

function showOutcome() {
  const { answer, result, original, cosine, settings } = state.outcome;
  const words = showTexts(original, result.text);
  showMeasures({ answer, result, cosine, words });
  showTokens(result.tokens);
  const { strategy, steps, seed, candidates, refine } = settings;
  byId("provenance").textContent = [
    `${answer.model}, version ${answer.version}`, strategy, `${steps} steps`,
    ...(candidates ? [`${candidates} candidates`] : []),
    ...(refine ? [`up to ${refine.steps} corrections, ${refine.beam} texts held`] : []), `seed ${seed}`,
  ].join(" · ");
  byId("comparison").hidden = false;
}

function stopped(error) {
  if (error.name === "AbortError") {
    say(`Cancelled after ${player.passes} ${player.passes === 1 ? "pass" : "passes"}.`);
  } else if (error instanceof api.ApiError) {
    if (error.status === 401) byId("key-card").hidden = false;
    fail(error.message);
    say("The inversion failed; the message beside the buttons says why.");
    if (error.status === 404 || error.status === 503) lookAgain(); // another set of encoders may be there now
  } else {
    fail(`The page itself failed: ${error.message}`);
    console.error(error);
  }
  if (player.passes) player.end();
  else player.clear("No pass was seen.");
}

function busy(controller) {
  state.running = controller;
  document.body.classList.toggle("busy", Boolean(controller));
  byId("invert").setAttribute("aria-disabled", String(Boolean(controller))); // a disabled button would lose the focus
  if (!controller && document.activeElement === byId("cancel")) byId("invert").focus();
  byId("cancel").disabled = !controller;
}

// What the reader does

byId("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  if (document.activeElement === byId("key")) useKey();
  else run();
});
byId("cancel").addEventListener("click", () => state.running?.abort());
byId("use-key").addEventListener("click", useKey);
byId("encoder").addEventListener("change", chooseEncoder);
for (const field of Object.values(fields())) {
  field.addEventListener("input", () => (field.removeAttribute("aria-invalid"), refresh()));
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") state.running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    run();
  }
});
byId("copy").addEventListener("click", async () => {
  const copied = await copy(byId("curl").textContent, byId("curl"));
  say(copied ? "The curl command is on the clipboard." : "The curl command is selected: press Ctrl+C.");
  byId("copy").textContent = copied ? "Copied" : "Selected";
  setTimeout(() => (byId("copy").textContent = "Copy"), 1600);
});

player.clear("Type a text or give a vector, then invert it: the recovered text appears here, token by token.");
state.loading = loadEncoders();
