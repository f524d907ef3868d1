"""Folders of an object store and their copies, against a real S3 on loopback."""

from pathlib import Path

import pytest

from embinv.data.copy_index import ObjectFolder
from embinv.data.object_folders import (
    copy_of,
    fetch,
    folder_or_file,
    listing,
    push,
    require_writable,
    url_of,
)
from embinv.data.stores import file_system
from tests.object_store import object_store

URL = "s3://bucket/runs/my"


@pytest.fixture(scope="module")
def server():
    with object_store("bucket") as variables:
        yield variables


@pytest.fixture
def store(server, monkeypatch):
    """The store as this process reaches it, empty."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    files, _ = file_system(URL)
    files.invalidate_cache()
    for path in files.find("bucket"):
        files.rm_file(path)
    return files


@pytest.fixture
def machine(tmp_path):
    """Returns a function that gives the copy on a machine of that name, and what was told there."""

    def named(name, owned=None):
        root = tmp_path / name
        folder = ObjectFolder(URL, copy_of(URL, root, "--out"), *([owned] if owned else []))
        return folder, root

    return named


def write(folder, **files):
    for name, text in files.items():
        path = folder.copy / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def contents(folder):
    paths = [path for path in folder.copy.rglob("*") if path.is_file()]
    return {path.relative_to(folder.copy).as_posix(): path.read_text() for path in paths}


def stored(store):
    store.invalidate_cache()
    return {path.removeprefix("bucket/runs/my/"): store.cat_file(path).decode() for path in store.find("bucket")}


def quiet(line):
    raise AssertionError(line)


def test_what_is_pushed_here_is_fetched_there(store, machine):
    one, root = machine("one")
    write(one, a="1", deep__b="2", _SUCCESS="")
    push(one, root, print)
    assert stored(store) == {"a": "1", "deep/b": "2", "_SUCCESS": ""}
    other, other_root = machine("other")
    fetch(other, other_root, print)
    assert contents(other) == contents(one)


def test_what_did_not_change_does_not_travel(store, machine, monkeypatch):
    one, root = machine("one")
    write(one, a="1", b="2")
    push(one, root, print)
    sent = []
    put = store.put_file
    monkeypatch.setattr(store, "put_file", lambda here, there: sent.append(there) or put(here, there))
    monkeypatch.setattr(store, "get_file", lambda *arguments: quiet("fetched again"))
    fetch(one, root, quiet)
    push(one, root, quiet)
    assert sent == []
    write(one, b="3")
    push(one, root, print)
    assert sent == ["bucket/runs/my/b"] and stored(store) == {"a": "1", "b": "3"}


def test_what_is_gone_here_goes_there_and_what_is_hidden_or_of_others_stays(store, machine):
    store.pipe_file("bucket/runs/my/pairs/x", b"of another job")
    one, root = machine("one", owned=lambda name: not name.startswith("pairs/"))
    fetch(one, root, quiet)
    assert contents(one) == {}
    write(one, a="1", b="2")
    push(one, root, print)
    one.copy.joinpath("a").unlink()
    write(one, **{".lock": "", "deep__.b.partial": "half"})
    push(one, root, print)
    assert stored(store) == {"b": "2", "pairs/x": "of another job"}


def test_a_copy_that_is_further_along_is_kept(store, machine):
    one, root = machine("one")
    write(one, a="1")
    push(one, root, print)
    write(one, a="1, and more", b="2")  # and then the job is killed
    fetch(one, root, quiet)
    assert contents(one) == {"a": "1, and more", "b": "2"}
    push(one, root, print)
    assert stored(store) == contents(one)


def test_where_another_machine_went_on_its_state_is_taken_and_said_so(store, machine):
    one, root = machine("one")
    write(one, a="1", b="1")
    push(one, root, print)
    other, other_root = machine("other")
    fetch(other, other_root, print)
    write(other, a="2", c="2")
    other.copy.joinpath("b").unlink()
    push(other, other_root, print)
    write(one, a="work that never got there", new="nor this")
    told = []
    fetch(one, root, told.append)
    assert contents(one) == {"a": "2", "c": "2"}
    [kept] = one.copy.parent.glob(".my.kept-*")
    assert "was changed elsewhere since" in told[0] and str(kept) in told[0]
    assert {path.name: path.read_text() for path in kept.iterdir()} == {
        "a": "work that never got there",
        "new": "nor this",
    }


def test_nothing_is_written_over_what_somebody_else_wrote_meanwhile(store, machine):
    one, root = machine("one")
    fetch(one, root, quiet)
    write(one, a="1")
    store.pipe_file("bucket/runs/my/a", b"theirs")
    with pytest.raises(ValueError, match=r"^s3://bucket/runs/my: was changed by somebody else while this job ran"):
        push(one, root, print)
    assert stored(store) == {"a": "theirs"}
    assert contents(one) == {"a": "1"}


def test_a_folder_deleted_in_the_store_is_no_longer_gone_on_with(store, machine):
    one, root = machine("one")
    write(one, a="1")
    push(one, root, print)
    store.rm("bucket/runs/my", recursive=True)
    fetch(one, root, print)
    assert contents(one) == {}


def test_a_write_that_was_cut_short_is_not_taken_for_whole_and_is_done_again(store, machine, monkeypatch):
    one, root = machine("one")
    write(one, a="1", _SUCCESS="")
    push(one, root, print)
    write(one, a="2", b="2", c="2")
    put = store.put_file

    def breaks(here, there):
        if there.endswith("/b"):
            raise ConnectionError("the network is gone")
        put(here, there)

    write(one, _SUCCESS="again")
    with monkeypatch.context() as broken:
        broken.setattr(store, "put_file", breaks)
        with pytest.raises(ValueError, match=r"^s3://bucket/runs/my: cannot be reached \(the network is gone\)$"):
            push(one, root, print)
    assert "_SUCCESS" not in stored(store)
    fetch(one, root, quiet)  # here lies the newer one, though the store changed
    push(one, root, print)
    assert stored(store) == contents(one) == {"a": "2", "b": "2", "c": "2", "_SUCCESS": "again"}


def broken_off(store, monkeypatch, folder, root, at):
    """Writes back, and breaks off at a file."""
    put = store.put_file

    def breaks(here, there):
        if there.endswith(at):
            raise ConnectionError("gone")
        put(here, there)

    with monkeypatch.context() as broken:
        broken.setattr(store, "put_file", breaks)
        with pytest.raises(ValueError, match="gone"):
            push(folder, root, print)


def test_a_write_that_was_cut_short_gives_no_right_to_another_machines_work(store, machine, monkeypatch):
    one, root = machine("one")
    write(one, a="1", b="1")
    push(one, root, print)
    write(one, a="one's newer", b="one's newer")
    broken_off(store, monkeypatch, one, root, "/b")
    other, other_root = machine("other")
    fetch(other, other_root, print)
    write(other, a="the other's, longer than one's", c="the other's")
    push(other, other_root, print)
    with pytest.raises(ValueError, match="was changed by somebody else"):
        push(one, root, print)
    fetch(one, root, print)
    assert contents(one) == stored(store) == contents(other)


def test_what_lies_in_a_folder_whose_write_was_cut_short_is_not_taken_back(store, machine, monkeypatch):
    one, root = machine("one")
    write(one, checkpoint__config="1", checkpoint__weights="1")
    push(one, root, print)
    write(one, checkpoint__config="2", checkpoint__weights="22")
    broken_off(store, monkeypatch, one, root, "/weights")
    child = ObjectFolder(f"{URL}/checkpoint", one.copy / "checkpoint")
    fetch(child, root, quiet, read_only=True)
    assert contents(child) == {"config": "2", "weights": "22"}


def test_what_is_missing_of_an_input_is_fetched_again(store, machine):
    one, root = machine("one")
    write(one, a="1", b="2")
    push(one, root, print)
    one.copy.joinpath("a").unlink()
    fetch(one, root, quiet)  # work of a job, which deleted it
    assert contents(one) == {"b": "2"}
    fetch(one, root, print, read_only=True)
    assert contents(one) == {"a": "1", "b": "2"}


def test_a_bucket_that_is_not_there_is_no_empty_folder(store, tmp_path):
    url = "s3://another-bucket/runs"
    folder = ObjectFolder(url, copy_of(url, tmp_path, "--out"))
    write(folder, a="1")
    with pytest.raises(ValueError, match=r"^s3://another-bucket/runs: there is no bucket another-bucket"):
        fetch(folder, tmp_path, print)
    assert contents(folder) == {"a": "1"}
    with pytest.raises(ValueError, match=r"^s3://another-bucket/runs: "):
        require_writable(folder)


def test_a_checkpoint_that_changes_while_it_travels_is_not_marked_as_whole(store, machine, monkeypatch):
    one, root = machine("one")
    write(one, **{"checkpoint__model.safetensors": "old", "checkpoint__config.json": "old"})
    put = store.put_file

    def meanwhile(here, there):
        put(here, there)
        if there.endswith("model.safetensors"):
            write(one, **{"checkpoint__model.safetensors": "newer", "checkpoint__config.json": "newer"})

    with monkeypatch.context() as swapped:
        swapped.setattr(store, "put_file", meanwhile)
        with pytest.raises(ValueError, match=r"model\.safetensors: was changed while it was copied"):
            push(one, root, print)
    assert "checkpoint/config.json" not in stored(store)
    push(one, root, print)
    assert stored(store) == contents(one)


def test_marks_of_completeness_come_last(store, machine, monkeypatch):
    one, root = machine("one")
    write(one, _SUCCESS="", state__complete="", z="1", state__z="2")
    order = []
    put = store.put_file
    monkeypatch.setattr(store, "put_file", lambda a, b: order.append(b[15:]) or put(a, b))
    push(one, root, print)
    assert set(order[:2]) == {"z", "state/z"} and set(order[2:]) == {"_SUCCESS", "state/complete"}


def test_a_file_that_comes_short_is_no_file(store, machine, monkeypatch):
    store.pipe_file("bucket/runs/my/a", b"12345")
    monkeypatch.setattr(store, "get_file", lambda there, here: Path(here).write_bytes(b"123"))
    one, root = machine("one")
    with pytest.raises(ValueError, match=r"/a: 3 of 5 bytes came"):
        fetch(one, root, print)
    assert contents(one) == {}


def test_a_uri_may_name_one_file(store, tmp_path):
    store.pipe_file("bucket/dumps/one.npy", b"1")
    store.pipe_file("bucket/dumps/other.npy", b"2")
    url = "s3://bucket/dumps/one.npy"
    copy = copy_of(url, tmp_path, "--vectors")
    fetch(folder_or_file(url, copy), tmp_path, print)
    assert copy.read_text() == "1" and [path.name for path in copy.parent.iterdir()] == ["one.npy"]


def test_a_store_that_is_away_is_told_in_a_sentence(store, machine, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    type(store).clear_instance_cache()
    one, _ = machine("one")
    with pytest.raises(ValueError, match=r"^s3://bucket/runs/my: cannot be reached \("):
        listing(one)
    type(store).clear_instance_cache()


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3:///a", "s3://bucket/../a", "s3://bucket/a//b"])
def test_a_uri_names_a_folder_of_a_bucket(tmp_path, url):
    with pytest.raises(ValueError, match=r"^--data s3://.*: names no folder of a bucket; write s3://BUCKET/FOLDER$"):
        copy_of(url, tmp_path, "--data")


def test_a_copy_knows_where_it_is_from(tmp_path):
    assert url_of(copy_of(URL, tmp_path, "--out"), tmp_path) == URL
    assert url_of(tmp_path.parent / "runs", tmp_path) is None
