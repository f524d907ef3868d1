import numpy as np
import pytest

from embinv.data.pairs import batch_rows, read_pairs
from embinv.data.vocabulary import Vocabulary
from embinv.encoders.hashing import HashEncoder
from tests.fakes import hash_spec, pairs_of, recipe_for, sentences, word_tokenizer, write_pairs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tokenizer = word_tokenizer(tmp_path_factory.mktemp("words"))
    spec = hash_spec(16)
    pairs = pairs_of(sentences(9), tokenizer, HashEncoder(spec))
    return recipe_for(tokenizer, spec), pairs


def test_split_is_read_sorted_by_id_whatever_the_order_on_disk(made, tmp_path):
    recipe, pairs = made
    write_pairs(tmp_path, recipe, pairs.take(np.array([7, 2, 0])), name="a.parquet")
    write_pairs(tmp_path, recipe, pairs.take(np.array([5, 8, 1])), name="b.parquet")
    write_pairs(tmp_path, recipe, pairs.take(np.array([3])), split="test")
    read, rows = read_pairs(tmp_path, "train"), [0, 1, 2, 5, 7, 8]
    assert read.ids.tolist() == rows
    assert read.texts == [pairs.texts[i] for i in rows]
    assert np.array_equal(read.token_ids, pairs.token_ids[rows])
    assert np.array_equal(read.embeddings, pairs.embeddings[rows])
    assert (read.token_ids.dtype, read.embeddings.dtype) == (np.int32, np.float16)


def test_absent_split_is_refused_with_the_setting_that_makes_it(made, tmp_path):
    write_pairs(tmp_path, *made)
    with pytest.raises(ValueError, match=r"no rows in split=validation; .*data.validation"):
        read_pairs(tmp_path, "validation")


def test_take_keeps_columns_together(made):
    pairs, rows = made[1], np.array([4, 1])
    taken = pairs.take(rows)
    assert (taken.ids.tolist(), taken.texts) == ([4, 1], [pairs.texts[4], pairs.texts[1]])
    assert np.array_equal(taken.token_ids, pairs.token_ids[rows])
    assert len(taken) == 2


def test_sample_is_without_repetition_fixed_by_its_seed_and_at_most_all(made):
    pairs = made[1]
    assert pairs.sample(4, 1).ids.tolist() == pairs.sample(4, 1).ids.tolist() != pairs.sample(4, 2).ids.tolist()
    assert len(set(pairs.sample(4, 1).ids.tolist())) == 4
    assert sorted(pairs.sample(100, 1).ids.tolist()) == sorted(pairs.ids.tolist())


def test_renumbered_rows_say_the_same_in_the_models_ids(made):
    recipe, pairs = made
    vocabulary = Vocabulary.of(pairs.token_ids, recipe.vocab_size, (recipe.eos_id, recipe.pad_id), other=2)
    renumbered = pairs.renumbered(vocabulary)
    assert np.array_equal(vocabulary.original(renumbered.token_ids), pairs.token_ids)
    assert renumbered.texts == pairs.texts


ROWS, BATCH = 23, 3


@pytest.mark.parametrize("batch", [1, 3, 6, 23])
def test_epoch_is_a_permutation_without_repeats(batch):
    steps = ROWS // batch
    for epoch in range(3):
        seen = np.concatenate([batch_rows(ROWS, batch, epoch * steps + step, 0) for step in range(steps)])
        assert len(set(seen.tolist())) == len(seen) == steps * batch
        assert set(seen.tolist()) <= set(range(ROWS))


def test_epoch_that_steps_divide_shows_every_row():
    seen = np.concatenate([batch_rows(24, 3, step, 0) for step in range(8, 16)])
    assert sorted(seen.tolist()) == list(range(24))


def test_epochs_and_seeds_have_orders_of_their_own_and_leave_out_different_rows():
    orders = [np.concatenate([batch_rows(ROWS, BATCH, epoch * 7 + step, 0) for step in range(7)]) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert len({frozenset(range(ROWS)) - frozenset(order.tolist()) for order in orders}) > 1
    assert batch_rows(ROWS, BATCH, 0, 0).tolist() != batch_rows(ROWS, BATCH, 0, 1).tolist()


def test_any_step_is_found_again_without_the_steps_before_it():
    forwards = [batch_rows(ROWS, BATCH, step, 5).tolist() for step in range(40)]
    backwards = [batch_rows(ROWS, BATCH, step, 5).tolist() for step in reversed(range(40))]
    assert forwards == backwards[::-1]


def test_rows_that_do_not_fill_a_step_are_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"23 training rows do not fill one step of 24; lower training.batch_size"):
        batch_rows(ROWS, 24, 0, 0)
