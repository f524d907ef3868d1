import pytest

from embinv.evaluation import DEFINITIONS
from embinv.report import figure_table, milestones, render

FIGURES = {
    "token_accuracy": 0.6123,
    "token_accuracy_se": 0.0101,
    "exact_match": 0.1,
    "exact_match_se": 0.02,
    "token_f1": 0.7,
    "token_f1_se": 0.01,
    "bleu": 31.92,
    "bleu_se": 1.26,
}


def report(**changes):
    baseline = {name: value / 10 for name, value in FIGURES.items()}
    return {
        "name": "minilm",
        "encoder": "someone/encoder",
        "n": 1234,
        "strategy": "confidence",
        "steps": 8,
        "seq_len": 32,
        **FIGURES,
        "cosine": 0.8765,
        "cosine_se": 0.0021,
        "baselines": {"zero": baseline, "shuffled": baseline, "nearest": baseline},
        "samples_per_second": {"invert": 1500.4},
        "seconds": {"train": 360.2},
        "languages": {"en": {"n": 1234, "token_accuracy": 0.6123, "token_accuracy_se": 0.0101}},
        "examples": [{"original": "a | b\nc", "recovered": "a", "confidence": 0.5}],
        "definitions": DEFINITIONS,
    } | changes


def table_rows(text):
    """Cells of each table, header first."""
    tables = []
    before = False
    for line in text.splitlines():
        row = line.startswith("|")
        if row and not before:
            tables.append([])
        if row and not line.startswith("|---"):
            tables[-1].append([cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")])
        before = row
    return tables


def test_inverter_stands_first_and_every_baseline_after_it():
    header, rows = figure_table(report())
    assert header == ["", "tokens right", "whole texts right", "token F1", "BLEU", "cosine"]
    assert [row[0] for row in rows] == [
        "**recovered from the vector**",
        "baseline: zero embedding",
        "baseline: somebody else's embedding",
        "baseline: nearest training text",
    ]
    assert rows[0][1:] == ["61.2% ± 1.0%", "10.0% ± 2.0%", "70.0% ± 1.0%", "31.9 ± 1.3", "0.876 ± 0.002"]
    assert rows[1][-1] == "-"  # a baseline has no cosine, and no made-up one


def test_every_row_of_every_table_has_as_many_cells_as_its_header():
    text = render(report(languages={"de": report()["languages"]["en"], "en": report()["languages"]["en"]}))
    tables = table_rows(text)
    assert len(tables) == 3
    for header, *rows in tables:
        assert rows
        assert {len(row) for row in rows} == {len(header)}


def test_report_says_how_it_was_measured():
    text = render(report())
    for part in ("1,234 held-out texts", "full mask in 8 passes", "at most 31 tokens", "Content tokens only"):
        assert part in text
    for meaning in DEFINITIONS.values():
        assert meaning in text


def test_missing_cosine_is_said_and_its_definition_left_out():
    without = {name: value for name, value in report().items() if not name.startswith("cosine")}
    text = render(without)
    assert "The cosine is left out" in text
    assert DEFINITIONS["cosine"] not in text
    assert "The cosine is left out" not in render(report())


def test_languages_stand_in_a_table_if_there_are_several():
    assert "## By language" not in render(report())
    one = report()["languages"]["en"]
    assert "| de | 1234 | 61.2% ± 1.0% |" in render(report(languages={"de": one, "en": one}))


def test_text_with_bars_and_line_breaks_stays_in_its_cell():
    assert "| a \\| b c | a | 0.50 |" in render(report())


@pytest.mark.parametrize("missing", ["baselines", "token_accuracy", "token_accuracy_se", "n"])
def test_report_without_what_makes_it_honest_is_not_rendered(missing):
    less = {name: value for name, value in report().items() if name != missing}
    if missing == "token_accuracy":
        assert "| **recovered from the vector** | - |" in render(less)
        return
    with pytest.raises(KeyError, match=missing):
        render(less)


# --- how recoveries grew over a run


def example_rows(*steps, texts=8):
    """Rows of examples.jsonl, in which every validation recovers one more word."""
    words = "anna owes ben two|three coins".split()
    return [
        {"step": step, "id": 100 + i, "original": f"{i} " + " ".join(words), "recovered": " ".join(words[: 1 + place])}
        for place, step in enumerate(steps)
        for i in range(texts)
    ]


@pytest.mark.parametrize(
    ("steps", "chosen"),
    [((), []), ((7,), [7]), ((7, 9), [7, 9]), ((1, 2, 3), [1, 2, 3]), ((10, 20, 30, 40), [10, 20, 40])],
    ids=str,
)
def test_milestones_are_the_first_the_middle_and_the_last_validation(steps, chosen):
    rows = example_rows(*steps)
    found = milestones(rows)
    assert [moment["step"] for moment in found] == chosen
    for moment in found:
        assert [{"step": moment["step"], **text} for text in moment["texts"]] == [
            row for row in rows if row["step"] == moment["step"]
        ]


def test_report_shows_how_three_texts_grew_and_all_eight_at_the_last_step():
    text = render(report(recoveries=milestones(example_rows(1000, 2000, 3000, 4000))))
    grown, final = [table for table in table_rows(text) if table[0][0] == "original" and "confidence" not in table[0]]
    assert grown[0] == ["original", "step 1,000", "step 2,000", "step 4,000"]
    assert [row[0] for row in grown[1:]] == [f"{i} anna owes ben two¦three coins" for i in range(3)]
    assert grown[1][1:] == ["anna", "anna owes", "anna owes ben two¦three"]
    assert final[0] == ["original", "recovered at step 4,000"]
    assert [row[0][0] for row in final[1:]] == list("01234567")
    assert "recovered from a full mask" in text


def test_run_with_one_validation_shows_its_texts_once():
    tables = table_rows(render(report(recoveries=milestones(example_rows(50, texts=2)))))
    assert tables[-1][0] == ["original", "recovered at step 50"]
    assert [table[0][1] for table in tables].count("step 50") == 0


def test_checkpoint_without_its_runs_examples_has_no_such_section():
    assert "While it was learning" not in render(report())
    assert "While it was learning" not in render(report(recoveries=[]))
    assert "While it was learning" in render(report(recoveries=milestones(example_rows(1))))
