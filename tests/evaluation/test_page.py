"""embinv/evaluation/page.py: what the page is made of, read with html.parser."""

import re
from html.parser import HTMLParser

import pyarrow as pa
import pytest

from embinv.evaluation.document import CSS
from embinv.evaluation.drawing import COLORS
from embinv.evaluation.page import page
from embinv.evaluation.report import BASELINES, MORE, NAMES, figure_table

VOID = {"meta", "br", "hr", "img", "input", "link"}
FIGURES = {name + end: value for name in NAMES | MORE for end, value in (("", 0.6123), ("_se", 0.0123))}
SECTIONS = {
    "sweep": "quality-passes-and-time",
    "by_position": "where-it-is-right",
    "by_length": "where-it-is-right",
    "milestones": "while-it-was-learning",
}
GROWN = {
    "sweep": [
        {"strategy": "confidence", "passes": passes, "milliseconds": 2.5 * passes, "token_accuracy": accuracy}
        | {"token_accuracy_se": 0.011, "n": 200}
        for passes, accuracy in ((1, 0.4021), (8, 0.6123))
    ],
    "by_position": [{"position": 1, "n": 1234, "token_accuracy": 0.9012, "token_accuracy_se": 0.0211}],
    "by_length": [{"shortest": 3, "longest": 9, "n": 321, "token_accuracy": 0.7034, "token_accuracy_se": 0.0311}],
    "milestones": [{"step": 25_000, "n": 500, "token_accuracy": 0.5056, "token_accuracy_se": 0.0411}],
    "languages": {
        "de": {"n": 34, "token_accuracy": 0.3078, "token_accuracy_se": 0.0511},
        "en": {"n": 1200, "token_accuracy": 0.6178, "token_accuracy_se": 0.0611},
    },
    "reliability": {
        "token": [{"n": 1500, "predicted": 0.21, "observed": 0.25}, {"n": 20, "predicted": 0.9, "observed": 0.8}],
        "text": [{"n": 1234, "predicted": 0.1, "observed": 0.12}],
    },
    "calibration_error": 0.0312,
    "calibration_error_se": 0.0041,
}


def report(**changes):
    baseline = {name: value for name, value in FIGURES.items() if not name.startswith("cosine")}
    return {
        "name": "minilm",
        "encoder": "someone/encoder",
        "n": 1234,
        "strategy": "confidence",
        "steps": 8,
        "seq_len": 32,
        **FIGURES,
        "baselines": dict.fromkeys(BASELINES, baseline),
        "reliability": {},
        "languages": {"en": {"n": 1234, "token_accuracy": 0.6123, "token_accuracy_se": 0.0101}},
        "definitions": {
            "token_accuracy": "share of <tokens>",
            "calibration_error": "how far off",
            "exact_match": "all",
        },
    } | changes


def scores(count=50, original="the cat sat", recovered="the dog sat", lang="en", **columns):
    """Texts whose confidence falls from row to row, each with its number in it."""
    return pa.table(
        {
            "id": pa.array([7 * number % 101 for number in range(count)], pa.int64()),
            "lang": [lang] * count,
            "original": [f"{original} {number}" for number in range(count)],
            "recovered": [f"{recovered} {number}" for number in range(count)],
            "confidence": [1 - number / 100 for number in range(count)],
            "probability": pa.array([None if number % 2 else number / 100 for number in range(count)], pa.float64()),
            **columns,
        }
    )


class Reader(HTMLParser):
    """The elements of a page in their order, each with its attributes and its text; fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert len(attributes) == len(dict(attributes)), f"<{tag}> has an attribute twice"
        element = {"tag": tag, "text": "", "inside": [each["tag"] for each in self.open], **dict(attributes)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        assert "svg" in [each["tag"] for each in self.open], f"<{tag}/> closes itself only inside of <svg>"
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop()["tag"] == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]

    def tables(self):
        """Cells of each table, row by row, by its caption."""
        found, rows = {}, None
        for element in self.all("caption", "tr", "th", "td"):
            if element["tag"] == "caption":
                rows = found[element["text"]] = []
            elif element["tag"] == "tr":
                rows.append([])
            else:
                rows[-1].append(element["text"])
        return found

    def examples(self):
        """Terms and what stands beside them, of each example."""
        found = []
        for element in self.all("li", "dt", "dd"):
            if "ol" not in element["inside"]:
                continue
            if element["tag"] == "li":
                found.append({})
            elif element["tag"] == "dt":
                term = element["text"]
            else:
                found[-1][term] = element["text"]
        return found


@pytest.fixture(scope="module")
def whole():
    return page(report(**GROWN), scores())


@pytest.fixture(scope="module")
def plain():
    return page(report(), scores())


def test_page_is_well_formed_and_needs_nothing_from_elsewhere(whole):
    reader = Reader(whole)
    tags = {element["tag"] for element in reader.elements}
    assert not tags & {"script", "link", "iframe", "img", "object", "embed"}
    for element in reader.elements:
        assert element.get("href", "#").startswith("#") and "src" not in element
        assert not [name for name in element if name.startswith("on")]
    assert "http" not in whole and "@import" not in whole and not re.search(r"url\((?!#)", whole)
    ids = [element["id"] for element in reader.elements if "id" in element]
    assert len(ids) == len(set(ids))
    assert {element["href"][1:] for element in reader.elements if "href" in element} <= set(ids)


def test_every_figure_and_table_says_what_it_is(whole):
    reader = Reader(whole)
    assert len(reader.all("svg")) == len(reader.all("figure")) == len(reader.all("figcaption")) == 7
    assert all(element["role"] == "img" and len(element["aria-label"]) > 20 for element in reader.all("svg"))
    assert all(element["text"] for element in reader.all("figcaption", "caption", "summary"))
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert all(element["scope"] in {"col", "row"} and element["text"] for element in reader.all("th"))
    for element in reader.all("div"):
        if element["class"] == "scroll":
            assert element["tabindex"] == "0" and element["aria-label"]
    for header, *rows in reader.tables().values():
        assert rows and {len(row) for row in rows} == {len(header)}


def test_page_is_readable_on_a_phone_in_the_dark_and_on_paper(whole):
    assert '<html lang="en">' in whole and 'name="viewport"' in whole
    dark = CSS.split("prefers-color-scheme: dark")[1].split("}")[0]
    assert all(f"{variable}: #" in dark for variable in COLORS.values())
    assert "@media screen and (prefers-color-scheme: dark)" in CSS and "@media print" in CSS


def test_page_says_what_was_measured(plain):
    text = Reader(plain).all("header")[0]["text"]
    for part in (
        "1,234 held-out texts of someone/encoder",
        "a full mask in 8 passes (strategy confidence, at most 31 tok",
    ):
        assert part in text
    assert "Content tokens only" in text and "± is the standard error over texts" in text
    assert "in 1 pass (" in page(report(steps=1), scores(1))


def test_numbers_are_the_reports(whole):
    tables = Reader(whole).tables()
    for caption, names in (("What was recovered, beside baselines", NAMES), ("The other figures", MORE)):
        header, rows = figure_table(report(), names)
        said = [
            [cell.strip("*").replace("-", "–not measured") if cell == "-" else cell for cell in row] for row in rows
        ]
        said[0][0] = "recovered from the vector"
        assert tables[caption] == [header, *said]
    assert tables["Tokens right by strategy and passes, and ms a text (200 texts)"] == [
        ["strategy", "1 pass", "8 passes"],
        ["confidence", "40.2% ± 1.1%, 2.5 ms", "61.2% ± 1.1%, 20 ms"],
    ]
    assert tables["tokens right by position"][1:] == [["1", "1,234", "90.1% ± 2.1%"]]
    assert tables["tokens right by length"][1:] == [["3–9", "321", "70.3% ± 3.1%"]]
    assert tables["tokens right by language"][1:] == [["de", "34", "30.8% ± 5.1%"], ["en", "1,200", "61.8% ± 6.1%"]]
    assert tables["tokens right by step"][1:] == [["25,000", "50.6% ± 4.1%"]]
    assert tables["reliability of tokens"][1:] == [["21.0%", "25.0%", "1,500"], ["90.0%", "80.0%", "20"]]
    assert "Of tokens: calibration error 0.031 ± 0.004." in whole


def test_section_without_data_is_absent(plain, whole):
    bare = [element["id"] for element in Reader(plain).all("section")]
    assert bare == ["figures", "examples", "definitions"]
    for name, section in SECTIONS.items():
        ids = [element["id"] for element in Reader(page(report(**{name: GROWN[name]}), scores(1))).all("section")]
        assert ids == ["figures", section, "examples", "definitions"]
    reader = Reader(whole)
    assert len(reader.all("section")) == 7
    links = [element["href"] for element in reader.all("a")]
    assert links == [f"#{element['id']}" for element in reader.all("section")]
    assert "examples" not in [element["id"] for element in Reader(page(report(), scores(0))).all("section")]


def test_what_is_missing_is_not_shown_as_zero():
    less = {name: value for name, value in report().items() if name not in MORE and not name.startswith("cosine")}
    text = page(less | {"by_position": [{"position": 1, "n": 5, "token_accuracy": None}]}, scores(2))
    reader = Reader(text)
    assert reader.tables()["What was recovered, beside baselines"][0] == ["", *list(NAMES.values())[:-1]]
    assert "The other figures" not in reader.tables()
    assert "The cosine is left out" in text
    assert reader.tables()["tokens right by position"][1] == ["1", "5", "–not measured"]
    assert not reader.all("svg")
    with_null, without = sorted(reader.examples(), key=len, reverse=True)
    assert with_null["probability"] == "0.00" and "probability" not in without and "tokens right" not in without


@pytest.mark.parametrize("missing", ["baselines", "n", "steps", "encoder"])
def test_report_without_what_makes_it_honest_is_no_page(missing):
    with pytest.raises(KeyError, match=missing):
        page({name: value for name, value in report().items() if name != missing}, scores(1))


def test_definitions_are_of_the_figures_at_hand(plain, whole):
    terms = [element["text"] for element in Reader(plain).all("dt") if "ol" not in element["inside"]]
    assert terms == ["tokens right", "whole texts right", "confidence", "probability"]
    assert "share of &lt;tokens&gt;" in plain
    assert "how far off" in whole and "how far off" not in plain


def test_same_report_gives_the_same_bytes(whole):
    assert page(report(**GROWN), scores()) == whole


def numbers(text):
    return [int(example["original"].split()[-1]) for example in Reader(text).examples()]


def test_examples_depend_on_the_seed_alone_and_are_not_sorted_by_quality(plain):
    chosen = numbers(plain)
    assert len(chosen) == len(set(chosen)) == 20
    assert chosen not in (sorted(chosen), sorted(chosen, reverse=True))
    assert numbers(page(report(n=9, token_accuracy=0.1), scores(confidence=[0.5] * 50))) == chosen
    assert numbers(page(report(), scores().take(list(range(49, -1, -1))))) == chosen
    assert numbers(page(report(), scores(), seed=1)) != chosen
    assert "20 of 50 texts, chosen at random with seed 0" in plain
    assert "3 of 50 texts, chosen at random with seed 4" in page(report(), scores(), examples=3, seed=4)
    assert sorted(numbers(page(report(), scores(5)))) == [0, 1, 2, 3, 4]


def test_example_shows_text_trust_and_the_share_that_is_right():
    columns = {"token_accuracy.part": [3.0], "token_accuracy.whole": [4.0]}
    text = page(report(), scores(1, **columns))
    [example] = Reader(text).examples()
    assert list(example) == ["original", "recovered", "confidence", "probability", "tokens right"]
    assert list(example.values()) == ["the cat sat 0", "the dog sat 0", "1.00", "0.00", "3 of 4 (75.0%)"]
    assert "the <del>cat</del> sat 0" in text and "the <ins>dog</ins> sat 0" in text
    for tag in ("del", "ins"):
        assert re.search(rf"^{tag} {{[^}}]*text-decoration: underline", CSS, re.MULTILINE)  # not by colour alone


def test_hostile_text_comes_out_escaped_and_keeps_its_direction_to_itself():
    hostile = '</bdi><script>alert("1")</script>&amp; \' \x00\x07\x85\u202eשלום\u2067\r\n<!--'
    sweep = [{**GROWN["sweep"][0], "strategy": hostile}]
    strange = scores(2, original=hostile, recovered=hostile[::-1], lang='" onclick="x')
    text = page(report(name=hostile, encoder=hostile, strategy=hostile, sweep=sweep), strange)
    reader = Reader(text)
    assert not reader.all("script")
    assert not [sign for sign in text if sign in "\x00\x07\x85\r\u202e\u2067"]
    said = '</bdi><script>alert("1")</script>&amp; \' ⟨U+0000⟩⟨U+0007⟩⟨U+0085⟩⟨U+202E⟩שלום⟨U+2067⟩\n<!--'
    assert sorted(example["original"] for example in reader.examples()) == [f"{said} 0", f"{said} 1"]
    assert len(reader.all("bdi")) == 4 and not [element for element in reader.all("bdi") if "lang" in element]
    assert {element["lang"] for element in Reader(page(report(), scores(1, lang="fa"))).all("bdi")} == {"fa"}


def test_text_of_which_nothing_was_recovered_is_said_to_be_empty():
    nothing = scores(1).drop_columns("recovered").append_column("recovered", [[""]])
    [example] = Reader(page(report(), nothing)).examples()
    assert example["recovered"] == "(an empty text)"
