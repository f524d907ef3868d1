"""What a report says of an alignment, and that no text from outside becomes markup in it."""

import numpy as np
import pytest

from embinv.aligning import Alignment, KnownPairs, Leakage
from embinv.commands.align_report import markdown_table, render, report_of, table
from embinv.inversion import Inversion
from embinv.metrics.figures import Figure
from embinv.spaces.choosing import Chosen
from embinv.spaces.linear import LinearMap

HOSTILE = "a | b <script>x</script> ![p](http://x/y.png) [l](http://x) `c`\n# head"
FACTS = {"name": "tiny", "encoder": {"model": "hash"}, "known": "known.csv", "longest": 7, "steps": 8, "seed": 0}


def leakage(cosine=True, known=None):
    figures = {"token_f1": Figure(0.5, 0.01, 2), "exact_match": Figure(0.25, 0.02, 2), "bleu": Figure(31.24, 1.06, 2)}
    if cosine:
        figures["cosine"] = Figure(0.9, 0.003, 2)
    nothing = LinearMap(np.eye(2), np.zeros(2), np.zeros(2))
    scores = {"procrustes": Figure(0.7, 0.1, 9), "ridge 1": Figure(0.8, 0.1, 9)}
    chosen = None if known is None else Chosen(nothing, "ridge 1", scores, 2)
    return Leakage(figures, [Inversion(HOSTILE, [1], [0.5], 0.5)] * 2, chosen, known)


def alignment(**references):
    pairs = KnownPairs(
        [HOSTILE, "b"], np.ones((2, 3)), np.ones((2, 2)), {"without text": 3, "text of an earlier row": 0}
    )
    by_known = [leakage(known=50), leakage(known=2000)]
    return report_of(Alignment(pairs, 4, 1, by_known, references), pairs, FACTS)


def test_rows_are_known_pairs_in_order_and_then_the_references():
    report = alignment(other=leakage(), own=leakage(), unmapped=leakage(cosine=False))
    rows = table(report)
    assert [row[0] for row in rows[1:]] == [
        "mapped by 50 known pairs",
        "mapped by 2,000 known pairs",
        "the encoder's own vectors",
        "without the map",
        "the encoder's vectors of other texts",
    ]
    assert rows[1][1:] == ["ridge 1", "50.0% ± 1.0%", "25.0% ± 2.0%", "31.2 ± 1.1", "0.900 ± 0.003"]
    assert rows[4][-1] == "-"
    assert {len(row) for row in rows} == {6}


def test_texts_from_outside_are_no_markup():
    [row] = [line for line in render(alignment(own=leakage())).splitlines() if line.startswith("| a ")]
    assert "<script>" not in row and "&lt;script&gt;" in row
    assert "](" not in row.replace("\\](", "") and "\\[l\\]" in row and "\\`c\\`" in row
    assert row.replace("\\|", "").count("|") == 3


@pytest.mark.parametrize("absent", ["text of an earlier row", "0 ("])
def test_what_was_left_out_is_said_and_what_was_not_is_not(absent):
    text = render(alignment(own=leakage()))
    assert "Rows left out: 3 (without text)." in text and absent not in text
    assert "1 of the held-out texts are longer than the 7 tokens" in text
    assert "4 more were held out and not measured on, since a known text is nearly the same." in text


def test_the_chosen_map_is_bold_among_the_scores():
    text = render(alignment(own=leakage()))
    assert "| procrustes | 0.700 | 0.700 |" in text and "| ridge 1 | **0.800** | **0.800** |" in text


def test_a_markdown_table_has_its_rule_under_the_header():
    assert markdown_table([["a", "b"], ["1", "2"]]) == ["| a | b |", "|---|---|", "| 1 | 2 |"]
