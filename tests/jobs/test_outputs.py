"""What --overwrite deletes, what it leaves alone, and who may write."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embinv.data.sole_writer import sole_writer
from jobs.outputs import delete_ours, put_in_place, require_siblings


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


def test_a_new_folder_takes_the_old_ones_place(tmp_path):
    fill(tmp_path, "pairs/split=train/a.parquet", "pairs/_SUCCESS", ".pairs.partial/split=train/b.parquet")
    put_in_place(tmp_path / ".pairs.partial", tmp_path / "pairs", is_ours)
    assert [path.name for path in (tmp_path / "pairs").rglob("*.parquet")] == ["b.parquet"]
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


def test_a_folder_is_there_whenever_a_kill_comes(tmp_path, monkeypatch):
    fill(tmp_path, "pairs/split=train/a.parquet", ".pairs.partial/split=train/b.parquet")

    def moved(*_):
        raise AssertionError("moved in two steps, between which nothing is there")

    monkeypatch.setattr(Path, "rename", moved)
    put_in_place(tmp_path / ".pairs.partial", tmp_path / "pairs", is_ours)
    assert [path.name for path in (tmp_path / "pairs").rglob("*.parquet")] == ["b.parquet"]
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


def test_a_strangers_folder_is_not_replaced(tmp_path):
    fill(tmp_path, "pairs/thesis.doc", ".pairs.partial/split=train/b.parquet")
    with pytest.raises(ValueError, match=r"did not make thesis\.doc"):
        put_in_place(tmp_path / ".pairs.partial", tmp_path / "pairs", is_ours)
    assert (tmp_path / "pairs" / "thesis.doc").exists() and (tmp_path / ".pairs.partial").exists()


def test_a_mount_point_is_refused_with_a_folder_to_take():
    mount = next(path for path in (Path("/proc"), Path("/dev/shm")) if path.is_mount())
    with pytest.raises(ValueError, match=rf"--out {mount}: is a mount point; give .* such as {mount}/out"):
        require_siblings(mount)


def test_a_folder_and_one_that_is_yet_to_be_made_have_siblings(tmp_path):
    require_siblings(tmp_path)
    require_siblings(tmp_path / "new" / "pairs")


HOLD = """
import sys, time
from pathlib import Path
from embinv.data.sole_writer import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("at work", flush=True)
    time.sleep(60)
"""


def test_a_second_job_is_kept_out_until_the_first_ends_however_it_ends(tmp_path):
    out = tmp_path / "pairs"
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "at work\n"
    with pytest.raises(ValueError, match=rf"--out {out}: another job is writing there"), sole_writer(out):
        pass
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    with sole_writer(out):
        pass
    assert list(tmp_path.iterdir()) == []  # the lock leaves nothing behind
