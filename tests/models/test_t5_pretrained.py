"""A T5 that training starts from: every weight is taken over, its vocabulary cut down by original id."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from embinv.data.vocabulary import Vocabulary
from embinv.models.build import empty_model, new_model
from embinv.models.settings import ModelSettings
from tests.backbones import save_tiny_backbone
from tests.fakes import WORDS

SPECIAL = ("<pad>", "</s>", "<unk>")
TOKENS, DIM, LENGTH = len(SPECIAL) + len(WORDS), 6, 10
ROWS = TOKENS + 4  # as in the published ones, rounded up
FORMS = {
    "t5": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "t5-1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def save_tiny_t5(folder, form="t5", pad="<pad>"):
    """Writes a random T5 with its tokenizer and returns it."""
    backend = Tokenizer(WordLevel({token: i for i, token in enumerate((*SPECIAL, *WORDS))}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    folder.mkdir(parents=True, exist_ok=True)
    marks = {"pad_token": pad, "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **marks).save_pretrained(str(folder))
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": ROWS}
    t5 = T5ForConditionalGeneration(T5Config(**sizes, **FORMS[form], decoder_start_token_id=0)).eval()
    if form == "t5-1.1":
        t5.lm_head.weight = nn.Parameter(torch.randn(ROWS, 16))
    t5.save_pretrained(str(folder))
    said = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": form == "t5"}
    (folder / "config.json").write_text(json.dumps(said))  # as published: transformers forgets it of 1.1
    return t5


def settings(folder, **changes):
    return ModelSettings(family="t5", backbone=str(folder), pseudo_tokens=3, **changes)


def vectors(rows):
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", FORMS)
def test_it_says_what_the_t5_says_of_the_same_states(form, tmp_path):
    t5 = save_tiny_t5(tmp_path, form)
    model = new_model(settings(tmp_path), Vocabulary.whole(TOKENS), DIM, LENGTH, (1, 0)).eval()
    assert (model.config.vocab_size, model.config.rows, model.config.seq_len) == (TOKENS, ROWS, LENGTH)
    ids = torch.randint(3, TOKENS, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    expected = t5(inputs_embeds=model.pseudo_tokens(vectors(2)), labels=ids).logits[..., :TOKENS].log_softmax(-1)
    assert torch.allclose(model(ids, vectors(2)), expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_trimmed_vocabulary_keeps_the_rows_of_its_ids(form, tmp_path):
    t5 = save_tiny_t5(tmp_path, form)
    vocabulary = Vocabulary(np.array([0, 1, 4, 5, 7, 8]), TOKENS, 2)
    model = new_model(settings(tmp_path), vocabulary, DIM, LENGTH, vocabulary.ends(1, 0)).eval()
    assert model.config.vocab_size == model.config.rows == 7  # the kept ones, and `other`, which is <unk>
    ids = torch.tensor([[2, 3, 4, 5, 6, 1, 0, 0, 0, 0]])
    original = torch.from_numpy(vocabulary.original(ids.numpy())).long()
    logits = t5(inputs_embeds=model.pseudo_tokens(vectors(1)), labels=original).logits
    kept = torch.from_numpy(vocabulary.original(np.arange(7))).long()
    assert torch.allclose(model(ids, vectors(1)), logits[..., kept].log_softmax(-1), atol=1e-5)


def test_a_checkpoint_of_it_needs_the_t5_no_more(tmp_path):
    save_tiny_t5(tmp_path / "t5", "t5-1.1")
    made = new_model(settings(tmp_path / "t5"), Vocabulary.whole(TOKENS), DIM, LENGTH, (1, 0)).eval()
    (tmp_path / "t5").rename(tmp_path / "gone")
    again = empty_model(type(made.config).model_validate_json(made.config.model_dump_json())).eval()
    again.load_state_dict(made.state_dict())
    ids = torch.full((2, LENGTH), 5)
    assert torch.equal(made(ids, vectors(2)), again(ids, vectors(2)))


def test_what_is_no_t5_or_has_another_tokenizer_is_refused(tmp_path):
    save_tiny_backbone(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"model.backbone .*bert' cannot be used: it is a modernbert; name a T5, such"):
        new_model(settings(tmp_path / "bert"), Vocabulary.whole(5 + len(WORDS)), DIM, LENGTH, (1, 0))
    save_tiny_t5(tmp_path / "t5")
    with pytest.raises(
        ValueError, match=r"data.tokenizer is not that of model.backbone .*; set data.tokenizer to null"
    ):
        new_model(settings(tmp_path / "t5"), Vocabulary.whole(TOKENS + 1), DIM, LENGTH, (1, 0))
    with pytest.raises(ValueError, match="its tokenizer has no mask token; name a ModernBERT"):
        new_model(ModelSettings(backbone=str(tmp_path / "t5")), Vocabulary.whole(TOKENS), DIM, LENGTH, (1, 0))


def test_a_t5_that_lacks_a_weight_is_refused(tmp_path):
    save_tiny_t5(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lacking = "decoder.block.1.layer.0.SelfAttention.k.weight"
    del weights[lacking]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"cannot be used: {lacking} is absent"):
        new_model(settings(tmp_path), Vocabulary.whole(TOKENS), DIM, LENGTH, (1, 0))


def test_settings_of_one_family_are_refused_in_the_other():
    with pytest.raises(
        ValueError, match=r"model.rope is of model.family mdlm, and this one is t5; leave it at .* true"
    ):
        ModelSettings(family="t5", rope=False)
    with pytest.raises(ValueError, match="model.unit_rms is of model.family t5, and this one is mdlm"):
        ModelSettings(unit_rms=False)
    with pytest.raises(ValueError, match="a t5 reads its vector nowhere else; give 1 or more"):
        ModelSettings(family="t5", pseudo_tokens=0)
    with pytest.raises(ValueError, match=r"model.hidden \(30\) must be a multiple of model.heads \(4\)"):
        new_model(ModelSettings(family="t5", hidden=30, heads=4), Vocabulary.whole(9), DIM, LENGTH, (1, 0))
