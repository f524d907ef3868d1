"""`embinv backup` and `embinv restore` as a person types them, on a checkpoint that inverts."""

from datetime import UTC, datetime, timedelta

import pytest

from embinv.backups.manifest import STAMP
from embinv.cli import main
from embinv.inverter import load_inverter
from tests.fakes import hash_spec, tiny_checkpoint, unit_vectors, word_tokenizer


@pytest.fixture
def checkpoint(tmp_path):
    tiny_checkpoint(tmp_path / "checkpoint", word_tokenizer(tmp_path / "words"), hash_spec(16))
    return tmp_path / "checkpoint"


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_goes_and_comes_back_and_inverts_as_before(checkpoint, tmp_path, capsys):
    place = str(tmp_path / "backups")
    main(["backup", "--checkpoint", str(checkpoint), "--to", place, "--keep", "3"])
    name = capsys.readouterr().out.strip().rpartition("/")[2]
    main(["backup", "--list", "--to", place])
    said = capsys.readouterr().out
    assert name in said and "1 whole backups" in said
    for source, folder in ((place, "one"), (f"{place}/{name}", "two")):
        main(["restore", "--from", source, "--checkpoint", str(tmp_path / folder)])
        texts = [each.text for each in load_inverter(tmp_path / folder).invert(unit_vectors(3, 16))]
        assert texts == [each.text for each in load_inverter(checkpoint).invert(unit_vectors(3, 16))]
    main(["backup", "--verify", "--to", place])
    assert "all is as backup.json says" in capsys.readouterr().out


def test_a_damaged_backup_ends_verify_with_its_name(checkpoint, tmp_path, capsys):
    place = tmp_path / "backups"
    main(["backup", "--checkpoint", str(checkpoint), "--to", str(place)])
    [backup] = place.iterdir()
    (backup / "vocabulary.safetensors").unlink()
    (place / "holidays").mkdir()
    told = refused(capsys, "backup", "--verify", backup.name, "--to", place)
    assert told == f"error: --verify: {backup.name} cannot be restored; make a new backup, and delete these"
    assert refused(capsys, "backup", "--verify", "--to", place) == told  # a stranger's folder is nobody's backup
    assert "vocabulary.safetensors is missing" in refused(
        capsys, "restore", "--from", place, "--checkpoint", tmp_path / "again"
    )
    assert not (tmp_path / "again").exists()


def test_verify_of_a_place_without_a_backup_is_no_success(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "mistyped"):
        assert f"--to {place}: holds no whole backup" in refused(capsys, "backup", "--verify", "--to", place)


def copy_without_manifest(place, age):
    name = f"tiny-{(datetime.now(UTC) - age).strftime(STAMP)}-0123456789ab"
    (place / name).mkdir(parents=True)
    (place / name / "config.json").write_text("{}")
    return name


def test_verify_leaves_alone_what_another_process_may_be_writing_and_names_what_was_cut_short_long_ago(
    checkpoint, tmp_path, capsys
):
    place = tmp_path / "backups"
    young = copy_without_manifest(place, timedelta(minutes=5))
    assert "holds no whole backup" in refused(capsys, "backup", "--verify", "--to", place)
    main(["backup", "--checkpoint", str(checkpoint), "--to", str(place)])
    main(["backup", "--verify", "--to", str(place)])
    said = capsys.readouterr()
    assert f"{young}: not whole yet" in said.out + said.err and "all is as backup.json says" in said.out
    assert f"--verify: {young} cannot be restored" in refused(capsys, "backup", "--verify", young, "--to", place)
    old = copy_without_manifest(place, timedelta(days=2))
    assert f"--verify: {old} cannot be restored" in refused(capsys, "backup", "--verify", "--to", place)


def test_what_is_not_there_is_named(checkpoint, tmp_path, capsys):
    assert "holds no backup of a checkpoint" in refused(
        capsys, "restore", "--from", tmp_path / "none", "--checkpoint", tmp_path / "x"
    )
    assert "has no whole backup of this name, but none" in refused(
        capsys, "restore", "--from", tmp_path / "none", "--name", "x", "--checkpoint", tmp_path / "x"
    )
    assert "--run" in refused(capsys, "backup", "--run", checkpoint, "--to", tmp_path / "b")
    assert "--label a/b: give letters" in refused(
        capsys, "backup", "--checkpoint", checkpoint, "--to", tmp_path / "b", "--label", "a/b"
    )
