"""What the tests of the train job look at in a run's folder, and what they do to it."""

import json
import math
import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager

import psutil
import torch
from safetensors.torch import load_file

from embinv.training.examples import EXAMPLES

WAIT_S = 300


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def distance(one, other):
    """Euclidean, over all weights of `one`."""
    return math.sqrt(sum(float((weight - other[name]).square().sum()) for name, weight in one.items()))


def record_of(out):
    return json.loads((out / "_run.json").read_text())


def log_of(out):
    log = out / "train.log"
    return log.read_text() if log.exists() else ""


def progress_of(out):
    return [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]


def require_told_once(out, validated):
    """No step is told twice, and all of these, which were validated, are told to the last text."""
    steps = [row["step"] for row in progress_of(out)]
    assert steps == sorted(set(steps)) and steps[-1] == validated[-1]
    told = [json.loads(line)["step"] for line in (out / "examples.jsonl").read_text().splitlines()]
    assert told == [step for step in validated for _ in range(EXAMPLES)]


def validations_of(out):
    """The lines of the log, without those that were told twice."""
    return {line for line in log_of(out).splitlines() if "validation:" in line}


def saves_of(out):
    """Complete saves, the oldest first."""
    return sorted(marker.parent for marker in out.glob("state-*/step-*/complete"))


def states_of(save):
    """All that a save holds, as tensors and plain values, without what the clock says."""
    found = {path.name: torch.load(path, weights_only=False) for path in sorted((save / "state").glob("*.pt"))}
    run = json.loads((save / "run.json").read_text())
    del run["seconds"]
    run["history"] = [{name: value for name, value in row.items() if name != "seconds"} for row in run["history"]]
    return {**found, "ema": load_file(save / "ema.safetensors"), "run": run}


def leaves_of(tree, path=()):
    """(path, leaf) of nested dicts and lists."""
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, (list, tuple)):
        items = enumerate(tree)
    else:
        yield path, tree
        return
    for key, value in items:
        yield from leaves_of(value, (*path, key))


def require_same_state(found, expected, tolerance=0.0):
    """Two saves hold the same: bit for bit, or with floats up to a tolerance."""
    found, expected = dict(leaves_of(states_of(found))), dict(leaves_of(states_of(expected)))
    assert found.keys() == expected.keys()
    tensors = 0
    for path, value in expected.items():
        if torch.is_tensor(value):
            assert torch.allclose(found[path].double(), value.double(), rtol=tolerance, atol=tolerance), path
            tensors += value.numel() > 1
        elif isinstance(value, float) and tolerance:
            assert abs(found[path] - value) <= tolerance * max(1.0, abs(value)), path
        elif isinstance(value, (str, int, float, bool, type(None))):
            assert found[path] == value, path
    assert tensors > 20  # weights, two moments, moving average


def wind_back(out, to, keep):
    """A copy of a finished run's folder, as if its driver had died after the save `keep`."""
    shutil.copytree(out, to, ignore=shutil.ignore_patterns("state-*"))
    storage = to / keep.parent.name
    shutil.copytree(keep, storage / keep.name)
    record = record_of(to) | {"finished": None, "steps": 0}
    (to / "_run.json").write_text(json.dumps(record))
    return to


def flip_bit(path, place=0.5, bit=3):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1 << bit
    path.write_bytes(content)


def training_processes(parent=None):
    """Ray Train's workers below a process, this one by default."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if process.name().startswith("ray::RayTrainWorker") or "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue  # ended meanwhile
    return found


@contextmanager
def killer(out, after, which=0):
    """SIGKILLs one worker of a run in this process's cluster, once, when it has saved `after` times."""
    done, killed = threading.Event(), []

    def kill():
        deadline = time.monotonic() + WAIT_S
        while not done.is_set() and time.monotonic() < deadline:
            if len(saves_of(out)) >= min(after, 2) and log_of(out).count("validation:") >= after:
                workers = sorted(training_processes(), key=lambda process: process.pid)
                if workers:
                    os.kill(workers[which].pid, signal.SIGKILL)
                    killed.append(workers[which].pid)
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


@contextmanager
def shelf(out, folder):
    """Copies each save of a run before it is deleted; yields a dict of step -> copy."""
    done, kept = threading.Event(), {}

    def look():
        for save in saves_of(out):
            step = int(save.name.split("-")[1])
            if step not in kept:
                kept[step] = shutil.copytree(save, folder / save.parent.name / save.name, copy_function=os.link)

    def watch():
        while not done.wait(0.02):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield kept
    finally:
        done.set()
        thread.join()
        look()
