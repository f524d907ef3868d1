"""`embinv align` from files to files, with a hash encoder behind a secret rotation, which few known pairs undo."""

import argparse
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.aligning import invert_through
from embinv.commands import align as command
from embinv.commands.align_files import invert_dump, read_known
from embinv.commands.align_report import JSON, MARKDOWN, PLOT
from embinv.data.dumps.base import Block
from embinv.data.kept_maps import read_map
from embinv.encoders.hashing import HashEncoder
from embinv.encoders.spec import EncoderSpec
from embinv.inverter import load_inverter
from embinv.spaces.choosing import choose_map
from embinv.spaces.linear import LinearMap
from tests.fakes import sentences, tiny_checkpoint, unit_vectors, word_tokenizer
from tests.provenance_checks import require_provenance

SPEC = EncoderSpec(kind="hash", model="hash", dim=16)
TEXTS = sentences(160)
SECRET = np.linalg.qr(np.random.default_rng(7).normal(size=(16, 16)))[0]


def unknown(texts):
    return (HashEncoder(SPEC).encode(texts) @ SECRET).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tiny_checkpoint(folder / "checkpoint", word_tokenizer(folder / "words"), SPEC)
    vectors = unknown(TEXTS)
    pq.write_table(pa.table({"text": TEXTS[:100], "embedding": vectors[:100].tolist()}), folder / "known.parquet")
    ids = [f"row {row}" for row in range(60)]
    pq.write_table(pa.table({"id": ids, "embedding": vectors[100:].tolist()}), folder / "dump.parquet")
    return folder


def run(*arguments):
    top = argparse.ArgumentParser()
    command.add(top.add_subparsers(dest="command", required=True))
    parsed = top.parse_args(["align", *map(str, arguments)])
    parsed.run(parsed)


def known(made, *more):
    run("--checkpoint", made / "checkpoint", "--known", made / "known.parquet", *more)


@pytest.fixture(scope="module")
def reported(made):
    folder = made / "report"
    known(made, "--report", folder, "--known-pairs", "50,10,80", "--seed", "3")
    return folder


def test_report_holds_every_number_of_known_pairs_with_its_references(reported):
    require_provenance(reported, "embinv align")
    report = json.loads((reported / JSON).read_text())
    assert [row["known_pairs"] for row in report["by_known_pairs"]] == [10, 50, 80]
    assert set(report["references"]) == {"own", "unmapped", "mean", "other"}
    assert report["usable_pairs"] == 100 and report["held_out"] == 20
    exact, own = report["by_known_pairs"][2], report["references"]["own"]
    assert exact["map"] == "procrustes" and exact["cosine"] == own["cosine"] == 1.0
    assert {name: exact[name] for name in own} == own  # through the exact map the inverter sees its own vectors
    assert exact["n"] == 20 and exact["token_f1_se"] > 0
    assert exact["cross_validation"]["procrustes"] == 1.0


def test_markdown_says_what_the_json_says_and_the_plot_is_a_picture(reported):
    report, text = json.loads((reported / JSON).read_text()), (reported / MARKDOWN).read_text()
    for row in report["by_known_pairs"]:
        figure = f"{row['token_f1']:.1%} ± {row['token_f1_se']:.1%}"
        assert f"| mapped by {row['known_pairs']} known pairs | {row['map']} | {figure} |" in text
    assert f"| without the map | - | {report['references']['unmapped']['token_f1']:.1%}" in text
    for example in report["examples"]:
        assert f"| {example['original']} | {example['recovered']} |" in text
    assert PLOT in text and (reported / PLOT).read_bytes().startswith(b"\x89PNG")


def test_the_same_command_writes_the_same_bytes(made, reported, tmp_path):
    known(made, "--report", tmp_path, "--known-pairs", "50,10,80", "--seed", "3")
    for name in (JSON, MARKDOWN, PLOT):
        assert (tmp_path / name).read_bytes() == (reported / name).read_bytes()


def test_table_on_stdout_and_progress_on_stderr(made, capsys):
    known(made, "--known-pairs", "50")
    out, err = capsys.readouterr()
    assert "mapped by 50 known pairs" in out and "20 held-out texts of 100 usable pairs" in out
    assert "encoded 100 known texts" in err and "measuring with 50 known pairs" in err


def test_held_out_texts_that_known_ones_nearly_are_are_counted_apart(made, tmp_path, capsys):
    texts = [" ".join(TEXTS[row : row + 5]) for row in range(40)]
    texts = [*texts, *(f"{text} lost" for text in texts)]
    pq.write_table(pa.table({"text": texts, "embedding": unknown(texts).tolist()}), tmp_path / "known.parquet")
    files = ("--known", tmp_path / "known.parquet", "--report", tmp_path)
    run("--checkpoint", made / "checkpoint", *files, "--known-pairs", "10", "--held-out", "30")
    report = json.loads((tmp_path / JSON).read_text())
    left, copies = report["held_out"], report["held_out_like_known"]
    assert left + copies == 30 and left > 1 and copies > 1
    said = f"{left} held-out texts of 80 usable pairs, without {copies} that known texts nearly are"
    assert said in capsys.readouterr().out and f"{copies} more were held out" in (tmp_path / MARKDOWN).read_text()


def test_a_dump_goes_through_the_map_of_all_known_pairs_and_a_kept_map_does_the_same(made, tmp_path, capsys):
    dump = ("--vectors", made / "dump.parquet")
    known(made, *dump, "--out", tmp_path / "new" / "one.parquet", "--map", tmp_path / "map", "--known-pairs", "10")
    assert "fitted on 100 known pairs" in capsys.readouterr().out
    run("--checkpoint", made / "checkpoint", "--map", tmp_path / "map", *dump, "--out", tmp_path / "two.parquet")
    one, two = pq.read_table(tmp_path / "new" / "one.parquet"), pq.read_table(tmp_path / "two.parquet")
    for output in (tmp_path / "map", tmp_path / "new" / "one.provenance.json", tmp_path / "two.provenance.json"):
        require_provenance(output, "embinv align")
    assert one == two and one["id"].to_pylist() == [f"row {row}" for row in range(60)]
    inverter = load_inverter(made / "checkpoint")
    assert one["text"].to_pylist() == [each.text for each in inverter.invert(HashEncoder(SPEC).encode(TEXTS[100:]))]
    linear, kept = read_map(tmp_path / "map", SPEC)
    chosen = choose_map(unknown(TEXTS[:100]), HashEncoder(SPEC).encode(TEXTS[:100]))
    assert kept.kind == chosen.name and linear.weight == pytest.approx(chosen.map.weight)


class Stored:
    """A dump in memory, of one part for each list of blocks."""

    address = "stored"

    def __init__(self, *parts):
        self.held = parts

    def parts(self):
        return [Piece(blocks) for blocks in self.held]


class Piece:
    name, rows = "piece", None

    def __init__(self, held):
        self.held = held

    def blocks(self, rows, metadata=True):
        for block in self.held:
            yield block if metadata else Block(block.ids, block.vectors)


def block(vectors, ids=None, **metadata):
    return Block(pa.array(range(len(vectors)) if ids is None else ids), vectors, pa.table(metadata))


def test_dump_is_inverted_block_by_block_and_unusable_rows_are_null_and_counted(made, tmp_path):
    inverter, linear = load_inverter(made / "checkpoint"), LinearMap(SECRET.T, np.zeros(16), np.zeros(16))
    vectors = unknown(TEXTS[:9])
    vectors[4], vectors[7, 3] = 0, np.nan
    stored, done = Stored([block(vectors[:3]), block(vectors[3:5])], [], [block(vectors[5:])]), []
    assert invert_dump(inverter, linear, stored, tmp_path / "o.parquet", on_progress=done.append) == (9, 2)
    assert done == [3, 5, 9]
    table = pq.read_table(tmp_path / "o.parquet")
    expected = [each and each.text for each in invert_through(inverter, linear, vectors)]
    assert table["text"].to_pylist() == expected and expected[4] is expected[7] is None
    assert [value is None for value in table["confidence"].to_pylist()] == [text is None for text in expected]
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("id", "int64"),
        ("text", "string"),
        ("confidence", "float"),
    ]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([[]], "--vectors stored: holds no rows"),
        ([[block(unit_vectors(2, 16)), block(unit_vectors(2, 5))]], "have 5 dimensions, the map takes 16"),
        ([[block(unit_vectors(2, 16)), block(unit_vectors(2, 16), ["a", "b"])]], "ids are of several types"),
    ],
)
def test_a_dump_that_does_not_fit_is_refused_and_leaves_no_file(made, tmp_path, parts, sentence):
    linear = LinearMap(SECRET.T, np.zeros(16), np.zeros(16))
    with pytest.raises(ValueError, match=sentence):
        invert_dump(load_inverter(made / "checkpoint"), linear, Stored(*parts), tmp_path / "o.parquet")
    assert list(tmp_path.iterdir()) == []


def test_known_texts_are_read_over_parts_whatever_arrow_calls_their_type():
    vectors = unit_vectors(6, 4)
    blocks = [
        block(vectors[:2], text=pa.array(["a", None])),
        block(vectors[2:4], text=pa.array(["b", "a"]).dictionary_encode()),
        block(vectors[4:5], text=pa.array(["c"], pa.large_string())),
        block(vectors[5:], other=[1]),
    ]
    texts, read = read_known(Stored(blocks[:1], blocks[1:]), "text")
    assert texts == ["a", None, "b", "a", "c", None] and (read == vectors).all()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_known_pairs_of_any_kind_of_file_measure_the_same(made, reported, tmp_path, suffix):
    vectors, path = unknown(TEXTS[:100]).tolist(), tmp_path / f"known{suffix}"
    lines = [json.dumps({"passage": text, "vec": vector}) for text, vector in zip(TEXTS, vectors, strict=False)]
    if suffix == ".csv":
        lines = ["passage,vec", *(f'{text},"{vector}"' for text, vector in zip(TEXTS, vectors, strict=False))]
    path.write_text("\n".join(lines) + "\n")
    names = ("--text-column", "passage", "--column", "vec")
    more = ("--report", tmp_path, "--known-pairs", "50,10,80", "--seed", "3")
    run("--checkpoint", made / "checkpoint", "--known", path, *names, *more)
    one, other = (json.loads((folder / JSON).read_text()) for folder in (tmp_path, reported))
    assert one | {"known": ""} == other | {"known": ""}


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        ([], "--known stored: holds no rows"),
        ([block(unit_vectors(2, 4), title=["a", "b"])], "--text-column text: stored has no such column; it has title"),
        ([Block(pa.array([1]), unit_vectors(1, 4))], "has no such column; it has vectors alone"),
        ([block(unit_vectors(2, 4), text=[1, 2])], "stored has int64 there; name one of texts"),
        ([block(unit_vectors(1, 4), text=["a"]), block(unit_vectors(1, 3), text=["b"])], r"have \[3, 4\] dimensions"),
    ],
)
def test_known_pairs_that_cannot_be_read_are_refused(blocks, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_known(Stored(blocks), "text")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("", "--known FILE is missing"),
        ("--map {tmp}", "--map without --known"),
        ("--map {tmp} --vectors {dump} --out {tmp}/o.parquet --report {tmp}", "--report measures on known pairs"),
        ("--map {tmp} --vectors {dump} --out {tmp}/o.parquet --held-out 9", "--held-out measures on known pairs"),
        ("--map {tmp} --vectors {dump} --out {tmp}/o.parquet", "holds no map"),
        ("--known {known} --vectors {dump}", "--vectors FILE and --out"),
        ("--known {known} --out {tmp}/o.parquet", "--vectors FILE and --out"),
        ("--known {known} --vectors {dump} --out {tmp}/o.csv", "ends in .parquet"),
        ("--known {known} --vectors {dump} --out {dump}/o.parquet", "--out: .* cannot be made"),
        ("--known {known} --report {dump}", "--report: .* cannot be made"),
        ("--known {tmp}/absent.csv", "--known .*absent.csv: no such file"),
        ("--known {known} --column title", "--known .*known.parquet: .*title"),
        ("--known {known} --text-column title", "--text-column title: .*it has text"),
        ("--known {known} --vectors {tmp}/absent.npy --out {tmp}/o.parquet", "--vectors .*absent.npy: no such file"),
        ("--known {known} --known-pairs 90", "--known-pairs 90: give numbers from 10 to 80"),
        ("--known {known} --held-out 95", "--held-out: 95 of 100"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_their_name(made, tmp_path, options, sentence):
    places = {"{tmp}": tmp_path, "{dump}": made / "dump.parquet", "{known}": made / "known.parquet"}
    for name, place in places.items():
        options = options.replace(name, str(place))
    with pytest.raises(ValueError, match=sentence):
        run("--checkpoint", made / "checkpoint", *options.split())


@pytest.fixture(scope="module")
def stores(made):
    """A store of two collections, and an array file."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(made / "stores"))
    for name, start in (("few", 0), ("rest", 100)):
        client.create_collection(name, models.VectorParams(size=16, distance=models.Distance.DOT))
        rows = list(enumerate(TEXTS[start : start + 60]))
        vectors = unknown([text for _, text in rows]).tolist()
        points = [models.PointStruct(id=row, vector=vectors[row], payload={"text": text}) for row, text in rows]
        client.upsert(name, points)
    client.close()
    np.save(made / "dump.npy", unit_vectors(2, 16))
    return made


def test_both_stores_may_hold_several_tables(stores, tmp_path, capsys):
    place, out = stores / "stores", tmp_path / "o.parquet"
    names = ("--known-name", "few", "--name", "rest", "--known-pairs", "10")
    run("--checkpoint", stores / "checkpoint", "--known", place, "--vectors", place, "--out", out, *names)
    assert "of 60 usable pairs" in capsys.readouterr().out
    assert pq.read_table(out)["id"].to_pylist() == list(range(60))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--known {}/stores", "--known .*: holds several, few, rest; choose the collection with --known-name$"),
        ("--known {}/stores --known-name x", "--known .*: no collection 'x', .*; mend --known-name$"),
        ("--known {}/stores --known-name few --column v", "--known .*: its vectors have no names; leave --column out$"),
        ("--known {}/known.parquet --known-name x", "--known .*: --known-name is 'x', but means nothing for .parquet"),
        ("--known {}/known.parquet --column text", "--known .*: .*; name one of embedding with --column$"),
        ("--map m --out o.parquet --vectors {}/stores", "--vectors .*; choose the collection with --name$"),
        ("--map m --out o.parquet --vectors {}/known.parquet --vectors-column text", "with --vectors-column$"),
        ("--map m --out o.parquet --vectors {}/known.parquet --id-column x", "with --id-column, or none to number"),
        ("--map m --out o.parquet --vectors {}/known.parquet --id-column embedding", "another with --id-column$"),
        ("--map m --out o.parquet --vectors {}/dump.npy --id-column x", "--vectors .*: --id-column is 'x', but means"),
    ],
)
def test_what_a_store_says_of_its_names_names_the_flag(stores, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        run("--checkpoint", stores / "checkpoint", *options.replace("{}", str(stores)).split())


@pytest.mark.parametrize("option", ["--known-pairs 9", "--known-pairs 50,", "--known-pairs many", "--steps 0"])
def test_numbers_that_are_none_end_with_the_usage(made, capsys, option):
    with pytest.raises(SystemExit):
        known(made, *option.split())
    assert "usage:" in capsys.readouterr().err
