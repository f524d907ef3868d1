import warnings

import numpy as np
import pytest
import torch

from embinv.checkpoint import Checkpoint, load_checkpoint
from embinv.decoding.base import final_state
from embinv.decoding.options import Choices, DecodingOptions
from embinv.encoders.hashing import HashEncoder
from embinv.inversion import Inversion
from embinv.inverter import DiffusionInverter, load_inverter
from embinv.models import reduced
from embinv.models.mdlm import ConditionalMDLM
from tests.fakes import (
    OracleDenoiser,
    OracleModel,
    hash_spec,
    pairs_of,
    sentences,
    tiny_checkpoint,
    unit_vectors,
    word_tokenizer,
)

SPEC = hash_spec(16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tokenizer = word_tokenizer(tmp_path_factory.mktemp("words"))
    pairs = pairs_of(sentences(12), tokenizer, HashEncoder(SPEC))
    folder = tmp_path_factory.mktemp("made") / "checkpoint"
    tiny_checkpoint(folder, tokenizer, SPEC, kept=np.union1d(pairs.token_ids, [0, 1]))
    return folder, pairs


@pytest.fixture(scope="module")
def inverter(made):
    return load_inverter(made[0], batch_size=5, precision="float32")


def oracle_inverter(made, sure=0.9, **options):
    folder, pairs = made
    loaded = load_checkpoint(folder)
    x_0 = torch.from_numpy(loaded.vocabulary.compact(pairs.token_ids)).long()
    denoiser = OracleDenoiser(
        torch.from_numpy(pairs.embeddings).float(), x_0, loaded.vocabulary.size, torch.as_tensor(sure)
    )
    checkpoint = Checkpoint(loaded.config, OracleModel(denoiser), loaded.tokenizer, loaded.vocabulary)
    return DiffusionInverter(checkpoint, **options)


@pytest.mark.parametrize("steps", [1, 3, 8, 20])
def test_oracles_texts_come_back_through_vocabulary_and_tokenizer(made, steps):
    pairs = made[1]
    found = oracle_inverter(made).invert(pairs.embeddings, steps=steps)
    assert [inversion.text for inversion in found] == pairs.texts
    content = [ids[: ids.index(1)] for ids in pairs.token_ids.tolist()]
    assert [inversion.token_ids for inversion in found] == content


def test_confidence_is_the_geometric_mean_over_the_text_and_its_end(made):
    sure = [0.9, 0.8, 0.7, 0.95, 0.6, 0.99, 0.5, 0.4]
    pairs = made[1]
    for inversion in oracle_inverter(made, sure).invert(pairs.embeddings, steps=1):
        counted = sure[: len(inversion.token_ids) + 1]
        assert inversion.confidence == pytest.approx(np.prod(counted) ** (1 / len(counted)), rel=1e-5)
        assert inversion.token_confidence == pytest.approx(sure[: len(inversion.token_ids)], rel=1e-5)


def test_what_stands_for_tokens_left_out_of_the_vocabulary_is_never_written(made):
    oracle = oracle_inverter(made)
    assert oracle.vocabulary.other_id == oracle.vocabulary.size - 1
    oracle.model.denoiser.x_0[:, 0] = oracle.vocabulary.other_id
    for inversion, ids in zip(oracle.invert(made[1].embeddings), made[1].token_ids.tolist(), strict=True):
        assert oracle.tokenizer.unknown_id not in inversion.token_ids
        if inversion.token_ids:
            assert inversion.token_ids[1:] == ids[1 : ids.index(1)]


def same(one: list[Inversion], other: list[Inversion]):
    assert [(a.text, a.token_ids) for a in one] == [(b.text, b.token_ids) for b in other]
    assert [a.confidence for a in one] == pytest.approx([b.confidence for b in other], rel=1e-4)


def test_inversion_of_a_row_does_not_depend_on_its_batch(made, inverter):
    vectors = unit_vectors(11, 16)
    together = inverter.invert(vectors)
    same(together, [inversion for row in vectors for inversion in inverter.invert(row)])
    same(together, load_inverter(made[0], batch_size=3, precision="float32").invert(vectors))
    same(together, inverter.invert(vectors[::-1].copy())[::-1])


def test_vectors_may_be_read_only_or_a_view_in_any_order(inverter):
    vectors = unit_vectors(6, 16)  # the last batch holds one row
    expected = inverter.invert(vectors)
    same(inverter.invert(vectors[::-1]), expected[::-1])
    same(inverter.invert(np.asfortranarray(vectors)), expected)
    vectors.setflags(write=False)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            same(inverter.invert(vectors), expected)
    finally:
        torch.set_warn_always(False)


def test_different_vectors_give_different_texts(inverter):
    assert len({inversion.text for inversion in inverter.invert(unit_vectors(11, 16))}) > 3


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
def test_scale_of_a_vector_changes_nothing(inverter, scale):
    vectors = unit_vectors(5, 16)
    same(inverter.invert(vectors), inverter.invert(vectors * scale))


def test_inversion_is_the_same_each_time(inverter):
    vectors = unit_vectors(5, 16)
    assert inverter.invert(vectors, seed=0) == inverter.invert(vectors, seed=0)


def test_content_has_no_end_no_padding_and_one_confidence_each(inverter):
    for inversion in inverter.invert(unit_vectors(20, 16)):
        assert not {0, 1} & set(inversion.token_ids)
        assert len(inversion.token_confidence) == len(inversion.token_ids) <= 8
        assert all(0 < value <= 1 for value in (*inversion.token_confidence, inversion.confidence))


def test_progress_counts_vectors_after_each_batch(inverter):
    done = []
    inverter.invert(unit_vectors(11, 16), on_progress=done.append)
    assert done == [5, 10, 11]


@pytest.mark.parametrize(
    ("vectors", "options", "sentence"),
    [
        (unit_vectors(2, 15), {}, "have 15 dimensions, this inverter takes 16"),
        (np.zeros((1, 16)), {}, "row 0 is a zero vector"),
        (np.full((1, 16), np.nan), {}, "row 0 holds NaN"),
        (np.zeros((0, 16)), {}, "no vector was given"),
        (unit_vectors(2, 16), {"steps": 0}, "steps is 0; give at least 1"),
        (unit_vectors(2, 16), {"strategy": "luck"}, "strategy 'luck' is unknown; choose one of confidence"),
    ],
    ids=["width", "zero", "nan", "empty", "steps", "strategy"],
)
def test_what_cannot_be_inverted_is_refused_with_the_fix(inverter, vectors, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        inverter.invert(vectors, **options)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_below_one_is_refused(made, batch_size):
    with pytest.raises(ValueError, match="batch"):
        load_inverter(made[0], batch_size=batch_size).invert(unit_vectors(2, 16))


def test_zero_vector_is_inverted_where_the_check_is_left_out(inverter):
    [nothing] = inverter.invert_unchecked(np.zeros((1, 16)))
    assert np.isfinite(nothing.confidence)


def test_encoder_chooses_the_candidate_whose_own_vector_is_closest_and_the_result_says_so(inverter, made):
    options, encoder, vectors = DecodingOptions(candidates=6), HashEncoder(SPEC), made[1].embeddings[:7]
    usual = {"strategy": "candidates", "steps": 4, "seed": 3, "options": options}
    by_model, by_encoder = inverter.invert(vectors, **usual), inverter.invert(vectors, **usual, encoder=encoder)
    assert all(inversion.cosine is None for inversion in by_model)
    states = inverter.candidate_states(vectors.astype(np.float32), Choices("candidates", 4, 3, options))
    every = inverter.read_candidates(final_state(states))
    for row, chosen in enumerate(by_encoder):
        own = encoder.encode([candidate.text or " " for candidate in every[6 * row : 6 * row + 6]]).astype(np.float64)
        vector = vectors[row].astype(np.float64)
        cosines = own @ vector / np.linalg.norm(own, axis=1) / np.linalg.norm(vector)
        assert chosen.text == every[6 * row + int(cosines.argmax())].text
        assert chosen.cosine == pytest.approx(cosines.max(), abs=1e-5)
    assert [i.text for i in by_model] != [i.text for i in by_encoder]


def test_the_states_of_a_batch_go_from_all_hidden_to_what_invert_gives(inverter, made):
    vectors, choices = made[1].embeddings[:5].astype(np.float32), Choices(steps=4)
    states = list(inverter.states(vectors, choices))
    hidden = [int((state.tokens == inverter.config.model.mask_id).sum()) for state in states]
    assert [state.step for state in states] == [1, 2, 3, 4]
    assert hidden == sorted(hidden, reverse=True) and hidden[0] > 0 == hidden[-1]
    assert inverter.read(states[-1], choices) == inverter.invert(vectors, steps=4)


def test_an_encoder_has_nothing_to_choose_from_elsewhere(inverter, made):
    with pytest.raises(ValueError, match="strategy euler has no candidates for an encoder to choose from"):
        inverter.invert(made[1].embeddings, strategy="euler", encoder=HashEncoder(SPEC))


@pytest.fixture(scope="module")
def trained(made):
    """A checkpoint whose model has learned the twelve texts."""
    folder, pairs = made
    loaded = load_checkpoint(folder)
    x_0 = torch.from_numpy(loaded.vocabulary.compact(pairs.token_ids)).long()
    embedding, generator = torch.from_numpy(pairs.embeddings).float(), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = ConditionalMDLM(loaded.config.model).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(80):
        hidden = torch.rand(x_0.shape, generator=generator) < 0.7
        z_t, targets = x_0.masked_fill(hidden, loaded.config.model.mask_id), x_0[hidden]
        loss, _ = model(z_t, embedding, hidden, targets, torch.full((len(targets),), 1 / len(targets)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2
    return Checkpoint(loaded.config, model.eval(), loaded.tokenizer, loaded.vocabulary)


def agreement(one: list[Inversion], other: list[Inversion]) -> float:
    """Share of the tokens of the longer texts that both have at the same place."""
    rows = [(x.token_ids, y.token_ids) for x, y in zip(one, other, strict=True)]
    alike = sum(a == b for x, y in rows for a, b in zip(x, y, strict=False))
    return alike / sum(max(len(x), len(y)) for x, y in rows)


@pytest.mark.parametrize("strategy", ["confidence", "sequential", "euler", "candidates"])
def test_bfloat16_writes_nearly_what_float32_writes(trained, made, strategy):
    exact, rounded = DiffusionInverter(trained, 5, "float32"), DiffusionInverter(trained, 5, "bfloat16")
    known = made[1].embeddings.astype(np.float32)
    assert [found.text for found in rounded.invert(known)] == made[1].texts
    blurred = np.concatenate([known + scale * unit_vectors(12, 16, seed) for seed, scale in enumerate((0.4, 0.8, 1.6))])
    expected, found = exact.invert(blurred, strategy=strategy), rounded.invert(blurred, strategy=strategy)
    assert len({inversion.text for inversion in expected}) > 15  # not the twelve alone, so that it says something
    assert agreement(expected, found) > 0.95
    apart = np.subtract([each.confidence for each in expected], [each.confidence for each in found])
    assert 0 < np.abs(apart).mean() < 0.02


def test_checkpoint_is_not_changed_by_an_inverter_in_bfloat16(trained, made):
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    expected = DiffusionInverter(trained, precision="float32").invert(made[1].embeddings)
    DiffusionInverter(trained, precision="bfloat16").invert(made[1].embeddings)
    after = trained.model.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )
    assert DiffusionInverter(trained, precision="float32").invert(made[1].embeddings) == expected


def test_float32_computes_with_the_checkpoints_own_model(trained):
    inverter = DiffusionInverter(trained, precision="float32")
    assert inverter.precision == "float32"
    assert inverter.model is trained.model


@pytest.mark.parametrize(("multiplies", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_default_is_bfloat16_where_the_device_multiplies_in_it(made, monkeypatch, multiplies, dtype):
    monkeypatch.setattr(reduced, "multiplies_in_bfloat16", lambda device: multiplies)
    inverter = load_inverter(made[0])
    assert inverter.precision == str(dtype).removeprefix("torch.")
    matrices = [module for module in inverter.model.modules() if isinstance(module, torch.nn.Linear)]
    assert bool(matrices) == (dtype == torch.float32)
    assert inverter.model.token_embedding.weight.dtype == torch.float32


def test_unknown_precision_is_refused_with_the_choices(made):
    with pytest.raises(ValueError, match="precision 'half' is unknown; choose one of auto, float32, bfloat16"):
        load_inverter(made[0], precision="half")
