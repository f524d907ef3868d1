"""Labelled spans of a corpus as entities of pairs, through tokenizers that change texts and such that do not."""

from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from embinv.data.alignment import FastTokenizer, align
from embinv.data.corpus import text_id
from embinv.data.labels import LabelledTexts, entities_within, read_entities
from embinv.data.records import LANGUAGES, generate_records
from embinv.data.tokenizer import TextTokenizer
from embinv.metrics.entities import entity_recall, occurs
from tests.fakes import MINILM

SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("label", pa.string())]))
TEXT = "Anna Müller, 34, moved to Köln on 4 May."
LABELLED = [("PERSON", "Anna Müller"), ("AGE", "34"), ("CITY", "Köln"), ("DATE", "4 May")]


def spans_of(text, labelled):
    """(start, end, label) of surface forms that occur in this order."""
    found, place = [], 0
    for label, surface in labelled:
        start = text.index(surface, place)
        place = start + len(surface)
        found.append((start, place, label))
    return found


def write_texts(folder, texts, spans, shard_rows=2, columns=("id", "text", "lang", "spans")):
    """Shards as jobs/corpus.py writes them; returns the ids."""
    folder.mkdir(exist_ok=True)
    ids = [text_id(text) for text in texts]
    rows = [
        None if each is None else [dict(zip(("start", "end", "label"), s, strict=True)) for s in each] for each in spans
    ]
    table = pa.table({"id": ids, "text": texts, "lang": ["en"] * len(ids), "spans": pa.array(rows, SPANS)})
    for start in range(0, len(ids), shard_rows):
        pq.write_table(table.slice(start, shard_rows).select(columns), folder / f"part-{start:05}.parquet")
    (folder / "_stats.json").write_text("{}")
    return ids


def byte_tokenizer():
    """Byte-level BPE without merges: knows everything, changes nothing."""
    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return FastTokenizer(backend, eos_id=1000, pad_id=1001, closes_up=False)


def piece_tokenizer(characters):
    """Unigram over single characters, as SentencePiece makes them: NFKC, and one token for what it does not know."""
    pieces = [("<unk>", 0.0), ("▁", -1.0), *((char, -2.0) for char in characters)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return FastTokenizer(backend, eos_id=100_000, pad_id=100_001, closes_up=True)


@pytest.fixture(scope="module")
def minilm():
    return TextTokenizer(MINILM).fast


# One text


def test_entities_of_a_text_that_was_not_changed_are_its_spans():
    assert entities_within(TEXT, TEXT, spans_of(TEXT, LABELLED)) == LABELLED


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
def test_an_entity_that_the_cut_goes_through_is_none(cut):
    spans = spans_of(TEXT, LABELLED)
    expected = [(label, TEXT[start:end]) for start, end, label in spans if end <= cut]
    assert entities_within(TEXT, TEXT[:cut], spans) == expected


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
def test_the_cut_counts_alike_where_the_tokenizer_changed_the_text(cut):
    """Case and accents are gone, and a space stands before punctuation, as WordPiece writes."""
    spans = spans_of(TEXT, LABELLED)
    own = TEXT[:cut].lower().replace("ü", "u").replace("ö", "o").replace(",", " ,")
    plain = [("PERSON", "anna muller"), ("AGE", "34"), ("CITY", "koln"), ("DATE", "4 may")]
    assert entities_within(TEXT, own, spans) == plain[: sum(end <= cut for _, end, _ in spans)]


def test_entities_come_in_the_order_of_the_text():
    assert entities_within(TEXT, TEXT, spans_of(TEXT, LABELLED)[::-1]) == LABELLED


@pytest.mark.parametrize(
    ("text", "own", "label", "expected"),
    [
        ("Rechnung an Straße 5a, Haus", "rechnung an strasse 5 a, haus", "Straße 5a", "strasse 5 a"),
        ("Zahlung ½ von １２３ EUR", "Zahlung 1⁄2 von 123 EUR", "１２３ EUR", "123 EUR"),
        ("Write to anna.weber@example.com now", "write to anna. weber @ example. com now", "anna.weber@example.com",
         "anna. weber @ example. com"),
        ("김민수 님이 왔다", normalize("NFD", "김민수 님이 왔다"), "김민수", normalize("NFD", "김민수")),
        ("राज़ कुमार आए", "राज कमार आए", "राज़ कुमार", "राज कमार"),  # two marks are gone
        ("Gruß, ﬁnal 20", "gruß, final 20", "ﬁnal 20", "final 20"),
    ],
)  # fmt: skip
def test_the_surface_is_what_the_tokenizer_left_of_it(text, own, label, expected):
    assert entities_within(text, own, spans_of(text, [("X", label)])) == [("X", expected)]


@pytest.mark.parametrize(
    ("text", "own", "labelled", "expected"),
    [
        (
            "Herr 高橋 zahlte 30 EUR an Anna Weber in Bern",
            "herr [UNK] zahlte 30 eur an anna weber in",
            ["高橋", "30 EUR", "Anna Weber", "Bern"],
            ["30 eur", "anna weber"],
        ),
        (  # what follows an unknown one is not sought further on, where it stands again
            "☃ paid 30 to Ben, who paid 30 to Carla and 45 to Dan",
            "[UNK] paid 30 to ben, who",
            ["30", "Ben", "30", "Carla", "45", "Dan"],
            ["30", "ben"],
        ),
        (  # nothing at all is left of it, and the text begins behind it
            "☃Anna paid ☃ to Ben",
            "anna paid to ben",
            ["☃Anna", "☃", "Ben"],
            ["ben"],
        ),
        (
            "Anna ☃ Weber, 34, and Ben ☃☃☃ Maier, 43, came by",
            "Anna <unk> Weber, 34, and Ben <unk> Maier",
            ["Anna ☃ Weber", "34", "Ben", "43"],
            ["34", "Ben"],
        ),
    ],
)
def test_an_entity_with_a_character_that_the_tokenizer_does_not_know_is_none(text, own, labelled, expected):
    spans = spans_of(text, [("X", surface) for surface in labelled])
    assert [surface for _, surface in entities_within(text, own, spans)] == expected


@pytest.mark.parametrize(
    ("text", "labelled", "expected"),
    [
        ("서류는 김민수가 보냈다", "김민수", "김민수가"),
        ("Письмо Ивановой от Петра", "Иванов", "Ивановой"),
        ("Annas Auto", "Anna", "Annas"),
        ("von 30mg auf", "30", "30mg"),
        ("جاء ومحمد معه", "محمد", "ومحمد"),
        ("田中太郎さんは来た", "田中太郎", "田中太郎"),  # no spaces: a word ends at each letter
        ("Anna's car", "Anna", "Anna"),
    ],
)
def test_a_span_that_begins_or_ends_inside_a_word_is_widened_to_the_word(text, labelled, expected):
    spans = spans_of(text, [("X", labelled)])
    assert entities_within(text, text, spans) == [("X", expected)]
    assert occurs(expected, text)


def test_a_span_is_widened_to_no_more_than_what_the_cut_left_of_the_word():
    text = "서류는 김민수에게서 왔다"
    spans = spans_of(text, [("X", "김민수")])
    for cut, expected in ((6, []), (7, ["김민수"]), (8, ["김민수에"]), (10, ["김민수에게서"]), (11, ["김민수에게서"])):
        assert [surface for _, surface in entities_within(text, text[:cut], spans)] == expected


def test_a_span_of_nothing_visible_is_no_entity():
    assert entities_within("a b", "a b", [(1, 2, "X")]) == []
    assert entities_within("A b", "a b", [(1, 2, "X")]) == []


# Records through tokenizers


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("seq_len", [24, 500])
def test_a_tokenizer_that_knows_everything_leaves_a_prefix_and_all_entities_in_it(lang, seq_len):
    records = generate_records(lang, 0, 0)[:100]
    aligned = align([record.text for record in records], byte_tokenizer(), seq_len, 1)
    for row, own in zip(aligned.rows, aligned.texts, strict=True):
        record = records[row]
        assert record.text.startswith(own)
        found = entities_within(record.text, own, [(s.start, s.end, s.label) for s in record.spans])
        assert [label for label, _ in found] == [s.label for s in record.spans if s.end <= len(own)]
        assert all(
            record.text[s.start : s.end] in surface for s, (_, surface) in zip(record.spans, found, strict=False)
        )


@pytest.mark.parametrize("lang", ["en", "de", "fr", "es", "pt"])
def test_wordpiece_leaves_every_entity_of_a_text_that_is_not_cut(minilm, lang):
    records = generate_records(lang, 0, 0)[:200]
    aligned = align([record.text for record in records], minilm, 256, 1)
    assert len(aligned.rows) == len(records) and not any("[UNK]" in own for own in aligned.texts)
    changed = sum(not record.text.startswith(own) for record, own in zip(records, aligned.texts, strict=True))
    assert changed > 150
    for record, own in zip(records, aligned.texts, strict=True):
        found = entities_within(record.text, own, [(s.start, s.end, s.label) for s in record.spans])
        assert [label for label, _ in found] == [s.label for s in record.spans]
        for span, (_, surface) in zip(record.spans, found, strict=True):
            assert letters(record.text[span.start : span.end]) in letters(surface)


def letters(text):
    return "".join(char for char in normalize("NFKD", text).casefold() if char.isalnum())


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("seq_len", [48, 200])
def test_every_entity_occurs_in_its_own_text_so_that_a_perfect_recovery_has_a_recall_of_one(minilm, lang, seq_len):
    records = generate_records(lang, 0, 0)[:150]
    characters = sorted({char for record in records[:50] for char in normalize("NFKC", record.text)} - {" "})
    for tokenizer in (minilm, byte_tokenizer(), piece_tokenizer(characters)):
        aligned = align([record.text for record in records], tokenizer, seq_len, 1)
        entities = [
            entities_within(records[row].text, own, [(s.start, s.end, s.label) for s in records[row].spans])
            for row, own in zip(aligned.rows, aligned.texts, strict=True)
        ]
        missed = [
            (surface, own)
            for found, own in zip(entities, aligned.texts, strict=True)
            for _, surface in found
            if not occurs(surface, own)
        ]
        assert missed == []
        assert sum(map(bool, entities)) >= 2
        assert entity_recall(entities, aligned.texts.tolist()).value == 1


# A folder


TEXTS = [TEXT, "Nobody labelled this one.", "Ben owes Carla 12 coins.", "No name is in this one.", "Dan went to Bern."]
SPANS_OF = [
    spans_of(TEXT, LABELLED),
    None,
    spans_of(TEXTS[2], [("PERSON", "Ben"), ("PERSON", "Carla"), ("AMOUNT", "12 coins")]),
    [],
    spans_of(TEXTS[4], [("PERSON", "Dan"), ("CITY", "Bern")]),
]


def test_entities_stand_in_the_order_of_the_pairs_whatever_the_order_of_the_corpus(tmp_path):
    ids = write_texts(tmp_path, TEXTS, SPANS_OF)
    owns = ["Ben owes Carla 1", TEXTS[1], TEXTS[3], TEXT[:16].lower()]
    assert read_entities(tmp_path, [ids[row] for row in (2, 1, 3, 0)], owns) == [
        [("PERSON", "Ben"), ("PERSON", "Carla")],
        [],
        [],
        [("PERSON", "anna müller"), ("AGE", "34")],
    ]


def test_two_pairs_of_one_text_have_their_own_entities_each(tmp_path):
    ids = write_texts(tmp_path, TEXTS, SPANS_OF)
    assert read_entities(tmp_path, [ids[4]] * 2, ["Dan went", TEXTS[4]]) == [
        [("PERSON", "Dan")],
        [("PERSON", "Dan"), ("CITY", "Bern")],
    ]


@pytest.mark.parametrize("rows", [[1], [3], [1, 3]])
def test_there_is_nothing_where_none_of_the_texts_has_a_span(tmp_path, rows):
    ids = write_texts(tmp_path, TEXTS, SPANS_OF)
    assert read_entities(tmp_path, [ids[row] for row in rows], [TEXTS[row] for row in rows]) is None


def test_there_is_nothing_where_the_folder_knows_no_spans(tmp_path):
    ids = write_texts(tmp_path, TEXTS, SPANS_OF, columns=["id", "text", "lang"])
    assert read_entities(tmp_path, ids, TEXTS) is None


def test_the_corpus_gives_its_own_texts_in_the_order_of_the_ids_where_there_is_no_other(tmp_path):
    ids = write_texts(tmp_path, TEXTS, SPANS_OF)
    corpus = LabelledTexts(tmp_path)
    originals, entities = corpus.look_up([ids[row] for row in (3, 0, 4, 3)], [None, None, "Dan went", "Dan"])
    assert originals == [TEXTS[3], TEXTS[0], "Dan went", "Dan"]
    assert entities == [[], LABELLED, [("PERSON", "Dan")], []]
    with pytest.raises(ValueError, match="lacks 1 of the 2 texts, such as id 7"):
        corpus.rows([ids[0], 7])


def test_a_block_reads_only_the_row_groups_that_hold_its_texts_and_none_twice(tmp_path, monkeypatch):
    ids = write_texts(tmp_path, TEXTS, SPANS_OF)  # two texts in a file
    corpus, read = LabelledTexts(tmp_path), []
    whole = pq.ParquetFile.read_row_group

    def counted(file, group, **chosen):
        read.append(chosen["columns"])
        return whole(file, group, **chosen)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    corpus.look_up([ids[0], ids[1], ids[0]], [None] * 3)
    corpus.look_up([ids[1]], [None])
    assert len(read) == 1
    corpus.look_up([ids[4], ids[2]], [None] * 2)
    assert len(read) == 3


def test_labels_behind_the_cut_leave_empty_lists(tmp_path):
    ids = write_texts(tmp_path, TEXTS, SPANS_OF)
    assert read_entities(tmp_path, [ids[0]], ["Anna"]) == [[]]


@pytest.mark.parametrize("make", ["no folder", "an empty folder", "pairs", "other columns"])
def test_a_folder_without_texts_is_refused_with_its_name_and_the_job_that_makes_one(tmp_path, make):
    folder = tmp_path / "texts"
    if make != "no folder":
        folder.mkdir()
    if make == "pairs":
        (folder / "split=test").mkdir()
        pq.write_table(pa.table({"id": [1], "text": ["a"]}), folder / "split=test" / "part-0.parquet")
    if make == "other columns":
        pq.write_table(pa.table({"id": [1], "words": ["a"]}), folder / "part-0.parquet")
    with pytest.raises(ValueError, match=r"texts: holds no texts.*jobs/corpus\.py"):
        read_entities(folder, [1], ["a"])


def test_pairs_of_another_corpus_are_refused_with_the_number_that_is_missing(tmp_path):
    ids = write_texts(tmp_path, TEXTS, SPANS_OF)
    with pytest.raises(ValueError, match=rf"{tmp_path}: lacks 2 of the 3 texts, such as id 7; .*--texts"):
        read_entities(tmp_path, [7, ids[0], 8], ["a", TEXT, "b"])


@pytest.mark.parametrize("span", [(0, len(TEXTS[4]) + 1, "X"), (3, 3, "X"), (-1, 2, "X")])
def test_spans_outside_their_text_are_refused(tmp_path, span):
    ids = write_texts(tmp_path, TEXTS, [*SPANS_OF[:4], [span]])
    with pytest.raises(ValueError, match=rf"a span of id {ids[4]} .*make the corpus anew"):
        read_entities(tmp_path, ids, TEXTS)
    assert read_entities(tmp_path, ids[:1], TEXTS[:1]) == [LABELLED]  # others are not looked at


def test_a_damaged_shard_is_named_with_the_fix(tmp_path):
    ids = write_texts(tmp_path, TEXTS, SPANS_OF)
    shard = tmp_path / "part-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"{tmp_path}: cannot be read .*--overwrite"):
        read_entities(tmp_path, ids, TEXTS)
