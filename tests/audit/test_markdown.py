"""embinv/audit/markdown.py: the same report as Markdown, in which texts from outside stay texts."""

import re

from embinv.audit.markdown import markdown, plain_text
from tests.audit.leaks import bare_report, example, parts, report


def test_every_part_of_the_report_stands_under_its_heading():
    lines = markdown(report()).splitlines()
    headings = [line[3:] for line in lines if line.startswith("## ")]
    assert headings == [
        "Summary",
        "Which encoder made the vectors",
        "How many vectors give their text away",
        "Labelled values",
        "Personal data",
        "Topics",
        "Examples",
        "Defences",
        "A secret rotation",
        "What to do",
        "Limits",
        "References",
        "Settings",
    ]
    assert "| PERSON | 3 | 3 | 1 | 33.3% ± 20.0% |" in lines
    assert "| 100 | 15.0% ± 1.0% | 20.0% |" in lines


def test_parts_without_data_have_no_heading():
    text = markdown(bare_report())
    assert "## Examples" not in text and "## Topics" not in text and "## Limits" in text


def test_defences_say_what_they_were_measured_on_and_what_their_columns_mean():
    lines = markdown(report()).splitlines()
    defences = lines[lines.index("## Defences") : lines.index("## What to do")]
    (measured,) = [line for line in defences if line.startswith("- Measured on 300 held-out pairs")]
    assert "not on the vectors of this dump" in measured and "5,000 texts of their own" in measured
    assert any(line.startswith("- token F1, worst: ") for line in defences)
    assert any(line.startswith("- share of the undefended F1: ") for line in defences)


def test_every_row_of_a_table_has_as_many_cells_as_its_header():
    rows, width = 0, None
    for line in markdown(report()).splitlines():
        if not line.startswith("|"):
            width = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        width = width or cells
        assert cells == width
        rows += 1
    assert rows > 15


def test_texts_from_outside_cannot_become_markup():
    evil = "<img src=x> [a](http://x) | `code` **b** # \\ &amp; \n# heading\n- item"
    text = plain_text(evil)
    assert "<" not in text and "\n" not in text and "\\[a\\]" in text and "\\|" in text and "\\*\\*" in text
    made = markdown(report(examples=[example(recovered=evil, original=evil)], origin={"dump": evil}))
    assert "<img" not in made and "\n# heading" not in made and "\n- item" not in made


def test_revealing_is_announced():
    assert "> **Revealed" not in markdown(report())
    assert "> **Revealed" in markdown(report(settings=parts()["settings"] | {"reveal": True}))


def test_the_same_report_gives_the_same_bytes():
    assert markdown(report()) == markdown(report())
