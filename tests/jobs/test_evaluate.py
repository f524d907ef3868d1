import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embinv.evaluation.evaluate
import jobs.evaluate
from embinv.calibration import Calibrations
from embinv.config import EvaluationSettings
from embinv.data.pairs import read_pairs
from embinv.data.schema import read_recipe
from embinv.decoding.options import DecodingOptions
from embinv.decoding.strategies import STRATEGIES
from embinv.encoders.hashing import HashEncoder
from embinv.encoders.spec import EncoderSpec
from embinv.evaluation.report import figure_table
from jobs.corpus import SHARD_SCHEMA
from jobs.evaluate import main, make_report
from tests.fakes import hash_spec, pairs_of, recipe_for, sentences, tiny_checkpoint, word_tokenizer, write_pairs
from tests.provenance_checks import require_provenance

FIGURES = ("token_accuracy", "exact_match", "token_f1", "bleu", "cosine")


@pytest.fixture(scope="module")
def reported(tiny_run, tiny, tiny_pairs, tmp_path_factory):
    run, _ = tiny_run
    out = tmp_path_factory.mktemp("report")
    return out, make_report(run / "checkpoint", tiny_pairs, out, tiny().evaluation, "cpu")


def test_the_report_holds_every_promised_figure(reported):
    out, report = reported
    assert json.loads((out / "report.json").read_text()) == report
    assert report["n"] == 12 and report["steps"] == 2
    for name in FIGURES:
        assert isinstance(report[name], float) and report[f"{name}_se"] >= 0
    assert all(0 <= report[name] <= 1 for name in ("token_accuracy", "exact_match", "token_f1"))
    for baseline in ("zero", "shuffled", "nearest", "unconditional"):
        assert 0 <= report["baselines"][baseline]["token_accuracy"] <= 1
    assert set(report["samples_per_second"]) == {"encode", "train", "invert"}
    assert set(report["seconds"]) == {"corpus", "encode", "train", "evaluate"}
    assert len(report["examples"]) == 3
    assert require_provenance(out, "jobs/evaluate.py")["seeds"] == {"evaluation.seed": 0}


def test_checkpoint_keeps_what_its_confidence_is_worth(reported, tiny_run):
    _, report = reported
    [calibration] = Calibrations.load(tiny_run[0] / "checkpoint").fitted
    assert calibration.is_for("confidence", 2, DecodingOptions())
    assert 0 <= report["calibration_error"] <= 1 and 0 <= report["text_calibration_error"] <= 1
    assert sum(part["n"] for part in report["reliability"]["text"]) == report["n"]


def test_speeds_and_times_are_those_of_the_jobs(reported, tiny_run):
    _, report = reported
    _, record = tiny_run
    assert report["samples_per_second"]["encode"] == 123.4
    assert report["seconds"]["corpus"] == 1.5 and report["seconds"]["encode"] == 5.0
    assert report["seconds"]["train"] == record["seconds"]
    assert report["samples_per_second"]["invert"] > 0


def test_the_nearest_neighbour_beats_a_shuffle_on_near_duplicates(reported):
    """Records share templates, so a training text of similar vector shares more tokens than any other does."""
    _, report = reported
    assert report["baselines"]["nearest"]["token_f1"] > report["baselines"]["shuffled"]["token_f1"]


def test_the_page_shows_the_same_figures(reported):
    out, report = reported
    page = (out / "report.md").read_text()
    _, rows = figure_table(report)
    for row in rows:
        assert f"| {' | '.join(row)} |" in page
    assert f"{report['token_accuracy']:.1%} ± {report['token_accuracy_se']:.1%}" in page
    assert re.search(rf"^{report['n']} held-out texts", page, re.MULTILINE)
    for example in report["examples"]:
        assert example["original"].replace("|", "\\|") in page


def test_the_command_line_gives_the_same_figures(reported, tiny_run, tiny_pairs, tmp_path, capsys):
    _, report = reported
    run, _ = tiny_run
    where = ["--checkpoint", str(run / "checkpoint"), "--data", str(tiny_pairs), "--out", str(tmp_path)]
    main(where)  # as the run's own config says
    again = json.loads((tmp_path / "report.json").read_text())
    assert all(again[name] == report[name] for name in FIGURES)
    assert again["baselines"] == report["baselines"]
    assert f"{report['token_accuracy']:.1%} of tokens" in capsys.readouterr().out


def test_pairs_of_another_recipe_are_refused_by_name(tiny_run, tiny_pairs, tmp_path):
    import pyarrow.parquet as pq

    from embinv.data.schema import METADATA_KEY, read_recipe

    run, _ = tiny_run
    recipe = read_recipe(tiny_pairs)
    other = recipe.model_copy(update={"encoder": recipe.encoder.model_copy(update={"prompt": "query: "})})
    (source,) = (tiny_pairs / "split=test").glob("*.parquet")
    (tmp_path / "split=test").mkdir()
    table = pq.read_table(source).replace_schema_metadata({METADATA_KEY: other.model_dump_json().encode()})
    pq.write_table(table, tmp_path / "split=test" / "part-0.parquet")
    with pytest.raises(ValueError, match=r"encoder\.prompt: 'query: ' != None"):
        make_report(run / "checkpoint", tmp_path, tmp_path / "out", EvaluationSettings(), "cpu")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_checkpoint_is_refused(tiny_pairs, tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        make_report(tmp_path, tiny_pairs, tmp_path / "out", EvaluationSettings(), "cpu")


def test_the_report_holds_the_tables_of_ways_and_of_training(reported):
    out, report = reported
    assert {(row["strategy"], row["n"]) for row in report["sweep"]} == {(name, 4) for name in STRATEGIES}
    assert {row["passes"] for row in report["sweep"]} == {1, 2, 4, 8, 16}
    assert {row["remasking_rate"] for row in report["remasking"]} == {0.0, 0.05, 0.1, 0.2}
    assert [row["step"] for row in report["milestones"]] == [10, 20]
    assert all(row["n"] == 16 and 0 <= row["token_accuracy"] <= 1 for row in report["milestones"])
    page = (out / "report.html").read_text()
    for part in ("quality-passes-and-time", "while-it-was-learning"):
        assert f'<section id="{part}">' in page


def test_the_report_shows_what_the_runs_fixed_texts_were_recovered_as(reported, tiny_run):
    out, report = reported
    run, _ = tiny_run
    rows = [json.loads(line) for line in (run / "examples.jsonl").read_text().splitlines()]
    assert [moment["step"] for moment in report["recoveries"]] == [10, 20]
    assert [text for moment in report["recoveries"] for text in moment["texts"]] == [
        {key: row[key] for key in ("id", "original", "recovered")} for row in rows
    ]
    assert len(report["recoveries"][1]["texts"]) == 8
    page = (out / "report.md").read_text()
    assert "| original | recovered at step 20 |" in page
    learning = page[page.index("## While it was learning") :]
    assert page.count("<details>") == 8 and learning.count("\n| 10 | ") == learning.count("\n| 20 | ") == 8


def test_a_checkpoint_that_was_moved_away_from_its_run_is_measured_without_them(
    reported, tiny_run, tiny, tiny_pairs, tmp_path, in_this_process
):
    run, _ = tiny_run
    shutil.copytree(run / "checkpoint", tmp_path / "moved" / "checkpoint")
    report = make_report(tmp_path / "moved" / "checkpoint", tiny_pairs, tmp_path / "out", tiny().evaluation, "cpu")
    assert report["recoveries"] == report["milestones"] == []
    assert "While it was learning" not in (tmp_path / "out" / "report.md").read_text()


# --- a checkpoint in a folder of its own, of any kind of encoder

HASH = EncoderSpec(kind="hash", model="hash", dim=16)
OPENAI = EncoderSpec(kind="openai", base_url="http://127.0.0.1:9/v1", model="m", dim=16)


class Measured:
    """A checkpoint of 1 step and pairs of 20 and 20 texts, in a folder; `command` measures it."""

    def __init__(self, folder, spec=HASH):
        self.run, self.data, self.out = folder / "run", folder / "pairs", folder / "report"
        tokenizer = word_tokenizer(folder / "words")
        tiny_checkpoint(self.run / "checkpoint", tokenizer, spec)
        path = self.run / "checkpoint" / "config.json"
        tree = json.loads(path.read_text())
        path.write_text(json.dumps(tree | {"training": {"steps": 1, "seconds": 2.0, "samples_per_second": 3.0}}))
        pairs, recipe = pairs_of(sentences(40), tokenizer, HashEncoder(hash_spec(16))), recipe_for(tokenizer, spec)
        for split, rows in (("train", np.arange(20)), ("test", np.arange(20, 40))):
            write_pairs(self.data, recipe, pairs.take(rows), split)
        stats = {"samples_per_second": 4.0, "seconds": 5.0, "corpus": {"seconds": 6.0}}
        (self.data / "_stats.json").write_text(json.dumps(stats))
        (self.data / "_SUCCESS").touch()

    def command(self, *overrides):
        where = ["--checkpoint", str(self.run / "checkpoint"), "--data", str(self.data), "--out", str(self.out)]
        main([*where, *(part for override in overrides for part in ("--set", override))])
        return json.loads((self.out / "report.json").read_text())

    def refusal(self, *overrides):
        with pytest.raises(ValueError, match=r".+") as caught:
            self.command(*overrides)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)


@pytest.fixture
def in_this_process(monkeypatch, ray_cluster):
    """Nothing here is about workers, which take seconds to start."""
    monkeypatch.setattr(jobs.evaluate, "invert_on_workers", lambda *_: None)


@pytest.fixture
def measured(tmp_path, in_this_process):
    return Measured(tmp_path)


@pytest.fixture
def nothing_is_generated(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("generated before everything was looked at")

    monkeypatch.setattr(jobs.evaluate, "evaluate", refuse)


@pytest.mark.parametrize("spec", [HASH, OPENAI], ids=lambda spec: spec.kind)
def test_a_checkpoint_of_an_encoder_without_a_tokenizer_is_measured(tmp_path, monkeypatch, in_this_process, spec):
    if spec is OPENAI:

        class Silent:
            def encode(self, texts):
                raise ValueError("nobody answers")

        monkeypatch.setattr(jobs.evaluate, "open_told_encoder", lambda *_, **__: Silent())
    report = Measured(tmp_path, spec).command("evaluation.rows=8", "evaluation.steps=2")
    assert (report["n"], report["steps"], report["encoder"]) == (8, 2, spec.model)
    assert ("cosine" in report) == (spec is HASH)
    assert report["seconds"]["train"] == 2.0 and report["samples_per_second"]["encode"] == 4.0


def test_a_run_is_measured_as_its_config_says_and_as_overrides_say(measured):
    assert measured.command("evaluation.steps=2")["n"] == 20  # all there are, of the default's 1,000
    ours = {"rows": 6, "steps": 3, "examples": 1}
    (measured.run / "_run.json").write_text(json.dumps({"config": {"evaluation": ours}, "seconds": 77.0}))
    report = measured.command()
    assert (report["n"], report["steps"], len(report["examples"]), report["seconds"]["train"]) == (6, 3, 1, 77.0)
    report = measured.command("evaluation.rows=4")
    assert (report["n"], report["steps"]) == (4, 3)


def test_a_setting_of_another_section_is_refused(measured, nothing_is_generated):
    assert "--set model.size=large: " in measured.refusal("model.size=large")


@pytest.mark.parametrize("content", ["{", '{"config": {"evaluation": {"rowz": 5}}}'])
def test_a_broken_record_of_a_run_is_named(measured, content, nothing_is_generated):
    (measured.run / "_run.json").write_text(content)
    assert "_run.json" in measured.refusal()


@pytest.mark.parametrize("content", [None, "{"])
def test_pairs_without_statistics_are_refused_before_anything_is_generated(measured, content, nothing_is_generated):
    (measured.data / "_stats.json").unlink()
    if content is not None:
        (measured.data / "_stats.json").write_text(content)
    message = measured.refusal()
    assert "_stats.json: cannot be read" in message and "jobs/encode.py --overwrite" in message
    assert not measured.out.exists()


def test_pairs_that_are_not_whole_are_refused_before_anything_is_generated(measured, nothing_is_generated):
    (measured.data / "_SUCCESS").unlink()
    assert "the job that writes there has not finished" in measured.refusal()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_generated(measured, nothing_is_generated):
    measured.out = measured.data / "_stats.json" / "report"
    assert f"{measured.out}: cannot be written (Not a directory)" in measured.refusal()


def test_a_disk_that_is_full_at_the_end_is_told_and_leaves_the_older_report_whole(measured, monkeypatch):
    measured.command("evaluation.rows=4", "evaluation.steps=1")
    older = {path.name: path.read_bytes() for path in measured.out.iterdir()}
    assert older.keys() == {"report.md", "report.html", "report.json", "texts.parquet", "provenance.json"}
    del older["provenance.json"]  # which says of the run that failed, too

    def full(table, path):
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(pq, "write_table", full)
    assert "cannot be written (No space left on device); free some space" in measured.refusal("evaluation.rows=5")
    assert {path.name: path.read_bytes() for path in measured.out.iterdir() if path.name in older} == older


def test_probabilities_are_left_out_and_said_so_where_there_is_nothing_to_fit_them_on(measured, capsys):
    report = measured.command("evaluation.rows=4", "evaluation.steps=2")
    assert "calibration_error" not in report and report["examples"][0]["probability"] is None
    assert "probabilities are left out: " in capsys.readouterr().out
    assert not (measured.run / "checkpoint" / "calibration.json").exists()


def test_a_calibration_is_fitted_once_on_the_validation_texts(measured, monkeypatch):
    shutil.copytree(measured.data / "split=test", measured.data / "split=validation")
    overrides = ("evaluation.rows=4", "evaluation.steps=2", "evaluation.calibration_rows=7")
    first = measured.command(*overrides)
    [kept] = Calibrations.load(measured.run / "checkpoint").fitted
    assert kept.rows == 7
    monkeypatch.setattr(embinv.evaluation.evaluate, "calibrate", lambda *_: pytest.fail("fitted twice"))
    second = measured.command(*overrides)
    assert second["calibration_error"] == first["calibration_error"]


def test_a_language_model_that_cannot_be_read_is_refused_before_anything_is_generated(measured, nothing_is_generated):
    told = measured.refusal(f"evaluation.language_model={measured.out}/none")
    assert told.startswith(f"the language model '{measured.out}/none' cannot be used: ")


def test_held_out_texts_that_training_holds_are_left_out_and_counted(measured):
    known = pairs_of(sentences(40)[:3], word_tokenizer(measured.data.parent / "again"), HashEncoder(hash_spec(16)))
    write_pairs(measured.data, read_recipe(measured.data), known, "test", "known.parquet")
    report = measured.command("evaluation.steps=1", "evaluation.sweep_rows=0")
    assert report["held_out"]["sampled"] == 23 and report["held_out"]["same"] >= 3
    assert report["n"] == 23 - report["held_out"]["same"] - report["held_out"]["alike"]
    assert "Of 23 held-out texts, " in (measured.out / "report.md").read_text()


def test_labelled_spans_of_the_corpus_are_looked_for(measured, tmp_path):
    test = read_pairs(measured.data, "test")
    corpus = tmp_path / "texts"
    corpus.mkdir()
    spans = [[{"start": 0, "end": len(text.split()[0]), "label": "PERSON"}] for text in test.texts]
    columns = {"id": test.ids, "text": test.texts, "lang": test.langs, "spans": spans}
    pq.write_table(pa.table(columns).cast(SHARD_SCHEMA), corpus / "part-00000.parquet")
    (corpus / "_stats.json").write_text("{}")
    (corpus / "_SUCCESS").touch()
    where = ["--checkpoint", measured.run / "checkpoint", "--data", measured.data, "--out", measured.out]
    main([*map(str, where), "--texts", str(corpus), "--set", "evaluation.steps=1"])
    report = json.loads((measured.out / "report.json").read_text())
    assert report["entities"]["PERSON"]["n"] == report["n"]
    assert report["baselines"]["nearest"]["entity_recall"] >= 0
    assert "entities found" in (measured.out / "report.md").read_text()
