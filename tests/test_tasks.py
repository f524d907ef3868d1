import numpy as np
import pytest

from embinv.checkpoint import load_checkpoint
from embinv.decoding.options import DecodingOptions
from embinv.inverter import DiffusionInverter
from embinv.tasks import Task, Way, invert_here
from tests.fakes import hash_spec, tiny_checkpoint, word_tokenizer

VECTORS = np.random.default_rng(0).normal(size=(7, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def inverter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tiny_checkpoint(folder / "checkpoint", word_tokenizer(folder / "words"), hash_spec(16))
    return DiffusionInverter(load_checkpoint(folder / "checkpoint"), batch_size=4)


def test_each_task_is_inverted_its_own_way(inverter):
    hot = DecodingOptions(temperature=3.0)
    tasks = {
        "greedy": Task(VECTORS, Way("confidence", 3)),
        "hot": Task(VECTORS[:5], Way("euler", 2, hot), seed=9),
    }
    done = invert_here(inverter)(tasks)
    assert done["greedy"].inversions == inverter.invert(VECTORS, steps=3)
    assert done["hot"].inversions == inverter.invert(VECTORS[:5], strategy="euler", steps=2, seed=9, options=hot)
    assert all(each.seconds > 0 for each in done.values())


def test_equal_vectors_get_draws_of_their_own_where_that_is_asked(inverter):
    same = np.zeros((6, 16), np.float32)
    way = Way("euler", 4, DecodingOptions(temperature=3.0))
    done = invert_here(inverter)({"alike": Task(same, way), "apart": Task(same, way, distinct=True)})
    assert len({each.text for each in done["alike"].inversions}) == 1
    assert len({each.text for each in done["apart"].inversions}) > 1


def test_progress_counts_over_all_tasks(inverter):
    lines = []
    tasks = {name: Task(VECTORS, Way("confidence", 1)) for name in ("one", "two")}
    invert_here(inverter, lines.append)(tasks)
    assert lines == [f"inverting: {done} of 14 vectors" for done in (4, 7, 11, 14)]
