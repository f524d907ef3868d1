"""jobs/corpus.py in the shared Ray session, on small files of every kind."""

import json
import unicodedata

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from embinv.data.corpus import text_id
from embinv.data.records import generate_records
from embinv.data.settings import TextSource
from jobs.corpus import SHARD_SCHEMA, main, make_corpus

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
    "nothing there": (lambda folder: None, "none*.txt", "no such file, folder or glob"),
    "an unknown kind": (lambda folder: (folder / "a.docx").touch(), "a.docx", r"one kind of \.parquet.*\.docx"),
    "two kinds": (lambda folder: (as_txt(folder / "a.txt"), as_csv(folder / "b.csv")), "*", "one kind of"),
    "no text column": (
        lambda folder: pq.write_table(pa.table({"body": TEXTS}), folder / "a.parquet"),
        "a.parquet",
        r"no column 'text', it has body; .*--set data\.text_column=NAME",
    ),
    "nothing left": (lambda folder: (folder / "a.txt").write_text("short\n"), "a.txt", "none of 1 texts is left"),
    "an empty text file": (lambda folder: (folder / "a.txt").touch(), "a.txt", "none of 0 texts is left"),
    "an empty JSONL file": (lambda folder: (folder / "a.jsonl").touch(), "a.jsonl", "no column 'text', it has none"),
    "a cut Parquet file": (write_corrupt, "*.parquet", "cannot be read"),
    "corrupt data": (write_late_corruption, "a.parquet", "cannot be read"),
    "another encoding": (write_latin1, "a.txt", "cannot be read"),
    "half a JSON": (lambda folder: (folder / "a.jsonl").write_text('{"text": "half'), "a.jsonl", "cannot be read"),
}


@pytest.mark.parametrize(("write", "source", "sentence"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_source_is_named_and_leaves_nothing_behind(config, tmp_path, write, source, sentence):
    folder = tmp_path / "sources"
    folder.mkdir()
    write(folder)
    with pytest.raises(ValueError, match=sentence) as caught:
        make_corpus(config(folder / source), tmp_path / "out")
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
    assert "12 texts in" in shown and "next: python jobs/encode.py" in shown
    assert json.loads((out / "_stats.json").read_text())["data"]["rows"] is None
    main([*command[:-1], str(tmp_path / "few"), "--rows", "3"])
    assert len(read(tmp_path / "few")) == 3
