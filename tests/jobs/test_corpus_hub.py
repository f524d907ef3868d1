"""jobs/corpus.py on C4, mC4 and object stores as they are far away: servers on loopback, and the real clients."""

import gzip
import json
import re
from contextlib import closing
from functools import partial
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data

from benchmarks.ports import free_ports
from embinv.data.settings import TextSource
from jobs.arguments import run_job
from jobs.corpus import main, make_corpus
from tests.hub import Failure, HubServer, c4_row, noise, write_c4, write_jsonl_gz
from tests.object_store import object_store as object_store_server

SHARDS, SHARD_TEXTS = 6, 200
MC4 = "hf://datasets/allenai/c4/multilingual/c4-{lang}.*.json.gz"
LANGUAGES = ["de", "fr", "ja"]
READ_DATASOURCE = ray.data.read_datasource

pytestmark = pytest.mark.usefixtures("ray_cluster")


def texts_of(lang, count):
    return [
        f"Text number {n} in the language {lang}, of which {n * n % 97} words are {lang} too." for n in range(count)
    ]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with allenai/c4, and room for more; one address for all tests, so that workers serve several of them."""
    root = tmp_path_factory.mktemp("hub")
    texts = {lang: texts_of(lang, SHARDS * SHARD_TEXTS) for lang in LANGUAGES}
    write_c4(root / "allenai" / "c4", english=texts_of("en", 300), multilingual=texts, shards=SHARDS)
    write_jsonl_gz(root / "owner" / "gated" / "a.json.gz", [c4_row(text) for text in texts_of("en", 30)])
    with HubServer(root, gated=["owner/gated"]) as server:
        yield server


@pytest.fixture(scope="module")
def object_store():
    """Variables that lead to an empty S3."""
    with object_store_server() as variables:
        yield variables


@pytest.fixture
def far(hub, object_store, tmp_path, monkeypatch):
    """The hub as this process and Ray's workers see it, with no request counted yet, and the object store."""
    hub.become_the_hub(monkeypatch, tmp_path / "home")
    for name, value in object_store.items():
        monkeypatch.setenv(name, value)
    # The cluster of the tests is older than the servers, so read tasks are told of them; all in the same words, since
    # other words mean other worker processes.
    variables = hub.environment(hub.root.parent / "home") | object_store
    read = partial(READ_DATASOURCE, runtime_env={"env_vars": variables})
    monkeypatch.setattr(ray.data, "read_datasource", read)
    hub.requests.clear()
    return hub


@pytest.fixture
def config(minilm):
    """Returns a config for sources (paths, or (path, lang)), with overrides."""

    def make(*sources, **data):
        config = minilm()
        config.data.sources = [
            TextSource(path=source) if isinstance(source, str) else TextSource(path=source[0], lang=source[1])
            for source in sources
        ]
        config.data = config.data.model_copy(update={"languages": [], "rows": None} | data)
        return config

    return make


def rows_of(out):
    return pa.concat_tables(pq.read_table(file) for file in sorted(out.glob("*.parquet"))).to_pylist()


def opened(hub):
    """Files that were downloaded, or begun to be."""
    return sorted({request.path for request in hub.requests if "/resolve/" in request.path and request.sent})


def langs_opened(hub):
    return [re.search(r"c4-(\w+)\.", path)[1] for path in opened(hub)]


def dataset(hub, name, shards):
    """Writes a dataset of lists of texts, one file each, and returns its glob."""
    for number, texts in enumerate(shards):
        write_jsonl_gz(hub.root / "owner" / name / f"{number:05d}.json.gz", [c4_row(text) for text in texts])
    return f"hf://datasets/owner/{name}/*.json.gz"


@pytest.mark.parametrize(
    ("shares", "expected"),
    [({}, {"de": 40, "fr": 40, "ja": 40}), ({"de": 0.5}, {"de": 60, "fr": 30, "ja": 30})],
    ids=["equal", "given"],
)
def test_languages_have_their_shares_of_one_file_each(far, config, tmp_path, shares, expected):
    out = tmp_path / "out"
    stats = make_corpus(config(MC4, languages=LANGUAGES, rows=120, shares=shares), out)
    assert stats["languages"] == expected and stats["rows"] == 120
    assert langs_opened(far) == LANGUAGES  # 18 files are there, and validation files beside them
    assert stats["files"] == 3 and stats["read"] == stats["rows"] + sum(stats["dropped"].values())
    rows = rows_of(out)
    assert len({row["id"] for row in rows}) == 120
    assert all(f"language {row['lang']}," in row["text"] for row in rows)
    changes = sum(one["lang"] != other["lang"] for one, other in pairwise(rows))
    assert changes > 50  # in the order in which files were read it would be 2
    assert not (tmp_path / "home").exists()  # nothing is kept in the hub's cache


def test_only_as_many_files_are_opened_as_the_rows_need(far, config, tmp_path):
    stats = make_corpus(config(MC4, languages=["de"], rows=3 * SHARD_TEXTS - 50), tmp_path / "out")
    assert stats["languages"] == {"de": 550}
    assert len(opened(far)) == stats["files"] == 3


def test_of_a_big_file_only_the_beginning_is_downloaded(far, config, tmp_path):
    source = dataset(far, "big", [noise(40_000)])
    size = (far.root / "owner" / "big" / "00000.json.gz").stat().st_size
    stats = make_corpus(config((source, "en"), rows=500), tmp_path / "out")
    assert stats["rows"] == 500
    assert far.bytes_sent("/resolve/") < 3 << 20 < size / 3


def test_files_without_a_language_are_not_read_whole_either(far, config, tmp_path):
    stats = make_corpus(config("hf://datasets/allenai/c4/en/*.json.gz", rows=30), tmp_path / "out")
    assert stats["languages"] == {"und": 30}
    assert stats["files"] < SHARDS + 1


def test_what_a_small_language_lacks_the_others_give(far, config, tmp_path):
    sources = [(dataset(far, "small", [texts_of("fi", 25)]), "fi"), (MC4.replace("{lang}", "de"), "de")]
    stats = make_corpus(config(*sources, rows=500), tmp_path / "out")
    assert stats["languages"] == {"de": 475, "fi": 25}


def test_a_file_that_was_left_is_taken_up_again_if_it_gave_too_many_copies(far, config, tmp_path):
    source = dataset(far, "copies", [texts_of("en", 30) * 5 + texts_of("en", 400)])
    stats = make_corpus(config((source, "en"), rows=200), tmp_path / "out")
    assert stats["rows"] == 200 and stats["files"] == 1
    assert stats["read"] == 200 + sum(stats["dropped"].values()) <= 550  # no row counts twice


def test_the_seed_decides_which_texts_come_and_in_which_order(far, config, tmp_path):
    def made(name, seed):
        make_corpus(config(MC4, languages=LANGUAGES, rows=60, seed=seed), tmp_path / name)
        return [row["id"] for row in rows_of(tmp_path / name)]

    first = made("a", 5)
    files = opened(far)
    assert made("b", 5) == first
    assert opened(far) == files
    assert set(made("c", 6)) != set(first)
    assert opened(far) != files  # others of the 18


def test_texts_are_kept_from_20_to_500_characters(far, config, tmp_path):
    lengths = [19, 20, 21, 499, 500, 501, 5000]
    source = dataset(far, "lengths", [[("word " * 1000)[: n - 1] + "." for n in lengths]])
    stats = make_corpus(config((source, "en")), tmp_path / "out")
    assert sorted(len(row["text"]) for row in rows_of(tmp_path / "out")) == [20, 21, 499, 500]
    assert stats["dropped"] == {"too_long": 2, "too_short": 1}


def cut(hub, name, shard, share):
    path = hub.root / "owner" / name / f"{shard:05d}.json.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def test_a_damaged_file_gives_its_good_rows_and_is_named_with_its_reason(far, config, tmp_path):
    shards = [[f"{n} {text}" for text in noise(200, chars=100, seed=n)] for n in range(11)]
    source = dataset(far, "damaged", shards)
    cut(far, "damaged", 4, 0.5)
    out = tmp_path / "out"
    stats = make_corpus(config((source, "en")), out)
    url = "hf://datasets/owner/damaged/00004.json.gz"
    assert list(stats["rejected_files"]) == [url]
    [note] = (out / "_rejected").iterdir()
    assert json.loads(note.read_text()) == {"file": url, "reason": stats["rejected_files"][url]}
    kept = [row["text"] for row in rows_of(out)]
    assert {text for n, shard in enumerate(shards) if n != 4 for text in shard} <= set(kept)
    before = [text for text in kept if text in shards[4]]
    assert 50 < len(before) < 150 and set(before) == set(shards[4][: len(before)])


def test_more_damage_than_allowed_ends_the_job_and_leaves_nothing(far, config, tmp_path):
    source = dataset(far, "worse", [texts_of("en", 50), texts_of("en", 90)[50:]])
    cut(far, "worse", 1, 0.5)
    with pytest.raises(
        ValueError, match=r"1 of 2 input files cannot be read, .*max_rejected \(0\.1\).*00001\.json\.gz"
    ):
        make_corpus(config((source, "en")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert make_corpus(config((source, "en"), max_rejected=0.5), tmp_path / "out")["rows"] >= 50


def test_a_first_file_without_one_good_row_does_not_end_its_language(far, config, tmp_path):
    source = dataset(
        far, "poor", [["short"] * 50, ["brief"] * 50, *(texts_of("en", 90 * n)[-90:] for n in range(1, 9))]
    )
    for seed in range(20):  # until a poor file comes first
        far.requests.clear()
        stats = make_corpus(config((source, "en"), rows=100, seed=seed), tmp_path / f"out{seed}")
        assert stats["languages"] == {"en": 100}
        if stats["dropped"].get("too_short"):
            return
    raise AssertionError("no poor file was read")


def no_hub(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")


FAILURES = {
    "a language without files": (
        MC4,
        ["data.languages=[de, xx]"],
        None,
        r"hf://datasets/allenai/c4/multilingual/c4-xx\.\*\.json\.gz: matches no file; .* has files for de, fr, ja; "
        r"mend data\.languages",
    ),
    "no language named": (MC4, ["data.languages=[]"], None, r"holds \{lang\}, but data\.languages names no language"),
    "a gated dataset": (
        "hf://datasets/owner/gated/*.json.gz",
        [],
        None,
        r"hf://datasets/owner/gated/a\.json\.gz: the dataset is gated; accept its terms at http://\S+/datasets/owner/"
        r"gated, then log in with `hf auth login` or set HF_TOKEN",
    ),
    "a renamed dataset": (
        "hf://datasets/allenai/c5/*.json.gz",
        [],
        None,
        r"hf://datasets/allenai/c5/\*\.json\.gz: http://\S+ shows no allenai/c5; check the name .*renamed",
    ),
    "no hub": (
        MC4,
        ["data.languages=[de]"],
        no_hub,
        r"http://\S+ cannot be reached \(.*check the network and HF_ENDPOINT",
    ),
}


@pytest.mark.parametrize(("source", "overrides", "prepare", "sentence"), FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("dry", [False, True], ids=["job", "dry-run"])
def test_what_cannot_be_reached_is_told_in_one_sentence(
    far, tmp_path, monkeypatch, capfd, source, overrides, prepare, sentence, dry
):
    if prepare:
        prepare(monkeypatch)
    arguments = ["--config", "configs/minilm.yaml", "--texts", source, "--rows", "50", "--out", str(tmp_path / "out")]
    arguments += [part for override in overrides for part in ("--set", override)]
    with pytest.raises(SystemExit) as ended:
        run_job(lambda: main(arguments + ["--dry-run"] * dry))
    assert ended.value.code == 2
    told = capfd.readouterr()
    [error] = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert re.search(sentence, error)
    assert "Traceback" not in told.out + told.err
    assert list(tmp_path.iterdir()) == []


def test_a_hub_that_dies_in_the_middle_is_no_damaged_file_and_nothing_is_left(far, tmp_path, capfd):
    source = dataset(far, "dying", [noise(20_000)])
    far.fail(Failure("/owner/dying/resolve/", cut_after=1 << 20))
    far.fail(Failure("/owner/dying/resolve/", count=1000, cut_after=0))
    with pytest.raises(SystemExit) as ended:
        run_job(lambda: main(["--config", "configs/minilm.yaml", "--texts", source, "--out", str(tmp_path / "out")]))
    told = capfd.readouterr()
    assert ended.value.code == 2 and "Traceback" not in told.out + told.err
    [error] = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert re.search(r"owner/dying/00000\.json\.gz: http://\S+ stopped answering \(.*\); run the job again$", error)
    assert far.bytes_sent("/owner/dying/") >= 1 << 20
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_fetches_the_beginning_of_a_file_a_language_and_writes_nothing(far, tmp_path, capsys):
    arguments = ["--texts", MC4, "--set", "data.languages=[de, fr]", "--rows", "600", "--dry-run"]
    main(["--config", "configs/minilm.yaml", *arguments, "--out", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert langs_opened(far) == ["de", "fr"]
    for lang in ("de", "fr"):
        [line] = [line for line in shown.splitlines() if line.startswith(f"{lang} ")]
        cells = re.split(r"  +", line)
        assert cells[1:3] == ["100% of 200", "~315"]
        assert cells[4] == str(SHARDS) and cells[6] == "~300"
    assert "in all about 600 rows" in shown and "nothing was written" in shown
    assert list(tmp_path.iterdir()) == []


def test_texts_come_from_an_object_store(far, tmp_path):
    s3fs = pytest.importorskip("s3fs")
    import boto3

    s3fs.S3FileSystem.clear_instance_cache()  # that of another test has another address
    with closing(boto3.client("s3")) as client:
        client.create_bucket(Bucket="texts")
        for lang in ("de", "fr"):
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts_of(lang, 50))
            client.put_object(Bucket="texts", Key=f"deep/{lang}.jsonl.gz", Body=gzip.compress(lines.encode()))
    out = tmp_path / "out"
    arguments = ["--texts", "s3://texts/deep/{lang}.jsonl.gz", "--set", "data.languages=[de, fr]", "--rows", "60"]
    main(["--config", "configs/minilm.yaml", *arguments, "--out", str(out)])
    assert json.loads((out / "_stats.json").read_text())["languages"] == {"de": 30, "fr": 30}


@pytest.mark.nightly
def test_a_job_of_its_own_survives_a_dying_hub_and_a_kill(start_job, tmp_path):
    """What a person does: the command, its whole output, and the same command again."""
    for number in range(2):
        rows = [c4_row(text) for text in noise(20_000, seed=number)]
        write_jsonl_gz(tmp_path / "hub" / "owner" / "long" / f"{number:05d}.json.gz", rows)
    out, begun = tmp_path / "out", tmp_path / ".out.partial"
    command = ["jobs/corpus.py", "--config", "configs/minilm.yaml", "--texts", "hf://datasets/owner/long/*.json.gz"]
    command += ["--rows", "30000", "--out", out]

    def start(hub, *more):
        return start_job(*command, *more, environment=hub.environment(tmp_path / "home"))

    with HubServer(tmp_path / "hub") as hub:
        hub.fail(Failure("/resolve/", cut_after=1 << 20))
        hub.fail(Failure("/resolve/", count=100, delay=60))
        job = start(hub)
        job.until(lambda: len([request for request in hub.requests if "/resolve/" in request.path]) > 1)
    code, output = job.finish()  # the hub died after 1 MiB
    assert code == 2 and "Traceback" not in output
    [error] = [line for line in output.splitlines() if line.startswith("error: ")]
    assert re.search(
        r"hf://datasets/owner/long/0000\d\.json\.gz: http://\S+ (stopped answering|cannot be reached)", error
    )
    assert not out.exists() and not begun.exists()

    with HubServer(tmp_path / "hub") as hub:
        hub.fail(Failure("/resolve/", cut_after=1 << 20))
        hub.fail(Failure("/resolve/", count=100, delay=60))
        job = start(hub)
        job.until(lambda: hub.bytes_sent("/resolve/") >= 1 << 20)
        assert job.kill() > 3 and not out.exists() and begun.exists()

    with HubServer(tmp_path / "hub") as hub:
        code, output = start(hub).finish()
        assert code == 0 and f"30,000 texts in {out}" in output
        assert len(rows_of(out)) == 30_000 and not begun.exists()
        before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
        hub.requests.clear()
        code, output = start(hub).finish()
        assert code == 0 and "all done before, 30,000 texts" in output and not hub.requests
        code, output = start(hub, "--set", "data.seed=9").finish()
        assert code == 2 and "made with another data.seed (0, not 9)" in output
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
