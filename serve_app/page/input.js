// What is to be inverted: a typed text, or a vector from a file or a paste, with the row chosen of several.
// Says what is wrong beside the field that it is about. Encoding a text is the server's; app.js asks for it.

import { byId, complain } from "./elements.js";
import { objection, openFile, openText } from "./vectors.js";

const MODES = { text: byId("mode-text"), vector: byId("mode-vector") };

export class Input {
  #source = null; // what a file or a paste was opened as
  #vector = null;
  #turn = 0; // of reading; what an older turn reads late is let go

  /** `changed` is called whenever the vector or the text is another. */
  constructor(changed) {
    this.changed = changed;
    this.encoder = null;
    for (const radio of Object.values(MODES)) radio.addEventListener("change", () => this.#switched());
    byId("text").addEventListener("input", () => {
      complain(byId("text-error"), "", byId("text"));
      changed();
    });
    byId("paste").addEventListener("input", () => this.#paste());
    byId("original").addEventListener("input", () => changed());
    byId("row").addEventListener("input", () => this.#read());
    byId("file").addEventListener("change", ({ target }) => target.files.length && this.#open(target.files[0]));
    this.#takeDrops();
    this.#showPanel(); // a reloaded page may have kept the other choice
  }

  get mode() {
    return MODES.vector.checked ? "vector" : "text";
  }

  get text() {
    return byId("text").value;
  }

  /** The vector that was given, or null; of a text there is none before the server has encoded it. */
  get vector() {
    return this.mode === "vector" ? this.#vector : null;
  }

  /** The text to compare with. */
  get original() {
    return this.mode === "vector" ? byId("original").value : this.text;
  }

  setEncoder(encoder) {
    this.encoder = encoder;
    complain(byId("text-error"), "", byId("text"));
    if (this.#source) this.#read();
  }

  /** Says what is missing, moves there, and returns false; true if there is something to invert. */
  ready() {
    if (this.mode === "text") {
      const problem = !this.encoder.encode
        ? `The encoder of ${this.encoder.name} is not served here. Choose Vector, and give one.`
        : this.text.trim() ? "" : "Type a text first.";
      complain(byId("text-error"), problem, byId("text"));
      if (problem) byId("text").focus();
      return !problem;
    }
    if (this.#vector) return true;
    if (byId("vector-error").hidden) this.#complain("Drop a file, choose one, or paste a vector first.");
    byId("vector-panel").querySelector("[aria-invalid]").focus();
    return false;
  }

  #showPanel() {
    byId("text-panel").hidden = this.mode !== "text";
    byId("vector-panel").hidden = this.mode !== "vector";
  }

  #switched() {
    this.#showPanel();
    this.changed();
  }

  #complain(sentence) {
    for (const id of ["file", "paste"]) byId(id).removeAttribute("aria-invalid");
    complain(byId("vector-error"), sentence, byId(byId("paste").value ? "paste" : "file"));
  }

  #paste() {
    const text = byId("paste").value;
    byId("file").value = "";
    if (text.trim()) return this.#use(() => openText(text));
    this.#turn++;
    this.#source = this.#vector = null;
    byId("vector-source").hidden = byId("row-field").hidden = true;
    this.#complain("");
    this.changed();
  }

  #open(file) {
    byId("paste").value = "";
    return this.#use(() => openFile(file));
  }

  async #use(open) {
    const turn = ++this.#turn;
    this.#source = this.#vector = null;
    byId("vector-source").hidden = byId("row-field").hidden = true;
    try {
      const source = await open();
      if (turn !== this.#turn) return;
      this.#source = source;
      byId("row").value = 0;
      byId("row").max = source.count - 1;
      byId("row-range").textContent = `(0 to ${source.count - 1})`;
      byId("row-field").hidden = source.count < 2;
      await this.#read();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#complain(error.message);
      this.changed();
    }
  }

  async #read() {
    const turn = ++this.#turn;
    const source = this.#source;
    const row = Number(byId("row").value);
    this.#vector = null;
    let problem = null;
    if (!Number.isInteger(row) || row < 0 || row >= source.count || byId("row").value === "") {
      problem = `There is no row ${byId("row").value}; give one from 0 to ${source.count - 1}.`;
    } else {
      const vector = await source.row(row);
      if (turn !== this.#turn) return;
      problem = objection(vector, this.encoder?.dim, this.encoder?.name);
      if (!problem) this.#vector = vector;
    }
    this.#complain(problem ?? "");
    byId("vector-source").hidden = Boolean(problem);
    const which = source.count > 1 ? `row ${row} of ${source.count}, ` : "";
    byId("vector-source").textContent = `${source.name ?? "Pasted"}: ${which}${source.dim} numbers.`;
    this.changed();
  }

  /** A file may be dropped anywhere: beside the frame the browser would leave the page to show it. */
  #takeDrops() {
    let inside = 0;
    const shade = (by) => document.body.classList.toggle("dragging", (inside = Math.max(0, inside + by)) > 0);
    addEventListener("dragenter", (event) => (event.preventDefault(), shade(1)));
    addEventListener("dragleave", () => shade(-1));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      inside = 0;
      shade(0);
      const files = event.dataTransfer?.files ?? [];
      if (!files.length) return;
      MODES.vector.checked = true;
      this.#switched();
      byId("file").value = "";
      if (files.length === 1) this.#open(files[0]);
      else this.#use(() => Promise.reject(new Error("Drop one file at a time.")));
    });
  }
}
