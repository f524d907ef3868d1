"""Alignment: make the text that is encoded exactly the text that the decoder must write.

A text is tokenised with the decoder's tokenizer, cut to L - 1 tokens, decoded back, and only then encoded. After the
text stands EOS, then PAD up to L. Texts that are too short to say anything are dropped. Vectors are not made here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from embinv.encoders.spec import resolve_model

REPLACEMENT = "\ufffd"  # what a decoder writes for half a character


@dataclass(frozen=True)
class Aligned:
    """The texts that survived alignment.

    Attributes:
        rows: [M] int64, which input rows they were.
        texts: M texts, as decoded from their tokens.
        token_ids: [M, L] int32, text then EOS then PAD.
    """

    rows: np.ndarray
    texts: list[str]
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
        text = self.tokenizer.decode(self.content(token_ids), clean_up_tokenization_spaces=True)
        assert isinstance(text, str)  # one sequence in, one text out
        return text.strip()

    def content(self, token_ids: Sequence[int]) -> list[int]:
        """The ids before the first EOS or PAD."""
        ends = (i for i, token in enumerate(token_ids) if token in (self.eos_id, self.pad_id))
        return [int(token) for token in token_ids[: next(ends, len(token_ids))]]

    def save(self, folder: str) -> None:
        """Writes the tokenizer's files, so that a checkpoint loads offline."""
        self.tokenizer.save_pretrained(folder)


def align(texts: Sequence[str], tokenizer: TextTokenizer, seq_len: int, min_tokens: int) -> Aligned:
    """Cuts texts to what the decoder can write.

    Args:
        texts: N texts.
        tokenizer: the decoder's.
        seq_len: L, EOS included.
        min_tokens: texts with fewer tokens are dropped.
    """
    rows, kept, ids = [], [], []
    for row, tokens in enumerate(tokenizer.encode(texts)):
        content = tokenizer.content(tokens[: seq_len - 1])
        written = tokenizer.decode(content)
        while content and len(content) < len(tokens) and written.endswith(REPLACEMENT):
            content = content[:-1]  # the cut went through a character
            written = tokenizer.decode(content)
        if len(content) < min_tokens or not written:
            continue
        padding = [tokenizer.pad_id] * (seq_len - len(content) - 1)
        rows.append(row)
        kept.append(written)
        ids.append([*content, tokenizer.eos_id, *padding])
    token_ids = np.asarray(ids, dtype=np.int32).reshape(len(ids), seq_len)
    return Aligned(np.asarray(rows, dtype=np.int64), kept, token_ids)
