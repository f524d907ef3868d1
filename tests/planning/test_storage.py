"""Bytes on disk against the demo's files and in their limit cases."""

import pytest

from embinv.planning.assumptions import assumed
from embinv.planning.inverter_size import inverter_size
from embinv.planning.storage import corpus_and_pairs, pair_bytes, recovered, training_state
from embinv.planning.zero import Weights, save_bytes
from tests.planning.loads import workload


def test_a_pair_has_the_size_of_the_demos():
    """15,000 records of 84 characters and about 20 tokens, L 28, 384 numbers: 10,925,973 bytes."""
    own = assumed(["bytes_per_token=4.2", "text_ratio=0.33"])
    assert pair_bytes(28, 384, 20, own) == pytest.approx(10_925_973 / 15_000, rel=0.05)


def test_a_vector_grows_with_its_numbers_and_their_type():
    sizes = {
        kind: pair_bytes(32, 1024, 20, assumed(["vector_ratio=1"]), kind) for kind in ("int8", "float16", "float32")
    }
    assert sizes["float16"] - sizes["int8"] == 1024 and sizes["float32"] - sizes["float16"] == 2048


def test_padding_compresses_to_nothing():
    assert pair_bytes(32, 8, 20, assumed()) == pair_bytes(512, 8, 20, assumed())


def test_nothing_is_stored_of_no_rows_and_twice_of_twice_as_many():
    none, one, two = (corpus_and_pairs(rows, 32, 1024, 25, assumed()) for rows in (0, 1000, 2000))
    assert all(item.size == 0 for item in none)
    assert all(b.size == pytest.approx(2 * a.size) for a, b in zip(one, two, strict=True))
    assert recovered(0, 25, assumed()).size == 0


def test_three_saves_and_three_checkpoints_may_lie_there_at_once():
    config = workload("minilm", ["model.size=tiny"]).config
    size = inverter_size(config, 300)
    state, checkpoints = training_state(size, config.training)
    assert state.size == 3 * save_bytes(Weights(size.parameters, size.matrices), config.training)
    assert checkpoints.size == 3 * 4 * size.parameters
