"""A checkpoint that the code of 20 November 2026 wrote (format 1): read as it is, upgraded, and the same afterwards.

tests/data/format_1 was made once by that code (commit d3a69cc): a checkpoint of random weights, the pairs whose
statistics it holds, and what it made of the first twelve vectors.
"""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from embinv import upgrading
from embinv.checkpoint import STATISTICS_FILE, load_checkpoint, read_checkpoint_config
from embinv.checkpoint_versions import FORMAT_VERSION
from embinv.cli import main
from embinv.data.identity import checksum
from embinv.data.pairs import read_pairs
from embinv.inverter import load_inverter
from embinv.upgrading import upgrade_checkpoint
from tests.fakes import write_pairs
from tests.provenance_checks import require_provenance

GIVEN = Path(__file__).parent / "data" / "format_1"
PAIRS = GIVEN / "pairs"


@pytest.fixture
def old(tmp_path):
    shutil.copytree(GIVEN / "checkpoint", tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def recovered(folder):
    vectors = read_pairs(PAIRS, "train").embeddings[:12].astype(np.float32)
    return [each.text for each in load_inverter(folder, precision="float32").invert(vectors, steps=4)]


def as_then():
    return [each["text"] for each in json.loads((GIVEN / "texts.json").read_text())["texts"]]


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def rewrite(folder, **changes):
    tree = {name: value for name, value in (config_of(folder) | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(tree))


def test_an_old_folder_inverts_to_what_the_code_of_its_time_made_and_is_left_as_it_is(old):
    before = contents(old)
    assert config_of(old)["format_version"] == 1 and STATISTICS_FILE not in before
    assert recovered(old) == as_then()
    config = read_checkpoint_config(old)
    assert (config.format_version, config.family, config.written_by) == (FORMAT_VERSION, "mdlm", None)
    assert contents(old) == before


def test_an_upgraded_folder_is_of_today_keeps_the_older_json_and_inverts_to_the_same(old):
    before = contents(old)
    done = upgrade_checkpoint(old)
    assert (done.before, done.after, done.added) == (1, FORMAT_VERSION, ())
    assert config_of(old)["format_version"] == FORMAT_VERSION
    after = contents(old)
    assert after.keys() - before.keys() == {"config.format-1.json", "provenance.json"}
    assert after["config.format-1.json"] == before["config.json"]
    assert {name for name in before if after[name] != before[name]} == {"config.json"}
    assert recovered(old) == as_then()
    require_provenance(old, "embinv upgrade")


def test_the_older_config_can_be_put_back(old):
    upgrade_checkpoint(old, PAIRS)
    shutil.copyfile(old / "config.format-1.json", old / "config.json")
    assert read_checkpoint_config(old) == read_checkpoint_config(GIVEN / "checkpoint")
    assert recovered(old) == as_then()
    assert upgrade_checkpoint(old).before == 1


def test_reading_and_upgrading_come_to_the_same_config(old):
    read = read_checkpoint_config(old)
    upgrade_checkpoint(old)
    assert read_checkpoint_config(old) == read


def test_what_is_of_today_is_left_alone(old):
    upgrade_checkpoint(old)
    before, times = contents(old), {path: path.stat().st_mtime_ns for path in old.iterdir()}
    assert not upgrade_checkpoint(old).is_changed
    assert contents(old) == before and {path: path.stat().st_mtime_ns for path in old.iterdir()} == times


def test_a_folder_that_says_no_family_is_known_by_its_fields(old):
    rewrite(old, family=...)
    upgrade_checkpoint(old)
    assert config_of(old)["family"] == "mdlm"
    assert recovered(old) == as_then()


def test_the_pairs_it_learnt_from_give_what_it_lacks(old):
    assert load_checkpoint(old).shape is None
    done = upgrade_checkpoint(old, PAIRS)
    assert done.added == ("training.train_ids", STATISTICS_FILE)
    loaded, ids = load_checkpoint(old), read_pairs(PAIRS, "train").ids
    assert loaded.shape is not None and loaded.shape.spectrum.sum() == pytest.approx(1.0, abs=1e-5)
    assert (loaded.config.training["train_rows"], loaded.config.training["train_ids"]) == (len(ids), checksum(ids))
    assert loaded.config.statistics == read_checkpoint_config(GIVEN / "checkpoint").statistics
    assert recovered(old) == as_then()
    assert not upgrade_checkpoint(old, PAIRS).is_changed


@pytest.mark.parametrize("known_by", ["statistics", "train_ids"])
def test_other_pairs_are_refused_and_nothing_is_changed(old, tmp_path, known_by):
    pairs = read_pairs(PAIRS, "train")
    if known_by == "train_ids":
        upgrade_checkpoint(old, PAIRS)
    (tmp_path / "others").mkdir()
    write_pairs(tmp_path / "others", read_checkpoint_config(old).pairs, pairs.take(np.arange(1, 60)))
    before = contents(old)
    with pytest.raises(
        ValueError,
        match=rf"holds other texts than .* learnt from \({'rows' if known_by == 'statistics' else 'train_ids'}: ",
    ):
        upgrade_checkpoint(old, tmp_path / "others")
    assert contents(old) == before


def test_as_many_vectors_of_another_mean_are_other_pairs(old, tmp_path):
    pairs = read_pairs(PAIRS, "train")
    pairs.embeddings[:, 0] += np.float16(0.01)
    write_pairs(tmp_path / "others", read_checkpoint_config(old).pairs, pairs)
    with pytest.raises(ValueError, match="holds other texts than"):
        upgrade_checkpoint(old, tmp_path / "others")


def test_a_checkpoint_that_knows_nothing_of_its_texts_takes_no_pairs(old):
    rewrite(old, statistics=None)
    with pytest.raises(ValueError, match="says nothing of what it learnt from"):
        upgrade_checkpoint(old, PAIRS)
    assert upgrade_checkpoint(old).is_changed


@pytest.mark.parametrize("at", ["_copy", "_put", "load_checkpoint", "replace_folder", "after"])
def test_killed_at_any_moment_a_folder_that_inverts_is_there_and_can_be_upgraded(old, at):
    child = os.fork()
    if not child:
        die = lambda *given: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        upgrading.load_checkpoint = lambda folder: None  # torch is not to run in a fork
        if at == "after":
            upgrading.shutil.rmtree = lambda path, ignore_errors: (old / "config.format-1.json").exists() and die()
        else:
            setattr(upgrading, at, die)
        upgrade_checkpoint(old)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert config_of(old)["format_version"] == (FORMAT_VERSION if at == "after" else 1)
    assert recovered(old) == as_then()
    upgrade_checkpoint(old)
    assert config_of(old)["format_version"] == FORMAT_VERSION and recovered(old) == as_then()
    assert [path.name for path in old.parent.iterdir()] == ["checkpoint"]


def test_a_damaged_folder_is_not_replaced(old):
    (old / "model.safetensors").write_bytes(b"half")
    before = contents(old)
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        upgrade_checkpoint(old)
    assert contents(old) == before and [path.name for path in old.parent.iterdir()] == ["checkpoint"]


def test_by_the_command_line(old, capsys):
    main(["upgrade", "--checkpoint", str(old), "--data", str(PAIRS)])
    said = capsys.readouterr().out
    assert "format 1 -> 2; the older config.json is config.format-1.json" in said and "added statistics" in said
    main(["upgrade", "--checkpoint", str(old)])
    assert "the newest; nothing to do" in capsys.readouterr().out
    main(["upgrade", "--data", str(PAIRS)])
    assert "pairs of version 1, the newest" in capsys.readouterr().out
    rewrite(old, format_version=9, written_by="8.0.0")
    for words in (["upgrade", "--checkpoint", str(old)], ["upgrade"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "install embinv 8.0.0 or newer" in capsys.readouterr().err
