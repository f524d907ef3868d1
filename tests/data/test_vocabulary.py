import numpy as np
import pytest

from embinv.data.vocabulary import FILE, Vocabulary

FULL, UNKNOWN = 50, 2


@pytest.fixture
def trimmed():
    return Vocabulary.of(np.array([[7, 30, 1], [7, 49, 0]]), FULL, always=(0, 1), other=UNKNOWN)


def test_kept_ids_are_numbered_in_ascending_order(trimmed):
    assert trimmed.kept.tolist() == [0, 1, 7, 30, 49]
    assert trimmed.compact(np.array([0, 1, 7, 30, 49])).tolist() == [0, 1, 2, 3, 4]
    assert (trimmed.size, trimmed.full_size, trimmed.trimmed) == (6, FULL, True)
    assert trimmed.other_id == 5


def test_known_ids_come_back_as_they_were(trimmed):
    ids = np.array([[7, 0, 49], [30, 1, 7]])
    assert np.array_equal(trimmed.original(trimmed.compact(ids)), ids)


def test_every_unknown_id_becomes_other_and_comes_back_as_the_unknown_token(trimmed):
    strangers = np.setdiff1d(np.arange(FULL), trimmed.kept)
    assert set(trimmed.compact(strangers).tolist()) == {trimmed.other_id}
    assert set(trimmed.original(trimmed.compact(strangers)).tolist()) == {UNKNOWN}


def test_what_always_stays_is_kept_though_it_does_not_occur():
    assert Vocabulary.of(np.array([[7]]), FULL, always=(0, 1), other=UNKNOWN).kept.tolist() == [0, 1, 7]


def test_whole_vocabulary_changes_nothing_and_has_no_other():
    whole, ids = Vocabulary.whole(FULL), np.arange(FULL)
    assert (whole.size, whole.trimmed, whole.other_id) == (FULL, False, None)
    assert np.array_equal(whole.compact(ids), ids)
    assert np.array_equal(whole.original(ids), ids)


def test_tokens_that_all_occur_are_the_whole_vocabulary():
    assert not Vocabulary.of(np.arange(FULL), FULL, (0, 1), UNKNOWN).trimmed


def test_saved_vocabulary_loads_as_it_was(trimmed, tmp_path):
    for vocabulary in (trimmed, Vocabulary.whole(FULL)):
        vocabulary.save(tmp_path)
        loaded = Vocabulary.load(tmp_path)
        assert np.array_equal(loaded.kept, vocabulary.kept)
        assert (loaded.size, loaded.full_size, loaded.other) == (vocabulary.size, FULL, vocabulary.other)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors"])
def test_file_that_is_absent_or_broken_is_refused_and_named(tmp_path, content):
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=f"{FILE}: cannot be read"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize("kept", [[5, 3], [3, 3], [0, FULL], [-1, 4], []])
def test_file_whose_ids_are_no_renumbering_is_refused_and_named(tmp_path, kept):
    import torch
    from safetensors.torch import save_file

    tensors = {"kept": torch.tensor(kept, dtype=torch.int32), "full_size_and_other": torch.tensor([FULL, UNKNOWN])}
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(ValueError, match=FILE):
        Vocabulary.load(tmp_path)
