"""jobs/staging.py: what a job reads is at hand, and what it made gets to the object store, however it ends."""

import pytest

from embinv.data.stores import file_system
from jobs.staging import place, shown, staged
from tests.object_store import object_store


@pytest.fixture(scope="module")
def server():
    with object_store("bucket") as variables:
        yield variables


@pytest.fixture
def store(server, monkeypatch, tmp_path):
    """The store, empty, and a folder of copies of this test's own."""
    for name, value in (server | {"EMBINV_WORK": str(tmp_path / "work")}).items():
        monkeypatch.setenv(name, value)
    files, _ = file_system("s3://bucket")
    files.invalidate_cache()
    for path in files.find("bucket"):
        files.rm_file(path)
    return files


def stored(store):
    store.invalidate_cache()
    return {path.removeprefix("bucket/"): store.cat_file(path).decode() for path in store.find("bucket")}


def write(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_a_folder_of_a_file_system_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBINV_WORK", str(tmp_path / "work"))
    out = place(str(tmp_path / "out"))
    assert out == tmp_path / "out" and shown(out) == str(out)
    with staged(out, inputs=[tmp_path / "texts", None]):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_an_object_store_is_worked_on_as_a_copy_and_told_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBINV_WORK", str(tmp_path))
    out = place("s3://bucket/runs/my/", "--out")
    assert out == tmp_path / "s3" / "bucket" / "runs" / "my"
    assert shown(out / "checkpoint") == "s3://bucket/runs/my/checkpoint"
    with pytest.raises(ValueError, match=r"^--data s3://bucket: names no folder of a bucket"):
        place("s3://bucket", "--data")
    with pytest.raises(ValueError, match=r"^--data ftp://a/b: give a path"):
        place("ftp://a/b", "--data")


def test_inputs_are_there_and_outputs_get_there(store):
    store.pipe_file("bucket/texts/part-0", b"some")
    texts, out = place("s3://bucket/texts"), place("s3://bucket/pairs")
    with staged(out, inputs=[texts]):
        assert (texts / "part-0").read_text() == "some"
        write(out, "a", "1")
        write(out, "_SUCCESS", "")
        (texts / "part-0").write_text("inputs are read only")
    assert stored(store) == {"texts/part-0": "some", "pairs/a": "1", "pairs/_SUCCESS": ""}


@pytest.mark.parametrize("end", [ValueError, KeyboardInterrupt, RuntimeError])
def test_what_a_job_goes_on_from_is_kept_however_it_ends(store, tmp_path, monkeypatch, end):
    out = place("s3://bucket/pairs")
    with pytest.raises(end), staged(out):
        write(out, "a", "1")
        write(out.with_name(".pairs.progress"), "run.json", "{}")
        raise end("the job's own")
    assert stored(store) == {"pairs/a": "1", ".pairs.progress/run.json": "{}"}

    monkeypatch.setenv("EMBINV_WORK", str(tmp_path / "another machine"))
    out = place("s3://bucket/pairs")
    with staged(out):
        assert (out / "a").read_text() == "1"
        progress = out.with_name(".pairs.progress")
        assert (progress / "run.json").read_text() == "{}"
        (progress / "run.json").unlink()  # done
        write(out, "_SUCCESS", "")
    assert stored(store) == {"pairs/a": "1", "pairs/_SUCCESS": ""}


def test_a_store_that_went_away_does_not_hide_what_ended_the_job(store, monkeypatch):
    out = place("s3://bucket/pairs")
    with pytest.raises(ValueError, match="the job's own"), staged(out):
        write(out, "a", "1")
        monkeypatch.setattr(store, "put_file", lambda *arguments: (_ for _ in ()).throw(ConnectionError("gone")))
        raise ValueError("the job's own")
    assert (out / "a").read_text() == "1"  # lies there still, and goes with the next run


def test_a_job_that_ends_well_says_when_its_work_did_not_get_there(store, monkeypatch):
    out = place("s3://bucket/pairs")
    with pytest.raises(ValueError, match=r"^s3://bucket/pairs: cannot be reached \(gone\)$"), staged(out):
        write(out, "a", "1")
        monkeypatch.setattr(store, "put_file", lambda *arguments: (_ for _ in ()).throw(ConnectionError("gone")))


def test_a_second_job_of_this_machine_is_kept_out(store):
    out = place("s3://bucket/pairs")
    with staged(out):
        with (
            pytest.raises(ValueError, match=r"^s3://bucket/pairs: another job is writing there; wait until it ends"),
            staged(out),
        ):
            raise AssertionError("two at once")
        with (
            pytest.raises(ValueError, match=r"^s3://bucket/pairs/checkpoint: another job is writing there"),
            staged(out / "checkpoint"),
        ):
            raise AssertionError("a folder inside")
        write(out, "a", "not written back yet")
        with staged(inputs=[out, out / "a"]):  # reading is no writing, and takes nothing back
            assert (out / "a").read_text() == "not written back yet"


def test_a_long_run_is_written_back_while_it_goes_on(store):
    out = place("s3://bucket/run")
    with staged(out, every=0.05):
        write(out, "log", "first")
        for _ in range(200):
            if "run/log" in stored(store):
                break
        assert stored(store)["run/log"] == "first"
        write(out, "log", "first, second")
    assert stored(store)["run/log"] == "first, second"


def test_one_file_can_be_read_from_an_object_store(store):
    store.pipe_file("bucket/dumps/a.npy", b"1")
    store.pipe_file("bucket/dumps/b.npy", b"2")
    dump = place("s3://bucket/dumps/a.npy", "--vectors")
    with staged(inputs=[dump]):
        assert dump.read_bytes() == b"1" and not dump.with_name("b.npy").exists()
