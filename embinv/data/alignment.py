"""Alignment: make the text that is encoded exactly the text that the decoder must write.

A text is tokenised with the decoder's tokenizer, cut to L - 1 tokens, decoded back, and only then encoded. After the
text stands EOS, then PAD up to L. Texts that are too short to say anything are dropped. Vectors are not made here.

Shapes: N texts, M of them kept, L tokens, T tokens of all texts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from embinv.encoders.spec import resolve_model

REPLACEMENT = "\ufffd"  # what a decoder writes for half a character
SEPARATOR = "\n\x00\n"  # between texts that are cleaned up in one piece; no tokenizer writes it


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


class TextTokenizer:
    """The decoder's tokenizer with its end and padding ids.

    Args:
        source: hub id, folder or `pkg://package/path`.
        revision: hub commit or tag.
        trust_remote_code: run code from the tokenizer's repository.

    Raises:
        ValueError: no tokenizer can be loaded from `source`, or it has no token that can end a text.
    """

    def __init__(self, source: str, revision: str | None = None, trust_remote_code: bool = False) -> None:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                resolve_model(source), revision=revision, trust_remote_code=trust_remote_code
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"no tokenizer can be loaded from {source!r}: {reason}") from error
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ValueError(f"{source!r} has no tokenizer.json; embinv needs a fast tokenizer")
        end, pad = tokenizer.eos_token, tokenizer.pad_token
        end = end if end is not None else tokenizer.sep_token
        if end is None:
            raise ValueError(f"the tokenizer of {source!r} has neither an EOS nor a SEP token to end a text with")
        self.source = source
        self.tokenizer = tokenizer
        # A copy without padding, and with truncation of its own: the fingerprint is of the one above.
        self._batches = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._batches.no_padding()
        # transformers leaves byte-level texts as they are, and closes up the punctuation of word pieces.
        self._closes_up = type(self._batches.model).__name__ != "BPE"
        self.eos_id = self._id(str(end))
        self.pad_id = self.eos_id if pad is None else self._id(str(pad))
        self.unknown_id = self.pad_id if tokenizer.unk_token is None else self._id(str(tokenizer.unk_token))
        self.vocab_size = len(tokenizer)

    def _id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        assert isinstance(found, int)
        return found

    def fingerprint(self) -> str:
        """Hash of everything that decides how text becomes ids (vocabulary, merges, normaliser)."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        return hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens and without a limit."""
        if not texts:
            return []
        return self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text up to the first EOS or PAD."""
        return self.decode_batch([self.content(token_ids)])[0]

    def decode_batch(self, contents: Sequence[Sequence[int]]) -> list[str]:
        """The texts of N contents, which hold no EOS and no PAD."""
        texts = self._batches.decode_batch(contents, skip_special_tokens=False)
        if self._closes_up:
            together = self.tokenizer.clean_up_tokenization(SEPARATOR.join(texts))
            texts = together.split(SEPARATOR) if texts else []
        return [text.strip() for text in texts]

    def tokenize(self, texts: Sequence[str] | np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first ids of many texts, up to EOS or PAD where a text writes such a token out.

        Args:
            texts: N texts, a list or an array of objects.
            limit: ids of one text at most.

        Returns:
            ids [T] int32 of all texts, starts [N] int64 of each in them, lengths [N] int64; an id that follows an EOS
            or PAD in its text lies between two texts and belongs to none.
        """
        self._batches.enable_truncation(limit)
        encodings = self._batches.encode_batch_fast(texts, add_special_tokens=False)  # type: ignore[arg-type]
        counts = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=np.int32, count=int(counts.sum()))
        starts = np.cumsum(counts) - counts
        ends = np.flatnonzero((ids == self.eos_id) | (ids == self.pad_id))
        owners, first = np.unique(np.searchsorted(starts, ends, side="right") - 1, return_index=True)
        lengths = counts.copy()
        lengths[owners] = ends[first] - starts[owners]
        return ids, starts, lengths

    def content(self, token_ids: Sequence[int]) -> list[int]:
        """The ids before the first EOS or PAD."""
        ends = (i for i, token in enumerate(token_ids) if token in (self.eos_id, self.pad_id))
        return [int(token) for token in token_ids[: next(ends, len(token_ids))]]

    def save(self, folder: str) -> None:
        """Writes the tokenizer's files, so that a checkpoint loads offline."""
        self.tokenizer.save_pretrained(folder)


def align(texts: Sequence[str] | np.ndarray, tokenizer: TextTokenizer, seq_len: int, min_tokens: int) -> Aligned:
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
