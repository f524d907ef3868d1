from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from embinv.audit.adaptation import AdaptationSettings, adapt
from embinv.calibration import Calibrations
from embinv.checkpoint import CheckpointConfig
from embinv.defences.rotation import Rotation
from embinv.inverter import T5TextInverter
from embinv.metrics.tokens import token_f1
from tests.audit.attackers import DIM, make_world
from tests.t5 import tiny_config, tiny_inverter

QUICK = AdaptationSettings(steps=2, batch_size=16)
LEARNING = AdaptationSettings(steps=60, batch_size=16, learning_rate=4e-3, muon_learning_rate=2e-2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), known=64, held_out=12)


@pytest.fixture(scope="module")
def taught(world):
    """A few texts, and an attacker who has learnt them."""
    few = world.known.take(np.arange(24))
    return few, adapt(world.checkpoint, few, rotated(few), LEARNING, 0, precision="float32")


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rotated(pairs):
    return Rotation().fit(pairs.embeddings, 3).protect(pairs.embeddings, 0)


def test_the_same_seed_makes_the_same_attacker(world):
    one, same_again, other = (adapt(world.checkpoint, world.known, rotated(world.known), QUICK, s) for s in (1, 1, 2))
    assert same(weights(one.inverter.model), weights(same_again.inverter.model))
    assert not same(weights(one.inverter.model), weights(other.inverter.model))


def test_the_checkpoint_and_global_chance_stay_as_they_are(world):
    before, state = weights(world.checkpoint.model), torch.get_rng_state()
    adapted = adapt(world.checkpoint, world.known, rotated(world.known), QUICK, 0)
    assert same(weights(world.checkpoint.model), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(weights(adapted.inverter.model), before)
    assert adapted.inverter.calibrations == Calibrations()


def test_without_steps_only_the_way_back_is_learnt(world):
    off = AdaptationSettings(steps=0)
    adapted = adapt(world.checkpoint, world.known, rotated(world.known), off, 0, precision="float32")
    assert not adapted.kept
    assert same(weights(adapted.inverter.model), weights(world.checkpoint.model))


def test_a_training_that_reads_worse_is_thrown_away(world, taught):
    few, attacker = taught
    wild = AdaptationSettings(steps=2, batch_size=16, learning_rate=50.0, muon_learning_rate=50.0)
    learnt = replace(world.checkpoint, model=attacker.inverter.model)
    assert attacker.kept
    few = few.take(np.arange(24)[::-1])  # what is held back now was learnt before
    adapted = adapt(learnt, few, rotated(few), wild, 0, precision="float32")
    assert not adapted.kept
    assert same(weights(adapted.inverter.model), weights(learnt.model))


def test_the_way_back_undoes_a_rotation(world):
    adapted = adapt(world.checkpoint, world.known, rotated(world.known), AdaptationSettings(steps=0), 0)
    assert adapted.back_by == "procrustes"
    found = adapted.read(rotated(world.held_out))
    np.testing.assert_allclose(found, world.held_out.embeddings.astype(np.float32), atol=2e-3)


def test_vectors_as_they_are_need_no_way_back_and_a_row_of_zeros_does_no_harm(world):
    seen = world.known.embeddings.astype(np.float32)
    seen[9] = 0
    adapted = adapt(world.checkpoint, world.known, seen, AdaptationSettings(steps=0), 0)
    assert adapted.back_by == "unchanged"
    np.testing.assert_array_equal(adapted.read(seen), seen)


def test_training_teaches_to_read_what_was_protected(world, taught):
    few, attacker = taught
    start = adapt(world.checkpoint, few, rotated(few), AdaptationSettings(steps=0), 0)
    originals = [attacker.inverter.tokenizer.content(ids) for ids in few.token_ids.tolist()]

    def f1(of):
        said = of.inverter.invert(of.read(rotated(few)), steps=4)
        return token_f1(originals, [inversion.token_ids for inversion in said]).value

    assert f1(attacker) > max(0.5, 2 * f1(start))


def test_a_t5_stays_a_t5(world):
    recipe, vocabulary = world.checkpoint.config.pairs, world.checkpoint.vocabulary
    ends = {"eos_id": recipe.eos_id, "pad_id": recipe.pad_id, "start_id": recipe.pad_id}
    sizes = {"vocab_size": vocabulary.size, "rows": vocabulary.size, "embedding_dim": DIM, "seq_len": recipe.seq_len}
    shape = tiny_config(**sizes, **ends)
    config = CheckpointConfig(name="t5", model=shape, pairs=recipe, training={})
    checkpoint = replace(world.checkpoint, config=config, model=tiny_inverter(shape))
    adapted = adapt(checkpoint, world.known, rotated(world.known), QUICK, 0)
    assert isinstance(adapted.inverter, T5TextInverter) and adapted.kept
    assert len(adapted.inverter.invert(adapted.read(rotated(world.held_out)))) == 12


def test_too_few_texts_for_a_step_are_refused_with_the_fix(world):
    with pytest.raises(
        ValueError, match=r"64 texts .*less 6 held back, do not fill a step of 59.*adaptation\.batch_size"
    ):
        adapt(world.checkpoint, world.known, rotated(world.known), AdaptationSettings(batch_size=59), 0)


def test_a_corrector_is_no_start(world):
    class Corrects:
        corrects = True

    with pytest.raises(ValueError, match="give an inverter"):
        adapt(replace(world.checkpoint, config=Corrects()), world.known, rotated(world.known), QUICK, 0)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"minutes": 1}, {"held_back": 0}])
def test_settings_refuse_what_they_do_not_know(wrong):
    with pytest.raises(ValidationError):
        AdaptationSettings(**wrong)
