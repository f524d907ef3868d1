"""jobs/train_verdict.py: which failures of a worker are tried again, and what is said of the others."""

import errno
import pickle

import pytest
import ray.exceptions
import torch
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError

from jobs.arguments import RunStopped
from jobs.train_verdict import NoSecondTry, is_curable, note_failure, sentence_of, verdict

FULL_DISK = OSError(errno.ENOSPC, "No space left on device")
PYARROW_S_FULL_DISK = OSError("Error writing bytes to file. Detail: [errno 28] No space left on device")
GLOO = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:897: GLHF!")
UNAVAILABLE = ray.exceptions.ActorUnavailableError("RpcError: Connection refused", None)
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    "error",
    [
        FULL_DISK,
        PYARROW_S_FULL_DISK,
        ValueError("lower it"),
        RunStopped("no"),
        PermissionError(13, "denied"),
        FileNotFoundError(2, "absent"),
        NO_MEMORY,
        AssertionError(),
        KeyError("step"),
        TypeError("not that"),
        RuntimeError("Error(s) in loading state_dict: size mismatch"),
    ],
    ids=repr,
)
def test_what_would_happen_again_is_not_tried_again(error):
    assert not is_curable(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Connection closed by peer"),
        GLOO,
        torch.distributed.DistBackendError("NCCL error in: ncclSystemError"),
        ConnectionResetError(104, "reset"),
        OSError(errno.ESTALE, "Stale file handle"),
        ray.exceptions.ActorDiedError(),
        UNAVAILABLE,
        WorkerHealthCheckTimeoutError("no answer"),
    ],
    ids=repr,
)
def test_what_may_have_been_a_lost_process_is_tried_again(error):
    assert is_curable(error)


def test_of_several_workers_errors_the_one_that_ends_the_run_is_told(tmp_path):
    failed = WorkerGroupError("", {0: GLOO, 1: KeyError("step")})
    assert "KeyError: 'step'" in str(verdict(failed, tmp_path))
    with pytest.raises(KeyError, match="step"):
        NoSecondTry(tmp_path / "train.log").after_exception(None, failed.worker_failures)
    assert not (tmp_path / "train.log").exists()


def test_what_is_tried_again_is_noted_in_the_log(tmp_path):
    NoSecondTry(tmp_path / "train.log").after_exception(None, {1: UNAVAILABLE, 0: GLOO})
    assert (tmp_path / "train.log").read_text() == "worker 0 failed: it lost another worker\n"


@pytest.mark.parametrize("wrap", [ControllerError, lambda error: WorkerGroupError("", {1: error})])
def test_the_end_of_a_run_is_told_in_a_sentence(tmp_path, wrap):
    told = verdict(wrap(ValueError("lower training.batch_size\nand more")), tmp_path)
    assert type(told) is ValueError and str(told) == "lower training.batch_size"
    for full in (FULL_DISK, PYARROW_S_FULL_DISK):
        told = verdict(wrap(full), tmp_path)
        assert str(told).startswith(f"{tmp_path}: cannot be written (No space left on device); free some space")
        assert str(told).endswith("run the same command again with --resume")
    told = verdict(wrap(PermissionError(errno.EACCES, "Permission denied")), tmp_path)
    assert type(told) is ValueError and "(Permission denied); check the disk and its permissions" in str(told)
    assert type(verdict(wrap(RunStopped("not finite")), tmp_path)) is RunStopped
    told = verdict(wrap(RuntimeError("sizes\nof two tensors differ")), tmp_path)
    assert type(told) is RunStopped
    assert f"before its time: RuntimeError: of two tensors differ; see {tmp_path}/train.log, and to go" in str(told)


def test_a_gpu_whose_memory_is_full_is_told_with_every_way_out(tmp_path):
    travelled = pickle.loads(pickle.dumps(NO_MEMORY))  # noqa: S301
    told = verdict(WorkerGroupError("", {0: travelled}), tmp_path)
    assert type(told) is ValueError
    for name in ("batch_size", "gradient_accumulation", "activation_checkpointing true", "--resume"):
        assert name in str(told)


def test_a_worker_s_traceback_is_kept_in_a_file_that_the_sentence_names(tmp_path):
    failures = tmp_path / "failures.log"
    for rank in (0, 1):
        try:
            {}["step"]
        except KeyError as error:
            note_failure(failures, rank, error)
            failed = error
    kept = failures.read_text()
    assert kept.count("Traceback (most recent call last)") == 2 and kept.count('{}["step"]') == 2
    assert "--- worker 0, " in kept and "--- worker 1, " in kept
    told = verdict(WorkerGroupError("", {0: failed}), tmp_path)
    assert f"KeyError: 'step'; see {tmp_path}/train.log and the traceback in {failures}, and" in str(told)


def test_ray_s_words_about_a_dead_process_become_a_sentence():
    error = RuntimeError(
        "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker\n"
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
        "Worker unexpectedly exits with a connection error code 2. End of file. Some more potential root causes."
    )
    expected = "its process died (Worker unexpectedly exits with a connection error code 2)"
    assert sentence_of(error) == expected


def test_a_worker_that_outlived_another_says_so():
    assert sentence_of(GLOO) == "it lost another worker"
    assert sentence_of(UNAVAILABLE) == "its node or its process cannot be reached any more"
