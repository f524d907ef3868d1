"""What --overwrite deletes, and what it leaves alone."""

import pytest

from jobs.outputs import delete_ours


def is_ours(path):
    return path.name.startswith("split=")


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_job_s_output_is_deleted_as_a_whole(tmp_path):
    out = tmp_path / "pairs"
    fill(out, "split=train/a.parquet", "_stats.json", "_SUCCESS", "settings.yaml", "_rejected/a.json")
    fill(tmp_path, "texts/part-00000.parquet")
    delete_ours(out, is_ours)
    assert not out.exists()
    assert (tmp_path / "texts" / "part-00000.parquet").exists()


def test_one_foreign_file_keeps_everything(tmp_path):
    fill(tmp_path, "split=train/a.parquet", "_stats.json", "thesis.doc")
    with pytest.raises(ValueError, match=r"--overwrite would delete .*did not make thesis\.doc in it; move it away"):
        delete_ours(tmp_path, is_ours)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_stats.json", "split=train", "thesis.doc"]
    assert (tmp_path / "split=train" / "a.parquet").exists()


def test_where_nothing_is_nothing_happens(tmp_path):
    delete_ours(tmp_path / "pairs", is_ours)
    assert list(tmp_path.iterdir()) == []
