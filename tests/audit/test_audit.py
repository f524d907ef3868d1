"""embinv/audit/audit.py: the files of a report, the same bytes for the same rows, and a recount by other code."""

import json

import pyarrow.parquet as pq
import pytest

from benchmarks.audit_recount import recount
from embinv.audit import gathered
from embinv.audit.audit import write_report
from embinv.audit.settings import AuditSettings
from embinv.audit.spacing import without_accents
from embinv.data.records import generate_records
from embinv.metrics.characters import words
from tests.audit.leaks import DEFENCES, write_corpus, write_recovered

ORIGIN = {"dump": "store.parquet", "encoder": "minilm", "date": "2026-01-02", "by": "Ann"}
FILES = {"audit.json", "audit.md", "audit.html", "entities.parquet"}


def spaced(text):
    """As word pieces are written back."""
    return " ".join(
        "".join(f" {sign} " if not sign.isalnum() and sign != " " else sign for sign in text).split()
    ).lower()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Records of two languages: of some the whole text was recovered, of others a part, or somebody else's text."""
    folder = tmp_path_factory.mktemp("store")
    records = [record for lang in ("en", "de") for record in generate_records(lang, 0, 0)[:60]]
    ids, texts = list(range(100, 220)), [record.text for record in records]
    labelled = [[(span.label, record.text[span.start : span.end]) for span in record.spans] for record in records]
    labels = write_corpus(folder / "texts", ids, texts, labelled)
    said = [
        spaced(text)
        if place % 3 == 0
        else spaced(text[: len(text) // 2])
        if place % 3 == 1
        else spaced(texts[place - 1])
        for place, text in enumerate(texts)
    ]
    probabilities = [0.95 if place % 3 == 0 else 0.05 for place in range(len(ids))]
    metadata = [{"body": text, "lang": record.lang} for text, record in zip(texts, records, strict=True)]
    recovered = folder / "recovered"
    for name, rows in (("a", slice(0, 50)), ("b", slice(50, None))):
        write_recovered(
            recovered / f"{name}.parquet",
            said[rows],
            ids=ids[rows],
            probabilities=probabilities[rows],
            metadata=metadata[rows],
        )
    return recovered, labels, texts


@pytest.fixture(scope="module")
def written(store, tmp_path_factory):
    recovered, labels, _ = store
    out, seen = tmp_path_factory.mktemp("out") / "report", []
    made = write_report(
        [recovered],
        out,
        AuditSettings(text_column="body"),
        origin=ORIGIN,
        labels=labels,
        defences=DEFENCES,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    return out, made, seen


def test_a_report_is_four_files_and_nothing_else_and_its_json_is_what_was_returned(written):
    out, made, seen = written
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "audit.json").read_text()) == made
    assert seen == [(50, 120), (120, 120)] and made["rows"] == made["sampled"] == 120


def test_the_same_rows_give_the_same_bytes(written, store, tmp_path):
    out, _, _ = written
    recovered, labels, _ = store
    settings = AuditSettings(text_column="body")
    write_report([recovered], tmp_path, settings, origin=ORIGIN, labels=labels, defences=DEFENCES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_the_rate_of_entities_is_that_of_a_recount_by_other_code(written, store):
    out, made, _ = written
    recovered, labels, _ = store
    found = recount(out, recovered, labels, "body")
    assert found["difference"] == 0 and found["entities_differ_by"] == 0 and found["recall_differs_by"] == 0
    assert 0.3 < made["entities"]["recall"] < 0.9


def test_what_was_expected_and_what_was_found_are_of_the_rows(written):
    leakage = written[1]["leakage"]
    assert leakage["by_probability"]["expected"] == pytest.approx(40 * 0.95 + 80 * 0.05, abs=1e-4)
    assert leakage["by_comparison"]["n"] == 120 and leakage["by_comparison"]["nearly_right_count"] >= 40
    assert leakage["by_probability"]["nearly_sure"] == 40 and leakage["agreement"]["agrees"] is True


def test_no_labelled_value_stands_in_a_redacted_report(written, store):
    out, made, _ = written
    surfaces = {
        row["surface"] for row in pq.read_table(out / "entities.parquet").to_pylist() if row["kind"] == "PERSON"
    }
    assert len(made["examples"]) == 10 and len(surfaces) > 20 and made["revealed"] is False
    for name in ("audit.json", "audit.md", "audit.html"):
        text = (out / name).read_text().casefold()
        assert not [surface for surface in surfaces if surface.casefold() in text]


NAMES = {
    "without accents": ("García", [("PERSON", "García")], "garcía garcia"),
    "of a company too": ("Schmidt of Schmidt GmbH", [("PERSON", "Schmidt"), ("COMPANY", "Schmidt GmbH")], "schmidt"),
}


@pytest.mark.parametrize(("said", "entities", "names"), NAMES.values(), ids=NAMES)
def test_no_word_of_a_name_that_many_texts_hold_is_in_a_redacted_report(tmp_path, said, entities, names):
    texts = [f"{said} called the clinic about pills"] * 12 + ["the bank moved the money of an account"] * 12
    labelled = [entities] * 12 + [[]] * 12
    labels = write_corpus(tmp_path / "texts", list(range(24)), texts, labelled)
    recovered = write_recovered(tmp_path / "a.parquet", [without_accents(text).lower() for text in texts])
    made = write_report([recovered], tmp_path / "out", AuditSettings(topics=2), origin={}, labels=labels)
    assert {"clinic", "bank"} <= {term for topic in made["topics"] for term in topic["terms"]}
    assert any("called the clinic" in each["recovered"] for each in made["examples"])
    for name in ("audit.json", "audit.md", "audit.html"):
        assert not set(names.split()) & set(words((tmp_path / "out" / name).read_text())), name


def test_revealed_examples_are_the_texts_that_were_recovered_best(store, tmp_path):
    recovered, labels, texts = store
    settings = AuditSettings(text_column="body", reveal=True, examples=3)
    made = write_report([recovered], tmp_path, settings, origin=ORIGIN, labels=labels)
    assert made["revealed"] is True and len(made["examples"]) == 3
    assert all(each["nearly_right"] and each["original"] in texts for each in made["examples"])
    assert "in clear. On 2026-01-02. By Ann." in (tmp_path / "audit.html").read_text()


def test_without_originals_and_labels_a_report_says_what_it_can(store, tmp_path):
    recovered, _, _ = store
    (tmp_path / "entities.parquet").write_text("of an earlier report")
    made = write_report([recovered], tmp_path, AuditSettings(), origin={})
    assert made["entities"] is None and made["leakage"]["by_comparison"] is None
    assert made["leakage"]["by_probability"]["n"] == 120
    assert all(each["original"] is None for each in made["examples"])
    assert all(row["confirmed"] is None for row in made["personal_data"])
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"entities.parquet"}


@pytest.mark.parametrize("ids", [["ann@example.com", "bob@example.com"], [4915112345678, 4915112345679]])
def test_an_id_is_told_only_when_all_is_revealed(tmp_path, ids):
    path = write_recovered(tmp_path / "a.parquet", ["one text", "another text"], ids=ids)
    hidden = write_report([path], tmp_path / "hidden", AuditSettings(k=2), origin={})
    assert hidden["examples"] and all(each["id"] is None for each in hidden["examples"])
    for name in ("audit.json", "audit.md", "audit.html"):
        assert not [number for number in ids if str(number) in (tmp_path / "hidden" / name).read_text()]
    shown = write_report([path], tmp_path / "shown", AuditSettings(reveal=True), origin={})
    assert {each["id"] for each in shown["examples"]} == set(ids)


def test_figures_are_over_all_rows_where_texts_are_kept_of_a_sample(store, tmp_path, monkeypatch):
    recovered, labels, _ = store
    whole = write_report([recovered], tmp_path / "a", AuditSettings(text_column="body"), origin={}, labels=labels)
    monkeypatch.setattr(gathered, "SAMPLE", 30)
    part = write_report([recovered], tmp_path / "b", AuditSettings(text_column="body"), origin={}, labels=labels)
    assert part["sampled"] == 30 and any("30 of 120 rows" in sentence for sentence in part["limits"])
    assert part["entities"] == whole["entities"] and part["personal_data"] == whole["personal_data"]
    assert part["leakage"]["by_probability"] == whole["leakage"]["by_probability"]


def test_a_text_column_that_no_row_has_is_refused_and_nothing_is_written(store, tmp_path):
    recovered, _, _ = store
    with pytest.raises(ValueError, match="--text-column summary: no row"):
        write_report([recovered], tmp_path, AuditSettings(text_column="summary"), origin={})
    assert list(tmp_path.iterdir()) == []


def test_a_text_column_that_no_row_has_is_refused_though_labels_know_the_texts(store, tmp_path):
    recovered, labels, _ = store
    with pytest.raises(ValueError, match="--text-column summary: no row"):
        write_report([recovered], tmp_path, AuditSettings(text_column="summary"), origin={}, labels=labels)
    assert list(tmp_path.iterdir()) == []


def test_vectors_without_a_text_change_no_figure_and_are_counted(store, tmp_path):
    recovered, labels, _ = store
    missing = {"ids": [1, 2], "metadata": [{"body": "Ann left", "lang": "en"}] * 2, "probabilities": [0.5, None]}
    extra = write_recovered(tmp_path / "more.parquet", [None, None], **missing)
    settings, seen = AuditSettings(text_column="body"), []
    said = {"origin": {}, "labels": labels}
    without = write_report([recovered], tmp_path / "a", settings, **said)
    made = write_report(
        [recovered, extra], tmp_path / "b", settings, **said, on_progress=lambda *done: seen.append(done)
    )
    assert (made["rows"], made["without_text"], seen[-1]) == (120, 2, (122, 122))
    assert made["summary"].pop().startswith("2 vectors could not be inverted")
    assert made | {"without_text": 0} == without
    with pytest.raises(ValueError, match="none of its 2 rows has a text"):
        write_report([extra], tmp_path / "c", settings, origin={})
    assert list((tmp_path / "c").iterdir()) == []


def test_files_without_rows_are_refused(tmp_path):
    path = write_recovered(tmp_path / "a.parquet", [], ids=[])
    with pytest.raises(ValueError, match="--recovered .*holds no rows"):
        write_report([path], tmp_path / "out", AuditSettings(), origin={})


@pytest.mark.parametrize(
    "wrong", [{"k": 1}, {"topics": 0}, {"examples": -1}, {"languages": ["english"]}, {"languages": []}, {"other": 1}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AuditSettings(**wrong)
