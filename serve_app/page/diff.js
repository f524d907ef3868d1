// Word-level differences of two texts by their longest common subsequence. Words are those of the script (Chinese and
// Japanese too, by Intl.Segmenter), compared without regard to case. No letters are compared inside a word.

const MOST_CELLS = 4e6;

/** Words of a text with the blanks that follow each, so that joining them gives the text. */
export function words(text) {
  const parts = globalThis.Intl?.Segmenter
    ? Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), (part) => part.segment)
    : text.match(/\s+|[\p{L}\p{M}\p{N}]+|[^\s\p{L}\p{M}\p{N}]+/gu) ?? [];
  const found = [];
  for (const part of parts) {
    if (/^\s+$/.test(part) && found.length) found[found.length - 1] += part;
    else found.push(part);
  }
  return found;
}

/**
 * Runs of both texts: {original, recovered, common, total}. A run is {text, same}; `common` counts the words of the
 * original that are found in the recovered text in their order, `total` those of the original; punctuation is marked,
 * and not counted. Returns null where the texts are too long to compare.
 */
export function difference(original, recovered) {
  const one = words(original);
  const other = words(recovered);
  const kept = common(one.map(folded), other.map(folded));
  if (!kept) return null;
  const isWord = (word) => /[\p{L}\p{N}]/u.test(word);
  return {
    original: runs(one, kept.one),
    recovered: runs(other, kept.other),
    common: one.filter((word, at) => kept.one[at] && isWord(word)).length,
    total: one.filter(isWord).length,
  };
}

const folded = (word) => word.trim().normalize("NFKC").toLowerCase();

/** Which words of each belong to the longest common subsequence: two lists of booleans. */
function common(one, other) {
  const width = other.length + 1;
  if ((one.length + 1) * width > MOST_CELLS) return null;
  const longest = new Uint16Array((one.length + 1) * width); // of the tails from i and j on
  for (let i = one.length - 1; i >= 0; i--) {
    for (let j = other.length - 1; j >= 0; j--) {
      longest[i * width + j] = one[i] === other[j]
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const kept = { one: one.map(() => false), other: other.map(() => false) };
  for (let i = 0, j = 0; i < one.length && j < other.length; ) {
    if (one[i] === other[j]) {
      kept.one[i++] = kept.other[j++] = true;
    } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  }
  return kept;
}

function runs(words, kept) {
  const found = [];
  words.forEach((word, at) => {
    const last = found.at(-1);
    if (last && last.same === kept[at]) last.text += word;
    else found.push({ text: word, same: kept[at] });
  });
  return found;
}
