"""jobs/corpus.py in the shared Ray session, on small files of every kind."""

import json
import unicodedata
from itertools import pairwise

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from embinv.data.corpus import text_id
from embinv.data.records import generate_records
from embinv.data.settings import TextSource
from jobs.corpus import SHARD_SCHEMA, main, make_corpus
from tests.provenance_checks import require_provenance

TEXTS = [f"The parcel number {n} left the town of Hollfeld this morning." for n in range(12)]

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def config(minilm):
    """Returns a config for sources, with overrides; all languages and rows unless told otherwise."""

    def make(*sources, **data):
        config = minilm("data.languages=[]", "data.rows=null")
        config.data.sources = [TextSource(path=str(source)) for source in sources]
        config.data = config.data.model_copy(update=data)
        return config

    return make


def read(out):
    files = sorted(out.glob("*.parquet"))
    for file in files:
        assert pq.read_schema(file).equals(SHARD_SCHEMA)
    return pa.concat_tables(pq.read_table(file) for file in files).to_pylist()


def as_txt(path):
    path.write_text("\n".join(TEXTS) + "\n\n")


def as_jsonl(path):
    path.write_text("".join(json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(TEXTS)))


def as_csv(path):
    pyarrow.csv.write_csv(pa.table({"n": range(len(TEXTS)), "text": TEXTS}), path)


def as_parquet(path):
    pq.write_table(pa.table({"text": TEXTS}), path)


@pytest.mark.parametrize(
    ("name", "write"), [("a.txt", as_txt), ("a.jsonl", as_jsonl), ("a.csv", as_csv), ("a.parquet", as_parquet)]
)
def test_every_kind_of_file_gives_its_texts(config, tmp_path, name, write):
    write(tmp_path / name)
    out = tmp_path / "out"
    stats = make_corpus(config(tmp_path / name), out)
    rows = read(out)
    assert sorted(row["text"] for row in rows) == sorted(TEXTS)
    assert all(row["id"] == text_id(row["text"]) for row in rows)
    assert {row["lang"] for row in rows} == {"und"} and {row["spans"] for row in rows} == {None}
    assert stats["rows"] == stats["read"] == 12 and stats["dropped"] == {}
    assert stats == json.loads((out / "_stats.json").read_text())
    assert name in (out / "settings.yaml").read_text()


def test_a_parquet_source_that_knows_its_languages_keeps_them(config, tmp_path):
    langs = ["de", "en", None] * 4
    pq.write_table(pa.table({"lang": langs, "text": TEXTS}), tmp_path / "a.parquet")
    stats = make_corpus(config(tmp_path / "a.parquet", languages=["de"]), tmp_path / "out")
    assert stats["languages"] == {"de": 4, "und": 4}
    assert stats["dropped"] == {"language_en": 4}
    of = dict(zip(TEXTS, langs, strict=True))
    assert all(row["lang"] == (of[row["text"]] or "und") for row in read(tmp_path / "out"))


def test_globs_folders_and_several_sources_add_up(config, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a1.txt").write_text(TEXTS[0])
    (tmp_path / "a2.txt").write_text(TEXTS[1])
    (tmp_path / "b.txt").write_text(TEXTS[2])
    (tmp_path / "deep" / "er" / "c.jsonl").write_text(json.dumps({"text": TEXTS[3]}))
    (tmp_path / "deep" / "_hidden.csv").write_text("no text")
    make_corpus(config(tmp_path / "a*.txt", tmp_path / "deep"), tmp_path / "out")
    assert sorted(row["text"] for row in read(tmp_path / "out")) == [TEXTS[0], TEXTS[1], TEXTS[3]]


def test_one_glob_may_match_files_of_several_kinds(config, tmp_path):
    as_txt(tmp_path / "a.txt")
    as_csv(tmp_path / "b.csv")
    as_parquet(tmp_path / "c.parquet")
    stats = make_corpus(config(tmp_path / "*"), tmp_path / "out")
    assert stats["rows"] == 12 and stats["read"] == 36 and stats["files"] == 3
    assert stats["dropped"] == {"duplicate": 24}


def test_another_column_can_hold_the_text(config, tmp_path):
    pq.write_table(pa.table({"body": TEXTS}), tmp_path / "a.parquet")
    make_corpus(config(tmp_path / "a.parquet", text_column="body"), tmp_path / "out")
    assert len(read(tmp_path / "out")) == 12


def test_the_same_text_stays_once_whatever_its_case_and_spaces(config, tmp_path):
    accent = "The café on the corner opens at nine."
    lines = [TEXTS[0], f"  {TEXTS[0].upper()} ", TEXTS[0].replace(" ", "\t\u00a0"), accent]
    lines += [unicodedata.normalize("NFD", accent), accent]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    stats = make_corpus(config(tmp_path / "a.txt"), tmp_path / "out")
    assert {row["text"] for row in read(tmp_path / "out")} == {TEXTS[0], accent}  # the first of each
    assert stats["dropped"] == {"duplicate": 4} and stats["read"] == 6


def test_what_goes_is_counted_by_reason(config, tmp_path):
    rows = [{"text": text} for text in (*TEXTS[:5], TEXTS[0], "too short", "x" * 501, "   ", "", None)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stats = make_corpus(config(tmp_path / "a.jsonl", rows=4), tmp_path / "out")
    assert stats["read"] == 11 and stats["rows"] == 4
    assert stats["dropped"] == {"empty": 3, "too_short": 1, "too_long": 1, "duplicate": 1, "over_quota": 1}
    assert require_provenance(tmp_path / "out", "jobs/corpus.py")["cluster"]["hosts"] == 1


def test_files_hold_at_most_shard_rows(config, tmp_path):
    as_txt(tmp_path / "a.txt")
    make_corpus(config(tmp_path / "a.txt", shard_rows=5), tmp_path / "out")
    sizes = [pq.read_metadata(file).num_rows for file in (tmp_path / "out").glob("*.parquet")]
    assert sum(sizes) == 12 and max(sizes) <= 5


def test_records_share_the_rows_and_carry_exact_spans(config, tmp_path):
    languages = ["de", "en", "zh"]
    stats = make_corpus(config("records", rows=300, languages=languages, seed=7), tmp_path / "out")
    assert stats["languages"] == dict.fromkeys(languages, 100)
    rows = read(tmp_path / "out")
    assert len({row["id"] for row in rows}) == 300
    labelled = {
        record.text: [(s.start, s.end, s.label) for s in record.spans]
        for lang in languages
        for record in generate_records(lang, 0, 7)
    }
    for row in rows:
        spans = [(span["start"], span["end"], span["label"]) for span in row["spans"]]
        assert spans == labelled[row["text"]]
        assert all(row["text"][start:end].strip() for start, end, _ in spans)
    assert sum(len(row["spans"]) for row in rows) > 300


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(config, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    (tmp_path / "b.txt").write_text("\n".join(reversed(TEXTS)))

    def chosen(name, source, seed):
        make_corpus(config(tmp_path / source, rows=5, seed=seed), tmp_path / name)
        return [row["text"] for row in read(tmp_path / name)]

    first = chosen("out1", "a.txt", 1)
    assert first == chosen("out2", "a.txt", 1)
    assert sorted(first) == sorted(chosen("out3", "b.txt", 1))  # nor does the order of the source matter
    assert sorted(first) != sorted(chosen("out4", "a.txt", 2))


def test_a_finished_folder_is_not_made_again_and_holds_one_corpus(config, tmp_path, capsys):
    as_txt(tmp_path / "a.txt")
    out = tmp_path / "out"
    stats = make_corpus(config(tmp_path / "a.txt"), out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert make_corpus(config(tmp_path / "a.txt", shard_rows=3, seq_len=64), out) == stats
    assert "all done before, 12 texts" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"data\.rows \(None, not 3\); choose another folder"):
        make_corpus(config(tmp_path / "a.txt", rows=3), out)
    with pytest.raises(ValueError, match=r"data\.sources"):
        make_corpus(config("records"), out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_corpus_is_named_by_its_content_and_counts_its_files(config, tmp_path):
    as_txt(tmp_path / "a.txt")
    first = make_corpus(config(tmp_path / "a.txt", shard_rows=5), tmp_path / "one")
    same = make_corpus(config(tmp_path / "a.txt", shard_rows=5), tmp_path / "two")
    assert (first["shards"], first["digest"]) == (3, same["digest"])
    (tmp_path / "a.txt").write_text((tmp_path / "a.txt").read_text().replace("e", "E", 1))
    assert make_corpus(config(tmp_path / "a.txt", shard_rows=5), tmp_path / "three")["digest"] != first["digest"]


def test_a_folder_of_pairs_is_not_taken_for_a_corpus(config, tmp_path):
    as_txt(tmp_path / "a.txt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_SUCCESS").touch()
    (tmp_path / "out" / "_stats.json").write_text('{"rows": 3, "run": {}}')
    with pytest.raises(ValueError, match="holds no corpus of ours; choose another folder"):
        make_corpus(config(tmp_path / "a.txt"), tmp_path / "out")


def test_overwrite_keeps_the_old_corpus_until_the_new_one_is_whole(config, tmp_path):
    as_txt(tmp_path / "a.txt")
    out = tmp_path / "out"
    make_corpus(config(tmp_path / "a.txt"), out)
    with pytest.raises(ValueError, match="no such file"):
        make_corpus(config(tmp_path / "gone.txt"), out, overwrite=True)
    assert len(read(out)) == 12
    (out / "thesis.doc").touch()
    with pytest.raises(ValueError, match=r"--overwrite would delete .* did not make thesis\.doc"):
        make_corpus(config(tmp_path / "a.txt", rows=3), out, overwrite=True)
    (out / "thesis.doc").unlink()
    assert make_corpus(config(tmp_path / "a.txt", rows=3), out, overwrite=True)["rows"] == len(read(out)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whatever_ends_a_run_nothing_is_left_of_it(config, tmp_path, monkeypatch, error):
    def fails(*_):
        raise error

    as_txt(tmp_path / "a.txt")
    monkeypatch.setattr("jobs.corpus.write_shards", fails)
    with pytest.raises(error):
        make_corpus(config(tmp_path / "a.txt"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_rows_of_one_seed_lie_in_one_shuffled_order_however_they_came(config, tmp_path):
    german = [f"Die Sendung Nummer {n} hat die Stadt Hollfeld heute morgen verlassen." for n in range(40)]
    english = [f"The parcel number {n} left the town of Hollfeld this morning." for n in range(40)]
    pq.write_table(pa.table({"text": german + english, "lang": ["de"] * 40 + ["en"] * 40}), tmp_path / "a.parquet")
    for part in range(4):
        table = pa.table({"text": english + german, "lang": ["en"] * 40 + ["de"] * 40})
        (tmp_path / "parts").mkdir(exist_ok=True)
        pq.write_table(table.slice(part * 20, 20), tmp_path / "parts" / f"{part}.parquet")

    def order(name, source, **data):
        make_corpus(config(tmp_path / source, **data), tmp_path / name)
        return [(row["id"], row["lang"]) for row in read(tmp_path / name)]

    first = order("out1", "a.parquet")
    assert first == order("out2", "parts", shard_rows=7)
    assert first != order("out3", "a.parquet", seed=1)
    changes = sum(one != other for (_, one), (_, other) in pairwise(first))
    assert 20 < changes < 60  # of two languages at random about every second row


def test_near_copies_go_whichever_file_and_block_they_lie_in(config, tmp_path):
    long = "The committee will meet on Thursday at noon in the old library to settle the budget of the coming year"
    near = [f"{long}.", f"{long.upper()} !", long.replace("Thursday", "thursdays"), f"{long} again"]
    for number, text in enumerate(near):
        (tmp_path / f"{number}.txt").write_text("\n".join([text, TEXTS[number]]))
    source = tmp_path / "*.txt"
    stats = make_corpus(config(source, near_duplicates=0.8), tmp_path / "out")
    texts = [row["text"] for row in read(tmp_path / "out")]
    assert sum(text in near for text in texts) == 1
    assert stats["read"] == 8 and stats["rows"] + sum(stats["dropped"].values()) == 8
    assert stats["dropped"]["near_duplicate"] >= 3 and "duplicate" not in stats["dropped"]
    assert make_corpus(config(source), tmp_path / "all")["rows"] == 8  # none of them is an exact copy


def test_texts_in_another_language_than_their_own_go_if_asked(config, tmp_path):
    french = "Le comité se réunira jeudi à midi dans l'ancienne bibliothèque pour discuter du budget."
    table = pa.table({"text": [TEXTS[0], french, french + " Merci."], "lang": ["en", "en", "fr"]})
    pq.write_table(table, tmp_path / "a.parquet")
    stats = make_corpus(config(tmp_path / "a.parquet", language_check=True), tmp_path / "out")
    assert stats["dropped"] == {"language_mismatch": 1} and stats["languages"] == {"en": 1, "fr": 1}
    assert make_corpus(config(tmp_path / "a.parquet"), tmp_path / "all")["rows"] == 3


def write_corrupt(folder):
    as_parquet(folder / "a.parquet")
    whole = (folder / "a.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(whole[: len(whole) // 2])


def write_late_corruption(folder):
    """The footer and so the schema is whole, the data are not."""
    as_parquet(folder / "a.parquet")
    whole = bytearray((folder / "a.parquet").read_bytes())
    whole[4:200] = b"\xff" * 196
    (folder / "a.parquet").write_bytes(bytes(whole))


def write_latin1(folder):
    (folder / "a.txt").write_bytes("Der Käse ist heute nicht gekommen, schade.\n".encode("latin-1"))


BROKEN = {
    "nothing there": (lambda folder: None, "none*.txt", r"none\*\.txt: matches no file; .*sources holds nothing"),
    "an unknown kind": (
        lambda folder: (folder / "a.docx").touch(),
        "a.docx",
        r"a\.docx is of no known kind; .*\.parquet",
    ),
    "no text column": (
        lambda folder: pq.write_table(pa.table({"body": TEXTS}), folder / "a.parquet"),
        "a.parquet",
        r"no column 'text', it has body; .*--set data\.text_column=NAME",
    ),
    "nothing left": (lambda folder: (folder / "a.txt").write_text("short\n"), "a.txt", "none of 1 texts is left"),
    "an empty text file": (lambda folder: (folder / "a.txt").touch(), "a.txt", "none of 0 texts is left"),
    "an empty JSONL file": (lambda folder: (folder / "a.jsonl").touch(), "a.jsonl", "none of 0 texts is left"),
    "a cut Parquet file": (write_corrupt, "*.parquet", "cannot be read"),
    "corrupt data": (write_late_corruption, "a.parquet", "cannot be read"),
    "another encoding": (write_latin1, "a.txt", "cannot be read"),
    "a dataset in no store": (
        lambda folder: None,
        "ftp://host/a.txt",
        r"ftp:// is not known; give a local path or one",
    ),
    "half a JSON": (lambda folder: (folder / "a.jsonl").write_text('{"text": "half'), "a.jsonl", "cannot be read"),
}


@pytest.mark.parametrize(("write", "source", "sentence"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_source_is_named_and_leaves_nothing_behind(config, tmp_path, write, source, sentence):
    folder = tmp_path / "sources"
    folder.mkdir()
    write(folder)
    with pytest.raises(ValueError, match=sentence) as caught:
        make_corpus(config(source if "://" in source else folder / source), tmp_path / "out")
    assert "Traceback" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["sources"]


def test_records_in_an_unknown_language_are_refused(config, tmp_path):
    with pytest.raises(ValueError, match="does not speak xx; it has en, zh, de"):
        make_corpus(config("records", languages=["xx"]), tmp_path / "out")


def test_a_folder_that_holds_something_else_is_left_alone(config, tmp_path):
    as_txt(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="is not empty and holds no corpus of ours"):
        make_corpus(config(tmp_path / "a.txt"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_killed_run_left_is_cleared_away(config, tmp_path):
    as_txt(tmp_path / "a.txt")
    half = tmp_path / ".out.partial"
    half.mkdir()
    (half / "part-09999-0000.parquet").touch()
    make_corpus(config(tmp_path / "a.txt"), tmp_path / "out")
    assert len(read(tmp_path / "out")) == 12 and not half.exists()


def test_the_command_line_takes_all_rows_of_a_source_that_it_names(tmp_path, capsys):
    as_txt(tmp_path / "a.txt")
    out = tmp_path / "out"
    command = ["--config", "configs/minilm.yaml", "--texts", str(tmp_path / "a.txt"), "--out", str(out)]
    main(command)
    shown = capsys.readouterr().out
    assert f"12 texts in {out} (und 12; " in shown and "next: python jobs/encode.py" in shown
    assert json.loads((out / "_stats.json").read_text())["data"]["rows"] is None
    main([*command[:-1], str(tmp_path / "few"), "--rows", "3"])
    assert len(read(tmp_path / "few")) == 3


def test_the_end_says_what_became_of_every_row(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\n".join([*TEXTS, TEXTS[0], "too short"]))
    out = str(tmp_path / "out")
    main(["--config", "configs/minilm.yaml", "--texts", str(tmp_path / "a.txt"), "--rows", "5", "--out", out])
    shown = " ".join(capsys.readouterr().out.split())
    assert "read 14 texts of 1 file(s), 5 stay" in shown and "dropped 9 of 14 that were read:" in shown
    assert "over_quota 7 read, and more than" in shown
    assert "duplicate 1 the same text" in shown and "too_short 1 under data.min_chars" in shown


def test_a_dry_run_shows_the_work_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\n".join([*TEXTS, "too short", "too short", "too short"]))
    out = tmp_path / "out"
    texts = ["--texts", str(tmp_path / "a.txt")]
    main(["--config", "configs/minilm.yaml", *texts, "--dry-run", "--out", str(out)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "by row 80% of 15 ~15 ~1 1 0.0 MB ~12 ~0.0 MB" in shown
    assert "in all about 12 rows, 0.0 MB, and 0 s of work on 1 of" in shown and "nothing was written" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
