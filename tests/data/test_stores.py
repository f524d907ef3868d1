"""The way to a file on a hub: how much of it is fetched, what is tried again, and what is said when it fails."""

import time
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.utils import _http

from benchmarks.ports import free_ports
from embinv.data.reading import UnreadableFile, read_batches
from embinv.data.settings import TextSource
from embinv.data.sources import list_files
from tests.hub import Failure, HubServer, noise, write_c4

TEXTS = noise(40_000)
C4 = "hf://datasets/allenai/c4/en/c4-train.*.json.gz"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    write_c4(root / "allenai" / "c4", english=TEXTS, shards=1)
    (root / "owner" / "gated").mkdir(parents=True)
    (root / "owner" / "gated" / "a.txt").write_text("one\ntwo\n")
    table = pa.table({"text": noise(30_000, seed=1), "other": noise(30_000, seed=2)})
    pq.write_table(table, root / "owner" / "gated" / "b.parquet", row_group_size=10_000, use_dictionary=False)
    return root


@pytest.fixture
def hub(root, tmp_path, monkeypatch):
    with HubServer(root, private=["owner/private"]) as server:
        server.become_the_hub(monkeypatch, tmp_path / "home")
        yield server


@pytest.fixture
def waits(monkeypatch):
    """Seconds that the hub's client waited between tries, without waiting."""
    waited = []
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=waited.append))
    return waited


def listed(path):
    return list_files(TextSource(path=path), seed=0)


def read(file, **options):
    return [text for table in read_batches(file, "text", **options) for text in table["text"].to_pylist()]


def downloads(hub):
    return [request for request in hub.requests if "/resolve/" in request.path]


def test_a_shard_is_read_whole_in_one_request(hub, tmp_path):
    [file] = listed(C4)
    assert read(file) == TEXTS
    [download] = downloads(hub)
    assert download.sent == file.size
    assert not (tmp_path / "home").exists()  # nothing was kept on disk


def test_taking_the_first_rows_fetches_the_first_bytes_only(hub):
    [file] = listed(C4)
    batches = read_batches(file, "text", batch_rows=100)
    assert next(batches)["text"].to_pylist() == TEXTS[:100]
    batches.close()
    before = hub.bytes_sent("/resolve/")
    assert before < 3 << 20 < file.size / 3
    time.sleep(0.2)
    assert hub.bytes_sent("/resolve/") == before  # the connection is closed, not left to run


def test_opening_a_file_lists_no_folder(hub):
    [file] = listed(C4)
    asked = len(hub.requests)
    read(file)
    assert not any("/tree/" in request.path for request in hub.requests[asked:])


def test_of_parquet_only_the_asked_columns_are_fetched(hub):
    [file] = listed("hf://datasets/owner/gated/b.parquet")
    assert read(file) == noise(30_000, seed=1)
    assert file.size / 3 < hub.bytes_sent("/resolve/") < file.size * 0.6


def test_of_parquet_only_the_taken_rows_are_fetched(hub):
    [file] = listed("hf://datasets/owner/gated/b.parquet")
    batches = read_batches(file, "text", batch_rows=100)
    assert next(batches)["text"].to_pylist() == noise(100, seed=1)
    batches.close()
    assert hub.bytes_sent("/resolve/") < file.size * 0.3


def test_a_cut_connection_is_taken_up_where_it_was_cut(hub):
    [file] = listed(C4)
    hub.fail(Failure("/resolve/", cut_after=300_000))
    assert read(file) == TEXTS
    first, second = downloads(hub)
    assert (first.sent, first.range) == (300_000, None)
    assert second.range is not None
    assert 0 < int(second.range.removeprefix("bytes=").rstrip("-")) <= 300_000


def test_a_connection_cut_again_and_again_is_no_damaged_file(hub):
    [file] = listed(C4)
    hub.fail(Failure("/resolve/", count=100, cut_after=1000))
    with pytest.raises(ValueError, match=r": http://127.* stopped answering .*; run the job again$") as caught:
        read(file)
    assert not isinstance(caught.value, UnreadableFile)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_waited_out(hub, waits, status):
    [file] = listed(C4)
    hub.fail(Failure("/resolve/", count=2, status=status))
    assert read(file) == TEXTS
    assert waits == [1, 2]


def test_the_hub_says_how_long_to_wait(hub, waits):
    [file] = listed(C4)
    hub.fail(Failure("/resolve/", status=429, headers={"Retry-After": "7"}))
    assert read(file) == TEXTS
    assert waits == [8]  # one more than it said


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (
            429,
            r"limits your requests \(429\); try again in some minutes, or log in with .* for a higher limit",
        ),
        (503, "answered 503; try again later"),
        (401, "does not accept your token; log in with `hf auth login` or set HF_TOKEN anew"),
        (403, r"refuses access \(403\); log in with `hf auth login` or set HF_TOKEN with a token that may read it"),
    ],
)
def test_a_failure_that_stays_is_given_up_within_half_a_minute(hub, waits, status, sentence):
    hub.fail(Failure("/tree/", count=100, status=status))
    with pytest.raises(ValueError, match=rf"^hf://datasets/allenai/c4/en/.*: http://127\.0\.0\.1:\d+ {sentence}$"):
        listed(C4)
    assert sum(waits) < 30


def test_an_unreachable_hub_is_said_at_once(monkeypatch, hub):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"http://127.* cannot be reached .*; check the network and HF_ENDPOINT$"):
        listed(C4)
    assert time.monotonic() - began < 5


def test_a_hub_that_goes_away_is_given_up_within_half_a_minute(monkeypatch, waits, root, tmp_path):
    with HubServer(root) as server:
        server.become_the_hub(monkeypatch, tmp_path / "home")
        [file] = listed(C4)
        [small] = listed("hf://datasets/allenai/c4/en/c4-validation.*")
        read(small)  # the driver and the worker have seen the dataset
    with pytest.raises(ValueError, match=r"cannot be reached .*; check the network and HF_ENDPOINT$"):
        read(file)
    assert 0 < sum(waits) < 30


@pytest.mark.parametrize("path", ["hf://datasets/allenai/c5/en/*.json.gz", "hf://datasets/owner/private/*.txt"])
def test_a_missing_and_a_private_dataset_look_the_same_and_both_ways_out_are_named(hub, path):
    with pytest.raises(ValueError, match=r"shows no \w+/\w+; check the name .* private, log in with `hf auth login`"):
        listed(path)


def test_a_dataset_named_as_a_model_is_told_its_prefix(hub):
    with pytest.raises(ValueError, match=r"shows no allenai/c4; a dataset's address begins with hf://datasets/; "):
        listed("hf://allenai/c4/en/*.json.gz")


def test_a_private_dataset_is_read_with_a_token(root, tmp_path, monkeypatch):
    with HubServer(root, private=["owner/gated"]) as server:
        server.become_the_hub(monkeypatch, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", server.token)
        assert read(listed("hf://datasets/owner/gated/*.txt")[0]) == ["one", "two"]


@pytest.mark.parametrize("name", ["a.txt", "b.parquet"])
@pytest.mark.parametrize("token", [None, "another"])
def test_a_gated_dataset_is_named_with_the_page_of_its_terms(root, tmp_path, monkeypatch, name, token):
    with HubServer(root, gated=["owner/gated"]) as server:
        server.become_the_hub(monkeypatch, tmp_path / "home")
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        [file] = listed(f"hf://datasets/owner/gated/{name}")
        with pytest.raises(ValueError, match=rf"gated; accept its terms at {server.url}/datasets/owner/gated, "):
            read(file)
        monkeypatch.setenv("HF_TOKEN", server.token)
        assert read(file)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("hf://datasets/allenai/c4@v9/en/*", "has no such revision; name a branch, tag or commit of"),
        ("hf://datasets/allenai/c4/en/none.json.gz", "no such file or folder; see what there is at"),
        ("hf://datasets/allenai/c4/none/a.json.gz", "no such file or folder; see what there is at"),
        ("hf://datasets/c4", "not an address on the hub; write hf://datasets/OWNER/NAME/FILES"),
        ("hf://datasets/all enai/c4/*", "not an address on the hub; write hf://datasets/OWNER/NAME/FILES"),
    ],
)
def test_a_wrong_address_is_told_in_a_sentence(hub, path, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        listed(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_server_that_is_no_hub_is_told_as_one(hub):
    hub.fail(Failure("/api/", status=200, body=b"<html>please log in to the network</html>"))
    with pytest.raises(
        ValueError, match=r"^hf://.* does not answer as a hub does .*; check HF_ENDPOINT and your proxy$"
    ):
        listed(C4)


def test_offline_mode_is_named(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE forbids the network; unset it or give a local copy"):
        listed(C4)
