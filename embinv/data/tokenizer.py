"""The decoder's tokenizer, from its files: ids, end and padding, a fingerprint, and a copy for a checkpoint."""

import hashlib
from collections.abc import Sequence

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from embinv.data.alignment import FastTokenizer
from embinv.encoders.spec import resolve_model


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
        # A copy without padding, and with truncation of its own: the fingerprint is of the one above.
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        # transformers leaves byte-level texts as they are, and closes up the punctuation of word pieces.
        closes_up = type(backend.model).__name__ != "BPE"
        self.fast = FastTokenizer(backend, self.eos_id, self.pad_id, closes_up)

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
        return self.fast.decode_batch([self.content(token_ids)])[0]

    def content(self, token_ids: Sequence[int]) -> list[int]:
        """The ids before the first EOS or PAD."""
        return content(token_ids, (self.eos_id, self.pad_id))

    def save(self, folder: str) -> None:
        """Writes the tokenizer's files, so that a checkpoint loads offline."""
        self.tokenizer.save_pretrained(folder)


def content(token_ids: Sequence[int], end_ids: Sequence[int]) -> list[int]:
    """The ids before the first of `end_ids`, which are EOS and PAD, in whichever numbering both are."""
    ends = (place for place, token in enumerate(token_ids) if token in end_ids)
    return [int(token) for token in token_ids[: next(ends, len(token_ids))]]
