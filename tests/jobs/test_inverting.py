import shutil

import numpy as np
import pytest

from embinv.decoding.options import DecodingOptions
from embinv.inverter import load_inverter
from embinv.tasks import Task, Way, invert_here
from jobs.inverting import cut, invert_on_workers
from tests.fakes import hash_spec, tiny_checkpoint, word_tokenizer

VECTORS = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
TASKS = {
    "greedy": Task(VECTORS, Way("confidence", 3)),
    "sampled": Task(VECTORS[:40], Way("euler", 4, DecodingOptions(temperature=2.0)), seed=5),
    "nothing": Task(np.zeros((9, 16), np.float32), Way("euler", 2), distinct=True),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tiny_checkpoint(folder / "checkpoint", word_tokenizer(folder / "words"), hash_spec(16))
    return folder / "checkpoint"


def test_tasks_are_cut_in_order_and_those_with_draws_by_place_stay_whole():
    parts = cut(TASKS, 128)
    assert [(part.name, len(part.task.vectors)) for part in parts] == [
        ("greedy", 128),
        ("greedy", 128),
        ("greedy", 44),
        ("sampled", 40),
        ("nothing", 9),
    ]
    assert (np.concatenate([part.task.vectors for part in parts[:3]]) == VECTORS).all()
    assert [(part.name, len(part.task.vectors)) for part in cut(TASKS, 4)][-1] == ("nothing", 9)


def test_workers_recover_what_one_process_does(ray_cluster, checkpoint):
    lines = []
    there = invert_on_workers(checkpoint, "cpu", "float32", 2, lines.append)(TASKS)
    here = invert_here(load_inverter(checkpoint, precision="float32"))(TASKS)
    assert there.keys() == here.keys()
    for name in TASKS:
        assert [each.text for each in there[name].inversions] == [each.text for each in here[name].inversions]
        for one, other in zip(there[name].inversions, here[name].inversions, strict=True):
            assert one.token_ids == other.token_ids
            assert one.token_confidence == pytest.approx(other.token_confidence, rel=1e-4)
            assert one.confidence == pytest.approx(other.confidence, rel=1e-4)
            assert one.probability is None
        assert there[name].seconds > 0
    assert lines[-1] == "inverting: 349 of 349 vectors (2 workers)"


def test_a_checkpoint_that_a_worker_cannot_load_is_told_in_a_sentence(ray_cluster, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read") as caught:
        invert_on_workers(tmp_path / "broken", "cpu", "float32", 1)({"greedy": TASKS["greedy"]})
    assert len(str(caught.value).splitlines()) == 1
