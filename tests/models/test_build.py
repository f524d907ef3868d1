import os
import subprocess
import sys

import pytest
import torch

from embinv.data.vocabulary import Vocabulary
from embinv.models.backbone import BackboneDenoiser
from embinv.models.build import empty_model, new_model
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import ModelSettings
from tests.backbones import TOKENS, save_tiny_backbone

ENDS = (1, 0)
VOCABULARY = Vocabulary.whole(TOKENS)


@pytest.fixture
def settings(tmp_path):
    """Settings of each family."""
    save_tiny_backbone(tmp_path / "tiny")
    return {"mdlm": ModelSettings(size="tiny"), "backbone": ModelSettings(backbone=str(tmp_path / "tiny"))}


@pytest.mark.parametrize(("family", "kind"), [("mdlm", ConditionalMDLM), ("backbone", BackboneDenoiser)])
def test_settings_decide_the_family_and_data_the_rest(settings, family, kind):
    made = new_model(settings[family], VOCABULARY, 6, 16, ENDS)
    assert type(made) is kind
    assert made.config.family == family
    assert (made.config.vocab_size, made.config.embedding_dim, made.config.seq_len) == (TOKENS, 6, 16)


@pytest.mark.parametrize("family", ["mdlm", "backbone"])
def test_model_is_built_again_from_its_config_and_weights_alone(settings, family, tmp_path):
    made = new_model(settings[family], VOCABULARY, 6, 16, ENDS).eval()
    (tmp_path / "tiny").rename(tmp_path / "gone")
    again = empty_model(type(made.config).model_validate_json(made.config.model_dump_json())).eval()
    again.load_state_dict(made.state_dict())
    z_t, embedding = torch.arange(16).unsqueeze(0) % (TOKENS + 1), torch.ones(1, 6)
    assert torch.equal(made(z_t, embedding), again(z_t, embedding))


def test_tokenizer_of_the_pairs_is_compared_with_the_backbones(settings):
    with pytest.raises(ValueError, match=r"data.tokenizer is not that of model.backbone"):
        new_model(settings["backbone"], VOCABULARY, 6, 16, ENDS, tokenizer_hash="0" * 16)
    new_model(settings["mdlm"], VOCABULARY, 6, 16, ENDS, tokenizer_hash="0" * 16)  # which asks for none


def test_model_from_scratch_loads_no_code_of_backbones():
    code = "import sys, embinv.models.build; print('transformers.models.modernbert.modeling_modernbert' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert run.stdout.strip() == "False"
