"""The model's vocabulary: the tokenizer's whole one, or only the tokens that occur in the training pairs.

A head over 150,000 tokens costs more than the rest of a small model, and most of those tokens never occur. Trimming
renumbers the kept ids in ascending order and adds one id, `other`, for everything else; `other` never occurs in
training. Which ids were kept travels with the checkpoint, and decoding turns them back.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

FILE = "vocabulary.safetensors"


class Vocabulary:
    """A renumbering of tokenizer ids.

    Args:
        kept: tokenizer ids that the model knows, ascending and without repetition.
        full_size: the tokenizer's number of ids.
        other: the tokenizer id that `other` is turned back into.

    Attributes:
        size: of the model's vocabulary, `other` included.
        trimmed: whether there is an `other`.
        other_id: the model's id of it, which a decoder should never write; None if there is none.
    """

    def __init__(self, kept: np.ndarray, full_size: int, other: int) -> None:
        assert len(kept) and (np.diff(kept) > 0).all() and kept[0] >= 0 and kept[-1] < full_size
        self.kept = kept.astype(np.int32)
        self.full_size = full_size
        self.other = other
        self.trimmed = len(kept) < full_size
        self.size = len(kept) + self.trimmed  # one more for `other`
        self.other_id = len(kept) if self.trimmed else None
        self._compact = np.full(full_size, len(kept), dtype=np.int32)
        self._compact[kept] = np.arange(len(kept), dtype=np.int32)

    @classmethod
    def whole(cls, full_size: int) -> "Vocabulary":
        """Every token of the tokenizer, as it is numbered there."""
        return cls(np.arange(full_size), full_size, 0)

    @classmethod
    def of(cls, token_ids: np.ndarray, full_size: int, always: tuple[int, ...], other: int) -> "Vocabulary":
        """The tokens that occur in token_ids [N, L], and those in `always`."""
        return cls(np.union1d(np.unique(token_ids), np.asarray(always)), full_size, other)

    def compact(self, token_ids: np.ndarray) -> np.ndarray:
        """Tokenizer ids as the model's, int32 of the same shape."""
        return self._compact[token_ids]

    def ends(self, eos_id: int, pad_id: int) -> tuple[int, int]:
        """The model's ids of EOS and PAD, given the tokenizer's."""
        return int(self._compact[eos_id]), int(self._compact[pad_id])

    def original(self, ids: np.ndarray) -> np.ndarray:
        """The model's ids as the tokenizer's, int32 of the same shape."""
        table = np.append(self.kept, np.int32(self.other)) if self.trimmed else self.kept
        return table[ids]

    def save(self, folder: Path) -> None:
        """Writes FILE into a checkpoint folder."""
        tensors = {
            "kept": torch.from_numpy(self.kept),
            "full_size_and_other": torch.tensor([self.full_size, self.other]),
        }
        save_file(tensors, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Reads FILE from a checkpoint folder.

        Raises:
            ValueError: it is absent or cannot be read.
        """
        try:
            tensors = load_file(folder / FILE)
            full_size, other = tensors["full_size_and_other"].tolist()
            kept = tensors["kept"].numpy()
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{folder / FILE}: cannot be read ({error})") from error
        if not (len(kept) and (np.diff(kept) > 0).all() and kept[0] >= 0 and kept[-1] < full_size):
            raise ValueError(f"{folder / FILE}: its ids are not ascending numbers from 0 to {full_size - 1}")
        return cls(kept, full_size, other)
