"""Backups are whole or none, are read back, and come back byte for byte, on disk and in an object store."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from embinv.backups import keeping
from embinv.backups.keeping import back_up, damage
from embinv.backups.manifest import MANIFEST_FILE, Manifest
from embinv.backups.place import Damaged, Place
from embinv.backups.restoring import choose, restore


def bytes_of(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def whole(folder):
    """What of a checkpoint belongs into a backup."""
    return {name: content for name, content in bytes_of(folder).items() if not name.startswith(".")}


def spoil(place, name, inside, content):
    """Damages a file of a backup behind its back; None deletes it."""
    path = f"{place._root}/{name}/{inside}"
    if content is None:
        place._store.rm_file(path)
    else:
        place._store.pipe_file(path, content)


@pytest.fixture
def clock(monkeypatch):
    """Makes each backup a minute younger than the one before."""
    now = [datetime(2026, 11, 20, tzinfo=UTC)]

    class Clock(datetime):
        @classmethod
        def now(cls, zone=None):
            now[0] += timedelta(minutes=1)
            return now[0]

    monkeypatch.setattr("embinv.backups.manifest.datetime", Clock)
    return now


def several(checkpoint, place, count, keep=None):
    """As many backups of contents that differ."""
    found = []
    for number in range(count):
        (checkpoint / "README.md").write_text(f"version {number}")
        found.append(back_up(checkpoint, place, keep=keep))
    return found


def test_what_is_backed_up_comes_back_byte_for_byte(checkpoint, place, tmp_path):
    kept = back_up(checkpoint, place)
    assert kept.is_new and kept.manifest.label == "tiny" and damage(place, kept.manifest) == []
    assert restore(place, choose(place, "checkpoint", None), tmp_path / "again")
    assert bytes_of(tmp_path / "again") == whole(checkpoint)


def test_the_same_content_is_not_copied_twice(checkpoint, place, clock):
    first = back_up(checkpoint, place)
    second = back_up(checkpoint, place)
    assert not second.is_new and second.manifest == first.manifest
    assert place.names() == [first.manifest.name]


def test_the_same_content_is_copied_again_where_the_copy_is_damaged(checkpoint, place, clock):
    first = back_up(checkpoint, place)
    spoil(place, first.manifest.name, "config.json", b"{}")
    second = back_up(checkpoint, place)
    assert second.is_new and damage(place, second.manifest) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"short", "has 5 bytes, not 300,000"), (bytes(300_000), "has another content"), (None, "is missing")],
)
def test_a_damaged_backup_is_told_and_not_restored_over_anything(checkpoint, place, tmp_path, content, told):
    kept = back_up(checkpoint, place)
    before = bytes_of(checkpoint)
    (checkpoint / "README.md").write_text("newer")
    spoil(place, kept.manifest.name, "model.safetensors", content)
    assert damage(place, kept.manifest) == [f"model.safetensors {told}"]
    for target in (checkpoint, tmp_path / "new"):
        with pytest.raises(ValueError, match=f"is damaged \\(model.safetensors {told}\\), and .* was left as it is"):
            restore(place, kept.manifest, target, overwrite=True)
    assert bytes_of(checkpoint) == {**before, "README.md": b"newer"}
    assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir() if "restored" in path.name] == []


@pytest.mark.parametrize("at", ["config.json", "model.safetensors", "deeper/notes.txt"])
def test_a_copy_that_was_cut_short_is_no_backup(checkpoint, place, monkeypatch, at):
    class Killed(BaseException):
        pass

    put = Place.put

    def put_until(self, name, inside, source):
        if inside == at:
            raise Killed
        return put(self, name, inside, source)

    monkeypatch.setattr(Place, "put", put_until)
    with pytest.raises(Killed):
        back_up(checkpoint, place)
    monkeypatch.setattr(Place, "put", put)
    assert place.manifests() == []
    with pytest.raises(ValueError, match="holds no backup of a checkpoint"):
        choose(place, "checkpoint", None)
    assert back_up(checkpoint, place).is_new


def test_what_changes_while_it_is_copied_is_no_backup(checkpoint, place, monkeypatch):
    put = Place.put

    def put_and_train(self, name, inside, source):
        (checkpoint / "model.safetensors").write_bytes(b"newer weights")
        return put(self, name, inside, source)

    monkeypatch.setattr(Place, "put", put_and_train)
    with pytest.raises(ValueError, match=r"model\.safetensors changed while it was copied, and no backup was made"):
        back_up(checkpoint, place)
    assert place.manifests() == []


def test_the_oldest_go_once_the_new_one_is_whole(checkpoint, place, clock):
    made = [each.manifest.name for each in several(checkpoint, place, 4)]
    (checkpoint / "README.md").write_text("last")
    newest = back_up(checkpoint, place, keep=2)
    assert set(newest.deleted) == set(made[:3])
    assert place.names() == sorted([made[3], newest.manifest.name])
    assert damage(place, newest.manifest) == []


def test_pruning_spares_other_names_strangers_and_young_copies(checkpoint, place, clock):
    back_up(checkpoint, place, label="other")
    old, young = "tiny-20200101T000000Z-0123456789ab", f"tiny-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-0123456789ab"
    for name in (old, young, "holidays"):
        spoil(place, name, "model.safetensors", b"half") if not place.is_local else None
        if place.is_local:
            (Path(place.url) / name).mkdir(parents=True)
            (Path(place.url) / name / "model.safetensors").write_bytes(b"half")
    several(checkpoint, place, 3, keep=1)
    names = place.names()
    assert {"holidays", young} <= set(names) and old not in names
    assert sorted(each.label for each in place.manifests()) == ["other", "tiny"]


def test_nothing_is_deleted_if_the_new_backup_does_not_come_out_whole(checkpoint, place, clock, monkeypatch):
    made = [each.manifest.name for each in several(checkpoint, place, 2)]
    (checkpoint / "README.md").write_text("last")
    monkeypatch.setattr(keeping, "damage", lambda *given: ["config.json has another content"])
    with pytest.raises(ValueError, match="gives back other files than were written"):
        back_up(checkpoint, place, keep=1)
    assert [each.name for each in place.manifests()] == made[::-1]


def test_a_checkpoint_is_replaced_only_if_told_so(checkpoint, place):
    kept = back_up(checkpoint, place)
    (checkpoint / "README.md").write_text("newer")
    with pytest.raises(ValueError, match="holds another checkpoint; give --overwrite"):
        restore(place, kept.manifest, checkpoint)
    assert restore(place, kept.manifest, checkpoint, overwrite=True)
    assert not restore(place, kept.manifest, checkpoint)  # it is there
    assert not (checkpoint / "README.md").exists()


def test_a_folder_of_something_else_is_never_replaced(checkpoint, place, tmp_path):
    kept = back_up(checkpoint, place)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.doc").write_text("x")
    with pytest.raises(ValueError, match="holds something that is no checkpoint"):
        restore(place, kept.manifest, tmp_path / "thesis", overwrite=True)
    assert bytes_of(tmp_path / "thesis") == {"thesis.doc": b"x"}


def test_a_run_comes_back_with_its_saves_and_without_its_data(checkpoint, place, tmp_path):
    run = checkpoint.parent
    (run / "_run.json").write_text(json.dumps({"config": {"name": "tiny"}}))
    for name in (
        "state-0123/step-5/rank-0.pt",
        "pairs/split=train/a.parquet",
        "texts/part-0.parquet",
        "last/config.json",
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    back_up(run, place, "run")
    restore(place, choose(place, "run", None), tmp_path / "again")
    found = bytes_of(tmp_path / "again")
    assert found["state-0123/step-5/rank-0.pt"] == b"state-0123/step-5/rank-0.pt"
    assert found["_run.json"] and found["checkpoint/model.safetensors"] and found["last/config.json"]
    assert not any(name.startswith(("pairs", "texts", "checkpoint/.")) for name in found)
    (run / "train.log").write_text("one more line")
    with pytest.raises(ValueError, match="is not empty; restore a run into a new folder"):
        restore(place, choose(place, "run", None), run, overwrite=True)
    with pytest.raises(ValueError, match="give --run DIR"):
        choose(place, "checkpoint", place.names()[0])


def test_a_manifest_that_leads_outside_is_refused(checkpoint, tmp_path):
    place = Place(str(tmp_path / "backups"))
    name = back_up(checkpoint, place).manifest.name
    path = tmp_path / "backups" / name / MANIFEST_FILE
    tree = json.loads(path.read_text())
    for bad in ("../../evil", "/etc/evil", "a/../../b", ""):
        tree["files"] = {bad: {"bytes": 1, "sha256": "0" * 64}}
        path.write_text(json.dumps(tree))
        with pytest.raises(Damaged, match="is no path inside a backup"):
            place.manifest(name)
    path.write_text("{")
    with pytest.raises(Damaged, match=r"backup\.json cannot be read"):
        place.manifest(name)
    assert place.manifests() == []


def test_a_backup_that_was_renamed_or_copied_elsewhere_is_not_taken_for_the_newest(checkpoint, tmp_path):
    place = Place(str(tmp_path / "backups"))
    name = back_up(checkpoint, place).manifest.name
    shutil.move(tmp_path / "backups" / name, tmp_path / "backups" / "mine")
    assert place.manifests() == [] and isinstance(place.manifest("mine"), Manifest)


def test_places_that_cannot_be_used_are_named(tmp_path, checkpoint):
    with pytest.raises(ValueError, match="backups lie in a folder, or under s3:// or gs://"):
        Place("hf://datasets/a/b")
    with pytest.raises(ValueError, match="ftp:// is not known"):
        Place("ftp://host/x")
    with pytest.raises(ValueError, match=r"no config\.json; give a folder that jobs/train\.py wrote"):
        back_up(tmp_path, Place(str(tmp_path / "b")))
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(ValueError, match="give --label NAME to copy it all the same"):
        back_up(checkpoint, Place(str(tmp_path / "b")))


def test_a_store_that_is_away_is_told_in_a_sentence(checkpoint, s3_environment, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    with pytest.raises(ValueError, match=r"^s3://.*: cannot be reached \(.*127\.0\.0\.1:9"):
        back_up(checkpoint, Place(s3_environment))
    with pytest.raises(ValueError, match="cannot be reached"):
        Place(s3_environment).names()
