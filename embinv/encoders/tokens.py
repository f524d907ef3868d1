"""An encoder's own tokenisation, without its weights, so that texts can become ids where no encoder is.

What is read is the layout of sentence-transformers: `modules.json` names the folder of the first module, its
`sentence_bert_config.json` holds max_seq_length and do_lower_case, `config_sentence_transformers.json` the prompts.
The prompt of the recipe stands before every text; special tokens are those that the tokenizer adds itself. That the ids
equal the model's own is checked where the weights are (sentence_transformers.py). Nothing is padded here (batches.py).

Shapes: N texts, T tokens of all texts together.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from embinv.encoders.spec import EncoderSpec, resolve_model

NO_LIMIT = 10**9  # transformers writes 10**30 where a tokenizer has no limit


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

    def take(self, rows: np.ndarray) -> "Tokens":
        """The texts `rows` [M], in that order."""
        lengths = self.lengths[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Tokens(self.flat[source], offsets)

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


class EncoderTokenizer:
    """Texts to ids, as the encoder of a recipe does it.

    Args:
        spec: the recipe.

    Attributes:
        prompt: what stands before every text; empty if nothing does.
        pad_id: the id of padding.
        padding_side: `left` or `right`.
        max_tokens: tokens of a text at most, special tokens included; None if there is no limit.

    Raises:
        ValueError: there is no tokenizer, or it is not one of the `tokenizers` library, or the model has no prompt
            `spec.prompt_name`.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        source = _hub_name(resolve_model(spec.model))
        modules = _read_json(source, "modules.json", spec) or [{"path": ""}]
        folder = str(modules[0]["path"])
        settings = _read_json(source, f"{folder}/sentence_bert_config.json".lstrip("/"), spec) or {}
        own = _read_json(source, "config_sentence_transformers.json", spec) or {}
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, subfolder=folder, revision=spec.revision, trust_remote_code=spec.trust_remote_code
            )
        except (OSError, ValueError) as error:
            raise cannot_be_loaded(spec, error) from error
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ValueError(f"encoder.model {spec.model!r} has no tokenizer.json; embinv needs a fast tokenizer")
        if tokenizer.pad_token is None:
            raise ValueError(
                f"the tokenizer of encoder.model {spec.model!r} has no padding token; texts of different "
                "lengths cannot stand in one batch"
            )
        self.spec = spec
        self.prompt = _prompt(spec, own)
        pad_id = tokenizer.convert_tokens_to_ids(str(tokenizer.pad_token))
        assert isinstance(pad_id, int)
        self.pad_id = pad_id
        self.padding_side = str(tokenizer.padding_side)
        self.max_tokens = _limit(spec, source, folder, settings, tokenizer)
        backend = tokenizer.backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        if self.max_tokens is not None:
            backend.enable_truncation(self.max_tokens, direction=str(tokenizer.truncation_side))
        if settings.get("do_lower_case"):
            given = [] if backend.normalizer is None else [backend.normalizer]
            backend.normalizer = NormalizerSequence([Lowercase(), *given])
        self._backend = backend

    def __call__(self, texts: Sequence[str] | np.ndarray) -> Tokens:
        """The ids of N texts, the prompt and special tokens included."""
        prompt = self.prompt
        given = [prompt + text for text in texts] if prompt else list(texts)
        encodings = self._backend.encode_batch_fast(given)
        offsets = np.zeros(len(given) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, encodings), np.int64, len(given)), out=offsets[1:])
        ids = chain.from_iterable(encoding.ids for encoding in encodings)
        return Tokens(np.fromiter(ids, np.int32, int(offsets[-1])), offsets)


def cannot_be_loaded(spec: EncoderSpec, error: Exception) -> ValueError:
    """The error of a recipe whose model cannot be had."""
    reason = " ".join(str(error).split())
    return ValueError(
        f"encoder.model {spec.model!r} cannot be loaded: {reason}. Give a hub id that this machine can reach "
        "(log in with `hf auth login` for gated models), a folder, or pkg://package/path"
    )


def _hub_name(reference: str) -> str:
    """sentence-transformers looks for a name without owner among its own models."""
    short = "/" not in reference and not Path(reference).is_dir()
    return f"sentence-transformers/{reference}" if short else reference


def _read_json(source: str, name: str, spec: EncoderSpec) -> Any:
    """A file of the model, from a folder or through the hub's cache; None if the model has no such file."""
    if Path(source).is_dir():
        path = Path(source) / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    try:
        path = Path(hf_hub_download(source, name, revision=spec.revision))
    except EntryNotFoundError:
        return None
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise cannot_be_loaded(spec, error) from error
    return json.loads(path.read_text(encoding="utf-8"))


def _prompt(spec: EncoderSpec, own: dict[str, Any]) -> str:
    """The prompt of the recipe, else the one of the model that it names, else the model's default."""
    if spec.prompt is not None:
        return spec.prompt
    prompts = own.get("prompts") or {}
    name = spec.prompt_name if spec.prompt_name is not None else own.get("default_prompt_name")
    if name is None:
        return ""
    if name not in prompts:
        raise ValueError(
            f"encoder.prompt_name {name!r}: {spec.model} has the prompts {sorted(prompts)}; name one of "
            "them, or write the text in encoder.prompt"
        )
    return prompts[name] or ""


def _limit(
    spec: EncoderSpec, source: str, folder: str, settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> int | None:
    """As sentence-transformers: max_seq_length, else the tokenizer's limit within the model's positions."""
    limit = settings.get("max_seq_length")
    if limit is None:
        config = AutoConfig.from_pretrained(
            source, subfolder=folder, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
        positions = getattr(config, "max_position_embeddings", -1)
        limit = min(int(tokenizer.model_max_length), NO_LIMIT if positions == -1 else positions)
    limit = min(limit, NO_LIMIT if spec.max_tokens is None else spec.max_tokens)
    return None if limit >= NO_LIMIT else limit
