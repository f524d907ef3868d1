"""A T5 inverter or corrector to be trained: from scratch, or with a pretrained T5's weights and our part of its words.

vec2text's inverters started from t5-base (Morris et al., 2023, section 4). The pairs must have been made with the T5's
tokenizer then: its rows of the token embedding are taken over by original id.

Shapes: V vocabulary, H hidden.
"""

from transformers import T5ForConditionalGeneration

from embinv.data.vocabulary import Vocabulary
from embinv.models.pretrained_files import kept_ids, own_tokenizer, whole_model
from embinv.models.settings import ModelSettings
from embinv.models.t5_corrector import T5Corrector
from embinv.models.t5_inverter import T5Inverter
from embinv.models.t5_settings import T5CorrectorConfig, T5InverterConfig, T5Shape, around, complete
from embinv.models.t5_writer import HEAD, PREFIX, SHARED

KNOWN = "a T5, such as google-t5/t5-base"


def new_t5(
    settings: ModelSettings,
    vocabulary: Vocabulary,
    embedding_dim: int,
    seq_len: int,
    ends: tuple[int, int],
    tokenizer_hash: str | None = None,
) -> T5Inverter | T5Corrector:
    """A T5 inverter or corrector; the arguments are those of `embinv.models.build.new_model`.

    Raises:
        ValueError: the backbone cannot be read, is no T5, or is not the owner of the pairs' tokenizer; or widths do not
            fit each other.
    """
    name = settings.backbone
    if name is None:
        return empty_t5(complete(settings, vocabulary.size, embedding_dim, seq_len, ends))
    own_tokenizer(name, settings.backbone_revision, vocabulary, tokenizer_hash)
    t5 = whole_model(name, settings.backbone_revision, T5ForConditionalGeneration, KNOWN)
    own = t5.config
    kept = kept_ids(name, own.vocab_size, vocabulary)
    shape = T5Shape.model_validate({key: getattr(own, key) for key in T5Shape.model_fields})
    rows = vocabulary.size if vocabulary.trimmed else own.vocab_size
    # transformers says of every T5 that its head is tied; what tells 1.1 from 1.0 is whether its states are scaled.
    tied = bool(own.scale_decoder_outputs)
    config = around(shape, settings, vocabulary.size, rows, embedding_dim, seq_len, ends, tied)
    model = empty_t5(config)
    state = {f"{PREFIX}{name}": tensor for name, tensor in t5.state_dict().items()}
    if vocabulary.trimmed:
        state |= {name: state[name][kept] for name in (SHARED, HEAD)}
    lacking, _ = model.load_state_dict(state | dict.fromkeys(model.copies, state[SHARED]), strict=False)
    assert all(name.startswith(("embedding_transform", "layernorm.")) for name in lacking)
    model.tie()
    return model


def empty_t5(config: T5InverterConfig) -> T5Inverter | T5Corrector:
    """The model of an architecture, with weights that mean nothing yet."""
    return T5Corrector(config) if isinstance(config, T5CorrectorConfig) else T5Inverter(config)
