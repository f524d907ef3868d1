"""jobs/train_identity.py: a run goes on with its own settings and pairs, and with no others."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

import jobs.train
from jobs.arguments import RunStopped
from jobs.train import train
from jobs.train_identity import LATER, identity_of, run_fingerprint


@pytest.fixture
def stopped(ray_cluster, monkeypatch):
    """Training ends where the workers would begin."""

    def stop(*arguments):
        raise RunStopped("the workers would begin here")

    monkeypatch.setattr(jobs.train, "_fit", stop)


@pytest.fixture
def begun(stopped, tiny, tiny_pairs, tmp_path):
    """The folder of a run that has saved once, and its pairs."""
    pairs, out = shutil.copytree(tiny_pairs, tmp_path / "pairs"), tmp_path / "out"
    with pytest.raises(RunStopped):
        train(tiny(), pairs, out, resume=False)
    [storage] = out.glob("state-*")
    (storage / "step-000000010").mkdir()
    return out, pairs


def test_pairs_that_are_not_finished_are_refused(stopped, tiny, tiny_pairs, tmp_path):
    pairs = shutil.copytree(tiny_pairs, tmp_path / "pairs")
    (pairs / "_SUCCESS").unlink()
    with pytest.raises(ValueError, match=r"has not finished .* run the same command of jobs/encode\.py"):
        train(tiny(), pairs, tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists()


def test_a_setting_that_came_later_names_no_other_run_until_it_is_used(tiny, tmp_path):
    before = run_fingerprint(tiny(), tmp_path)
    assert "model.corrector" in LATER and before == run_fingerprint(tiny("model.corrector=false"), tmp_path)
    for used in ("model.corrector=true", "data.correction=0.1"):
        assert run_fingerprint(tiny(used), tmp_path) != before


def test_a_run_goes_on_with_the_same_pairs_in_another_order(begun, tiny):
    out, pairs = begun
    [file] = (pairs / "split=train").glob("*.parquet")
    table = pq.read_table(file, partitioning=None)
    half = len(table) // 2
    pq.write_table(table.slice(half), file)
    pq.write_table(table.slice(0, half), file.with_name("part-1.parquet"))
    with pytest.raises(RunStopped, match="begin here"):
        train(tiny(), pairs, out, resume=True)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_other_pairs_in_the_same_folder_are_refused_by_name(begun, tiny, split):
    out, pairs = begun
    before = identity_of(pairs)
    [file] = (pairs / f"split={split}").glob("*.parquet")
    table = pq.read_table(file, partitioning=None)
    rows = len(table)
    pq.write_table(table.slice(1), file)
    with pytest.raises(ValueError, match=rf"{split}\.rows: {rows} != {rows - 1}; {split}\.ids: .* put those back"):
        train(tiny(), pairs, out, resume=True)
    ids = table["id"].to_numpy().copy()
    ids[0] += 1
    pq.write_table(table.set_column(0, table.schema.field(0), [ids]), file)
    with pytest.raises(ValueError, match=rf"\({split}\.ids: {before[f'{split}.ids']} != \w+\); put those back"):
        train(tiny(), pairs, out, resume=True)


def test_test_texts_may_change(begun, tiny):
    out, pairs = begun
    shutil.rmtree(pairs / "split=test")
    with pytest.raises(RunStopped, match="begin here"):
        train(tiny(), pairs, out, resume=True)


def test_identity_depends_on_every_id(tmp_path, tiny_pairs):
    found = identity_of(tiny_pairs)
    ids = np.sort(pq.read_table(next((tiny_pairs / "split=train").glob("*.parquet")), columns=["id"])["id"].to_numpy())
    assert found["train.rows"] == len(ids) and set(found) == {
        f"{split}.{what}" for split in ("train", "validation") for what in ("rows", "ids")
    }
    json.dumps(found)


def test_a_mistake_before_the_first_save_can_be_mended_in_the_same_folder(stopped, tiny, tiny_pairs, tmp_path):
    for settings in ("training.batch_size=100000", "training.batch_size=64", "training.batch_size=64"):
        with pytest.raises(RunStopped, match="begin here"):
            train(tiny(settings), tiny_pairs, tmp_path / "out", resume=False)
    record = json.loads((tmp_path / "out" / "_run.json").read_text())
    assert record["config"]["training"]["batch_size"] == 64


@pytest.mark.parametrize("left", ["state-abc/step-000000010", "state-abc/damaged-step-1", "checkpoint", "last"])
def test_what_was_learnt_is_not_mixed_with_other_settings(stopped, tiny, tiny_pairs, tmp_path, left):
    out = tmp_path / "out"
    with pytest.raises(RunStopped):
        train(tiny(), tiny_pairs, out, resume=False)
    (out / left).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"training\.batch_size: 32 != 64"):
        train(tiny("training.batch_size=64"), tiny_pairs, out, resume=True)
    with pytest.raises(ValueError, match="add --resume"):
        train(tiny(), tiny_pairs, out, resume=False)


@pytest.mark.parametrize("content", ["\0" * 300, '{"fingerprint": "ab', "[]", '{"fingerprint": "ab"}'], ids=repr)
def test_a_damaged_record_is_told_by_its_name(begun, tiny, content):
    out, pairs = begun
    (out / "_run.json").write_text(content)
    with pytest.raises(ValueError, match=rf"^{out}/_run\.json: is damaged .*choose another --out"):
        train(tiny(), pairs, out, resume=True)
