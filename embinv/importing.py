"""An inverter that others trained with vec2text, as a checkpoint folder of ours: then everything here works with it.

What their folder does not hold, and a checkpoint must: the recipe of the encoder, and the tokenizer's files.
"""

from pathlib import Path

from embinv.checkpoint import CheckpointConfig, save_checkpoint
from embinv.data.schema import PairsRecipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.encoders.spec import EncoderSpec
from embinv.models.t5_inverter import T5Inverter
from embinv.models.t5_settings import T5InverterConfig
from embinv.models.vec2text import load_vec2text
from embinv.provenance.sittings import new_sitting, with_end, with_sitting

JOB = "embinv import"


def import_vec2text(
    source: str,
    out: str | Path,
    name: str,
    encoder: EncoderSpec,
    tokenizer: str | None = None,
    revision: str | None = None,
) -> CheckpointConfig:
    """Writes a checkpoint folder; returns its config.

    Args:
        source: a folder or a repository of the hub in vec2text's format.
        out: the folder to write.
        name: short name of the encoder, /invert/<name>.
        encoder: what its vectors were made with: pooling and scale decide whether a vector is understood.
        tokenizer: hub id or folder; None takes the T5 that their config names.
        revision: hub commit or tag of `source`.

    Raises:
        ValueError: the folder cannot be read, or encoder or tokenizer are not those of its weights.
    """
    model, said = load_vec2text(source, revision)
    if encoder.dim != model.config.embedding_dim:
        raise ValueError(
            f"encoder.dim is {encoder.dim}, but {source} takes vectors of {model.config.embedding_dim} dimensions"
            + (f" ({said.encoder})" if said.encoder else "")
        )
    if (where := tokenizer or said.t5) is None:
        raise ValueError(f"{source} does not say which T5 it started from; name its tokenizer, such as t5-base")
    text_tokenizer = TextTokenizer(where)
    model.config = _with_ids_of(model, text_tokenizer, where)
    config = CheckpointConfig(
        name=name,
        model=model.config,
        pairs=PairsRecipe(
            encoder=encoder,
            tokenizer=where,
            tokenizer_hash=text_tokenizer.fingerprint(),
            vocab_size=text_tokenizer.vocab_size,
            eos_id=text_tokenizer.eos_id,
            pad_id=text_tokenizer.pad_id,
            seq_len=model.config.seq_len,
        ),
        training={"imported_from": source} | ({"trained_on_vectors_of": said.encoder} if said.encoder else {}),
    )
    made = with_sitting(None, new_sitting(JOB, {"from": source, "revision": revision, "tokenizer": where}))
    vocabulary = Vocabulary.whole(text_tokenizer.vocab_size)
    save_checkpoint(out, model, config, text_tokenizer, vocabulary, provenance=with_end(made, JOB))
    return config


def _with_ids_of(model: T5Inverter, tokenizer: TextTokenizer, where: str) -> T5InverterConfig:
    """The architecture with as many ids as the tokenizer has; rows beyond them are never written."""
    config = model.config
    if tokenizer.vocab_size > config.rows:
        raise ValueError(
            f"the tokenizer {where} has {tokenizer.vocab_size:,} tokens and the weights know {config.rows:,}; name the "
            "one that the inverter was trained with"
        )
    if (tokenizer.eos_id, tokenizer.pad_id) != (config.eos_id, config.pad_id):
        raise ValueError(
            f"the tokenizer {where} ends texts with id {tokenizer.eos_id} and pads with {tokenizer.pad_id}; T5's are "
            f"{config.eos_id} and {config.pad_id}"
        )
    return config.model_copy(update={"vocab_size": tokenizer.vocab_size})
