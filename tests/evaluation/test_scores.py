import numpy as np
import pyarrow.parquet as pq
import pytest

from embinv.cli import main
from embinv.encoders.hashing import HashEncoder
from embinv.evaluation.scores import FILE, compare, scores_table, write_scores
from embinv.inversion import Inversion
from embinv.metrics.figures import Figure
from embinv.metrics.tokens import exact_match, token_accuracy
from tests.fakes import hash_spec, pairs_of, sentences, word_tokenizer

COUNT = 40


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    tokenizer = word_tokenizer(tmp_path_factory.mktemp("words"))
    pairs = pairs_of(sentences(COUNT), tokenizer, HashEncoder(hash_spec(16)))
    return pairs, [tokenizer.content(row) for row in pairs.token_ids.tolist()]


def report(folder, material, wrong, rows=None):
    """A folder with the scores of an inverter that gets the first `wrong` texts wrong in their first token."""
    pairs, originals = material
    said = [[2, *x[1:]] if row < wrong else x for row, x in enumerate(originals)]
    rows = np.arange(COUNT) if rows is None else np.asarray(rows)
    chosen, ids = pairs.take(rows), [said[row] for row in rows]
    true = [originals[row] for row in rows]
    figures = {
        "token_accuracy": token_accuracy(true, ids),
        "exact_match": exact_match(true, ids),
        "calibration_error": Figure(0.1, 0.01, len(rows)),
    }
    folder.mkdir()
    inversions = [Inversion("said", x, [], 0.5) for x in ids]
    write_scores(folder, scores_table(chosen, inversions, figures))
    return folder


def test_a_row_holds_a_text_and_its_share_of_each_figure(tmp_path, material):
    pairs, originals = material
    table = pq.read_table(report(tmp_path / "a", material, 3) / FILE)
    assert table["id"].to_pylist() == pairs.ids.tolist()
    assert table["original"].to_pylist() == pairs.texts
    assert table["recovered"].to_pylist() == ["said"] * COUNT
    assert table["probability"].null_count == COUNT
    assert table["exact_match.part"].to_pylist() == [0.0] * 3 + [1.0] * (COUNT - 3)
    assert table["token_accuracy.whole"].to_pylist() == list(map(len, originals))
    assert not [name for name in table.column_names if name.startswith("calibration_error")]


def test_two_reports_are_compared_on_the_texts_that_both_measured(tmp_path, material):
    first = report(tmp_path / "a", material, 10, rows=range(30))
    second = report(tmp_path / "b", material, 4, rows=[*range(39, 4, -1), 0, 1])
    found = compare(first, second)
    assert found.keys() == {"token_accuracy", "exact_match"}
    exact = found["exact_match"]
    assert exact.n == 27  # 0, 1 and 5 to 29
    assert (exact.first, exact.second) == (pytest.approx(20 / 27), pytest.approx(25 / 27))
    assert exact.value == pytest.approx(5 / 27)
    assert exact.low < exact.value < exact.high


def test_command_says_how_much_they_differ(tmp_path, material, capsys):
    first, second = report(tmp_path / "a", material, 30), report(tmp_path / "b", material, 2)
    main(["compare", str(first), str(second), "--resamples", "500"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("40 texts; difference: ")
    [exact] = (line.split() for line in lines if line.startswith("whole texts right"))
    assert exact[3:6] == ["25.0%", "95.0%", "70.0%"]
    assert exact[-1] == "0.004"  # 2 of 501


def test_reports_that_cannot_be_compared_are_refused_in_one_sentence(tmp_path, material, capsys):
    first = report(tmp_path / "a", material, 3, rows=range(5))
    apart = report(tmp_path / "b", material, 3, rows=range(4, 12))
    (tmp_path / "none").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / FILE).write_text("no table")
    other = report(tmp_path / "other", material, 3)
    table = pq.read_table(other / FILE)
    texts = ["another text"] * COUNT
    pq.write_table(table.set_column(table.column_names.index("original"), "original", [texts]), other / FILE)
    for second, told in (
        (apart, "have 1 text in common; measure both on the same pairs"),
        (tmp_path / "none", f"has no {FILE}"),
        (tmp_path / "broken", "cannot be read"),
        (other, "is not the same in"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["compare", str(first), str(second)])
        assert caught.value.code == 2
        [line] = capsys.readouterr().err.splitlines()
        assert told in line
