"""Texts as an encoder reads them: token ids, made by the encoder's own tokenizer without its weights.

Neither transformers nor torch is needed here: both classes can be sent to a process that loads nothing else. How a
tokenizer comes of a model's files is in tokenizer_files.py. Nothing is padded here (batches.py).

Shapes: N texts, T tokens of all texts together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

CHUNK = 512  # texts given to the library at once: what they become stays in a core's cache (docs/LOG.md)


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts, one after the other; text i is `flat[offsets[i] : offsets[i + 1]]`.

    Attributes:
        flat: [T] int32.
        offsets: [N + 1] int64, from 0 to T.
    """

    flat: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """[N] int64, tokens of each text."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def to_arrow(self) -> pa.ListArray:
        """As list<int32>; the ids are not copied.

        Raises:
            ValueError: there are more tokens than a list column can count.
        """
        if self.offsets[-1] > np.iinfo(np.int32).max:
            raise ValueError(f"{self.offsets[-1]} tokens do not fit one list<int32> column; encode fewer texts at once")
        return pa.ListArray.from_arrays(pa.array(self.offsets.astype(np.int32)), pa.array(self.flat))

    @classmethod
    def from_arrow(cls, column: pa.ListArray | pa.ChunkedArray) -> "Tokens":
        """From a list<int32> column without nulls."""
        lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        assert lists.null_count == 0
        offsets = lists.offsets.to_numpy().astype(np.int64)
        return cls(lists.flatten().to_numpy(), offsets - offsets[0])


@dataclass(frozen=True)
class EncoderTokenizer:
    """Texts to ids, as the encoder of a recipe does it.

    Attributes:
        backend: of the `tokenizers` library, without padding and cut to `max_tokens`.
        prompt: what stands before every text; empty if nothing does.
        pad_id: the id of padding.
        padding_side: `left` or `right`.
        max_tokens: tokens of a text at most, special tokens included; None if there is no limit.
    """

    backend: Tokenizer
    prompt: str
    pad_id: int
    padding_side: str
    max_tokens: int | None

    def __call__(self, texts: Sequence[str] | np.ndarray) -> Tokens:
        """The ids of N texts, the prompt and special tokens included."""
        return tokenize(self.backend, [self.prompt + text for text in texts] if self.prompt else texts)


def tokenize(backend: Tokenizer, texts: Sequence[str] | np.ndarray, add_special_tokens: bool = True) -> Tokens:
    """The ids of N texts, truncated and with special tokens as `backend` says."""
    flat, lengths = [np.zeros(0, dtype=np.int32)], [np.zeros(1, dtype=np.int64)]
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        encodings = backend.encode_batch_fast(chunk, add_special_tokens=add_special_tokens)  # type: ignore[arg-type]
        lengths.append(np.fromiter(map(len, encodings), np.int64, len(encodings)))
        ids = chain.from_iterable(encoding.ids for encoding in encodings)
        flat.append(np.fromiter(ids, np.int32, int(lengths[-1].sum())))
    return Tokens(np.concatenate(flat), np.cumsum(np.concatenate(lengths)))
