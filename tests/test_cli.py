import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from embinv.cli import main
from embinv.data.sole_writer import sole_writer
from embinv.data.tokenizer import TextTokenizer
from embinv.dump_texts import Texts
from embinv.encoders.spec import EncoderSpec
from embinv.inverter import load_inverter
from embinv.spaces.moments import moments_of
from tests.fakes import MINILM, hash_spec, tiny_checkpoint, unit_vectors, word_tokenizer
from tests.provenance_checks import require_provenance

VECTORS = unit_vectors(7, 16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "checkpoint"
    tiny_checkpoint(folder, word_tokenizer(tmp_path_factory.mktemp("words")), hash_spec(16))
    return str(folder)


@pytest.fixture
def npy(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS)
    return str(tmp_path / "v.npy")


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


def invert(checkpoint, vectors, out, *more):
    main(["invert", "--checkpoint", checkpoint, "--vectors", str(vectors), "--out", str(out), *more])
    return pq.read_table(out)


def refused(capsys, *arguments):
    """The sentence on stderr with which a command ends."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], lines
    return lines[-1]


def test_dump_without_ids_becomes_row_number_text_and_confidence(checkpoint, npy, tmp_path):
    table = invert(checkpoint, npy, tmp_path / "out.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("id", "int64"),
        ("text", "string"),
        ("confidence", "float"),
        ("probability", "float"),
        ("cosine", "float"),
        ("encoder_calls", "int32"),
        ("metadata", "string"),
    ]
    assert table["probability"].null_count == len(table)  # nothing was calibrated
    expected = load_inverter(checkpoint).invert(VECTORS)
    assert table["id"].to_pylist() == list(range(7))
    assert table["text"].to_pylist() == [inversion.text for inversion in expected]
    assert table["confidence"].to_pylist() == pytest.approx([inversion.confidence for inversion in expected], rel=1e-5)


@pytest.mark.parametrize("ids", [[70, 60, 50, 40, 30, 20, 10], list("abcdefg")])
def test_ids_of_a_dump_stay_with_their_vectors(checkpoint, npy, tmp_path, ids):
    source = parquet(tmp_path / "v.parquet", id=ids, embedding=list(VECTORS))
    table = invert(checkpoint, source, tmp_path / "out.parquet")
    assert table["id"].to_pylist() == ids
    assert table["text"].to_pylist() == invert(checkpoint, npy, tmp_path / "npy.parquet")["text"].to_pylist()


def test_parquet_without_ids_gets_row_numbers_and_its_column_may_be_named(checkpoint, tmp_path):
    source = parquet(tmp_path / "v.parquet", vec=list(VECTORS.astype(np.float16)))
    table = invert(checkpoint, source, tmp_path / "out.parquet", "--column", "vec")
    assert table["id"].to_pylist() == list(range(7))


def test_batch_size_changes_no_text(checkpoint, npy, tmp_path):
    float32 = ("--precision", "float32")  # a rounding may turn on how many rows are multiplied together
    whole = invert(checkpoint, npy, tmp_path / "a.parquet", *float32)
    parts = invert(checkpoint, npy, tmp_path / "b.parquet", *float32, "--batch-size", "2")
    assert whole["text"].to_pylist() == parts["text"].to_pylist()


def test_steps_reach_the_decoder(checkpoint, npy, tmp_path):
    one = invert(checkpoint, npy, tmp_path / "a.parquet", "--steps", "1")
    expected = load_inverter(checkpoint).invert(VECTORS, steps=1)
    assert one["text"].to_pylist() == [inversion.text for inversion in expected]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_precision_reaches_the_inverter(checkpoint, npy, tmp_path, precision):
    table = invert(checkpoint, npy, tmp_path / "out.parquet", "--precision", precision)
    expected = load_inverter(checkpoint, precision=precision).invert(VECTORS)
    assert table["confidence"].to_pylist() == pytest.approx([inversion.confidence for inversion in expected], rel=1e-6)


def test_precisions_differ(checkpoint, npy, tmp_path):
    found = [
        invert(checkpoint, npy, tmp_path / f"{name}.parquet", "--precision", name) for name in ("float32", "bfloat16")
    ]
    assert found[0]["confidence"].to_pylist() != found[1]["confidence"].to_pylist()


def test_folder_of_the_output_is_made_and_an_older_file_replaced(checkpoint, npy, tmp_path):
    out = tmp_path / "new" / "folder" / "out.parquet"
    invert(checkpoint, npy, out)
    invert(checkpoint, npy, out)
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.parquet", "out.provenance.json"]
    assert len(json.loads((out.parent / "out.provenance.json").read_text())["sittings"]) == 1  # of this file alone


def test_what_was_done_is_said(checkpoint, npy, tmp_path, capsys):
    invert(checkpoint, npy, tmp_path / "out.parquet")
    said = capsys.readouterr()
    assert f"7 texts in {tmp_path / 'out.parquet'}" in said.out
    assert "inverted 7 of 7" in said.err


def bad_vectors(kind):
    vectors = VECTORS.copy()
    if kind == "nan":
        vectors[3, 1] = np.nan
    elif kind == "infinity":
        vectors[3, 1] = np.inf
    elif kind == "zero":
        vectors[3] = 0
    elif kind == "width":
        return vectors[:, :9]
    elif kind == "none":
        return vectors[:0]
    return vectors


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("nan", "row 3 holds NaN or infinity (id 3)"),
        ("infinity", "row 3 holds NaN or infinity"),
        ("zero", "row 3 is a zero vector"),
        ("width", "they have 9 dimensions, those of hash have 16"),
        ("none", "no vector was given"),
    ],
)
def test_bad_vectors_end_with_one_sentence_and_no_file(checkpoint, tmp_path, capsys, kind, sentence):
    np.save(tmp_path / "bad.npy", bad_vectors(kind))
    out = tmp_path / "out.parquet"
    given = ("--vectors", str(tmp_path / "bad.npy"), "--out", str(out))
    assert sentence in refused(capsys, "invert", "--checkpoint", checkpoint, *given)
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--out", "x.csv"], "--out x.csv: give a file that ends in .parquet"),
        ([], "--vectors needs --out FILE.parquet"),
        (["--out", "{tmp}/o.parquet", "--steps", "0"], "steps is 0"),
        (["--out", "{tmp}/o.parquet", "--strategy", "luck"], "strategy 'luck' is unknown"),
        (["--out", "{tmp}/o.parquet", "--batch-size", "0"], "batch"),
        (["--out", "{tmp}/o.parquet", "--batch-size", "-3"], "batch"),
        (["--out", "{tmp}/v.npy/o.parquet"], "v.npy"),
    ],
    ids=["suffix", "no out", "steps", "strategy", "batch 0", "batch -3", "out under a file"],
)
def test_option_that_cannot_be_used_ends_with_one_sentence(checkpoint, npy, tmp_path, capsys, more, sentence):
    more = [argument.replace("{tmp}", str(tmp_path)) for argument in more]
    assert sentence in refused(capsys, "invert", "--checkpoint", checkpoint, "--vectors", npy, *more)


def test_gpu_that_is_not_there_ends_with_one_sentence(checkpoint, npy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = ("--vectors", npy, "--out", str(tmp_path / "o.parquet"), "--device", "cuda")
    assert "cuda" in refused(capsys, "invert", "--checkpoint", checkpoint, *given).lower()


def test_file_that_cannot_be_used_ends_with_one_sentence_that_names_it(checkpoint, npy, tmp_path, capsys):
    out = ("--out", str(tmp_path / "o.parquet"))
    nowhere = str(tmp_path / "absent")
    assert nowhere in refused(capsys, "invert", "--checkpoint", nowhere, "--vectors", npy, *out)
    assert "no such file" in refused(capsys, "invert", "--checkpoint", checkpoint, "--vectors", nowhere, *out)
    other = parquet(tmp_path / "v.parquet", id=[1], text=["no vector"])
    assert "v.parquet" in refused(capsys, "invert", "--checkpoint", checkpoint, "--vectors", other, *out)


def test_config_of_a_checkpoint_that_is_broken_ends_with_one_sentence(checkpoint, npy, tmp_path, capsys):
    folder = tmp_path / "broken"
    shutil.copytree(checkpoint, folder)
    tree = json.loads((folder / "config.json").read_text())
    del tree["pairs"]["encoder"]["dim"]
    (folder / "config.json").write_text(json.dumps(tree))
    given = ("--vectors", npy, "--out", str(tmp_path / "o.parquet"))
    assert "pairs.encoder.dim" in refused(capsys, "invert", "--checkpoint", str(folder), *given)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["invert"],
        ["invert", "--checkpoint", "x"],
        ["invert", "--checkpoint", "x", "--text", "a", "--vectors", "b"],
        ["invert", "--checkpoint", "x", "--text", "a", "--steps", "many"],
        ["invert", "--checkpoint", "x", "--text", "a", "--precision", "half"],
    ],
    ids=" ".join,
)
def test_command_line_that_makes_no_sense_ends_with_usage_and_code_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: embinv" in capsys.readouterr().err


@pytest.fixture(scope="module")
def minilm_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minilm") / "checkpoint"
    tiny_checkpoint(folder, TextTokenizer(MINILM), EncoderSpec(model=MINILM, dim=384))
    return str(folder)


def test_text_is_encoded_inverted_and_its_cosine_shown(minilm_checkpoint, capsys):
    from embinv.encoders.base import open_encoder

    text = "Dr. Weber moved the appointment to May 4."
    main(["invert", "--checkpoint", minilm_checkpoint, "--text", text])
    original, recovered, figures = capsys.readouterr().out.splitlines()
    encoder = open_encoder(EncoderSpec(model=MINILM, dim=384))
    vector = encoder.encode([text])
    [inversion] = load_inverter(minilm_checkpoint).invert(vector)
    cosine = float((vector @ encoder.encode([inversion.text]).T).item())
    assert original == f"original   {text}"
    assert recovered == f"recovered  {inversion.text}"
    assert figures == f"confidence {inversion.confidence:.2f}, cosine of the two vectors {cosine:.3f}"


@pytest.mark.parametrize("text", ["", "   "])
def test_empty_text_ends_with_one_sentence(minilm_checkpoint, capsys, text):
    assert "--text is empty" in refused(capsys, "invert", "--checkpoint", minilm_checkpoint, "--text", text)


def test_installed_command_shows_no_traceback_for_a_mistake(tmp_path):
    command = [sys.executable, "-m", "embinv.cli", "invert", "--checkpoint", str(tmp_path), "--text", "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


class Stopped(Exception):
    """Stands for a kill."""


def test_a_run_that_was_stopped_goes_on_where_it_was(checkpoint, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "v.npy", unit_vectors(20, 16))
    out, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    invert(checkpoint, tmp_path / "v.npy", whole)
    put, times = Texts.put, []

    def put_two(self, *given):
        if len(times) == 2:
            raise Stopped
        times.append(1)
        put(self, *given)

    monkeypatch.setattr(Texts, "put", put_two)
    with pytest.raises(Stopped):
        invert(checkpoint, tmp_path / "v.npy", out, "--window-rows", "5")
    assert not out.exists()
    monkeypatch.setattr(Texts, "put", put)
    capsys.readouterr()
    table = invert(checkpoint, tmp_path / "v.npy", out, "--window-rows", "5")
    assert "going on: 10 of 20 vectors were inverted before" in capsys.readouterr().err
    assert table.select(["id", "text"]).equals(pq.read_table(whole).select(["id", "text"]))
    names = {"out.parquet", "out.provenance.json", "v.npy", "whole.parquet", "whole.provenance.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    require_provenance(tmp_path / "out.provenance.json", "embinv invert")
    sittings = json.loads((tmp_path / "out.provenance.json").read_text())["sittings"]
    assert [each["ended"] is not None for each in sittings] == [False, True]  # the one that was stopped stays


def test_what_another_run_left_is_not_mixed_in(checkpoint, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "v.npy", VECTORS)
    given = ("--checkpoint", checkpoint, "--vectors", str(tmp_path / "v.npy"), "--out", str(tmp_path / "o.parquet"))
    put = Texts.put

    def put_one(self, *given):
        put(self, *given)
        raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Texts, "put", put_one)
        main(["invert", *given, "--window-rows", "4"])
    assert "was begun with steps = 8, not 2" in refused(capsys, "invert", *given, "--window-rows", "4", "--steps", "2")
    main(["invert", *given, "--window-rows", "4", "--steps", "2", "--overwrite"])
    expected = load_inverter(checkpoint).invert(VECTORS, steps=2)
    assert pq.read_table(tmp_path / "o.parquet")["text"].to_pylist() == [each.text for each in expected]


@pytest.mark.parametrize("where", ["dump", "dump/out.parquet"])
def test_a_dump_is_not_replaced_by_its_texts(checkpoint, tmp_path, capsys, where):
    (tmp_path / "dump").mkdir()
    vectors, out = parquet(tmp_path / "dump" / "v.parquet", embedding=list(VECTORS)), tmp_path / where
    source = vectors if where == "dump" else str(tmp_path / "dump")
    given = ("--checkpoint", checkpoint, "--vectors", source, "--out", vectors if where == "dump" else str(out))
    assert "is the dump of --vectors, or inside it" in refused(capsys, "invert", *given)
    assert pq.read_schema(vectors).names == ["embedding"]


def test_two_runs_do_not_write_one_file(checkpoint, npy, tmp_path, capsys):
    out = tmp_path / "out.parquet"
    with sole_writer(out):
        given = ("--checkpoint", checkpoint, "--vectors", npy, "--out", str(out))
        assert "another job is writing there" in refused(capsys, "invert", *given)


def test_what_the_system_refuses_is_told_in_a_sentence(checkpoint, npy, tmp_path, capsys, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(Texts, "put", full)
    given = ("--checkpoint", checkpoint, "--vectors", npy, "--out", str(tmp_path / "o.parquet"))
    assert refused(capsys, "invert", *given) == f"error: {tmp_path / 'x'}: No space left on device"


def test_bad_vectors_get_no_text_where_that_is_wanted(checkpoint, tmp_path):
    np.save(tmp_path / "bad.npy", bad_vectors("nan"))
    table = invert(checkpoint, tmp_path / "bad.npy", tmp_path / "out.parquet", "--skip-bad")
    assert [row["id"] for row in table.to_pylist() if row["text"] is None] == [3]


def test_other_columns_of_a_dump_are_kept(checkpoint, tmp_path):
    source = parquet(tmp_path / "v.parquet", id=list("abcdefg"), embedding=list(VECTORS), owner=["x"] * 7, n=range(7))
    table = invert(checkpoint, source, tmp_path / "out.parquet")
    assert json.loads(table["metadata"][2].as_py()) == {"owner": "x", "n": 2}
    table = invert(checkpoint, source, tmp_path / "out.parquet", "--metadata", "n")
    assert json.loads(table["metadata"][2].as_py()) == {"n": 2}
    assert invert(checkpoint, source, tmp_path / "out.parquet", "--metadata", "")["metadata"].null_count == 7


def test_recovered_texts_are_encoded_again_where_their_cosine_is_wanted(minilm_checkpoint, tmp_path):
    from embinv.encoders.base import open_encoder

    encoder = open_encoder(EncoderSpec(model=MINILM, dim=384))
    vectors = encoder.encode(["anna paid three coins", "two maps of the town"])
    np.save(tmp_path / "v.npy", vectors)
    table = invert(minilm_checkpoint, tmp_path / "v.npy", tmp_path / "o.parquet", "--cosine")
    expected = (vectors * encoder.encode([text or " " for text in table["text"].to_pylist()])).sum(axis=1)
    assert table["cosine"].to_pylist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert table["encoder_calls"].to_pylist() == [1, 1]


def with_shape(checkpoint, folder, vectors):
    """A copy of a checkpoint that was trained on these vectors."""
    shutil.copytree(checkpoint, folder)
    moments = moments_of(vectors)
    moments.shape().save(folder / "statistics.safetensors")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"statistics": moments.statistics().model_dump()}))
    return str(folder)


def test_vectors_of_another_space_are_refused_and_the_inverter_that_fits_is_named(checkpoint, tmp_path, capsys):
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(400, 6)) @ rng.normal(size=(6, 16)) for _ in range(2))
    ours = with_shape(checkpoint, tmp_path / "runs" / "ours" / "checkpoint", one)
    theirs = with_shape(checkpoint, tmp_path / "runs" / "theirs" / "checkpoint", other)
    np.save(tmp_path / "v.npy", other[200:])
    given = ("--vectors", str(tmp_path / "v.npy"), "--out", str(tmp_path / "o.parquet"))
    sentence = refused(capsys, "invert", "--checkpoint", ours, *given)
    assert "these vectors do not look like hash's: correlations of their coordinates agree by" in sentence
    assert f"use --checkpoint {theirs}" in sentence
    assert not (tmp_path / "o.parquet").exists()
    main(["invert", "--checkpoint", ours, *given, "--force"])
    assert len(pq.read_table(tmp_path / "o.parquet")) == 200
    main(["invert", "--checkpoint", theirs, *given])
    assert "alike" in capsys.readouterr().err
