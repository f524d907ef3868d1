from embinv.audit.redacting import finder_of, spans_of
from embinv.encoders.hashing import HashEncoder
from tests.fakes import hash_spec, pairs_of, word_tokenizer


def test_entities_are_found_where_they_stand_in_order():
    text = "ann met bob and ann"
    assert spans_of(text, [("P", "ann"), ("P", "bob"), ("P", "ann")]) == [
        (0, 3, "P"),
        (8, 11, "P"),
        (16, 19, "P"),
    ]
    assert spans_of("new york city", [("A", "new york city"), ("B", "york")])[1] == (4, 8, "B")


def test_what_is_labelled_and_what_is_recognised_is_taken_out(tmp_path):
    texts = ["anna paid three coins"]
    pairs = pairs_of(texts, word_tokenizer(tmp_path), HashEncoder(hash_spec(16)))
    own = pairs.texts[0]
    [found] = finder_of([(pairs, [[("PERSON", own.split()[0])]])], ["en"])([own])
    assert (0, len(own.split()[0]), "PERSON") in found
    [none] = finder_of([(pairs, None)], ["en"])([own])
    assert none == []
