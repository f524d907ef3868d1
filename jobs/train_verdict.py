"""What a failure on a worker means for the run: start the workers again, or stop and say why in a sentence.

Ray Train starts them again after any failure. That helps when a process or a node was lost, and not when a setting is
wrong, a disk is full or the loss is not finite: the same would happen again, after minutes of doing the same steps.
"""

import errno
from pathlib import Path

import ray.exceptions
import ray.train
from ray.train import ControllerError, UserCallback, WorkerGroupError

from jobs.arguments import RunStopped

NO_CURE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
FULL = "No space left on device"
DIED = "worker exit detail:"  # how Ray begins to say why a process is gone

LOST_PEER = ("gloo/transport", "ncclRemoteError", "Connection reset by peer", "Connection closed by peer")


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
    if FULL in str(error) or isinstance(error, (ValueError, RunStopped)):
        return False
    return not (isinstance(error, OSError) and error.errno in NO_CURE)


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
    if isinstance(cause, (ValueError, RunStopped)):
        return type(cause)(str(cause).strip().splitlines()[0])
    died = f"training ended before its time: {sentence_of(cause)}"
    return RunStopped(f"{died}; see {out / 'train.log'}, and to go on from the last save {again}")


def sentence_of(error: BaseException) -> str:
    """What happened to a worker, in one sentence."""
    error = getattr(error, "health_check_failure", error)
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "its node or its process cannot be reached any more"
    if any(word in str(error) for word in LOST_PEER):
        return "it lost another worker"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        place = line.lower().find(DIED)
        if place >= 0:
            return f"its process died ({line[place + len(DIED) :].strip().split('. ')[0]})"
    return lines[-1] if lines else type(error).__name__


def _cause(error: BaseException) -> BaseException:
    """What Ray Train's own errors were raised for."""
    if isinstance(error, ControllerError):
        return error.controller_failure
    if isinstance(error, WorkerGroupError):
        return next(iter(error.worker_failures.values()), error)
    return error
