"""jobs/train.py under faults that are real: killed processes, a lost node, a full disk, vectors that are no numbers.

A run that can go on does so by itself, or when asked, and comes to the end that nobody disturbed. One that cannot ends
in a sentence, and leaves what it had saved whole. tests/jobs/test_train_resume.py is about which save is taken.
"""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch

import jobs.train
from embinv.checkpoint import load_checkpoint
from embinv.data.pairs import batch_rows, read_pairs
from embinv.data.schema import fixed_size_list, matrix
from jobs.arguments import run_job
from jobs.train import train
from jobs.train_identity import identity_of
from jobs.train_manifest import fault_of
from tests.jobs.training_runs import (
    distance,
    log_of,
    progress_of,
    record_of,
    require_same_state,
    require_told_once,
    saves_of,
    training_processes,
    validations_of,
    weights_of,
)
from tests.provenance_checks import require_provenance

STEPS = 60
VALIDATED = range(10, STEPS + 1, 10)
LONG = (f"training.max_steps={STEPS}", "training.validations=6", "training.batch_size=64")


@pytest.fixture(scope="module")
def undisturbed(ray_cluster, tiny, tiny_pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    train(tiny(*LONG), tiny_pairs, out, resume=False)
    return out


@pytest.fixture
def start_training(start_job, tiny_pairs):
    """Starts jobs/train.py, or a program that takes its arguments, in a Ray session of its own."""

    def start(config, out, *arguments, program=("jobs/train.py",)):
        path = out.with_suffix(".yaml")
        path.write_text(config.to_yaml())
        return start_job(*program, "--config", path, "--data", tiny_pairs, "--out", out, *arguments)

    return start


def require_undisturbed(out, undisturbed, tolerance=0.0):
    """Everything as if nobody had disturbed the run, and no step told twice."""
    record = record_of(out)
    assert record["finished"] == "steps" and record["steps"] == STEPS
    assert load_checkpoint(out / "last").config.training["steps"] == STEPS
    require_told_once(out, VALIDATED)
    assert validations_of(out) == validations_of(undisturbed)
    require_same_state(saves_of(out)[-1], saves_of(undisturbed)[-1], tolerance)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_run_outlives_its_worker_and_then_its_driver(undisturbed, start_training, tiny, tmp_path):
    """The worker is killed and replaced; then the driver, and the command given again while others may still write."""
    out = tmp_path / "out"
    first = start_training(tiny(*LONG), out)
    first.until(lambda: saves_of(out))
    [worker] = training_processes(first.process.pid)
    worker.kill()
    first.until(lambda: "going on from step" in log_of(out))
    assert "worker 0 failed: its process died" in log_of(out)
    first.process.kill()
    assert record_of(out)["finished"] is None

    code, output = start_training(tiny(*LONG), out, "--resume").finish()
    assert code == 0, output
    assert "going on from step" in output and f"{STEPS} steps in" in output and "Traceback" not in output
    assert first.members() == []
    require_undisturbed(out, undisturbed)
    require_provenance(out, "jobs/train.py")
    sittings = json.loads((out / "provenance.json").read_text())["sittings"]
    assert [each["ended"] is not None for each in sittings] == [False, True]  # the sitting that was killed stays
    assert "--resume" not in sittings[0]["command"] and "--resume" in sittings[1]["command"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_ends_the_workers_and_says_how_to_go_on(start_training, tiny, tmp_path):
    out = tmp_path / "out"
    job = start_training(tiny(*LONG, "training.max_steps=100000", "training.validations=20000"), out)
    job.until(lambda: saves_of(out))
    os.killpg(job.process.pid, signal.SIGINT)  # as a terminal does: to all that are in the foreground
    code, output = job.finish()
    assert code == 130, output
    assert output.strip().splitlines()[-1].startswith("stopped; to go on from the last save, run the same")
    assert "--resume" in output and "Traceback" not in output
    deadline = time.monotonic() + 30
    while job.members() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert job.members() == []
    assert record_of(out)["finished"] is None
    assert fault_of(saves_of(out)[-1]) is None


# A cluster of two nodes in the driver's own process, with room for one worker on each until the second is gone, and
# for both on the first then; argv: where to write the second raylet's id, then the job's.
TWO_NODES = """
import os, sys, threading, time
from pathlib import Path
import psutil, ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from jobs.arguments import run_job
from jobs.train import main

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
second = cluster.add_node(num_cpus=2)
ray.init(address=cluster.address, log_to_driver=False)

@ray.remote(num_cpus=1)
class Tenant:
    def here(self):
        return True

def rent(node_id):
    tenant = Tenant.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote()
    ray.get(tenant.here.remote())
    return tenant

tenants = {node["NodeID"]: rent(node["NodeID"]) for node in ray.nodes()}
raylet = second.all_processes["raylet"][0].process
Path(sys.argv[1]).write_text(str(raylet.pid))

def make_room():
    raylet.wait()
    ray.kill(tenants[ray.get_runtime_context().get_node_id()])

threading.Thread(target=make_room, daemon=True).start()
run_job(lambda: main(sys.argv[2:]))
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_run_outlives_one_of_two_nodes(ray_cluster, start_training, tiny, tiny_pairs, tmp_path):
    """Two workers on two nodes, then on one, come to the end of one that was left alone.

    With AdamW: the workers' sums come in another order. That leaves a millionth in AdamW's weights, where a step left
    out leaves a hundredth; Muon's products in bfloat16 make 1.3% of it, nearly half of what such a step leaves.
    """
    out, undisturbed, adamw = tmp_path / "out", tmp_path / "undisturbed", (*LONG, "training.optimizer=adamw")
    train(tiny(*adamw), tiny_pairs, undisturbed, resume=False)
    job = start_training(tiny(*adamw, "training.workers=2"), out, program=("-c", TWO_NODES, tmp_path / "raylet"))
    job.until(lambda: saves_of(out))
    raylet = psutil.Process(int((tmp_path / "raylet").read_text()))
    workers = training_processes(job.process.pid)
    assert sorted(worker.ppid() == raylet.pid for worker in workers) == [False, True]
    assert record_of(out)["finished"] is None
    raylet.kill()  # its workers end when they notice
    code, output = job.finish()
    assert code == 0, output
    assert " failed: it" in log_of(out) and "going on from step" in log_of(out)
    record, expected = record_of(out), record_of(undisturbed)
    assert record["finished"] == "steps" and record["steps"] == STEPS
    require_told_once(out, VALIDATED)
    assert record["last"]["nelbo"] == pytest.approx(expected["last"]["nelbo"], rel=1e-4)
    found, expected = weights_of(out / "last"), weights_of(undisturbed / "last")
    nothing = {name: torch.zeros_like(weight) for name, weight in expected.items()}
    assert distance(found, expected) < 1e-4 * distance(nothing, expected)


def with_nan(pairs, folder, config, steps):
    """The same pairs, with no numbers in the first vector that is read at each of the given steps of an epoch."""
    shutil.copytree(pairs, folder)
    ids, batch = read_pairs(pairs, "train").ids, config.training.batch_size
    broken = {int(ids[batch_rows(len(ids), batch, step, config.training.seed)[0]]) for step in steps}
    for file in (folder / "split=train").glob("*.parquet"):
        table = pq.read_table(file)
        place = table.schema.get_field_index("embedding")
        vectors = matrix(table["embedding"], config.encoder.dim).copy()
        vectors[np.isin(table["id"].to_numpy(), list(broken))] = np.nan
        column = fixed_size_list(vectors, table.schema.field(place).type.value_type)
        pq.write_table(table.set_column(place, table.schema.field(place), column), file)
    return folder


FEW = ("training.max_steps=12", "training.validations=6", "training.batch_size=32", "training.max_skipped=3")


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_batches_without_a_finite_loss_are_skipped_and_counted(ray_cluster, tiny, tiny_pairs, tmp_path):
    """Two in a row and one alone, on two workers of which one has them: both skip the step."""
    config = tiny(*FEW, "training.workers=2", "training.optimizer=adamw", "training.zero_stage=2")
    pairs, out = with_nan(tiny_pairs, tmp_path / "pairs", config, (4, 5, 8)), tmp_path / "out"
    record = train(config, pairs, out, resume=False)
    assert record["skipped"] == 3 and record["steps"] == 12 and record["finished"] == "steps"
    assert "3 of the vectors are not finite" in log_of(out)
    assert "3 skipped" in log_of(out) and progress_of(out)[-1]["skipped"] == 3
    checkpoint = load_checkpoint(out / "last")
    assert all(bool(weight.isfinite().all()) for weight in checkpoint.model.state_dict().values())
    assert checkpoint.config.training["train_ids"] == identity_of(pairs)["train.ids"]  # of all of them


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_too_many_of_them_in_a_row_stop_the_run_with_what_was_good(ray_cluster, tiny, tiny_pairs, tmp_path, capfd):
    config = tiny(*FEW)
    pairs, out = with_nan(tiny_pairs, tmp_path / "pairs", config, range(7, 12)), tmp_path / "out"
    code = run(config, pairs, out)
    told = capfd.readouterr()
    assert code == 1
    last = told.err.strip().splitlines()[-1]
    assert last.startswith("error: no finite loss or gradient in 3 steps in a row, the last of them step 10; lower")
    assert f"{out}/checkpoint and {out}/last are from before" in last
    assert "Traceback" not in told.out + told.err
    assert "going on" not in log_of(out)  # not tried again
    assert record_of(out)["finished"] is None
    for name in ("checkpoint", "last"):
        weights = load_checkpoint(out / name).model.state_dict()
        assert all(bool(weight.isfinite().all()) for weight in weights.values())
    assert fault_of(saves_of(out)[-1]) is None


def run(config, pairs, out, *arguments):
    """jobs/train.py over its command line, in this process; returns its exit code."""
    path = out.with_suffix(".yaml")
    path.write_text(config.to_yaml())
    try:
        run_job(lambda: jobs.train.main(["--config", str(path), "--data", str(pairs), "--out", str(out), *arguments]))
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_mistake_that_only_a_worker_sees_is_told_in_a_sentence_at_once(
    ray_cluster, tiny, tiny_pairs, tmp_path, capfd
):
    code = run(tiny("training.batch_size=100000"), tiny_pairs, tmp_path / "out")
    told = capfd.readouterr()
    assert code == 2
    assert "do not fill one step of 100000; lower training.batch_size" in told.err.strip().splitlines()[-1]
    assert "Traceback" not in told.out + told.err
    assert log_of(tmp_path / "out").count("texts to learn from") == 1
    kept = (tmp_path / "out" / "failures.log").read_text()
    assert kept.startswith("--- worker 0, ") and "in batch_rows" in kept
    few = ("training.max_steps=2", "training.validations=1")
    assert run(tiny(*few), tiny_pairs, tmp_path / "out") == 0  # nothing was learnt with the mistake
    assert record_of(tmp_path / "out")["steps"] == 2
    # Ray Train leaves its own handler of Ctrl-C behind, which would swallow the next one.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB, in which the run's folder takes about 35."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def leave_free(disk, size):
    """Fills a disk up to a number of bytes."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - size)))


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_full_disk_ends_a_run_in_a_sentence_and_space_lets_it_go_on(
    undisturbed, tiny, tiny_pairs, tmp_path, small_disk, capfd
):
    """Full before the first byte, then after some saves, then large enough."""
    out, config = small_disk / "out", tiny(*LONG)
    leave_free(small_disk, 12 * 1024)
    full_disk_is_told(run(config, tiny_pairs, out, "--resume"), capfd.readouterr(), out)

    size = sum(path.stat().st_size for path in undisturbed.rglob("*") if path.is_file())
    save = sum(path.stat().st_size for path in saves_of(undisturbed)[-1].rglob("*") if path.is_file())
    leave_free(small_disk, size - save // 2)  # a third save does not fit beside two
    full_disk_is_told(run(config, tiny_pairs, out, "--resume"), capfd.readouterr(), out)
    kept = saves_of(out)
    assert kept and all(fault_of(folder) is None for folder in kept)
    for name in ("checkpoint", "last"):
        load_checkpoint(out / name)

    (small_disk / "ballast").unlink()
    code = run(config, tiny_pairs, out, "--resume")
    output = "".join(capfd.readouterr())
    assert code == 0, output
    assert "going on from step" in log_of(out)
    require_undisturbed(out, undisturbed)


def full_disk_is_told(code, told, out):
    assert code == 2, told.err
    last = told.err.strip().splitlines()[-1]
    assert last.startswith(
        f"error: {out}: cannot be written (No space left on device); free some space and run the same"
    )
    assert "Traceback" not in told.out + told.err
