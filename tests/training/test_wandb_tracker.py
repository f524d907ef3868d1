"""embinv/training/wandb_tracker.py with the real client in offline mode: what it would send is read from its files."""

import json
import struct
import time

import pytest

from embinv.training.tracking import TrackedRun
from embinv.training.wandb_tracker import WandbTracker

BLOCK = 32 * 1024  # of a LevelDB log, which is what the client writes


def records(path):
    """The records of a .wandb file: after 7 bytes of header, blocks of (crc, length, type) and a part of a record."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), 7, b""
    while place < len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a record in one part, or its last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def sent(folder):
    """(run id, exit code, settings, rows of figures) of each sitting, in their order."""
    sittings = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        run_id, code, settings, rows = None, None, {}, []
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run_id = record.run.run_id
                settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "exit":
                code = record.exit.exit_code
            elif kind == "history":
                items = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                rows.append((record.history.step.num, items))
        sittings.append((run_id, code, settings, rows))
    return sittings


@pytest.fixture(scope="module")
def sittings(tmp_path_factory):
    """A run of two sittings: the second one goes on from step 20 of 30."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_DIR"):
            patch.delenv(name, raising=False)
        folder = tmp_path_factory.mktemp("wandb")
        picture = folder / "training.png"
        picture.write_bytes(PIXEL)
        first = WandbTracker(TrackedRun(folder, "tiny", {"training": {"seed": 3}}, 0))
        for step in (10, 20, 30):
            first.scalars(step, {"train/loss": float(step)})
        first.scalars(30, {"validation/nelbo": 4.0})
        first.table(30, "examples", ["id", "original"], [["1", "é"]])
        first.picture(30, "training", picture)
        first.close(finished=False)
        [began] = folder.glob("wandb/offline-run-*")
        while time.time() < began.stat().st_ctime + 1:  # the client names its folders by the second
            time.sleep(0.05)
        second = WandbTracker(TrackedRun(folder, "tiny", {"training": {"seed": 3}}, 20))
        for step in (25, 30, 40):
            second.scalars(step, {"train/loss": -float(step)})
        second.table(30, "examples", ["id", "original"], [["1", "é"]])
        second.picture(30, "training", picture)
        second.close(finished=True)
        second.wandb.teardown()  # its service has written everything
        yield folder, sent(folder)


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db0"
    "0000000049454e44ae426082"
)


def figures(rows, name):
    return [(step, items[name]) for step, items in rows if name in items]


def test_both_sittings_are_one_run(sittings):
    folder, [(first, failed, settings, _), (second, finished, _, _)] = sittings
    assert first == second == json.loads((folder / "wandb-run.json").read_text())["id"]
    assert (failed, finished) == (1, 0)
    assert settings["training"] == {"seed": 3}


def test_figures_come_by_step_and_none_twice(sittings):
    _, [(*_, before), (*_, after)] = sittings
    assert figures(before, "train/loss") == [(10, 10.0), (20, 20.0), (30, 30.0)]
    assert figures(before, "validation/nelbo") == [(30, 4.0)]
    assert figures(after, "train/loss") == [(40, -40.0)]


def test_texts_and_the_plot_are_sent_once(sittings):
    folder, [(*_, before), (*_, after)] = sittings
    assert figures(before, "examples/_type") == [(30, "table-file")]
    [path] = folder.glob("wandb/offline-run-*/files/media/table/*.json")
    assert json.loads(path.read_text())["data"] == [["1", "é"]]
    assert figures(before, "training/_type") == [(30, "image-file")]
    assert len(list(folder.glob("wandb/offline-run-*/files/media/images/*.png"))) == 1
    assert not figures(after, "examples/_type") and not figures(after, "training/_type")


def test_machine_code_and_packages_stay_here(sittings):
    folder, _ = sittings
    kept = {path.name for path in folder.glob("wandb/offline-run-*/files/*")}
    assert kept <= {"media", "config.yaml", "wandb-summary.json"}
    assert all("hostname" not in path.read_text() for path in folder.glob("wandb/offline-run-*/files/*.json"))
