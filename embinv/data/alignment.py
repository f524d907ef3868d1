"""Alignment: make the text that is encoded exactly the text that the decoder must write.

A text is tokenised with the decoder's tokenizer, cut to L - 1 tokens, decoded back, and only then encoded. After the
text stands EOS, then PAD up to L. Texts that are too short to say anything are dropped. Vectors are not made here.

Nothing here needs transformers: a process that only aligns starts in a third of the time (docs/LOG.md).

Shapes: N texts, M of them kept, L tokens, T tokens of all texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from embinv.encoders.tokens import CHUNK, tokenize

REPLACEMENT = "\ufffd"  # what a decoder writes for half a character
SEPARATOR = "\n\x00\n"  # between texts that are closed up in one piece; no tokenizer writes it
# What stands apart once word pieces are joined by spaces, as `clean_up_tokenization` of transformers closes it up.
CLOSED_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


@dataclass(frozen=True)
class Aligned:
    """The texts that survived alignment.

    Attributes:
        rows: [M] int64, which input rows they were.
        texts: [M] object, as decoded from their tokens.
        token_ids: [M, L] int32, text then EOS then PAD.
    """

    rows: np.ndarray
    texts: np.ndarray
    token_ids: np.ndarray


@dataclass(frozen=True)
class FastTokenizer:
    """The part of a decoder's tokenizer that works on many texts at once; it can be pickled.

    Attributes:
        backend: of the `tokenizers` library, without padding; its truncation is set here.
        eos_id: ends a text.
        pad_id: fills up behind it.
        closes_up: decoded texts have spaces before punctuation, which are taken out.
    """

    backend: Tokenizer
    eos_id: int
    pad_id: int
    closes_up: bool

    def tokenize(self, texts: Sequence[str] | np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first ids of many texts, up to EOS or PAD where a text writes such a token out.

        Args:
            texts: N texts, a list or an array of objects.
            limit: ids of one text at most.

        Returns:
            ids [T] int32 of all texts, starts [N] int64 of each in them, lengths [N] int64; an id that follows an EOS
            or PAD in its text lies between two texts and belongs to none.
        """
        self.backend.enable_truncation(limit)
        tokens = tokenize(self.backend, texts, add_special_tokens=False)
        ids, starts, counts = tokens.flat, tokens.offsets[:-1], tokens.lengths
        ends = np.flatnonzero((ids == self.eos_id) | (ids == self.pad_id))
        owners, first = np.unique(np.searchsorted(starts, ends, side="right") - 1, return_index=True)
        lengths = counts.copy()
        lengths[owners] = ends[first] - starts[owners]
        return ids, starts, lengths

    def decode_batch(self, contents: Sequence[Sequence[int]]) -> list[str]:
        """The texts of N contents, which hold no EOS and no PAD."""
        texts: list[str] = []
        for start in range(0, len(contents), CHUNK):
            chunk = self.backend.decode_batch(contents[start : start + CHUNK], skip_special_tokens=False)
            if self.closes_up:
                together = SEPARATOR.join(chunk)
                for apart in CLOSED_UP:
                    together = together.replace(apart, apart.strip())
                chunk = together.split(SEPARATOR)
            texts += (text.strip() for text in chunk)
        return texts


def align(texts: Sequence[str] | np.ndarray, tokenizer: FastTokenizer, seq_len: int, min_tokens: int) -> Aligned:
    """Cuts texts to what the decoder can write.

    Args:
        texts: N texts.
        tokenizer: the decoder's.
        seq_len: L, EOS included.
        min_tokens: texts with fewer tokens are dropped.
    """
    if len(texts) == 0:
        return Aligned(np.zeros(0, np.int64), np.zeros(0, object), np.zeros((0, seq_len), np.int32))
    ids, starts, found = tokenizer.tokenize(texts, limit=seq_len)  # one more than is kept shows which texts are cut
    lengths = np.minimum(found, seq_len - 1)
    rows = np.flatnonzero(lengths >= min_tokens)
    bounds = zip(starts[rows].tolist(), (starts + lengths)[rows].tolist(), strict=True)
    flat = ids.tolist()
    written = np.array(tokenizer.decode_batch([flat[start:end] for start, end in bounds]), dtype=object)
    for place in np.flatnonzero(found[rows] > lengths[rows]).tolist():
        row = rows[place]
        while lengths[row] and written[place].endswith(REPLACEMENT):
            lengths[row] -= 1  # the cut went through a character
            written[place] = tokenizer.decode_batch([flat[starts[row] : starts[row] + lengths[row]]])[0]
    good = (lengths[rows] >= min_tokens) & (written != "")
    rows, written = rows[good], written[good]

    column = np.arange(seq_len)
    inside = column < lengths[rows, None]  # [M, L]
    token_ids = np.where(column == lengths[rows, None], tokenizer.eos_id, tokenizer.pad_id).astype(np.int32)
    token_ids[inside] = ids[(starts[rows, None] + column)[inside]]
    return Aligned(rows, written, token_ids)
