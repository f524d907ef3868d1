"""embinv/data/folders.py: that something whole is there at every moment."""

import shutil
from pathlib import Path

import pytest

import embinv.data.folders
from embinv.data.folders import replace_folder


def folder_of(path, content):
    path.mkdir()
    (path / "file").write_text(content)
    return path


def contents(folder):
    return sorted((path.name, (path / "file").read_text()) for path in folder.iterdir())


@pytest.fixture
def no_exchange(monkeypatch):
    """A file system that knows no exchange."""

    def unknown(*_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(embinv.data.folders, "_exchange", unknown)


def test_a_folder_changes_places_in_one_step_and_is_never_absent(tmp_path, monkeypatch):
    new, folder = folder_of(tmp_path / "new", "new"), folder_of(tmp_path / "folder", "old")

    def moved(*_):
        raise AssertionError("moved in two steps, between which nothing is there")

    monkeypatch.setattr(Path, "rename", moved)
    replace_folder(new, folder)
    assert contents(tmp_path) == [("folder", "new")]


def test_a_folder_is_replaced_where_the_file_system_knows_no_exchange(tmp_path, no_exchange):
    replace_folder(folder_of(tmp_path / "new", "new"), folder_of(tmp_path / "folder", "old"))
    assert contents(tmp_path) == [("folder", "new")]


def test_a_first_folder_is_put_in_place(tmp_path):
    replace_folder(folder_of(tmp_path / "new", "new"), tmp_path / "folder")
    assert contents(tmp_path) == [("folder", "new")]


def test_what_a_kill_between_two_moves_left_is_not_deleted_before_the_next_folder_is_there(
    tmp_path, monkeypatch, no_exchange
):
    new, folder = folder_of(tmp_path / "new", "new"), folder_of(tmp_path / "folder", "old")
    move, delete = Path.rename, shutil.rmtree

    def killed(path, target):
        if path == new:
            raise KeyboardInterrupt
        return move(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        replace_folder(new, folder)
    assert contents(tmp_path) == [(".folder.old", "old"), ("new", "new")]

    def needed(path, **options):
        assert folder.exists(), f"deletes {path} while nothing is in place"
        delete(path, **options)

    monkeypatch.setattr(shutil, "rmtree", needed)
    replace_folder(new, folder)
    assert contents(tmp_path) == [("folder", "new")]
