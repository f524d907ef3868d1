import io
import json

import pytest
from rich.console import Console

from embinv.data.sole_writer import sole_writer
from jobs.demo import OURS, run_demo, start_over

KILLED = (  # what a killed demo may leave beside what is whole
    "state-0123abcd .texts.partial .pairs.progress .texts.lock .last.partial .last.old .checkpoint.partial "
    ".checkpoint.old progress.partial examples.partial ._run.json.partial .report.md.partial .http.json.partial "
    ".saving-step-000000010 failures.log mlflow.db mlflow.db-journal mlflow-run.json mlflow-run.partial "
    "mlflow-artifacts wandb wandb-run.json wandb-run.partial"
).split()


def test_starting_over_deletes_a_demo_killed_at_any_moment_and_nothing_beside_it(tmp_path):
    out = tmp_path / "runs" / "demo"
    for name in dict.fromkeys((*OURS, *KILLED)):
        path = out / name
        if "." in name.lstrip("."):  # some of them are folders in truth, which does not matter here
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True)
            (path / "inside").touch()
    (tmp_path / "runs" / "mine").mkdir()
    start_over(out)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["thesis.doc", "src", ".git", "texts2", ".textsold", "notes.partial", "wandb2"])
def test_starting_over_refuses_a_folder_with_anything_else(tmp_path, name):
    (tmp_path / "texts").mkdir()
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"holds {name} that the demo did not make; move it away"):
        start_over(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["texts", name])


@pytest.mark.parametrize("at_work", ["demo", "demo/texts", "demo/pairs"])
def test_starting_over_waits_for_no_demo_that_is_at_work_and_deletes_nothing_of_it(tmp_path, at_work):
    (tmp_path / "demo" / "texts").mkdir(parents=True)
    (tmp_path / "demo" / "texts" / "part-0.parquet").touch()
    with sole_writer(tmp_path / at_work):
        with pytest.raises(ValueError, match=f"{tmp_path / at_work}: another job is writing there"):
            start_over(tmp_path / "demo")
        assert (tmp_path / "demo" / "texts" / "part-0.parquet").exists()
    start_over(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_starting_over_without_a_demo_is_fine(tmp_path):
    start_over(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_everything_that_training_leaves_is_the_demo_s_own(tiny_run, tmp_path):
    """Else a demo could not be started over."""
    import shutil

    run, _ = tiny_run
    shutil.copytree(run, tmp_path / "demo")
    start_over(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


@pytest.fixture
def demo(ray_cluster, tiny, tmp_path):
    """Runs a tiny demo in the shared Ray session and returns what it showed."""
    config = tiny(
        "data.rows=300",
        "training.minutes=5",
        "training.max_steps=10",
        "training.validations=1",  # of two, either may be the better one
        "training.precision=auto",
        "evaluation.rows=8",
        "evaluation.examples=4",
    )

    def run():
        shown = io.StringIO()
        run_demo(config, tmp_path / "demo", Console(file=shown, width=1000))
        return shown.getvalue()

    return run


@pytest.mark.slow
def test_the_whole_way_leaves_everything_and_is_not_gone_twice(demo, tmp_path, capsys):
    out = tmp_path / "demo"
    shown = demo()
    assert {path.name for path in out.iterdir() if not path.name.startswith("state-")} <= set(OURS)
    for name in ("texts", "pairs", "checkpoint", "report.json", "report.md", "training.png"):
        assert (out / name).exists(), name
    report = json.loads((out / "report.json").read_text())
    answer = json.loads((out / "http.json").read_text())
    assert report["n"] == 8 and report["training"]["steps"] == 10
    assert report["samples_per_second"].keys() == {"encode", "train", "invert"}
    assert all(seconds > 0 for seconds in report["seconds"].values())
    assert len(answer["results"]) == 4 and answer["url"].endswith("/invert/minilm")
    for result in answer["results"]:
        assert result["original"] in shown and 0 < result["confidence"] <= 1
    assert f"{report['token_accuracy']:.1%}" in shown and "somebody else's embedding" in shown
    assert "make serve" in shown

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = demo()
    assert "all is done already" in again and answer["results"][0]["original"] in again
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    (out / "http.json").unlink()  # as if it had been killed while it served
    capsys.readouterr()
    demo()
    printed = capsys.readouterr().out
    assert printed.count("all done before") == 3  # corpus, encode, train
    start_over(out)
    assert not out.exists()
