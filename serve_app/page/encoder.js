// The encoders to choose from, and what is said of the chosen one. Fills elements; asks nobody.

import { byId, element } from "./elements.js";

const STRATEGIES = {
  confidence: "The surest tokens first.",
  sequential: "From left to right.",
  euler: "Reverse diffusion in equal steps, by sampling.",
  remasking: "Reverse diffusion that takes unsure tokens back.",
  two_stage: "A hypothesis from left to right, then part of it written anew.",
  candidates: "Several samples, and the likeliest of them.",
  greedy: "From left to right, the likeliest token each time.",
  beam: "From left to right, several beginnings at a time.",
};

/** Whether it answers now; one that has just been deployed runs before anything is known of it. */
export const runs = (encoder) => encoder?.status === "RUNNING" && Boolean(encoder.dim);

/** Fills the choice of encoders; keeps what was chosen, else takes the first that runs. */
export function listEncoders(select, encoders) {
  const wanted = encoders.some(({ name }) => name === select.value)
    ? select.value
    : (encoders.find(runs) ?? encoders[0])?.name;
  select.replaceChildren(...encoders.map(({ name, status }) => {
    const state = status.toLowerCase().replaceAll("_", " ");
    const option = element("option", status === "RUNNING" ? name : `${name} (${state})`);
    option.value = name;
    return option;
  }));
  select.disabled = !encoders.length;
  if (wanted) select.value = wanted;
}

export function describeEncoder(encoder) {
  const running = runs(encoder);
  byId("encoder-facts").textContent = running ? facts(encoder).join(" · ") : waiting(encoder);
  byId("text-help").textContent = !running ? "" : encoder.encode
    ? `Up to ${encoder.max_tokens} tokens; what is longer cannot be recovered.`
    : `The encoder of ${encoder.name} is not served here, so a text cannot be encoded. Give a vector instead.`;
  const figures = running ? flattened(encoder.figures ?? {}) : [];
  byId("figures").hidden = !figures.length;
  const rows = figures.flatMap(([name, value]) => [element("dt", name), element("dd", value)]);
  byId("figure-list").replaceChildren(...rows);
}

function facts(encoder) {
  const languages = encoder.languages ?? [];
  return [
    encoder.encoder,
    `${encoder.dim} dimensions`,
    `up to ${encoder.max_tokens} tokens`,
    ...(languages.length ? [languages.join(", ")] : []),
    `version ${encoder.version}`,
  ];
}

const waiting = (encoder) =>
  encoder ? `${encoder.name} does not answer yet (${encoder.status}). This page asks again every few seconds.` : "";

/** Figures at any depth as [name, text]. */
function flattened(tree, before = "") {
  return Object.entries(tree).flatMap(([name, value]) => {
    const whole = `${before}${name.replaceAll("_", " ")}`;
    if (value !== null && typeof value === "object") return flattened(value, `${whole} `);
    if (typeof value === "number") return [[whole, Number.isInteger(value) ? String(value) : value.toPrecision(4)]];
    return value === null ? [] : [[whole, String(value)]];
  });
}

/** Fills the choices of decoding with the encoder's own; what was chosen stays where it is still there. */
export function offerDecoding(encoder, first) {
  const { strategy, steps, candidates, refineSteps, refineBeam } = fields();
  const chosen = first ? encoder.defaults.strategy : strategy.value;
  strategy.replaceChildren(...encoder.strategies.map((name) => element("option", name)));
  strategy.value = encoder.strategies.includes(chosen) ? chosen : encoder.strategies[0];
  if (first) steps.value = encoder.defaults.steps;
  steps.max = encoder.limits.steps;
  candidates.max = encoder.limits.candidates;
  refineSteps.max = encoder.limits.refine_steps;
  refineBeam.max = encoder.limits.refine_beam;
}

const refining = (encoder) => Boolean(encoder?.encode) && fields().refine.checked;

export function describeDecoding(encoder) {
  const { strategy, refine } = fields();
  const several = strategy.value === "candidates";
  byId("strategy-help").textContent = STRATEGIES[strategy.value] ?? "";
  byId("candidates-field").hidden = !several;
  refine.disabled = !encoder?.encode;
  byId("refine-steps-field").hidden = byId("refine-beam-field").hidden = !refining(encoder);
  byId("refine-help").textContent = !encoder?.encode
    ? "Needs the encoder, and it is not served here."
    : several
      ? "Corrects the candidates again and again, and takes the text whose own vector is closest to the given one. "
        + "Without corrections it takes the closest candidate."
      : "Corrects the text again and again, and takes the one whose own vector is closest to the given one.";
}

/** The settings of decoding as the API takes them, or {problem, field}. */
export function decoding(encoder) {
  const { strategy, steps, seed, candidates, refineSteps, refineBeam } = fields();
  const several = strategy.value === "candidates";
  const refined = refining(encoder);
  const numbers = [
    [steps, "Steps", 1, encoder.limits.steps],
    [seed, "The seed", 0, Number.MAX_SAFE_INTEGER],
    ...(several ? [[candidates, "Candidates", 1, encoder.limits.candidates]] : []),
    ...(refined ? [[refineSteps, "Corrections", 0, encoder.limits.refine_steps]] : []),
    ...(refined ? [[refineBeam, "Texts held", 1, encoder.limits.refine_beam]] : []),
  ];
  for (const [field, name, least, most] of numbers) {
    const value = Number(field.value);
    if (field.value.trim() === "" || !Number.isInteger(value) || value < least || value > most) {
      return { problem: `${name}: give a whole number from ${least} to ${most}.`, field };
    }
  }
  const settings = { strategy: strategy.value, steps: Number(steps.value), seed: Number(seed.value) };
  if (several) settings.candidates = Number(candidates.value);
  if (refined) settings.refine = { steps: Number(refineSteps.value), beam: Number(refineBeam.value) };
  return { settings };
}

export const fields = () => ({
  strategy: byId("strategy"), steps: byId("steps"), seed: byId("seed"), candidates: byId("candidates"),
  refine: byId("refine"), refineSteps: byId("refine-steps"), refineBeam: byId("refine-beam"),
});
