import pickle
import shutil

import numpy as np
import pytest

from embinv.data.alignment import align
from embinv.data.tokenizer import TextTokenizer
from tests.fakes import MINILM, WORDS, word_tokenizer


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return word_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def minilm():
    return TextTokenizer(MINILM)


def text_of(count):
    return " ".join(WORDS[i % len(WORDS)] for i in range(count))


def test_row_is_the_text_then_eos_then_padding(words):
    aligned = align([text_of(5)], words.fast, seq_len=8, min_tokens=5)
    assert aligned.token_ids.tolist() == [[3, 4, 5, 6, 7, words.eos_id, words.pad_id, words.pad_id]]
    assert aligned.token_ids.dtype == np.int32


@pytest.mark.parametrize("count", [6, 7, 8, 20])
def test_long_text_is_cut_to_l_minus_1_tokens_and_always_ends(words, count):
    aligned = align([text_of(count)], words.fast, seq_len=8, min_tokens=5)
    assert aligned.texts.tolist() == [text_of(min(count, 7))]
    row = aligned.token_ids[0].tolist()
    assert row.index(words.eos_id) == min(count, 7)


def test_text_kept_is_the_one_that_the_tokens_say(words, minilm):
    texts = [text_of(9), text_of(6), "anna  paid   two coins by maps"]
    for tokenizer in (words, minilm):
        aligned = align(texts, tokenizer.fast, seq_len=8, min_tokens=5)
        assert aligned.texts.tolist() == [tokenizer.decode(ids) for ids in aligned.token_ids.tolist()]


def test_kept_text_is_a_fixed_point_of_alignment(minilm):
    texts = [
        "Dr. Weber moved Anna Müller's appointment to May 4, 2024 (room 12).",
        "Invoice #4711: $1,200.50 is due on 3/14 - don't pay twice!",
        "The payment of 300 EUR from ACME Corp. was returned because the account is closed.",
    ]
    once = align(texts, minilm.fast, seq_len=16, min_tokens=5)
    twice = align(once.texts, minilm.fast, seq_len=16, min_tokens=5)
    assert twice.texts.tolist() == once.texts.tolist()
    assert np.array_equal(twice.token_ids, once.token_ids)


def test_short_texts_are_dropped_and_rows_say_which_stayed(words):
    aligned = align([text_of(4), text_of(5), "", text_of(6)], words.fast, seq_len=8, min_tokens=5)
    assert aligned.rows.tolist() == [1, 3]
    assert aligned.texts.tolist() == [text_of(5), text_of(6)]


def test_nothing_to_keep_gives_an_empty_matrix_of_the_right_width(words):
    for texts in ([], [text_of(2)]):
        aligned = align(texts, words.fast, seq_len=8, min_tokens=5)
        assert aligned.token_ids.shape == (0, 8)
        assert aligned.rows.shape == (0,)


def test_tokens_cut_through_a_character_are_given_up(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>").save_pretrained(tmp_path)
    aligned = align(
        ["abc漢字漢字"], TextTokenizer(str(tmp_path)).fast, seq_len=9, min_tokens=1
    )  # 8 bytes: abc漢 and 2 of 3
    assert aligned.texts.tolist() == ["abc漢"]


def test_punctuation_is_closed_up_as_transformers_does_it(minilm):
    text = "he didn't say: \"anna's here, i'm sure\" . why ? they've gone ! rock ' n ' roll, we're off"
    texts = [f"{text} {number}" for number in range(1100)]  # more than are worked on at once
    contents = minilm.encode(texts)
    own = [minilm.tokenizer.decode(ids, clean_up_tokenization_spaces=True).strip() for ids in contents]
    assert minilm.fast.decode_batch(contents) == own


def test_many_texts_are_tokenised_as_each_alone(minilm):
    texts = [f"coin {'map ' * (number % 5)}{number}" for number in range(1100)]
    ids, starts, lengths = minilm.fast.tokenize(texts, limit=6)
    found = [ids[start : start + length].tolist() for start, length in zip(starts, lengths, strict=True)]
    assert found == [own[:6] for own in minilm.encode(texts)]


def test_what_alignment_needs_survives_pickling(minilm):
    texts = ["Dr. Weber moved the appointment to May 4.", "anna paid two coins"]
    copy = pickle.loads(pickle.dumps(minilm.fast))  # noqa: S301
    sent = align(texts, copy, seq_len=16, min_tokens=1)
    here = align(texts, minilm.fast, seq_len=16, min_tokens=1)
    assert sent.texts.tolist() == here.texts.tolist()
    np.testing.assert_array_equal(sent.token_ids, here.token_ids)


def test_special_tokens_written_in_a_text_end_it_and_are_never_content(words, minilm):
    assert words.content([3, 4, words.eos_id, 5, words.pad_id]) == [3, 4]
    assert words.content([3, words.pad_id, 4]) == [3]
    assert words.content([3, 4]) == [3, 4]
    for aligned in (align(["anna paid [SEP] two coins by maps one"], minilm.fast, 16, 1),):
        content = minilm.content(aligned.token_ids[0].tolist())
        assert not {minilm.eos_id, minilm.pad_id} & set(content)


def test_bert_ends_with_sep_and_knows_its_padding(minilm):
    assert (minilm.eos_id, minilm.pad_id, minilm.unknown_id, minilm.vocab_size) == (102, 0, 100, 30522)


def test_encoding_adds_no_special_tokens_and_knows_no_limit(minilm):
    [ids] = minilm.encode(["coin " * 700])
    assert len(ids) == 700
    assert minilm.encode([]) == []


def test_fingerprint_survives_saving_and_tells_vocabularies_apart(words, tmp_path):
    words.save(str(tmp_path / "copy"))
    assert TextTokenizer(str(tmp_path / "copy")).fingerprint() == words.fingerprint()
    other = word_tokenizer(tmp_path / "other", words=WORDS[::-1])
    assert other.fingerprint() != words.fingerprint()


def test_fingerprint_does_not_depend_on_what_was_encoded_before(minilm):
    fresh = TextTokenizer(MINILM)
    fresh.tokenizer(["a b c"], truncation=True, max_length=2, padding="max_length")
    assert fresh.fingerprint() == minilm.fingerprint()


def test_folder_without_a_tokenizer_is_refused_and_named(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        TextTokenizer(str(tmp_path))


def test_tokenizer_that_cannot_end_a_text_is_refused(words, tmp_path):
    import json

    folder = tmp_path / "endless"
    shutil.copytree(words.source, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="neither an EOS nor a SEP"):
        TextTokenizer(str(folder))
