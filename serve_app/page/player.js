// The passes and corrections of one inversion on the stage: a slider, steps back and forth, playing. A fast server sends all of them in
// an instant; they are shown no faster than an eye follows, unless less motion is asked for.

const SLOWEST_MS = 260;
const FASTEST_MS = 30;
const WHOLE_MS = 3200; // what playing all passes takes at most, as long as no pass is shorter than FASTEST_MS
const UNSURE = 0.5;

export class Player {
  #frames = [];
  #at = -1;
  #timer = 0;
  #following = false;
  #done = false; // all passes have come
  #still = false; // less motion is asked for: a pass is shown as it comes, and none is played on its own

  constructor(elements) {
    this.elements = elements;
    const { slider, back, forth, play, region } = elements;
    slider.addEventListener("input", () => this.#goTo(Number(slider.value)));
    back.addEventListener("click", () => this.#goTo(this.#at - 1));
    forth.addEventListener("click", () => this.#goTo(this.#at + 1));
    play.addEventListener("click", () => (this.#timer ? this.#pause() : this.#replay()));
    region.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.target === slider || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      this.#goTo(this.#at + step);
    });
  }

  /** Forgets the passes, and begins to follow those to come. */
  clear(sentence = "") {
    this.#pause();
    this.#frames = [];
    this.#at = -1;
    this.#following = true;
    this.#done = false;
    this.#still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const { stage, controls, legend } = this.elements;
    stage.replaceChildren(sentence);
    stage.classList.add("idle");
    controls.hidden = legend.hidden = true;
  }

  /**
   * Adds a pass: {step, tokens: [{text, confidence}]}; text is null where a place is still hidden. What is no pass has
   * step null, and a name.
   */
  add(frame) {
    this.#frames.push(frame);
    if (!this.#following) return this.#describe();
    if (this.#still || this.#at < 0) this.#show(this.#frames.length - 1);
    else this.#describe();
    if (!this.#still && !this.#timer) this.#play();
  }

  /** No pass will come any more. */
  end() {
    this.#done = true;
    if (this.#at >= 0) this.#describe();
  }

  /** Ends with the result: a frame of its own where the last pass reads otherwise (of several candidates, say). */
  finish(result) {
    const last = this.#frames.at(-1)?.tokens ?? [];
    if (last.some((token) => token.text === null) || reads(last).trim() !== result.text.trim()) {
      this.add({ step: null, name: "Result", tokens: [{ text: result.text, confidence: result.confidence }] });
    }
    this.end();
  }

  get passes() {
    return this.#frames.filter((frame) => frame.step !== null).length;
  }

  #goTo(at) {
    this.#pause();
    this.#following = at >= this.#frames.length - 1;
    this.#show(Math.max(0, Math.min(this.#frames.length - 1, at)));
  }

  #replay() {
    if (this.#at >= this.#frames.length - 1) this.#show(0);
    this.#play();
  }

  #play() {
    this.#following = true;
    const wait = Math.max(FASTEST_MS, Math.min(SLOWEST_MS, WHOLE_MS / this.#frames.length));
    this.#timer = setTimeout(() => this.#tick(), wait);
    this.#button();
  }

  #tick() {
    if (this.#at >= this.#frames.length - 1) {
      this.#following = true;
      return this.#pause();
    }
    this.#show(this.#at + 1);
    this.#timer = 0;
    this.#play();
  }

  #pause() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#button();
  }

  #button() {
    const { play } = this.elements;
    play.classList.toggle("playing", Boolean(this.#timer));
    play.setAttribute("aria-label", this.#timer ? "Pause" : "Play the passes");
  }

  #show(at) {
    const before = at === this.#at + 1 ? this.#frames[this.#at]?.tokens ?? [] : null;
    this.#at = at;
    const { stage, controls, legend } = this.elements;
    stage.classList.remove("idle");
    controls.hidden = legend.hidden = false;
    stage.replaceChildren(...this.#frames[at].tokens.flatMap((token, place) => {
      const fresh = before !== null && token.text !== null && token.text !== before[place]?.text;
      return drawn(token, fresh, place === 0);
    }));
    this.#describe();
  }

  #describe() {
    const { slider, pass, back, forth } = this.elements;
    const { step, name: own, tokens } = this.#frames[this.#at];
    const known = tokens.filter((token) => token.text !== null).length;
    const name = step === null ? own : `Pass ${this.#at + 1}${this.#done ? ` of ${this.passes}` : ""}`;
    slider.max = this.#frames.length - 1;
    slider.value = this.#at;
    slider.setAttribute("aria-valuetext", `${name}, ${known} of ${tokens.length} places known`);
    pass.textContent = name;
    back.disabled = this.#at <= 0 && document.activeElement !== back; // a disabled button would lose the focus
    forth.disabled = this.#at >= this.#frames.length - 1 && document.activeElement !== forth;
  }
}

/** The text of a pass's known tokens put together. */
const reads = (tokens) => tokens.map((token) => token.text ?? "").join("");

/** A token as nodes: the blank before it stays outside its shade. */
function drawn({ text, confidence }, fresh, first) {
  const span = document.createElement("span");
  if (text === null) {
    span.className = "place";
    span.title = "still hidden";
    return [span];
  }
  const blank = /^\s*/.exec(text)[0];
  span.className = "token";
  span.classList.toggle("new", fresh);
  span.classList.toggle("unsure", confidence !== null && confidence < UNSURE);
  span.style.setProperty("--confidence", confidence ?? 0);
  if (confidence !== null) span.title = `confidence ${Math.round(confidence * 100)} %`;
  span.textContent = text.slice(blank.length);
  return [...(blank && !first ? [blank] : []), span];
}
