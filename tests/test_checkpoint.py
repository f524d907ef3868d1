import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embinv.checkpoint import (
    CheckpointConfig,
    load_checkpoint,
    read_checkpoint_config,
    save_checkpoint,
)
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.models.build import new_model
from embinv.models.settings import ModelSettings
from embinv.spaces.moments import moments_of
from tests.backbones import save_tiny_backbone
from tests.fakes import (
    WORDS,
    awaken,
    hash_spec,
    recipe_for,
    tiny_checkpoint,
    unit_vectors,
    word_tokenizer,
)

SPEC = hash_spec(16)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return word_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    return folder, *tiny_checkpoint(folder, tokenizer, SPEC, kept=[0, 1, 3, 4, 9, 17])


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may break."""
    shutil.copytree(saved[0], tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def refusal(folder):
    with pytest.raises(ValueError, match=r".+") as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(folder) in message
    return message


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite_config(folder, change):
    tree = json.loads((folder / "config.json").read_text())
    change(tree)
    (folder / "config.json").write_text(json.dumps(tree))


def rewrite_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_round_trip_is_bit_exact(saved, tokenizer):
    folder, model, config, vocabulary = saved
    loaded = load_checkpoint(folder)
    state = loaded.model.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert loaded.config == config
    assert np.array_equal(loaded.vocabulary.kept, vocabulary.kept)
    assert loaded.tokenizer.fingerprint() == tokenizer.fingerprint()
    assert not loaded.model.training


def test_loaded_model_says_what_the_saved_one_said(saved):
    folder, model, config, _ = saved
    z_t = torch.tensor([[config.model.mask_id] * 8, [0, 1, 2, config.model.mask_id, 0, 1, 2, 3]])
    embedding = torch.from_numpy(unit_vectors(2, 16))
    assert torch.equal(load_checkpoint(folder).model(z_t, embedding), model(z_t, embedding))


def test_saving_what_was_loaded_writes_the_same_files(saved, tmp_path):
    loaded = load_checkpoint(saved[0])
    save_checkpoint(tmp_path / "again", loaded.model, loaded.config, loaded.tokenizer, loaded.vocabulary)
    first, second = contents(saved[0]), contents(tmp_path / "again")
    assert first.keys() == second.keys()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "vocabulary.safetensors", "README.md"):
        assert first[name] == second[name]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A checkpoint of a model that started from a backbone, which is no longer there; and its model."""
    folder = tmp_path_factory.mktemp("started")
    save_tiny_backbone(folder / "tiny")
    tokenizer = TextTokenizer(str(folder / "tiny"))
    vocabulary = Vocabulary(np.array([0, 1, 2, 5, 9]), tokenizer.vocab_size, tokenizer.unknown_id)
    model = awaken(new_model(ModelSettings(backbone=str(folder / "tiny")), vocabulary, SPEC.dim, 8, (1, 0)))
    config = CheckpointConfig(
        name="started",
        model=model.config,
        pairs=recipe_for(tokenizer, SPEC),
        training={},
        statistics=moments_of(unit_vectors(16, SPEC.dim)).statistics(),
    )
    save_checkpoint(folder / "checkpoint", model, config, tokenizer, vocabulary)
    (folder / "tiny").rename(folder / "gone")
    return folder / "checkpoint", model


def test_model_from_a_backbone_loads_without_the_backbone_and_says_the_same(started):
    folder, model = started
    loaded = load_checkpoint(folder)
    z_t, embedding = torch.tensor([[model.config.mask_id] * 8, [0, 1, 2, 3, 4, 5, 6, 0]]), torch.ones(2, SPEC.dim)
    assert torch.equal(loaded.model(z_t, embedding), model(z_t, embedding))
    assert loaded.config.model == model.config
    assert json.loads((folder / "config.json").read_text())["family"] == "backbone"
    card = (folder / "README.md").read_text()
    assert f"started from {model.config.backbone}: 4 layers, hidden 32" in " ".join(card.split())


def test_checkpoint_says_its_family_and_an_older_one_without_it_is_read(saved, folder):
    assert json.loads((folder / "config.json").read_text())["family"] == "mdlm"
    rewrite_config(folder, lambda tree: tree.pop("family"))
    assert load_checkpoint(folder).config == saved[2]


def test_family_that_is_not_the_models_is_refused(started, folder, tmp_path):
    rewrite_config(folder, lambda tree: tree.update(family="backbone"))
    assert "family is 'backbone', but model is one of 'mdlm'" in refusal(folder)
    shutil.copytree(started[0], tmp_path / "other")
    rewrite_config(tmp_path / "other", lambda tree: tree["model"].pop("transformer"))
    assert "model.backbone.transformer: Field required" in refusal(tmp_path / "other")


def test_folder_moves_by_copy(folder, tmp_path):
    folder.rename(tmp_path / "moved")
    assert load_checkpoint(tmp_path / "moved").config.name == "tiny"


def test_weights_in_half_precision_are_saved_as_float32(saved, tokenizer, tmp_path):
    _, model, config, vocabulary = saved
    import copy

    half = copy.deepcopy(model).bfloat16()
    save_checkpoint(tmp_path / "half", half, config, tokenizer, vocabulary)
    loaded = load_checkpoint(tmp_path / "half").model.state_dict()
    assert all(loaded[name].dtype == torch.float32 for name in loaded)
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in half.state_dict().items())


def test_missing_tensor_is_named(folder):
    rewrite_weights(folder, lambda weights: weights.pop("blocks.1.attention.key.weight"))
    assert "blocks.1.attention.key.weight is missing" in refusal(folder)


def test_extra_tensor_is_named(folder):
    rewrite_weights(folder, lambda weights: weights.update(stranger=torch.zeros(2)))
    assert "stranger is not part of the architecture" in refusal(folder)


def test_tensor_of_another_shape_is_named_with_both_shapes(folder):
    rewrite_weights(folder, lambda weights: weights.update(head_bias=torch.zeros(3)))
    assert "head_bias has shape (3,), expected (7,)" in refusal(folder)


def test_all_that_does_not_fit_is_named_at_once(folder):
    def change(weights):
        del weights["head_bias"]
        weights["stranger"] = torch.zeros(2)

    rewrite_weights(folder, change)
    message = refusal(folder)
    assert "head_bias is missing" in message
    assert "stranger is not part" in message


@pytest.mark.parametrize("version", [3, 0, None, "1", True])
def test_other_format_version_is_refused_with_those_that_are_read(folder, version):
    rewrite_config(folder, lambda tree: tree.update(format_version=version))
    assert f"format_version {version!r}" in refusal(folder) and "this embinv reads 1 to 2" in refusal(folder)


def test_a_folder_of_a_newer_release_names_the_one_to_install(folder):
    rewrite_config(folder, lambda tree: tree.update(format_version=3, written_by="7.1.0", surprise=1))
    assert refusal(folder).endswith("it is of a newer release: install embinv 7.1.0 or newer")


def test_swapped_tokenizer_is_refused(folder, tmp_path):
    other = word_tokenizer(tmp_path / "other", words=WORDS[::-1])
    other.save(str(folder))
    assert "tokenizer.json is not the one" in refusal(folder)


def test_vocabulary_of_another_model_is_refused(folder, saved):
    Vocabulary(np.array([0, 1, 2]), saved[3].full_size, 2).save(folder)
    assert "vocabulary.safetensors does not belong" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocabulary.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"", b"garbage"], ids=["absent", "empty", "garbage"])
def test_part_that_is_absent_or_broken_is_refused_with_the_folder(folder, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    refusal(folder)


@pytest.mark.parametrize("change", [{"surprise": 1}, {"family": "t5"}, {"statistics": 3}], ids=str)
def test_config_outside_the_contract_is_refused_in_one_sentence(folder, change):
    rewrite_config(folder, lambda tree: tree.update(change))
    assert next(iter(change)) in refusal(folder)


def test_folder_that_is_no_checkpoint_is_refused_with_who_makes_one(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=r"no config.json; give a folder that jobs/train.py wrote"):
            read_checkpoint_config(path)


class BrokenTokenizer:
    """Writes one file and then fails, as on a full disk."""

    def save(self, folder):
        from pathlib import Path

        (Path(folder) / "tokenizer.json").write_text("{")
        raise OSError("no space left on device")


def test_failure_half_way_leaves_the_older_checkpoint_whole(folder, saved, tokenizer):
    _, model, config, vocabulary = saved
    before = contents(folder)
    newer = config.model_copy(update={"name": "newer"})
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(folder, model, newer, BrokenTokenizer(), vocabulary)
    assert contents(folder) == before
    save_checkpoint(folder, model, newer, tokenizer, vocabulary)  # what the failure left does no harm
    assert read_checkpoint_config(folder).name == "newer"
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_failure_half_way_makes_no_folder_where_there_was_none(saved, tmp_path):
    _, model, config, vocabulary = saved
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path / "new", model, config, BrokenTokenizer(), vocabulary)
    assert not (tmp_path / "new").exists()


def test_newer_checkpoint_replaces_the_older_without_leftovers(folder, saved, tokenizer):
    (folder / "leftover.txt").write_text("of the older one")
    _, model, config, vocabulary = saved
    save_checkpoint(folder, model, config, tokenizer, vocabulary)
    assert not (folder / "leftover.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_nothing_in_the_folder_is_a_pickle(saved):
    suffixes = {path.suffix for path in saved[0].iterdir()}
    assert suffixes <= {".safetensors", ".json", ".md", ".jinja"}


def test_model_card_says_what_was_made_and_measured(saved, tokenizer, tmp_path):
    _, model, config, vocabulary = saved
    measured = config.model_copy(update={"training": {"steps": 123, "validation_token_accuracy": 0.4567}})
    save_checkpoint(tmp_path / "c", model, measured, tokenizer, vocabulary)
    card = (tmp_path / "c" / "README.md").read_text()
    for part in ("inverter for hash", "16-dimensional", "| steps | 123 |", "| validation_token_accuracy | 0.4567 |"):
        assert part in card


def test_shape_of_the_training_vectors_comes_back(saved, tokenizer, tmp_path):
    _, model, config, vocabulary = saved
    moments = moments_of(unit_vectors(40, SPEC.dim))
    save_checkpoint(tmp_path / "c", model, config, tokenizer, vocabulary, moments.shape())
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.shape is not None
    assert np.array_equal(loaded.shape.correlation, moments.shape().correlation)
    assert loaded.trained_on is not None
    assert loaded.trained_on.statistics == config.statistics


def test_a_checkpoint_without_a_shape_loads_and_a_broken_one_is_refused(saved, tokenizer, tmp_path):
    _, model, config, vocabulary = saved
    save_checkpoint(tmp_path / "c", model, config, tokenizer, vocabulary)
    assert load_checkpoint(tmp_path / "c").shape is None
    (tmp_path / "c" / "statistics.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="statistics.safetensors: no statistics"):
        load_checkpoint(tmp_path / "c")
