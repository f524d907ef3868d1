"""An encoder's tokenizer from the files of its model.

What is read is the layout of sentence-transformers: `modules.json` names the folder of the first module, its
`sentence_bert_config.json` holds max_seq_length and do_lower_case, `config_sentence_transformers.json` the prompts.
The prompt of the recipe stands before every text; special tokens are those that the tokenizer adds itself. That the ids
equal the model's own is checked where the weights are (sentence_transformers.py).
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from embinv.encoders.spec import EncoderSpec, resolve_model
from embinv.encoders.tokens import EncoderTokenizer

NO_LIMIT = 10**9  # transformers writes 10**30 where a tokenizer has no limit


def load_tokenizer(spec: EncoderSpec) -> EncoderTokenizer:
    """The tokenizer of a recipe's encoder.

    Raises:
        ValueError: there is no tokenizer, or it is not one of the `tokenizers` library, or the model has no prompt
            `spec.prompt_name`.
    """
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
    pad_id = tokenizer.convert_tokens_to_ids(str(tokenizer.pad_token))
    assert isinstance(pad_id, int)
    max_tokens = _limit(spec, source, folder, settings, tokenizer)
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    if max_tokens is not None:
        backend.enable_truncation(max_tokens, direction=str(tokenizer.truncation_side))
    if settings.get("do_lower_case"):
        given = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = NormalizerSequence([Lowercase(), *given])
    return EncoderTokenizer(
        backend=backend,
        prompt=_prompt(spec, own),
        pad_id=pad_id,
        padding_side=str(tokenizer.padding_side),
        max_tokens=max_tokens,
    )


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
