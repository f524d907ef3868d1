import json
import re
import shutil

import pytest

from embinv.config import EvaluationSettings
from embinv.report import figure_table
from jobs.evaluate import main, make_report

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
    for baseline in ("zero", "shuffled", "nearest"):
        assert 0 <= report["baselines"][baseline]["token_accuracy"] <= 1
    assert set(report["samples_per_second"]) == {"encode", "train", "invert"}
    assert set(report["seconds"]) == {"corpus", "encode", "train", "evaluate"}
    assert len(report["examples"]) == 3


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
    settings = [part for key in ("rows=12", "steps=2", "examples=3") for part in ("--set", f"evaluation.{key}")]
    main(["--checkpoint", str(run / "checkpoint"), "--data", str(tiny_pairs), "--out", str(tmp_path), *settings])
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
    assert "| original | step 10 | step 20 |" in page
    assert "| original | recovered at step 20 |" in page


def test_a_checkpoint_that_was_moved_away_from_its_run_is_measured_without_them(
    reported, tiny_run, tiny, tiny_pairs, tmp_path
):
    run, _ = tiny_run
    shutil.copytree(run / "checkpoint", tmp_path / "moved" / "checkpoint")
    report = make_report(tmp_path / "moved" / "checkpoint", tiny_pairs, tmp_path / "out", tiny().evaluation, "cpu")
    assert report["recoveries"] == []
    assert "While it was learning" not in (tmp_path / "out" / "report.md").read_text()
