"""Places for the workers: whether the Ray cluster has them, and a line in the log while a run waits for them.

Ray Train asks for all places at once, and asks again without end where they do not come: right for a cluster that
grows, and silence for ever on a machine that has no more.
"""

import os
from pathlib import Path

from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import ReschedulingState, RunningState, TrainControllerState

from embinv.training.settings import TrainingSettings
from jobs.pool import nodes_with


def resources_of(settings: TrainingSettings) -> dict[str, float]:
    """What one worker reserves of Ray."""
    return {"CPU": 1, "GPU": 1} if settings.device == "cuda" else {"CPU": 1}


def require_places(settings: TrainingSettings) -> None:
    """Looks for a place for each worker in an open Ray session; says so where a cluster must grow first.

    Raises:
        ValueError: a machine of its own has fewer places; a cluster may yet grow.
    """
    needed = resources_of(settings)
    nodes = nodes_with(settings.accelerator)
    places = sum(min(int(node.get(name, 0) // share) for name, share in needed.items()) for node in nodes)
    if places >= settings.workers:
        return
    cuda = settings.device == "cuda"
    kind = f" of kind {settings.accelerator}" if settings.accelerator else ""
    what = f"GPU(s){kind} with a CPU each" if cuda else "CPU(s)"
    if os.environ.get("RAY_ADDRESS"):
        print(f"waiting until the Ray cluster, which has {places} {what}, has grown to {settings.workers}", flush=True)
        return
    raise ValueError(
        f"training.device {settings.device} with {settings.workers} worker(s), but this machine has {places} {what}; "
        f"set training.workers (--workers) to no more than that{', or training.device cpu' if cuda else ''}"
    )


class Waiting(ControllerCallback):
    """Notes in the run's log, once until they come, that workers find no place: after a lost node, for instance.

    Args:
        log: the run's log.
        workers: how many there are to be.
        resources: what each reserves.
    """

    def __init__(self, log: Path, workers: int, resources: dict[str, float]) -> None:
        each = " and ".join(f"{share:g} {name}" for name, share in resources.items())
        self.line = f"waiting: no place yet for {workers} worker(s) of {each} each; is the Ray cluster short of a node?"
        self.log, self.told = log, False

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        """Called on Ray Train's controller, whose next attempt to start the workers follows on a rescheduling."""
        if isinstance(current_state, RunningState):
            self.told = False
        elif isinstance(current_state, ReschedulingState) and not self.told:
            self.told = True
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{self.line}\n")
