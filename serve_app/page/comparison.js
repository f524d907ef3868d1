// What came out, beside what went in: both texts with their differences marked, the figures, the tokens one by one.

import { difference } from "./diff.js";
import { byId, element } from "./elements.js";

const percent = (share) => `${(share * 100).toFixed(share > 0.995 || share < 0.1 ? 1 : 0)} %`;

/** A cosine. */
export const signed = (value) => value.toFixed(4).replace("-", "−");

/** Both texts; `original` is empty where nobody knows it. Returns {common, total} words, or null. */
export function showTexts(original, recovered) {
  const found = original.trim() ? difference(original, recovered) : null;
  put(byId("original-text"), found?.original, original, "del", "Not known: a vector was given.");
  put(byId("recovered-text"), found?.recovered, recovered, "ins", "The recovered text is empty.");
  byId("diff-legend").hidden = !found;
  byId("diff-note").textContent = found
    ? "Compared word by word, without regard to case."
    : original.trim() && "The texts are too long to be compared word by word.";
  return found;
}

function put(place, runs, text, mark, absent) {
  place.classList.toggle("absent", !text.trim());
  if (!text.trim()) place.replaceChildren(absent);
  else if (!runs) place.replaceChildren(text);
  else place.replaceChildren(...runs.flatMap((run) => (run.same ? [run.text] : marked(run.text, mark))));
}

/** The blank after a marked run stays unmarked. */
function marked(text, mark) {
  const blank = /\s*$/.exec(text)[0];
  return [element(mark, text.slice(0, text.length - blank.length)), blank];
}

/** The figures; `cosine` is {value, note}, where a null value is explained by the note. */
export function showMeasures({ answer, result, cosine, words }) {
  const rows = [
    ["Cosine", cosine.value === null ? null : signed(cosine.value), cosine.note],
    ...(typeof result.encoder_calls === "number"
      ? [["Encoder calls", String(result.encoder_calls), "texts embedded to find this one"]]
      : []),
    words?.total
      ? ["Words found", `${words.common} of ${words.total}`, "in their order"]
      : ["Words found", null, "no original to compare with"],
    ["Confidence", percent(result.confidence), "geometric mean of the tokens"],
    typeof result.probability === "number"
      ? ["Probability", percent(result.probability), "calibrated"]
      : ["Probability", null, "not calibrated for this way of decoding"],
    ["Time", milliseconds(answer.milliseconds), `${milliseconds(answer.model_milliseconds)} of it in the model`],
    ["Steps taken", String(result.steps), ""],
  ];
  byId("measures").replaceChildren(...rows.map(([name, value, note]) => {
    const row = document.createElement("div");
    const shown = element("dd", value ?? note, value === null ? "absent" : "");
    if (value !== null && note) shown.append(element("small", note));
    row.dataset.measure = name;
    row.append(element("dt", name), shown);
    return row;
  }));
}

const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

export function showTokens(tokens) {
  const share = (value) => (value === null || value === undefined ? "–" : percent(value));
  byId("token-rows").replaceChildren(...tokens.map((token) => {
    const row = document.createElement("tr");
    const cells = [token.token, String(token.id), share(token.confidence), share(token.probability)];
    row.append(...cells.map((cell) => element("td", cell)));
    return row;
  }));
  byId("token-details").hidden = !tokens.length;
}
