"""What an address may be, and what is said of others."""

import numpy as np
import pytest
from pydantic import ValidationError

from embinv.data.dumps.base import MissingLibrary
from embinv.data.dumps.opening import DumpSettings, open_dump


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match=rf"--vectors {tmp_path}/none.npy: no such file or folder; check the path"):
        open_dump(str(tmp_path / "none.npy"))


@pytest.mark.parametrize("name", ["dump.pkl", "dump", "dump.txt"])
def test_a_file_of_no_known_kind_is_refused_with_the_kinds_that_are(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"--vectors .*: is of no known kind; known are .*\.npy; .*\.jsonl.*Chroma"):
        open_dump(str(tmp_path / name))


def test_a_folder_with_nothing_known_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="is of no known kind"):
        open_dump(str(tmp_path))


def test_a_store_far_away_is_refused_without_its_password():
    with pytest.raises(ValueError, match="cannot be read from there; copy it here") as caught:
        open_dump("mysql://me:hush@host/db?x=1")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("setting", [{"column": "x"}, {"name": "x"}, {"id_column": "x"}, {"metadata": ["x"]}])
def test_a_setting_that_means_nothing_for_the_kind_is_refused(tmp_path, setting):
    np.save(tmp_path / "dump.npy", np.ones((2, 3)))
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is .*x.*, but means nothing for .npy; leave it out"):
        open_dump(str(tmp_path / "dump.npy"), DumpSettings(**setting))


def test_a_setting_that_is_not_known_is_refused():
    with pytest.raises(ValidationError):
        DumpSettings(colunm="x")  # typos: ignore-line


def test_opening_looks_at_nothing_yet(tmp_path):
    (tmp_path / "dump.parquet").write_text("no Parquet")
    assert open_dump(str(tmp_path / "dump.parquet")).address == str(tmp_path / "dump.parquet")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("dump.faiss", "faiss", "faiss"), ("docs.lance", "lancedb", "lancedb"), ("chroma.sqlite3", "chromadb", "chroma")],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, name, module, extra):
    (tmp_path / name).mkdir() if module == "lancedb" else (tmp_path / name).write_bytes(b"IxFI")
    address = str(tmp_path / name if module == "faiss" else tmp_path)
    hide(monkeypatch, module)
    with pytest.raises(MissingLibrary, match=rf"--vectors {address}: .*pip install 'embinv\[{extra}\]'"):
        open_dump(address).parts()


def test_psycopg_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    hide(monkeypatch, "psycopg")
    with pytest.raises(MissingLibrary, match=r"pip install 'embinv\[pgvector\]'"):
        open_dump("postgresql://me@localhost/db").parts()


def hide(monkeypatch, module):
    """Makes the import of a module fail, as if it were not installed."""
    import sys

    for name in list(sys.modules):
        if name == module or name.startswith(module + "."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
