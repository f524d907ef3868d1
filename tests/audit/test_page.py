"""embinv/audit/page.py: what the page is made of, read with html.parser."""

import re
from html.parser import HTMLParser

import pytest

from embinv.audit.page import page
from embinv.audit.sweep import DEFINITIONS
from embinv.audit.tables import DEFINED
from embinv.evaluation.drawing import COLORS
from tests.audit.leaks import DEFENCES, bare_report, example, parts, report

VOID = {"meta", "br", "hr", "img", "input", "link"}
EVIL = '"><script>alert(1)</script>&<b>'


class Reader(HTMLParser):
    """Elements and the text in them; what is opened must be closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, "text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        assert self.open and self.open.pop()["tag"] == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag):
        return [element for element in self.elements if element["tag"] == tag]


@pytest.fixture(scope="module")
def whole():
    return page(report())


def test_page_is_well_formed_and_needs_nothing_from_elsewhere(whole):
    reader = Reader(whole)
    assert not reader.all("script") and not reader.all("link") and not reader.all("img")
    assert not re.search(r"url\((?!#)", whole) and "@import" not in whole
    ids = [element["id"] for element in reader.elements if "id" in element]
    assert len(ids) == len(set(ids))
    links = [element["href"] for element in reader.all("a")]
    assert all(link[1:] in ids for link in links if link.startswith("#"))
    assert {link for link in links if not link.startswith("#")} == {each["url"] for each in report()["references"]}


def test_the_page_can_be_read_without_seeing_it(whole):
    reader = Reader(whole)
    assert reader.all("html")[0]["lang"] == "en" and len(reader.all("h1")) == 1
    assert all(element["aria-label"] for element in reader.all("svg")) and len(reader.all("svg")) == 5
    assert all(element["scope"] in {"col", "row"} for element in reader.all("th"))
    assert len(reader.all("caption")) == len(reader.all("table")) == 7


def test_the_page_has_colours_for_dark_paper_and_a_form_for_print(whole):
    dark = whole[whole.index("prefers-color-scheme: dark") :]
    assert all(f"{name}:" in dark for name in COLORS.values()) and "@media print" in whole


def test_sections_stand_only_where_their_data_is(whole):
    headings = {element["text"] for element in Reader(page(bare_report())).all("h2")}
    assert headings == {"Summary", "What to do", "Limits", "References", "Settings"}
    more = {element["text"] for element in Reader(whole).all("h2")} - headings
    assert {"Labelled values", "Personal data", "Topics", "Examples", "Defences"} < more


def test_every_text_from_outside_is_escaped():
    evil = report(
        origin={EVIL: EVIL, "dump": EVIL, "date": EVIL, "by": EVIL},
        recognition={EVIL: [EVIL]},
        settings=parts()["settings"] | {"reveal": True, "text_column": EVIL},
        examples=[example(id=EVIL, recovered=EVIL, original=EVIL, lang=EVIL), example(recovered=EVIL, original=None)],
        topics=[{"terms": [EVIL], "n": 4, "share": 0.4, "given_away": None, "given_away_se": None}],
        entities=parts()["entities"] | {"by_kind": {EVIL: parts()["entities"]["by_kind"]["PERSON"]}},
        personal_data=[parts()["personal_data"][0] | {"kind": EVIL}],
        defences={"rows": [parts()["defences"]["rows"][0] | {"defence": EVIL, "setting": EVIL}]},
    )
    html = page(evil)
    assert "<script" not in html and "<b>" not in html and html.count("&lt;script&gt;") > 10
    Reader(html)


def test_revealed_examples_are_announced_with_date_and_person_and_redacted_ones_are_not(whole):
    revealed = page(report(settings=parts()["settings"] | {"reveal": True}))
    (alert,) = [element for element in Reader(revealed).all("p") if element.get("class") == "alert"]
    assert "in clear" in alert["text"] and "On 2026-01-02." in alert["text"] and "By Ann." in alert["text"]
    assert 'class="alert"' not in whole and "Blocks hide" in whole


def test_examples_mark_what_differs(whole):
    assert "<del>carl</del>" in whole and "<ins>ben</ins>" in whole and "1 of 2" in whole


def test_a_value_that_is_not_known_is_said_to_be_missing_and_never_0(whole):
    assert "not measured" in whole
    rows = [element["text"] for element in Reader(whole).all("tr")]
    assert any(row.startswith("int8") and "not measured" in row for row in rows)


def test_defences_say_what_they_were_measured_on_and_what_their_columns_mean(whole):
    said = [element["text"] for element in Reader(whole).all("li")]
    assert (
        "Measured on 300 held-out pairs of text and vector of the encoder minilm, not on the vectors of this dump; the "
        "attackers have 5,000 texts of their own." in said
    )
    assert "Product 16 is left out: no divisor of 24 dimensions." in said
    assert f"nDCG@10: {DEFINITIONS['ndcg_at_10']}." in said
    headers = {element["text"] for element in Reader(whole).all("th")}
    assert set(DEFINED) - {"token F1"} <= headers
    assert "Measured on" not in page(report(defences={"rows": DEFENCES["rows"]}))


def test_the_same_report_gives_the_same_bytes(whole):
    assert page(report()) == whole
