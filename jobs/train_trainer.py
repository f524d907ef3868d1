"""Ray Train's trainer without two of its callbacks: one can end a healthy run, the other hides the user's files.

PlacementGroupCleanerCallback asks the API of "the" Ray cluster on this machine whether the run's controller is alive.
Where RAY_ADDRESS is not set and another cluster was started later, that one answers that it knows no such actor, and
the cleaner takes the workers' places away (seen with ray 2.60). It is there for drivers that go on after their
controller has died; ours end, and Ray frees what their job had.

WorkingDirectorySetupCallback moves each worker into a folder of its own, where a relative `data.tokenizer`,
`encoder.model` or `model.backbone` leads nowhere: it did in the driver, and on the workers of the encode job.
"""

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import WorkingDirectorySetupCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.callback import RayTrainCallback

UNWANTED = (PlacementGroupCleanerCallback, WorkingDirectorySetupCallback)


class Trainer(TorchTrainer):
    """A TorchTrainer that only its own controller can end, and whose workers stay where they were started."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, UNWANTED)]
