from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.quality import (
    OURS,
    QualityCase,
    commonest,
    compare,
    measured,
    middle,
    our_quality,
    read_material,
    reference_quality,
    sides_of,
)
from embinv.encoders.hashing import HashEncoder
from embinv.models.settings import ModelSettings
from embinv.training.settings import TrainingSettings
from tests.fakes import (
    OracleDenoiser,
    OracleModel,
    hash_spec,
    pairs_of,
    recipe_for,
    sentences,
    word_tokenizer,
    write_pairs,
)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs of random sentences; what is learnt from and what is held out are the same ones."""
    folder = tmp_path_factory.mktemp("quality")
    tokenizer = word_tokenizer(folder / "words")
    pairs = pairs_of(sentences(40), tokenizer, HashEncoder(hash_spec(16)))
    for split in ("train", "validation", "test"):
        write_pairs(folder / "pairs", recipe_for(tokenizer, hash_spec(16)), pairs, split)
    return folder / "pairs"


@pytest.fixture
def case(data):
    training = TrainingSettings(
        batch_size=8, minutes=2.0 / 60.0, max_steps=10**9, validations=1, optimizer="muon", precision="float32"
    )
    return QualityCase(
        data,
        ModelSettings(size="tiny"),
        training,
        reference_rate=1e-3,
        vocabulary=0,
        rows=30,
        steps=4,
        threads=1,
    )


def oracle(material):
    """Knows every held-out text, in the ids of the material's vocabulary."""
    x_0 = torch.from_numpy(material.vocabulary.compact(material.test.token_ids)).long()
    vectors = torch.from_numpy(material.test.embeddings).float()
    return OracleModel(OracleDenoiser(vectors, x_0, material.vocabulary.size))


@pytest.mark.parametrize("cut", [True, False])
def test_whoever_knows_the_texts_scores_everything(case, cut):
    material = read_material(case)
    figures = measured(oracle(material), material, case, cut)
    assert (figures["token_accuracy"], figures["n"]) == (1.0, 30)
    assert {name: gap["accuracy"] for name, gap in figures["filling_gaps"].items()} == {
        "10%": 1.0,
        "50%": 1.0,
        "100%": 1.0,
    }


def test_tokens_outside_the_vocabulary_count_as_wrong(case):
    case = replace(case, vocabulary=15)
    material = read_material(case)
    assert (material.vocabulary.size, len(material.vocabulary.kept)) == (16, 15)
    ends = (material.recipe.eos_id, material.recipe.pad_id)
    content = ~np.isin(material.test.token_ids, ends)
    known = np.isin(material.test.token_ids, material.vocabulary.kept)[content].mean()
    assert 0 < known < 1
    figures = measured(oracle(material), material, case, True)
    assert figures["token_accuracy"] == figures["ceiling"] == pytest.approx(known, abs=1e-4)


def test_text_that_is_never_ended_is_scored_at_the_originals_positions_only(case):
    """Wrong from the first EOS on: it costs the one that must end a text by itself nothing more than the other."""
    material = read_material(case)
    model = oracle(material)
    x_0 = model.denoiser.x_0
    model.denoiser.x_0 = torch.where(x_0 == material.ids.pad_id, 5, torch.where(x_0 == material.ids.eos_id, 5, x_0))
    assert measured(model, material, case, False)["token_accuracy"] == 1.0
    model.denoiser.x_0 = torch.full_like(x_0, material.ids.eos_id)
    assert measured(model, material, case, True)["token_accuracy"] == 0.0


def test_vocabulary_keeps_the_commonest_tokens_and_the_ends(case):
    recipe = read_material(case).recipe
    token_ids = np.asarray([[5, 5, 5, 6, 6, 7, recipe.eos_id, recipe.pad_id]])
    assert commonest(token_ids, recipe, 4, 2).kept.tolist() == sorted([recipe.eos_id, recipe.pad_id, 5, 6])
    assert commonest(token_ids, recipe, 0, 2).kept.tolist() == sorted([recipe.eos_id, recipe.pad_id, 5, 6, 7])


def test_both_sides_train_for_the_minutes_and_are_measured_alike(case):
    sides = {name: side(own) for name, (side, own) in sides_of(case, [1e-3]).items()}
    assert list(sides) == ["0.001", OURS]
    for figures in sides.values():
        assert figures["n"] == 30
        assert figures["steps"] > 0
        assert set(figures["filling_gaps"]) == {"10%", "50%", "100%"}
        assert 0 <= figures["token_accuracy"] <= 1
        assert figures["steps"] * 8 / figures["samples_per_second"] > 1.9  # seconds, of 2 that each is given
        assert 0 < figures["cores_used"] < 4  # of one thread
        assert (figures["precision"], figures["parameters"] > 0) == ("float32", True)
    assert sides[OURS]["parameters"] != sides["0.001"]["parameters"]  # gates and pseudo-tokens
    assert sides["0.001"]["token_accuracy"] == max(sides["0.001"]["tried"].values())
    result = compare(case, sides)
    assert result["reference_token_accuracy"] == sides["0.001"]["token_accuracy"]
    assert (result["minutes"], result["batch"]) == (case.training.minutes, 8)


def accuracy(value, error=0.0):
    return {"token_accuracy": value, "token_accuracy_se": error}


def test_ratio_and_its_error_follow_from_both_figures(case):
    result = compare(case, {OURS: accuracy(0.3, 0.03), "0.001": accuracy(0.15)})
    assert (result["quality_at_equal_time"], result["quality_at_equal_time_se"]) == (2.0, 0.2)
    both = compare(case, {OURS: accuracy(0.3, 0.03), "0.001": accuracy(0.15, 0.015)})
    assert both["quality_at_equal_time_se"] == pytest.approx(2.0 * np.hypot(0.1, 0.1), abs=1e-3)


def test_ratio_is_zero_where_ours_got_nothing_right_and_null_only_where_the_reference_did(case):
    beaten = compare(case, {OURS: accuracy(0.0), "0.001": accuracy(0.15, 0.01)})
    assert (beaten["quality_at_equal_time"], beaten["quality_at_equal_time_se"]) == (0.0, 0.0)
    nothing = compare(case, {OURS: accuracy(0.3, 0.03), "0.001": accuracy(0.0)})
    assert (nothing["quality_at_equal_time"], nothing["quality_at_equal_time_se"]) == (None, None)


def test_the_reference_counts_with_the_best_of_its_rates_and_all_are_told(case):
    tried = sides_of(case, [5e-4, 1e-3, 2e-3])
    assert {name: own.reference_rate for name, (side, own) in tried.items() if side is reference_quality} == {
        "0.0005": 5e-4,
        "0.001": 1e-3,
        "0.002": 2e-3,
    }
    assert tried[OURS] == (our_quality, case)
    result = compare(
        case, {"0.0005": accuracy(0.1), "0.001": accuracy(0.25), "0.002": accuracy(0.2), OURS: accuracy(0.5)}
    )
    assert (result["quality_at_equal_time"], result["reference_rate"]) == (2.0, 1e-3)
    assert result["reference_rates"] == {"0.0005": 0.1, "0.001": 0.25, "0.002": 0.2}


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [([3.0, None, 1.0], 3.0), ([None, 0.0], 0.0), ([None, None, 2.0], None), ([0.0, 1.0, 2.0], 1.0), ([2.0, 1.0], 1.0)],
)
def test_the_middle_of_several_seeds_takes_null_for_infinite(ratios, expected):
    assert middle([{"quality_at_equal_time": ratio} for ratio in ratios])["quality_at_equal_time"] == expected


def test_too_few_held_out_texts_are_told(case):
    with pytest.raises(ValueError, match="split=test has 1 text"):
        our_quality(replace(case, rows=1))
