"""benchmarks/kept_pairs.py: pairs are taken again only if they are whole, and of the same texts and choices."""

import numpy as np
import pytest

from benchmarks import kept_pairs
from benchmarks.kept_pairs import SOURCE_FILE, are_kept, keep_pairs, source_of
from embinv.config import build_config
from embinv.data.pairs import read_pairs
from embinv.encoders.hashing import HashEncoder
from jobs.outputs import SUCCESS_FILE
from tests.fakes import hash_spec, pairs_of, recipe_for, sentences, word_tokenizer, write_pairs


@pytest.fixture
def made(tmp_path):
    """A folder of pairs that were kept, and (texts, recipe, splits) of which they were made."""
    tokenizer = word_tokenizer(tmp_path / "words")
    recipe = recipe_for(tokenizer, hash_spec(16))
    splits = {"train": pairs_of(sentences(20), tokenizer, HashEncoder(hash_spec(16)))}
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(sentences(20)), encoding="utf-8")
    keep_pairs(tmp_path / "pairs", recipe, source_of(texts, 20, config()), splits)
    return tmp_path / "pairs", texts, recipe, splits


def config(*overrides):
    tree = {"name": "hashed", "encoder": {"kind": "hash", "model": "hash", "dim": 16}, "data": {"tokenizer": "words"}}
    return build_config(tree, overrides, "here")


def test_the_same_texts_and_choices_are_taken_again_and_so_are_pairs_whose_texts_nobody_names(made):
    folder, texts, recipe, _ = made
    assert are_kept(folder, recipe, source_of(texts, 20, config()))
    assert are_kept(folder, recipe, None)
    assert not are_kept(folder.parent / "other", recipe, None)


@pytest.mark.parametrize(
    ("rows", "overrides", "message"),
    [
        (1000, [], "made with rows 20, not 1000"),
        (None, [], "made with rows 20, not None"),
        (20, ["data.test=0.3"], "made with data.test 0.02, not 0.3"),
        (20, ["data.seed=1"], "made with data.seed 0, not 1"),
    ],
)
def test_other_choices_are_refused_by_name(made, rows, overrides, message):
    folder, texts, recipe, _ = made
    with pytest.raises(ValueError, match=message):
        are_kept(folder, recipe, source_of(texts, rows, config(*overrides)))


def test_other_texts_under_the_same_name_are_refused(made):
    folder, texts, recipe, _ = made
    texts.write_text("another text\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"made with texts 'texts.txt \(\w+\)', not 'texts.txt \(\w+\)'"):
        are_kept(folder, recipe, source_of(texts, 20, config()))


def test_another_recipe_is_refused(made):
    folder, texts, recipe, _ = made
    with pytest.raises(ValueError, match="seq_len: 8 != 9"):
        are_kept(folder, recipe.model_copy(update={"seq_len": 9}), source_of(texts, 20, config()))


def test_pairs_that_were_broken_off_are_made_again_whole(made, monkeypatch):
    folder, texts, recipe, splits = made
    source = source_of(texts, 20, config())

    def stop(folder, recipe, splits):
        write_pairs(folder, recipe, splits["train"].take(np.arange(5)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(kept_pairs, "write_pairs", stop)
        keep_pairs(folder, recipe, source, splits)
    assert len(read_pairs(folder, "train")) == 5
    assert not are_kept(folder, recipe, source)
    keep_pairs(folder, recipe, source, splits)
    assert are_kept(folder, recipe, source)
    assert len(read_pairs(folder, "train")) == len(splits["train"])


def test_pairs_of_a_job_are_used_once_it_has_ended_and_only_without_naming_texts(made):
    folder, texts, recipe, _ = made
    (folder / SOURCE_FILE).unlink()
    assert are_kept(folder, recipe, None)
    with pytest.raises(ValueError, match="leave out --texts"):
        are_kept(folder, recipe, source_of(texts, 20, config()))
    (folder / SUCCESS_FILE).unlink()
    with pytest.raises(ValueError, match="without _SUCCESS"):
        are_kept(folder, recipe, None)
