"""`embinv audit` as a whole, on an inverter of random weights: what it takes, what it leaves, and what it refuses."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.cli import main
from embinv.dump_texts import Texts
from embinv.encoders.hashing import HashEncoder
from embinv.encoders.spec import EncoderSpec
from tests.fakes import (
    pairs_of,
    recipe_for,
    sentences,
    tiny_checkpoint,
    word_tokenizer,
    write_pairs,
)
from tests.provenance_checks import require_provenance

SPEC = EncoderSpec(kind="hash", model="hash", dim=16)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A checkpoint, a dump with its texts, and pairs of the same encoder."""
    folder = tmp_path_factory.mktemp("given")
    tokenizer = word_tokenizer(folder / "words")
    tiny_checkpoint(folder / "checkpoint", tokenizer, SPEC)
    texts = sentences(40)
    vectors = HashEncoder(SPEC).encode(texts)
    pq.write_table(pa.table({"id": range(40), "embedding": list(vectors), "body": texts}), folder / "dump.parquet")
    recipe, pairs = recipe_for(tokenizer, SPEC), pairs_of(sentences(400, seed=1), tokenizer, HashEncoder(SPEC))
    write_pairs(folder / "pairs", recipe, pairs.take(range(0, 340)), "train")
    write_pairs(folder / "pairs", recipe, pairs.take(range(340, 400)), "test")
    (folder / "pairs" / "_SUCCESS").touch()
    return folder


def audit(folder, out, *more, source=None):
    given = source or ("--vectors", str(folder / "dump.parquet"))
    main(["audit", "--checkpoint", str(folder / "checkpoint"), *given, "--out", str(out), *more])
    return json.loads((out / "audit.json").read_text())


def refused(capsys, folder, out, *more, source=None):
    with pytest.raises(SystemExit) as ended:
        audit(folder, out, *more, source=source)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_dump_becomes_a_report_beside_its_texts(given, tmp_path, capsys):
    report = audit(given, tmp_path / "out", "--text-column", "body", "--by", "a test")
    assert report["rows"] == 40
    assert report["origin"]["dump"] == "dump.parquet"  # a path may name people
    assert (report["origin"]["strategy"], report["origin"]["by"]) == ("confidence", "a test")
    assert report["recognition"]["verdict"] == "unknown"
    assert not report["revealed"] and "date" not in report["origin"]
    said = capsys.readouterr()
    assert "audit.html" in said.out and "Beside their originals" in said.out
    names = {"audit.html", "audit.md", "audit.json", "recovered", "provenance.json"}
    for folder in (tmp_path / "out", tmp_path / "out" / "recovered"):
        require_provenance(folder, "embinv audit")
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    for name in sorted(names - {"recovered", "provenance.json"}):
        assert str(given) not in (tmp_path / "out" / name).read_text()


def test_the_same_command_makes_the_same_report_and_inverts_nothing_again(given, tmp_path, capsys, monkeypatch):
    def bytes_of(out):
        return {name: (out / name).read_bytes() for name in ("audit.html", "audit.md", "audit.json")}

    audit(given, tmp_path / "out", "--text-column", "body")
    before = bytes_of(tmp_path / "out")
    monkeypatch.setattr(Texts, "put", lambda *given: pytest.fail("inverted again"))
    audit(given, tmp_path / "out", "--text-column", "body")
    assert bytes_of(tmp_path / "out") == before
    assert "going on: 40 of 40 vectors were inverted before" in capsys.readouterr().err
    recovered = ("--recovered", str(tmp_path / "out" / "recovered"))
    audit(given, tmp_path / "again", "--text-column", "body", source=recovered)
    assert bytes_of(tmp_path / "again") == before


def test_examples_in_clear_are_said_to_be_so(given, tmp_path):
    report = audit(given, tmp_path / "out", "--text-column", "body", "--reveal", "--by", "a test")
    assert report["revealed"] and len(report["origin"]["date"]) == len("2026-01-02")
    page = (tmp_path / "out" / "audit.html").read_text()
    assert report["origin"]["date"] in page and "a test" in page


def test_mistakes_are_told_before_anything_is_inverted(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Texts, "put", lambda *given: pytest.fail("inverted"))
    out = tmp_path / "out"
    assert "the dump has no such column, but body" in refused(capsys, given, out, "--text-column", "text")
    kept = refused(capsys, given, out, "--text-column", "body", "--metadata", "")
    assert "--text-column body: is not among the columns of --metadata" in kept
    assert "name their column with --text-column" in refused(capsys, given, out, "--texts", str(given))
    empty = refused(capsys, given, out, "--texts", str(given / "words"), "--text-column", "body")
    assert "holds no texts" in empty
    assert "--defences needs --data" in refused(capsys, given, out, "--defences")
    few = refused(capsys, given, out, "--defences", "--data", str(given / "pairs"), "--defence-rows", "5")
    assert few.startswith("error: --defence-rows")
    assert "--steps" in refused(capsys, given, out, "--defences", "--data", str(given / "pairs"), "--steps", "0")
    assert "--rare" in refused(capsys, given, out, "--rare", "1")
    assert "is the dump of --vectors, or inside it" in refused(capsys, given, given / "dump.parquet" / "x")
    assert not out.exists()


def test_texts_that_are_not_whole_or_of_another_checkpoint_are_refused(given, tmp_path, capsys):
    audit(given, tmp_path / "out")
    folder = tmp_path / "out" / "recovered"
    tiny_checkpoint(tmp_path / "checkpoint", word_tokenizer(tmp_path / "words"), SPEC, seed=5)
    source = ("--recovered", str(folder))
    assert "other weights" in refused(capsys, tmp_path, tmp_path / "again", source=source)
    (folder / "_SUCCESS").unlink()
    assert "is not whole" in refused(capsys, given, tmp_path / "again", source=source)


def test_files_of_somebody_in_the_place_of_the_texts_are_left_alone(given, tmp_path, capsys):
    folder = tmp_path / "out" / "recovered"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    assert "no inversion made mine.txt" in refused(capsys, given, tmp_path / "out", "--overwrite")
    assert (folder / "mine.txt").read_text() == "mine"


@pytest.mark.nightly
def test_defences_are_measured_once_and_stand_in_the_report(given, tmp_path, capsys):
    more = ("--defences", "--data", str(given / "pairs"), "--adaptation-steps", "1", "--defence-rows", "20")
    report = audit(given, tmp_path / "out", *more)
    names = [row["defence"] for row in report["defences"]["rows"]]
    assert names[0] == "none" and {"noise", "int8", "rotation", "redaction"} <= set(names)
    assert all(row["adapted"] is not None for row in report["defences"]["rows"])
    capsys.readouterr()
    assert audit(given, tmp_path / "out", *more) == report
    assert "defences were measured before" in capsys.readouterr().err
