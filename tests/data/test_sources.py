"""Which files a source means: here, on a hub on loopback, in an object store."""

import importlib
import logging
import pickle

import pytest

from embinv.data.settings import TextSource
from embinv.data.sources import KINDS, SourceFile, kind_of, list_files
from tests.hub import HubServer, write_c4
from tests.object_store import object_store


def listed(path, seed=0, lang=None):
    return list_files(TextSource(path=str(path), lang=lang), seed)


def names(files):
    return sorted(file.url.rpartition("/")[2] for file in files)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jsonl", "b.jsonl", "deep/c.jsonl.gz", "deep/deeper/d.txt", "_stats.json", ".e.txt", "_old/f.txt"):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
    return tmp_path / "texts"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    texts = {lang: [f"text {i} of {lang}" for i in range(6)] for lang in ("de", "fr", "zh-Latn")}
    write_c4(tmp_path / "hub" / "allenai" / "c4", english=["one", "two", "three"], multilingual=texts, shards=3)
    with HubServer(tmp_path / "hub", page_size=4) as server:
        server.become_the_hub(monkeypatch, tmp_path / "home")
        yield server


def test_a_file_is_itself(folder):
    assert listed(folder / "a.jsonl", lang="de") == [
        SourceFile(str(folder / "a.jsonl"), str(folder / "a.jsonl"), "de", ".jsonl", 2)
    ]


def test_a_relative_path_becomes_absolute(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert listed("a.jsonl") == listed(folder / "a.jsonl")


def test_a_folder_is_read_to_its_depth_without_hidden_names(folder):
    assert names(listed(folder)) == ["a.jsonl", "b.jsonl", "c.jsonl.gz", "d.txt"]


def test_a_hidden_folder_can_be_named_itself(folder):
    assert names(listed(folder / "_old")) == ["f.txt"]


def test_a_folder_says_which_files_it_leaves_out(folder, caplog):
    (folder / "notes.docx").write_text("x")
    with caplog.at_level(logging.WARNING):
        assert "notes.docx" not in names(listed(folder))
    assert "notes.docx" in caplog.text


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("**/*.txt", ["d.txt"]),
        ("**/*.jsonl*", ["a.jsonl", "b.jsonl", "c.jsonl.gz"]),
        ("[ab].jsonl", ["a.jsonl", "b.jsonl"]),
        ("_*.json", ["_stats.json"]),
        ("deep/*/d.???", ["d.txt"]),
    ],
)
def test_a_glob_matches_files(folder, glob, expected):
    assert names(listed(folder / glob)) == expected


def test_a_name_with_a_wildcard_in_it_is_a_file_if_it_is_there(folder):
    (folder / "a[1].txt").write_text("x\n")
    assert names(listed(folder / "a[1].txt")) == ["a[1].txt"]


def test_the_order_depends_on_the_seed_and_on_nothing_else(tmp_path):
    for i in range(50):
        (tmp_path / f"{i:02}.txt").write_text("x\n")
    first = listed(tmp_path / "*.txt", seed=1)
    assert first == listed(tmp_path, seed=1)
    assert first != listed(tmp_path, seed=2)
    assert first != sorted(first, key=lambda file: file.url)
    (tmp_path / "99.txt").write_text("x\n")
    assert [file for file in listed(tmp_path, seed=1) if file in first] == first


def test_files_can_be_sent_to_a_worker(folder):
    files = listed(folder)
    assert pickle.loads(pickle.dumps(files)) == files  # noqa: S301


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_known_by_its_ending(kind):
    assert kind_of(f"C4.train{kind.upper()}") == kind


@pytest.mark.parametrize("name", ["a.docx", "a.gz", "jsonl", "a.parquet.gz"])
def test_another_ending_is_no_kind(name):
    assert kind_of(name) is None


@pytest.mark.parametrize("glob", ["a.docx", "*.docx"])
def test_a_file_of_unknown_kind_is_an_error_that_lists_the_known_ones(tmp_path, glob):
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(ValueError, match=r"a\.docx is of no known kind; known are \.jsonl, .*\.parquet$"):
        listed(tmp_path / glob)


def test_a_folder_without_texts_is_an_error_that_lists_the_known_kinds(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(ValueError, match=r"holds no file of a known kind; known are \.jsonl, "):
        listed(tmp_path)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"/none\.jsonl: no such file or folder$"):
        listed(tmp_path / "none.jsonl")


def test_a_glob_that_matches_nothing_says_what_is_there(folder):
    with pytest.raises(ValueError, match=r"/\*\.csv: matches no file; .*/deep holds c\.jsonl\.gz, deeper$"):
        listed(folder / "deep" / "*.csv")
    with pytest.raises(ValueError, match=r"matches no file; .*/deep holds c\.jsonl\.gz, deeper$"):
        listed(folder / "deep" / "none" / "at" / "all" / "*.csv")


def test_a_language_without_files_gets_told_the_languages_there_are(tmp_path):
    for lang in ("en", "de", "zh-Latn"):
        (tmp_path / f"open-{lang}").mkdir()
        (tmp_path / f"open-{lang}" / "a.txt").write_text("x\n")
    with pytest.raises(ValueError, match=r"/open-xx/\*\.txt: matches no file; .* has files for de, en, zh-Latn; mend"):
        listed(tmp_path / "open-xx" / "*.txt", lang="xx")


def test_an_unknown_protocol_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"ftp:// is not known; give a local path or one of hf://, s3://, gs://$"):
        listed("ftp://example.org/a.txt")


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_an_absent_package_is_named_with_its_installation(monkeypatch, protocol, package):
    known = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(known, protocol, raising=False)  # another test has imported it
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ValueError, match=rf"^{protocol}://bucket/a\.txt: .* run `pip install {package}`$"):
        listed(f"{protocol}://bucket/a.txt")


def test_a_glob_on_the_hub_matches_one_language_and_no_validation_files(hub):
    files = listed("hf://datasets/allenai/c4/multilingual/c4-de.*.json.gz", lang="de")
    assert names(files) == [f"c4-de.tfrecord-{shard:05}-of-00003.json.gz" for shard in range(3)]
    assert {(file.lang, file.kind) for file in files} == {("de", ".json.gz")}
    assert all(file.url == f"hf://{file.path}" and file.size > 0 for file in files)


def test_a_file_and_a_folder_on_the_hub_are_found(hub):
    name = "c4-train.00001-of-00003.json.gz"
    assert names(listed(f"hf://datasets/allenai/c4/en/{name}")) == [name]
    assert len(listed("hf://datasets/allenai/c4/en/")) == 4
    assert len(listed("hf://datasets/allenai/c4@main")) == 4 + 3 * 4


def test_languages_of_one_folder_cost_one_listing(hub):
    listed("hf://datasets/allenai/c4/multilingual/c4-de.*.json.gz", lang="de")
    asked = len(hub.requests)
    listed("hf://datasets/allenai/c4/multilingual/c4-fr.*.json.gz", lang="fr")
    assert len(hub.requests) == asked


def test_a_language_that_the_hub_lacks_gets_told_those_it_has(hub):
    with pytest.raises(ValueError, match=r"c4-xx\.\*\.json\.gz: matches no file; .* has files for de, fr, zh-Latn; "):
        listed("hf://datasets/allenai/c4/multilingual/c4-xx.*.json.gz", lang="xx")


def test_texts_in_an_object_store_are_listed_and_read(monkeypatch):
    from embinv.data.reading import read_batches

    with object_store("texts") as variables:
        import boto3

        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.put_object(Bucket="texts", Key="deep/a.jsonl", Body=b'{"text": "one"}\n{"text": "two"}\n')
        for path in ("s3://texts/deep/a.jsonl", "s3://texts", "s3://texts/*/*.jsonl"):
            [file] = listed(path)
            assert file.url == "s3://texts/deep/a.jsonl"
            assert [table["text"].to_pylist() for table in read_batches(file, "text")] == [["one", "two"]]
        with pytest.raises(ValueError, match=r"^s3://texts/none: no such file or folder$"):
            listed("s3://texts/none")
