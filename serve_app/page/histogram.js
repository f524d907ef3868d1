// The histogram of a vector's components, drawn as bars of an SVG. The axis is text beside it, so that it scales.

const SVG = "http://www.w3.org/2000/svg";

/** Counts of `bins` equal bins from `low` to `high`. */
export function counts(vector, low, high, bins) {
  const found = new Array(bins).fill(0);
  const width = (high - low) / bins || 1;
  for (const x of vector) found[Math.min(bins - 1, Math.max(0, Math.floor((x - low) / width)))]++;
  return found;
}

/** Draws into an <svg>; `figures` are those of `figuresOf`. */
export function drawHistogram(svg, vector, figures) {
  const bins = Math.max(9, Math.min(61, Math.round(Math.sqrt(vector.length) * 2)));
  const bars = counts(vector, figures.low, figures.high, bins);
  const top = Math.max(...bars);
  svg.setAttribute("viewBox", `0 0 ${bins} 100`);
  const range = `between ${short(figures.low)} and ${short(figures.high)}`;
  svg.setAttribute("aria-label", `Histogram of ${vector.length} components ${range}`);
  svg.replaceChildren(...bars.map((count, at) => {
    const height = count ? Math.max(1.5, (96 * count) / top) : 0;
    const bar = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x: at + 0.08, y: 100 - height, width: 0.84, height })) {
      bar.setAttribute(name, value);
    }
    return bar;
  }));
}

/** A number in few digits, with a real minus sign. */
export function short(number, digits = 3) {
  const text = number !== 0 && (Math.abs(number) < 1e-3 || Math.abs(number) >= 1e5)
    ? number.toExponential(2)
    : Number(number.toPrecision(digits)).toString();
  return text.replaceAll("-", "−");
}
