"""MLflow, by its client: the package mlflow-skinny is enough.

Where the server is and who asks come from MLflow's own environment variables (MLFLOW_TRACKING_URI,
MLFLOW_TRACKING_TOKEN, MLFLOW_EXPERIMENT_NAME and others). Without a server, the run's folder holds a database, to be
looked at with `mlflow ui --backend-store-uri sqlite:////FOLDER/mlflow.db`, and artifacts beside it.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embinv.training.tracking import RunMemory, TrackedRun, markdown

EXPERIMENT = "embinv"
MEMORY_FILE = "mlflow-run.json"
DATABASE, ARTIFACTS = "mlflow.db", "mlflow-artifacts"
PARAMETERS_AT_ONCE, METRICS_AT_ONCE = 100, 1000  # MLflow's own limits
SEND_EVERY = 10.0  # seconds
ATTEMPTS, TIMEOUT = "2", "20"  # of a request, in place of 7 and 120 s: training waits for it


class MLflowTracker:
    """One MLflow run. It is found again by the id in the run's folder, and goes on."""

    def __init__(self, run: TrackedRun) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", ATTEMPTS)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        # ImportError: a database or an object store may need a package of its own
        self.failures: tuple[type[Exception], ...] = (MlflowException, OSError, ImportError)
        self.memory = RunMemory(run.folder / MEMORY_FILE)
        self._waiting: list[tuple[int, int, str, float]] = []  # (milliseconds, step, figure, value)
        self._sent = time.monotonic()
        server = os.environ.get("MLFLOW_TRACKING_URI")
        # a server knows where artifacts belong; on its own, MLflow would take whatever folder the process is in
        self.artifacts = None if server else (run.folder.absolute() / ARTIFACTS).as_uri()
        try:
            self.client = MlflowClient(server or f"sqlite:///{run.folder.absolute() / DATABASE}")
            if self.memory.id is None:
                self.memory.keep_id(self._new_run(run))
            else:
                self.client.update_run(self.run_id, status="RUNNING")
        except self.failures as error:
            raise ConnectionError(str(error)) from error

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        assert self.memory.id is not None
        return self.memory.id

    def _new_run(self, run: TrackedRun) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment = self.client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name, self.artifacts)
        run_id = self.client.create_run(experiment_id, run_name=run.name).info.run_id
        parameters = [Param(key, str(value)) for key, value in flattened(run.settings)]
        for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
            self.client.log_batch(run_id, params=parameters[start : start + PARAMETERS_AT_ONCE])
        return run_id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures wait about SEND_EVERY, since training waits for every request; a table takes them along."""
        if time.monotonic() - self._sent >= SEND_EVERY:
            self._send()  # first: if it fails, the figures of this call are given again
        now = int(time.time() * 1000)
        self._waiting += [(now, step, name, values[name]) for name in self.memory.unseen(step, values)]

    def _send(self) -> None:
        from mlflow.entities import Metric

        while self._waiting:
            points = self._waiting[:METRICS_AT_ONCE]
            metrics = [Metric(allowed_name(name), value, now, step) for now, step, name, value in points]
            self.client.log_batch(self.run_id, metrics=metrics)
            self.memory.note({name: step for _, step, name, _ in points})
            del self._waiting[: len(points)]
        self._sent = time.monotonic()

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Writes an artifact NAME/step-STEP.md; a step that is made again writes the same one."""
        self._send()
        self.client.log_text(self.run_id, markdown(columns, rows), f"{name}/step-{step:08}.md")

    def picture(self, step: int, name: str, path: Path) -> None:
        self.client.log_artifact(self.run_id, str(path))

    def close(self, finished: bool) -> None:
        self._send()
        self.client.set_terminated(self.run_id, "FINISHED" if finished else "FAILED")


def allowed_name(name: str) -> str:
    """A figure's name in the letters that MLflow takes."""
    return name.replace("%", " percent")


def flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings as (section.key, value)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
