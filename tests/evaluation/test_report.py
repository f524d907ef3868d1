import pytest

from embinv.evaluation.generation import DEFINITIONS
from embinv.evaluation.report import BASELINES, by_validation, figure_table, render, tables

FIGURES = {
    "token_accuracy": 0.6123,
    "token_accuracy_se": 0.0101,
    "exact_match": 0.1,
    "exact_match_se": 0.02,
    "token_f1": 0.7,
    "token_f1_se": 0.01,
    "bleu": 31.92,
    "bleu_se": 1.26,
    "rouge_1": 0.65,
    "rouge_1_se": 0.02,
    "rouge_l": 0.6,
    "rouge_l_se": 0.02,
    "character_error_rate": 1.234,
    "character_error_rate_se": 0.05,
    "length_error": 2.25,
    "length_error_se": 0.12,
    "length_bias": -0.5,
    "length_bias_se": 0.2,
}


def report(**changes):
    baseline = {name: value / 10 for name, value in FIGURES.items()}
    return {
        "name": "minilm",
        "encoder": "someone/encoder",
        "n": 1234,
        "strategy": "confidence",
        "decoding": {"order": "margin"},
        "steps": 8,
        "seq_len": 32,
        **FIGURES,
        "calibration_error": 0.0312,
        "calibration_error_se": 0.0041,
        "text_calibration_error": 0.0187,
        "text_calibration_error_se": 0.0052,
        "reliability": {
            "token": [{"n": 1500, "predicted": 0.21, "observed": 0.25}, {"n": 20, "predicted": 0.9, "observed": 0.8}],
            "text": [{"n": 1234, "predicted": 0.1, "observed": 0.12}],
        },
        "cosine": 0.8765,
        "cosine_se": 0.0021,
        "baselines": dict.fromkeys(BASELINES, baseline),
        "samples_per_second": {"invert": 1500.4},
        "seconds": {"train": 360.2},
        "languages": {"en": {"n": 1234, "token_accuracy": 0.6123, "token_accuracy_se": 0.0101}},
        "examples": [{"original": "a | b\nc", "recovered": "a", "confidence": 0.5, "probability": None}],
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
        "baseline: one fixed text, without a vector",
    ]
    assert rows[0][1:] == ["61.2% ± 1.0%", "10.0% ± 2.0%", "70.0% ± 1.0%", "31.9 ± 1.3", "0.876 ± 0.002"]
    assert rows[1][-1] == "-"  # a baseline has no cosine, and no made-up one


def test_every_row_of_every_table_has_as_many_cells_as_its_header():
    text = render(report(languages={"de": report()["languages"]["en"], "en": report()["languages"]["en"]}))
    tables = table_rows(text)
    assert len(tables) == 6
    for header, *rows in tables:
        assert rows
        assert {len(row) for row in rows} == {len(header)}


def test_a_second_table_has_the_other_figures_each_in_its_unit():
    second = table_rows(render(report()))[1]
    assert second[0] == ["", "ROUGE-1", "ROUGE-L", "character error rate", "length error", "length bias"]
    assert second[1][1:] == ["65.0% ± 2.0%", "60.0% ± 2.0%", "123.4% ± 5.0%", "2.25 ± 0.12", "-0.50 ± 0.20"]
    assert len(second) == 6


def test_report_says_how_it_was_measured():
    text = render(report())
    for part in (
        "1,234 held-out texts",
        "full mask in 8 passes (strategy confidence, order margin, reveal linear;",
        "at most 31 tokens",
        "Content tokens only",
    ):
        assert part in text
    for name, meaning in DEFINITIONS.items():
        assert (meaning in text) == (name in report())


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


@pytest.mark.parametrize("steps", [(), (7,), (7, 9), (10, 20, 30, 40)], ids=str)
def test_every_validation_is_kept_by_its_step(steps):
    rows = example_rows(*steps)
    found = by_validation(rows[::-1])
    assert [moment["step"] for moment in found] == list(steps)
    assert [{"step": moment["step"], **text} for moment in found for text in moment["texts"][::-1]] == rows


def learning(text):
    """The section of a page that says how recoveries grew."""
    return text.split("## While it was learning")[1].split("Samples per second")[0]


@pytest.mark.parametrize("validations", [3, 25])
def test_report_shows_all_eight_texts_at_every_validation(validations):
    steps = range(1000, 1000 * validations + 1, 1000)
    page = learning(render(report(recoveries=by_validation(example_rows(*steps)))))
    final, *grown = table_rows(page)
    assert final[0] == ["original", f"recovered at step {validations},000"]
    assert [row[0] for row in final[1:]] == [f"{i} anna owes ben two¦three coins" for i in range(8)]
    assert len(grown) == page.count("<details>\n<summary>") == page.count("</details>\n") == 8
    for header, *rows in grown:
        assert header == ["step", "recovered"]
        assert [row[0] for row in rows] == [f"{step:,}" for step in steps]
        assert [row[1] for row in rows[:3]] == ["anna", "anna owes", "anna owes ben"]
    assert "recovered from a full mask at each of its validations" in page


def test_text_is_no_markup_where_it_is_folded_up():
    rows = [{"step": step, "id": 1, "original": "a <b>\n\n| & c", "recovered": "a <b>"} for step in (1, 2)]
    page = learning(render(report(recoveries=by_validation(rows))))
    assert "\n<summary>a &lt;b&gt; | &amp; c</summary>\n\n| step | recovered |\n" in page


def test_run_with_one_validation_shows_its_texts_once():
    page = learning(render(report(recoveries=by_validation(example_rows(50, texts=2)))))
    assert [table[0] for table in table_rows(page)] == [["original", "recovered at step 50"]]
    assert "<details>" not in page


def test_checkpoint_without_its_runs_examples_has_no_such_section():
    assert "While it was learning" not in render(report())
    assert "While it was learning" not in render(report(recoveries=[]))
    assert "While it was learning" in render(report(recoveries=by_validation(example_rows(1))))


def test_confidence_is_shown_against_what_came_true():
    text = render(report())
    tokens, texts = (table for table in table_rows(text) if table[0][1:] == ["predicted right", "were right"])
    assert tokens == [
        ["tokens", "predicted right", "were right"],
        ["1,500", "21.0%", "25.0%"],
        ["20", "90.0%", "80.0%"],
    ]
    assert texts[1:] == [["1,234", "10.0%", "12.0%"]]
    assert "calibration error 0.031 ± 0.004" in text and "calibration error of texts 0.019 ± 0.005" in text


def test_confidence_that_was_not_calibrated_has_no_section():
    without = {name: value for name, value in report().items() if "calibration" not in name}
    text = render(without | {"reliability": {}})
    assert "confidence is worth" not in text and "calibration error" not in text


def test_example_shows_its_probability_where_there_is_one():
    example = {"original": "a", "recovered": "b", "confidence": 0.5, "probability": 0.125}
    *_, table = (table for table in table_rows(render(report(examples=[example]))) if table[0][0] == "original")
    assert table[1] == ["a", "b", "0.50", "0.12"]


def test_perplexity_is_told_with_the_model_that_was_asked():
    told = {
        "perplexity": 1234.56,
        "perplexity_se": 78.9,
        "perplexity_of_originals": 98.7,
        "perplexity_of_originals_se": 5.4,
    }
    text = render(report(**told, settings={"language_model": "someone/gpt"}))
    assert "Under someone/gpt: perplexity 1,234.6 ± 78.9, perplexity of the originals 98.7 ± 5.4." in text
    assert "perplexity 1" not in render(report())


# --- tables of the ways of decoding, of lengths and entities


def row(accuracy, **columns):
    return {"n": 200, "token_accuracy": accuracy, "token_accuracy_se": 0.01, "milliseconds": 12.345} | columns


def test_ways_stand_by_strategy_and_passes_and_a_gap_is_a_dash():
    sweep = [
        row(0.5, strategy="confidence", passes=8),
        row(0.25, strategy="confidence", passes=1),
        row(0.4, strategy="euler", passes=8, milliseconds=4.0),
    ]
    title, header, rows = tables(report(sweep=sweep))["sweep"]
    assert title == "Tokens right by strategy and passes, and ms a text (200 texts)"
    assert header == ["strategy", "1 pass", "8 passes"]
    assert rows == [
        ["confidence", "25.0% ± 1.0%, 12.3 ms", "50.0% ± 1.0%, 12.3 ms"],
        ["euler", "-", "40.0% ± 1.0%, 4 ms"],
    ]


def test_every_other_table_is_there_with_its_data_alone():
    whole = {
        "sweep": [row(0.5, strategy="euler", passes=8)],
        "by_strategy_and_language": {"euler": {"de": row(0.25), "en": row(0.5)}, "confidence": {"en": row(0.75)}},
        "remasking": [row(0.5, strategy="remasking", passes=8, remasking_rate=0.05)],
        "by_length": [row(0.5, shortest=3, longest=9)],
        "entities": {"PERSON": {"n": 1200, "entity_recall": 0.125, "entity_recall_se": 0.01}},
        "milestones": [row(0.5, step=25_000)],
    }
    found = tables(report(**whole))
    assert found.keys() == whole.keys()
    assert tables(report()) == {}
    assert found["by_strategy_and_language"][1:] == (
        ["strategy", "de", "en"],
        [["euler", "25.0% ± 1.0%", "50.0% ± 1.0%"], ["confidence", "-", "75.0% ± 1.0%"]],
    )
    assert found["remasking"][2] == [["0.05", "8", "50.0% ± 1.0%, 12.3 ms"]]
    assert found["by_length"][2] == [["3 to 9", "200", "50.0% ± 1.0%"]]
    assert found["entities"][2] == [["PERSON", "1,200", "12.5% ± 1.0%"]]
    assert found["milestones"][2] == [["25,000", "200", "50.0%"]]
    text = render(report(**whole))
    for title, header, _ in found.values():
        assert f"## {title}\n\n| {' | '.join(header)} |" in text


def test_texts_that_were_left_out_and_gaps_are_told():
    held_out = {"sampled": 2000, "same": 1, "alike": 23, "threshold": 0.8}
    text = render(report(held_out=held_out, **{"accuracy_at_10%_mask": 0.953, "accuracy_at_10%_mask_se": 0.001}))
    assert (
        "Of 2,000 held-out texts, 1 were left out since a training text is the same, and 23 since one is nearly" in text
    )
    assert "similarity of their character n-grams 0.8 or more" in text
    assert "with the rest of a text in sight, which is no inversion: 95.3% (accuracy at 10% mask)." in text


def test_entities_stand_beside_the_other_figures_where_they_are_labelled():
    header, rows = figure_table(report(entity_recall=0.25, entity_recall_se=0.01))
    assert header[-2:] == ["entities found", "cosine"]
    assert rows[0][-2] == "25.0% ± 1.0%" and rows[1][-2] == "-"
