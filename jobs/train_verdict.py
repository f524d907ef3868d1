"""What a failure on a worker means for the run: start the workers again, or stop and say why in a sentence.

Ray Train starts them again after any failure. That helps when a process or a node was lost, and not when a setting is
wrong, a disk is full or a line of code fails: the same would happen again, after minutes of doing the same steps. So
what is tried again is what is known to have been the machine's, and nothing else.
"""

import errno
import traceback
from datetime import datetime
from pathlib import Path

import ray.exceptions
import ray.train
import torch
import torch.distributed
from ray.train import ControllerError, UserCallback, WorkerGroupError
from ray.train.v2._internal.exceptions import RayTrainError

from jobs.arguments import RunStopped

NO_CURE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
FULL = "No space left on device"
DIED = "worker exit detail:"  # how Ray begins to say why a process is gone
FAILURES_FILE = "failures.log"

LOST_PEER = ("gloo/transport", "ncclremoteerror", "connection reset by peer", "connection closed by peer")
# Dead or unreachable processes, collectives that timed out, a failed exchange of tensors, a GPU with an error of its
# own, and a file system that did not answer.
MAY_PASS = (ray.exceptions.RayError, RayTrainError, torch.distributed.DistError, torch.AcceleratorError, OSError)


class NoSecondTry(UserCallback):
    """Ends the run at once where starting the workers again cannot help; notes in the log where it may.

    Args:
        log: the run's log.
    """

    def __init__(self, log: Path) -> None:
        self.log = log

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Called on Ray Train's controller. What it raises ends the run, as a ControllerError."""
        for error in worker_exceptions.values():
            if not is_curable(error):
                raise error
        rank, error = min(worker_exceptions.items())
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"worker {rank} failed: {sentence_of(error)}\n")


def is_curable(error: BaseException) -> bool:
    """Whether the same work may succeed when it is started again."""
    if not isinstance(error, Exception):
        return True  # somebody ended the process
    if FULL in str(error) or isinstance(error, (ValueError, RunStopped, torch.OutOfMemoryError)):
        return False
    if isinstance(error, OSError) and error.errno in (*NO_CURE, errno.ENOENT):
        return False
    return isinstance(error, MAY_PASS) or _lost_peer(error)


def note_failure(path: Path, rank: int, error: BaseException) -> None:
    """Adds a worker's traceback to a file, which is the only place where it is kept.

    Raises:
        OSError: it cannot be written.
    """
    lines = traceback.format_exception(error)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"--- worker {rank}, {datetime.now():%Y-%m-%d %H:%M:%S}\n{''.join(lines)}\n")


def verdict(error: ray.train.TrainingFailedError, out: Path) -> Exception:
    """The error to end the job with.

    Args:
        error: what Ray Train raised.
        out: the run's folder.

    Returns:
        A ValueError for what a user can mend, and a RunStopped for anything else; both in one sentence.
    """
    again = "run the same command again with --resume"
    cause = _cause(error)
    if FULL in str(cause):
        return ValueError(f"{out}: cannot be written ({FULL}); free some space and {again}")
    if isinstance(cause, OSError) and cause.errno in NO_CURE:
        what = f"cannot be written ({cause.strerror}); check the disk and its permissions"
        return ValueError(f"{out}: {what} and {again}")
    if isinstance(cause, torch.OutOfMemoryError):
        return ValueError(
            "a step does not fit into the GPU's memory: raise training.gradient_accumulation or set "
            f"training.activation_checkpointing true and {again}, or choose another --out with a smaller "
            "training.batch_size"
        )
    if isinstance(cause, (ValueError, RunStopped)):
        return type(cause)(str(cause).strip().splitlines()[0])
    died = f"training ended before its time: {sentence_of(cause)}"
    failures = out / FAILURES_FILE
    where = f"{out / 'train.log'}{f' and the traceback in {failures}' if failures.is_file() else ''}"
    return RunStopped(f"{died}; see {where}, and to go on from the last save {again}")


def sentence_of(error: BaseException) -> str:
    """What happened to a worker, in one sentence; an error that is not known here begins with its type."""
    error = getattr(error, "health_check_failure", error)
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "its node or its process cannot be reached any more"
    if _lost_peer(error):
        return "it lost another worker"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        place = line.lower().find(DIED)
        if place >= 0:
            return f"its process died ({line[place + len(DIED) :].strip().split('. ')[0]})"
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def _lost_peer(error: BaseException) -> bool:
    """Whether a worker says that another one is gone; gloo only says it in the words of a RuntimeError."""
    return any(word in str(error).lower() for word in LOST_PEER)


def _cause(error: BaseException) -> BaseException:
    """What Ray Train's own errors were raised for; of several workers' errors, the one that the others follow from."""
    if isinstance(error, ControllerError):
        return error.controller_failure
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        failures = list(error.worker_failures.values())
        return next((failure for failure in failures if not is_curable(failure)), failures[0])
    return error
